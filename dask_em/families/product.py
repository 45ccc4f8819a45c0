"""Products of families: groups of columns that are independent given the component.

p(x | k) is the product over groups g of p_g(x_g | k), x_g the columns of the group. So
log-densities add, sums are those of the groups side by side, and each group has its own M-step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from ..core.additive import Additive, Array
from ..core.codec import record
from ..core.degenerate import Degenerate
from ..core.engine import NUMPY, Engine
from ..core.family import Family, FamilyOptions, Kernel, register_family
from ..core.moments import Moments
from ..core.profile import Profile
from ..core.responsibilities import Arithmetic
from ..core.support import REAL, Support, supports_of_columns
from ..core.validation import brief, require


@record("product-statistics")
@dataclass(frozen=True)
class ProductStatistics(Additive):
    """Hold the sufficient statistics of each group of columns.

    Examples
    --------
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normal = GaussianOptions().of_data(Moments.unit(1), 2)
    >>> sums = normal.sufficient_statistics(np.array([[2.0]]), np.array([[0.5, 0.5]]))
    >>> both = ProductStatistics((sums, sums))
    >>> (both + both).parts[1].first.tolist()
    [[2.0], [2.0]]
    """

    parts: tuple[Additive, ...]


class ProductKernel(Kernel[ProductStatistics]):
    """Give the columns of each group to the kernel of its family, and add log-densities.

    Parameters
    ----------
    product : Product
    engine : Engine
        Several groups are computed in float64 on the CPU, whatever it says.
    """

    def __init__(self, product: Product, engine: Engine) -> None:
        alone = len(product.parts) == 1
        own = engine if alone else replace(engine, single=False, device="cpu")
        self._kernels = [part.kernel(own) for part in product.parts]
        self.block_rows = min(kernel.block_rows for kernel in self._kernels)
        whole = alone and product.columns[0] == (*range(product.n_features),)
        self._columns = [None if whole else np.array(columns) for columns in product.columns]
        self._gathered: dict[int, Array] = {}

    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""
        for i, (kernel, columns) in enumerate(zip(self._kernels, self._columns, strict=True)):
            kernel.load(X if columns is None else self._gather(i, X, columns))

    def _gather(self, i: int, X: Array, columns: Array) -> Array:
        """Return the columns of group i, in their own type, in a buffer of the group."""
        buffer = self._gathered.get(i)
        if buffer is None or buffer.dtype != X.dtype:
            # A kernel may keep the rows until they are accumulated.
            buffer = self._gathered[i] = np.empty((self.block_rows, len(columns)), X.dtype)
        # Out of bounds is nothing here; with a check, NumPy would write to a copy.
        return np.take(X, columns, axis=1, out=buffer[: len(X)], mode="clip")

    def log_prob(self) -> Array:
        """Return log p(x | component) of the current block (k, b), for the caller to overwrite."""
        first, *others = self._kernels
        total = first.log_prob()
        for kernel in others:
            total += kernel.log_prob()
        return total

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sufficient statistics under `resp` (k, b)."""
        for kernel in self._kernels:
            kernel.accumulate(resp)

    def statistics(self) -> ProductStatistics:
        """Return the sums over all blocks accumulated so far."""
        return ProductStatistics(tuple(kernel.statistics() for kernel in self._kernels))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most."""
        gathered = sum(8 * self.block_rows * len(c) for c in self._columns if c is not None)
        return gathered + sum(kernel.nbytes for kernel in self._kernels)

    def arithmetic(self, engine: Engine, k: int) -> Arithmetic:
        """Return the operations on what `log_prob` returns, for at most k components at a time."""
        if len(self._kernels) == 1:
            return self._kernels[0].arithmetic(engine, k)
        return super().arithmetic(engine, k)


@register_family("product")
@dataclass(frozen=True)
class Product(Family[ProductStatistics]):
    """Hold K components, each the product of a distribution for each group of columns.

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

    Examples
    --------
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> wide = GaussianOptions("full").of_data(Moments.unit(2), 3)
    >>> one = GaussianOptions("diag").of_data(Moments.unit(1), 3)
    >>> both = Product(("position", "size"), ((0, 2), (1,)), (wide, one))
    >>> both.n_components, both.n_features, both.n_parameters == 3 * (2 + 3 + 1 + 1)
    (3, 3, True)
    >>> X = np.array([[1.0, -1.0, 2.0]])
    >>> parts = wide.log_prob(X[:, [0, 2]]) + one.log_prob(X[:, [1]])
    >>> bool(np.allclose(both.log_prob(X), parts))
    True
    """

    names: tuple[str, ...]
    columns: tuple[tuple[int, ...], ...]
    parts: tuple[Family[Any], ...]
    variant: str = ""

    def __iter__(self) -> Iterator[tuple[str, list[int], Family[Any]]]:
        columns = map(list, self.columns)
        return zip(self.names, columns, self.parts, strict=True)

    def _with(self, parts: Sequence[Family[Any]]) -> Self:
        return replace(self, parts=tuple(parts))

    # -- passes, and the M-step --------------------------------------------------------

    def kernel(self, engine: Engine = NUMPY) -> ProductKernel:
        """Return a kernel with sums of zero."""
        return ProductKernel(self, engine)

    def maximize(
        self, resp_sum: Array, statistics: ProductStatistics
    ) -> tuple[Self, Sequence[int]]:
        """Return the M-step of each group, and the components that collapsed in any.

        One that collapsed in some group keeps its parameters there, and has a maximum in the
        others, so the log-likelihood cannot fall.
        """
        found = [
            part.maximize(resp_sum, sums)
            for part, sums in zip(self.parts, statistics.parts, strict=True)
        ]
        collapsed = {int(k) for _, kept in found for k in kept}
        return self._with([part for part, _ in found]), sorted(collapsed)

    def expected_log_joint(
        self, log_weights: Array, resp_sum: Array, statistics: ProductStatistics
    ) -> float:
        """Compute sum_nk r_nk (log w_k + log p(x_n | k)) from sums, in nats."""
        total = 0.0
        for part, sums in zip(self.parts, statistics.parts, strict=True):
            total += part.expected_log_joint(log_weights, resp_sum, sums)
            # They count once.
            log_weights = np.zeros_like(log_weights)
        return total

    def recentre(
        self, resp_sum: Array, statistics: ProductStatistics, to: Self
    ) -> ProductStatistics:
        """Return sums about the centres of this object as sums about those of `to`."""
        parts = zip(self.parts, statistics.parts, to.parts, strict=True)
        return ProductStatistics(
            tuple(part.recentre(resp_sum, sums, other) for part, sums, other in parts)
        )

    def near(self, X: Array, resp: Array) -> Self:
        """Return a family about which sums under `resp` (n, k) lose no digits."""
        return self._with([part.near(X[:, columns], resp) for _, columns, part in self])

    def merge_losses(
        self, pairs: Sequence[tuple[int, int]], totals: Array, X: Array, resp: Array
    ) -> list[float]:
        """Compute what sum r log p loses, in nats, where the two of each pair become one."""
        losses = [part.merge_losses(pairs, totals, X[:, cs], resp) for _, cs, part in self]
        return [sum(each) for each in zip(*losses, strict=True)]

    # -- what it is ----------------------------------------------------------------------

    @property
    def shares_statistics(self) -> bool:  # type: ignore[override]
        """Whether some statistic belongs to all components together."""
        return any(part.shares_statistics for part in self.parts)

    @property
    def support(self) -> Support:
        """Which numbers have a density, column by column."""
        return support_of([(part.support, columns) for _, columns, part in self])

    @property
    def kind(self) -> str:
        """Which variant of the family this is."""
        return self.variant

    @property
    def structure(self) -> str:
        """The groups, and how many columns each has, in words."""
        said = []
        for name, columns, part in self:
            inner = f", {part.structure}" if part.structure else ""
            said.append(f"{name} ({len(columns)} column{'s' * (len(columns) > 1)}{inner})")
        return " x ".join(said)

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

    # -- the parameters as arrays ----------------------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the parameters of all groups, named "group.parameter"."""
        return {
            f"{name}.{inner}": array
            for name, _, part in self
            for inner, array in part.arrays().items()
        }

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """Return the family with these `arrays` in place of its own."""
        return self._with(
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
        return self._with([part.take(components) for part in self.parts])

    def joined(self, parts: Sequence[Self]) -> Self:
        """Return the components of all parts side by side."""
        groups = zip(*(part.parts for part in parts), strict=True)
        return self._with(
            [own.joined(others) for own, others in zip(self.parts, groups, strict=True)]
        )

    def join_key(self, engine: Engine) -> Hashable:
        """Return what products must have in common to be `joined`; None if this stays alone."""
        keys = [part.join_key(engine) for part in self.parts]
        return None if None in keys else (type(self), self.names, self.columns, *keys)

    def to_unconstrained(self) -> Array:
        """Return the parameters of the groups one after another, as one vector, (p,)."""
        return np.concatenate([part.to_unconstrained() for part in self.parts])

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family whose `to_unconstrained` is this vector."""
        ends = np.cumsum([len(part.to_unconstrained()) for part in self.parts])[:-1]
        vectors = np.split(vector, ends)
        return self._with(
            [part.from_unconstrained(v) for part, v in zip(self.parts, vectors, strict=True)]
        )

    def information_scale(self, root_weights: Array) -> Array:
        """Return about the square root of the complete data's information, (p,)."""
        return np.concatenate([part.information_scale(root_weights) for part in self.parts])

    # -- rows ----------------------------------------------------------------------------

    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component, in the units of the data."""
        return self._columnwise(n, [part.sample(component, n, rng) for part in self.parts])

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        means, variances = zip(*(part.moments() for part in self.parts), strict=True)
        k = self.n_components
        return self._columnwise(k, means), self._columnwise(k, variances)

    def _columnwise(self, n: int, found: Sequence[Array]) -> Array:
        """Return values (n, d) whose columns are those of each group, (n, d_g)."""
        out = np.empty((n, self.n_features))
        for columns, values in zip(self.columns, found, strict=True):
            out[:, list(columns)] = values
        return out

    def coordinates(self, X: Array) -> Array:
        """Return rows in coordinates in which directions may be compared, group after group."""
        return np.concatenate([part.coordinates(X[:, cs]) for _, cs, part in self], axis=1)

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations of one component between m columns, (m, m): none of groups."""
        found = np.eye(len(columns))
        for _, own, part in self:
            inside = [i for i, j in enumerate(columns) if j in own]
            if inside:
                local = [own.index(columns[i]) for i in inside]
                found[np.ix_(inside, inside)] = part.correlations(component, local)
        return found

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        ((own, part),) = [(own, part) for _, own, part in self if column in own]
        return part.marginal(own.index(column), x)

    def profiles(self) -> list[Profile]:
        """Return the tables of every group."""
        groups = [(name, columns, part.profiles()) for name, columns, part in self]
        alone = len(groups) == 1
        return [
            profile.within(columns, "" if alone else name)
            for name, columns, profiles in groups
            for profile in profiles
        ]

    # -- what is odd -----------------------------------------------------------------------

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components that are degenerate in some group, by the columns of all."""
        return [
            replace(
                one,
                columns=tuple(columns[j] for j in one.columns),
                combined=tuple(columns[j] for j in one.combined),
            )
            for _, columns, part in self
            for one in part.degenerate(weights)
        ]

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return what is odd about components in each group."""
        return [
            message
            for _, columns, part in self
            for message in part.warnings(weights, _called_within(columns, called))
        ]


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
    def all_given(self) -> bool:
        return all(group.options.all_given for group in self.groups)

    def of_data(self, moments: Moments, k: int) -> Product:
        """Return k components alike, each of which describes all of the data."""
        parts = [g.options.of_data(moments.columns(g.columns), k) for g in self.groups]
        return self._product(parts)

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

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return what is odd about the columns of each group."""
        found = []
        for group in self.groups:
            own = [i for i, j in enumerate(group.columns) if j in constant]
            inner = moments.columns(group.columns)
            found += group.options.warnings(inner, own, _called_within(group.columns, called))
        return found


def support_of(parts: Sequence[tuple[Support, Sequence[int]]]) -> Support:
    """Return the support of columns of which each part describes some.

    Examples
    --------
    >>> support_of([(REAL, [1]), (REAL, [0])]) is REAL
    True
    """
    if all(support.is_real for support, _ in parts):
        return REAL
    return supports_of_columns(parts, sum(len(columns) for _, columns in parts))


def _called_within(
    columns: Sequence[int], called: Callable[[Sequence[int]], str]
) -> Callable[[Sequence[int]], str]:
    """Return how messages name columns that are numbered within a group."""
    return lambda inside: called([columns[j] for j in inside])


def _renamed(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names[own]: value for own, value in values.items()}


def _identifier(name: str) -> str:
    return name.replace("-", "_")
