"""Components of a Bayesian mixture of Gaussians: their posterior, its M-step, the bound."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.engine import Engine
from ...core.family import register_family
from ...core.objective import Objective
from ...core.tuning import tuning
from ...core.validation import LARGEST, require, require_array
from ..gaussian.degenerate import degenerate_warnings
from ..gaussian.family import Gaussian
from ..gaussian.statistics import GaussianStatistics
from .prior import NormalWishart, WeightsPrior


@register_family("gaussian-bayesian")
@dataclass(frozen=True)
class BayesianGaussian(Gaussian):
    """Hold the posterior of weights, means and precisions of K Gaussian components.

    Precision Lambda_k is Wishart of nu_k degrees of freedom and mean 1 / Sigma_k, and mu_k given it
    normal about m_k with beta_k Lambda_k (Bishop, Pattern Recognition and Machine Learning, 2006,
    section 10.2). Of each posterior all but m_k and Sigma_k follows from the prior and from the
    rows of the component. The E-step's log-densities are those of normals N(m_k, Sigma_k), to which
    `log_prior` adds what the spread of the posterior takes off, so that the Gaussian's kernels and
    sums serve.

    All structures are of one model, in which each component has a precision matrix of its own under
    one Wishart prior. What they differ in is the posterior: the scales of Wishart distributions
    that are any, one for all, diagonal, or multiples of the identity.

    Attributes
    ----------
    means : (k, d) array
        m_k.
    covariance : Covariance
        Sigma_k, the inverse of the mean precision.
    weights_prior : WeightsPrior
    prior : NormalWishart
        Of means and precisions, in whitened coordinates.
    counts : (k,) array
        The rows of each component, of which the posterior is.

    Examples
    --------
    >>> from .options import BayesianGaussianOptions
    >>> from ...core.moments import Moments
    >>> two = BayesianGaussianOptions().of_data(Moments.unit(2), 2)
    >>> two.df.tolist(), two.n_parameters
    ([2.5, 2.5], 10)
    """

    weights_prior: WeightsPrior = field(kw_only=True)
    prior: NormalWishart = field(kw_only=True)
    counts: Array = field(kw_only=True)

    variational = True
    adaptable = False

    @property
    def structure(self) -> str:
        """The structure and the prior of the weights in words, and how many components it takes."""
        kind = self.weights_prior.kind.replace("dirichlet", "Dirichlet").replace("_", " ")
        return f"{super().structure}, {kind}, {int(self.used.sum())} with rows"

    @property
    def used(self) -> Array:
        """Which components have as much as one row, (k,) of bool."""
        return np.asarray(self.counts >= tuning().bayesian.used_rows)

    @property
    def has_prior(self) -> bool:
        """Whether a prior determines components of any number of rows: it does."""
        return True

    @property
    def df(self) -> Array:
        """Degrees of freedom of the posterior Wishart distributions, (k,)."""
        if self.covariance.shared_scatter:
            return np.full(len(self.counts), self.prior.df + self.counts.mean())
        return np.asarray(self.prior.df + self.counts)

    @property
    def mean_precision(self) -> Array:
        """beta_k, (k,): rows that each mean rests on."""
        return np.asarray(self.prior.mean_precision + self.counts)

    def parameters(self) -> dict[str, Array]:
        """Return means and covariances, and the rows of which each posterior is."""
        return {**super().parameters(), "counts": self.counts}

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return the posterior of such components under the same prior.

        Raises
        ------
        ValueError
            Covariances are not positive definite, or counts below 0.
        """
        counts = given["counts"]
        require("counts", counts, bool((counts >= 0).all()))
        return replace(super().with_parameters(given), counts=counts)

    def arrays(self) -> dict[str, Array]:
        """Return means, Cholesky factors and the rows of each component, by name."""
        return {**super().arrays(), "counts": self.counts}

    @property
    def nbytes(self) -> int:
        return super().nbytes + self.counts.nbytes

    def validate(self, statistics: GaussianStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        super().validate(statistics)
        k, d = self.means.shape
        require_array("counts", self.counts, (k,))
        require("counts", self.counts, bool((self.counts >= 0).all()))
        self.weights_prior.validate()
        require_array("mean of the prior", self.prior.mean, (d,))
        self.prior.validate({"diag": (d,), "spherical": (1,)}.get(self.covariance.kind, (d, d)))
        for matrix in [self.prior.scatter] * (self.prior.scatter.ndim == 2):
            whole = bool((np.linalg.eigvalsh(matrix) > 1 / LARGEST).all())
            require("scatter of the prior", matrix, whole)

    # -- the E-step ------------------------------------------------------------------

    def log_prior(self, log_weights: Array) -> Array:
        """Return E[log pi_k] and what the spread of the posterior takes off log-densities, (k,).

        E[log N(x; mu_k, 1 / Lambda_k)] is log N(x; m_k, Sigma_k) and, whatever x,
        (E[log |Lambda_k|] + log |Sigma_k| - d / beta_k) / 2 (Bishop 2006, 10.64 to 10.66).
        """
        return self._log_prior

    @cached_property
    def _log_prior(self) -> Array:
        from scipy.special import digamma

        d, df = self.n_features, self.df
        halves = (df - np.arange(d)[:, None]) / 2
        gap = (digamma(halves) - np.log(df / 2)).sum(axis=0) - d / self.mean_precision
        return np.asarray(self.weights_prior.mean_logs(self.counts) + gap / 2)

    def own_log_weights(self) -> Array:
        """Return the logarithms of the mean weights, (k,)."""
        means = self.weights_prior.means(self.counts)
        return np.log(np.maximum(means, np.finfo(np.float64).tiny))

    def join_key(self, engine: Engine) -> Hashable:
        """Return the key that families to be `joined` share; None if this one is computed alone."""
        key = super().join_key(engine)
        return None if key is None else ("bayesian", key)

    def joined(self, parts: Sequence[Self]) -> Self:
        """Return the components of all parts side by side, for a kernel."""
        counts = np.concatenate([part.counts for part in parts])
        return replace(super().joined(parts), counts=counts)

    def take(self, components: Sequence[int]) -> Self:
        """Return the family of some components, in this order."""
        return replace(super().take(components), counts=self.counts[list(components)])

    def alike(self) -> Array | None:
        """Return by which component each is computed, (k,) of int; None where each is by itself.

        Components of hardly any rows are the prior's, but for what those rows move them: the one
        of fewest rows stands for all that are as near to it as `BayesianTuning.alike` says.
        """
        constants, k = tuning().bayesian, len(self.counts)
        few = np.flatnonzero(~self.used)
        if len(few) < 2:
            return None
        one = few[self.counts[few].argmin()]
        apart = np.abs(self.means[few] - self.means[one]).max(axis=1)
        if not self.covariance.shared_scatter:
            factor = self.covariance.factor
            wider = np.abs(factor[few] - factor[one]).reshape(len(few), -1).max(axis=1)
            apart = np.maximum(apart, wider)
        widths = 1 / np.sqrt(np.broadcast_to(self.covariance.tightness(), k)[one])
        like = np.arange(k)
        like[few[self.counts[few] * apart <= constants.alike * widths]] = one
        return None if (like == np.arange(k)).all() else like

    def shared_out(
        self, statistics: GaussianStatistics, places: Array, shares: Array
    ) -> GaussianStatistics:
        """Return sums of k components of those of fewer; of one scatter for all, the same one."""
        if not self.covariance.shared_scatter:
            return super().shared_out(statistics, places, shares)
        return replace(statistics, first=statistics.first[places] * shares[:, None])

    # -- the M-step --------------------------------------------------------------------

    def maximize(
        self, resp_sum: Array, statistics: GaussianStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return the posterior under these responsibilities (Bishop 2006, 10.58 to 10.63).

        `ridge` is added to the covariance of each component's rows, as scikit-learn does. One
        without rows is the prior's. Those whose sums are of no rows, as a difference of sums may
        be, keep what they have.
        """
        prior, k = self.prior, len(resp_sum)
        present = resp_sum > tuning().numerics.empty
        rows = np.where(present, resp_sum, 0.0)
        first = np.where(present[:, None], statistics.first, 0.0)
        shift = first + prior.mean_precision * (prior.mean - self.means)
        shift /= (prior.mean_precision + rows)[:, None]
        moved = replace(self, means=self.means + shift, counts=rows)
        scatter = statistics.scatter
        if not self.covariance.shared_scatter:
            scatter = np.where(present.reshape(-1, *[1] * (scatter.ndim - 1)), scatter, 0.0)
        about = self.recentre(rows, GaussianStatistics(first, scatter), moved).scatter
        about = about + self._times(self._ridge(), rows) + moved._prior_scatter()
        still = np.zeros_like(shift)
        found = self.covariance.unconstrained(moved.df, still, about, np.zeros(shift.shape[1]))
        covariance, singular = self.covariance.factorized(found, k)
        kept = sorted(singular)
        if kept:
            means, counts = moved.means.copy(), rows.copy()
            means[kept], counts[kept] = self.means[kept], self.counts[kept]
            moved = replace(moved, means=means, counts=counts)
        return replace(moved, covariance=covariance), kept

    def with_merged(
        self, resp_sum: Array, statistics: GaussianStatistics, pair: tuple[int, int]
    ) -> tuple[Self, Array, GaussianStatistics]:
        """Return sums in which the rows of the second component of a pair are those of the first.

        Both are about the mean of the first; so is nothing.
        """
        i, j = pair
        means = self.means.copy()
        means[j] = means[i]
        to = replace(self, means=means)
        moved = self.recentre(resp_sum, statistics, to)
        shared = self.covariance.shared_scatter
        sums = [
            resp_sum.copy(),
            moved.first.copy(),
            moved.scatter if shared else moved.scatter.copy(),
        ]
        for array in sums[: 2 if shared else 3]:
            array[i] += array[j]
            array[j] = 0.0
        total, first, scatter = sums
        return to, total, GaussianStatistics(first, scatter)

    def _times(self, matrix: Array, counts: Array) -> Array:
        """Return multiples (k,) of a matrix (d, d), or of a diagonal (d,), as sums have them."""
        kind = self.covariance.kind
        if kind in ("full", "tied"):
            matrix = np.diag(matrix) if matrix.ndim == 1 else matrix
            of_each = counts[:, None, None] if kind == "full" else counts.sum()
            return np.asarray(of_each * matrix)
        diagonal = matrix if matrix.ndim == 1 else np.diagonal(matrix)
        # Of one variance for all columns the sums are over columns.
        of_each = counts[:, None] * diagonal
        return np.asarray(of_each if kind == "diag" else of_each.sum(axis=1))

    def _prior_scatter(self) -> Array:
        """Return the scatter of the prior about these means, in the shape of the sums."""
        k, d = self.means.shape
        zeros = self.covariance.zeros(k, d)
        weights = np.full(k, self.prior.mean_precision)
        # As of so many rows at the prior's mean.
        of_means = self.covariance.recentred(
            zeros, np.zeros((k, d)), weights, self.means - self.prior.mean
        )
        return np.asarray(of_means + self._times(self.prior.matrix, np.ones(k)))

    # -- the bound ---------------------------------------------------------------------

    def log_prior_density(self) -> float:
        """Compute minus the divergence of the posterior from the prior, in nats.

        With sum_n log sum_k exp(log_prior + log N(x_n)), the E-step's log-likelihood, it is the
        variational bound on the log evidence, at the best responsibilities.
        """
        return -self._divergence

    @cached_property
    def _divergence(self) -> float:
        from scipy.special import digamma, gammaln

        prior, df, d = self.prior, self.df, self.n_features
        halves = (df - np.arange(d)[:, None]) / 2
        prior_halves = (prior.df - np.arange(d)) / 2
        # log |W| of the scale 1 / (nu Sigma), and the mean of log |Lambda|.
        log_det = -2 * np.broadcast_to(self.covariance.log_det(d), df.shape) - d * np.log(df)
        mean_log_det = digamma(halves).sum(axis=0) + d * np.log(2) + log_det
        wishart = -df / 2 * log_det - df * d / 2 * np.log(2) - gammaln(halves).sum(axis=0)
        wishart -= prior.df / 2 * (prior.log_det - d * np.log(2)) - gammaln(prior_halves).sum()
        wishart += (df - prior.df) / 2 * mean_log_det - df * d / 2
        share = prior.mean_precision / self.mean_precision
        means = d / 2 * (share - 1 - np.log(share))
        distances = float((self.covariance.precisions * self._prior_scatter()).sum()) / 2
        of_weights = self.weights_prior.divergence(self.counts)
        return float((wishart + means).sum() + distances + of_weights)

    def reported_objective(self, log_likelihood: float, weight: float) -> Objective:
        """Return the bound on the log evidence of rows of this weight, in nats."""
        return Objective("variational bound", log_likelihood * weight, "nats")

    # -- as one vector -----------------------------------------------------------------

    def to_unconstrained(self) -> Array:
        """Return means, factors, and the logarithms of the rows of each component, (p,)."""
        counts = np.maximum(self.counts, tuning().bayesian.least_rows)
        return np.concatenate([super().to_unconstrained(), np.log(counts)])

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family of such a vector, with as many rows in all as this one."""
        rest, logs = np.split(vector, [len(vector) - len(self.counts)])
        shares = np.exp(logs - logs.max())
        counts = self.counts.sum() * shares / shares.sum()
        return replace(super().from_unconstrained(rest), counts=counts)

    def information_scale(self, root_weights: Array) -> Array:
        """Return the root of a weight, over a width where the number is a length, (p,)."""
        return np.concatenate([super().information_scale(root_weights), root_weights])

    # -- what is odd -------------------------------------------------------------------

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return which components are degenerate, where, and what to do."""
        found = self.degenerate(weights)
        return degenerate_warnings(found, weights, self.n_features, self.ridge, called)
