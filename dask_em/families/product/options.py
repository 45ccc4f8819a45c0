"""Options of products of families: what is known of each group before it has parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...core.additive import Array
from ...core.family import Family, FamilyOptions
from ...core.moments import Moments
from ...core.support import Support
from .columns import called_within, support_of
from .family import Product


@dataclass(frozen=True, eq=False)
class Group:
    """Hold some columns and the options of the family that describes them.

    Attributes
    ----------
    name : str
    columns : tuple of int
    options : FamilyOptions
    """

    name: str
    columns: tuple[int, ...]
    options: FamilyOptions


@dataclass(frozen=True, eq=False)
class ProductOptions(FamilyOptions):
    """Hold the options by which the groups of columns are initialized.

    Attributes
    ----------
    groups : tuple of Group
        Every column is in one.
    variant : str
        What sweeps and files call the kind.

    Examples
    --------
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> wide = Group("position", (0, 2), GaussianOptions("full"))
    >>> options = ProductOptions((wide, Group("size", (1,), GaussianOptions("diag"))))
    >>> options.n_parameters(k=3, d=3)
    21
    >>> options.start_coordinates(np.eye(3), Moments.unit(3)).shape
    (3, 3)
    """

    groups: tuple[Group, ...]
    variant: str = ""

    @property
    def kind(self) -> str:
        return self.variant

    @property
    def support(self) -> Support:
        return support_of([(group.options.support, group.columns) for group in self.groups])

    @property
    def base_measure(self) -> tuple[str, ...]:
        found = [""] * sum(len(group.columns) for group in self.groups)
        for group in self.groups:
            own = group.options.base_measure
            for i, j in enumerate(group.columns):
                found[j] = own[i if len(own) > 1 else 0]
        return tuple(found)

    @property
    def many_optima(self) -> bool:
        return any(group.options.many_optima for group in self.groups)

    @property
    def all_given(self) -> bool:
        return all(group.options.all_given for group in self.groups)

    def of_data(self, moments: Moments, k: int) -> Product:
        """Return k components alike, each of which describes all of the data."""
        parts = [g.options.of_data(moments.columns(g.columns), k) for g in self.groups]
        return self._product(parts)

    def to_sum_labels(self, moments: Moments, k: int) -> Product:
        """Return k components alike, at which labelled rows are summed for `of_labels`."""
        groups = self.groups
        return self._product(
            [g.options.to_sum_labels(moments.columns(g.columns), k) for g in groups]
        )

    def of_labels(
        self, moments: Moments, at: Any, resp_sum: Array, statistics: Any
    ) -> Sequence[Product]:
        """Return where a fit may start: the first of each group, then the second, and so on."""
        each = [
            group.options.of_labels(moments.columns(group.columns), part, resp_sum, sums)
            for group, part, sums in zip(self.groups, at.parts, statistics.parts, strict=True)
        ]
        n = max(map(len, each))
        return [self._product([one[min(i, len(one) - 1)] for one in each]) for i in range(n)]

    def joint_moments(self, d: int) -> bool:
        """Return whether any group needs products of columns."""
        return any(g.options.joint_moments(len(g.columns)) for g in self.groups)

    def _product(self, parts: Sequence[Family[Any]]) -> Product:
        names = tuple(group.name for group in self.groups)
        columns = tuple(group.columns for group in self.groups)
        return Product(names, columns, tuple(parts), self.variant)

    def with_given(self, components: Any) -> Product:
        """Return a start's components with those parameters that the user gave."""
        found: Product = components
        groups = zip(self.groups, found.parts, strict=True)
        return self._product([group.options.with_given(part) for group, part in groups])

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return sampled rows (m, p) as the clustering of a start sees them.

        They are the coordinates of the groups side by side, each group's divided by the root of
        their total variance, so that none outweighs another by its number of columns.
        """
        found = [
            group.options.start_coordinates(rows[:, group.columns], moments.columns(group.columns))
            for group in self.groups
        ]
        if len(found) == 1:
            return found[0]
        totals = [float(part.var(axis=0).sum()) for part in found]
        return np.concatenate(
            [part / np.sqrt(t if t > 0 else 1.0) for part, t in zip(found, totals, strict=True)],
            axis=1,
        )

    def refusal(self, moments: Moments, called: Callable[[Sequence[int]], str]) -> str:
        """Return why the columns of a group have no fit; empty where all have."""
        for group in self.groups:
            inner = moments.columns(group.columns)
            found = group.options.refusal(inner, called_within(group.columns, called))
            if found:
                return found
        return ""

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return what is odd about the columns of each group."""
        found = []
        for group in self.groups:
            own = [i for i, j in enumerate(group.columns) if j in constant]
            inner = moments.columns(group.columns)
            found += group.options.warnings(inner, own, called_within(group.columns, called))
        return found
