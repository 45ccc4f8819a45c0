"""The Dask backend: a pass is one small graph for whatever scheduler is in force.

One task a range of chunks, a tree of fixed shape that adds their sums, and one
task that holds the parameters, on which all ranges depend.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Hashable
from typing import Any

import dask.array as da
import dask.threaded
import numpy as np
from dask.callbacks import Callback
from dask.delayed import delayed
from dask.optimization import cull

from ...core.additive import Array, S
from ...core.protocols import Advance, Foldable, Kept, RangeSource, result_bytes
from ...core.ranges import fold_range, ranges
from ...core.reduction import Node, PartialTree, add_all, fan_in, kept_depth, tree_levels
from ...data.dask import DaskSource
from ...runtime import current_job
from ..blas import one_blas_thread
from .client import (
    RETRIES,
    Key,
    advance_by,
    as_it_is,
    client_in_force,
    large_parameters_allowed,
    result_of,
    sent_bytes,
    until_done,
)

logger = logging.getLogger("dask_em")

# How long fetching what is kept of a pass on a cluster may take, and the same where somebody
# waits for the job to stop.
GATHER_SECONDS, STOP_SECONDS = 30.0, 3.0


class DaskBackend:
    """Runs a pass on the Dask scheduler in force.

    A `Client` if there is one, what `dask.config` says if it says, else threads
    in this process. Rows in this process's memory stay there: they are always
    summed by threads, or by the synchronous scheduler if that is configured.
    """

    def map_reduce(
        self,
        source: RangeSource | DaskSource,
        work: Foldable[S],
        advance: Advance | None = None,
        kept: Kept | None = None,
    ) -> S:
        """Sum of `work` over all chunks of `source`, in a tree fixed by the source alone.

        `kept` is given the sums of whole nodes of the tree now and then, and those that it
        recalls are not computed again. A pass that the cluster lost is made again.

        Raises
        ------
        StoppedError
            The job was asked to stop, or the cluster failed for good.
        """
        client = None if source.in_process else client_in_force()
        return until_done(
            client, advance, type(work).__name__,
            lambda told: self._pass(source, work, told, kept),
        )  # fmt: skip

    def _pass(
        self,
        source: RangeSource | DaskSource,
        work: Foldable[S],
        advance: Advance | None,
        kept: Kept | None,
    ) -> S:
        name = uuid.uuid4().hex
        # Keys are tuples under a name of this pass: with string keys the scheduler
        # would take the ranges of all passes for one group and crowd one worker.
        params: Key = (f"em-params-{name}", 0)
        graph: dict[Hashable, Any] = {params: (as_it_is, work)}
        if isinstance(source, DaskSource):
            leaves, rows = _block_leaves(graph, source, work, name)
        else:
            leaves, rows = _range_leaves(graph, source, params, name)
        levels = _add_tree_tasks(graph, leaves, name, fan_in(result_bytes(work)))
        done = {} if advance is None else dict(zip(leaves, rows, strict=True))
        if kept is None:
            sums: S = _entry(
                _run(graph, levels[-1][0], done, advance, source.in_process, work, None)
            )
            return sums
        keeping = Keeping(kept, levels, result_bytes(work))
        if keeping.missing:
            graph, root = keeping.left_of(graph, name)
            done = _left_of_rows(done, graph, advance)
            found = _run(graph, root, done, advance, source.in_process, work, keeping)
            keeping.put_missing(found)
        total: S = keeping.tree.sums[keeping.tree.root]
        return total


def _range_leaves(
    graph: dict[Hashable, Any], source: RangeSource, params: Key, name: str
) -> tuple[list[Hashable], list[int]]:
    shared: Key = (f"em-source-{name}", 0)
    graph[shared] = (as_it_is, source)
    leaves: list[Hashable] = []
    rows = []
    for j, chunks in enumerate(ranges(source)):
        leaf = (f"em-range-{name}", j)
        graph[leaf] = (_sum_range, shared, params, chunks, source.shipped_weights(chunks))
        leaves.append(leaf)
        rows.append(int(source.bounds[chunks.stop] - source.bounds[chunks.start]))
    return leaves, rows


def _sum_range(source: RangeSource, work: Foldable[S], chunks: range, weights: Array | None) -> S:
    with one_blas_thread():
        return fold_range(source, work.fold(), chunks, weights)


def _block_leaves(
    graph: dict[Hashable, Any], source: DaskSource, work: Foldable[Any], name: str
) -> tuple[list[Hashable], list[int]]:
    """One leaf a block, fused by Dask with the tasks that make the block."""
    arrays = [source.X]
    if source.sample_weight is not None:
        arrays.append(source.sample_weight[:, None])
    sums = da.map_blocks(
        _sum_block,
        *arrays,
        work=delayed(work, name=f"em-params-{name}", traverse=False),
        chunks=((1,) * source.n_chunks, (1,)),
        dtype=object,
        meta=np.empty((0, 0), dtype=object),
        name=f"em-block-{name}",
    )
    (optimized,) = dask.base.optimize(sums)
    graph.update(optimized.__dask_graph__())
    leaves: list[Hashable] = [key for (key,) in optimized.__dask_keys__()]
    lengths = source.X.chunks[0]
    return leaves, [0 if np.isnan(n) else int(n) for n in lengths]


def _sum_block(
    X: Array, weight: Array | None = None, *, work: Foldable[Any], block_id: tuple[int, int]
) -> Array:
    with one_blas_thread():
        fold = work.fold()
        fold.update(block_id[0], X, None if weight is None else weight[:, 0].astype(np.float64))
        total = np.empty((1, 1), dtype=object)
        total[0, 0] = fold.result()
        return total


def _entry(sums: Any) -> Any:
    """Sums as they are, or out of the block of one entry in which dask.array wants them."""
    return sums[0, 0] if isinstance(sums, np.ndarray) else sums


def _add_sums(parts: list[Any]) -> Any:
    return add_all(_entry(part) for part in parts)


def _add_tree_tasks(
    graph: dict[Hashable, Any], leaves: list[Hashable], name: str, fan_in: int
) -> list[list[Hashable]]:
    """The keys of each level of the tree, from the leaves to the root."""
    levels = [leaves]
    for depth, level in enumerate(tree_levels(len(leaves), fan_in)):
        keys: list[Hashable] = []
        for j, group in enumerate(level):
            key = (f"em-sum{depth}-{name}", j)
            graph[key] = (_add_sums, [levels[-1][i] for i in group])
            keys.append(key)
        levels.append(keys)
    return levels


class Keeping:
    """What a pass has summed so far, for `Kept` to keep.

    Attributes
    ----------
    tree : PartialTree
    missing : list of Node
        What was not kept when the pass began.
    nodes : dict of key to Node
        Tasks whose results are kept until their time comes.
    """

    def __init__(self, kept: Kept, levels: list[list[Hashable]], nbytes: int) -> None:
        self.kept, self._levels = kept, levels
        n, width = len(levels[0]), fan_in(nbytes)
        self.tree: PartialTree[Any] = PartialTree(n, width)
        for node, sums in kept.recall().items():
            self.tree.put(node, sums)
        self.missing = self.tree.missing()
        depth = kept_depth(n, width, nbytes)
        # The root is the whole pass.
        single = len(levels[depth]) == 1
        self.nodes = {} if single else {key: (depth, j) for j, key in enumerate(levels[depth])}

    def left_of(self, graph: dict[Hashable, Any], name: str) -> tuple[dict[Hashable, Any], Key]:
        """What of a pass's graph is still to be computed, and the key of its results."""
        missing: Key = (f"em-missing-{name}", 0)
        left, _ = cull(graph | {missing: (_listed, [self._key(n) for n in self.missing])}, missing)
        self.nodes = {key: node for key, node in self.nodes.items() if key in left}
        return left, missing

    def _key(self, node: Node) -> Hashable:
        return self._levels[node[0]][node[1]]

    def put_missing(self, sums: list[Any]) -> None:
        """Take what was missing: then the root is known."""
        for node, one in zip(self.missing, sums, strict=True):
            self.tree.put(node, one)

    def finished(self, key: Hashable, sums: Any) -> None:
        """Take the result of a task of this process."""
        if key in self.nodes:
            self.tree.put(self.nodes[key], _entry(sums))
            if self.kept.due():
                self.kept.keep(self.tree.sums)

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
            self.tree.put(self.nodes[future.key], _entry(sums))
            held.remove(future)
            future.release()
        self.kept.keep(self.tree.sums)


def _listed(sums: list[Any]) -> list[Any]:
    return [_entry(one) for one in sums]


def _left_of_rows(
    rows: dict[Hashable, int], graph: dict[Hashable, Any], advance: Advance | None
) -> dict[Hashable, int]:
    """Rows of the leaves that are still to be summed; the others are done."""
    left = {key: n for key, n in rows.items() if key in graph}
    if advance and len(left) < len(rows):
        advance(sum(rows.values()) - sum(left.values()))
    return left


def _run(
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
    in_process: bool,
    work: Foldable[Any],
    keeping: Keeping | None,
) -> Any:
    client = client_in_force()
    if client is None or in_process:
        get = dask.threaded.get if client is not None else None
        get = get or dask.base.get_scheduler() or dask.threaded.get
        return _run_locally(get, graph, root, rows, advance, keeping)
    return _run_on_client(client, graph, root, rows, advance, work, keeping)


def _run_locally(
    get: Callable[..., Any],
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
    keeping: Keeping | None,
) -> Any:
    run = current_job()

    def finished(key: Hashable, sums: Any, *_: object) -> None:
        if advance and key in rows:
            advance(rows[key])
        if keeping:
            keeping.finished(key, sums)
        if run.stop_requested and keeping and key in keeping.nodes:
            keeping.kept.keep(keeping.tree.sums)
        run.check()

    with one_blas_thread(), Callback(posttask=finished):
        return get(graph, root)


def _run_on_client(
    client: Any,
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
    work: Foldable[Any],
    keeping: Keeping | None,
) -> Any:
    nodes = keeping.nodes if keeping else {}
    keys = [root, *(key for key in rows | nodes if key != root)]
    with large_parameters_allowed(sent_bytes(work)):
        futures = client.get(graph, keys, sync=False, retries=RETRIES)
    try:
        for future in futures[1:]:
            if future.key in nodes:
                if advance and future.key in rows:
                    future.add_done_callback(advance_by(rows[future.key], advance))
                continue
            # The tree holds what it needs; keeping the future would keep every
            # range's sums on the workers until the end of the pass.
            future.add_done_callback(_advance_and_release(rows[future.key], advance))
        held = [future for future in futures[1:] if future.key in nodes]
        run = current_job()

        def look() -> None:
            if keeping and (keeping.kept.due() or run.stop_requested):
                keeping.gather(client, held, STOP_SECONDS if run.stop_requested else GATHER_SECONDS)

        total = result_of(futures[0], look)
        if advance and root in rows:
            advance(rows[root])
        return total
    except BaseException:
        # What nobody waits for is dropped by the scheduler.
        for future in futures:
            future.release()
        raise


def _advance_and_release(rows: int, advance: Advance | None) -> Callable[[Any], None]:
    tell = advance_by(rows, advance)

    def done(future: Any) -> None:
        tell(future)
        future.release()

    return done
