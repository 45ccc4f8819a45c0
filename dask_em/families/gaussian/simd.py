"""Loops of the Gaussian E-step compiled by Numba, at the rate of a matrix product.

Every flop here is in a tile: 4 x 3 vector registers (8 x 3 where there are 32) accumulate an
outer product, 12 fused multiply-adds for 7 loads, which keeps both multiply-add units of a
core busy (Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008).
Numba's own vectorizer does not find such tiles, so they are emitted as LLVM vector
instructions by intrinsics; the loops around them are plain Numba.

All arrays are C-contiguous; offsets and strides count numbers, not bytes. The order of
additions is fixed by the shapes alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from ...core.additive import Array
from ...core.compiled import _I64, _JIT

# Rows and vectors of a tile: 12 accumulators of the 16 registers that AVX2 has.
TILE_ROWS, TILE_VECTORS = 4, 3

AVX512 = bool(llvmlite.binding.get_host_cpu_features().get("avx512f"))

REGISTER_BYTES = 64 if AVX512 else 32

# Where a tile's vectors are products that it makes itself, more rows share them, as many as
# a register has doubles: 24 accumulators of the 32 registers that AVX-512 has.
TALL_ROWS = REGISTER_BYTES // 8


def lanes(dtype: Any) -> int:
    """Return how many numbers a vector register holds."""
    return int(REGISTER_BYTES // np.dtype(dtype).itemsize)


def tile_columns(dtype: Any) -> int:
    """Return the number of columns of a tile of `_multiply_add`."""
    return TILE_VECTORS * lanes(dtype)


# -- LLVM building blocks ------------------------------------------------------------


def _vector_type(context: Any, array_type: Any) -> ir.VectorType:
    scalar = context.get_data_type(array_type.dtype)
    return ir.VectorType(scalar, REGISTER_BYTES * 8 // array_type.dtype.bitwidth)


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.gep(data, [offset])


def _at(builder: Any, pointer: Any, index: Any) -> Any:
    return builder.gep(pointer, [ir.Constant(_I64, index) if isinstance(index, int) else index])


def _load(builder: Any, pointer: Any, vector: ir.VectorType) -> Any:
    loaded = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    loaded.align = 4
    return loaded


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, builder.bitcast(pointer, value.type.as_pointer())).align = 4


def _splat(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    undefined = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [0] * vector.count)
    return builder.shuffle_vector(one, undefined, mask)


def _splats(builder: Any, pointer: Any, n: int, vector: ir.VectorType) -> Iterator[Any]:
    """Vectors of each of the `n` numbers at `pointer`, loaded when asked for."""
    for i in range(n):
        yield _splat(builder, builder.load(_at(builder, pointer, i)), vector)


def _zero(vector: ir.VectorType) -> Any:
    return ir.Constant(vector, [0.0] * vector.count)


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, rounded once."""
    t = a.type
    name = f"llvm.fma.v{t.count}{'f64' if t.element == ir.DoubleType() else 'f32'}"
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(t, [t] * 3), name)
    return builder.call(function, [a, b, c])


def _tile(builder: Any, vectors: list[ir.VectorType], n_rows: int = TILE_ROWS) -> list[list[Any]]:
    """Accumulators of zero, which LLVM keeps in registers."""
    tile = [[cgutils.alloca_once(builder, vector) for vector in vectors] for _ in range(n_rows)]
    for accumulators in tile:
        for accumulator, vector in zip(accumulators, vectors, strict=True):
            builder.store(_zero(vector), accumulator)
    return tile


def _multiply_add(
    builder: Any, tile: list[list[Any]], A: Any, stride_a: Any, B: Any, stride_b: Any, n: Any
) -> None:
    """tile[i][v] += sum_t A[t, i] * B[t, v], t = 0..n-1; A one number, B a vector each."""
    vectors = [accumulator.type.pointee for accumulator in tile[0]]
    offsets = [sum(vector.count for vector in vectors[:v]) for v in range(len(vectors))]
    with cgutils.for_range(builder, n) as loop:
        a = _at(builder, A, builder.mul(loop.index, stride_a))
        b = _at(builder, B, builder.mul(loop.index, stride_b))
        rows = [
            _load(builder, _at(builder, b, o), v) for o, v in zip(offsets, vectors, strict=True)
        ]
        _add_multiples(builder, tile, _splats(builder, a, len(tile), vectors[0]), rows)


def _add_multiples(
    builder: Any, tile: list[list[Any]], multiples: Iterable[Any], vectors: list[Any]
) -> None:
    """tile[i][v] += multiples[i] * vectors[v]; multiples as wide as the widest vector."""
    for multiple, accumulators in zip(multiples, tile, strict=True):
        for accumulator, value in zip(accumulators, vectors, strict=True):
            factor = _first_lanes(builder, multiple, value.type.count)
            builder.store(_fma(builder, factor, value, builder.load(accumulator)), accumulator)


def _first_lanes(builder: Any, vector: Any, n: int) -> Any:
    if vector.type.count == n:
        return vector
    mask = ir.Constant(ir.VectorType(ir.IntType(32), n), list(range(n)))
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


def _raise_best(
    builder: Any, tile: list[list[Any]], first: Any, best: Any, labels: Any, scores: Any = None
) -> None:
    """Raise `best` to the largest of each column of a tile, and note its row + first in `labels`.

    The first of equals counts; the tile itself is stored at `scores`, if there is a place for it.
    """
    vector, whole = tile[0][0].type.pointee, labels.type.pointee
    numbers = ir.VectorType(whole, vector.count)
    begin = first if whole.width == first.type.width else builder.trunc(first, whole)
    names = [
        _splat(builder, builder.add(begin, ir.Constant(whole, row)), numbers)
        for row in range(len(tile))
    ]
    for v in range(TILE_VECTORS):
        at_best, at_labels = (_at(builder, p, v * vector.count) for p in (best, labels))
        most, label = _load(builder, at_best, vector), _load(builder, at_labels, numbers)
        for row, (name, accumulators) in enumerate(zip(names, tile, strict=True)):
            score = builder.load(accumulators[v])
            if scores is not None:
                place = (row * TILE_VECTORS + v) * vector.count
                _store(builder, score, _at(builder, scores, place))
            higher = builder.fcmp_ordered(">", score, most)
            most = builder.select(higher, score, most)
            label = builder.select(higher, name, label)
        _store(builder, most, at_best)
        _store(builder, label, at_labels)


def _add_double(builder: Any, pointer: Any, value: Any) -> None:
    """Add a vector to the doubles at `pointer`."""
    doubles = ir.VectorType(ir.DoubleType(), value.type.count)
    if value.type.element != ir.DoubleType():
        value = builder.fpext(value, doubles)
    _store(builder, builder.fadd(_load(builder, pointer, doubles), value), pointer)


def _exchanged(builder: Any, a: Any, b: Any, step: int) -> list[Any]:
    """Two vectors after every other block of `step` lanes was exchanged between them."""
    n = a.type.count
    low = [e if not e & step else n + e - step for e in range(n)]
    high = [e + step if not e & step else n + e for e in range(n)]
    masks = (ir.Constant(ir.VectorType(ir.IntType(32), n), order) for order in (low, high))
    return [builder.shuffle_vector(a, b, mask) for mask in masks]


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """The columns of a square of vectors, by exchanges of ever larger blocks."""
    step = 1
    while step < len(rows):
        for i in (i for i in range(len(rows)) if not i & step):
            rows[i], rows[i + step] = _exchanged(builder, rows[i], rows[i + step], step)
        step *= 2
    return rows


def _lane_sums(builder: Any, rows: list[Any]) -> Any:
    """The vector whose lane i is the sum over the lanes of rows[i]; missing rows are zero."""
    vector = rows[0].type
    rows = [*rows, *[_zero(vector)] * (vector.count - len(rows))]
    step = 1
    while len(rows) > 1:
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [builder.fadd(*_exchanged(builder, a, b, step)) for a, b in pairs]
        step *= 2
    return rows[0]


# -- tiles ---------------------------------------------------------------------------


@intrinsic
def _subtract_squares(
    typing: Any, W: Any, w: Any, Z: Any, z: Any, n: Any, m: Any, m0: Any, out: Any, o: Any
) -> Any:
    """out[r] -= sum_i (sum_j W[j, i] Z[j, r] - m[i])^2 for a tile of 4 i and 3 vectors of r."""
    i = types.intp
    signature = types.void(W, i, Z, i, i, m, i, out, i)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector_type(context, sig.args[0])
        W_, Z_, m_, out_ = (
            _pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 2, 5, 7)
        )
        tile = _tile(builder, [vector] * TILE_VECTORS)
        for row, accumulators in enumerate(tile):
            start = _splat(builder, builder.load(_at(builder, m_, row)), vector)
            for accumulator in accumulators:
                builder.store(start, accumulator)
        columns = ir.Constant(_I64, TILE_VECTORS * vector.count)
        _multiply_add(builder, tile, W_, ir.Constant(_I64, TILE_ROWS), Z_, columns, args[4])
        for v in range(TILE_VECTORS):
            pointer = _at(builder, out_, v * vector.count)
            total = _load(builder, pointer, vector)
            for accumulators in tile:
                y = builder.load(accumulators[v])
                total = _fma(builder, builder.fneg(y), y, total)
            _store(builder, total, pointer)
        return context.get_dummy_value()

    return signature, codegen


def _vectors(builder: Any, pointer: Any, offset: Any, vector: ir.VectorType) -> list[Any]:
    """The vectors of a tile of rows, from `offset` on."""
    start = _at(builder, pointer, offset)
    return [
        _load(builder, _at(builder, start, v * vector.count), vector) for v in range(TILE_VECTORS)
    ]


def _product_with_pairs(n_rows: int) -> Any:
    @intrinsic
    def product_with_pairs(
        typing: Any, A: Any, a: Any, Z: Any, z: Any, left: Any, right: Any, n: Any, out: Any,
        o: Any, by: Any,
    ) -> Any:  # fmt: skip
        """out[i, r] = sum_f A[f, i] Z[left[f] + r] Z[right[f] + r] for some i, 3 vectors of r."""
        i = types.intp
        signature = types.void(A, i, Z, i, left, right, i, out, i, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector_type(context, sig.args[0])
            zero = ir.Constant(_I64, 0)
            A_, Z_, out_ = (
                _pointer(context, builder, sig.args[j], args[j], args[j + 1]) for j in (0, 2, 7)
            )
            left_, right_ = (_pointer(context, builder, sig.args[j], args[j], zero) for j in (4, 5))
            tile = _tile(builder, [vector] * TILE_VECTORS, n_rows)
            with cgutils.for_range(builder, args[6]) as loop:
                factors = (
                    _vectors(builder, Z_, builder.load(_at(builder, side, loop.index)), vector)
                    for side in (left_, right_)
                )
                features = [builder.fmul(x, y) for x, y in zip(*factors, strict=True)]
                coefficients = _at(builder, A_, builder.mul(loop.index, ir.Constant(_I64, n_rows)))
                multiples = _splats(builder, coefficients, n_rows, vector)
                _add_multiples(builder, tile, multiples, features)
            for row, accumulators in enumerate(tile):
                start = _at(builder, out_, builder.mul(ir.Constant(_I64, row), args[9]))
                for v, accumulator in enumerate(accumulators):
                    pointer = _at(builder, start, v * vector.count)
                    _store(builder, builder.load(accumulator), pointer)
            return context.get_dummy_value()

        return signature, codegen

    return product_with_pairs


_product_with_pairs_low, _product_with_pairs_tall = (
    _product_with_pairs(n) for n in (TILE_ROWS, TALL_ROWS)
)


def _add_outer(n_halves: int, n_rows: int = TILE_ROWS) -> Any:
    @intrinsic
    def add_outer(
        typing: Any, D: Any, i0: Any, j0: Any, stride: Any, n: Any, S: Any, s: Any, by: Any
    ) -> Any:
        """S[i, j] += sum_t D[t, i0 + i] D[t, j0 + j] for a tile of some i, half vectors of j."""
        i = types.intp
        signature = types.void(D, i, i, i, i, S, i, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector_type(context, sig.args[0])
            half = ir.VectorType(vector.element, vector.count // 2)
            A_, B_ = (_pointer(context, builder, sig.args[0], args[0], args[j]) for j in (1, 2))
            S_ = _pointer(context, builder, sig.args[5], args[5], args[6])
            tile = _tile(builder, [vector] * (n_halves // 2) + [half] * (n_halves % 2), n_rows)
            _multiply_add(builder, tile, A_, args[3], B_, args[3], args[4])
            for row, accumulators in enumerate(tile):
                start = _at(builder, S_, builder.mul(ir.Constant(_I64, row), args[7]))
                for v, accumulator in enumerate(accumulators):
                    pointer = _at(builder, start, v * vector.count)
                    _add_double(builder, pointer, builder.load(accumulator))
            return context.get_dummy_value()

        return signature, codegen

    return add_outer


_add_outer_1, _add_outer_2, _add_outer_3, _add_outer_4, _add_outer_5, _add_outer_6 = (
    _add_outer(n) for n in range(1, 7)
)

# Four multiply-adds at a time would wait for each other.
_add_outer_1_tall, _add_outer_2_tall = (_add_outer(n, 2 * TILE_ROWS) for n in (1, 2))


def _add_inner_with_pairs(n_rows: int) -> Any:
    @intrinsic
    def add_inner_with_pairs(
        typing: Any, R: Any, r: Any, by_r: Any, Z: Any, z: Any, by_z: Any, left: Any, right: Any,
        f: Any, n: Any, S: Any, s: Any,
    ) -> Any:  # fmt: skip
        """S[f, i] += sum_r R[i, r] Z[left[f] + r] Z[right[f] + r] for some i, 3 f, n tiles of r."""
        i = types.intp
        signature = types.void(R, i, i, Z, i, i, left, right, i, i, S, i)

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            vector = _vector_type(context, sig.args[0])
            R_ = _pointer(context, builder, sig.args[0], args[0], args[1])
            Z_ = _pointer(context, builder, sig.args[3], args[3], args[4])
            S_ = _pointer(context, builder, sig.args[10], args[10], args[11])
            sides = [_pointer(context, builder, sig.args[j], args[j], args[8]) for j in (6, 7)]
            offsets = [
                [builder.load(_at(builder, side, f)) for f in range(TILE_VECTORS)] for side in sides
            ]
            tile = _tile(builder, [vector] * TILE_VECTORS, n_rows)
            width = ir.Constant(_I64, TILE_VECTORS * vector.count)
            with cgutils.for_range(builder, args[9]) as loop:
                here = _at(builder, R_, builder.mul(loop.index, width))
                rows = _at(builder, Z_, builder.mul(loop.index, args[5]))
                for v in range(TILE_VECTORS):
                    start = _at(builder, rows, v * vector.count)
                    factors = [
                        [_load(builder, _at(builder, start, o), vector) for o in side]
                        for side in offsets
                    ]
                    features = [builder.fmul(x, y) for x, y in zip(*factors, strict=True)]
                    resp = [
                        _at(builder, here, builder.mul(ir.Constant(_I64, i), args[2]))
                        for i in range(n_rows)
                    ]
                    multiples = [
                        _load(builder, _at(builder, p, v * vector.count), vector) for p in resp
                    ]
                    _add_multiples(builder, tile, multiples, features)
            for f in range(TILE_VECTORS):
                total = _lane_sums(builder, [builder.load(row[f]) for row in tile])
                _add_double(builder, _at(builder, S_, f * vector.count), total)
            return context.get_dummy_value()

        return signature, codegen

    return add_inner_with_pairs


_add_inner_with_pairs_low, _add_inner_with_pairs_tall = (
    _add_inner_with_pairs(n) for n in (TILE_ROWS, TALL_ROWS)
)


@intrinsic
def _deviations(
    typing: Any, Z: Any, rows: Any, roots: Any, t0: Any, n: Any, mean: Any, m: Any, D: Any,
    first: Any, width: Any,
) -> Any:  # fmt: skip
    """D[t] = roots[t] (Z[rows[t]] - mean) and first += roots[t] D[t]; rows holds offsets."""
    i = types.intp
    signature = types.void(Z, rows, roots, i, i, mean, i, D, first, i)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector_type(context, sig.args[0])
        zero = ir.Constant(_I64, 0)
        Z_, D_, first_ = (_pointer(context, builder, sig.args[j], args[j], zero) for j in (0, 7, 8))
        rows_, roots_ = (_pointer(context, builder, sig.args[j], args[j], args[3]) for j in (1, 2))
        mean_ = _pointer(context, builder, sig.args[5], args[5], args[6])
        sums = [cgutils.alloca_once(builder, vector) for _ in range(2)]
        size = ir.Constant(_I64, vector.count)

        def together(first_unit: Any, n_units: int) -> None:
            """One sweep over the rows for one or two vectors of columns."""
            offsets = [
                builder.mul(builder.add(first_unit, ir.Constant(_I64, u)), size)
                for u in range(n_units)
            ]
            centres = [_load(builder, _at(builder, mean_, o), vector) for o in offsets]
            for total, o in zip(sums, offsets, strict=False):
                builder.store(_load(builder, _at(builder, first_, o), vector), total)
            with cgutils.for_range(builder, args[4]) as loop:
                start = _at(builder, Z_, builder.load(_at(builder, rows_, loop.index)))
                root = _splat(builder, builder.load(_at(builder, roots_, loop.index)), vector)
                row = _at(builder, D_, builder.mul(loop.index, args[9]))
                for centre, total, o in zip(centres, sums, offsets, strict=False):
                    z = _load(builder, _at(builder, start, o), vector)
                    deviation = builder.fmul(root, builder.fsub(z, centre))
                    _store(builder, deviation, _at(builder, row, o))
                    builder.store(_fma(builder, root, deviation, builder.load(total)), total)
            for total, o in zip(sums, offsets, strict=False):
                _store(builder, builder.load(total), _at(builder, first_, o))

        n_units = builder.udiv(args[9], size)
        two, zero = ir.Constant(_I64, 2), ir.Constant(_I64, 0)
        with cgutils.for_range(builder, builder.udiv(n_units, two)) as pair:
            together(builder.mul(pair.index, two), 2)
        odd = builder.icmp_unsigned("!=", builder.urem(n_units, two), zero)
        with builder.if_then(odd):
            together(builder.sub(n_units, ir.Constant(_I64, 1)), 1)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def _place_square(
    typing: Any, X: Any, x: Any, d: Any, scale: Any, j: Any, Z: Any, z: Any, by: Any, columns: Any,
    c: Any, width: Any,
) -> Any:  # fmt: skip
    """Scaled numbers of a vector of rows and a vector of columns into Z and, turned, `columns`."""
    i = types.intp
    signature = types.void(X, i, i, scale, i, Z, i, i, columns, i, i)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _vector_type(context, sig.args[5])
        doubles = ir.VectorType(ir.DoubleType(), vector.count)
        X_, Z_, columns_ = (
            _pointer(context, builder, sig.args[k], args[k], args[k + 1]) for k in (0, 5, 8)
        )
        scale_ = _pointer(context, builder, sig.args[3], args[3], args[4])
        factor = _load(builder, scale_, doubles)
        rows = []
        for r in range(vector.count):
            number = ir.Constant(_I64, r)
            row = _at(builder, X_, builder.mul(number, args[2]))
            value = builder.fmul(_load(builder, row, doubles), factor)
            if vector.element != ir.DoubleType():
                value = builder.fptrunc(value, vector)
            _store(builder, value, _at(builder, Z_, builder.mul(number, args[7])))
            rows.append(value)
        left = builder.sub(args[2], args[4])
        for r, column in enumerate(_transposed(builder, rows)):
            number = ir.Constant(_I64, r)
            with builder.if_then(builder.icmp_signed("<", number, left)):
                _store(builder, column, _at(builder, columns_, builder.mul(number, args[10])))
        return context.get_dummy_value()

    return signature, codegen


# -- the loops around them -----------------------------------------------------------


@njit(**_JIT)
def place(shifted: Array, n_features: int, scale: Array, Z: Array, columns: Array) -> None:
    """Scale rows and lay them out twice.

    Parameters
    ----------
    shifted : (size,) float64 array
        Rows of `n_features` numbers, as many as `columns` takes, and a vector more.
    n_features : int
    scale : (D,) float64 array
        D a multiple of the lanes of Z's type.
    Z : (rows, D) array
        The rows; what stands in the columns beyond `n_features` means nothing.
    columns : (n_tiles, >= n_features, tile_columns) array
        The same by columns, in tiles of rows; columns beyond `n_features` stay.
    """
    n_tiles, n_columns, width = columns.shape
    d, D = n_features, Z.shape[1]
    vector = REGISTER_BYTES // Z.itemsize
    for t in range(n_tiles):
        for c in range(0, width, vector):
            r = t * width + c
            for j in range(0, D, vector):
                _place_square(
                    shifted, r * d + j, d, scale, j, Z, r * D + j, D, columns,
                    (t * n_columns + j) * width + c, width,
                )  # fmt: skip


@njit(**_JIT)
def subtract_distances(
    W: Array, m: Array, columns: Array, n_features: int, constant: Array, out: Array
) -> None:
    """Compute constant minus squared distance: out[k, r] = constant[k] - |W_k z_r - m_k|^2.

    Parameters
    ----------
    W : (k, size) array
        Lower triangular matrices, four rows at a time, each transposed (`pack_lower`).
    m : (k, D) array
        Minus the images of the means, D a multiple of four.
    columns : (n_tiles, >= n_features, tile_columns) array
        The rows z, by columns.
    n_features : int
    constant : (k,) array
    out : (k, n_tiles * tile_columns) array
    """
    n_tiles, d, width = columns.shape
    n_components, padded = m.shape
    for k in range(n_components):
        out[k, :] = constant[k]
        for t in range(n_tiles):
            w = k * W.shape[1]
            for i in range(0, padded, TILE_ROWS):
                n = min(i + TILE_ROWS, n_features)
                _subtract_squares(
                    W, w, columns, t * d * width, n, m, k * padded + i, out,
                    k * out.shape[1] + t * width,
                )  # fmt: skip
                w += n * TILE_ROWS


@njit(**_JIT)
def _add_lower(D: Array, n: int, n_features: int, scatter: Array, k: int) -> None:
    """scatter[k, i, j] += sum_t D[t, i] D[t, j] over n rows, in the tiles that reach j <= i."""
    width = D.shape[1]
    # Of a register: the diagonal wastes less, where half a register costs less than a whole.
    half = REGISTER_BYTES // D.itemsize // 2
    i = 0
    while i + 2 * TILE_ROWS <= 2 * half and i < n_features:
        s = (k * width + i) * width
        if i + 2 * TILE_ROWS <= half:
            _add_outer_1_tall(D, i, 0, width, n, scatter, s, width)
        else:
            _add_outer_2_tall(D, i, 0, width, n, scatter, s, width)
        i += 2 * TILE_ROWS
    while i < n_features:
        left = (i + TILE_ROWS + half - 1) // half
        s = (k * width + i) * width
        j = 0
        while left > 0:
            # Of eight halves, four and four wait less than six and two.
            size = 4 if left > 6 and left < 9 else min(left, 6)
            if size == 6:
                _add_outer_6(D, i, j, width, n, scatter, s + j, width)
            elif size == 5:
                _add_outer_5(D, i, j, width, n, scatter, s + j, width)
            elif size == 4:
                _add_outer_4(D, i, j, width, n, scatter, s + j, width)
            elif size == 3:
                _add_outer_3(D, i, j, width, n, scatter, s + j, width)
            elif size == 2:
                _add_outer_2(D, i, j, width, n, scatter, s + j, width)
            else:
                _add_outer_1(D, i, j, width, n, scatter, s + j, width)
            left -= size
            j += size * half
        i += TILE_ROWS


@njit(**_JIT)
def add_scatter(
    Z: Array, n_features: int, means: Array, resp: Array, rows: Array, roots: Array, D: Array,
    sums: Array, first: Array, scatter: Array,
) -> None:  # fmt: skip
    """Add the sums about each mean over the rows whose responsibility is not zero.

    Parameters
    ----------
    Z : (B, D) array
    n_features : int
        Columns that mean something.
    means : (k, D) array
    resp : (k, b) array
    rows, roots, D, sums : (B,) int64, (B,), (n, D), (D,) arrays
        Work; n rows are gathered at a time.
    first : (k, D) float64 array
        sum_n r_nk (z_n - mu_k) is added to it.
    scatter : (k, D, D) float64 array
        sum_n r_nk (z_n - mu_k)(z_n - mu_k)^T is added to it, in the lower triangle.
    """
    n_components, width = means.shape
    for k in range(n_components):
        n = 0
        for r in range(resp.shape[1]):
            rows[n] = r * width
            roots[n] = resp[k, r]
            n += resp[k, r] != 0
        for t in range(n):
            roots[t] = math.sqrt(roots[t])
        sums[:] = 0
        for start in range(0, n, D.shape[0]):
            size = min(D.shape[0], n - start)
            _deviations(Z, rows, roots, start, size, means, k * width, D, sums, width)
            _add_lower(D, size, n_features, scatter, k)
        for j in range(width):
            first[k, j] += sums[j]


@njit(**_JIT)
def count_nonzero(resp: Array) -> int:
    """Count the numbers of (k, b) that are not zero."""
    count = 0
    for k in range(resp.shape[0]):
        for r in range(resp.shape[1]):
            count += resp[k, r] != 0
    return count


@njit(**_JIT)
def linear(theta: Array, columns: Array, left: Array, right: Array, out: Array) -> None:
    """Compute out[k, r] = sum_f theta_k[f] z_r[left[f]] z_r[right[f]].

    Parameters
    ----------
    theta : (k * F,) array
        Coefficients in groups of `TALL_ROWS` components and then of four, each
        group (F, components); k a multiple of four (`pack_groups`).
    columns : (n_tiles, d, tile_columns) array
        The rows z, by columns.
    left, right : (>= F,) int64 arrays
        Offsets of the two factors of a feature in a tile of `columns`.
    out : (k, n_tiles * tile_columns) array
    """
    n_tiles, d, width = columns.shape
    n_components, stride = out.shape
    n_features = len(theta) // n_components
    for t in range(n_tiles):
        k = 0
        while k + TALL_ROWS <= n_components:
            _product_with_pairs_tall(
                theta, k * n_features, columns, t * d * width, left, right, n_features, out,
                k * stride + t * width, stride,
            )  # fmt: skip
            k += TALL_ROWS
        while k < n_components:
            _product_with_pairs_low(
                theta, k * n_features, columns, t * d * width, left, right, n_features, out,
                k * stride + t * width, stride,
            )  # fmt: skip
            k += TILE_ROWS


@njit(**_JIT)
def add_moments(
    resp: Array, columns: Array, left: Array, right: Array, step: int, sums: Array
) -> None:
    """Add sum_r resp[k, r] z_r[left[f]] z_r[right[f]] to sums[k // lanes, f, k % lanes].

    Parameters
    ----------
    resp : (k, n_tiles * tile_columns) array
        k a multiple of four; zero where there is no component or no row.
    columns : (n_tiles, d, tile_columns) array
        As in `linear`.
    left, right : (F,) int64 arrays
    step : int
        Tiles of rows that are summed before the next.
    sums : (>= k / lanes, F, lanes) float64 array
        F a multiple of three.
    """
    n_tiles, d, width = columns.shape
    n_components, stride = resp.shape
    n_features, vector = sums.shape[1:]
    for first in range(0, n_tiles, step):
        n = min(step, n_tiles - first)
        for k in range(0, n_components, TALL_ROWS):
            for f in range(0, n_features, TILE_VECTORS):
                if k + TALL_ROWS <= n_components:
                    _add_inner_with_pairs_tall(
                        resp, k * stride + first * width, stride, columns, first * d * width,
                        d * width, left, right, f, n, sums, k * n_features + f * vector,
                    )  # fmt: skip
                else:
                    _add_inner_with_pairs_low(
                        resp, k * stride + first * width, stride, columns, first * d * width,
                        d * width, left, right, f, n, sums, k * n_features + f * vector,
                    )  # fmt: skip
