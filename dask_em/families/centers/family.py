"""Centres as a family: K-means is classification EM of their equal, fixed, spherical variances.

With log p(x | k) = -|x - c_k|^2 / u^2, equal weights and hard assignment, the log-likelihood of
a pass is minus the inertia in units of u^2, the E-step is the assignment of Lloyd (1982), the
M-step takes means (Celeux and Govaert 1992, section 4: the CEM of a Gaussian mixture of equal
proportions and volumes is K-means). So whatever raises a mixture's likelihood lowers the inertia.
u^2 is the mean variance of the columns, and twice the variance of a component: a nat per row is
a mean variance, as the tolerance of scikit-learn's K-means is counted.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from ...core.additive import Array
from ...core.engine import NUMPY, Engine
from ...core.family import MOMENT_DRAWS, Family, blocks, register_family
from ...core.objective import Objective
from ...core.profile import Profile
from ...core.tuning import tuning
from ...core.validation import require, require_array
from .kernel import CentersKernel, unit_rows
from .statistics import CenterStatistics


@register_family("centers")
@dataclass(frozen=True)
class Centers(Family[CenterStatistics]):
    """K centres, all of the same fixed variance.

    Attributes
    ----------
    centers : (k, d) array
        About `origin`, in the units of the data.
    origin : (d,) array
        About the mean of the data, from which rows are measured so that nothing cancels.
    unit : float
        The length u by which distances are counted.
    spherical : bool
        Whether rows are taken as directions: each is divided by its length, and so are centres.

    Examples
    --------
    >>> two = Centers(np.array([[0.0, 0.0], [3.0, 4.0]]), np.zeros(2), 5.0)
    >>> two.log_prob(np.array([[0.0, 0.0]])).tolist()
    [[0.0, -1.0]]
    """

    centers: Array
    origin: Array
    unit: float
    spherical: bool = False

    equal_weights: ClassVar[bool] = True

    # -- rows ----------------------------------------------------------------------

    def kernel(self, engine: Engine = NUMPY) -> CentersKernel:
        """Return a kernel with sums of zero."""
        single = engine.single and self.single_is_safe
        dtype = np.float32 if single else np.float64
        if engine.name == "numba":
            # Numba takes longer to import than all that reads a model file.
            from .compiled_kernel import CompiledCentersKernel

            return CompiledCentersKernel(
                self.centers, self.origin, self.unit, self.spherical, dtype
            )
        return CentersKernel(self.centers, self.origin, self.unit, self.spherical, dtype)

    def join_key(self, engine: Engine) -> Hashable:
        """Return None: a product for all models would be as large as theirs together."""
        return None

    @cached_property
    def single_is_safe(self) -> bool:
        """Whether products in float32 tell the nearest centre but where two are as near.

        Rounding moves a difference of squared distances by about eps |c|^2, which must be little
        beside the squared distance of the two centres.
        """
        squares = (self.centers**2).sum(axis=1)
        # Products of what is far larger or smaller would be no numbers, or none but zero.
        if not 1e-30 < squares.max() < 1e30:
            return False
        lost = float(np.finfo(np.float32).eps * squares.max())
        nearest = np.inf
        # The products with all centres are held for some of them.
        for some in blocks(len(squares), max(1, tuning().sample.hard_numbers // len(squares))):
            apart = squares[some, None] + squares - 2 * self.centers[some] @ self.centers.T
            own = np.arange(len(squares))[some]
            apart[own - own[0], own] = np.inf
            nearest = min(nearest, float(apart.min()))
        return lost <= tuning().numerics.single_loss * nearest

    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d) about the origin, in units of `unit`."""
        return self._placed(X) / self.unit

    def _placed(self, X: Array) -> Array:
        rows = np.asarray(X, dtype=np.float64)
        return unit_rows(rows) if self.spherical else rows - self.origin

    # -- the M-step -------------------------------------------------------------------

    def maximize(self, resp_sum: Array, statistics: CenterStatistics) -> tuple[Self, Sequence[int]]:
        """Return the means; a cluster without rows goes to the row farthest from its own centre.

        Of several the first goes to the farthest row of all, the next to the farthest of another
        cluster, and so on: by rule, so that the bits do not depend on who computes.
        """
        filled = self._filled(resp_sum)
        weights = np.where(filled, resp_sum, 1.0)[:, None]
        moved = self.centers + np.where(filled[:, None], statistics.first / weights, 0.0)
        if self.spherical:
            lengths = np.sqrt((moved**2).sum(axis=1, keepdims=True))
            moved = np.where(lengths > 0, moved / np.where(lengths > 0, lengths, 1.0), self.centers)
        empty, givers = self._relocations(resp_sum, statistics)
        moved[empty] = statistics.far[givers]
        kept = np.setdiff1d(np.flatnonzero(~filled), empty)
        return self.with_arrays({"centers": moved}), kept.tolist()

    def relocated(self, resp_sum: Array, statistics: CenterStatistics) -> Sequence[int]:
        """Return the clusters without rows for which there is a row away from its centre."""
        found: list[int] = self._relocations(resp_sum, statistics)[0].tolist()
        return found

    @staticmethod
    def _filled(resp_sum: Array) -> Array:
        return np.asarray(resp_sum > tuning().numerics.empty)

    def _relocations(self, resp_sum: Array, statistics: CenterStatistics) -> tuple[Array, Array]:
        """Return the clusters without rows that move, and those whose farthest rows they get."""
        empty = np.flatnonzero(~self._filled(resp_sum))
        if len(empty) == 0:
            return empty, empty
        squares = statistics.far_squares
        reach = np.maximum((statistics.far**2).sum(axis=1), (self.centers**2).sum(axis=1))
        away = squares > tuning().numerics.one_place ** 2 * reach
        order = np.argsort(-squares, kind="stable")
        givers = order[away[order]][: len(empty)]
        return empty[: len(givers)], givers

    # -- sums ---------------------------------------------------------------------------

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: CenterStatistics
    ) -> float:
        """Compute sum_nk r_nk (log w_k + log p(x_n | k)) from sums, in nats."""
        return float(resp_sum @ log_weights - statistics.squares.sum() / self.unit**2)

    def recentre(self, resp_sum: Array, statistics: CenterStatistics, to: Self) -> CenterStatistics:
        """Return sums about the centres of this object as sums about those of `to`."""
        shift = to.centers - self.centers
        if not np.array_equal(to.origin, self.origin):
            shift = shift + (to.origin - self.origin)
        first = statistics.first - resp_sum[:, None] * shift
        # Of n |shift|^2 twice is taken off with the old sums, and once is added.
        squares = statistics.squares - ((statistics.first + first) * shift).sum(axis=1)
        return CenterStatistics(first, squares, statistics.far, statistics.far_squares)

    def inertia(self, statistics: CenterStatistics) -> float:
        """Sum the squared distances of rows to their centres, in squared units of the data."""
        return float(statistics.squares.sum())

    def reported_objective(self, log_likelihood: float, weight: float) -> Objective:
        """Return the inertia of rows of this weight, in squared units of the data."""
        # Not the minus zero of no distance.
        return Objective("inertia", 0.0 - log_likelihood * weight * self.unit**2)

    def profile_log_likelihood(self, resp_sum: Array, statistics: CenterStatistics) -> float:
        """Compute the classification log-likelihood of Gaussians of one variance, in nats.

        At its maximum in the variance and the weights, sum_k n_k log(n_k / n)
        - n d / 2 (1 + log(2 pi inertia / (n d))): that of X-means (Pelleg and Moore 2000).
        """
        n, d = resp_sum.sum(), self.centers.shape[1]
        shares = resp_sum[resp_sum > 0] / n
        variance = self.inertia(statistics) / (n * d)
        with np.errstate(divide="ignore"):
            width = 1 + np.log(2 * np.pi * variance)
        return float(n * (shares @ np.log(shares) - d / 2 * width))

    def profile_scale(self, resp_sum: Array, statistics: CenterStatistics) -> float:
        """Return u^2 over twice the variance: what distances count at its maximum."""
        inertia = self.inertia(statistics)
        n_numbers = float(resp_sum.sum()) * self.n_features
        return n_numbers * self.unit**2 / (2 * inertia) if inertia > 0 else 1.0

    def merge_losses(
        self, pairs: Sequence[tuple[int, int]], totals: Array, X: Array, resp: Array
    ) -> list[float]:
        """Compute what sum r log p loses, in nats, where the two of each pair become one.

        That is by how much the inertia grows (Ward 1963).
        """
        if not pairs:
            return []
        i, j = np.array(pairs).T
        sums, n = resp.T @ self._placed(X), resp.sum(axis=0)
        if self.spherical:
            lengths = np.linalg.norm(sums, axis=1)
            lost = 2 * (lengths[i] + lengths[j] - np.linalg.norm(sums[i] + sums[j], axis=1))
        else:
            means = sums / np.where(n > 0, n, 1.0)[:, None]
            both = np.where(n[i] + n[j] > 0, n[i] + n[j], 1.0)
            lost = n[i] * n[j] / both * ((means[i] - means[j]) ** 2).sum(axis=1)
        found: list[float] = (lost / self.unit**2).tolist()
        return found

    # -- parameters -----------------------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the centres."""
        return {"centers": self.centers}

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family of the centres in such a vector, as directions where they are."""
        centers = vector.reshape(self.centers.shape)
        return self.with_arrays({"centers": unit_rows(centers) if self.spherical else centers})

    def information_scale(self, root_weights: Array) -> Array:
        """Return the root of a weight over the width, for each number, (p,)."""
        # A cluster that has no rows, or hardly any, must not be nothing to divide by.
        roots = np.maximum(root_weights, tuning().numerics.empty) / self.unit
        return np.repeat(roots, self.centers.shape[1])

    def validate(self, statistics: CenterStatistics) -> None:
        """Raise `ValueError` that names what of the parameters, or of their sums, is wrong."""
        require("centers", self.centers, self.centers.ndim == 2)
        super().validate(statistics)
        require_array("origin", self.origin, self.centers.shape[1:])
        require("unit", self.unit, bool(0 < self.unit <= np.finfo(np.float64).max))
        sums = {"squares": statistics.squares, "far_squares": statistics.far_squares}
        for name, array in sums.items():
            require(name, array, bool((array >= 0).all()))

    def attributes(self) -> dict[str, Array]:
        """Return the centres in the units of the data, by the name of scikit-learn's attribute."""
        return {"cluster_centers_": self.centers + self.origin}

    def with_attributes(self, found: Mapping[str, Array]) -> Self:
        """Return the family of such centres in the units of the data."""
        return self.with_arrays({"centers": found["cluster_centers_"] - self.origin})

    @property
    def kind(self) -> str:
        """The distance, where it is not the Euclidean."""
        return "cosine" if self.spherical else ""

    @property
    def structure(self) -> str:
        """The distance in words."""
        return f"{self.kind or 'Euclidean'} distance"

    @property
    def n_features(self) -> int:
        """D, the number of columns."""
        return int(self.centers.shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters: the centres, and the variance that all have."""
        k, d = self.centers.shape
        return int(k * (d - self.spherical)) + 1

    # -- draws ---------------------------------------------------------------------------

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component, in the units of the data."""
        spread = rng.normal(scale=self.unit / np.sqrt(2), size=(n, self.n_features))
        rows = self.centers[component] + spread
        return unit_rows(rows) if self.spherical else rows + self.origin

    def profiles(self) -> list[Profile]:
        """Return the centres: one width for columns of many units would tell little of any."""
        centers = self.centers + self.origin
        return [Profile("Centers", (*range(centers.shape[1]),), centers)]

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        if not self.spherical:
            return self.centers + self.origin, np.full(self.centers.shape, self.unit**2 / 2)
        means, variances = np.empty((2, *self.centers.shape))
        rng = np.random.default_rng(0)
        for k in range(self.n_components):
            draws = self.sample(k, MOMENT_DRAWS, rng)
            means[k], variances[k] = draws.mean(axis=0), draws.var(axis=0)
        return means, variances
