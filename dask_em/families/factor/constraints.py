"""Loadings and noise in common: the family of models of McNicholas and Murphy.

Three letters, each C (constrained) or U: whether all components share their loadings, whether they
share their noise, and whether the noise is the same in all columns (Statistics and Computing 18,
2008). UUU is the mixture of factor analyzers of Ghahramani and Hinton (1996), UUC that of
probabilistic principal components of Tipping and Bishop (1999).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.additive import Array

NAMES = ("UUU", "UUC", "UCU", "UCC", "CUU", "CUC", "CCU", "CCC")


@dataclass(frozen=True)
class FactorConstraint:
    """Hold which parameters components or columns share.

    Examples
    --------
    >>> rule = FactorConstraint.named("UCU")
    >>> rule.shared_loadings, rule.shared_noise, rule.isotropic
    (False, True, False)
    >>> rule.n_parameters(3, 27, 2)
    186
    """

    shared_loadings: bool
    shared_noise: bool
    isotropic: bool

    @classmethod
    def named(cls, name: str) -> FactorConstraint:
        """Return the constraint of one of `NAMES`."""
        loadings, noise, columns = (letter == "C" for letter in name)
        return cls(loadings, noise, columns)

    def n_parameters(self, k: int, d: int, q: int) -> int:
        """Count the free loadings and variances; loadings are free up to a rotation of factors."""
        loadings = d * q - q * (q - 1) // 2
        noise = 1 if self.isotropic else d
        return loadings * (1 if self.shared_loadings else k) + noise * (
            1 if self.shared_noise else k
        )

    def loadings(self, rows: Array, noise: Array, cross: Array, products: Array) -> Array:
        """Return the likeliest loadings (k, d, q) at some noise.

        Parameters
        ----------
        rows : (k,) array
            Zero of components that have no part in it.
        noise : (k, d) or (k, 1) array
        cross : (k, d, q) array
            Covariances of rows and factors.
        products : (k, q, q) array
            Covariances of factors.
        """
        if not self.shared_loadings:
            return solved(products, cross)
        if self.shared_noise or self.isotropic:
            share = rows / noise[:, 0]
            total = np.einsum("k,kpq->pq", share, products)
            found = solved(total, np.einsum("k,kdq->dq", share, cross))
        else:
            share = rows[:, None] / noise
            total = np.einsum("kd,kpq->dpq", share, products)
            right = np.einsum("kd,kdq->dq", share, cross)
            found = solved(total, right[:, None, :])[:, 0]
        return np.repeat(found[None], len(rows), axis=0)

    def noise(self, rows: Array, residual: Array) -> Array:
        """Return the likeliest noise, (k, d) or (k, 1), of mean squared residuals (k, d)."""
        found = residual.mean(axis=1, keepdims=True) if self.isotropic else residual
        if self.shared_noise:
            mean = rows @ found / max(float(rows.sum()), 1e-300)
            found = np.repeat(mean[None], len(rows), axis=0)
        return np.asarray(found)


def solved(matrix: Array, right: Array) -> Array:
    """Return `right` (..., d, q) times the inverse of a symmetric `matrix` (..., q, q)."""
    return np.swapaxes(np.linalg.solve(matrix, np.swapaxes(right, -1, -2)), -1, -2)
