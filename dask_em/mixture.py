"""A mixture of K components: its E-step and its M-step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr

from .errors import DataError
from .families.arrays import ArrayEStep, ArrayKernel, namespace
from .families.base import NEGLIGIBLE, NUMPY, Engine, Family, blocks, check_engine
from .statistics import Additive, Array, Fold


@dataclass(frozen=True)
class MixtureStatistics(Additive):
    """Everything that one pass over the data at fixed parameters tells.

    Attributes
    ----------
    n_rows : int
        Rows seen, those of weight zero included.
    weight : float
        Sum of the sample weights; `n_rows` where there are none.
    log_likelihood : float
        sum_n w_n log p(x_n), in nats.
    resp_sum : (k,) array
        sum_n w_n r_nk.
    components : Additive
        The family's sufficient statistics.
    """

    n_rows: int
    weight: float
    log_likelihood: float
    resp_sum: Array
    components: Any

    @property
    def mean_log_likelihood(self) -> float:
        """Log-likelihood per unit of weight."""
        return self.log_likelihood / self.weight


@dataclass(frozen=True)
class Mixture:
    """The density p(x) = sum_k w_k p(x | component k).

    Attributes
    ----------
    log_weights : (k,) array
    components : Family
    engine : Engine
        What computes; it travels with the parameters.
    """

    log_weights: Array
    components: Any
    engine: Engine = NUMPY

    @property
    def weights(self) -> Array:
        """Mixing weights (k,), which sum to one."""
        return np.exp(self.log_weights)

    @property
    def n_parameters(self) -> int:
        """Free parameters: the family's, and the weights but one."""
        return int(self.components.n_parameters) + len(self.log_weights) - 1

    def __sizeof__(self) -> int:
        # Schedulers ask this before they move the parameters of a pass.
        return int(object.__sizeof__(self) + self.log_weights.nbytes + self.components.nbytes)

    @property
    def rounding(self) -> float:
        """The share of itself by which the log-likelihood may fall from rounding alone."""
        return 1e-6 if self.engine.single else 1e-9

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return int(self.components.statistics_bytes + self.log_weights.nbytes)

    def fold(self) -> Fold[MixtureStatistics]:
        """The E-step of one range of chunks, before its first chunk."""
        if self.engine.device == "cpu":
            return EStep(self)
        return ArrayEStep(
            self.components,
            self.log_weights,
            self.engine.device,
            MixtureStatistics,
            single=self.engine.single,
        )

    @property
    def joins(self) -> Hashable:
        """What mixtures have in common that can share a `JointEStep`; None if it stays alone."""
        joins = None if self.engine.device != "cpu" else self.components.joins(self.engine)
        return None if joins is None else (self.engine, joins)

    def array_kernel(self) -> ArrayKernel:
        """The kernel of a device other than the CPU."""
        return ArrayKernel(self.components, self.log_weights, namespace(self.engine.device))

    def log_joint(self, X: Array) -> Array:
        """log w_k + log p(x_n | k), (n, k)."""
        return np.asarray(self.components.log_prob(X) + self.log_weights)

    def m_step(self, statistics: MixtureStatistics) -> tuple[Self, tuple[int, ...]]:
        """The mixture that maximizes the expected log-likelihood, and the collapsed components."""
        components, collapsed = self.components.maximize(statistics.resp_sum, statistics.components)
        floor = np.finfo(np.float64).tiny
        weights = np.maximum(statistics.resp_sum / statistics.resp_sum.sum(), floor)
        return replace(self, log_weights=np.log(weights), components=components), tuple(collapsed)


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
    from .families.simd import softmax

    buffers = {np.dtype(t): np.empty((2, rows), t) for t in (np.float64, np.float32)}

    def by_numba(log_joint: Array, log_weights: Array) -> tuple[Array, Array]:
        log_prob, work = buffers[log_joint.dtype][:, : log_joint.shape[1]]
        softmax(log_joint, log_weights, NEGLIGIBLE, log_prob, work)
        return log_joint, log_prob

    return by_numba


class JointEStep:
    """Sums the sufficient statistics of mixtures over chunks of rows.

    The components of all mixtures are one to the kernel, which so makes what it needs of a
    row, and each product, once for all of them; only responsibilities are made apart.

    Parameters
    ----------
    mixtures : sequence of Mixture
        One, or some whose families can be `joined`.
    """

    def __init__(self, mixtures: Sequence[Mixture]) -> None:
        self.mixtures = mixtures
        first = mixtures[0]
        check_engine(first.engine)
        families = [mixture.components for mixture in mixtures]
        family = families[0] if len(families) == 1 else first.components.joined(families)
        self.kernel = family.kernel(first.engine)
        sizes = [len(mixture.log_weights) for mixture in mixtures]
        ends = np.cumsum(sizes)
        self._parts = [slice(end - k, end) for k, end in zip(sizes, ends, strict=True)]
        # Chunks may come in parts of whole blocks: the sums are the same to the bit.
        self.block_rows = self.kernel.block_rows
        self._softmax = [softmax_of(first.engine, k, self.block_rows) for k in sizes]
        self._n_rows = 0
        self._weight = 0.0
        self._log_likelihoods = np.zeros(len(mixtures))
        self._resp_sum = np.zeros(ends[-1])

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        for rows in blocks(len(X), self.block_rows):
            block, weight = X[rows], None if sample_weight is None else sample_weight[rows]
            self._n_rows += len(block)
            if weight is not None and not weight.all():
                # A row of weight zero is a row left out, whatever it holds.
                block, weight = block[weight > 0], weight[weight > 0]
            b = len(block)
            if b == 0:
                continue
            self.kernel.load(block)
            resp = self.kernel.log_prob()
            for i, mixture in enumerate(self.mixtures):
                _, log_prob = self._softmax[i](resp[self._parts[i]], mixture.log_weights)
                if weight is not None:
                    log_prob *= weight
                self._log_likelihoods[i] += float(log_prob.sum(dtype=np.float64))
            if weight is None:
                self._weight += b
            else:
                resp *= weight
                self._weight += float(weight.sum())
            self.kernel.accumulate(resp)
            self._resp_sum += resp.sum(axis=1, dtype=np.float64)

    def results(self) -> list[MixtureStatistics]:
        """Sums of each mixture over all chunks given so far."""
        sums = self.kernel.statistics()
        apart = [sums] if len(self._parts) == 1 else [sums.part(part) for part in self._parts]
        return [
            MixtureStatistics(
                self._n_rows, self._weight, float(value), self._resp_sum[part].copy(), own
            )
            for value, part, own in zip(self._log_likelihoods, self._parts, apart, strict=True)
        ]


class EStep(JointEStep):
    """Sums a mixture's sufficient statistics over chunks of rows."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__((mixture,))

    def result(self) -> MixtureStatistics:
        """Sums over all chunks given so far."""
        (found,) = self.results()
        return found


def joint_blocks(
    mixture: Mixture, X: Array
) -> Iterator[tuple[slice, Array, Callable[[Array], tuple[Array, Array]]]]:
    """Blocks of rows of X with their log w_k + log p(x_n | k), (k, b), in one buffer.

    With each comes the function that turns it into responsibilities.

    Raises
    ------
    DataError
        A row holds NaN or infinity, for which there is no answer.
    """
    check_engine(mixture.engine)
    kernel = mixture.components.kernel(mixture.engine)
    k = len(mixture.log_weights)
    softmax = softmax_of(mixture.engine, k, kernel.block_rows)
    nothing = np.zeros(k)

    def normalize(log_joint: Array) -> tuple[Array, Array]:
        return softmax(log_joint, nothing)

    for rows in blocks(len(X), kernel.block_rows):
        block = X[rows]
        _check_finite(block, rows.start)
        kernel.load(block)
        log_joint = kernel.log_prob()
        log_joint += mixture.log_weights[:, None]
        yield rows, log_joint, normalize


def _check_finite(block: Array, start: int) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(block.sum(dtype=np.float64)):
            return
    first = first_not_finite(block)
    if first is not None:
        what, row, column = first
        raise DataError(
            f"X contains {what} at row {start + row} of its chunk, column {column}: "
            "drop or fill such rows first"
        )


def first_not_finite(X: Array) -> tuple[str, int, int] | None:
    """What the first number of X (n, d) is that is not finite, its row and its column."""
    bad = ~np.isfinite(X)
    if not bad.any():
        return None
    row, column = (int(i) for i in np.argwhere(bad)[0])
    return "NaN" if np.isnan(X[row, column]) else "infinity", row, column


Answer = Literal["labels", "proba", "log_density"]


def answer_dtype(answer: Answer) -> np.dtype[Any]:
    """Type of an answer."""
    return np.dtype(np.int64 if answer == "labels" else np.float64)


@dataclass(frozen=True)
class Predict:
    """Answers for each row: the function that predictions map over chunks.

    Attributes
    ----------
    mixture : Mixture
    answers : tuple of {"labels", "proba", "log_density"}
        The most likely component (n,), the responsibilities (n, k), or log p(x) (n,).
    """

    mixture: Mixture
    answers: tuple[Answer, ...]

    def __call__(self, X: Array) -> dict[str, Array]:
        """Answers for the rows X (n, d), in the rows' order."""
        if self.mixture.engine.device != "cpu":
            _check_finite(X, 0)
            return self.mixture.array_kernel().answers(X, self.answers)
        shapes = {"proba": (len(X), len(self.mixture.log_weights))}
        out: dict[str, Array] = {
            a: np.empty(shapes.get(a, (len(X),)), dtype=answer_dtype(a)) for a in self.answers
        }
        for rows, log_joint, softmax in joint_blocks(self.mixture, X):
            if "labels" in out:
                out["labels"][rows] = log_joint.argmax(axis=0)
            if len(out) > 1 or "labels" not in out:
                resp, log_prob = softmax(log_joint)
                if "proba" in out:
                    out["proba"][rows] = resp.T
                if "log_density" in out:
                    out["log_density"][rows] = log_prob
        return out


@dataclass(frozen=True)
class Scores(Additive):
    """How well a mixture describes rows.

    Attributes
    ----------
    n_rows : int
    log_likelihood : float
        sum_n log p(x_n), in nats.
    entropy : float
        -sum_nk r_nk log r_nk: zero where every row clearly belongs to one component.
    """

    n_rows: int
    log_likelihood: float
    entropy: float


@dataclass(frozen=True)
class Score:
    """The description of a scoring pass."""

    mixture: Mixture

    def fold(self) -> ScoreFold:
        """The scores of one range, before its first chunk."""
        return ScoreFold(self.mixture)


class ScoreFold:
    """Scores chunks of rows."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self._scores = Scores(0, 0.0, 0.0)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d)."""
        if self.mixture.engine.device != "cpu":
            _check_finite(X, 0)
            self._scores += Scores(len(X), *self.mixture.array_kernel().scores(X))
            return
        for _, log_joint, softmax in joint_blocks(self.mixture, X):
            resp, log_prob = softmax(log_joint)
            self._scores += Scores(len(log_prob), float(log_prob.sum()), float(entr(resp).sum()))

    def result(self) -> Scores:
        """Sums over the chunks given so far."""
        return self._scores


__all__ = [
    "Answer",
    "EStep",
    "Family",
    "Mixture",
    "MixtureStatistics",
    "Predict",
    "Score",
    "Scores",
    "answer_dtype",
    "responsibilities",
]
