"""Responsibilities of a block of rows: soft or hard, in the arrays of the kernel that made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from .additive import Array
from .engine import Engine
from .labels import log_restriction

Assignment = Literal["soft", "hard"]
"""Whether a row belongs to each component by its responsibility, or to the likeliest alone."""

# A responsibility below e^-60 adds less than one rounding error to any sum over
# fewer than 1e10 rows. It is set to exactly zero, so that its rows can be skipped.
NEGLIGIBLE = -60.0

UNDECIDED = -1
"""The label of a row whose likeliest component is a matter of rounding."""


@dataclass(frozen=True)
class ListedResponsibilities:
    """Hold the responsibilities of b rows that are not negligible, and log p(x).

    Attributes
    ----------
    starts, rows, values : (k + 1,), (pairs,), (pairs,) arrays
        Those of component k are values[starts[k] : starts[k + 1]], of the rows of these numbers.
    log_density : (b,) array

    Examples
    --------
    >>> listed = ListedResponsibilities(
    ...     np.array([0, 1, 3]), np.array([0, 0, 1]), np.array([0.5, 0.5, 1.0]), np.zeros(2)
    ... )
    >>> listed.dense().tolist(), listed.entropy().round(3).tolist()
    ([[0.5, 0.5], [0.0, 1.0]], [0.693, 0.0])
    """

    starts: Array
    rows: Array
    values: Array
    log_density: Array

    def dense(self) -> Array:
        """Return the responsibilities of all components, (b, k)."""
        k = len(self.starts) - 1
        found = np.zeros((len(self.log_density), k))
        found[self.rows, np.repeat(np.arange(k), np.diff(self.starts))] = self.values
        return found

    def entropy(self) -> Array:
        """Return -sum_k r_k log r_k of each row, in nats, (b,)."""
        # scipy takes longer to import than all that reads a model file.
        from scipy.special import entr

        return np.bincount(self.rows, entr(self.values), minlength=len(self.log_density))


class Arithmetic(Protocol):
    """Operations of the E-step on a block of log-densities (k, b).

    Arrays are the kernel's: NumPy's, or those of a device. Results for the driver are NumPy's.
    """

    def joint(self, log_prob: Array, log_weights: Array) -> Array:
        """Return log w_k + log p(x | k), (k, b); `log_prob` may be overwritten."""

    def normalize(self, log_prob: Array, log_weights: Array) -> tuple[Array, Array]:
        """Return responsibilities (k, b) and log p(x) (b,); `log_prob` may be overwritten."""

    def assign(self, log_prob: Array, log_weights: Array) -> tuple[Array, Array]:
        """Return 0 or 1 for the likeliest component (k, b), and its log w_k + log p(x | k) (b,)."""

    def with_row(self, log_prob: Array, value: float) -> Array:
        """Return log-densities (k + 1, b), of which the last row is one number."""

    def restrict(self, log_prob: Array, labels: Array) -> None:
        """Hold `log_prob` (k, b), in place, to labels (b,) or responsibilities (b, k)."""

    def weigh(self, resp: Array, weight: Array) -> Array:
        """Multiply responsibilities by the rows' weights (b,)."""

    def total(self, values: Array, weight: Array | None) -> float:
        """Return the weighted sum of one number a row, in float64."""

    def totals(self, resp: Array) -> Array:
        """Return the sums over rows, (k,) float64."""

    def argmax(self, log_joint: Array) -> Array:
        """Return the number of the likeliest component of each row, (b,)."""

    def likeliest(self, log_prob: Array, log_weights: Array) -> Array:
        """Return `argmax(joint(log_prob, log_weights))`, (b,); `log_prob` may be overwritten."""

    def fetch(self, values: Array) -> Array:
        """Return an array of the kernel as one of NumPy."""


def responsibilities(log_joint: Array, matters: Array | None = None) -> tuple[Array, Array]:
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


class NumpyArithmetic:
    """`Arithmetic` on NumPy's arrays, in place.

    Parameters
    ----------
    k, rows : int
        Components and rows of a block, at most.
    """

    def __init__(self, k: int, rows: int) -> None:
        self._matters = np.empty(k * rows, dtype=bool)

    def joint(self, log_prob: Array, log_weights: Array) -> Array:
        """Return log w_k + log p(x | k), (k, b), in `log_prob`, which is overwritten."""
        log_prob += log_weights[:, None]
        return log_prob

    def normalize(self, log_prob: Array, log_weights: Array) -> tuple[Array, Array]:
        """Return responsibilities (k, b), in `log_prob`, and log p(x) (b,)."""
        log_joint = self.joint(log_prob, log_weights)
        return responsibilities(log_joint, self._matters[: log_joint.size].reshape(log_joint.shape))

    def assign(self, log_prob: Array, log_weights: Array) -> tuple[Array, Array]:
        """Return 0 or 1 for the likeliest component (k, b), and its log w_k + log p(x | k) (b,)."""
        log_joint = self.joint(log_prob, log_weights)
        likeliest = log_joint.argmax(axis=0)
        rows = np.arange(log_joint.shape[1])
        largest = log_joint[likeliest, rows]
        log_joint[:] = 0.0
        log_joint[likeliest, rows] = 1.0
        return log_joint, largest

    def with_row(self, log_prob: Array, value: float) -> Array:
        """Return log-densities (k + 1, b), of which the last row is one number."""
        k, b = log_prob.shape
        found = np.empty((k + 1, b), log_prob.dtype)
        found[:k], found[k] = log_prob, value
        return found

    def restrict(self, log_prob: Array, labels: Array) -> None:
        """Hold `log_prob` (k, b), in place, to labels (b,) or responsibilities (b, k)."""
        if labels.ndim > 1:
            log_prob += log_restriction(labels, len(log_prob))
            return
        known = labels >= 0
        for k, row in enumerate(log_prob):
            row[known & (labels != k)] = -np.inf

    def weigh(self, resp: Array, weight: Array) -> Array:
        """Multiply responsibilities by the rows' weights (b,), in place."""
        resp *= weight
        return resp

    def total(self, values: Array, weight: Array | None) -> float:
        """Return the weighted sum of one number a row, in float64; `values` may be overwritten."""
        if weight is not None:
            values *= weight
        return float(values.sum(dtype=np.float64))

    def totals(self, resp: Array) -> Array:
        """Return the sums over rows, (k,) float64."""
        return np.asarray(resp.sum(axis=1, dtype=np.float64))

    def argmax(self, log_joint: Array) -> Array:
        """Return the number of the likeliest component of each row, (b,)."""
        return np.asarray(log_joint.argmax(axis=0))

    def likeliest(self, log_prob: Array, log_weights: Array) -> Array:
        """Return the number of the likeliest component of each row, (b,)."""
        return self.argmax(self.joint(log_prob, log_weights))

    def fetch(self, values: Array) -> Array:
        """Return the array itself, which is one of NumPy."""
        return values


class CompiledArithmetic(NumpyArithmetic):
    """`Arithmetic` whose exponentials are one compiled loop; results stay until the next call."""

    def __init__(self, k: int, rows: int) -> None:
        from .compiled import likeliest, softmax

        self._softmax, self._likeliest = softmax, likeliest
        self._buffers = {np.dtype(t): np.empty((2, rows), t) for t in (np.float64, np.float32)}

    def normalize(self, log_prob: Array, log_weights: Array) -> tuple[Array, Array]:
        """Return responsibilities (k, b), in `log_prob`, and log p(x) (b,) in a buffer."""
        found, work = self._buffers[log_prob.dtype][:, : log_prob.shape[1]]
        self._softmax(log_prob, log_weights, NEGLIGIBLE, found, work)
        return log_prob, found

    def likeliest(self, log_prob: Array, log_weights: Array) -> Array:
        """Return the number of the likeliest component of each row, (b,), in a buffer."""
        found, work = self._buffers[log_prob.dtype][:, : log_prob.shape[1]]
        labels = work.view(np.int32 if work.itemsize == 4 else np.int64)
        self._likeliest(log_prob, log_weights, found, labels)
        return np.asarray(labels)


def arithmetic_of(engine: Engine, k: int, rows: int) -> Arithmetic:
    """Return the engine's operations on NumPy's blocks of at most k components and `rows` rows."""
    return NumpyArithmetic(k, rows) if engine.name == "numpy" else CompiledArithmetic(k, rows)
