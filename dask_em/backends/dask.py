"""The Dask backend: a pass is one small graph for whatever scheduler is in force.

One task a range of chunks, a tree of fixed shape that adds their sums, and one
task that holds the parameters, on which all ranges depend.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import dask.array as da
import dask.base
import dask.config
import dask.threaded
import numpy as np
from dask.callbacks import Callback
from dask.delayed import delayed
from dask.utils import parse_bytes

from ..sources import DaskSource, RangeSource, fold_range, ranges
from ..statistics import Array, Foldable, S, add_all, fan_in, result_bytes, tree_levels
from . import Advance
from .blas import one_blas_thread

Key = tuple[str, int]
# A task that failed for a passing reason (a store that hiccups) is tried again.
RETRIES = 2
# Above this size of a graph distributed warns that data may have got into it.
LARGE_GRAPH = "distributed.admin.large-graph-warning-threshold"
_raising_threshold = threading.Lock()


class DaskBackend:
    """Runs a pass on the Dask scheduler in force.

    A `Client` if there is one, what `dask.config` says if it says, else threads
    in this process. Rows in this process's memory stay there: they are always
    summed by threads, or by the synchronous scheduler if that is configured.
    """

    def map_reduce(
        self, source: RangeSource | DaskSource, work: Foldable[S], advance: Advance | None = None
    ) -> S:
        """Sum of `work` over all chunks of `source`, in a tree fixed by the source alone."""
        name = uuid.uuid4().hex
        # Keys are tuples under a name of this pass: with string keys the scheduler
        # would take the ranges of all passes for one group and crowd one worker.
        params: Key = (f"em-params-{name}", 0)
        graph: dict[Hashable, Any] = {params: (_identity, work)}
        if isinstance(source, DaskSource):
            leaves, rows = _block_leaves(graph, source, work, name)
        else:
            leaves, rows = _range_leaves(graph, source, params, name)
        root = _add_tree_tasks(graph, leaves, name, fan_in(result_bytes(work)))
        done = {} if advance is None else dict(zip(leaves, rows, strict=True))
        sums: S = _entry(_run(graph, root, done, advance, source.in_process, work))
        return sums


def _identity(work: Any) -> Any:
    return work


def _range_leaves(
    graph: dict[Hashable, Any], source: RangeSource, params: Key, name: str
) -> tuple[list[Hashable], list[int]]:
    shared: Key = (f"em-source-{name}", 0)
    graph[shared] = (_identity, source)
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
) -> Hashable:
    level_keys = leaves
    for depth, level in enumerate(tree_levels(len(leaves), fan_in)):
        keys: list[Hashable] = []
        for j, group in enumerate(level):
            key = (f"em-sum{depth}-{name}", j)
            graph[key] = (_add_sums, [level_keys[i] for i in group])
            keys.append(key)
        level_keys = keys
    return level_keys[0]


def _run(
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
    in_process: bool,
    work: Foldable[Any],
) -> Any:
    get = dask.base.get_scheduler() or dask.threaded.get
    client = getattr(get, "__self__", None)
    if client is None or in_process:
        get = dask.threaded.get if client is not None else get
        return _run_locally(get, graph, root, rows, advance)
    return _run_on_client(client, graph, root, rows, advance, work)


def _run_locally(
    get: Callable[..., Any],
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
) -> Any:
    def finished(key: Hashable, *_: object) -> None:
        if advance and key in rows:
            advance(rows[key])

    with one_blas_thread(), Callback(posttask=finished):
        return get(graph, root)


def _run_on_client(
    client: Any,
    graph: dict[Hashable, Any],
    root: Hashable,
    rows: dict[Hashable, int],
    advance: Advance | None,
    work: Foldable[Any],
) -> Any:
    keys = [root, *(key for key in rows if key != root)]
    with _large_parameters_allowed(work):
        futures = client.get(graph, keys, sync=False, retries=RETRIES)
    try:
        for future in futures[1:]:
            # The tree holds what it needs; keeping the future would keep every
            # range's sums on the workers until the end of the pass.
            future.add_done_callback(_advance_and_release(rows[future.key], advance))
        total = futures[0].result()
        if advance and root in rows:
            advance(rows[root])
        return total
    except BaseException:
        # What nobody waits for is dropped by the scheduler.
        for future in futures:
            future.release()
        raise


@contextmanager
def _large_parameters_allowed(work: Foldable[Any]) -> Iterator[None]:
    """Keep distributed's warning of a large graph to what is in it beside the parameters.

    They are in the graph once, as they must be for a lost worker's copy to be made
    again; data that somebody put into a graph are still warned of.
    """
    from distributed.protocol.pickle import dumps

    buffers: list[Any] = []
    header = dumps(work, buffer_callback=buffers.append)
    size = len(header) + sum(buffer.raw().nbytes for buffer in buffers)
    # The setting belongs to the process: two passes must not restore each other's.
    with _raising_threshold:
        threshold = parse_bytes(dask.config.get(LARGE_GRAPH, "10MB"))
        with dask.config.set({LARGE_GRAPH: threshold + size}):
            yield


def _advance_and_release(rows: int, advance: Advance | None) -> Callable[[Any], None]:
    def done(future: Any) -> None:
        if future.status == "finished" and advance:
            advance(rows)
        future.release()

    return done
