"""Records of sums: whatever a pass over the data adds up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Additive:
    """A record of sums: two of them add field by field.

    Fields are arrays, numbers, records of sums themselves, or tuples of such records. Addition is
    associative up to rounding, so whoever adds many must fix the order of the
    additions to fix the bits: see `tree_levels`.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Sums(Additive):
    ...     n_rows: int
    ...     first: Array
    >>> Sums(1, np.ones(2)) + Sums(2, np.ones(2))
    Sums(n_rows=3, first=array([2., 2.]))
    """

    def __add__(self, other: Self) -> Self:
        return type(self)(
            **{f.name: _added(getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        )

    def plus(self, other: Self, factor: float | Array) -> Self:
        """Return self + factor * other, field by field.

        Parameters
        ----------
        other : Additive
            Of the same fields.
        factor : float or (k,) array
            An array multiplies along the leading axis of every field.

        Examples
        --------
        >>> import numpy as np
        >>> @dataclass(frozen=True)
        ... class Sums(Additive):
        ...     first: Array
        >>> Sums(np.ones((2, 1))).plus(Sums(np.ones((2, 1))), np.array([1.0, 3.0])).first
        array([[2.],
               [4.]])
        """
        return self._each(lambda x, y: x + _along(factor, y) * y, other)

    def times(self, factor: float) -> Self:
        """Return the sums of rows that weigh `factor` times as much.

        Examples
        --------
        >>> import numpy as np
        >>> @dataclass(frozen=True)
        ... class Sums(Additive):
        ...     first: Array
        >>> Sums(np.ones(2)).times(0.5).first
        array([0.5, 0.5])
        """
        return self._each(lambda x: factor * x)

    def take(self, components: slice | Sequence[int]) -> Self:
        """Return the sums of some components, where every field leads with axis k."""
        index = components if isinstance(components, slice) else list(components)
        return self._each(lambda x: x[index].copy())

    def _each(self, make: Callable[..., Any], *others: Self) -> Self:
        """Return the record of what `make` makes of each field."""
        return type(self)(
            **{
                f.name: _combined(make, [getattr(one, f.name) for one in (self, *others)])
                for f in fields(self)
            }
        )

    @property
    def nbytes(self) -> int:
        """Bytes that the sums take."""
        return sum(_bytes_of(getattr(self, f.name)) for f in fields(self))

    def __sizeof__(self) -> int:
        # Schedulers ask this before they move or store a result, and a record's own
        # header of a few bytes would hide megabytes of sums from them.
        return object.__sizeof__(self) + self.nbytes


def are_records(value: Any) -> bool:
    """Tell whether a field holds several records, which are added each to its like."""
    return isinstance(value, tuple) and bool(value) and isinstance(value[0], Additive)


def _added(one: Any, other: Any) -> Any:
    if are_records(one):
        return tuple(_added(a, b) for a, b in zip(one, other, strict=True))
    return one + other


def _combined(make: Callable[..., Any], values: Sequence[Any]) -> Any:
    """Return what `make` makes of one field of some records."""
    first, *others = values
    if are_records(first):
        return tuple(_combined(make, inner) for inner in zip(*values, strict=True))
    return first._each(make, *others) if isinstance(first, Additive) else make(*values)


def _bytes_of(value: Any) -> int:
    if isinstance(value, tuple):
        return sum(map(_bytes_of, value))
    return value.nbytes if isinstance(value, Additive) else np.asarray(value).nbytes


def _along(factor: float | Array, values: Array) -> float | Array:
    """Return `factor` so that it multiplies the leading axis of `values`."""
    return factor if np.ndim(factor) == 0 else np.reshape(factor, (-1, *[1] * (values.ndim - 1)))


S = TypeVar("S")

S_co = TypeVar("S_co", covariant=True)
