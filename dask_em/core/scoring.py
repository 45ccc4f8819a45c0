"""Answers for rows, and how well a mixture describes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import NonFiniteError
from .additive import Additive, Array
from .engine import check_engine
from .family import Kernel, blocks
from .mixture import Mixture
from .protocols import Fold, Pass
from .responsibilities import UNDECIDED, Arithmetic

Numbers = slice | Array
"""Which rows of a chunk: neighbours, or those of some numbers."""

AtOnce = Callable[[Kernel[Any], Array, Numbers], Array | None]
"""Answer for a part of a chunk, of these numbers, by a kernel that divides rows itself.

Return which of the rows are left for blocks, (b,) of bool; None for all.
"""


def joint_blocks(
    mixture: Mixture, X: Array, kept: Array | None = None, at_once: AtOnce | None = None
) -> Iterator[tuple[Numbers, Array, Arithmetic]]:
    """Yield blocks of rows of X with their log w_k + log p(x_n | k), (p, b), in one buffer.

    Noise, where the mixture has some, is the last of its p parts.

    With each come the operations that turn it into responsibilities. See `loaded_blocks`.
    """
    for numbers, kernel, arithmetic in loaded_blocks(mixture, X, kept, at_once):
        log_prob = mixture.log_densities(arithmetic, kernel.log_prob())
        yield numbers, arithmetic.joint(log_prob, mixture.log_prior), arithmetic


def loaded_blocks(
    mixture: Mixture, X: Array, kept: Array | None = None, at_once: AtOnce | None = None
) -> Iterator[tuple[Numbers, Kernel[Any], Arithmetic]]:
    """Yield blocks of rows of X, each loaded by the one kernel that comes with it.

    With each come the operations that turn it into responsibilities.

    Parameters
    ----------
    mixture : Mixture
    X : (n, d) array
    kept : (n,) array of bool, optional
        The other rows are left out.
    at_once : callable, optional
        What answers for parts of X where the kernel divides rows itself and there is no noise; rows
        that it answers for are left out.

    Raises
    ------
    NonFiniteError
        A row that is kept holds NaN, infinity, or what the family does not describe: for it
        there is no answer.
    """
    check_engine(mixture.engine)
    kernel, support = mixture.components.kernel(mixture.engine), mixture.components.support
    arithmetic = kernel.arithmetic(mixture.engine, mixture.n_parts)
    worth = kernel.divides and len(X) >= kernel.least_answered
    if not worth or mixture.noise_box is not None:
        at_once = None
    for rows in kernel.blocks(X) if at_once is None else blocks(len(X), kernel.part_rows):
        numbers = _some(rows, None if kept is None else kept[rows])
        part = X[numbers]
        if len(part) == 0:
            continue
        try:
            support.check(part, range(len(X))[numbers] if isinstance(numbers, slice) else numbers)
        except NonFiniteError as e:
            raise e.advised(mixture.components.of_missing) from None
        if at_once is None:
            kernel.load(part)
            yield numbers, kernel, arithmetic
            continue
        left = at_once(kernel, part, numbers)
        for block in kernel.blocks(part):
            some = _some(block, None if left is None else left[block])
            if len(part[some]) == 0:
                continue
            kernel.load(part[some])
            yield _nested(numbers, some), kernel, arithmetic


def _some(rows: slice, kept: Array | None) -> Numbers:
    """Return the numbers of the rows that are kept; None for all."""
    return rows if kept is None or kept.all() else rows.start + np.flatnonzero(kept)


def _nested(numbers: Numbers, some: Numbers) -> Numbers:
    """Return the numbers of some of the rows of these numbers."""
    if isinstance(numbers, np.ndarray):
        return np.asarray(numbers[some])
    if isinstance(some, np.ndarray):
        return np.asarray(numbers.start + some)
    return slice(numbers.start + some.start, numbers.start + some.stop)


INT64, FLOAT64 = np.dtype(np.int64), np.dtype(np.float64)

Answer = Literal["labels", "proba", "log_density", "log_prob", "entropy"]

# Of these there is one number for each component.
BY_COMPONENT: tuple[Answer, ...] = ("proba", "log_prob")

NO_LABEL = -1
"""The label of a row without an answer; its other answers are NaN."""

NOISE_LABEL = -1
"""The label of a row that is noise."""

NO_LABEL_BESIDE_NOISE = -2
"""The label of a row without an answer where a mixture has noise."""


def n_unanswered(answers: Mapping[str, Array], no_label: int = NO_LABEL) -> int:
    """Count the rows without answers, whose label is `no_label`.

    Examples
    --------
    >>> n_unanswered({"labels": np.array([0, NO_LABEL])})
    1
    """
    name, found = next(iter(answers.items()))
    first = found if found.ndim == 1 else found[:, 0]
    return int((first == no_label if name == "labels" else np.isnan(first)).sum())


class RowAnswers(Protocol):
    """Answer something about each row; picklable, and mapped over chunks."""

    @property
    def mixture(self) -> Mixture:
        """The mixture that is asked."""

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the answers."""

    @property
    def no_label(self) -> int:
        """The label of a row without an answer."""

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of an answer."""

    def width(self, answer: str) -> int | None:
        """Return how many numbers an answer has for each row; None for one, (n,)."""

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the answers for the rows X (n, d), in the rows' order."""


Out = Mapping[str, tuple[Array, Numbers]]
"""Answers for a chunk, and which of its rows are asked for."""


def _put(out: Out, name: Answer, values: Array) -> None:
    whole, rows = out[name]
    whole[rows] = values


@dataclass(frozen=True)
class Predict:
    """Answer questions about each row: the function that predictions map over chunks.

    Attributes
    ----------
    mixture : Mixture
    answers : tuple of {"labels", "proba", "log_density", "log_prob", "entropy"}
        The most likely component (n,), the responsibilities (n, k), log p(x) (n,),
        log w_k + log p(x | k) (n, k), or the entropy of the responsibilities in nats (n,). Of a
        hard assignment responsibilities are 0 or 1, and log p(x) is the largest of log_prob. Noise
        has the label `NOISE_LABEL`, and a column behind those of the components.
    drop : bool
        Give rows of NaN, infinity, or what the family does not describe no answer, which is
        `no_label` or NaN; else they are an error.
    labels, reals : dtype
        Types of the answers: of labels, and of all others, which are computed in float64.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> mixture = Mixture(np.log([0.25, 0.75]), GaussianOptions().of_data(Moments.unit(1), 2))
    >>> answers = Predict(mixture, ("labels", "proba"))(np.array([[0.0], [2.0]]))
    >>> answers["labels"].tolist(), answers["proba"].round(3).tolist()
    ([1, 1], [[0.25, 0.75], [0.25, 0.75]])
    >>> Predict(mixture, ("proba",), reals=np.dtype(np.float32)).dtype("proba")
    dtype('float32')
    """

    mixture: Mixture
    answers: tuple[Answer, ...]
    drop: bool = False
    labels: np.dtype[Any] = INT64
    reals: np.dtype[Any] = FLOAT64

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of an answer."""
        return self.labels if answer == "labels" else self.reals

    def width(self, answer: str) -> int | None:
        """Return how many numbers an answer has for each row; None for one."""
        return self.mixture.n_parts if answer in BY_COMPONENT else None

    @property
    def no_label(self) -> int:
        """The label of a row without an answer."""
        return NO_LABEL if self.mixture.noise_box is None else NO_LABEL_BESIDE_NOISE

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the answers for the rows X (n, d), in the rows' order."""
        shapes = dict.fromkeys(BY_COMPONENT, (len(X), self.mixture.n_parts))
        out: dict[str, Array] = {
            a: np.empty(shapes.get(a, (len(X),)), self.dtype(a)) for a in self.answers
        }
        kept = self.mixture.components.support.kept(X) if self.drop else None
        if kept is not None:
            for name, values in out.items():
                values[~kept] = self.no_label if name == "labels" else np.nan

        def at_once(kernel: Kernel[Any], part: Array, rows: Numbers) -> Array | None:
            return self._answer_part(kernel, part, {name: (out[name], rows) for name in out})

        for rows, kernel, arithmetic in loaded_blocks(self.mixture, X, kept, at_once):
            self._answer(kernel, arithmetic, {name: (out[name], rows) for name in out})
        return out

    def _answer_part(self, kernel: Kernel[Any], part: Array, out: Out) -> Array | None:
        """Answer for rows that the kernel divides itself; return which are left, None for all."""
        prior, left = self.mixture.log_prior, np.zeros(len(part), bool)
        others = out.keys() - {"labels"}
        if others and (self.mixture.assignment == "hard" or "log_prob" in out):
            return None
        if "labels" in out:
            labels = kernel.label(part, prior)
            if labels is None:
                return None
            _put(out, "labels", labels)
            left = labels == UNDECIDED
        resp = kernel.divide(part, prior) if others else None
        if resp is None:
            return None if others else left
        if "proba" in out:
            _put(out, "proba", resp.dense())
        if "entropy" in out:
            _put(out, "entropy", resp.entropy())
        if "log_density" in out:
            _put(out, "log_density", resp.log_density)
        return left

    def _answer(
        self,
        kernel: Kernel[Any],
        arithmetic: Arithmetic,
        out: Out,
    ) -> None:
        """Answer for the block that the kernel has loaded, whose rows have these numbers."""
        prior = self.mixture.log_prior
        if out.keys() == {"labels"}:
            _put(out, "labels", self._likeliest(kernel, arithmetic, prior))
            return
        log_prob = self.mixture.log_densities(arithmetic, kernel.log_prob())
        log_joint = arithmetic.joint(log_prob, prior)
        if "labels" in out:
            _put(out, "labels", self._labels(arithmetic.argmax(log_joint)))
        if "log_prob" in out:
            _put(out, "log_prob", arithmetic.fetch(log_joint).T)
        if out.keys() & {"proba", "log_density", "entropy"}:
            resp, log_density = self.mixture.divide(arithmetic, log_joint, np.zeros_like(prior))
            if "proba" in out:
                _put(out, "proba", arithmetic.fetch(resp).T)
            if "entropy" in out:
                # scipy takes longer to import than all that reads a model file.
                from scipy.special import entr

                _put(out, "entropy", entr(arithmetic.fetch(resp)).sum(axis=0))
            if "log_density" in out:
                _put(out, "log_density", arithmetic.fetch(log_density))

    def _likeliest(self, kernel: Kernel[Any], arithmetic: Arithmetic, prior: Array) -> Array:
        """Return the labels of the block, for which nobody needs responsibilities."""
        hard = self.mixture.assignment == "hard"
        if hard and (labels := kernel.assign(prior)) is not None:
            return labels
        log_prob = self.mixture.log_densities(arithmetic, kernel.log_prob())
        return self._labels(arithmetic.likeliest(log_prob, prior))

    def _labels(self, parts: Array) -> Array:
        """Return the labels of rows whose likeliest parts of the mixture have these numbers."""
        k = len(self.mixture.log_weights)
        return parts if self.mixture.n_parts == k else np.where(parts < k, parts, NOISE_LABEL)


@dataclass(frozen=True)
class SeveralAnswers:
    """Give the answers of several functions of rows at once.

    Attributes
    ----------
    ways : tuple of RowAnswers
        Of one mixture; no two of them have an answer in common.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> mixture = Mixture(np.zeros(1), GaussianOptions().of_data(Moments.unit(1), 1))
    >>> both = SeveralAnswers((Predict(mixture, ("labels",)), Predict(mixture, ("entropy",))))
    >>> both.answers, sorted(both(np.zeros((1, 1))))
    (('labels', 'entropy'), ['entropy', 'labels'])
    """

    ways: tuple[RowAnswers, ...]

    @property
    def mixture(self) -> Mixture:
        """The mixture that is asked."""
        return self.ways[0].mixture

    @property
    def answers(self) -> tuple[str, ...]:
        """Names of the answers of all."""
        return tuple(answer for way in self.ways for answer in way.answers)

    @property
    def no_label(self) -> int:
        """The label of a row without an answer."""
        return self.ways[0].no_label

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of an answer."""
        return self._way(answer).dtype(answer)

    def width(self, answer: str) -> int | None:
        """Return how many numbers an answer has for each row; None for one."""
        return self._way(answer).width(answer)

    def _way(self, answer: str) -> RowAnswers:
        return next(way for way in self.ways if answer in way.answers)

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the answers for the rows X (n, d), in the rows' order."""
        return {name: values for way in self.ways for name, values in way(X).items()}


@dataclass(frozen=True)
class Scores(Additive):
    """Hold sums that tell how well a mixture describes rows.

    Attributes
    ----------
    n_rows : int
        Rows seen, those of weight zero included.
    weight : float
        Sum of the sample weights; `n_rows` where there are none. This and everything below is
        without rows whose weight is negative, NaN or infinite.
    log_likelihood : float
        sum_n w_n log p(x_n), in nats.
    entropy : float
        -sum_nk w_n r_nk log r_nk: zero where every row clearly belongs to one component.

    Examples
    --------
    >>> Scores(1, 1.0, -2.0, 0.0) + Scores(2, 4.0, -3.0, 0.5)
    Scores(n_rows=3, weight=5.0, log_likelihood=-5.0, entropy=0.5)
    """

    n_rows: int
    weight: float
    log_likelihood: float
    entropy: float


@dataclass(frozen=True)
class Score(Pass[Scores]):
    """The description of a scoring pass.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> fold = Score(Mixture(np.zeros(1), GaussianOptions().of_data(Moments.unit(1), 1))).fold()
    >>> fold.update(0, np.array([[0.0], [2.0]]), None)
    >>> fold.result().n_rows, round(fold.result().log_likelihood, 3)
    (2, -3.838)
    """

    mixture: Mixture

    def fold(self) -> ScoreFold:
        """Return the fold of one range, before its first chunk."""
        return ScoreFold(self.mixture)


class ScoreFold(Fold[Scores]):
    """Score chunks of rows."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self._scores = Scores(0, 0.0, 0.0, 0.0)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        # scipy takes longer to import than all that reads a model file.
        from scipy.special import entr

        kept = None
        if sample_weight is not None:
            # A row of weight zero is a row left out, whatever it holds.
            kept = (sample_weight > 0) & np.isfinite(sample_weight)
        self._scores += Scores(len(X), 0.0, 0.0, 0.0)
        nothing = np.zeros(self.mixture.n_parts)

        def add(rows: Numbers, log_density: Array, unclear: Array) -> None:
            weight = float(len(log_density))
            if sample_weight is not None:
                weights = sample_weight[rows]
                weight, log_density, unclear = (
                    weights.sum(),
                    log_density * weights,
                    unclear * weights,
                )
            self._scores += Scores(0, float(weight), float(log_density.sum()), float(unclear.sum()))

        def at_once(kernel: Kernel[Any], part: Array, rows: Numbers) -> Array | None:
            resp = kernel.divide(part, self.mixture.log_prior)
            if resp is None:
                return None
            add(rows, resp.log_density, resp.entropy())
            return np.zeros(len(part), bool)

        soft = self.mixture.assignment == "soft"
        ways = joint_blocks(self.mixture, X, kept, at_once if soft else None)
        for rows, log_joint, arithmetic in ways:
            divided = self.mixture.divide(arithmetic, log_joint, nothing)
            resp, log_density = map(arithmetic.fetch, divided)
            add(rows, log_density, entr(resp))

    def result(self) -> Scores:
        """Return the sums over the chunks given so far."""
        return self._scores
