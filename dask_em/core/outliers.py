"""p-values of rows under a mixture: how often it draws a row of no larger density."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from .additive import Array
from .draws import draw, log_density
from .mixture import Mixture
from .scoring import FLOAT64, NO_LABEL, Predict


@dataclass(frozen=True)
class OutlierPvalues:
    """Compute p-values of rows, given draws of the mixture: mapped over chunks.

    (1 + draws of no larger density) / (1 + draws): of rows of the mixture itself no p-value is
    more frequent than another (Davison and Hinkley, Bootstrap Methods and their Application, 1997,
    section 4.2), and small ones are those of outliers. Rows that lack values are compared by the
    columns that they have with draws of these columns.

    Attributes
    ----------
    mixture : Mixture
    reference : (m,) array
        log p(x) of the draws, in ascending order.
    draws : (m, d) array or None
        The draws themselves, where values of rows may be missing.
    drop : bool
        Give rows of NaN or infinity no answer, which is NaN; else they are an error.
    reals : dtype
        Of the answers.

    Examples
    --------
    >>> from .moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> one = Mixture(np.zeros(1), GaussianOptions().of_data(Moments.unit(1), 1))
    >>> found = OutlierPvalues.of(one, 999, np.random.default_rng(0))(np.array([[0.0], [9.0]]))
    >>> found["pvalues"].round(3).tolist()
    [1.0, 0.001]
    """

    mixture: Mixture
    reference: Array
    draws: Array | None = None
    drop: bool = False
    reals: np.dtype[Any] = FLOAT64

    answers: ClassVar[tuple[str, ...]] = ("pvalues",)
    no_label: ClassVar[int] = NO_LABEL

    @classmethod
    def of(
        cls, mixture: Mixture, n_draws: int, rng: np.random.Generator, drop: bool = False,
        reals: np.dtype[Any] = FLOAT64,
    ) -> Self:  # fmt: skip
        """Return the function that compares rows with so many draws of the mixture."""
        weights = mixture.weights / mixture.weights.sum()
        rows, _ = draw(mixture.components, weights, n_draws, rng)
        holes = any(mixture.components.support.missing)
        reference = np.sort(log_density(mixture, rows))
        return cls(mixture, reference, rows if holes else None, drop, reals)

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of the p-values."""
        return self.reals

    def width(self, answer: str) -> None:
        """Return None: one number a row."""
        return

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the p-values (n,) of the rows X (n, d), in the rows' order."""
        found = Predict(self.mixture, ("log_density",), self.drop)(X)["log_density"]
        out = np.full(len(X), np.nan, self.reals)
        known = ~np.isnan(found)
        whole = known
        if self.draws is not None:
            missing = np.isnan(X)
            whole = known & ~missing.any(axis=1)
            self._compare_holes(missing, known & ~whole, found, out)
        out[whole] = _pvalues(self.reference, found[whole])
        return {"pvalues": out}

    def _compare_holes(self, missing: Array, rows: Array, found: Array, out: Array) -> None:
        """Write the p-values of some rows, which lack values, pattern by pattern."""
        assert self.draws is not None
        numbers = np.flatnonzero(rows)
        patterns, which = np.unique(missing[numbers], axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            mine = numbers[which.ravel() == i]
            draws = np.where(pattern, np.nan, self.draws)
            out[mine] = _pvalues(np.sort(log_density(self.mixture, draws)), found[mine])


def _pvalues(reference: Array, log_densities: Array) -> Array:
    # Rounding must not part what is equal, as of rows of which nothing is observed.
    slack = 1e-12 * np.maximum(np.abs(log_densities), 1.0)
    lower = np.searchsorted(reference, log_densities + slack, side="right")
    return np.asarray((1 + lower) / (1 + len(reference)))
