"""Answers of a mixture for the rows of a source: at once where they are in memory, else lazily."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from ..backends.blas import one_blas_thread
from ..backends.dask.failure import hold_to, tell_of
from ..backends.software import Software, software_here
from ..core.additive import Array
from ..core.protocols import Source
from ..core.scoring import RowAnswers, n_unanswered
from ..data.labels import RowMap

logger = logging.getLogger("dask_em")


def answer_rows(source: Source, predict: RowAnswers, rows: RowMap) -> Any:
    """Compute the one answer that `predict` gives for every row of a source, by `rows`.

    Returns
    -------
    array, (n,) or (n, k)
        NumPy where the rows are in memory, else lazy Dask of the chunks of the source, or of the
        partitions of a table.
    """
    if not source.in_process:
        from ..backends.dask.scheduler import check_answers

        check_answers()
    (answer,) = predict.answers
    numba = predict.mixture.engine.name == "numba"
    sender = None if source.in_process else software_here(numba)
    return rows.map_rows(OneAnswer(predict, sender), predict.width(answer), predict.dtype(answer))


@dataclass(frozen=True)
class OneAnswer:
    """The function of rows (n, d) that returns the one answer of `predict`.

    Attributes
    ----------
    predict : RowAnswers
    sender : Software or None
        Of the process that asks, to which workers are held; None where it computes by itself.
    """

    predict: RowAnswers
    sender: Software | None

    def __call__(self, X: Array) -> Array:
        if self.sender is not None:
            tell_of(hold_to(self.sender))
        (answer,) = self.predict.answers
        with one_blas_thread():
            found = self.predict(X)
        n = n_unanswered(found, self.predict.no_label)
        if n:
            log_unanswered(n, len(X), self.predict.no_label)
        return found[answer]


def log_unanswered(n: int, n_rows: int, no_label: int) -> None:
    """Log how many rows have no answer."""
    logger.info(
        "%d of %d rows hold NaN or infinity and have no answer: their label is %d, all else NaN",
        n,
        n_rows,
        no_label,
    )
