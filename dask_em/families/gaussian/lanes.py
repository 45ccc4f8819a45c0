"""Vectors of numbers side by side, and factors of matrices whose entries are such vectors.

A lane of a register is a matrix of its own, of few rows, so that every operation is one of whole
vectors, whatever the size. Numba's own vectorizer unrolls loops as short as a register, so the
operations are emitted as LLVM vector instructions, as in `simd`; offsets count numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...core.additive import Array
from ...core.compiled import _I64, _JIT, log
from . import simd
from .simd import (
    _at,
    _fma,
    _lane_sums,
    _load,
    _pointer,
    _splat,
    _store,
    _vector_type,
    _zero,
)

LANES = simd.lanes(np.float64)

# A call would pass all arrays of a row's work.
INLINE: dict[str, Any] = {**_JIT, "forceinline": True}

# Pivots whose product is far from overflow: in units of the columns each is below 1e16.
_PIVOTS = 16

# Vectors that are computed together, which share what they are multiplied by.
TOGETHER = 4


def _dots(
    builder: Any, starts: list[Any], others: Any, rows: list[Any], n: Any, vector: ir.VectorType
) -> list[Any]:
    """Return starts[r] - sum_t rows[r](t) others(t), where these load the vectors of t."""
    totals = [cgutils.alloca_once(builder, vector) for _ in starts]
    for total, start in zip(totals, starts, strict=True):
        builder.store(start, total)
    with cgutils.for_range(builder, n) as loop:
        y = builder.fneg(others(loop.index))
        for total, row in zip(totals, rows, strict=True):
            builder.store(_fma(builder, row(loop.index), y, builder.load(total)), total)
    return [builder.load(total) for total in totals]


def _vector_at(builder: Any, pointer: Any, vector: ir.VectorType) -> Any:
    """Return what loads the vector of a number t from an array of them."""
    size = ir.Constant(_I64, vector.count)
    return lambda t: _load(builder, _at(builder, pointer, builder.mul(t, size)), vector)


def _minus_dots(added: bool) -> Any:
    @intrinsic
    def minus_dots(
        typing: Any, T: Any, t0: Any, by_t: Any, A: Any, a: Any, by_a: Any, B: Any, b: Any, n: Any
    ) -> Any:
        """T[r] -= sum_t A[r, t] B[t], or =, for four r that lie `by` apart, vectors together."""
        i = types.intp
        signature = types.void(T, i, i, A, i, i, B, i, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector_type(context, sig.args[0])
            T_, A_, B_ = (
                _pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 3, 6)
            )
            numbers = [ir.Constant(_I64, r) for r in range(TOGETHER)]
            places = [_at(builder, T_, builder.mul(r, args[2])) for r in numbers]
            rows = [_at(builder, A_, builder.mul(r, args[5])) for r in numbers]
            others = _vector_at(builder, B_, vector)
            zeros = [_zero(vector)] * TOGETHER
            starts = [_load(builder, place, vector) for place in places] if added else zeros
            vectors = [_vector_at(builder, row, vector) for row in rows]
            found = _dots(builder, starts, others, vectors, args[8], vector)
            for value, place in zip(found, places, strict=True):
                _store(builder, value, place)
            return context.get_dummy_value()

        return signature, codegen

    return minus_dots


subtract_dots, write_minus_dots = (_minus_dots(added) for added in (True, False))


@intrinsic
def dots_of_columns(
    typing: Any, P: Any, starts: Any, columns: Any, n: Any, D: Any, out: Any, o: Any
) -> Any:
    """Write out[r] = -sum_t P[starts[r], columns[t]] D[t] for four r that lie together."""
    i = types.intp
    signature = types.void(P, starts, columns, i, D, out, i)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector_type(context, sig.args[0])
        zero, size = ir.Constant(_I64, 0), ir.Constant(_I64, vector.count)
        P_, starts_, columns_, D_ = (
            _pointer(context, builder, sig.args[j], args[j], zero) for j in (0, 1, 2, 4)
        )
        out_ = _pointer(context, builder, sig.args[5], args[5], args[6])

        def row(r: int) -> Any:
            start = _at(builder, P_, builder.load(_at(builder, starts_, r)))

            def vector_of(t: Any) -> Any:
                column = builder.mul(builder.load(_at(builder, columns_, t)), size)
                return _load(builder, _at(builder, start, column), vector)

            return vector_of

        rows = [row(r) for r in range(TOGETHER)]
        others = _vector_at(builder, D_, vector)
        found = _dots(builder, [_zero(vector)] * TOGETHER, others, rows, args[3], vector)
        for r, value in enumerate(found):
            _store(builder, value, _at(builder, out_, r * vector.count))
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def dots_of_rows(typing: Any, P: Any, starts: Any, n: Any, D: Any, o: Any, out: Any) -> Any:
    """Write out[r] = P[starts[r] + j] . D[o + j] over n vectors of j, one r a lane."""
    i = types.intp
    signature = types.void(P, starts, i, D, i, out)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector_type(context, sig.args[0])
        zero, size = ir.Constant(_I64, 0), ir.Constant(_I64, vector.count)
        P_, starts_, out_ = (
            _pointer(context, builder, sig.args[j], args[j], zero) for j in (0, 1, 5)
        )
        D_ = _pointer(context, builder, sig.args[3], args[3], args[4])
        rows = [
            _at(builder, P_, builder.load(_at(builder, starts_, r))) for r in range(vector.count)
        ]
        totals = [cgutils.alloca_once(builder, vector) for _ in rows]
        for total in totals:
            builder.store(_zero(vector), total)
        with cgutils.for_range(builder, args[2]) as loop:
            at = builder.mul(loop.index, size)
            y = _load(builder, _at(builder, D_, at), vector)
            for row, total in zip(rows, totals, strict=True):
                x = _load(builder, _at(builder, row, at), vector)
                builder.store(_fma(builder, x, y, builder.load(total)), total)
        sums = _lane_sums(builder, [builder.load(total) for total in totals])
        _store(builder, sums, out_)
        return context.get_dummy_value()

    return signature, codegen


def _elementwise(compute: Any) -> Any:
    @intrinsic
    def elementwise(typing: Any, A: Any, a: Any, B: Any, b: Any, out: Any, o: Any) -> Any:
        i = types.intp
        signature = types.void(A, i, B, i, out, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector_type(context, sig.args[0])
            A_, B_, out_ = (
                _pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 2, 4)
            )
            x, y, old = (_load(builder, p, vector) for p in (A_, B_, out_))
            _store(builder, compute(builder, x, y, old), out_)
            return context.get_dummy_value()

        return signature, codegen

    return elementwise


# out = A B, out = A / B, out += A B.
multiply = _elementwise(lambda builder, x, y, old: builder.fmul(x, y))
divide = _elementwise(lambda builder, x, y, old: builder.fdiv(x, y))
multiply_add = _elementwise(_fma)


@intrinsic
def write_deviation(typing: Any, A: Any, a: Any, value: Any, out: Any, o: Any) -> Any:
    """Write out = value - A, of one number and a vector."""
    i = types.intp
    signature = types.void(A, i, types.float64, out, i)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector_type(context, sig.args[0])
        A_, out_ = (_pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 3))
        values = _splat(builder, args[2], vector)
        _store(builder, builder.fsub(values, _load(builder, A_, vector)), out_)
        return context.get_dummy_value()

    return signature, codegen


# -- factors ---------------------------------------------------------------------------------------


@njit(**INLINE)
def factorize_bordered(m: int, ones: Array, M: Array, L: Array, inverse: Array) -> None:
    """Factorize the lower half of M in place, L diag(p) L^T of m rows and another below them."""
    by = M.shape[1] * LANES
    for j in range(m):
        for i in range(j, m + 1, TOGETHER):
            subtract_dots(M, i * by + j * LANES, by, M, i * by, by, L, j * by, j)
        divide(ones, 0, M, j * by + j * LANES, inverse, j * LANES)
        for i in range(j + 1, m + 1):
            multiply(M, i * by + j * LANES, inverse, j * LANES, L, i * by + j * LANES)


@njit(**INLINE)
def multiply_pivots(M: Array, m: int, ones: Array, product: Array, half: Array) -> None:
    """Write half the logarithms of the pivots of each lane, but for those of `product`."""
    by = (M.shape[1] + 1) * LANES
    half[:] = 0.0
    product[:] = 1.0
    for j in range(m):
        if j and j % _PIVOTS == 0:
            for lane in range(LANES):
                half[lane] += 0.5 * log(product[lane])
            product[:] = 1.0
        multiply(M, j * by, product, 0, product, 0)
