"""Sums of many Gaussian components of which few count for a row: the extra `fast`.

A component whose joint density is below e^-60 of a row's largest adds nothing to any sum. Lower
bounds on the distances of a block's rows, one product in float32 for all components, rule most of
these out where components lie apart; the component of the largest bound is computed first, and
what the row then needs is known. What is left is listed by component and computed exactly. All
that is decided is decided by the rows of the block and the parameters alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ...core.additive import Array
from ...core.family import Kernel
from ...core.responsibilities import NEGLIGIBLE, UNDECIDED, ListedResponsibilities
from ...core.tuning import tuning
from . import candidate_loops as loops
from . import simd
from .candidate_aims import Aim, aim_of_answers, aim_of_sums
from .compiled_kernel import CentredKernel, round_up
from .diagonals import Diagonal
from .joint_bounds import Bounds, DirectionBounds, MinorantBounds, Scores, direction_cost
from .label_margins import LabelMargins
from .listed_pairs import Listed, ListedDiagonals, ListedMatrices, Pairs
from .matrices import Full
from .minorants import LEAST_DIRECTIONS, most_directions, thin_directions
from .parameters import GaussianParameters
from .statistics import GaussianStatistics


class Division:
    """Divide blocks of rows among the components that count for them, and sum.

    Parameters
    ----------
    gaussian : GaussianParameters
        Of full or diagonal covariances.
    rows : int
        Of a block, at most.
    dense : Kernel
        Of the same parameters: it computes all pairs. Sums of pairs under matrices are added to
        its own where it has them in float64.
    """

    def __init__(
        self, gaussian: GaussianParameters, rows: int, dense: Kernel[GaussianStatistics]
    ) -> None:
        k, d = gaussian.means.shape
        self._gaussian, self._most_rows, self._dense = gaussian, rows, dense
        whitening = gaussian.whitening
        self._rotate = whitening.inverse_scale if whitening.scale.ndim == 2 else None
        self._width, self._padded = simd.tile_columns(np.float32), round_up(d, simd.lanes("f8"))
        self._scores = Scores(k)
        self._minorants = MinorantBounds(gaussian)
        # Made where those are not enough.
        self._directions: DirectionBounds | None = None
        self._sums = aim_of_sums(gaussian)
        self._responsibilities = aim_of_answers(gaussian, dense, labels=False)
        # Made when rows are labelled.
        self._labelling: Aim | None = None
        self._listed: Listed
        if isinstance(gaussian.covariance, Diagonal):
            self._listed = ListedDiagonals(gaussian)
        else:
            centred = dense if isinstance(dense, CentredKernel) else None
            double = centred is not None and centred.dtype == np.float64
            self._listed = ListedMatrices(gaussian, rows, centred if double else None)
        # Blocks that are not tried, after one that was in vain.
        self._waits = 0
        self._counts = np.empty(k, np.int64)
        self._own_starts, self._starts, self._none = np.zeros((3, k + 1), np.int64)
        self._reserve(0)

    def _reserve(self, rows: int) -> None:
        """Make room for blocks of so many rows."""
        k, d = self._gaussian.means.shape
        self._raw = np.empty((rows if self._rotate is not None else 0, d))
        self._Z = np.zeros((rows, self._padded))
        self._masks = np.empty((k, rows // self._width), np.int64)
        self._own_rows = np.empty(rows, np.int64)
        self._own, self._best, self._total, self._margin, self._ones = np.ones((5, rows))
        self._labels = np.empty(rows, np.int64)
        self._least = np.empty(rows, np.float32)
        most = self._most_listed(rows)
        self._rows, self._values = np.empty(most, np.int64), np.empty(most)

    def _most_listed(self, rows: int) -> int:
        """Return how many pairs of so many rows are listed at most."""
        return rows + int(tuning().candidates.most_listed * rows * self._gaussian.n_components)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        k, d = self._gaussian.means.shape
        rows = round_up(self._most_rows, self._width)
        raw = d if self._rotate is not None else 0
        own = rows * (8 * (raw + self._padded + 7) + 4) + 8 * k * rows // self._width
        bounds = 2 * self._minorants.held_bytes(rows) + self._scores.held_bytes(rows)
        if isinstance(self._gaussian.covariance, Full):
            # Directions in both layouts, and what they are of.
            bounds += 16 * k * most_directions(d) * (d + 1) + 8 * self._gaussian.means.size
        lists = 16 * self._most_listed(rows) + 8 * 4 * (k + 1)
        return int(own + bounds + lists + self._listed.held_bytes(rows))

    def statistics(self) -> GaussianStatistics | None:
        """Return the sums so far, where they are no part of the kernel's."""
        return self._listed.statistics()

    def add(self, X: Array, log_prior: Array, weight: Array | None) -> tuple[float, Array] | None:
        """Divide rows X (b, d) by their responsibilities; return log p(X) and sums of these.

        None where too many components count for some of the rows, or for all.
        """
        pairs = self._list(X, log_prior, self._sums)
        if pairs is None:
            return None
        added = self._divide(len(X), pairs, log_prior, weight)
        self._listed.add(self._Z[: len(X)], pairs, self._values[: pairs.starts[-1]])
        return added

    def divide(self, X: Array, log_prior: Array) -> ListedResponsibilities | None:
        """Return the responsibilities of rows X (b, d) that count, and log p(x); None as `add`."""
        pairs = self._list(X, log_prior, self._responsibilities)
        if pairs is None:
            return None
        self._divide(len(X), pairs, log_prior, None)
        n = pairs.starts[-1]
        log_density = self._best[: len(X)]
        return ListedResponsibilities(pairs.starts, pairs.rows[:n], self._values[:n], log_density)

    def label(self, X: Array, log_prior: Array) -> Array | None:
        """Return the likeliest components of rows X (b, d), or `UNDECIDED`; None as `add`."""
        if self._labelling is None:
            margins = LabelMargins(self._gaussian, self._dense)
            aim = aim_of_answers(self._gaussian, self._dense, labels=True)
            self._labelling = aim._replace(margins=margins)
        pairs = self._list(X, log_prior, self._labelling)
        if pairs is None:
            return None
        b = len(X)
        lead, labels = self._total[:b], self._labels[:b]
        loops.likeliest_pairs(
            pairs.starts, pairs.rows, self._values, log_prior, self._best, lead, labels
        )
        # What is NaN is not above.
        undecided = ~(lead > self._margin[:b])
        labels[undecided] = UNDECIDED
        if undecided.mean() > tuning().candidates.most_listed:
            self._waits = self._labelling.untried
        return labels

    def _divide(
        self, b: int, pairs: Pairs, log_prior: Array, weight: Array | None
    ) -> tuple[float, Array]:
        """Turn the log-densities of pairs into responsibilities; return what `add` does.

        Log p(x) is left in `_best`.
        """
        weights = self._ones[:b]
        if weight is not None:
            weights = np.ascontiguousarray(weight, dtype=np.float64)
        resp_sum = np.empty(len(log_prior))
        log_likelihood = loops.divide_pairs(
            pairs.starts, pairs.rows, self._values, log_prior, NEGLIGIBLE, weights, self._best,
            self._total, resp_sum,
        )  # fmt: skip
        return float(log_likelihood), resp_sum

    def _list(self, X: Array, log_prior: Array, aim: Aim) -> Pairs | None:
        """List the pairs that may count for rows X (b, d), with their log-densities in `_values`.

        None where they are too many.
        """
        if self._waits:
            self._waits -= 1
            return None
        bounds = self._chosen(X, log_prior, aim)
        pairs = None if bounds is None else self._list_by(X, bounds, log_prior, aim)
        if pairs is None:
            self._waits = aim.untried
        return pairs

    def _chosen(self, X: Array, log_prior: Array, aim: Aim) -> Bounds | None:
        """Return the bounds that take the least for rows X (b, d); None where all is computed.

        Some rows tell, of the whole block, which may be in any order.
        """
        step = max(1, len(X) // self._width)
        some = X[::step][: self._width]
        least, chosen = aim.most, None
        n_directions = 0
        for bounds in self._ways(len(some), log_prior, least, aim):
            if bounds.cost >= least:
                break
            n_others = self._find(some, bounds, log_prior, aim)
            cost = bounds.cost + aim.listed * n_others / (len(some) * len(log_prior))
            if cost < least:
                least, chosen = cost, bounds
                n_directions = self._directions.n_directions if self._directions else 0
        if self._directions is not None and n_directions:
            self._directions.n_directions = n_directions
        return chosen

    def _ways(self, b: int, log_prior: Array, least: float, aim: Aim) -> Iterator[Bounds]:
        """Yield bounds, each of which costs more, and rules out more, than those before."""
        yield self._minorants
        covariance = self._gaussian.covariance
        if not isinstance(covariance, Full):
            return
        if self._directions is None:
            if not self._directions_pay(covariance, b, log_prior, least, aim):
                return
            self._directions = DirectionBounds(self._gaussian)
        n = LEAST_DIRECTIONS
        while n <= self._directions.most:
            self._directions.n_directions = n
            yield self._directions
            n *= 2

    def _directions_pay(
        self, covariance: Full, b: int, log_prior: Array, least: float, aim: Aim
    ) -> bool:
        """Tell by a few components whether their directions rule out enough of the b rows here.

        Those of all take as long as the densities of some thousand rows.
        """
        k, d = self._gaussian.means.shape
        some = np.arange(0, k, max(1, k // tuning().candidates.few_components))
        directions = thin_directions(covariance.take(some.tolist()), most_directions(d))
        peaks = (self._gaussian.log_peaks + log_prior)[some, None]
        with np.errstate(all="ignore"):
            images = directions @ self._gaussian.means[some, :, None]
            squares = np.cumsum((directions @ self._Z[:b, :d].T - images) ** 2, axis=1)
        # Of rows that are the mixture's: what the bounds before told may be far too low.
        usual = np.median(peaks) - 0.5 * d - 1.5 * np.sqrt(2 * d)
        usual += aim.negligible
        reached = np.maximum(self._least[:b], usual)
        n = LEAST_DIRECTIONS
        while n <= directions.shape[1]:
            share = float((peaks - squares[:, n - 1] / 2 >= reached).mean())
            # All of them judge; these few tell only where it is in vain.
            if direction_cost(n, d) + aim.listed * share < 1.5 * least:
                return True
            n *= 2
        return False

    def _find(self, X: Array, bounds: Bounds, log_prior: Array, aim: Aim) -> int:
        """Find what may count for each row beside the component of its largest bound."""
        b, d = X.shape
        self._whiten(X)
        Z, found = self._Z[:b], self._scores
        bounds.compute(Z[:, :d], log_prior, found)
        loops.group_rows(found.labels, b, self._own_starts, self._own_rows)
        own = Pairs(self._own_starts, self._own_rows, self._none)
        self._listed.compute(Z, own, self._own)
        if aim.margins is not None:
            rows, best = self._own_rows[:b], self._best[:b]
            best[rows] = self._own[:b] + log_prior[found.labels[rows]]
            self._margin[:b] = aim.margins.of(Z[:, :d], self._raw[:b], best, log_prior)
            with np.errstate(over="ignore"):
                found.slack[:b] += self._margin[:b]
        loops.set_least(
            self._own_starts, self._own_rows, self._own, log_prior, found.slack, aim.negligible,
            self._least,
        )  # fmt: skip
        scores = found.scores[: -(-b // self._width)]
        return int(
            loops.note_candidates(scores, found.labels, self._least, b, self._masks, self._counts)
        )

    def _list_by(self, X: Array, bounds: Bounds, log_prior: Array, aim: Aim) -> Pairs | None:
        """List the pairs that bounds do not rule out; None where they are too many."""
        if len(X) + self._find(X, bounds, log_prior, aim) > self._most_listed(len(X)):
            return None
        loops.list_pairs(
            self._masks, -(-len(X) // self._width), self._width, self._counts, self._own_starts,
            self._own_rows, self._own, self._starts, self._rows, self._values,
        )  # fmt: skip
        pairs = Pairs(self._starts, self._rows, self._own_starts)
        self._listed.compute(self._Z[: len(X)], pairs, self._values)
        return pairs

    def _whiten(self, X: Array) -> None:
        b, d = X.shape
        if b > len(self._Z):
            self._reserve(round_up(b, self._width))
        whitening, Z = self._gaussian.whitening, self._Z[:b, :d]
        if self._rotate is None:
            np.subtract(X, whitening.shift, out=Z, dtype=np.float64)
            Z *= whitening.inverse_scale
            return
        raw = self._raw[:b]
        np.subtract(X, whitening.shift, out=raw, dtype=np.float64)
        np.matmul(raw, self._rotate.T, out=Z)


class CandidateKernel(Kernel[GaussianStatistics]):
    """Divide rows among the components that count for them, and leave the rest to another kernel.

    Parameters
    ----------
    gaussian : GaussianParameters
        Of full or diagonal covariances.
    dense : Kernel
        Of the same parameters: it computes all pairs, for blocks of which too many count.
    """

    divides = True

    def __init__(self, gaussian: GaussianParameters, dense: Kernel[GaussianStatistics]) -> None:
        sizes = tuning().candidates
        self._gaussian, self._dense = gaussian, dense
        self.block_rows = dense.block_rows
        rows = min(sizes.bound_bytes // (4 * gaussian.n_components), sizes.most_rows)
        self._part_rows = max(1, rows // self.block_rows) * self.block_rows
        labelled = gaussian.n_components * aim_of_answers(gaussian, dense, labels=True).dense
        matrices = gaussian.n_features if isinstance(gaussian.covariance, Full) else 0
        self.least_answered = int(
            max(sizes.answered_products / labelled, sizes.answered_rows * matrices)
        )
        # Made when rows are to be divided: answers of few rows need none.
        self._made: Division | None = None

    @property
    def _division(self) -> Division:
        if self._made is None:
            self._made = Division(self._gaussian, self._part_rows, self._dense)
        return self._made

    @property
    def part_rows(self) -> int:
        """Rows that are divided at once."""
        return int(self._part_rows)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        return int(self._dense.nbytes + self._division.nbytes)

    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""
        self._dense.load(X)

    def log_prob(self) -> Array:
        """Return log p(x | k) of the current block (k, b), for the caller to overwrite."""
        return self._dense.log_prob()

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sums under `resp` (k, b)."""
        self._dense.accumulate(resp)

    def add_divided(
        self, X: Array, log_prior: Array, weight: Array | None
    ) -> tuple[float, Array] | None:
        """Divide rows X (b, d), b <= `part_rows`, by their responsibilities, and add the sums.

        None where too many components count for some of the rows, or for all.
        """
        return self._division.add(X, log_prior, weight)

    def divide(self, X: Array, log_prior: Array) -> ListedResponsibilities | None:
        """Return the responsibilities of rows X (b, d), b <= `part_rows`, that are not zero.

        None where too many components count for some of the rows, or for all.
        """
        if not self._worth(labels=False):
            return None
        return self._division.divide(X, log_prior)

    def label(self, X: Array, log_prior: Array) -> Array | None:
        """Return the likeliest component of rows X (b, d), b <= `part_rows`, or `UNDECIDED`.

        None where too many components come near to the likeliest.
        """
        if not self._worth(labels=True):
            return None
        return self._division.label(X, log_prior)

    def _worth(self, labels: bool) -> bool:
        """Tell whether answers may be quicker by the least that bounds cost."""
        if self._made is not None:
            return True
        aim = aim_of_answers(self._gaussian, self._dense, labels)
        return self._gaussian.n_features + 2 < aim.most

    def statistics(self) -> GaussianStatistics:
        """Return the sums over all rows so far, about the current means."""
        found = self._dense.statistics()
        more = None if self._made is None else self._made.statistics()
        return found if more is None else found + more


def with_candidates(
    gaussian: GaussianParameters, dense: Kernel[GaussianStatistics]
) -> Kernel[GaussianStatistics]:
    """Return a kernel that leaves out components that do not count, where there may be many.

    Examples
    --------
    >>> from .whitening import Whitening
    >>> unit = Whitening(np.zeros(1), np.ones(1))
    >>> few = GaussianParameters(np.zeros((2, 1)), Diagonal(np.ones((2, 1))), unit)
    >>> from .compiled_kernel import FeaturesKernel
    >>> kernel = FeaturesKernel(few)
    >>> with_candidates(few, kernel) is kernel
    True
    """
    k, d = gaussian.means.shape
    sizes = tuning().candidates
    worth = k >= sizes.least_components and d >= sizes.least_columns
    return CandidateKernel(gaussian, dense) if worth else dense
