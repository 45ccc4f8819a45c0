"""The laws of a source: inherit `SourceTests`, and write `source`."""

from __future__ import annotations

import json
import pickle
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from ..backends.dask.backend import DaskBackend
from ..backends.serial import SerialBackend
from ..core.additive import Array
from ..core.chunk_log import Logged
from ..core.finite import finite_mask
from ..core.passes import LoggingPass
from ..core.protocols import Source
from ..core.reading import fold_range
from ..core.tuning import tuning, use_tuning
from ..fitting.survey import Survey, Surveyed
from .passes import HistoryPass, RowsFold

# Small chunks are read together up to so many bytes while the laws are checked.
SMALL_READ = 2**10


class SourceTests:
    """Check what every source does; pytest collects a subclass, and gives `tmp_path`.

    Attributes
    ----------
    X : (n, d) array
        The rows, of several chunks.
    weight : (n,) array
    """

    X: Array = np.random.default_rng(0).normal(size=(500, 3))
    weight: Array = np.arange(500) % 4 / 2

    def setup_method(self) -> None:
        """Cut the few rows of a test into many chunks, as large data are."""
        self._small = ExitStack()
        changed = tuning().with_changes(reading={"bytes": SMALL_READ})
        self._small.enter_context(use_tuning(changed))

    def teardown_method(self) -> None:
        """Cut as before."""
        self._small.close()

    def source(self, folder: Path, X: Array, sample_weight: Array | None) -> Source:
        """Make the source of these rows and weights, in an empty folder where it needs one."""
        raise NotImplementedError

    def made(self, folder: Path, X: Array | None = None, weighted: bool = False) -> Source:
        """Return the source, cut into several chunks."""
        folder.mkdir(parents=True, exist_ok=True)
        made = self.source(folder, self.X if X is None else X, self.weight if weighted else None)
        assert made.n_chunks > 1, "the laws are of rows in several chunks"
        return made

    def rows(self, source: Source) -> list[tuple[int, Array, Array | None]]:
        """Return what a pass is given, range by range."""
        return [
            chunk
            for part in source.ranges()
            for chunk in fold_range(source, RowsFold(), part, source.shipped_weights(part))
        ]

    def test_it_says_what_it_holds(self, tmp_path: Path) -> None:
        """Check shape, type, size and name."""
        source = self.made(tmp_path)
        assert source.n_rows in (len(self.X), None)
        assert (source.n_features, source.dtype) == (self.X.shape[1], self.X.dtype)
        assert source.nbytes in (self.X.nbytes, 0)
        assert source.description
        assert source.read_ahead >= 1
        source.check()

    def test_ranges_cover_all_chunks_once(self, tmp_path: Path) -> None:
        """Check that ranges are neighbours and leave nothing out."""
        source = self.made(tmp_path)
        parts = source.ranges()
        assert [chunk for part in parts for chunk in part] == list(range(source.n_chunks))
        if source.n_rows is not None:
            assert sum(map(source.rows_of, parts)) == source.n_rows

    def test_every_row_comes_once_with_its_weight(self, tmp_path: Path) -> None:
        """Check the rows of a whole pass, with weights and without."""
        for weighted in (False, True):
            source = self.made(tmp_path / str(weighted), weighted=weighted)
            chunks = self.rows(source)
            assert [index for index, _, _ in chunks] == list(range(source.n_chunks))
            np.testing.assert_array_equal(np.concatenate([X for _, X, _ in chunks]), self.X)
            weights = [weight for _, _, weight in chunks if weight is not None]
            assert len(weights) == (len(chunks) if weighted else 0)
            if weighted:
                np.testing.assert_array_equal(np.concatenate(weights), self.weight)

    def test_parts_of_a_chunk_are_whole_blocks(self, tmp_path: Path) -> None:
        """Check that a chunk in parts is the chunk."""
        reader = self.made(tmp_path, weighted=True).reader()
        whole, weight = reader.read(1)
        whole = whole.copy()
        parts = [(X.copy(), w) for X, w in reader.blocks(1, 4)]
        assert all(len(X) % 4 == 0 for X, _ in parts[:-1])
        np.testing.assert_array_equal(np.concatenate([X for X, _ in parts]), whole)
        if weight is not None:
            together = np.concatenate([w for _, w in parts if w is not None])
            np.testing.assert_array_equal(together, weight)
        reader.close()

    def test_a_chunk_stays_while_the_next_is_read(self, tmp_path: Path) -> None:
        """Check that buffers are not used again too soon."""
        reader = self.made(tmp_path).reader()
        first = reader.read(0)[0]
        before = first.copy()
        reader.read(1)
        np.testing.assert_array_equal(first, before)

    def test_any_chunks_sum_like_one(self, tmp_path: Path) -> None:
        """Check that the sums over chunks are those of all rows as one chunk."""
        survey = Survey(0, 10, self.X.shape[1], len(self.X))
        found = SerialBackend().map_reduce(self.made(tmp_path, weighted=True), survey)
        fold = survey.fold()
        fold.update(0, self.X, self.weight)
        whole = fold.result()
        assert (found.n_rows, found.n_weighted) == (whole.n_rows, whole.n_weighted)
        assert found.moments.observed is whole.moments.observed is None
        for name in ("weight", "mean", "scatter", "low", "high"):
            a, b = getattr(found.moments, name), getattr(whole.moments, name)
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9, err_msg=name)

    def test_a_pickled_source_reads_the_same(self, tmp_path: Path) -> None:
        """Check what a worker reads that was sent the source."""
        source = self.made(tmp_path, weighted=True)
        if source.in_process:
            return
        sent: Source = pickle.loads(pickle.dumps(source))
        assert sent.ranges() == source.ranges()
        for part in source.ranges():
            given = source.shipped_weights(part)
            here = fold_range(source, RowsFold(), part, given)
            there = fold_range(sent, RowsFold(), part, given)
            for (i, X, weight), (j, Z, other) in zip(here, there, strict=True):
                assert i == j
                np.testing.assert_array_equal(X, Z)
                np.testing.assert_array_equal(weight, other)

    def test_fingerprints_are_of_the_numbers(self, tmp_path: Path) -> None:
        """Check that the same numbers have the same fingerprint, and others another."""
        changed = self.X.copy()
        changed[0, 0] += 1
        found = []
        for name, rows in (("a", self.X), ("b", self.X), ("c", changed)):
            reader = self.made(tmp_path / name, rows).reader()
            reader.read(0)
            found.append(dict(reader.fingerprints))
        assert found[0].keys() <= {0}
        assert found[0] == found[1]
        assert not found[0] or found[0] != found[2]

    def logged(self, source: Source, drop: bool) -> Logged[Surveyed]:
        """Return what a first pass sums, and its log."""
        survey = Survey(0, 10, source.n_features, source.n_rows)
        return SerialBackend().map_reduce(source, LoggingPass(survey, drop))

    def test_the_same_data_hold_to_their_log(self, tmp_path: Path) -> None:
        """Check that unchanged data are read after a first pass as before."""
        source = self.made(tmp_path)
        log = self.logged(source, drop=False).log
        for forced in (False, True):
            held = source.held_to(log, forced)
            assert held.n_dropped == 0
            rows = np.concatenate([X for _, X, _ in self.rows(held)])
            np.testing.assert_array_equal(rows, self.X)

    def test_rows_that_are_not_finite_are_dropped(self, tmp_path: Path) -> None:
        """Check that a first pass counts such rows, and later ones lack them."""
        X = self.X.copy()
        X[[3, 4, -1], 0] = np.nan, np.inf, -np.inf
        source = self.made(tmp_path, X, weighted=True)
        first = self.logged(source, drop=True)
        held = source.held_to(first.log)
        assert held.n_dropped == first.log.n_dropped == 3
        finite = finite_mask(X)
        chunks = self.rows(held)
        np.testing.assert_array_equal(np.concatenate([Z for _, Z, _ in chunks]), X[finite])
        weights = np.concatenate([w for _, _, w in chunks if w is not None])
        np.testing.assert_array_equal(weights, self.weight[finite])

    def test_values_of_all_rows_are_in_their_order(self, tmp_path: Path) -> None:
        """Check values of one number a row, and of two."""
        source = self.made(tmp_path)
        for width, function in ((None, _first_column), (2, _two_columns)):
            values = source.map_rows(function, width, self.X.dtype)
            assert values.ndim == (1 if width is None else 2)
            assert values.dtype == self.X.dtype
            np.testing.assert_array_equal(np.asarray(values), function(self.X))

    def test_dask_reads_the_same_chunks(self, tmp_path: Path) -> None:
        """Check that tasks of blocks, where there are some, see the chunks that a reader does."""
        for weighted in (False, True):
            source = self.made(tmp_path / str(weighted), weighted=weighted)
            found, expected = (
                backend.map_reduce(source, HistoryPass())
                for backend in (DaskBackend(), SerialBackend())
            )
            assert found == expected

    def test_its_identity_is_that_of_the_data(self, tmp_path: Path) -> None:
        """Check that the identity is JSON, and another one for other data."""
        source = self.made(tmp_path)
        assert json.loads(json.dumps(source.identity())) == source.identity()
        assert self.made(tmp_path / "b", self.X[:300]).identity() != source.identity()

    def test_a_row_is_located(self, tmp_path: Path) -> None:
        """Check that rows of different chunks have different places."""
        source = self.made(tmp_path)
        assert source.locate(0, 2).startswith("row 2")
        assert source.locate(1, 0) != source.locate(0, 0)


def _first_column(X: Array) -> Array:
    return X[:, 0]


def _two_columns(X: Array) -> Array:
    return X[:, :2]
