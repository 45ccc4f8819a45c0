"""Parameters of components of Student's t, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.degenerate import Degenerate
from ...core.formula import Formula, Operators, V
from ...core.tuning import tuning
from ...core.validation import require, require_close
from ..gaussian.covariance import ROUNDING
from ..gaussian.degenerate import degenerate_warnings
from .degrees import information, level
from .scales import Scales


@dataclass(frozen=True)
class StudentTParameters:
    """Hold locations, scale matrices and degrees of freedom of K components.

    Attributes
    ----------
    scales : Scales
        Locations and scale matrices, in whitened coordinates.
    log_df : (k,) array
        Logarithms of the degrees of freedom; from `tuning().student_t.normal_df` on the
        distribution is the normal one, to rounding.
    fixed : bool
        Whether the M-step leaves the degrees of freedom alone.
    shared : bool
        Whether all components have the same.
    """

    scales: Scales
    log_df: Array
    fixed: bool = False
    shared: bool = False

    @property
    def df(self) -> Array:
        """Degrees of freedom, (k,), all of them finite."""
        return np.exp(self.log_df)

    @property
    def shown_df(self) -> Array:
        """Degrees of freedom, (k,), infinite where the distribution is the normal one."""
        most = tuning().student_t.normal_df
        return np.where(self.log_df >= np.log(most) - 1e-9, np.inf, self.df)

    @property
    def n_components(self) -> int:
        return self.scales.n_components

    @property
    def n_features(self) -> int:
        return self.scales.n_features

    @property
    def kind(self) -> str:
        """The constraint of the scale matrices."""
        return self.scales.kind

    @property
    def structure(self) -> str:
        """The constraints in words."""
        degrees = "fixed" if self.fixed else "shared" if self.shared else "free"
        return f"{self.kind} scale matrices, {degrees} degrees of freedom"

    @property
    def n_parameters(self) -> int:
        return self.scales.n_parameters + self._n_free

    def holding(self, of: Self, held: Mapping[str, Sequence[int]]) -> Self:
        """Return these components with the locations of `of` that are held."""
        return replace(self, scales=self.scales.holding(of.scales, held))

    def n_held(self, held: Mapping[str, Sequence[int]]) -> int:
        """Count the coordinates of locations that are held."""
        return self.scales.n_held(held)

    @property
    def _n_free(self) -> int:
        """How many degrees of freedom are estimated."""
        return 0 if self.fixed else 1 if self.shared else len(self.log_df)

    @property
    def nbytes(self) -> int:
        return int(self.scales.nbytes + self.log_df.nbytes)

    @property
    def statistics_bytes(self) -> int:
        # Of a component: u - 1, a logarithm, three powers, and a value.
        return self.scales.statistics_bytes + 6 * self.log_df.nbytes

    def arrays(self) -> dict[str, Array]:
        """Return locations, Cholesky factors and degrees of freedom, by name."""
        return {**self.scales.arrays(), "log_df": self.log_df}

    def parameters(self) -> dict[str, Array]:
        """Return locations, scale matrices and degrees of freedom, in the units of the data."""
        shown = self.attributes()
        own = {"means": shown["means_"], "scales": shown["scales_"]}
        return {**own, "degrees_of_freedom": self.df}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such parameters in the units of the data.

        Raises
        ------
        ValueError
            Scale matrices are not positive definite, or degrees of freedom not those allowed.
        """
        df, scales = given["degrees_of_freedom"], given["scales"]
        require("degrees_of_freedom", df, bool((df > 0).all()))
        same = bool(np.ptp(df) == 0 and (not self.fixed or np.allclose(df, self.df)))
        if (self.fixed or self.shared) and not same:
            raise ValueError(
                "degrees_of_freedom differ from df, or among components, which share them where "
                "shared_df is True"
            )
        if self._one_matrix:
            scales = np.repeat(scales[None], self.n_components, axis=0)
        found = self.scales.with_parameters({"means": given["means"], "covariances": scales})
        most = tuning().student_t.normal_df
        return replace(self, scales=found, log_df=np.log(np.minimum(df, most)))

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write level - (nu + d) / 2 log(1 + delta / nu)."""
        df, d = self.df, self.n_features
        logs = operators.log1p(operators.scaled(self.scales.distances(operators, rows), 1 / df))
        half = -(df + d) / 2
        return Formula(operators.scaled(logs, half, -(self.scales.log_peaks + level(df, d)) / half))

    def attributes(self) -> dict[str, Array]:
        """Return locations and scale matrices by the names of an estimator's attributes."""
        means, covariance = self.scales.data_coordinates()
        scales = covariance.covariances
        return {"means_": means, "scales_": scales[0] if self._one_matrix else scales}

    def attribute_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `attributes`."""
        shape = self.scales.covariance.factor.shape
        means = self.scales.means.shape
        return {"means_": means, "scales_": shape[1:] if self._one_matrix else shape}

    @property
    def _one_matrix(self) -> bool:
        return self.scales.one_matrix

    def check_attributes(self, found: Mapping[str, Array]) -> None:
        """Raise `ValueError` where arrays of a file are not `attributes`, but for rounding."""
        means, covariance = self.scales.data_coordinates()
        widths = np.sqrt(covariance.variances(self.n_features))
        require_close("means_", found["means_"], means, 1e-6 * widths + 1e-12 * np.abs(means))
        scales = self.attributes()["scales_"]
        largest = covariance.magnitude(scales)
        require_close("scales_", found["scales_"], scales, ROUNDING * largest)

    def to_unconstrained(self) -> Array:
        """Return locations, factors, and those logarithms of degrees of freedom that are free."""
        free = self.log_df[: self._n_free]
        return np.concatenate([self.scales.to_unconstrained(), free])

    def information_scale(self, root_weights: Array) -> Array:
        """Return about the root of the information, (p,)."""
        of_scales = self.scales.information_scale(root_weights)
        of_df = root_weights * np.sqrt(information(self.df, self.n_features))
        if self.shared:
            of_df = np.sqrt((of_df**2).sum(keepdims=True))
        return np.concatenate([of_scales, of_df[: self._n_free]])

    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d) in whitened coordinates."""
        return self.scales.coordinates(X)

    def moments(self) -> tuple[Array, Array]:
        """Return location and variance of each column in each component, (k, d) both.

        The location is the mean where there is one, of more than one degree of freedom. The
        variance nu / (nu - 2) times the scale is infinite up to two of them.
        """
        means, scales = self.scales.moments()
        with np.errstate(divide="ignore"):
            factor = np.where(self.df > 2, self.df / np.maximum(self.df - 2, 0.0), np.inf)
        return means, scales * factor[:, None]

    def widths(self) -> Array:
        """Return standard deviations, (k, d), or those of normals of the same quartiles.

        The latter up to two degrees of freedom, where the variance is infinite.
        """
        from scipy.special import stdtrit

        variances, scales = self.moments()[1], self.scales.moments()[1]
        quartile = stdtrit(self.df, 0.75) / stdtrit(np.inf, 0.75)
        by_quartiles = quartile[:, None] * np.sqrt(scales)
        return np.where(np.isfinite(variances), np.sqrt(variances), by_quartiles)

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations of one component's scale matrix between m columns, (m, m)."""
        return self.scales.correlations(component, columns)

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        means, scales = self.scales.moments()
        df, width = self.df[:, None], np.sqrt(scales[:, column, None])
        squares = ((x - means[:, column, None]) / width) ** 2
        constant = level(self.df, 1)[:, None] - 0.5 * np.log(2 * np.pi) - np.log(width)
        return np.asarray(np.exp(constant - (df + 1) / 2 * np.log1p(squares / df)))

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that are as narrow as the ridge where the data are not."""
        return self.scales.degenerate(weights)

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components are degenerate, where, and what to do."""
        found = self.degenerate(weights)
        return degenerate_warnings(found, weights, self.n_features, self.scales.ridge, called)
