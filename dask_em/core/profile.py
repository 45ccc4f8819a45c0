"""Profiles: tables of components by columns by which a family describes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np

from .additive import Array

Picture = Literal["bands", "bars"]
"""Means over columns with a band of their width, or a bar for each value."""


@dataclass(frozen=True)
class Profile:
    """Hold one table of components by columns, or by the values that a column takes.

    Attributes
    ----------
    title : str
        What the numbers are: "Means".
    columns : tuple of int
        The columns that they are of; with entries one for all of them, or one each.
    values : (k, m) array
    widths : (k, m) array, optional
        Half of the band about each: one standard deviation.
    entries : tuple of str
        What each of the m numbers is of, as the categories of a column; empty where they are of
        `columns`, one after another.
    picture : {"bands", "bars"}

    Examples
    --------
    >>> import numpy as np
    >>> rates = Profile("Rates", (0, 1), np.array([[2.0, 1.0], [0.5, 3.0]]), picture="bars")
    >>> rates.within((4, 7)).columns
    (4, 7)
    """

    title: str
    columns: tuple[int, ...]
    values: Array
    widths: Array | None = None
    entries: tuple[str, ...] = ()
    picture: Picture = "bands"

    def within(self, columns: Sequence[int], group: str = "") -> Self:
        """Return the profile of a group of columns, which are numbered among all of them."""
        title = f"{self.title}, {group}" if group else self.title
        return replace(self, columns=tuple(columns[j] for j in self.columns), title=title)

    def names(self, columns: Sequence[str]) -> list[str]:
        """Return what each number is of, given the names of all columns."""
        if not self.entries:
            return [columns[j] for j in self.columns]
        of = self.columns * len(self.entries) if len(self.columns) == 1 else self.columns
        return [f"{columns[j]} = {entry}" for j, entry in zip(of, self.entries, strict=True)]


def means_profile(means: Array, variances: Array) -> Profile:
    """Return the profile of means and variances (k, d) of all columns: bands of one deviation.

    Examples
    --------
    >>> import numpy as np
    >>> means_profile(np.zeros((1, 2)), np.array([[4.0, 9.0]])).widths
    array([[2., 3.]])
    """
    return Profile("Means", (*range(means.shape[1]),), means, np.sqrt(variances))
