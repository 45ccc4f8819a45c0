"""Drift: a sample of stored rows, and how the model fits each part of the store.

A part is what is read at a time: one chunk, or neighbours that are small together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import NormalDist
from typing import Any

import numpy as np

from ..backends import backend_in_force
from ..core.additive import Additive, Array
from ..core.family import blocks
from ..core.finite import located
from ..core.protocols import Fold, Pass, Source, StoredSource
from ..core.support import REAL, Support
from ..data.columns import check_columns
from ..data.open import as_source
from ..estimators.describe import FittedMixture
from ..fitting.observers import ObservedPass

# Chunks that a sample is read from, evenly spaced: all of them where there are no more.
SAMPLE_CHUNKS = 64

# Fewer parts do not tell which of them is unlike the others, nor fewer rows how a part is.
FEWEST_PARTS, FEWEST_ROWS = 8, 100
# Chance makes one of so many reports of rows in random order name a part.
ONE_REPORT_IN = 10_000
# Many rows make any shift certain. One is named from this size on: nats per row below the median
# part (its rows are 10 % less likely), and rows that would have to change their component.
LEAST_SHIFT, LEAST_MOVED = 0.1, 0.1
# Rows whose responsibilities are held at a time.
BLOCK_ROWS = 8192


@dataclass(frozen=True)
class ChunkDensities(Additive):
    """Log-densities of parts under a model; two of them add up to both, side by side.

    Attributes
    ----------
    n_rows : (c,) array of int
        Rows of each part, those that were left out among them.
    n_dropped : (c,) array of int
        Rows of NaN or infinity that were left out.
    means : (c,) array
        Mean log p(x) over the part's rows, in nats.
    scatters : (c,) array
        sum_n (log p(x_n) - mean)^2 over the part's rows.
    shares : (c, k) array
        Shares of the components: mean responsibilities over the part's rows.
    share_scatters : (c, k) array
        sum_n (r_nk - share)^2 over the part's rows.
    column_means, column_scatters : (c, d) array
        The same of the columns. NaN where a value is missing.
    """

    n_rows: Array
    n_dropped: Array
    means: Array
    scatters: Array
    shares: Array
    share_scatters: Array
    column_means: Array
    column_scatters: Array

    def __add__(self, other: ChunkDensities) -> ChunkDensities:
        return side_by_side([self, other])

    def chosen(self, parts: Array) -> ChunkDensities:
        """Return some parts, by their numbers."""
        return ChunkDensities(*(vars(self)[field.name][parts] for field in fields(self)))

    @property
    def whole(self) -> ChunkDensities:
        """All rows as one part."""
        there = self.n_used > 0
        n = self.n_used[there].astype(float)

        def pooled(means: Array, scatters: Array) -> tuple[Array, Array]:
            mean = n @ means[there] / max(n.sum(), 1)
            return mean[None], (scatters[there].sum(axis=0) + n @ (means[there] - mean) ** 2)[None]

        with np.errstate(invalid="ignore"):
            means, scatters = pooled(self.means[:, None], self.scatters[:, None])
            shares = pooled(self.shares, self.share_scatters)
            columns = pooled(self.column_means, self.column_scatters)
        rows = self.n_rows.sum(keepdims=True), self.n_dropped.sum(keepdims=True)
        return ChunkDensities(*rows, means[:, 0], scatters[:, 0], *shares, *columns)

    @property
    def first_rows(self) -> Array:
        """First row of each part, (c,)."""
        return np.asarray(np.cumsum(self.n_rows) - self.n_rows)

    @property
    def n_used(self) -> Array:
        """Rows of each part that have a density, (c,)."""
        return np.asarray(self.n_rows - self.n_dropped)

    @property
    def finite(self) -> Array:
        """Parts of finite mean, (c,) of bool: in others the density of a row underflows."""
        return np.isfinite(self.means) & np.isfinite(self.scatters)

    @property
    def median(self) -> float:
        """Median of the finite means: no part, however odd, moves it far. NaN for no parts."""
        return self._median(self.means)

    @property
    def deviation(self) -> float:
        """Standard deviation of the log-density of a row, of the median part."""
        return self._median(np.sqrt(self.scatters / np.maximum(self.n_used, 1)))

    def _median(self, values: Array) -> float:
        return float(np.median(values[self.finite])) if self.finite.any() else np.nan

    @property
    def standard_errors(self) -> Array:
        """Distance of each part's mean from `median`, in standard errors of the mean, (c,)."""
        errors = self.deviation / np.sqrt(np.maximum(self.n_used, 1))
        # A part of which no row is left is unlike nothing.
        far = np.where(self.finite | (self.n_used == 0), 0.0, -np.inf)
        np.divide(self.means - self.median, errors, out=far, where=self.finite & (errors > 0))
        return far

    @property
    def shifts(self) -> Array:
        """Distance of each part's mean from `median`, in nats per row, (c,)."""
        return np.where(self.finite, self.means - self.median, -np.inf)

    @property
    def changes(self) -> Array:
        """Shares of the components in each part less those in all rows, (c, k)."""
        known = np.isfinite(self.shares).all(axis=1)
        n_rows = self.n_used[known]
        return np.asarray(self.shares - n_rows @ self.shares[known] / max(1, n_rows.sum()))

    @property
    def moved(self) -> Array:
        """Share of each part's rows that changed their component, (c,): half of |changes|."""
        return np.asarray(np.abs(self.changes).sum(axis=1) / 2)

    @property
    def judged(self) -> bool:
        """Whether there are parts enough to say which is unlike the others."""
        return len(self.means) >= FEWEST_PARTS

    @property
    def unlike(self) -> Array:
        """Parts below `median` by `LEAST_SHIFT`, and by more than chance explains, (c,) of bool."""
        chance = NormalDist().inv_cdf(1 / (ONE_REPORT_IN * max(1, len(self.means))))
        far = (self.standard_errors < chance) & (self.shifts <= -LEAST_SHIFT)
        return np.asarray(far & self._enough)

    @property
    def mixed_otherwise(self) -> Array:
        """Parts of which `LEAST_MOVED` moved, and more than chance explains, (c,) of bool.

        P(moved > t) <= 2^k exp(-2 n t^2) for n rows of the shares of all (Weissman et al.,
        Inequalities for the L1 deviation of the empirical distribution, 2003).
        """
        c, k = self.shares.shape
        exponent = k * np.log(2) + np.log(ONE_REPORT_IN * max(1, c))
        return np.asarray(
            (self.moved > np.sqrt(exponent / (2 * np.maximum(self.n_used, 1))))
            & (self.moved >= LEAST_MOVED)
            & self._enough
        )

    @property
    def _enough(self) -> Array:
        return (self.n_used >= FEWEST_ROWS) & self.judged

    def most_unlike(self, most: int) -> list[int]:
        """Return the parts of lowest density for their number of rows, lowest first."""
        order = np.argsort(self.standard_errors, kind="stable")
        return [int(c) for c in order[:most]]


@dataclass(frozen=True)
class Densities(Pass[ChunkDensities]):
    """The pass that sums log-densities and responsibilities by part.

    Attributes
    ----------
    answer : callable
        Rows (n, d) -> {"log_density": (n,), "proba": (n, k)}.
    n_components, n_features : int
    drop : bool
        Whether rows without an answer are left out.
    support : Support
        The numbers that have one.
    """

    answer: Callable[[Array], dict[str, Array]]
    n_components: int
    n_features: int
    drop: bool
    support: Support = REAL

    def fold(self) -> DensityFold:
        """Return the fold of one range, before its first chunk."""
        return DensityFold(self)

    def none(self) -> ChunkDensities:
        """Return the densities of no part."""
        numbers = np.empty((2, 0), dtype=np.int64)
        shares = np.empty((2, 0, self.n_components))
        return ChunkDensities(
            *numbers, *np.empty((2, 0)), *shares, *np.empty((2, 0, self.n_features))
        )

    def part(self, X: Array) -> ChunkDensities:
        """Return the densities of rows X (n, d), there are some, as one part."""
        mean, (resp_sum, squares) = np.nan, np.zeros((2, self.n_components))
        values, used = np.empty(len(X)), np.ones(len(X), dtype=bool)
        for rows in blocks(len(X), BLOCK_ROWS):
            answers = self.answer(X[rows])
            values[rows], resp = answers["log_density"], answers["proba"]
            used[rows] = ~np.isnan(values[rows])
            if not used[rows].all():
                resp = resp[used[rows]]
            resp_sum += resp.sum(axis=0)
            squares += (resp.astype(np.float64) ** 2).sum(axis=0)
        values = values[used]
        share = resp_sum / max(len(values), 1)
        scatters = np.maximum(0.0, squares - resp_sum * share)
        with np.errstate(over="ignore", invalid="ignore"):
            if len(values):
                mean = float(values.mean())
            scatter = float(((values - mean) ** 2).sum())
        columns, column_scatters = _moments(X, used)
        return ChunkDensities(
            *(np.array([len(X)]), np.array([len(X) - len(values)])),
            *(np.array([mean]), np.array([scatter])),
            *(share[None], scatters[None], columns[None], column_scatters[None]),
        )


class DensityFold(Fold[ChunkDensities]):
    """Sums log-densities of chunks as they come."""

    def __init__(self, work: Densities) -> None:
        self.work = work
        self._parts: list[ChunkDensities] = []

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) of chunk number `index`."""
        if len(X) == 0:
            return
        if not self.work.drop:
            self.work.support.check(X, range(len(X)))
        self._parts.append(self.work.part(X))

    def result(self) -> ChunkDensities:
        """Return the densities of the parts given so far."""
        return side_by_side([self.work.none(), *self._parts])


def side_by_side(parts: Sequence[ChunkDensities]) -> ChunkDensities:
    """Return several, one at least, side by side."""
    names = [field.name for field in fields(ChunkDensities)]
    return ChunkDensities(*(np.concatenate([vars(one)[n] for one in parts]) for n in names))


def _moments(X: Array, used: Array) -> tuple[Array, Array]:
    """Return means and scatters (d,) of the columns of rows (n, d), some at a time."""
    n, (mean, scatter) = max(1, int(used.sum())), np.zeros((2, X.shape[1]))
    with np.errstate(over="ignore", invalid="ignore"):
        for rows in blocks(len(X), BLOCK_ROWS):
            mean += X[rows][used[rows]].sum(axis=0, dtype=np.float64) / n
        for rows in blocks(len(X), BLOCK_ROWS):
            scatter += ((X[rows][used[rows]] - mean) ** 2).sum(axis=0)
    return mean, scatter


def chunk_densities(model: FittedMixture, X: Any, callbacks: Sequence[Any] = ()) -> ChunkDensities:
    """Compute the mean log-density of every part, in one pass on the Dask scheduler in force.

    A part is what is read at a time: one chunk, or neighbours that are small together.

    Parameters
    ----------
    model : fitted mixture
    X : NumPy array, Dask array, zarr.Array, or path or URL of a Zarr array
        (n, d).
    callbacks : sequence, optional
        Observers of the pass.

    Raises
    ------
    DataError
        Another number of columns than the model's, or NaN or infinity that the model was not
        told to leave out.

    Examples
    --------
    >>> import dask.array as da
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> model = GaussianMixture(1).fit(X)
    >>> X[100:200] += 5
    >>> found = chunk_densities(model, da.from_array(X, chunks=(100, 2)))
    >>> found.judged, found.unlike.nonzero()[0].tolist()
    (True, [1])
    """
    return source_densities(model, as_source(X, options=model.read_options), callbacks)


def source_densities(
    model: FittedMixture, source: Source, callbacks: Sequence[Any] = ()
) -> ChunkDensities:
    """Compute the same of a source; see `chunk_densities`."""
    check_columns("X", source.n_features, model.n_features_in_)
    with ObservedPass(callbacks, "drift", 1, source.n_rows, source.nbytes) as running:
        drop = model.read_options.nonfinite == "drop"
        predictor = model.predictor(("log_density", "proba"))
        support = predictor.mixture.components.support
        # Noise counts as a component here.
        k = predictor.mixture.n_parts
        work = Densities(predictor, k, source.n_features, drop, support)
        return backend_in_force().map_reduce(source, work, running.advance)


def sample_rows(source: StoredSource, n_rows: int, seed: int = 0, support: Support = REAL) -> Array:
    """Draw rows (m, d) for pictures from at most 64 evenly spaced chunks.

    One chunk is held at a time. Each gives rows by its share of the rows of all, and fewer where
    the source's options leave rows without an answer out, which hold what no `support` has.

    Raises
    ------
    DataError
        A row that was drawn has no answer.

    Examples
    --------
    >>> import zarr
    >>> X = zarr.array(np.arange(200.0).reshape(100, 2), chunks=(10, 2))
    >>> rows = sample_rows(as_source(X), 20)
    >>> rows.shape, bool((rows[:, 0] % 2 == 0).all())
    ((20, 2), True)
    """
    wanted = min(SAMPLE_CHUNKS, source.n_chunks)
    chunks = np.linspace(0, source.n_chunks - 1, wanted).round().astype(int)
    lengths = np.diff(source.bounds)[chunks]
    share = min(1.0, n_rows / lengths.sum())
    counts = np.diff(np.rint(np.cumsum(lengths) * share).astype(int), prepend=0)
    reader = source.reader()
    parts = []
    for chunk, length, count in zip(chunks.tolist(), lengths, counts, strict=True):
        if count == 0:
            continue
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(chunk,)))
        # Numbers of rows make a copy, so the reader may use its buffers again.
        chosen = np.sort(rng.choice(length, count, replace=False))
        rows = reader.read(chunk)[0][chosen]
        kept = support.kept(rows) if source.drops else None
        if kept is not None:
            rows, chosen = rows[kept], chosen[kept]
        with located(source.locate, chunk, source.columns):
            support.check(rows, chosen)
        parts.append(rows)
    return np.concatenate(parts)
