"""TODO core.responsibilities."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .additive import Array
from .engine import Engine


def responsibilities(
    log_joint: Array, matters: NDArray[np.bool_] | None = None
) -> tuple[Array, Array]:
    """Turn log_joint (k, b) into responsibilities in place; return them and log p(x) (b,).

    The largest term is taken out before the exponential, so nothing overflows
    and at least one responsibility is not zero. `matters` is a work array (k, b).
    """
    largest = log_joint.max(axis=0)
    log_joint -= largest
    np.exp(log_joint, out=log_joint, where=np.greater(log_joint, NEGLIGIBLE, out=matters))
    # What was left out is still a negative logarithm.
    np.maximum(log_joint, 0.0, out=log_joint)
    total = log_joint.sum(axis=0)
    log_joint *= 1 / total
    return log_joint, largest + np.log(total)


# Log-densities (k, b), and log weights (k,) to add -> responsibilities and log p(x) (b,).
Softmax = Callable[[Array, Array], tuple[Array, Array]]


def softmax_of(engine: Engine, k: int, rows: int) -> Softmax:
    """What adds log weights and makes `responsibilities`, for blocks of at most `rows` rows.

    What it returns lies in the given array and stays until the next call.
    """
    if engine.name == "numpy":
        matters = np.empty(k * rows, dtype=bool)

        def by_numpy(log_joint: Array, log_weights: Array) -> tuple[Array, Array]:
            log_joint += log_weights[:, None]
            return responsibilities(log_joint, matters[: log_joint.size].reshape(log_joint.shape))

        return by_numpy
    from .simd import softmax

    buffers = {np.dtype(t): np.empty((2, rows), t) for t in (np.float64, np.float32)}

    def by_numba(log_joint: Array, log_weights: Array) -> tuple[Array, Array]:
        log_prob, work = buffers[log_joint.dtype][:, : log_joint.shape[1]]
        softmax(log_joint, log_weights, NEGLIGIBLE, log_prob, work)
        return log_joint, log_prob

    return by_numba


# A responsibility below e^-60 adds less than one rounding error to any sum over
# fewer than 1e10 rows. It is set to exactly zero, so that its rows can be skipped.
NEGLIGIBLE = -60.0
