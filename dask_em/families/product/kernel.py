"""The kernel of products of families: one kernel a group of columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...core.additive import Array
from ...core.engine import Engine
from ...core.family import Kernel
from ...core.responsibilities import Arithmetic
from .parameters import ProductParameters
from .statistics import ProductStatistics


class ProductKernel(Kernel[ProductStatistics]):
    """Give the columns of each group to the kernel of its family, and add log-densities.

    Parameters
    ----------
    product : ProductParameters
    engine : Engine
        Several groups are computed in float64 on the CPU, whatever it says.
    """

    def __init__(self, product: ProductParameters, engine: Engine) -> None:
        alone = len(product.parts) == 1
        own = engine if alone else replace(engine, single=False, device="cpu")
        self._kernels = [part.kernel(own) for part in product.parts]
        self.block_rows = min(kernel.block_rows for kernel in self._kernels)
        whole = alone and product.columns[0] == (*range(product.n_features),)
        self._columns = [None if whole else np.array(columns) for columns in product.columns]
        self._gathered: dict[int, Array] = {}

    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""
        for i, (kernel, columns) in enumerate(zip(self._kernels, self._columns, strict=True)):
            kernel.load(X if columns is None else self._gather(i, X, columns))

    def _gather(self, i: int, X: Array, columns: Array) -> Array:
        """Return the columns of group i, in their own type, in a buffer of the group."""
        buffer = self._gathered.get(i)
        if buffer is None or buffer.dtype != X.dtype:
            # A kernel may keep the rows until they are accumulated.
            buffer = self._gathered[i] = np.empty((self.block_rows, len(columns)), X.dtype)
        # Out of bounds is nothing here; with a check, NumPy would write to a copy.
        return np.take(X, columns, axis=1, out=buffer[: len(X)], mode="clip")

    def log_prob(self) -> Array:
        """Return log p(x | component) of the current block (k, b), for the caller to overwrite."""
        first, *others = self._kernels
        total = first.log_prob()
        for kernel in others:
            total += kernel.log_prob()
        return total

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sufficient statistics under `resp` (k, b)."""
        for kernel in self._kernels:
            kernel.accumulate(resp)

    def statistics(self) -> ProductStatistics:
        """Return the sums over all blocks accumulated so far."""
        return ProductStatistics(tuple(kernel.statistics() for kernel in self._kernels))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        gathered = sum(8 * self.block_rows * len(c) for c in self._columns if c is not None)
        return gathered + sum(kernel.nbytes for kernel in self._kernels)

    def arithmetic(self, engine: Engine, k: int) -> Arithmetic:
        """Return the operations on what `log_prob` returns, for at most k components at a time."""
        if len(self._kernels) == 1:
            return self._kernels[0].arithmetic(engine, k)
        return super().arithmetic(engine, k)
