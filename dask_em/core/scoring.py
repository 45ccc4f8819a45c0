"""TODO core.scoring."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.special import entr

from .additive import Additive, Array
from .engine import check_engine
from .family import blocks
from .finite import check_finite
from .mixture import Mixture
from .protocols import Fold, Pass
from .responsibilities import softmax_of


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
        check_finite(block, rows.start)
        kernel.load(block)
        log_joint = kernel.log_prob()
        log_joint += mixture.log_weights[:, None]
        yield rows, log_joint, normalize


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
            check_finite(X, 0)
            found: dict[str, Array] = self.mixture.array_kernel().answers(X, self.answers)
            return found
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
class Score(Pass[Scores]):
    """The description of a scoring pass."""

    mixture: Mixture

    def fold(self) -> ScoreFold:
        """The scores of one range, before its first chunk."""
        return ScoreFold(self.mixture)


class ScoreFold(Fold[Scores]):
    """Scores chunks of rows."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture = mixture
        self._scores = Scores(0, 0.0, 0.0)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d)."""
        if self.mixture.engine.device != "cpu":
            check_finite(X, 0)
            self._scores += Scores(len(X), *self.mixture.array_kernel().scores(X))
            return
        for _, log_joint, softmax in joint_blocks(self.mixture, X):
            resp, log_prob = softmax(log_joint)
            self._scores += Scores(len(log_prob), float(log_prob.sum()), float(entr(resp).sum()))

    def result(self) -> Scores:
        """Sums over the chunks given so far."""
        return self._scores
