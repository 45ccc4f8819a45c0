"""Loops of the E-step of Student's t, compiled by Numba."""

from __future__ import annotations

from typing import Any

from numba import njit

from ...core.additive import Array
from ...core.compiled import log

_JIT: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}

_FAR = 1e50


@njit(fastmath={"contract", "nsz"}, **_JIT)
def density(
    normal: Array, constant: Array, df: Array, level: Array, half: Array, distances: Array,
    logs: Array, out: Array,
) -> None:  # fmt: skip
    """Write distances, log(1 + delta/nu) and log-densities (k, b) of a Gaussian's log-densities."""
    n_components, b = normal.shape
    for k in range(n_components):
        inverse = 1.0 / df[k]
        for r in range(b):
            x = 2.0 * (constant[k] - normal[k, r])
            # NaN stays: it must be seen.
            x = 0.0 if x < 0.0 else x
            y = x * inverse
            z = 1.0 + y
            # What rounding took of y is put back into its logarithm.
            e = log(z) - ((z - 1.0) - y) / z
            distances[k, r] = x
            logs[k, r] = e
            out[k, r] = level[k] - half[k] * e


@njit(fastmath={"contract", "nsz", "reassoc"}, **_JIT)
def weigh(resp: Array, d: float, df: Array, distances: Array, logs: Array, sums: Array) -> None:
    """Add the sums under `resp` (k, b), and overwrite the distances by r u."""
    n_components, b = resp.shape
    for k in range(n_components):
        nu = df[k]
        rows, excess, total, first, second, third = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(b):
            r, x = resp[k, i], min(distances[k, i], _FAR)
            part = r * ((d - x) / (nu + x))
            rows += r
            excess += part
            total += r * logs[k, i]
            power = r * x
            first += power
            power *= x
            second += power
            third += power * x
            distances[k, i] = r + part
        sums[k, 0] += rows
        sums[k, 1] += excess
        sums[k, 2] += total
        sums[k, 3] += first
        sums[k, 4] += second
        sums[k, 5] += third
