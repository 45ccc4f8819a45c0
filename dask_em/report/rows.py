"""Rows for pictures, drawn from data of any kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import backend_in_force
from ..core.additive import Array
from ..core.protocols import Fold, Pass, Source
from ..core.support import REAL, Support
from ..data.columns import check_columns
from ..data.open import as_source, is_stored, stored_source
from ..estimators.describe import FittedMixture
from ..fitting.survey import Sample
from .drift import sample_rows


def drawn_rows(model: FittedMixture, X: Any, n_rows: int, seed: int = 0) -> Array:
    """Draw at most so many rows (m, d) of data, read as those of the fit were; see `opened_rows`.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> drawn_rows(GaussianMixture(1).fit(X), X, 100).shape
    (100, 2)
    """
    return opened_rows(model, X, n_rows, seed)[1]


def opened_rows(model: FittedMixture, X: Any, n_rows: int, seed: int = 0) -> tuple[Source, Array]:
    """Open data, read as those of the fit were, and draw at most so many rows (m, d).

    Of stored rows at most 64 chunks are read, one at a time; of all others, as Dask arrays and
    rows in memory, each once, on the Dask scheduler in force.

    Raises
    ------
    DataError
        Another number of columns than the model's; or a row that the model does not describe, as
        of NaN or infinity, which it was not told to leave out.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(500, 2))
    >>> source, rows = opened_rows(GaussianMixture(1).fit(X), X, 100)
    >>> source.n_rows, rows.shape
    (500, (100, 2))
    """
    options, support = model.read_options, model.state_.result.components.support
    if is_stored(X):
        stored = stored_source(X, options=options)
        check_columns(stored.description, stored.n_features, model.n_features_in_)
        return stored, sample_rows(stored, n_rows, seed, support)
    source = as_source(X, options=options)
    check_columns("X", source.n_features, model.n_features_in_)
    draw = Draw(seed, n_rows, source.n_features, options.nonfinite == "drop", support)
    return source, backend_in_force().map_reduce(source, draw).smallest().rows


@dataclass(frozen=True)
class Draw(Pass[Sample]):
    """The pass that draws a uniform sample of the rows, weights or not.

    Attributes
    ----------
    seed : int
    size : int
        Of the sample, in rows.
    n_features : int
    drop : bool
        Whether rows that the model does not describe are left out.
    support : Support
        The numbers that it describes.
    """

    seed: int
    size: int
    n_features: int
    drop: bool = False
    support: Support = REAL

    @property
    def result_bytes(self) -> int:
        """Bytes of the sample, at most."""
        return 8 * self.size * (self.n_features + 2)

    def fold(self) -> DrawFold:
        """Return the sample of one range, before its first chunk."""
        return DrawFold(self)


class DrawFold(Fold[Sample]):
    """Draws from chunks as they come."""

    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        empty = np.empty((0, draw.n_features))
        self._sample = Sample(draw.size, np.empty(0), empty, np.empty(0))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Draw from the rows X (n, d) of chunk number `index`."""
        kept = self.draw.support.kept(X) if self.draw.drop else None
        if not self.draw.drop:
            self.draw.support.check(X, range(len(X)))
        rows = np.arange(len(X)) if kept is None else np.flatnonzero(kept)
        seeds = np.random.SeedSequence(self.draw.seed, spawn_key=(index,))
        keys = np.random.default_rng(seeds).random(len(X))[rows]
        first = np.argsort(keys, kind="stable")[: self.draw.size]
        drawn = np.asarray(X[rows[first]], dtype=np.float64)
        self._sample += Sample(self.draw.size, keys[first], drawn, np.ones(len(first)))

    def result(self) -> Sample:
        """Return the rows drawn so far."""
        return self._sample
