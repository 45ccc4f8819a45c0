"""Moments of all rows in one compiled sweep: the sums of a single normal, for the first pass.

A piece of rows is read once, while it is shifted, its extremes are found and its numbers are
added; its products are those of `simd`, of deviations that the level-1 cache still holds. The flops
are b d (d + 1) for b rows, in the tiles of a matrix product, beside five operations a number.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...core.additive import Array
from ...core.compiled import _I64, _JIT
from ...core.moments import Moments
from ...core.support import Support
from ...core.tuning import tuning
from . import simd
from .simd import _add_lower, _at, _fma, _load, _pointer, _splat, _store

LANES = simd.lanes(np.float64)

# Types of rows that are read where they lie; all others are copied first.
_DIRECT = (np.dtype(np.float32), np.dtype(np.float64))


def _rows_at(context: Any, builder: Any, like: Any, address: Any) -> Any:
    """Return the pointer to rows of the type of an array at an address.

    Of arrays that may not be written Numba would compile everything again.
    """
    return builder.inttoptr(address, context.get_data_type(like.dtype).as_pointer())


@intrinsic
def _number(typing: Any, like: Any, address: Any, i: Any) -> Any:
    """Number i of the rows at an address, in float64."""
    signature = types.float64(like, types.intp, types.intp)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        x = builder.load(_at(builder, _rows_at(context, builder, sig.args[0], args[1]), args[2]))
        return x if x.type == ir.DoubleType() else builder.fpext(x, ir.DoubleType())

    return signature, codegen


def _shift(weighted: bool, n_vectors: int) -> Any:
    @intrinsic
    def shift(
        typing: Any, like: Any, address: Any, stride: Any, j: Any, n: Any, roots: Any, t: Any,
        sums: Any, width: Any, D: Any, o: Any,
    ) -> Any:  # fmt: skip
        """D[r] = root[r] (x[r] - origin), some vectors of columns from j on of n rows.

        `sums` (4, width) are the origin, the sum of root[r] D[r], the least and the most x[r].
        """
        i = types.intp
        signature = types.void(like, i, i, i, i, roots, i, sums, i, D, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            number = context.get_data_type(sig.args[0].dtype)
            X_ = _at(builder, _rows_at(context, builder, sig.args[0], args[1]), args[3])
            roots_, D_ = (
                _pointer(context, builder, sig.args[k], args[k], args[k + 1]) for k in (5, 9)
            )
            sums_ = _pointer(context, builder, sig.args[7], args[7], args[3])
            columns = [_Columns(builder, sums_, args[8], v) for v in range(n_vectors)]
            with cgutils.for_range(builder, args[4]) as loop:
                row = _at(builder, X_, builder.mul(loop.index, args[2]))
                shifted = _at(builder, D_, builder.mul(loop.index, args[8]))
                shifted = _at(builder, shifted, args[3])
                root = None
                if weighted:
                    root = builder.load(_at(builder, roots_, loop.index))
                    root = _splat(builder, root, _DOUBLES)
                for v, column in enumerate(columns):
                    x = _load(builder, _at(builder, row, v * LANES), ir.VectorType(number, LANES))
                    x = x if number == ir.DoubleType() else builder.fpext(x, _DOUBLES)
                    _store(builder, column.add(x, root), _at(builder, shifted, v * LANES))
            for column in columns:
                column.store()
            return context.get_dummy_value()

        return signature, codegen

    return shift


_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)


class _Columns:
    """Hold the sums of a vector of columns in registers while code for a row is emitted."""

    def __init__(self, builder: Any, sums: Any, width: Any, number: int) -> None:
        self._builder = builder
        first = _at(builder, sums, number * LANES)
        self._places = [
            _at(builder, first, builder.mul(ir.Constant(_I64, k), width)) for k in range(4)
        ]
        self._origin = _load(builder, self._places[0], _DOUBLES)
        self._kept = [cgutils.alloca_once(builder, _DOUBLES) for _ in range(3)]
        for value, place in zip(self._kept, self._places[1:], strict=True):
            builder.store(_load(builder, place, _DOUBLES), value)

    def add(self, x: Any, root: Any) -> Any:
        """Add the numbers of a row, and return their deviations times the root of its weight."""
        builder = self._builder
        total, low, high = self._kept
        for extreme, sign in ((low, "<"), (high, ">")):
            before = builder.load(extreme)
            further = builder.fcmp_ordered(sign, x, before)
            builder.store(builder.select(further, x, before), extreme)
        deviation = builder.fsub(x, self._origin)
        before = builder.load(total)
        if root is None:
            builder.store(builder.fadd(deviation, before), total)
            return deviation
        deviation = builder.fmul(root, deviation)
        builder.store(_fma(builder, root, deviation, before), total)
        return deviation

    def store(self) -> None:
        """Bring the sums back to memory."""
        for value, place in zip(self._kept, self._places[1:], strict=True):
            _store(self._builder, self._builder.load(value), place)


# Vectors of columns that are read together: four registers each, and whole lines of the cache.
TOGETHER = 4 if simd.AVX512 else 2

_shift_one, _shift_one_weighted = _shift(False, 1), _shift(True, 1)
_shift_some, _shift_some_weighted = _shift(False, TOGETHER), _shift(True, TOGETHER)


@njit(**_JIT)
def _shift_rows(
    like: Array, address: int, stride: int, n: int, roots: Array, t: int, sums: Array, D: Array,
    first: int,
) -> None:  # fmt: skip
    """Shift n rows at an address, into those of D from `first` on."""
    width, weighted = D.shape[1], len(roots) > 0
    o, j = first * width, 0
    while j + TOGETHER * LANES <= width:
        if weighted:
            _shift_some_weighted(like, address, stride, j, n, roots, t, sums, width, D, o)
        else:
            _shift_some(like, address, stride, j, n, roots, t, sums, width, D, o)
        j += TOGETHER * LANES
    while j < width:
        if weighted:
            _shift_one_weighted(like, address, stride, j, n, roots, t, sums, width, D, o)
        else:
            _shift_one(like, address, stride, j, n, roots, t, sums, width, D, o)
        j += LANES


@njit(**_JIT)
def _has_fractions(like: Array, address: int, stride: int, n: int, whole: Array) -> bool:
    """Tell whether a column that should be whole has a number that is not."""
    for j in range(len(whole)):
        if whole[j]:
            for r in range(n):
                x = _number(like, address, r * stride + j)
                if x != math.floor(x):
                    return True
    return False


@njit(**_JIT)
def _sum_block(
    like: Array, here: int, stride: int, b: int, safe: int, roots: Array, start: int, d: int,
    tail: Array, sums: Array, D: Array, scatter: Array,
) -> None:  # fmt: skip
    """Sum b rows about the first of them, of which the first `safe` are read where they lie."""
    width = D.shape[1]
    for j in range(width):
        sums[0, j] = _number(like, here, j) if j < d else 0.0
        sums[1, j] = 0.0
        sums[2, j] = np.inf
        sums[3, j] = -np.inf
    scatter[:] = 0.0
    for t in range(0, b, D.shape[0]):
        size = min(D.shape[0], b - t)
        plain = max(0, min(size, safe - t))
        piece = here + t * stride * like.itemsize
        _shift_rows(like, piece, stride, plain, roots, start + t, sums, D, 0)
        for r in range(plain, size):
            for j in range(d):
                tail[r - plain, j] = _number(like, piece, r * stride + j)
        if plain < size:
            _shift_rows(
                tail, tail.ctypes.data, width, size - plain, roots, start + t + plain, sums, D,
                plain,
            )  # fmt: skip
        _add_lower(D, size, d, scatter, 0)


@njit(**_JIT)
def _is_usual(sums: Array, least: Array, most: Array) -> bool:
    """Tell whether all numbers of a block are finite, and between these."""
    usual = True
    for j in range(len(least)):
        usual &= math.isfinite(sums[1, j]) & (sums[2, j] >= least[j]) & (sums[3, j] <= most[j])
    return usual


@njit(**_JIT)
def _join_block(
    heavy: float, sums: Array, scatter: Array, weight_sum: Array, origin: Array, mean: Array,
    total: Array, extremes: Array,
) -> None:  # fmt: skip
    """Add the sums of a block of this weight (Chan, Golub and LeVeque 1983)."""
    d = len(mean)
    share = heavy / (weight_sum[0] + heavy)
    both = weight_sum[0] * share
    for j in range(d):
        if weight_sum[0] == 0.0:
            origin[j] = sums[0, j]
        # From here on it is how far the means are apart.
        sums[0, j] = (sums[0, j] - origin[j]) + sums[1, j] / heavy - mean[j]
    for i in range(d):
        for j in range(i + 1):
            own = scatter[0, i, j] - sums[1, i] * (sums[1, j] / heavy)
            total[i, j] += own + sums[0, i] * sums[0, j] * both
    weight_sum[0] += heavy
    for j in range(d):
        mean[j] += sums[0, j] * share
        extremes[0, j] = min(extremes[0, j], sums[2, j])
        extremes[1, j] = max(extremes[1, j], sums[3, j])


@njit(**_JIT)
def sweep(
    like: Array, address: int, stride: int, n: int, weight: Array, roots: Array, block_rows: int,
    least: Array, most: Array, whole: Array, tail: Array, sums: Array, D: Array, scatter: Array,
    weight_sum: Array, origin: Array, mean: Array, total: Array, extremes: Array,
) -> int:  # fmt: skip
    """Add rows to moments, block by block, as far as blocks are usual; return how many were added.

    A block is not, and ends the sweep before anything of it is added, where its sum is not finite,
    or it holds numbers that are not between `least` and `most`, or not whole.

    Parameters
    ----------
    like : (0,) array
        Of the type of the rows.
    address, stride, n : int
        Of the first number of the rows, numbers from one to the next, rows.
    weight, roots : (n,) arrays
        Weights, positive, and their roots; empty where rows have none.
    block_rows : int
        Rows whose sums are about one origin, the first of them.
    least, most, whole : (d,) arrays
        What columns may hold; `whole` is empty where no column need be.
    tail, sums, D, scatter : (>= LANES, W), (4, W), (m, W), (1, W, W) arrays
        Work; W is d rounded up to whole vectors.
    weight_sum, origin, mean, total, extremes : (1,), (d,), (d,), (d, d), (2, d) arrays
        Moments so far that are added to: the mean less `origin`, which is the first row of all, so
        that means far from zero keep their digits; of products the lower triangle.
    """
    d = len(mean)
    # Rows from here on are read from a copy: whole vectors would go beyond the last.
    safe = n - (D.shape[1] - d + stride - 1) // stride
    for start in range(0, n, block_rows):
        b = min(block_rows, n - start)
        here = address + start * stride * like.itemsize
        _sum_block(
            like, here, stride, b, safe - start, roots, start, d, tail, sums, D, scatter
        )  # fmt: skip
        if not _is_usual(sums, least, most) or _has_fractions(like, here, stride, b, whole):
            return start
        heavy = float(b) if len(weight) == 0 else 0.0
        for r in range(start, start + b if len(weight) > 0 else start):
            heavy += weight[r]
        _join_block(heavy, sums, scatter, weight_sum, origin, mean, total, extremes)
    return n


class CompiledSweep:
    """Sum moments of rows in the compiled loop, as far as blocks of them are usual.

    Parameters
    ----------
    n_features, block_rows : int
    support : Support
        What the numbers should be.
    """

    def __init__(self, n_features: int, block_rows: int, support: Support) -> None:
        d, width = n_features, -(-n_features // LANES) * LANES
        constants = tuning().reading
        piece = max(constants.survey_piece_rows, constants.survey_piece_bytes // (8 * width))
        self.block_rows = block_rows
        self._bounds = [np.full(d, bound) for bound in (support.least, support.most)]
        self._whole = np.full(d, support.whole) if any(support.whole) else np.empty(0, bool)
        shapes = (LANES, width), (4, width), (piece, width), (1, width, width)
        self._work = [np.zeros(shape) for shape in shapes]
        self._weight, self._total = np.zeros(1), np.zeros((d, d))
        self._origin, self._mean = np.zeros((2, d))
        self._extremes = np.array([np.full(d, np.inf), np.full(d, -np.inf)])
        self._copy = np.empty((0, d))

    def add(self, X: Array, weight: Array | None) -> int:
        """Add the blocks of rows X (n, d), of positive weights (n,), before one that is unusual.

        Returns
        -------
        int
            How many rows were added.
        """
        lies = X.strides[1] == X.itemsize and X.strides[0] % X.itemsize == 0 and X.strides[0] > 0
        if lies and X.dtype in _DIRECT and X.dtype.isnative:
            return self._add(X, weight)
        done = 0
        while done < len(X):
            # Rows by columns, or of integers, become rows of doubles a block at a time.
            block = X[done : done + self.block_rows]
            if len(self._copy) < len(block):
                self._copy = np.empty((len(block), X.shape[1]))
            copy = self._copy[: len(block)]
            copy[:] = block
            added = self._add(copy, None if weight is None else weight[done : done + len(block)])
            done += added
            if added < len(block):
                break
        return done

    def _add(self, X: Array, weight: Array | None) -> int:
        weight = _NO_WEIGHT if weight is None else np.ascontiguousarray(weight, np.float64)
        address, stride = X.__array_interface__["data"][0], X.strides[0] // X.itemsize
        added = sweep(
            np.empty(0, X.dtype), address, stride, len(X), weight, np.sqrt(weight),
            self.block_rows, *self._bounds, self._whole, *self._work,
            self._weight, self._origin, self._mean, self._total, self._extremes,
        )  # fmt: skip
        return int(added)

    def moments(self) -> Moments:
        """Return the moments of what was added."""
        scatter = np.tril(self._total) + np.tril(self._total, -1).T
        low, high = self._extremes.copy()
        return Moments(float(self._weight[0]), self._origin + self._mean, scatter, low, high)


_NO_WEIGHT = np.empty(0)
