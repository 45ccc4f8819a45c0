"""TODO core.additive."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Additive:
    """A record of sums: two of them add field by field.

    Fields are arrays, numbers, or records of sums themselves. Addition is
    associative up to rounding, so whoever adds many must fix the order of the
    additions to fix the bits: see `tree_levels`.
    """

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the sums take."""
        values = (getattr(self, f.name) for f in fields(self))
        return sum(v.nbytes if isinstance(v, Additive) else np.asarray(v).nbytes for v in values)

    def __sizeof__(self) -> int:
        # Schedulers ask this before they move or store a result, and a record's own
        # header of a few bytes would hide megabytes of sums from them.
        return object.__sizeof__(self) + self.nbytes


S = TypeVar("S")

S_co = TypeVar("S_co", covariant=True)
