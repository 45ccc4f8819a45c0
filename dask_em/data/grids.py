"""Which dimension of a grid holds the variables, and how its cells become rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.columns import Column
from ..core.grid import Grid
from ..errors import DataError
from ..foreign import shell_words
from .checks import no_such_column
from .columns import WeightColumn, choose, listed
from .options import ReadOptions
from .packing import Packing

# As xarray calls the dimension along which `Dataset.to_dataarray` puts the variables.
VARIABLE = "variable"


@dataclass(frozen=True)
class Part:
    """One array of a grid, of one variable or several.

    Attributes
    ----------
    array : NumPy or Dask array
        (*grid, w), stored numbers.
    packing : Packing or None
    """

    array: Any
    packing: Packing | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded numbers."""
        return self.packing.dtype if self.packing else np.dtype(self.array.dtype)


@dataclass(frozen=True)
class Cells:
    """Hold a grid in memory, or in blocks of Dask, whose cells are rows.

    Attributes
    ----------
    parts : tuple of Part
        Their variables in order are the columns.
    dims : tuple of str
        Those of the grid.
    columns : tuple of Column, or None
    beside : tuple of Column
        Those that there are, too, but no part holds.

    Examples
    --------
    >>> cells = Cells((Part(np.arange(12.0).reshape(2, 2, 3)),), ("y", "x"), None)
    >>> cells.taken([2, 0])[1:3]
    array([[5., 3.],
           [8., 6.]])
    """

    parts: tuple[Part, ...]
    dims: tuple[str, ...]
    columns: tuple[Column, ...] | None
    beside: tuple[Column, ...] = ()

    @property
    def width(self) -> int:
        """Columns."""
        return sum(int(part.array.shape[-1]) for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Cells along each dimension."""
        return tuple(map(int, self.parts[0].array.shape[:-1]))

    @property
    def lazy(self) -> bool:
        """Whether some of it is computed later."""
        return any(hasattr(part.array, "dask") for part in self.parts)

    @property
    def grid(self) -> Grid:
        """The grid in memory, as one block."""
        return Grid(self.dims, tuple((n,) for n in self.shape))

    def chosen(
        self, sample_weight: Any, options: ReadOptions
    ) -> tuple[Sequence[int], tuple[Column, ...] | None, Any]:
        """Return the numbers of the columns that are read, what they are, and the weights.

        Raises
        ------
        DataError
            There is no such column.
        """
        column = sample_weight if isinstance(sample_weight, WeightColumn) else None
        if self.columns is None:
            if column is not None:
                raise no_such_column(column.name)
            return range(self.width), None, sample_weight
        chosen = choose((*self.columns, *self.beside), options, column)
        if chosen.weight is not None:
            if chosen.weight >= len(self.columns):
                raise DataError(
                    f"the weights {self.beside[chosen.weight - len(self.columns)].name!r} are no "
                    f"number for each cell of {', '.join(self.dims)}"
                )
            (part,) = self.picked([chosen.weight])
            sample_weight = part.array[..., 0]
            if part.packing is not None:
                lazy, decode = hasattr(sample_weight, "map_blocks"), part.packing.decode
                sample_weight = (
                    sample_weight.map_blocks(decode, dtype=part.dtype)
                    if lazy
                    else decode(sample_weight)
                )
        return chosen.numbers, chosen.columns, sample_weight

    def matrix(self, numbers: Sequence[int]) -> Any:
        """Return the rows where they lie in one plain array as they are, else None."""
        whole = list(numbers) == list(range(self.width))
        plain = len(self.parts) == 1 and self.parts[0].packing is None and len(self.dims) == 1
        return self.parts[0].array if whole and plain else None

    def said(self) -> str:
        """Say how numbers are decoded; empty where they are plain."""
        return "; ".join(dict.fromkeys(str(part.packing) for part in self.parts if part.packing))

    def picked(self, numbers: Sequence[int]) -> list[Part]:
        """Return parts of single columns, or of neighbours, in another order."""
        edges = np.cumsum([0, *(part.array.shape[-1] for part in self.parts)])
        found: list[Part] = []
        for number in numbers:
            j = int(np.searchsorted(edges, number, side="right")) - 1
            part, column = self.parts[j], number - int(edges[j])
            found.append(Part(part.array[..., column : column + 1], part.packing))
        return found

    def taken(self, numbers: Sequence[int]) -> Array | CellRows:
        """Return rows (n, d) of a grid in memory: a view where it can be one."""
        whole = list(numbers) == list(range(self.width))
        parts = list(self.parts) if whole else self.picked(numbers)
        flat = [Part(part.array.reshape(-1, part.array.shape[-1]), part.packing) for part in parts]
        if len(flat) == 1 and flat[0].packing is None:
            return np.asarray(flat[0].array)
        return CellRows(tuple(flat))


@dataclass(frozen=True)
class CellRows:
    """Slice rows (n, d) out of several arrays of columns, decoded.

    Attributes
    ----------
    parts : tuple of Part
        (n, w) each.

    Examples
    --------
    >>> parts = [Part(np.array([[1], [2], [3]])), Part(np.array([[0.5], [1.5], [2.5]]))]
    >>> CellRows(tuple(parts))[1:]
    array([[2. , 1.5],
           [3. , 2.5]])
    """

    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.parts[0].array), sum(part.array.shape[1] for part in self.parts)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds all columns."""
        return np.result_type(*(part.dtype for part in self.parts))

    def __getitem__(self, rows: slice) -> Array:
        found = [
            part.packing.decode(part.array[rows]) if part.packing else part.array[rows]
            for part in self.parts
        ]
        return np.concatenate(found, axis=1, dtype=self.dtype)


def feature_axis(
    name: str, sizes: Mapping[str, int], features: str, likely: Sequence[str] = (), path: str = ""
) -> int:
    """Return the axis that holds the variables; each cell of the others is a row.

    Parameters
    ----------
    name : str
        Of the data, in messages.
    sizes : mapping of str to int
        The dimensions in their order.
    features : str
        The dimension that was named; of two dimensions the second where none was.
    likely : sequence of str
        Dimensions that name their places, as those of variables do.
    path : str
        Where the data lie, for the command that a message writes out.

    Raises
    ------
    DataError
        There is no such dimension, or none was named and there are not two.

    Examples
    --------
    >>> feature_axis("X", {"band": 3, "y": 20, "x": 20}, "band")
    0
    >>> feature_axis("X", {"time": 100, "station": 4}, "")
    1
    """
    dims = list(sizes)
    if not features:
        if len(dims) == 2:
            return 1
        raise undecided(name, sizes, likely, path)
    if features not in dims:
        raise _no_such(features, name, _said(sizes))
    if len(dims) < 2:
        raise DataError(f"{name} has no dimension but {features!r}: none is left for rows")
    return dims.index(features)


def variable_with(
    name: str, dims: Mapping[str, Sequence[str]], features: str, member: Callable[[str], str]
) -> str:
    """Return the one variable that has the dimension of the columns.

    Parameters
    ----------
    name : str
        Of the data, in messages.
    dims : mapping of str to sequence of str
        The dimensions of each variable.
    features : str
    member : callable
        How a variable is given in place of all.

    Raises
    ------
    DataError
        None has it, or several.
    """
    having = [variable for variable, of in dims.items() if features in of]
    if len(having) == 1:
        return having[0]
    said = "; ".join(f"{member(one)} ({', '.join(of)})" for one, of in dims.items())
    if not having:
        raise _no_such(features, name, said)
    raise DataError(
        f"{len(having)} variables of {name} have the dimension {features!r}: give one of {said}"
    )


def check_shared(
    name: str, dims: Mapping[str, Sequence[str]], member: Callable[[str], str]
) -> None:
    """Check that variables have the same dimensions, in whatever order.

    Raises
    ------
    DataError
        They have not; the parameters are those of `variable_with`.
    """
    kinds: dict[frozenset[str], list[str]] = {}
    for variable, of in dims.items():
        kinds.setdefault(frozenset(of), []).append(variable)
    if len(kinds) == 1:
        return
    said = "; ".join(f"{listed(one)} ({', '.join(dims[one[0]])})" for one in kinds.values())
    most = max(kinds.values(), key=len, default=[])
    if not most:
        raise DataError(f"{name} has no variables: there is nothing to cluster")
    sharing = f", or choose some that do by columns={most!r}" if len(most) > 1 else ""
    raise DataError(
        f"the variables of {name} do not share their dimensions, {said}: give one, such as "
        f"{member(max(dims, key=lambda one: len(dims[one])))}{sharing}"
    )


def check_numbers(name: str, wrong: Sequence[str]) -> None:
    """Raise `DataError` where variables hold no numbers."""
    if wrong:
        raise DataError(
            f"{name} has variables without numbers, {listed(wrong)}: exclude={list(wrong)!r} "
            "leaves them out"
        )


def _no_such(features: str, name: str, said: str) -> DataError:
    return DataError(
        f"features={features!r} names no dimension of {name}, whose dimensions are {said}"
    )


def undecided(
    name: str,
    sizes: Mapping[str, int],
    likely: Sequence[str] = (),
    path: str = "",
    alone: bool = False,
) -> DataError:
    """Make the error of a grid of which nobody said where its variables are.

    Parameters
    ----------
    name, sizes, likely, path
        As in `feature_axis`.
    alone : bool
        Whether it may be one variable itself.
    """
    if len(sizes) < 2 and not alone:
        return DataError(f"{name} has the dimensions {_said(sizes)}: expected rows and columns")
    # Variables have names, or are mostly fewer than places or times.
    example = (likely or sorted(sizes, key=lambda dim: sizes[dim]))[0]
    itself = f", or {VARIABLE!r} if it is one variable itself" if alone else ""
    words = ["dask-em", "fit", path or "PATH", "-k", "8", "-o", "model.npz", "--features", example]
    return DataError(
        f"{name} has the dimensions {_said(sizes)}: which of them holds the variables? Each cell "
        f"of the others is a row. Name it by features{itself}; if it is {example!r}, in a shell: "
        f"{shell_words(words)}; in Python, GaussianMixture(n_components=8, features={example!r})"
    )


def _said(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{dim} ({n})" for dim, n in sizes.items()) or "none"
