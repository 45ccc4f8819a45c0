"""Loops over components compiled by Numba: the softmax, with its exp and log, and the largest."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

from .additive import Array

_I64 = ir.IntType(64)

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


@intrinsic
def _times_power_of_two(typing: Any, value: Any, shifted: Any) -> Any:
    """Value times 2^n, where the last bits of the float `shifted` hold n."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = ir.IntType(sig.return_type.bitwidth)
        mantissa = ir.Constant(bits, 52 if bits.width == 64 else 23)
        exponent = builder.shl(builder.bitcast(args[1], bits), mantissa)
        return builder.bitcast(builder.add(builder.bitcast(args[0], bits), exponent), args[0].type)

    return value(value, shifted), codegen


@intrinsic
def _mantissa_exponent(typing: Any, x: Any) -> Any:
    """The m of [1, 2) and the whole n of x = m 2^n, both float64, for a normal x > 0."""

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        double = ir.DoubleType()
        bits = builder.bitcast(args[0], _I64)
        fraction = builder.and_(bits, ir.Constant(_I64, 2**52 - 1))
        mantissa = builder.or_(fraction, ir.Constant(_I64, 1023 << 52))
        # The bits of an integer below 2^52 are those of 2^52 plus it.
        exponent = builder.or_(
            builder.lshr(bits, ir.Constant(_I64, 52)), ir.Constant(_I64, (1023 + 52) << 52)
        )
        n = builder.fsub(builder.bitcast(exponent, double), ir.Constant(double, 2.0**52 + 1023))
        pair = [builder.bitcast(mantissa, double), n]
        return context.make_tuple(builder, sig.return_type, pair)

    return types.UniTuple(types.float64, 2)(types.float64), codegen


_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10

_FUSED: dict[str, Any] = {"inline": "always", "error_model": "numpy", "fastmath": {"contract"}}


@njit(**_FUSED)
def log(x: Any) -> Any:
    """Compute the logarithm of a normal x > 0: n log 2 + 2 artanh((m - 1) / (m + 1)), to 2 ulp."""
    m, n = _mantissa_exponent(x)
    large = m > math.sqrt(2)
    m = 0.5 * m if large else m
    n = n + 1.0 if large else n
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    z2 = z * z
    z4 = z2 * z2
    low = (1 / 3 + z * (1 / 5)) + (1 / 7 + z * (1 / 9)) * z2
    middle = (1 / 11 + z * (1 / 13)) + (1 / 15 + z * (1 / 17)) * z2
    high = (1 / 19 + z * (1 / 21)) + z2 * (1 / 23)
    tail = low + middle * z4 + high * (z4 * z4)
    return n * _LN2_HIGH + (2 * s + (2 * s * z * tail + n * _LN2_LOW))


def _exp(x: Any) -> Any:
    """e^x for x between -87 and 0, to 2 ulp: a polynomial times a power of two."""
    raise NotImplementedError("compiled code only")


def _overload_exp(dtype: Any, high: float, low: float) -> Callable[[Any], Any]:
    """`_exp` of one dtype; log 2 = high + low, where n * high is exact."""
    number = np.dtype(dtype).type
    # Adding this leaves the nearest integer in the last bits.
    to_integer = number(1.5 * 2.0 ** np.finfo(dtype).nmant)
    per_log2 = number(1 / math.log(2))
    ln2_high, ln2_low = number(high), number(low)
    c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13 = (
        number(1 / math.factorial(j)) for j in range(14)
    )
    # Taylor's polynomial within log(2)/2 of zero: degree 13 in float64, 7 in float32.
    long = number is np.float64

    def exp(x: Any) -> Any:
        shifted = x * per_log2 + to_integer
        n = shifted - to_integer
        r = (x - n * ln2_high) - n * ln2_low
        r2 = r * r
        r4 = r2 * r2
        # Estrin's scheme: a chain of multiply-adds would wait for itself.
        p = ((c0 + c1 * r) + (c2 + c3 * r) * r2) + ((c4 + c5 * r) + (c6 + c7 * r) * r2) * r4
        if long:
            tail = ((c8 + c9 * r) + (c10 + c11 * r) * r2) + (c12 + c13 * r) * r4
            p = p + tail * (r4 * r4)
        return _times_power_of_two(p, shifted)

    return exp


_EXP = {
    types.float64: _overload_exp(np.float64, _LN2_HIGH, _LN2_LOW),
    types.float32: _overload_exp(np.float32, 0.693359375, -2.12194440e-4),
}


@overload(_exp, inline="always", jit_options={"error_model": "numpy", "fastmath": {"contract"}})
def _exp_of(x: Any) -> Callable[[Any], Any]:
    return _EXP[x]


@njit(fastmath={"contract", "nsz"}, **_JIT)
def _softmax(
    log_joint: Array, log_weights: Array, negligible: Any, log_prob: Array, total: Array
) -> None:
    n_components, b = log_joint.shape
    number = log_joint.dtype.type
    zero, one = number(0), number(1)
    for k in range(n_components):
        log_weight = number(log_weights[k])
        if k == 0:
            for r in range(b):
                log_joint[0, r] += log_weight
                log_prob[r] = log_joint[0, r]
                total[r] = zero
        for r in range(b if k else 0):
            x = log_joint[k, r] + log_weight
            log_joint[k, r] = x
            # NaN stays: it must be seen, not replaced.
            log_prob[r] = log_prob[r] if x <= log_prob[r] else x
    for k in range(n_components):
        for r in range(b):
            x = log_joint[k, r] - log_prob[r]
            e = _exp(max(x, negligible))
            e = zero if x < negligible else e
            log_joint[k, r] = e
            total[r] += e
    for r in range(b):
        log_prob[r] += number(log(np.float64(total[r])))
        total[r] = one / total[r]
    for k in range(n_components):
        for r in range(b):
            log_joint[k, r] *= total[r]


def softmax(
    log_joint: Array, log_weights: Array, negligible: float, log_prob: Array, work: Array
) -> None:
    """Add log weights (k,), turn log_joint (k, b) into responsibilities in place, log p(x) (b,).

    What is below the largest by more than `negligible` becomes exactly zero. `work` is (b,).
    """
    _softmax(log_joint, log_weights, log_joint.dtype.type(negligible), log_prob, work)


@njit(**_JIT)
def likeliest(log_prob: Array, log_weights: Array, best: Array, labels: Array) -> None:
    """Find the first k of the largest log_prob (k, b) plus log weight (k,) of each row.

    The sums are those that NumPy rounds in place, and NaN is larger than any number, as to its
    `argmax`. `best` and `labels` are (b,), of numbers and integers of the same width.
    """
    n_components, b = log_prob.shape
    number = log_prob.dtype.type
    for k in range(n_components):
        log_weight = log_weights[k]
        for r in range(b):
            x = number(np.float64(log_prob[k, r]) + log_weight)
            old = best[r]
            better = (k == 0) | (x > old) | ((x != x) & (old == old))
            best[r] = x if better else old
            labels[r] = k if better else labels[r]
