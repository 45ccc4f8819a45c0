"""How two mixtures agree: components that are alike, labels and log-densities of rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .additive import Additive, Array
from .protocols import Fold, Pass
from .scoring import Predict


@dataclass(frozen=True)
class Agreement(Additive):
    """Hold sums that tell how two mixtures agree about rows.

    Attributes
    ----------
    n_rows : int
        Rows seen, those of weight zero included.
    table : (a, b) array
        Weights of the rows that are labelled i by the first mixture and j by the second; noise is
        behind the components.
    difference : float
        sum_n w_n d_n of the differences d_n = log p(x_n) under the second less under the first.
    squares : float
        sum_n w_n d_n^2.

    Examples
    --------
    >>> found = Agreement(4, np.array([[2.0, 0.0], [0.0, 2.0]]), 4.0, 16.0)
    >>> found.adjusted_rand, found.mean_difference, found.standard_error
    (1.0, 1.0, 1.0)
    """

    n_rows: int
    table: Array
    difference: float
    squares: float

    @property
    def weight(self) -> float:
        """Sum of the weights, which is the number of rows where they have none."""
        return float(self.table.sum())

    @property
    def mean_difference(self) -> float:
        """Mean of d_n, in nats per unit of weight."""
        return self.difference / self.weight

    @property
    def standard_error(self) -> float:
        """Standard error of `mean_difference`, of rows drawn independently; NaN of one row."""
        n = self.weight
        if n <= 1:
            return np.nan
        scatter = max(0.0, self.squares - self.difference * self.mean_difference)
        return float(np.sqrt(scatter / (n - 1) / n))

    @property
    def adjusted_rand(self) -> float:
        """Adjusted Rand index: 1 where labels agree but for their names, 0 as by chance.

        Hubert and Arabie, Journal of Classification 2, 1985, equation 5.
        """
        both, total = _pairs(self.table), _pairs(self.weight)
        ours, theirs = _pairs(self.table.sum(axis=1)), _pairs(self.table.sum(axis=0))
        chance = ours * theirs / total if total > 0 else 0.0
        most = (ours + theirs) / 2
        # Both put all rows into one group, or each into its own.
        return 1.0 if most == chance else float((both - chance) / (most - chance))


def _pairs(counts: Array | float) -> float:
    """Return how many pairs rows of these counts make."""
    n = np.asarray(counts)
    return float((n * (n - 1)).sum() / 2)


def least_matching(costs: Array) -> list[tuple[int, int]]:
    """Return pairs of a row and a column, each taken once, of least total cost (a, b).

    Examples
    --------
    >>> least_matching(np.array([[9.0, 1.0, 5.0], [1.0, 2.0, 5.0]]))
    [(0, 1), (1, 0)]
    """
    # scipy takes longer to import than all that reads a model file.
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(costs)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


@dataclass(frozen=True)
class Agree(Pass[Agreement]):
    """The pass that sums how two mixtures agree.

    Attributes
    ----------
    first, second : Predict
        Of the answers "labels" and "log_density", in this order.
    columns : (d,) array of int, optional
        The columns of the rows in the order in which the second takes them.

    Examples
    --------
    >>> from dask_em.core.mixture import Mixture
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> mixture = Mixture(np.zeros(1), GaussianOptions().of_data(Moments.unit(1), 1))
    >>> one = Predict(mixture, ("labels", "log_density"))
    >>> fold = Agree(one, one).fold()
    >>> fold.update(0, np.array([[0.0], [2.0]]), np.array([1.0, 3.0]))
    >>> fold.result().table.tolist(), fold.result().difference
    ([[4.0]], 0.0)
    """

    first: Predict
    second: Predict
    columns: Array | None = None

    def fold(self) -> AgreeFold:
        """Return the fold of one range, before its first chunk."""
        return AgreeFold(self)


class AgreeFold(Fold[Agreement]):
    """Sum how two mixtures agree about chunks of rows."""

    def __init__(self, work: Agree) -> None:
        self.work = work
        shape = [one.mixture.n_parts for one in (work.first, work.second)]
        self._sums = Agreement(0, np.zeros(shape), 0.0, 0.0)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        self._sums += Agreement(len(X), np.zeros_like(self._sums.table), 0.0, 0.0)
        if sample_weight is not None:
            # A row of weight zero is a row left out, whatever it holds.
            kept = (sample_weight > 0) & np.isfinite(sample_weight)
            X, sample_weight = X[kept], sample_weight[kept]
        ours = self.work.first(X)
        theirs = self.work.second(X if self.work.columns is None else X[:, self.work.columns])
        weights = np.ones(len(X)) if sample_weight is None else sample_weight.astype(np.float64)
        shape = self._sums.table.shape
        # The label of noise, -1, is the last of the parts.
        cells = ours["labels"] % shape[0] * shape[1] + theirs["labels"] % shape[1]
        table = np.bincount(cells, weights, shape[0] * shape[1]).reshape(shape)
        with np.errstate(invalid="ignore", over="ignore"):
            apart = theirs["log_density"] - ours["log_density"]
            sums = float(weights @ apart), float(weights @ apart**2)
        self._sums += Agreement(0, table, *sums)

    def result(self) -> Agreement:
        """Return the sums over the chunks given so far."""
        return self._sums
