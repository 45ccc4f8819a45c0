"""Draws from a mixture, and estimates that are means over draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .additive import Array
from .family import Family
from .mixture import Mixture
from .scoring import Predict


def draw(
    components: Family[Any], weights: Array, n: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Draw n rows (n, d) of a mixture, those of a component together, and their components (n,).

    Parameters
    ----------
    components : Family
    weights : (k,) array
        They sum to one.
    n : int
    rng : Generator

    Examples
    --------
    >>> from .moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normals = GaussianOptions().of_data(Moments.unit(1), 2)
    >>> rows, labels = draw(normals, np.array([0.25, 0.75]), 9, np.random.default_rng(0))
    >>> rows.shape, np.bincount(labels).tolist()
    ((9, 1), [3, 6])
    """
    counts = rng.multinomial(n, weights)
    rows = [components.sample(k, int(m), rng) for k, m in enumerate(counts)]
    return np.concatenate(rows), np.repeat(np.arange(len(counts)), counts)


def log_density(mixture: Mixture, rows: Array) -> Array:
    """Compute log p(x) of rows (n, d) in memory, (n,).

    Examples
    --------
    >>> from .moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> one = Mixture(np.zeros(1), GaussianOptions().of_data(Moments.unit(1), 1))
    >>> log_density(one, np.zeros((1, 1))).round(4).tolist()
    [-0.9189]
    """
    return np.asarray(Predict(mixture, ("log_density",))(rows)["log_density"])


@dataclass(frozen=True)
class Estimate:
    """Hold a number that was estimated by draws.

    Attributes
    ----------
    value : float
    standard_error : float
    n : int
        Draws.

    Examples
    --------
    >>> Estimate.of(np.array([1.0, 3.0]))
    Estimate(value=2.0, standard_error=1.0, n=2)
    """

    value: float
    standard_error: float
    n: int

    @classmethod
    def of(cls, values: Array) -> Self:
        """Return the mean of independent values (n,), with its standard error."""
        n = len(values)
        error = float(values.std(ddof=1)) / np.sqrt(n) if n > 1 else np.inf
        return cls(float(values.mean()), float(error), n)
