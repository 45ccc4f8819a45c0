"""Values that rows lack: their conditional means, or draws."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...core.additive import Array
from ...core.mixture import Mixture
from ...core.scoring import FLOAT64, NO_LABEL, Predict
from .missing import GaussianMissing


@dataclass(frozen=True)
class Impute:
    """Fill what rows lack: the function that imputations map over chunks.

    Attributes
    ----------
    mixture : Mixture
        Of `GaussianMissing` components.
    seed : int or None
        Of draws from the distribution of what is missing given the rest; None for its means.
    number : int
        Of the draws of one seed, which differ.
    drop : bool
        Give rows of infinity no answer, which is NaN; else they are an error.
    reals : dtype
        Of the rows.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normal = GaussianOptions(missing=True).of_data(Moments.unit(2), 1)
    >>> fill = Impute(Mixture(np.zeros(1), normal))
    >>> fill(np.array([[3.0, np.nan]]))["imputed"].tolist()
    [[3.0, 0.0]]
    """

    mixture: Mixture
    seed: int | None = None
    number: int = 0
    drop: bool = False
    reals: np.dtype[Any] = FLOAT64

    answers: ClassVar[tuple[str, ...]] = ("imputed",)
    no_label: ClassVar[int] = NO_LABEL

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of the rows."""
        return self.reals

    def width(self, answer: str) -> int:
        """Return the number of columns."""
        return self.mixture.components.n_features

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the rows X (n, d), filled, in their order."""
        components = self.mixture.components
        assert isinstance(components, GaussianMissing)
        resp = Predict(self.mixture, ("proba",), self.drop)(X)["proba"]
        out = np.full(X.shape, np.nan, self.reals)
        # Rows without an answer have no responsibilities.
        known = ~np.isnan(resp[:, 0])
        rows, resp = X[known], resp[known]
        if self.seed is None:
            out[known] = components.conditional_means(rows, resp)
        else:
            out[known] = components.draws(rows, resp, self._generator(rows))
        return {"imputed": out}

    def _generator(self, rows: Array) -> np.random.Generator:
        """Return what draws for these rows: by the seed and the rows, wherever they are."""
        assert self.seed is not None
        found = hashlib.blake2b(rows.tobytes(), digest_size=8).digest()
        words = [self.seed, self.number, int.from_bytes(found, "little")]
        return np.random.default_rng(np.random.SeedSequence(words))
