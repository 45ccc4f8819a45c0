"""The empirical information: the sum of the outer products of the rows' scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .additive import Additive, Array
from .tuning import tuning


@dataclass(frozen=True)
class InformationSums(Additive):
    """Hold the sum of the outer products of the rows' scores.

    Attributes
    ----------
    n_rows : int
        Rows of positive weight.
    products : (p, p) array

    Examples
    --------
    >>> (InformationSums(1, np.eye(1)) + InformationSums(2, np.eye(1))).products
    array([[2.]])
    """

    n_rows: int
    products: Array


def inverse_information(information: Array) -> Array | None:
    """Invert a positive definite matrix; None where it is singular but for rounding.

    Examples
    --------
    >>> inverse_information(np.diag([4.0, 1e-9])).round(2).tolist()
    [[0.25, 0.0], [0.0, 1000000000.0]]
    >>> inverse_information(np.ones((2, 2))) is None
    True
    """
    scale = np.sqrt(np.diagonal(information))
    if not (scale > 0).all():
        return None
    lengths, axes = np.linalg.eigh(information / np.outer(scale, scale))
    if lengths[0] < len(lengths) * tuning().numerics.unidentified:
        return None
    return np.asarray((axes / lengths) @ axes.T) / np.outer(scale, scale)
