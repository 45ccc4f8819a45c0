"""Components of factor analyzers: a family with its M-step and its bounds."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from ...core.family import Family, register_family
from ...core.tuning import tuning
from ...core.validation import LARGEST, require, require_array
from ...errors import UsageError
from .constraints import NAMES
from .described import described
from .kernel import FactorKernel
from .parameters import FactorParameters
from .scatters import Scatter
from .statistics import FactorStatistics

# Beyond, the logarithm of a variance is none that a fit could have.
LARGEST_LOG = 350.0


@register_family("factor")
@dataclass(frozen=True)
class FactorAnalyzers(FactorParameters, Family[FactorStatistics]):
    """Hold K normal distributions of covariances Lambda_k Lambda_k^T + Psi_k.

    A row is mu_k + Lambda_k f + e with q factors f ~ N(0, I) and noise e ~ N(0, Psi_k) (Ghahramani
    and Hinton 1996; McLachlan and Peel 2000, chapter 8). Sums are of rows and of what a pass
    expects of their factors: of other parameters they tell a bound.

    Examples
    --------
    >>> from ..gaussian.whitening import Whitening
    >>> unit = Whitening(np.zeros(2), np.ones(2))
    >>> one = FactorAnalyzers(np.zeros((1, 2)), np.ones((1, 2, 1)), np.zeros((1, 2)), unit)
    >>> one.log_prob(np.zeros((1, 2))).round(4)  # of the covariance [[2, 1], [1, 2]]
    array([[-2.3872]])
    """

    linear = False

    def validate(self, statistics: FactorStatistics) -> None:
        """Raise `ValueError` that names the parameter or sum that is wrong."""
        require("constraint", self.constraint, self.constraint in NAMES)
        k, d = self.means.shape if self.means.ndim == 2 else (0, 0)
        q = self.loadings.shape[-1] if self.loadings.ndim == 3 else 0
        require_array("means", self.means, (k, d))
        require("loadings", self.loadings, 0 < q < d)
        require_array("loadings", self.loadings, (k, d, q))
        noise = (k, 1 if self.rule.isotropic else d)
        require_array("log_noise", self.log_noise, noise, largest=LARGEST_LOG)
        require_array("shift", self.whitening.shift, (d,))
        require_array("scale", self.whitening.scale, (d,))
        require("scale", self.whitening.scale, bool((self.whitening.scale >= 1 / LARGEST).all()))
        require("ridge", self.ridge, 0 <= self.ridge <= LARGEST)
        require("statistics", statistics, isinstance(statistics, FactorStatistics))
        largest = np.finfo(np.float64).max
        shapes = {
            "first": (k, d), "squares": (k, d), "cross": (k, d, q), "latent": (k, q),
            "products": (k, q, q), "entropy": (k,),
        }  # fmt: skip
        for name, shape in shapes.items():
            require_array(name, vars(statistics)[name], shape, largest=largest)

    def kernel(self, engine: Engine = NUMPY) -> FactorKernel:
        """Return a kernel of zero sums."""
        if engine.device != "cpu":
            raise UsageError(
                f"device={engine.device!r}: factor analyzers are computed on the CPU; "
                'pass device="cpu"'
            )
        return FactorKernel(self)

    def join_key(self, engine: Engine) -> Hashable:
        """Return what families must have in common to be `joined`."""
        whitening = self.whitening.shift.tobytes(), self.whitening.scale.tobytes()
        return "factor", self.constraint, self.ridge, self.loadings.shape[1:], *whitening

    @property
    def n_own(self) -> int:
        """Rows of a component below which what it shows is chance.

        Each column is a regression of its own on q factors: it is of these that there must not be
        too many, however many columns there are.
        """
        return min(super().n_own, tuning().factor.rows_each * (self.n_factors + 2))

    # -- the M-step ----------------------------------------------------------------------

    def maximize(self, resp_sum: Array, statistics: FactorStatistics) -> tuple[Self, Sequence[int]]:
        """Return the regression of rows on their expected factors, and what it leaves as noise.

        Lambda = C_xf C_ff^-1, mu = mean x - Lambda mean f, Psi = diag(C_xx - 2 Lambda C_fx +
        Lambda C_ff Lambda^T) + ridge (Ghahramani and Hinton 1996, equations 15 and 16, with the
        means among the regressors), as constrained (McNicholas and Murphy 2008). A component that
        has no rows or whose noise is none keeps its parameters.
        """
        live = resp_sum > tuning().numerics.empty
        rows = np.where(live, resp_sum, 0.0)
        safe = np.where(live, resp_sum, 1.0)[:, None]
        mean, latent = statistics.first / safe, statistics.latent / safe
        outer = mean[:, :, None] * latent[:, None, :]
        cross = statistics.cross / safe[:, :, None] - outer
        products = statistics.products / safe[:, :, None]
        products = products - latent[:, :, None] * latent[:, None, :]
        products[~live] = np.eye(self.n_factors)
        loadings = self.rule.loadings(rows, self.noise, cross, products)
        squares = statistics.squares / safe - mean**2 - 2 * (loadings * cross).sum(axis=2)
        squares += np.einsum("kdp,kpq,kdq->kd", loadings, products, loadings, optimize=True)
        noise = self.rule.noise(rows, squares + self.ridge * self.whitening.inverse_scale**2)
        least = np.finfo(np.float64).eps
        with np.errstate(invalid="ignore"):
            sound = live & (noise > least).all(axis=1) & np.isfinite(noise).all(axis=1)
        sound &= np.isfinite(loadings).all(axis=(1, 2))
        kept = np.flatnonzero(~sound).tolist()
        shift = mean - np.einsum("kdq,kq->kd", loadings, latent)
        means = np.where(sound[:, None], self.means + shift, self.means)
        return replace(
            self,
            means=means,
            loadings=self._or_kept(loadings, self.loadings, sound, self.rule.shared_loadings),
            log_noise=self._or_kept(
                np.log(np.where(noise > 0, noise, 1.0)),
                self.log_noise, sound, self.rule.shared_noise,
            ),
        ), kept  # fmt: skip

    @staticmethod
    def _or_kept(found: Array, before: Array, sound: Array, shared: bool) -> Array:
        """Return what was found of components that are sound, and of all where they share it."""
        if shared and sound.any():
            return np.repeat(found[int(sound.argmax())][None], len(found), axis=0)
        return np.where(sound.reshape(-1, *[1] * (found.ndim - 1)), found, before)

    def constrained(self, resp_sum: Array) -> Self:
        """Return the components with the mean of what they share."""
        weights = np.maximum(resp_sum, 0.0)
        weights = weights / max(float(weights.sum()), 1e-300)
        found = self
        if self.rule.shared_loadings:
            mean = np.tensordot(weights, self.loadings, 1)
            found = replace(found, loadings=np.repeat(mean[None], len(weights), axis=0))
        if self.rule.shared_noise:
            mean = np.log(weights @ self.noise)
            found = replace(found, log_noise=np.repeat(mean[None], len(weights), axis=0))
        return found

    def near(self, X: Array, resp: Array) -> Self:
        """Return components with the means and principal factors of the rows under `resp`."""
        means, scatters = self._seen(X, resp)
        return described(replace(self, means=means), resp.sum(axis=0), scatters)

    def descriptions(self, X: Array, resp: Array) -> Sequence[Self]:
        """Return the likeliest factors of rows under `resp`, and their principal components."""
        means, scatters = self._seen(X, resp)
        return replace(self, means=means).both_of_scatters(resp.sum(axis=0), scatters)

    def both_of_scatters(self, total: Array, scatters: Sequence[Scatter]) -> Sequence[Self]:
        """Return the likeliest components of covariances, and others in reach of other optima.

        Likelihoods of factors have several, and a fit from the likeliest start need not end the
        highest.
        """
        likeliest = described(self, total, scatters)
        if self.rule.isotropic:
            # The principal components are the likeliest.
            return (likeliest,)
        other = described(self, total, scatters, components=True)
        return likeliest, other.fitted_to(total, scatters, tuning().factor.component_steps)

    def _seen(self, X: Array, resp: Array) -> tuple[Array, list[Scatter]]:
        """Return means and covariances of rows under `resp`, of components without rows too."""
        Z = self.whitening.whiten(X)
        means = resp.T @ Z / np.maximum(resp.sum(axis=0), 1e-300)[:, None]
        k = len(means)
        most = max(tuning().factor.start_rows // k, tuning().factor.fewest_start_rows)
        return means, [Scatter.of_rows(Z, means[i], resp[:, i], most) for i in range(k)]

    def fitted_to(self, total: Array, scatters: Sequence[Scatter], n_steps: int) -> Self:
        """Return the components after steps of EM on covariances that stay, of weights (k,)."""
        found = self
        squares = total[:, None] * np.stack([scatter.diagonal for scatter in scatters])
        zeros = np.zeros((len(total), self.n_factors))
        for _ in range(n_steps):
            beta, posterior, _ = found.posterior()
            images = np.stack([s.product(b.T) for s, b in zip(scatters, beta, strict=True)])
            sums = FactorStatistics(
                np.zeros_like(squares),
                squares,
                total[:, None, None] * images,
                zeros,
                total[:, None, None] * (posterior + beta @ images),
                np.zeros(len(total)),
            )
            found, _ = found.maximize(total, sums)
        return found

    # -- sums at other parameters -----------------------------------------------------------

    def recentre(self, resp_sum: Array, statistics: FactorStatistics, to: Self) -> FactorStatistics:
        """Return sums about these means as sums about those of `to`; factors stay."""
        shift = to.means - self.means
        first, latent = statistics.first, statistics.latent
        squares = statistics.squares - 2 * shift * first + resp_sum[:, None] * shift**2
        return replace(
            statistics,
            first=first - resp_sum[:, None] * shift,
            squares=squares,
            cross=statistics.cross - shift[:, :, None] * latent[:, None, :],
        )

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: FactorStatistics
    ) -> float:
        """Compute sum_nk r_nk (log w_k + log p(x_n | k)), or a bound of it.

        At the parameters of the pass it is exact, and at others below what it is there: rows and
        factors are expected to have this density, less the entropy of the factors.
        """
        k, d, q = self.loadings.shape
        noise = np.broadcast_to(self.noise, (k, d))
        residual = statistics.squares - 2 * (self.loadings * statistics.cross).sum(axis=2)
        residual = residual + np.einsum(
            "kdp,kpq,kdq->kd", self.loadings, statistics.products, self.loadings, optimize=True
        )
        volume = np.log(noise).sum(axis=1) / 2 + (d + q) / 2 * np.log(2 * np.pi)
        found = resp_sum * (log_weights - volume - self.whitening.log_det)
        of_factors = np.trace(statistics.products, axis1=1, axis2=2)
        found = found - (residual / noise).sum(axis=1) / 2 - of_factors / 2
        return float((found + statistics.entropy).sum())

    def merge_losses(
        self, pairs: Sequence[tuple[int, int]], totals: Array, X: Array, resp: Array
    ) -> list[float]:
        """Compute the loss of sum r log p, in nats, by the wider covariance of each merged pair.

        That is the mean of both and of what lies between the means: 2 q + 1 factors.
        """
        log_dets = self.posterior()[2] + self._log_volumes(self.noise)
        lost = []
        for i, j in pairs:
            n = max(float(totals[i] + totals[j]), 1e-300)
            a = float(totals[i]) / n
            noise = a * self.noise[i] + (1 - a) * self.noise[j]
            apart = np.sqrt(a * (1 - a)) * (self.means[i] - self.means[j])
            parts = np.sqrt(a) * self.loadings[i], np.sqrt(1 - a) * self.loadings[j]
            factors = np.column_stack([*parts, apart])
            inner = (factors / noise[:, None]).T @ factors + np.eye(factors.shape[1])
            merged = float(np.linalg.slogdet(inner)[1]) + self._log_volumes(noise[None])[0]
            lost.append(float(n * (merged - a * log_dets[i] - (1 - a) * log_dets[j]) / 2))
        return lost

    def _log_volumes(self, noise: Array) -> Array:
        shape = (len(noise), self.n_features)
        return np.asarray(np.broadcast_to(np.log(noise), shape).sum(axis=1))

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component, in the units of the data."""
        factors = rng.standard_normal((n, self.n_factors))
        noise = rng.standard_normal((n, self.n_features)) * np.sqrt(self.noise[component])
        drawn = self.means[component] + factors @ self.loadings[component].T + noise
        return self.whitening.unwhiten(drawn)
