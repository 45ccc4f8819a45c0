"""The Dask backend: a pass is one small graph for whatever scheduler is in force.

One task a range of chunks, a tree of fixed shape that adds their sums, and one
task that holds the parameters, on which all ranges depend.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, Protocol

from dask.callbacks import Callback
from dask.optimization import cull

from ...core.additive import Array, S
from ...core.beside import Beside
from ...core.partial_sums import PartialSums
from ...core.protocols import (
    Advance,
    Backend,
    Executor,
    Fold,
    PartialSumsStore,
    Pass,
    Source,
    T,
)
from ...core.reading import fold_range
from ...core.reduction import Node, fan_in, tree_levels
from ...core.tuning import Tuning, tuning, use_tuning
from ...runtime import current_job
from ..blas import one_blas_thread
from ..serial import SerialBackend
from ..software import Software
from .client import (
    RETRIES,
    Key,
    as_it_is,
    large_parameters_allowed,
    producer,
    result_of,
    sent_bytes,
    until_done,
)
from .config import software_of_fits
from .executor import dask_executor
from .failure import (
    Failure,
    HeldTask,
    add_unless_failed,
    all_unless_failed,
    on_worker,
    run_held,
    value_of,
)
from .scheduler import client_in_force, local_scheduler

logger = logging.getLogger("dask_em")

# How long fetching what is kept of a pass on a cluster may take, and the same where somebody
# waits for the job to stop.
GATHER_SECONDS, STOP_SECONDS = 30.0, 3.0


class DaskBackend(Backend):
    """Run a pass on the Dask scheduler in force.

    A `Client` if there is one, what `dask.config` says if it says, else threads
    in this process. Rows in this process's memory stay there: they are always
    summed by threads, or by the synchronous scheduler if that is configured.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.fitting.survey import Survey
    >>> survey = Survey(seed=0, sample_size=2, n_features=2, n_rows=3)
    >>> DaskBackend().map_reduce(ArraySource(np.eye(3, 2)), survey).n_rows
    3
    """

    def map_reduce(
        self,
        source: Source,
        pass_: Pass[S],
        advance: Advance | None = None,
        partial_sums: PartialSumsStore[S] | None = None,
    ) -> S:
        """Sum a pass over all chunks of a source; see `Backend`.

        A pass that the cluster lost is made again.
        """
        if source.in_process and len(source.ranges()) == 1:
            # There is nothing to run beside it.
            return SerialBackend().map_reduce(source, pass_, advance, partial_sums)
        client = None if source.in_process else client_in_force()
        if client is None:
            current_job().check()
            return self._pass(source, pass_, advance, partial_sums, None, _run_locally)
        run, sender = partial(_run_on_client, client, pass_), software_of_fits()
        return until_done(
            client, advance, type(pass_).__name__,
            lambda told: self._pass(source, pass_, told, partial_sums, sender, run),
        )  # fmt: skip

    def executor(self, shared: T, in_process: bool = False) -> AbstractContextManager[Executor[T]]:
        """Return what makes calls on the workers, or in threads where there are none."""
        return dask_executor(shared, in_process)

    def _pass(
        self,
        source: Source,
        pass_: Pass[S],
        advance: Advance | None,
        store: PartialSumsStore[S] | None,
        sender: Software | None,
        run: Run,
    ) -> S:
        name, nbytes = uuid.uuid4().hex, pass_.result_bytes
        graph: dict[Hashable, Any] = {}
        leaves, rows = _leaves(graph, source, pass_, name, sender)
        levels = _add_tree_tasks(graph, leaves, name, fan_in(nbytes), sender)
        n_rows = dict(zip(leaves, rows, strict=True))
        if store is None:
            sums: S = value_of(run(graph, levels[-1][0], n_rows, advance, None))
            return sums
        kept = GraphPartialSums(store, levels, nbytes, sender)
        if kept.missing:
            graph, root = kept.left_of(graph, name)
            n_rows = _left_of_rows(n_rows, graph, advance)
            kept.put_missing(value_of(run(graph, root, n_rows, advance, kept)))
        return kept.total


def _leaves(
    graph: dict[Hashable, Any],
    source: Source,
    pass_: Pass[Any],
    name: str,
    sender: Software | None,
) -> tuple[list[Hashable], list[int]]:
    """Put the tasks of the leaves into a graph; return their keys and rows."""
    blocks = source.delayed_blocks(_sum_block, TunedPass(pass_, tuning()), name)
    if blocks is not None:
        leaves = set(blocks.keys)
        for key, task in blocks.graph.items():
            # Each may read, and fail as reading does. What is handed to others is not of ours.
            needs = tuple(task.dependencies)
            held = HeldTask(task, needs)
            graph[key] = (run_held, sender if key in leaves else None, held, *needs)
        return list(blocks.keys), list(blocks.n_rows)
    # Keys are tuples under a name of this pass: with string keys the scheduler
    # would take the ranges of all passes for one group and crowd one worker.
    params: Key = (f"em-params-{name}", 0)
    graph[params] = (as_it_is, TunedPass(pass_, tuning()))
    return _range_leaves(graph, source, params, name, sender)


def _range_leaves(
    graph: dict[Hashable, Any], source: Source, params: Key, name: str, sender: Software | None
) -> tuple[list[Hashable], list[int]]:
    shared: Key = (f"em-source-{name}", 0)
    graph[shared] = (as_it_is, source)
    leaves: list[Hashable] = []
    rows = []
    summed = partial(_sum_range, sender)
    for j, chunks in enumerate(source.ranges()):
        leaf: Key = (f"em-range-{name}", j)
        beside = source.shipped_weights(chunks), source.shipped_beside(chunks)
        graph[leaf] = producer(leaf, summed, (shared, params), chunks, *beside)
        leaves.append(leaf)
        rows.append(source.rows_of(chunks))
    return leaves, rows


@dataclass(frozen=True)
class TunedPass(Generic[S]):
    """A pass, and the tuning of whoever makes it: one task's result, which all ranges are given."""

    pass_: Pass[S]
    tuning: Tuning

    @contextmanager
    def fold(self) -> Iterator[Fold[S]]:
        """Make a fold, and compute with one BLAS thread and that tuning in the block."""
        with one_blas_thread(), use_tuning(self.tuning):
            yield self.pass_.fold()


@on_worker
def _sum_range(
    source: Source,
    tuned: TunedPass[S],
    chunks: range,
    weights: Array | None,
    beside: Beside,
) -> S:
    with tuned.fold() as fold:
        return fold_range(source, fold, chunks, weights, beside)


def _sum_block(
    index: int, X: Array, weight: Array | None, labels: Array | None, tuned: TunedPass[S]
) -> S:
    with tuned.fold() as fold:
        if labels is None or not fold.takes_labels:
            fold.update(index, X, weight)
        else:
            fold.begin_labelled(1 if labels.ndim == 1 else labels.shape[1])
            fold.update_labelled(index, X, weight, labels)
        return fold.result()


def _add_tree_tasks(
    graph: dict[Hashable, Any],
    leaves: list[Hashable],
    name: str,
    fan_in: int,
    sender: Software | None,
) -> list[list[Hashable]]:
    """The keys of each level of the tree, from the leaves to the root."""
    levels = [leaves]
    for depth, level in enumerate(tree_levels(len(leaves), fan_in)):
        keys: list[Hashable] = []
        for j, group in enumerate(level):
            key = (f"em-sum{depth}-{name}", j)
            graph[key] = (add_unless_failed, sender, [levels[-1][i] for i in group])
            keys.append(key)
        levels.append(keys)
    return levels


class GraphPartialSums(PartialSums[S], Generic[S]):
    """Collect partial sums from the tasks of a graph.

    Attributes
    ----------
    nodes : dict of key to Node
        Tasks whose results are held until it is time to keep them.
    """

    def __init__(
        self,
        store: PartialSumsStore[S],
        levels: list[list[Hashable]],
        nbytes: int,
        sender: Software | None,
    ) -> None:
        super().__init__(store, len(levels[0]), nbytes)
        self._levels, self._sender, keys = levels, sender, levels[self.depth]
        # The root is the whole pass.
        single = len(keys) == 1
        self.nodes: dict[Hashable, Node] = (
            {} if single else {key: (self.depth, j) for j, key in enumerate(keys)}
        )

    def left_of(self, graph: dict[Hashable, Any], name: str) -> tuple[dict[Hashable, Any], Key]:
        """Return what of a pass's graph is still to be computed, and the key of its results."""
        missing: Key = (f"em-missing-{name}", 0)
        wanted = [self._levels[depth][j] for depth, j in self.missing]
        left, _ = cull(graph | {missing: (all_unless_failed, self._sender, wanted)}, missing)
        self.nodes = {key: node for key, node in self.nodes.items() if key in left}
        return left, missing

    def put_missing(self, sums: list[S]) -> None:
        """Take what was missing: then the root is known."""
        for node, one in zip(self.missing, sums, strict=True):
            self.tree.put(node, one)

    def finished(self, key: Hashable, sums: S) -> None:
        """Take the result of a task of this process."""
        if key in self.nodes:
            self.put(self.nodes[key], value_of(sums))

    def gather(self, client: Any, held: list[Any], seconds: float) -> None:
        """Fetch the results that `held` futures have, release them, and keep all."""
        ready = [future for future in held if future.status == "finished"]
        try:
            results = client.sync(client.gather, ready, callback_timeout=seconds)
        except Exception as e:
            # They are on workers that are lost or busy: the pass goes on without.
            logger.warning("sums of the unfinished pass could not be fetched: %r", e)
            return
        for future, sums in zip(ready, results, strict=True):
            self.tree.put(self.nodes[future.key], value_of(sums))
            held.remove(future)
            future.release()
        self.keep()


def _left_of_rows(
    rows: dict[Hashable, int], graph: dict[Hashable, Any], advance: Advance | None
) -> dict[Hashable, int]:
    """Rows of the leaves that are still to be summed; the others are done."""
    left = {key: n for key, n in rows.items() if key in graph}
    if advance and len(left) < len(rows):
        advance(sum(rows.values()) - sum(left.values()))
    return left


class Run(Protocol):
    """Run the graph of a pass."""

    def __call__(
        self,
        graph: dict[Hashable, Any],
        root: Hashable,
        rows: dict[Hashable, int],
        advance: Advance | None,
        kept: GraphPartialSums[Any] | None,
    ) -> Any:
        """Return the result of the task `root`.

        Parameters
        ----------
        graph : dict
        root : key
        rows : dict of key to int
            Rows that each leaf sums.
        advance : callable, optional
        kept : GraphPartialSums, optional
            Given the sums of its nodes while the graph is run.
        """


def _run_locally(
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
    kept: GraphPartialSums[Any] | None,
) -> Any:
    job = current_job()

    def finished(key: Hashable, sums: Any, *_: object) -> None:
        value_of(sums)
        if advance and key in rows:
            advance(rows[key])
        if kept:
            kept.finished(key, sums)
        if job.stop_requested and kept and key in kept.nodes:
            kept.keep()
        job.check()

    # Not as a context: all threads of a process that compute would be told of each other's tasks.
    mine = (None, None, None, finished, None)
    with one_blas_thread():
        return local_scheduler()(graph, root, callbacks=[mine, *Callback.active])


def _run_on_client(
    client: Any,
    pass_: Pass[Any],
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
    kept: GraphPartialSums[Any] | None,
) -> Any:
    nodes = kept.nodes if kept else {}
    keys = [root, *(key for key in rows | nodes if key != root)]
    with large_parameters_allowed(sent_bytes(pass_)):
        futures = client.get(graph, keys, sync=False, retries=RETRIES)
    try:
        failed: list[Any] = []
        for future in futures[1:]:
            # The tree holds what it needs; keeping the future would keep every
            # range's sums on the workers until the end of the pass.
            release = future.key not in nodes
            future.add_done_callback(_done(rows.get(future.key), advance, failed, release))
        held = [future for future in futures[1:] if future.key in nodes]
        job = current_job()

        def look() -> None:
            if failed:
                # Whoever asked need not wait for the rest of the pass.
                value_of(result_of(failed[0]))
            if kept and (kept.due() or job.stop_requested):
                kept.gather(client, held, STOP_SECONDS if job.stop_requested else GATHER_SECONDS)

        total = result_of(futures[0], look)
        if advance and root in rows:
            advance(rows[root])
        return total
    except BaseException:
        # What nobody waits for is dropped by the scheduler.
        for future in futures:
            future.release()
        raise


def _done(
    rows: int | None, advance: Advance | None, failed: list[Any], release: bool
) -> Callable[[Any], None]:
    """Return what is called with a future that is done, of a leaf or of a node that is held."""

    def done(future: Any) -> None:
        if future.status == "finished" and future.type is Failure:
            failed.append(future)
            return
        if future.status == "finished" and advance and rows is not None:
            advance(rows)
        if release:
            future.release()

    return done
