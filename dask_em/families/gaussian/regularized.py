"""Gaussian components whose likelihood has a maximum: by a prior, or by a bound on eigenvalues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.codec import record
from ...core.degenerate import Degenerate
from ...core.family import register_family
from ...core.moments import Moments
from ...core.tuning import tuning
from ...core.validation import LARGEST, require, require_array
from .covariance import Covariance
from .family import Gaussian
from .statistics import GaussianStatistics
from .whitening import Whitening


@record("conjugate-prior")
@dataclass(frozen=True)
class ConjugatePrior:
    """Hold the prior of Fraley and Raftery (2007), in whitened coordinates.

    Means are normal about `mean` with the component's covariance over `shrinkage`; covariances are
    inverse Wishart of `df` degrees of freedom and `scatter`, variances inverse gamma of half of
    both.

    Attributes
    ----------
    mean : (d,) array
    scatter : array
        Of the shape of one component's scatter: (d, d) of matrices, (d,) of variances of columns,
        (1,) of one variance for all.
    shrinkage : float
        Rows that it counts as for a mean.
    df : float

    Examples
    --------
    >>> moments = Moments(4.0, np.zeros(2), 3 * np.eye(2), -np.ones(2), np.ones(2))
    >>> prior = ConjugatePrior.of_data(moments, "full", 3)
    >>> prior.df, prior.scatter.round(3).tolist()
    (4.0, [[0.333, 0.0], [0.0, 0.333]])
    """

    mean: Array
    scatter: Array
    shrinkage: float
    df: float

    @classmethod
    def of_data(cls, moments: Moments, storage: str, k: int) -> Self:
        """Return the default prior of the paper, section 3.2, in the units of the data.

        Shrinkage 0.01, d + 2 degrees of freedom, and the covariance of all data (their mean
        variance where covariances are diagonal) over K^(2/d): K balls fill its volume.
        """
        d = len(moments.mean)
        # The unbiased covariance, unless all weigh next to nothing.
        weight = max(moments.weight - 1, moments.weight / 2)
        scatter = moments.scatter / weight
        if moments.observed is not None:
            scatter = moments.covariance * (moments.weight / weight)
        scatter = scatter / k ** (2 / d)
        mean_variance = float(np.diagonal(scatter).mean())
        if storage == "diag":
            scatter = np.full(d, mean_variance)
        elif storage == "spherical":
            scatter = np.full(1, mean_variance)
        return cls(moments.mean, scatter, 0.01, d + 2.0)

    def whitened(self, whitening: Whitening) -> ConjugatePrior:
        """Return the prior in whitened coordinates."""
        inverse = whitening.inverse_scale
        if self.scatter.ndim == 2:
            inverse = np.diag(inverse) if inverse.ndim == 1 else inverse
            scatter = inverse @ self.scatter @ inverse.T
        else:
            scatter = self.scatter * inverse[: len(self.scatter)] ** 2
        return replace(self, mean=whitening.whiten(self.mean[None])[0], scatter=scatter)

    def rows(self, covariance: Covariance, k: int, n_priors: int) -> Array:
        """Return the rows that it counts as for each covariance, (k,), that of the mean included.

        So many that minus half of them times log |Sigma| is the prior's, in the units in which
        the structure divides a scatter. There are `n_priors` covariances that have it: k, or one
        that all components share.
        """
        d = len(self.mean)
        if covariance.kind == "diag":
            own = self.df + 2
        elif covariance.kind == "spherical":
            own = (self.df + 2) / d
        else:
            own = self.df + d + 1
        return np.full(k, own * n_priors / k + 1)


@register_family("gaussian-regularized")
@dataclass(frozen=True)
class RegularizedGaussian(Gaussian):
    """Hold Gaussian components with a conjugate prior, a bound on eigenvalues, or both.

    Attributes
    ----------
    prior : ConjugatePrior or None
    max_ratio : float or None
        Bound on the ratio of the largest to the smallest eigenvalue of all covariances, in the
        units of the data (Garcia-Escudero, Gordaliza, Matran and Mayo-Iscar 2008).

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(2), np.ones(2))
    >>> two = RegularizedGaussian(
    ...     np.zeros((2, 2)), Full(np.stack([np.eye(2)] * 2)), unit, max_ratio=4.0
    ... )
    >>> found = two.allowed(np.ones(2), np.stack([np.diag([1.0, 1e-6]), np.eye(2)]))
    >>> bool(np.linalg.eigvalsh(found).max() <= 4.001 * np.linalg.eigvalsh(found).min())
    True
    """

    prior: ConjugatePrior | None = None
    max_ratio: float | None = None

    def validate(self, statistics: GaussianStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        super().validate(statistics)
        d = self.n_features
        if self.max_ratio is not None:
            require("max_ratio", self.max_ratio, 1 <= self.max_ratio <= LARGEST)
        if self.prior is not None:
            prior = self.prior
            shape = {"diag": (d,), "spherical": (1,)}.get(self.covariance.kind, (d, d))
            require_array("mean of the prior", prior.mean, (d,))
            require_array("scatter of the prior", prior.scatter, shape)
            require("shrinkage of the prior", prior.shrinkage, 0 < prior.shrinkage <= LARGEST)
            require("df of the prior", prior.df, 0 < prior.df <= LARGEST)

    # -- the prior -------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: GaussianStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return the M-step to which the prior adds its mean and its scatter.

        A component without rows keeps its parameters, as it does without a prior.
        """
        prior = self.prior
        if prior is None:
            return super().maximize(resp_sum, statistics)
        empty = ~(resp_sum > tuning().numerics.empty)
        rows = np.where(empty, 0.0, resp_sum)
        gap = prior.mean - self.means
        shift = (statistics.first + prior.shrinkage * gap) / (rows + prior.shrinkage)[:, None]
        moved = replace(self, means=self.means + shift)
        about = self.recentre(resp_sum, statistics, moved).scatter + self._prior_scatter(moved)
        sums = GaussianStatistics(np.zeros_like(shift), about)
        found, kept = super(RegularizedGaussian, moved).maximize(rows + self._prior_rows(), sums)
        kept = sorted({*kept, *np.flatnonzero(empty).tolist()})
        if not kept or self.rule.joins:
            # One without rows is the prior's, within what joins it to others.
            return found, kept
        means, covariance = found.means.copy(), found.covariance
        means[kept] = self.means[kept]
        if not covariance.shared_scatter:
            factor = covariance.factor.copy()
            factor[kept] = self.covariance.factor[kept]
            covariance = type(covariance)(factor)
        return replace(found, means=means, covariance=covariance), kept

    def _prior_scatter(self, at: Self) -> Array:
        """Return the scatter of the prior about the means of `at`, in the shape of the sums."""
        prior = self.prior
        assert prior is not None
        k, d = at.means.shape
        zeros = self.covariance.zeros(k, d)
        weights = np.full(k, prior.shrinkage)
        # As of so many rows at the prior's mean.
        of_means = self.covariance.recentred(
            zeros, np.zeros((k, d)), weights, at.means - prior.mean
        )
        scatter = prior.scatter[0] if self.covariance.kind == "spherical" else prior.scatter
        if not self.covariance.shared_scatter:
            scatter = scatter * (self._n_priors / k)
        # Of one variance for all columns the sums are over columns.
        return np.asarray(of_means + scatter)

    def _prior_rows(self) -> Array:
        """Return the rows that the prior counts as, (k,)."""
        assert self.prior is not None
        return self.prior.rows(self.covariance, len(self.means), self._n_priors)

    @property
    def _n_priors(self) -> int:
        """Covariances that have the prior: one where all components share it (EII, EEI, EEE).

        So it is in the modes of Fraley and Raftery (2007).
        """
        k, d = self.means.shape
        shared = self.rule.n_parameters(k, d) == self.rule.n_parameters(1, d)
        return 1 if shared else k

    @property
    def has_prior(self) -> bool:
        """Whether there is a prior, by which components of any number of rows are determined."""
        return self.prior is not None

    def log_prior_density(self) -> float:
        """Compute the logarithm of the prior's density at these parameters, up to a constant."""
        prior = self.prior
        if prior is None:
            return 0.0
        k, d = self.means.shape
        volumes = np.broadcast_to(self.covariance.log_det(d), (k,))
        scatter = self._prior_scatter(self)
        distances = (self.covariance.precisions * scatter).sum()
        return float(-(self._prior_rows() @ volumes) - distances / 2)

    def owed_to_prior(self, resp_sum: Array) -> list[Degenerate]:
        """Return the components that are narrow in a column but for the prior's scatter.

        Those of so few rows that the prior is meant for them apart.
        """
        if self.prior is None:
            return []
        k, d = self.means.shape
        kind = self.covariance.kind
        n_own = {"full": d * (d + 3) / 2, "diag": 2 * d, "spherical": d + 1}.get(kind, d)
        of_prior = self.prior.scatter
        of_prior = (
            np.diagonal(of_prior)
            if of_prior.ndim == 2
            else of_prior / (d if kind == "spherical" else 1)
        )
        total = (resp_sum + self._prior_rows())[:, None]
        if self._n_priors == 1:
            total = total.sum(keepdims=True)
        variances = self.covariance.variances(d) - self._own_ridge()
        most = (1 + tuning().numerics.beside_prior) * np.broadcast_to(of_prior, (1, d))
        narrow = np.broadcast_to(variances * total < most, (k, d))
        means = self.whitening.unwhiten(self.means)
        return [
            Degenerate(int(i), tuple(columns.tolist()), tuple(means[i, columns].tolist()))
            for i in np.flatnonzero(narrow.any(axis=1) & (resp_sum > n_own))
            for columns in [np.flatnonzero(narrow[i])]
        ]

    def _own_ridge(self) -> Array:
        ridge = self._ridge()
        return ridge if ridge.ndim == 1 else np.diagonal(ridge)

    # -- the bound -------------------------------------------------------------------

    def allowed(self, resp_sum: Array, covariances: Array) -> Array:
        """Return the likeliest covariances within the constraint and the bound."""
        found = super().allowed(resp_sum, covariances)
        return found if self.max_ratio is None else self._truncated(resp_sum, found)

    def _truncated(self, resp_sum: Array, covariances: Array) -> Array:
        assert self.max_ratio is not None
        if not np.isfinite(covariances).all():
            return covariances
        scale, inverse = self.whitening.scale, self.whitening.inverse_scale
        if covariances.ndim < 2 or self.covariance.kind == "diag":
            # Whitening by one scale keeps ratios; by one a column it does not.
            squares = scale**2 if covariances.ndim == 2 else scale[:1] ** 2
            values = covariances * squares
            least = least_eigenvalue(
                values.ravel(), _along(resp_sum, values).ravel(), self.max_ratio
            )
            return np.asarray(_within(values, least, self.max_ratio) / squares)
        if scale.ndim == 1:
            scale, inverse = np.diag(scale), np.diag(inverse)
        values, axes = np.linalg.eigh(scale @ covariances @ scale.T)
        weights = _along(resp_sum, values) if values.ndim == 2 else np.ones_like(values)
        least = least_eigenvalue(values.ravel(), weights.ravel(), self.max_ratio)
        inside = _within(values, least, self.max_ratio)
        if np.array_equal(inside, values):
            return covariances
        root = inverse @ (axes * np.sqrt(inside)[..., None, :])
        return np.asarray(root @ np.swapaxes(root, -1, -2))

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family whose `to_unconstrained` is this vector, made to obey the bound."""
        found = super().from_unconstrained(vector)
        if self.max_ratio is None:
            return found
        k = len(found.means)
        given = found.covariance.covariances
        with np.errstate(all="ignore"):
            inside = found._truncated(np.ones(k), given) if np.isfinite(given).all() else given
        if inside is given or np.array_equal(inside, given):
            return found
        covariance, _ = found.covariance.factorized(inside, k)
        return replace(found, covariance=covariance)


def _along(weights: Array, values: Array) -> Array:
    """Return weights (k,) for each of values (k, ...)."""
    return np.broadcast_to(weights.reshape(-1, *[1] * (values.ndim - 1)), values.shape)


def _within(values: Array, least: float, ratio: float) -> Array:
    # What rounding alone is beyond the bound stays as it is.
    if least <= 0 or values.max() <= ratio * values.min() * (1 + 1e-12):
        return values
    return np.clip(values, least, ratio * least)


def least_eigenvalue(values: Array, weights: Array, ratio: float) -> float:
    """Compute the m that is best where eigenvalues are held between m and `ratio` times m.

    It minimizes sum_i n_i (log c_i + v_i / c_i) over m, with c_i = min(max(v_i, m), ratio m):
    between two of the values at which an eigenvalue meets an end, the minimum has a closed form
    (Fritz, Garcia-Escudero and Mayo-Iscar 2013).

    Parameters
    ----------
    values, weights : (n,) arrays
        Eigenvalues, zero or above, and the rows that each belongs to.
    ratio : float

    Examples
    --------
    >>> round(least_eigenvalue(np.array([1e-9, 1.0]), np.ones(2), 4.0), 3)
    0.125
    """
    order = np.argsort(values, kind="stable")
    v, n = np.maximum(values[order], 0.0), weights[order]
    with np.errstate(divide="ignore"):
        logs = np.where(v > 0, np.log(np.where(v > 0, v, 1.0)), 0.0)
    rows, sums, logarithms = (np.concatenate([[0.0], np.cumsum(x)]) for x in (n, n * v, n * logs))

    def parts(m: Array) -> tuple[Array, Array]:
        return np.searchsorted(v, m, "left"), np.searchsorted(v, ratio * m, "right")

    ends = np.unique(np.concatenate([v, v / ratio]))
    middles = np.concatenate([[ends[0] / 2], (ends[1:] + ends[:-1]) / 2, [2 * ends[-1]]])
    below, above = parts(middles)
    outside = rows[below] + rows[-1] - rows[above]
    beyond = sums[below] + (sums[-1] - sums[above]) / ratio
    m = beyond[outside > 0] / outside[outside > 0]
    # Where all are inside any m between is as good.
    m = np.concatenate([m, middles[outside == 0], ends])
    m = m[m > 0]
    if not len(m):
        return 0.0
    below, above = parts(m)
    cost = rows[below] * np.log(m) + sums[below] / m
    cost += logarithms[above] - logarithms[below] + rows[above] - rows[below]
    cost += (rows[-1] - rows[above]) * np.log(ratio * m) + (sums[-1] - sums[above]) / (ratio * m)
    return float(m[cost.argmin()])
