"""Parameters of factor analyzers, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.degenerate import Degenerate
from ...core.formula import Formula, Operators, V
from ...core.validation import require, require_array
from ..gaussian.degenerate import degenerate_components, degenerate_warnings
from ..gaussian.diagonals import Diagonal
from ..gaussian.whitening import Whitening
from .constraints import FactorConstraint


@dataclass(frozen=True)
class FactorParameters:
    """Hold means, loadings and noise of K components, in columns that are shifted and scaled.

    Attributes
    ----------
    means : (k, d) array
    loadings : (k, d, q) array
        Lambda_k; equal where components share them.
    log_noise : (k, d) or (k, 1) array
        Logarithms of the diagonal of Psi_k, or of the one number on it.
    whitening : Whitening
        One scale a column, or of isotropic noise one scale.
    ridge : float
        What the M-step adds to each variance of the noise, in squared units of the data.
    constraint : str
        One of `constraints.NAMES`.
    """

    means: Array
    loadings: Array
    log_noise: Array
    whitening: Whitening
    ridge: float = 0.0
    constraint: str = "UUU"

    @property
    def n_components(self) -> int:
        return len(self.means)

    @property
    def n_features(self) -> int:
        return int(self.means.shape[1])

    @property
    def n_factors(self) -> int:
        """Q, the number of factors."""
        return int(self.loadings.shape[2])

    @property
    def rule(self) -> FactorConstraint:
        """The constraint: which parameters components and columns share."""
        return FactorConstraint.named(self.constraint)

    @property
    def noise(self) -> Array:
        """Variances of the noise, (k, d) or (k, 1)."""
        return np.exp(self.log_noise)

    @property
    def kind(self) -> str:
        """The name of the constraint."""
        return self.constraint

    @property
    def structure(self) -> str:
        """The constraint and the number of factors in words."""
        rule, q = self.rule, self.n_factors
        loadings = "shared" if rule.shared_loadings else "own"
        noise = "shared" if rule.shared_noise else "own"
        form = "isotropic" if rule.isotropic else "diagonal"
        factors = "1 factor" if q == 1 else f"{q} factors"
        return f"{self.kind}: {factors}, {loadings} loadings, {noise} {form} noise"

    @property
    def n_parameters(self) -> int:
        k, d, q = self.loadings.shape
        return int(k * d + self.rule.n_parameters(k, d, q))

    @property
    def statistics_bytes(self) -> int:
        k, d, q = self.loadings.shape
        return int(8 * k * (2 * d + d * q + q + q * q + 1))

    def posterior(self) -> tuple[Array, Array, Array]:
        """Return how factors follow from rows.

        Returns
        -------
        (k, q, d) array
            beta = (I + Lambda^T Psi^-1 Lambda)^-1 Lambda^T Psi^-1.
        (k, q, q) array
            V = (I + Lambda^T Psi^-1 Lambda)^-1, the covariance of factors given a row.
        (k,) array
            log |I + Lambda^T Psi^-1 Lambda|.
        """
        scaled = self.loadings / self.noise[:, :, None]
        inner = np.swapaxes(scaled, 1, 2) @ self.loadings + np.eye(self.n_factors)
        inner = (inner + np.swapaxes(inner, 1, 2)) / 2
        posterior = np.linalg.inv(inner)
        beta = posterior @ np.swapaxes(scaled, 1, 2)
        return beta, posterior, np.linalg.slogdet(inner)[1]

    def parameters(self) -> dict[str, Array]:
        """Return means, loadings and variances of the noise, in the units of the data."""
        return {name.removesuffix("_"): array for name, array in self.attributes().items()}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such parameters in the units of the data.

        Raises
        ------
        ValueError
            There are other numbers of factors, or variances that are not positive.
        """
        loadings, noise = given["loadings"], given["noise_variances"]
        require_array("loadings", loadings, self.loadings.shape)
        require("noise_variances", noise, bool((noise > 0).all()))
        scale = self.whitening.scale
        squares = scale[:1] ** 2 if self.rule.isotropic else scale**2
        shown = {"loadings": loadings} if self.rule.shared_loadings else {}
        shown |= {"noise_variances": noise} if self.rule.shared_noise else {}
        for name, array in shown.items():
            if not np.allclose(array, array[:1], rtol=1e-9, atol=0.0):
                raise ValueError(
                    f"{name} differ among components, which share them under the constraint "
                    f"{self.constraint!r}"
                )
        return replace(
            self,
            means=self.whitening.whiten(given["means"]),
            loadings=loadings / scale[:, None],
            log_noise=np.log(noise.reshape(len(noise), -1) / squares),
        )

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write log N(x; mu_k, Lambda_k Lambda_k^T + Psi_k), of sums of squares: see `kernel`."""
        k, d = self.means.shape
        beta, _, log_dets = self.posterior()
        noise = np.broadcast_to(self.noise, (k, d))
        rest = np.eye(d) - self.loadings @ beta
        parts = np.concatenate([rest / np.sqrt(noise)[:, :, None], beta], axis=1)
        roots = self.whitening.inverse_scale[:, None] * np.swapaxes(parts, 1, 2)
        distances = operators.distances(rows, self.whitening.unwhiten(self.means), roots)
        volumes = np.log(noise).sum(axis=1) + log_dets + d * np.log(2 * np.pi)
        volumes = volumes + 2 * self.whitening.log_det
        return Formula(operators.scaled(distances, np.full(k, -0.5), -volumes))

    def attributes(self) -> dict[str, Array]:
        """Return means, loadings and variances of the noise in the units of the data."""
        scale = self.whitening.scale
        noise = self.noise
        squares = scale[:1] ** 2 if noise.shape[1] == 1 else scale**2
        return {
            "means_": self.whitening.unwhiten(self.means),
            "loadings_": self.loadings * scale[:, None],
            "noise_variances_": noise[:, 0] * squares if self.rule.isotropic else noise * squares,
        }

    def attribute_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of `attributes`."""
        k, d = self.means.shape
        noise = (k,) if self.rule.isotropic else (k, d)
        return {"means_": (k, d), "loadings_": self.loadings.shape, "noise_variances_": noise}

    def _variances(self) -> Array:
        """Return variances of the scaled columns, (k, d)."""
        return np.asarray((self.loadings**2).sum(axis=2) + self.noise)

    def information_scale(self, root_weights: Array) -> Array:
        """Return the root of a weight, over a width where the number is a length, (p,)."""
        root = root_weights[:, None]
        means = root / np.sqrt(self._variances())
        loadings = np.broadcast_to((root / np.sqrt(self.noise))[:, :, None], self.loadings.shape)
        d = self.means.shape[1]
        many = np.sqrt(d / self.log_noise.shape[1] / 2)
        noise = np.broadcast_to(root * many, self.log_noise.shape)
        return np.concatenate([means.ravel(), loadings.ravel(), noise.ravel()])

    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d) in scaled columns."""
        return self.whitening.whiten(X)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        means = self.whitening.unwhiten(self.means)
        return means, self._variances() * self.whitening.scale**2

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations of one component between m columns, (m, m)."""
        index = list(columns)
        some = self.loadings[component][index]
        noise = np.broadcast_to(self.noise[component], self.means.shape[1:])[index]
        covariance = some @ some.T + np.diag(noise)
        widths = np.sqrt(np.diagonal(covariance))
        return np.asarray(covariance / np.outer(widths, widths))

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        means, variances = self.moments()
        width = np.sqrt(variances[:, column, None])
        apart = (x - means[:, column, None]) / width
        return np.asarray(np.exp(-0.5 * apart**2) / (width * np.sqrt(2 * np.pi)))

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that are as narrow as the ridge in a column that varies."""
        scale = self.whitening.scale
        widths = Diagonal(np.sqrt(self._variances()) * scale)
        shift = self.whitening.shift
        return [*degenerate_components(weights, self.means * scale, shift, widths, self.ridge)]

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components are degenerate, where, and what to do."""
        found = self.degenerate(weights)
        return degenerate_warnings(found, weights, self.n_features, self.ridge, called)
