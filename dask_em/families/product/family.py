"""Products of families: groups of columns that are independent given the component.

p(x | k) is the product over groups g of p_g(x_g | k), x_g the columns of the group. So
log-densities add, sums are those of the groups side by side, and each group has its own M-step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from ...core.additive import Array
from ...core.degenerate import Degenerate
from ...core.engine import NUMPY, Engine
from ...core.family import Family, register_family
from ...core.profile import Profile
from ...core.support import Support
from .columns import called_within, support_of
from .kernel import ProductKernel
from .parameters import ProductParameters
from .statistics import ProductStatistics


@register_family("product")
@dataclass(frozen=True)
class Product(ProductParameters, Family[ProductStatistics]):
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
    >>> from dask_em.core.moments import Moments
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
        return self.with_parts([part for part, _ in found]), sorted(collapsed)

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

    def gain(self, resp_sum: Array, statistics: ProductStatistics, after: Self) -> float:
        """Compute what sum_nk r_nk log p(x_n | k) gains at least by going from here to `after`."""
        parts = zip(self.parts, statistics.parts, after.parts, strict=True)
        return sum(part.gain(resp_sum, sums, other) for part, sums, other in parts)

    @property
    def has_prior(self) -> bool:
        """Whether priors determine components of any number of rows."""
        return all(part.has_prior for part in self.parts)

    def log_prior_density(self) -> float:
        """Compute the logarithm of the parameters' prior density, in nats, up to a constant."""
        return sum(part.log_prior_density() for part in self.parts)

    def constrained(self, resp_sum: Array) -> Self:
        """Return the components nearest to these that obey what joins them, of weights (k,)."""
        return self.with_parts([part.constrained(resp_sum) for _, _, part in self])

    def near(self, X: Array, resp: Array) -> Self:
        """Return a family about which sums under `resp` (n, k) lose no digits."""
        return self.with_parts([part.near(X[:, columns], resp) for _, columns, part in self])

    def descriptions(self, X: Array, resp: Array) -> Sequence[Self]:
        """Return the first description of each group, then the second, and so on."""
        each = [part.descriptions(X[:, columns], resp) for _, columns, part in self]
        n = max(map(len, each))
        return [self.with_parts([one[min(i, len(one) - 1)] for one in each]) for i in range(n)]

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
    def linear(self) -> bool:  # type: ignore[override]
        """Whether log p(x | k) is linear in what is summed of a row."""
        return all(part.linear for part in self.parts)

    @property
    def carries(self) -> bool:  # type: ignore[override]
        """Whether sums at earlier parameters may join those at later ones."""
        return all(part.carries for part in self.parts)

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

    def join_key(self, engine: Engine) -> Hashable:
        """Return what products must have in common to be `joined`; None if this stays alone."""
        keys = [part.join_key(engine) for part in self.parts]
        return None if None in keys else (type(self), self.names, self.columns, *keys)

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

    def answer_probabilities(self) -> Mapping[int, Array]:
        """Return the probabilities of answers (k, c), by the columns that hold categories."""
        return {
            columns[j]: found
            for _, columns, part in self
            for j, found in part.answer_probabilities().items()
        }

    def answers_in(self, X: Array, column: int) -> Array:
        """Return the numbers of the categories in a column of rows (n, d)."""
        ((own, part),) = [(own, part) for _, own, part in self if column in own]
        return part.answers_in(X[:, own], own.index(column))

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
        alone = len(self.parts) == 1
        found = []
        for _, columns, part in self:
            warn = part.warnings if alone else part.group_warnings
            found += warn(weights, called_within(columns, called))
        return found
