"""Mahalanobis distances of rows to Gaussian components, and p-values that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.mixture import Mixture
from ...core.scoring import FLOAT64, NO_LABEL
from ...errors import NonFiniteError
from .column_coordinates import ColumnCoordinates
from .family import Gaussian
from .missing_kernel import has_missing
from .numpy_kernel import block_rows
from .patterns import Patterns


def squared_distances(gaussian: Gaussian, X: Array) -> Array:
    """Compute (x - mu_k)^T Sigma_k^{-1} (x - mu_k) of rows (n, d), by what is observed, (n, k).

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Gaussian(np.zeros((1, 2)), Full(np.eye(2)[None]), Whitening(np.zeros(2), np.ones(2)))
    >>> squared_distances(unit, np.array([[3.0, 4.0], [3.0, np.nan]])).tolist()
    [[25.0], [9.0]]
    """
    out = _of_whole_rows(gaussian, X)
    if not has_missing(X):
        return out
    columns = ColumnCoordinates(gaussian)
    means = gaussian.whitening.unwhiten(gaussian.means)
    holes = np.flatnonzero(np.isnan(X).any(axis=1))
    patterns = Patterns.of(np.isnan(X[holes]))
    Z = columns.take(X[holes], patterns)
    for k, mean in enumerate(means):
        # The means of what is missing, given the rest, add nothing to the distance.
        filled = columns.completed(k, mean, Z, patterns)
        out[holes, k] = _of_whole_rows(gaussian.take([k]), filled)[:, 0]
    return out


def _of_whole_rows(gaussian: Gaussian, X: Array) -> Array:
    k, d = gaussian.means.shape
    structure = gaussian.covariance
    whitener = structure.whitener(gaussian.means)
    size = block_rows(structure.work_rows(k, d) + k + d)
    phi, work = np.ones((1 + d, size)), np.empty((structure.work_rows(k, d), size))
    found = np.empty((k, size))
    out = np.empty((len(X), k))
    for rows in blocks(len(X), size):
        b = rows.stop - rows.start
        gaussian.whitening.whiten_columns(X[rows], out=phi[1:, :b], work=work[:d, :b])
        structure.distances(whitener, phi[:, :b], found[:, :b], work[:, :b])
        out[rows] = found[:, :b].T
    return out


@dataclass(frozen=True)
class Mahalanobis:
    """Compute Mahalanobis distances of rows to each component: mapped over chunks.

    Attributes
    ----------
    mixture : Mixture
        Which says which rows have an answer.
    normals : Gaussian
        To which the distances are.
    drop : bool
        Give rows of NaN or infinity no answer, which is NaN; else they are an error.
    reals : dtype
        Of the answers.

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Gaussian(np.zeros((1, 2)), Full(np.eye(2)[None]), Whitening(np.zeros(2), np.ones(2)))
    >>> Mahalanobis(Mixture(np.zeros(1), unit), unit)(np.array([[3.0, 4.0]]))["mahalanobis"]
    array([[5.]])
    """

    mixture: Mixture
    normals: Gaussian
    drop: bool = False
    reals: np.dtype[Any] = FLOAT64

    answers: ClassVar[tuple[str, ...]] = ("mahalanobis",)
    no_label: ClassVar[int] = NO_LABEL

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of the distances."""
        return self.reals

    def width(self, answer: str) -> int | None:
        """Return the number of components."""
        return self.normals.n_components

    def squares(self, X: Array) -> tuple[Array, Array | slice]:
        """Return squared distances (m, k) of the rows that have an answer, and which these are."""
        support = self.mixture.components.support
        kept = support.kept(X) if self.drop else None
        if kept is None:
            try:
                support.check(X, range(len(X)))
            except NonFiniteError as e:
                raise e.advised(self.mixture.components.of_missing) from None
            return squared_distances(self.normals, X), slice(None)
        return squared_distances(self.normals, X[kept]), kept

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the distances (n, k), in the rows' order."""
        found, rows = self.squares(X)
        out = np.full((len(X), self.normals.n_components), np.nan, self.reals)
        out[rows] = np.sqrt(found)
        return {"mahalanobis": out}


@dataclass(frozen=True)
class ChiSquarePvalues:
    """Compute P(squared distance of a row of the model > that of x), of one component: exact.

    Attributes
    ----------
    distances : Mahalanobis

    Examples
    --------
    >>> from .matrices import Full
    >>> from .whitening import Whitening
    >>> unit = Gaussian(np.zeros((1, 2)), Full(np.eye(2)[None]), Whitening(np.zeros(2), np.ones(2)))
    >>> exact = ChiSquarePvalues(Mahalanobis(Mixture(np.zeros(1), unit), unit))
    >>> exact(np.array([[0.0, 0.0], [2.0, 2.0]]))["pvalues"].round(4).tolist()
    [1.0, 0.0183]
    """

    distances: Mahalanobis

    answers: ClassVar[tuple[str, ...]] = ("pvalues",)
    no_label: ClassVar[int] = NO_LABEL

    @property
    def mixture(self) -> Mixture:
        """The mixture that is asked."""
        return self.distances.mixture

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of the p-values."""
        return self.distances.reals

    def width(self, answer: str) -> None:
        """Return None: one number a row."""
        return

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return the p-values (n,), in the rows' order."""
        from scipy.special import gammaincc

        found, rows = self.distances.squares(X)
        observed = (~np.isnan(X[rows])).sum(axis=1)
        out = np.full(len(X), np.nan, self.distances.reals)
        # Of nothing observed nothing is odd.
        out[rows] = np.where(
            observed > 0, gammaincc(np.maximum(observed, 1) / 2, found[:, 0] / 2), 1.0
        )
        return {"pvalues": out}
