"""The box in which noise lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from .additive import Array
from .codec import record
from .validation import LARGEST, require, require_array


@record("box")
@dataclass(frozen=True)
class Box:
    """Hold where noise lies, and its volume.

    Attributes
    ----------
    low, high : (d,) array
        Corners, between which draws lie.
    log_volume : float
        In the units of the data; that of the box unless another was given.

    Examples
    --------
    >>> box = Box.of(np.zeros(2), np.array([2.0, 3.0]))
    >>> round(box.volume, 9), Box.of(box.low, box.high, 4.0).volume
    (6.0, 4.0)
    """

    low: Array
    high: Array
    log_volume: float

    @classmethod
    def of(cls, low: Array, high: Array, volume: float | None = None) -> Self:
        """Return the box between two corners, of its own volume or of a given one."""
        if volume is not None:
            return cls(low, high, float(np.log(volume)))
        with np.errstate(divide="ignore"):
            return cls(low, high, float(np.log(high - low).sum()))

    @property
    def volume(self) -> float:
        """Volume in the units of the data, infinite beyond the largest float."""
        with np.errstate(over="ignore"):
            return float(np.exp(self.log_volume))

    def sample(self, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) uniformly between the corners."""
        return rng.uniform(self.low, self.high, (n, len(self.low)))

    def validate(self, d: int) -> None:
        """Raise `ValueError` that names what is wrong with a box of d columns."""
        require_array("low", self.low, (d,))
        require_array("high", self.high, (d,))
        require("high", self.high, bool((self.high >= self.low).all()))
        require("log_volume", self.log_volume, abs(self.log_volume) <= LARGEST)
