"""Kinds of numbers that stand beside rows: how each is checked, and in which forms it comes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from ..core.additive import Array
from ..core.beside import LABELS, NOISE, Where
from ..core.labels import checked_labels
from ..core.noise_covariance import checked_noise, noise_width


class FieldCheck(Protocol):
    """Check numbers beside some rows, and make them what passes take; picklable.

    Attributes
    ----------
    name : str
        Of the argument of `fit`.
    dims : tuple of int
        How many dimensions arrays of it may have.
    """

    name: ClassVar[str]
    dims: ClassVar[tuple[int, ...]]

    def __call__(self, values: Array, where: Where) -> Array:
        """Return the numbers of rows, rows first."""

    def width(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers are read of a row, whose own are of this shape."""


@dataclass(frozen=True)
class LabelCheck(FieldCheck):
    """Check labels (b,), also as (b, 1), or responsibilities (b, k).

    Attributes
    ----------
    k : int
        Number of components.
    """

    name = LABELS
    dims = (1, 2)

    k: int

    def __call__(self, values: Array, where: Where) -> Array:
        """Return labels (b,) or responsibilities (b, k)."""
        one = values.ndim == 2 and values.shape[1] == 1
        return checked_labels(values[:, 0] if one else values, self.k, where)

    def width(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers are read of a row."""
        return shape[0] if shape else 1


@dataclass(frozen=True)
class NoiseCheck(FieldCheck):
    """Check the covariances of the noise of rows.

    Attributes
    ----------
    d : int
        Columns of the rows.
    drop : bool
        Let noise of NaN or infinity pass, whose rows are left out.
    """

    name = NOISE
    dims = (1, 2, 3)

    d: int
    drop: bool = False

    def __call__(self, values: Array, where: Where) -> Array:
        """Return variances (b, d), or the lower triangles of matrices (b, d (d + 1) / 2)."""
        return checked_noise(values, self.d, where, self.drop)

    def width(self, shape: tuple[int, ...]) -> int:
        """Return how many numbers are read of a row."""
        return noise_width(shape, self.d)
