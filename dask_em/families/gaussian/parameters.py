"""Parameters of Gaussian components, and the error bounds by which a kernel is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.degenerate import Degenerate
from ...core.formula import Formula, Operators, V
from ...core.support import REAL, Support
from ...core.tuning import tuning
from ...core.validation import require_array, require_close
from .covariance import Covariance
from .degenerate import degenerate_components, degenerate_warnings
from .matrices import Full
from .minorants import Minorants, most_directions, thin_directions
from .whitening import Whitening, apply_scale


@dataclass(frozen=True)
class GaussianParameters:
    """Hold means and covariances of K components in whitened coordinates.

    Attributes
    ----------
    means : (k, d) array
    covariance : Covariance
    whitening : Whitening
        The map from whitened coordinates to those of the data.
    ridge : float
        What the M-step adds to each variance, in squared units of the data
        (scikit-learn's `reg_covar`).
    """

    means: Array
    covariance: Covariance
    whitening: Whitening
    ridge: float = 0.0

    @property
    def n_components(self) -> int:
        return len(self.means)

    @property
    def n_features(self) -> int:
        return int(self.means.shape[1])

    @property
    def amplification(self) -> float:
        """How many times the features kernel magnifies rounding errors, at most.

        The largest, over components, of (squared distance from the origin to the
        component's rows) x (largest eigenvalue of its precision): the cancellation in
        Sigma = E[z z^T] - mu mu^T and in the expanded quadratic form.
        """
        reach = (self.means**2).sum(1) + self.covariance.traces(self.n_features)
        return float((reach * self.covariance.tightness()).max())

    @property
    def features_are_safe(self) -> bool:
        """Whether the features kernel keeps its errors below `ALLOWED_LOSS`."""
        # `not (x > limit)` would call NaN safe.
        return bool(np.finfo(np.float64).eps * self.amplification <= tuning().numerics.allowed_loss)

    @property
    def single_loss(self) -> float:
        """The share of the tightest width that float32 loses of a deviation, about.

        Rounding moves a row by eps times its distance from the origin, in a random
        direction: by 1/sqrt(d) of that along the tightest one.
        """
        return float(np.finfo(np.float32).eps * np.sqrt(self.amplification / self.n_features))

    @property
    def single_is_safe(self) -> bool:
        """Whether float32 keeps what deviations lose below `SINGLE_LOSS` of a width."""
        return self.single_loss <= tuning().numerics.single_loss

    @cached_property
    def spreads(self) -> Array:
        """Whitened covariances, whatever is stored of them, (k, d, d)."""
        return self.covariance.full(*self.means.shape)

    @cached_property
    def minorants(self) -> Minorants:
        """Diagonals below the precisions, of full or diagonal covariances."""
        return Minorants.of(self.means, self.covariance)

    @cached_property
    def thin_directions(self) -> Array:
        """Directions (k, q, d) in which components of full covariances are thinnest."""
        assert isinstance(self.covariance, Full)
        return thin_directions(self.covariance, most_directions(self.n_features))

    def data_coordinates(self) -> tuple[Array, Covariance]:
        """Return means (k, d) and covariances in the units of the data."""
        return self.whitening.unwhiten(self.means), self.covariance.scaled(self.whitening.scale)

    def parameters(self) -> dict[str, Array]:
        """Return means and covariances in the units of the data."""
        means, covariance = self.data_coordinates()
        return {"means": means, "covariances": covariance.covariances}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of means and covariances in the units of the data.

        Raises
        ------
        ValueError
            Covariances are not positive definite.
        """
        covariance = _of_given(self.covariance, given["covariances"], len(self.means))
        covariance = covariance.scaled(self.whitening.inverse_scale)
        return replace(self, means=self.whitening.whiten(given["means"]), covariance=covariance)

    @property
    def formula_support(self) -> Support:
        """Rows that are whole: which columns are observed is no part of a formula."""
        return REAL

    def distances(self, operators: Operators[V], rows: V) -> V:
        """Write the squared Mahalanobis distances of rows from the means."""
        means, covariance = self.data_coordinates()
        return operators.distances(rows, means, covariance.roots(*means.shape))

    @property
    def log_peaks(self) -> Array:
        """Log-densities at the means, (k,)."""
        k, d = self.means.shape
        log_dets = np.broadcast_to(self.covariance.log_det(d), (k,))
        return np.asarray(-0.5 * d * np.log(2 * np.pi) - log_dets - self.whitening.log_det)

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write log N(x; mu_k, Sigma_k)."""
        distances = self.distances(operators, rows)
        half = np.full(len(self.means), -0.5)
        return Formula(operators.scaled(distances, half, 2 * self.log_peaks))

    def attributes(self) -> dict[str, Array]:
        """Return means, covariances and precisions by the names of scikit-learn's attributes."""
        means, covariance = self.data_coordinates()
        return {
            "means_": means,
            "covariances_": covariance.covariances,
            "precisions_cholesky_": covariance.precisions_cholesky,
            "precisions_": covariance.precisions,
        }

    def attribute_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `attributes`: no matrix is inverted for them."""
        factor = self.covariance.factor.shape
        return {
            "means_": self.means.shape,
            "covariances_": factor,
            "precisions_cholesky_": factor,
            "precisions_": factor,
        }

    def check_attributes(self, found: Mapping[str, Array]) -> None:
        """Raise `ValueError` where arrays of a file are not `attributes`, but for rounding."""
        means, covariance = self.data_coordinates()
        widths = np.sqrt(covariance.variances(self.n_features))
        require_close("means_", found["means_"], means, 1e-6 * widths + 1e-12 * np.abs(means))
        covariance.check_attributes(found)

    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d) in whitened coordinates."""
        return self.whitening.whiten(X)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        means, covariance = self.data_coordinates()
        return means, np.broadcast_to(covariance.variances(self.n_features), means.shape).copy()

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations of one component between m columns, (m, m)."""
        # Of one component: those of all would be K matrices, where diagonals are stored.
        own = self.covariance.take([component]).scaled(self.whitening.scale)
        chosen = own.full(1, self.n_features)[0][np.ix_(columns, columns)]
        widths = np.sqrt(np.diagonal(chosen))
        return np.asarray(chosen / np.outer(widths, widths))

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that are as narrow as the ridge where the data are not."""
        scale = self.whitening.scale
        apart = apply_scale(scale, self.means.T).T
        covariance = self.covariance.scaled(scale)
        shift = self.whitening.shift
        return [*degenerate_components(weights, apart, shift, covariance, self.ridge)]

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components are degenerate, where, and what to do."""
        found = self.degenerate(weights)
        return degenerate_warnings(
            found, weights, self.n_features, self.ridge, called, remedies=True
        )

    def arrays(self) -> dict[str, Array]:
        """Return the means and the Cholesky factors, by name."""
        return {"means": self.means, "factor": self.covariance.factor}

    def to_unconstrained(self) -> Array:
        """Return means, and factors with the logarithm of their diagonals, (p,)."""
        factor = self.covariance.factor.copy()
        diagonal = self.covariance.positive(factor)
        diagonal[:] = np.log(diagonal)
        return np.concatenate([self.means.ravel(), factor.ravel()])

    def information_scale(self, root_weights: Array) -> Array:
        """Return the root of a weight, over a width where the number is a length, (p,)."""
        widths = np.sqrt(self.covariance.variances(self.n_features))
        of_factor = self.covariance.information_scale(root_weights)
        return np.concatenate([(root_weights[:, None] / widths).ravel(), of_factor.ravel()])


def _of_given(like: Covariance, covariances: Array, k: int) -> Covariance:
    """Return the covariances of k components that somebody gave, stored as those of `like`.

    Raises
    ------
    ValueError
        They are not symmetric, or not positive definite.
    """
    require_array("covariances", covariances, like.factor.shape)
    if like.whitening_kind == "matrix":
        mirrored = np.swapaxes(covariances, -1, -2)
        widths = np.sqrt(np.abs(np.diagonal(covariances, axis1=-2, axis2=-1)))
        # Products in float32 leave mirror images that differ by as much of the widths.
        allowed = 1e-6 * widths[..., :, None] * widths[..., None, :]
        if (np.abs(covariances - mirrored) > allowed).any():
            raise ValueError(
                "covariances must be symmetric matrices, got numbers that are "
                f"{np.abs(covariances - mirrored).max():.5g} from their mirror images"
            )
        covariances = (covariances + mirrored) / 2
    found, singular = like.factorized(covariances, k)
    if singular:
        raise ValueError(
            f"covariances of the components {list(singular)} are not positive definite: expected "
            "variances above 0, of matrices in every direction"
        )
    return found
