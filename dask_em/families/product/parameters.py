"""Parameters of products of families, as arrays and as one vector."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ...core.additive import Array
from ...core.family import Family
from ...core.formula import Formula, Operators, V
from ...core.support import Support
from ...core.validation import brief, require
from .columns import support_of
from .statistics import ProductStatistics


@dataclass(frozen=True)
class ProductParameters:
    """Hold the parameters of each group of columns.

    Attributes
    ----------
    names : tuple of str
        Of the groups.
    columns : tuple of tuple of int
        Of each group; every column is in one.
    parts : tuple of Family
        Of K components each.
    variant : str
        What sweeps and files call the kind.
    """

    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    parts: tuple[Family[Any], ...]
    variant: str = ""

    def __iter__(self) -> Iterator[tuple[str, list[int], Family[Any]]]:
        columns = map(list, self.columns)
        return zip(self.names, columns, self.parts, strict=True)

    def with_parts(self, parts: Sequence[Family[Any]]) -> Self:
        """Return the product with these in place of its parts."""
        return replace(self, parts=tuple(parts))

    def softened(self) -> Self:
        """Return the product of softened parts."""
        return self.with_parts([part.softened() for part in self.parts])

    @property
    def n_components(self) -> int:
        """K."""
        return self.parts[0].n_components

    @property
    def n_features(self) -> int:
        """D, the number of columns."""
        return sum(map(len, self.columns))

    @property
    def n_parameters(self) -> int:
        """Free parameters, the mixing weights not counted."""
        return sum(part.n_parameters for part in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return sum(part.nbytes for part in self.parts)

    @property
    def held_bytes(self) -> int:
        """Bytes of the parameters, with what was derived from them and is kept."""
        return sum(part.held_bytes for part in self.parts)

    @property
    def statistics_bytes(self) -> int:
        """Bytes of the sufficient statistics of any number of rows."""
        return sum(part.statistics_bytes for part in self.parts)

    def arrays(self) -> dict[str, Array]:
        """Return the parameters of all groups, named "group.parameter"."""
        return {
            f"{name}.{inner}": array
            for name, _, part in self
            for inner, array in part.arrays().items()
        }

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """Return the family with these `arrays` in place of its own."""
        return self.with_parts(
            [
                part.with_arrays({n: arrays[f"{name}.{n}"] for n in part.arrays()})
                for name, _, part in self
            ]
        )

    def validate(self, statistics: ProductStatistics) -> None:
        """Raise `ValueError` that names what of the parameters, or of their sums, is wrong."""
        require("statistics", statistics, type(statistics) is ProductStatistics)
        counts = {len(self.names), len(self.columns), len(self.parts), len(statistics.parts)}
        require("groups", self.names, len(counts) == 1 and 0 not in counts)
        require("names of the groups", self.names, len({*self.names}) == len(self.names))
        numbers = [j for columns in self.columns for j in columns]
        require("columns of the groups", numbers, sorted(numbers) == [*range(len(numbers))])
        for (name, columns, part), sums in zip(self, statistics.parts, strict=True):
            require(f"group {brief(name)}", columns, len(columns) > 0)
            part.validate(sums)
            require(f"columns of {brief(name)}", columns, part.n_features == len(columns))
            k = part.n_components
            require(f"n_components of {brief(name)}", k, k == self.n_components)

    def parameters(self) -> dict[str, Array]:
        """Return what determines each group: names that two groups have begin with the group's."""
        own = [part.parameters() for part in self.parts]
        return {
            names[inner]: array
            for part, names in zip(own, self._public_names(own), strict=True)
            for inner, array in part.items()
        }

    @property
    def optional_parameters(self) -> tuple[str, ...]:
        """Names of `parameters` that `with_parameters` does without."""
        public = self._public_names([part.parameters() for part in self.parts])
        pairs = zip(self.parts, public, strict=True)
        return tuple(names[own] for part, names in pairs for own in part.optional_parameters)

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return the product of groups of such parameters."""
        public = self._public_names([part.parameters() for part in self.parts])
        return self.with_parts(
            [
                part.with_parameters({n: given[name] for n, name in names.items() if name in given})
                for part, names in zip(self.parts, public, strict=True)
            ]
        )

    @property
    def formula_support(self) -> Support:
        """Which numbers the formulas of the groups describe."""
        return support_of([(part.formula_support, columns) for _, columns, part in self])

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write the sum of the log-densities of the groups."""
        formulas = [part.formula(operators, operators.columns(rows, cs)) for _, cs, part in self]
        components = formulas[0].components
        for one in formulas[1:]:
            components = operators.add(components, one.components)
        commons = [one.common for one in formulas if one.common is not None]

        def common() -> V:
            first, *others = (write() for write in commons)
            for other in others:
                first = operators.add(first, other)
            return first

        return Formula(components, common if commons else None)

    def attributes(self) -> dict[str, Array]:
        """Return what an estimator shows: names that two groups have begin with the group's."""
        public = self._public_names([part.attribute_shapes() for part in self.parts])
        return {
            name: array
            for part, names in zip(self.parts, public, strict=True)
            for name, array in _renamed(part.attributes(), names).items()
        }

    def attribute_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of `attributes`."""
        shapes = [part.attribute_shapes() for part in self.parts]
        public = self._public_names(shapes)
        return {
            name: shape
            for own, names in zip(shapes, public, strict=True)
            for name, shape in _renamed(own, names).items()
        }

    def check_attributes(self, found: Mapping[str, Array]) -> None:
        """Raise `ValueError` where arrays of a file are not `attributes`, but for rounding."""
        public = self._public_names([part.attribute_shapes() for part in self.parts])
        for part, names in zip(self.parts, public, strict=True):
            part.check_attributes({own: found[name] for own, name in names.items()})

    def _public_names(self, own: Sequence[Mapping[str, object]]) -> list[dict[str, str]]:
        """Return what each group's attributes are called, by the name that its family gives."""
        taken = [name for names in own for name in names]
        return [
            {n: n if taken.count(n) == 1 else f"{_identifier(group)}_{n}" for n in names}
            for group, names in zip(self.names, own, strict=True)
        ]

    def take(self, components: Sequence[int]) -> Self:
        """Return the family of some components, in this order."""
        return self.with_parts([part.take(components) for part in self.parts])

    def joined(self, parts: Sequence[Self]) -> Self:
        """Return the components of all parts side by side."""
        groups = zip(*(part.parts for part in parts), strict=True)
        return self.with_parts(
            [own.joined(others) for own, others in zip(self.parts, groups, strict=True)]
        )

    def to_unconstrained(self) -> Array:
        """Return the parameters of the groups one after another, as one vector, (p,)."""
        return np.concatenate([part.to_unconstrained() for part in self.parts])

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family whose `to_unconstrained` is this vector."""
        ends = np.cumsum([len(part.to_unconstrained()) for part in self.parts])[:-1]
        vectors = np.split(vector, ends)
        return self.with_parts(
            [part.from_unconstrained(v) for part, v in zip(self.parts, vectors, strict=True)]
        )

    def information_scale(self, root_weights: Array) -> Array:
        """Return about the square root of the complete data's information, (p,)."""
        return np.concatenate([part.information_scale(root_weights) for part in self.parts])


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[own]: value for own, value in values.items()}


def _identifier(name: str) -> str:
    return name.replace("-", "_")
