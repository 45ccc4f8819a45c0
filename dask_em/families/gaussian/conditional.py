"""Some columns of Gaussian components, alone or given others; regression by a mixture of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.mixture import Mixture
from ...core.scoring import FLOAT64, NO_LABEL, Predict
from ...core.tuning import tuning
from .family import Gaussian
from .patterns import Patterns
from .whitening import Whitening, apply_scale

G = TypeVar("G", bound=Gaussian)

# Constraints that hold for some of the columns, and for these given the others, where they hold for
# all columns. Of the rest volumes, shapes or axes are equal in all columns together alone.
OF_ANY_COLUMNS = frozenset({"full", "tied", "diag", "spherical", "EII", "EEI", "VEI", "VEE"})


def in_columns(gaussian: G) -> G:
    """Return the same components in coordinates of each column alone, in which spreads are about 1.

    Examples
    --------
    >>> from .matrices import Full
    >>> whitening = Whitening(np.zeros(2), np.array([[3.0, 0.0], [4.0, 3.0]]))
    >>> found = in_columns(Gaussian(np.ones((1, 2)), Full(np.eye(2)[None]), whitening))
    >>> found.whitening.scale.tolist(), found.means.tolist()
    ([3.0, 5.0], [[1.0, 1.4]])
    """
    whitening = gaussian.whitening
    if whitening.scale.ndim == 1:
        return gaussian
    width = np.sqrt((whitening.scale**2).sum(axis=1))
    scale = whitening.scale / width[:, None]
    return replace(
        gaussian,
        means=apply_scale(scale, gaussian.means.T).T,
        covariance=gaussian.covariance.scaled(scale),
        whitening=Whitening(whitening.shift, width),
    )


def marginal(gaussian: G, columns: Sequence[int]) -> G:
    """Return the distribution of some columns in each component.

    Examples
    --------
    >>> from .matrices import Full
    >>> wide = Full(np.linalg.cholesky(np.array([[[4.0, 1.0], [1.0, 9.0]]])))
    >>> found = marginal(Gaussian(np.ones((1, 2)), wide, Whitening(np.zeros(2), np.ones(2))), [1])
    >>> found.data_coordinates()[1].covariances.round(9).tolist()
    [[[9.0]]]
    """
    whole = in_columns(gaussian)
    return _of_columns(whole, columns, whole.covariance.of_columns(columns))


def conditional(gaussian: G, given: Sequence[int], values: Array) -> tuple[G, Array]:
    """Return the distribution of the other columns given values (o,) of some, and log p(values).

    mu_a + Sigma_ao Sigma_oo^{-1} (x_o - mu_o) and Sigma_aa - Sigma_ao Sigma_oo^{-1} Sigma_oa
    (Bishop, Pattern Recognition and Machine Learning, 2006, equations 2.81 and 2.82).

    Returns
    -------
    Gaussian
        In the order of the columns.
    (k,) array
        log p(values | k), in the units of the data.

    Examples
    --------
    >>> from .matrices import Full
    >>> wide = Full(np.linalg.cholesky(np.array([[[4.0, 2.0], [2.0, 9.0]]])))
    >>> normal = Gaussian(np.zeros((1, 2)), wide, Whitening(np.zeros(2), np.ones(2)))
    >>> found, log_prob = conditional(normal, [0], np.array([2.0]))
    >>> found.means.round(9).tolist(), found.covariance.covariances.round(9).tolist()
    ([[1.0]], [[[8.0]]])
    """
    whole = in_columns(gaussian)
    asked = [j for j in range(gaussian.n_features) if j not in given]
    covariance, regression = whole.covariance.conditional(given, asked)
    found = _of_columns(whole, asked, covariance)
    z = (values - whole.whitening.shift[list(given)]) / whole.whitening.scale[list(given)]
    apart = z - whole.means[:, list(given)]
    means = found.means + np.einsum("kqo,ko->kq", _of_each(regression, len(apart)), apart)
    log_prob = marginal(whole, given).log_prob(np.asarray(values, dtype=np.float64)[None])[0]
    return replace(found, means=means), log_prob


def _of_columns(whole: G, columns: Sequence[int], covariance: Any) -> G:
    index = list(columns)
    kind = whole.kind if whole.kind in OF_ANY_COLUMNS else covariance.kind
    whitening = Whitening(whole.whitening.shift[index], whole.whitening.scale[index])
    means = whole.means[:, index]
    return replace(whole, means=means, covariance=covariance, whitening=whitening, constraint=kind)


def _of_each(regression: Array, k: int) -> Array:
    return np.broadcast_to(regression, (k, *regression.shape[1:]))


@dataclass(frozen=True)
class Regression:
    """Compute mean and standard deviation of columns given the others: mapped over chunks.

    E[y | x] = sum_k r_k(x) m_k(x) and Var[y | x] = sum_k r_k(x) (C_k + (m_k(x) - E[y | x])^2), with
    the responsibilities, conditional means and variances of the components (Ghahramani and Jordan,
    Supervised learning from incomplete data via an EM approach, 1994, section 4.1).

    Attributes
    ----------
    mixture : Mixture
        Of the columns that rows have.
    joint : Gaussian
        Of all columns.
    given, asked : tuple of int
        Which of these rows have, and which are computed.
    drop : bool
        Give rows of NaN or infinity no answer, which is NaN; else they are an error.
    reals : dtype
        Of the answers.

    Examples
    --------
    >>> from .matrices import Full
    >>> wide = Full(np.linalg.cholesky(np.array([[[4.0, 2.0], [2.0, 9.0]]])))
    >>> normal = Gaussian(np.zeros((1, 2)), wide, Whitening(np.zeros(2), np.ones(2)))
    >>> of_x = Mixture(np.zeros(1), marginal(normal, [0]))
    >>> Regression(of_x, normal, (0,), (1,))(np.array([[2.0]]))["regression"].round(3).tolist()
    [[1.0, 2.828]]
    """

    mixture: Mixture
    joint: Gaussian
    given: tuple[int, ...]
    asked: tuple[int, ...]
    drop: bool = False
    reals: np.dtype[Any] = FLOAT64

    answers: ClassVar[tuple[str, ...]] = ("regression",)
    no_label: ClassVar[int] = NO_LABEL

    def dtype(self, answer: str) -> np.dtype[Any]:
        """Return the type of means and standard deviations."""
        return self.reals

    def width(self, answer: str) -> int:
        """Return the number of means and standard deviations."""
        return 2 * len(self.asked)

    def __call__(self, X: Array) -> dict[str, Array]:
        """Return means and standard deviations side by side, (n, 2 q), in the rows' order."""
        resp = Predict(self.mixture, ("proba",), self.drop)(X)["proba"]
        out = np.full((len(X), self.width("")), np.nan, self.reals)
        known = np.flatnonzero(~np.isnan(resp[:, 0]))
        whole = in_columns(self.joint)
        for some in blocks(len(known), tuning().missing.most_rows):
            rows = known[some]
            patterns = Patterns.of(np.isnan(X[rows]))
            for alike in patterns.groups(1):
                mine = rows[patterns.order[alike]]
                seen = np.flatnonzero(~patterns.missing[alike.start])
                out[mine] = self._of_rows(whole, X[mine][:, seen], resp[mine], seen)
        return {"regression": out}

    def _of_rows(self, whole: Gaussian, X: Array, resp: Array, seen: Array) -> Array:
        """Return both for rows that have the same columns (n, o)."""
        given, asked = [self.given[j] for j in seen], list(self.asked)
        covariance, regression = whole.covariance.conditional(given, asked)
        k, q = len(whole.means), len(asked)
        regression = _of_each(regression, k)
        variances = np.broadcast_to(covariance.variances(q), (k, q))
        shift, scale = whole.whitening.shift, whole.whitening.scale
        out = np.empty((len(X), 2 * q))
        for rows in blocks(len(X), max(64, tuning().missing.piece // (k * q))):
            Z = (X[rows] - shift[given]) / scale[given]
            means = np.stack(
                [
                    mean[asked] + (Z - mean[given]) @ own.T
                    for mean, own in zip(whole.means, regression, strict=True)
                ]
            )
            total = np.einsum("nk,knq->nq", resp[rows], means)
            spread = np.einsum("nk,knq->nq", resp[rows], (means - total) ** 2)
            spread += resp[rows] @ variances
            out[rows, :q] = shift[asked] + scale[asked] * total
            out[rows, q:] = scale[asked] * np.sqrt(spread)
        return out
