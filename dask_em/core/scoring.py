"""Answers for rows, and how well a mixture describes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .additive import Additive, Array
from .engine import check_engine
from .family import blocks
from .finite import check_finite
from .mixture import Mixture
from .protocols import Fold, Pass
from .responsibilities import Arithmetic


def joint_blocks(mixture: Mixture, X: Array) -> Iterator[tuple[slice, Array, Arithmetic]]:
    """Yield blocks of rows of X with their log w_k + log p(x_n | k), (k, b), in one buffer.

    With each come the operations that turn it into responsibilities.

    Raises
    ------
    DataError
        A row holds NaN or infinity, for which there is no answer.
    """
    check_engine(mixture.engine)
    kernel = mixture.components.kernel(mixture.engine)
    arithmetic = kernel.arithmetic(mixture.engine, len(mixture.log_weights))
    for rows in blocks(len(X), kernel.block_rows):
        block = X[rows]
        check_finite(block, rows.start)
        kernel.load(block)
        yield rows, arithmetic.joint(kernel.log_prob(), mixture.log_weights), arithmetic


Answer = Literal["labels", "proba", "log_density"]


def answer_dtype(answer: Answer) -> np.dtype[Any]:
    """Type of an answer.

    Examples
    --------
    >>> answer_dtype("labels"), answer_dtype("proba")
    (dtype('int64'), dtype('float64'))
    """
    return np.dtype(np.int64 if answer == "labels" else np.float64)


@dataclass(frozen=True)
class Predict:
    """Answer questions about each row: the function that predictions map over chunks.

    Attributes
    ----------
    mixture : Mixture
    answers : tuple of {"labels", "proba", "log_density"}
        The most likely component (n,), the responsibilities (n, k), or log p(x) (n,).

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> mixture = Mixture(np.log([0.25, 0.75]), GaussianOptions().of_data(Moments.unit(1), 2))
    >>> answers = Predict(mixture, ("labels", "proba"))(np.array([[0.0], [2.0]]))
    >>> answers["labels"].tolist(), answers["proba"].round(3).tolist()
    ([1, 1], [[0.25, 0.75], [0.25, 0.75]])
    """

    mixture: Mixture
    answers: tuple[Answer, ...]

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the answers for the rows X (n, d), in the rows' order."""
        k = len(self.mixture.log_weights)
        shapes = {"proba": (len(X), k)}
        out: dict[str, Array] = {
            a: np.empty(shapes.get(a, (len(X),)), dtype=answer_dtype(a)) for a in self.answers
        }
        nothing = np.zeros(k)
        for rows, log_joint, arithmetic in joint_blocks(self.mixture, X):
            if "labels" in out:
                out["labels"][rows] = arithmetic.argmax(log_joint)
            if len(out) > 1 or "labels" not in out:
                resp, log_density = arithmetic.normalize(log_joint, nothing)
                if "proba" in out:
                    out["proba"][rows] = arithmetic.fetch(resp).T
                if "log_density" in out:
                    out["log_density"][rows] = arithmetic.fetch(log_density)
        return out


@dataclass(frozen=True)
class Scores(Additive):
    """Hold sums that tell how well a mixture describes rows.

    Attributes
    ----------
    n_rows : int
    log_likelihood : float
        sum_n log p(x_n), in nats.
    entropy : float
        -sum_nk r_nk log r_nk: zero where every row clearly belongs to one component.

    Examples
    --------
    >>> Scores(1, -2.0, 0.0) + Scores(2, -3.0, 0.5)
    Scores(n_rows=3, log_likelihood=-5.0, entropy=0.5)
    """

    n_rows: int
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
        self._scores = Scores(0, 0.0, 0.0)

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d)."""
        # scipy takes longer to import than all that reads a model file.
        from scipy.special import entr

        nothing = np.zeros(len(self.mixture.log_weights))
        for _, log_joint, arithmetic in joint_blocks(self.mixture, X):
            resp, log_density = map(arithmetic.fetch, arithmetic.normalize(log_joint, nothing))
            entropy = float(entr(resp).sum())
            self._scores += Scores(len(log_density), float(log_density.sum()), entropy)

    def result(self) -> Scores:
        """Return the sums over the chunks given so far."""
        return self._scores
