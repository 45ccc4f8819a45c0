"""Covariances of components under given responsibilities, of which only products are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning

Product = Callable[[Array], Array]
"""V (d, m) -> S V, for a covariance S (d, d)."""


@dataclass(frozen=True)
class Scatter:
    """Hold a covariance S (d, d) by its products with vectors, and its diagonal (d,).

    Examples
    --------
    >>> scatter = Scatter.of_root(np.array([[1.0, 2.0]]))
    >>> scatter.product(np.eye(2)).tolist(), scatter.diagonal.tolist()
    ([[1.0, 2.0], [2.0, 4.0]], [1.0, 4.0])
    """

    product: Product
    diagonal: Array

    @classmethod
    def of_matrix(cls, matrix: Array) -> Self:
        """Return a covariance that is at hand, (d, d)."""
        return cls(lambda V: np.asarray(matrix @ V), np.diagonal(matrix).copy())

    @classmethod
    def of_root(cls, root: Array, diagonal: Array | None = None) -> Self:
        """Return R^T R of a root (m, d), or with more on the diagonal, to be this one."""
        own = np.einsum("md,md->d", root, root)
        more = np.zeros_like(own) if diagonal is None else np.maximum(diagonal - own, 0.0)
        if len(own) <= tuning().factor.few_columns:
            return cls.of_matrix(root.T @ root + np.diag(more))

        def product(V: Array) -> Array:
            return np.asarray(root.T @ (root @ V) + more[:, None] * V)

        return cls(product, own + more)

    @classmethod
    def of_rows(cls, Z: Array, mean: Array, resp: Array, most: int) -> Self:
        """Return the covariance of rows (n, d) about a mean, under responsibilities (n,).

        Of more columns than few it is that of the first `most` rows that have any.
        """
        rows = np.flatnonzero(resp)
        if Z.shape[1] > tuning().factor.few_columns:
            rows = rows[:most]
        share = resp[rows] / max(float(resp[rows].sum()), 1e-300)
        return cls.of_root((Z[rows] - mean) * np.sqrt(share)[:, None])

    @classmethod
    def of_sketch(cls, images: Array, sketch: Array, diagonal: Array) -> Self:
        """Return the covariance by its images S Q of a few orthonormal columns Q, both (d, m).

        That is Nystroem's approximation S Q (Q^T S Q)^-1 (S Q)^T, which is S where Q is square.
        """
        core = sketch.T @ images
        values, vectors = np.linalg.eigh((core + core.T) / 2)
        sound = values > np.finfo(np.float64).eps * len(values) * max(float(values[-1]), 1e-300)
        root = (vectors[:, sound] / np.sqrt(values[sound])).T @ images.T
        return cls.of_root(root, diagonal)

    @classmethod
    def pooled(cls, shares: Array, scatters: Sequence[Self]) -> Self:
        """Return the mean covariance, by shares (k,)."""
        parts = [*zip(shares / max(float(shares.sum()), 1e-300), scatters, strict=True)]

        def product(V: Array) -> Array:
            return np.asarray(sum(share * scatter.product(V) for share, scatter in parts))

        return cls(product, np.asarray(sum(share * one.diagonal for share, one in parts)))


def orthonormal(d: int, m: int) -> Array:
    """Return m orthonormal columns (d, m), the same in every fit; the identity where m is d."""
    if m == d:
        return np.eye(d)
    return np.linalg.qr(np.random.default_rng(0).normal(size=(d, m)))[0]
