"""The laws of a backend: inherit `BackendTests`, and write `backend`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import numpy as np

from ..core.partial_sums import PartialSums
from ..core.protocols import Backend
from ..core.reduction import Node, add_tree, fan_in
from ..core.tuning import tuning, use_tuning
from ..errors import StoppedError
from ..runtime import JobControl, as_job
from .passes import History, HistoryPass, NumberedRows, TuningPass
from .waiting import wait_until

# Chunks of the source that the laws are checked on: more than one a range.
N_CHUNKS = 100

# Claimed sizes of sums: nodes of eight, and of two.
SMALL, LARGE = 8, 2**30


def raised(call: Callable[[], object]) -> Exception | None:
    """Return the exception that a call raises, None where it raises none."""
    try:
        call()
    except Exception as e:
        return e
    return None


class MemoryStore:
    """A `PartialSumsStore` that is always due."""

    def __init__(self, sums: Mapping[Node, History] | None = None) -> None:
        self.sums = dict(sums or {})
        self.times_kept = 0

    def recall(self) -> Mapping[Node, History]:
        """Return what was given."""
        return self.sums

    def due(self) -> bool:
        """Keep at every chance."""
        return True

    def keep(self, sums: Mapping[Node, History]) -> None:
        """Keep these in place of those before."""
        self.sums, self.times_kept = dict(sums), self.times_kept + 1


class BackendTests:
    """Check what every backend does; pytest collects a subclass.

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> class TestSerial(BackendTests):
    ...     def backend(self):
    ...         return SerialBackend()
    >>> TestSerial().test_sums_are_added_in_the_tree_of_the_ranges()
    """

    source = NumberedRows(N_CHUNKS)

    def backend(self) -> Backend:
        """Make the backend that is tested."""
        raise NotImplementedError

    def expected(self, nbytes: int) -> History:
        """Return the sum by the tree that is the law."""
        parts = [self.leaf(chunks) for chunks in self.source.ranges()]
        return add_tree(iter(parts), fan_in(nbytes))

    @staticmethod
    def leaf(chunks: range) -> History:
        """Return the sums of one range."""
        return History(",".join(map(str, chunks)), 3 * len(chunks))

    def test_sums_are_added_in_the_tree_of_the_ranges(self) -> None:
        for nbytes in (SMALL, LARGE):
            total = self.backend().map_reduce(self.source, HistoryPass(nbytes))
            assert total == self.expected(nbytes)

    def test_the_tuning_of_the_caller_is_in_force(self) -> None:
        changed = tuning().with_changes(reading={"piece_bytes": 12_345})
        with use_tuning(changed):
            total = self.backend().map_reduce(self.source, TuningPass())
        assert set(re.findall(r"\d+", total.text)) == {"12345"}

    def test_one_chunk_is_a_pass(self) -> None:
        assert self.backend().map_reduce(NumberedRows(1), HistoryPass()) == History("0", 3)

    def test_all_rows_are_told(self) -> None:
        told: list[int] = []
        self.backend().map_reduce(self.source, HistoryPass(), told.append)
        # Of a cluster they are told by another thread.
        wait_until(lambda: sum(told) >= self.source.n_rows)
        assert sum(told) == self.source.n_rows

    def test_weights_reach_their_rows(self) -> None:
        weights = np.arange(3.0 * N_CHUNKS)
        source = NumberedRows(N_CHUNKS, weights)
        total = self.backend().map_reduce(source, HistoryPass())
        assert total.n_rows == weights.sum()

    def test_an_error_of_a_chunk_is_that_of_the_pass(self) -> None:
        fails = HistoryPass(fails_at=57)
        error = raised(lambda: self.backend().map_reduce(self.source, fails))
        assert isinstance(error, ValueError)
        assert "chunk 57 is refused" in str(error)

    def test_a_job_that_is_to_stop_makes_no_pass(self) -> None:
        run = JobControl()
        run.request_stop("enough")
        with as_job(run):
            error = raised(lambda: self.backend().map_reduce(self.source, HistoryPass()))
        assert isinstance(error, StoppedError)
        assert "enough" in str(error)

    def test_what_is_recalled_is_not_summed_again(self) -> None:
        for nbytes in (SMALL, LARGE):
            width, ranges = fan_in(nbytes), self.source.ranges()
            first = add_tree(map(self.leaf, ranges[:width]), width)
            marked = History(f"recalled {first.text}", first.n_rows)
            known = {(1, 0): marked, (0, width): self.leaf(ranges[width])}
            total = self.backend().map_reduce(
                self.source, HistoryPass(nbytes), None, MemoryStore(known)
            )
            expected = self.expected(nbytes).text.replace(first.text, marked.text, 1)
            assert total == History(expected, self.source.n_rows)

    def test_what_is_kept_are_sums_of_whole_nodes(self) -> None:
        for nbytes in (SMALL, LARGE):
            store, pass_ = MemoryStore(), HistoryPass(nbytes)
            total = self.backend().map_reduce(self.source, pass_, None, store)
            assert total == self.expected(nbytes)
            again: PartialSums[History] = PartialSums(store, len(self.source.ranges()), nbytes)
            for node in again.missing:
                again.tree.put(node, self.node(node, nbytes))
            assert again.total == total

    def node(self, node: Node, nbytes: int) -> History:
        """Return the sum of one node of the tree that is the law."""
        width = fan_in(nbytes)
        span = width ** node[0]
        ranges = self.source.ranges()[node[1] * span : (node[1] + 1) * span]
        return add_tree(map(self.leaf, ranges), width)

    def test_calls_are_returned_in_order(self) -> None:
        told: list[int] = []
        for in_process in (False, True):
            with self.backend().executor(100, in_process) as executor:
                assert executor.map(divmod, [7, 9, 30]) == [(14, 2), (11, 1), (3, 10)]
                assert executor.map(divmod, []) == []
        with self.backend().executor(100) as executor:
            executor.map(divmod, [7, 9, 30], told.append)
            wait_until(lambda: sum(told) >= 3)
        assert sum(told) == 3

    def test_an_error_of_a_call_is_that_of_the_calls(self) -> None:
        with self.backend().executor(100) as executor:
            error = raised(lambda: executor.map(divmod, [7, 0]))
        assert isinstance(error, ZeroDivisionError)
