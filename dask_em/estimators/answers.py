"""Answers of a mixture for the rows of a source: at once where they are in memory, else lazily."""

from __future__ import annotations

from dataclasses import dataclass

from ..backends.blas import one_blas_thread
from ..core.additive import Array
from ..core.protocols import RowValues, Source
from ..core.scoring import Predict


def answer_rows(source: Source, predict: Predict) -> RowValues:
    """Compute the one answer that `predict` gives for every row.

    Returns
    -------
    array, (n,) or (n, k)
        NumPy where the rows are in memory, else lazy Dask of the chunks of the source.
    """
    (answer,) = predict.answers
    width = predict.mixture.components.n_components if answer == "proba" else None
    return source.map_rows(OneAnswer(predict), width, predict.dtype(answer))


@dataclass(frozen=True)
class OneAnswer:
    """The function of rows (n, d) that returns the one answer of `predict`."""

    predict: Predict

    def __call__(self, X: Array) -> Array:
        (answer,) = self.predict.answers
        with one_blas_thread():
            return self.predict(X)[answer]
