"""TODO data.dask."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ..core.additive import Array
from ..core.chunk_log import Notes

if TYPE_CHECKING:
    import dask.array as da


@dataclass(frozen=True)
class DaskSource:
    """A Dask array with a graph of its own: its blocks of rows are the chunks."""

    X: da.Array
    sample_weight: da.Array | None = None
    n_dropped: int = 0

    in_process = False

    @property
    def n_rows(self) -> int | None:
        return None if np.isnan(self.X.shape[0]) else int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = np.dtype(self.X.dtype)
        return dtype

    @property
    def n_chunks(self) -> int:
        return len(self.X.chunks[0])

    @property
    def nbytes(self) -> int:
        return 0 if self.n_rows is None else self.n_rows * self.n_features * self.dtype.itemsize

    @property
    def description(self) -> str:
        return f"Dask array {self.X.shape} {self.X.dtype}"

    def held_to(self, notes: Notes) -> Self:
        """The same rows, without those that a first pass dropped."""
        if not notes.dropping:
            return self
        import dask.array as da

        dropped = dict(notes.dropped)
        lengths = tuple(n - dropped.get(block, 0) for block, n in enumerate(self.X.chunks[0]))

        def filtered(*weight: da.Array) -> Any:
            like = weight[0] if weight else self.X
            return da.map_blocks(
                _finite_block,
                self.X,
                *weight,
                dropping=notes.dropping,
                chunks=(lengths, like.chunks[1]),
                dtype=like.dtype,
                meta=np.empty((0, 0), dtype=like.dtype),
            )

        if self.sample_weight is None:
            return replace(self, X=filtered(), n_dropped=notes.n_dropped)
        weight = filtered(self.sample_weight[:, None])[:, 0]
        return replace(self, X=filtered(), sample_weight=weight, n_dropped=notes.n_dropped)


def _finite_block(
    X: Array, *weight: Array, dropping: frozenset[int], block_id: tuple[int, int]
) -> Array:
    """The rows of a block of X, or of its weights, where those of X are finite."""
    values = weight[0] if weight else X
    return values[np.isfinite(X).all(axis=1)] if block_id[0] in dropping else values
