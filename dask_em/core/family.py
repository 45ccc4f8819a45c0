"""Families of distributions: what the components of a mixture are made of.

A family writes five things: where it starts (`FamilyOptions.of_data`), its log-densities and
sums (`Family.kernel`), its M-step (`maximize`), its expected log-density (`expected_log_joint`)
and draws (`sample`). Everything else here is derived, and may be overridden by what is quicker
or keeps more digits.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np

from ..errors import UsageError
from .additive import Additive, Array
from .codec import record
from .degenerate import Degenerate
from .engine import NUMPY, Engine
from .formula import Formula, Operators, V
from .moments import Moments
from .objective import Objective
from .profile import Profile, means_profile
from .responsibilities import Arithmetic, ListedResponsibilities, arithmetic_of
from .support import REAL, Support
from .validation import require, require_array, require_close

# Draws of a component from which moments are estimated that a family does not know.
MOMENT_DRAWS = 4096

# How a warning of columns ends that should be none; where they have names, the option follows.
LEAVE_OUT = "leave it out"


Sums = TypeVar("Sums", bound=Additive)


def no_noise(name: str) -> UsageError:
    """Return the error that components know nothing of the noise of rows.

    Examples
    --------
    >>> str(no_noise("Poisson")).partition(":")[0]
    'noise_covariance'
    """
    return UsageError(
        f"noise_covariance: {name} components are not told apart from the noise of rows; fit a "
        "GaussianMixture, or leave noise_covariance out"
    )


def blocks(n: int, size: int) -> Iterator[slice]:
    """Yield slices of at most `size` rows that cover `n` rows.

    Examples
    --------
    >>> list(blocks(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def array_bytes(*values: object) -> int:
    """Count the bytes of arrays, and of those in tuples; memory that several share counts once.

    Examples
    --------
    >>> rows = np.zeros((2, 3))
    >>> array_bytes(rows, rows.T, (np.ones(2), "name"))
    64
    """
    owners: dict[int, int] = {}
    for value in values:
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray):
                owner = array if array.base is None else array.base
                owners[id(owner)] = int(getattr(owner, "nbytes", array.nbytes))
    return sum(owners.values())


def _bytes_within(found: object) -> int:
    """Count the bytes of the arrays in a dataclass, and in those that it holds."""
    if isinstance(found, np.ndarray):
        return found.nbytes
    return sum(map(_bytes_within, vars(found).values())) if is_dataclass(found) else 0


class Kernel(ABC, Generic[Sums]):
    """Evaluate one family on blocks of rows and sum its statistics: the state of one task.

    Attributes
    ----------
    block_rows : int
        Rows of a block, at most.
    part_rows : int
        Rows of what `blocks` cuts, whole blocks: where rows come in parts, those of a part.
    divides : bool
        Whether `add_divided`, `divide` and `label` may be quicker than block by block.
    least_answered : int
        Rows of a chunk for which `divide` and `label` repay what they need.

    Examples
    --------
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> kernel = GaussianOptions().of_data(Moments.unit(1), 2).kernel()
    >>> kernel.load(np.array([[0.0], [2.0], [4.0]]))
    >>> kernel.log_prob().shape
    (2, 3)
    >>> kernel.accumulate(np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    >>> kernel.statistics().first.round(3).tolist()
    [[2.0], [4.0]]
    """

    block_rows: int
    divides: bool = False
    least_answered: int = 0

    @property
    def part_rows(self) -> int:
        """Rows of whole blocks."""
        return self.block_rows

    @abstractmethod
    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""

    @abstractmethod
    def log_prob(self) -> Array:
        """Return log p(x | component) of the current block (k, b), for the caller to overwrite."""

    @abstractmethod
    def accumulate(self, resp: Array) -> None:
        """Add the current block's sufficient statistics under `resp` (k, b)."""

    @abstractmethod
    def statistics(self) -> Sums:
        """Return the sums over all blocks accumulated so far."""

    def assign(self, log_prior: Array) -> Array | None:
        """Return the likeliest component of each row of the block (b,), by log priors (k,).

        None where there is no quicker way than by `log_prob`.
        """
        return None

    def add_assigned(self, log_prior: Array, weight: Array | None) -> tuple[float, Array] | None:
        """Give each row of the block to its likeliest component, and add the statistics.

        Returns
        -------
        float
            sum_n w_n max_k (log prior_k + log p(x_n | k)).
        (k,) array
            sum_n w_n of the rows of each component.

        None in place of both where there is no quicker way than by responsibilities.
        """
        return None

    def add_divided(
        self, X: Array, log_prior: Array, weight: Array | None
    ) -> tuple[float, Array] | None:
        """Divide rows X (b, d), b <= `part_rows`, by responsibilities, and add the statistics.

        By log priors (k,), so that components that do not count for a row need not be computed. No
        block stays loaded.

        Returns
        -------
        float
            sum_n w_n log p(x_n).
        (k,) array
            sum_n w_n r_nk.

        None in place of both where these rows are as quick block by block.
        """
        return None

    def divide(self, X: Array, log_prior: Array) -> ListedResponsibilities | None:
        """Return the responsibilities of rows X (b, d), b <= `part_rows`, that are not zero.

        By log priors (k,). None where these rows are as quick block by block. No block stays
        loaded, and what is returned stays until the next call.
        """
        return None

    def label(self, X: Array, log_prior: Array) -> Array | None:
        """Return the likeliest component of rows X (b, d), b <= `part_rows`, by log priors (k,).

        It is that of the largest `log_prob` plus log prior, and `UNDECIDED` where rounding decides
        which is the largest: there all must be computed. None where these rows are as quick block
        by block. No block stays loaded, and what is returned stays until the next call.
        """
        return None

    def blocks(self, X: Array) -> Iterator[slice]:
        """Yield the blocks of rows X (n, d) that are loaded one after the other.

        They are the same wherever X is cut into parts of whole `part_rows`. Blocks of other
        rows than these, of at most `block_rows`, may be loaded too.
        """
        return blocks(len(X), self.block_rows)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds once it has seen a whole block, at most.

        With what it takes to make the statistics, but without them and the family's own arrays.
        """
        return array_bytes(*vars(self).values())

    def arithmetic(self, engine: Engine, k: int) -> Arithmetic:
        """Return the operations on what `log_prob` returns, for at most k components at a time."""
        return arithmetic_of(engine, k, self.block_rows)


class Family(ABC, Generic[Sums]):
    """K component distributions in one frozen dataclass; every array of it leads with axis k.

    Attributes
    ----------
    shares_statistics : bool
        Whether some statistic belongs to all components together, and so has no axis k.
    linear : bool
        Whether log p(x | k) is linear in what is summed of a row, so that sums at one object tell
        it of any other. Where it is not, `recentre` gives a tangent, and `gain` a bound.
    carries : bool
        Whether sums of rows at earlier parameters, recentred, may join those of others at later
        ones, as where they are linear in the complete data: see `core.incremental`.
    equal_weights : bool
        Whether the components are equally likely before a row is seen: the weights of a mixture
        are then the shares of the rows, and have no part in the E-step.
    adaptable : bool
        Whether the means alone can be adapted to other rows, see `adapted`.
    variational : bool
        Whether it holds a posterior of its parameters, not a point: `log_prior_density` is then
        minus its divergence from the prior, what a fit raises is the variational bound on the
        log evidence, and people are told of that. Components without rows are the prior's.
    holdable : mapping of str to str
        Parameters of which those of some components may be held while all others are estimated,
        by the names that people know, each with the array that holds it. The M-step of what is
        not held must not depend on them, or `maximize_holding` be overridden.

    Examples
    --------
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normals = GaussianOptions().of_data(Moments.unit(2), 3)
    >>> normals.n_components, normals.n_features, normals.n_parameters
    (3, 2, 15)
    >>> normals.take([0, 2]).log_prob(np.zeros((5, 2))).shape
    (5, 2)
    """

    shares_statistics: ClassVar[bool] = False
    linear: ClassVar[bool] = True
    carries: ClassVar[bool] = True
    equal_weights: ClassVar[bool] = False
    adaptable: ClassVar[bool] = False
    variational: ClassVar[bool] = False
    holdable: ClassVar[Mapping[str, str]] = MappingProxyType({})

    # -- what a family writes ------------------------------------------------------

    @abstractmethod
    def kernel(self, engine: Engine = NUMPY) -> Kernel[Sums]:
        """Return a kernel with sums of zero."""

    @abstractmethod
    def maximize(self, resp_sum: Array, statistics: Sums) -> tuple[Self, Sequence[int]]:
        """Return the components that these statistics make most likely: the M-step.

        Parameters
        ----------
        resp_sum : (k,) array
            sum_n w_n r_nk.
        statistics : Additive
            What the kernel of this very object summed.

        Returns
        -------
        family
            A component without a maximum (no rows, or singular) keeps its parameters.
        collapsed : sequence of int
            The components that were kept.
        """

    @abstractmethod
    def expected_log_joint(self, log_weights: Array, resp_sum: Array, statistics: Sums) -> float:
        """Compute sum_nk r_nk (log w_k + log p(x_n | k)) from sums, in nats.

        The statistics may be of any responsibilities, or a difference of such sums; they are
        about the centres of this object, see `recentre`.
        """

    @abstractmethod
    def sample(self, component: int, n: int, rng: np.random.Generator) -> Array:
        """Draw n rows (n, d) of one component, in the units of the data."""

    # -- derived: which rows it describes --------------------------------------------

    @property
    def support(self) -> Support:
        """Which numbers have a density; rows of others have no answer."""
        return REAL

    @property
    def of_missing(self) -> str:
        """The end of a message on what else a model can do with NaN; empty where nothing."""
        return ""

    # -- derived: the parameters as arrays -------------------------------------------

    def arrays(self) -> dict[str, Array]:
        """Return the parameters by name; each leads with axis k and may take any real value."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def with_arrays(self, arrays: Mapping[str, Array]) -> Self:
        """Return the family with these `arrays` in place of its own."""
        return replace(self, **arrays)  # type: ignore[type-var]

    def validate(self, statistics: Sums) -> None:
        """Raise `ValueError` that names what of the parameters, or of their sums, is wrong."""
        for name, array in self.arrays().items():
            require(name, array, array.ndim > 0 and len(array) == self.n_components)
            require_array(name, array, array.shape)
        like = self.kernel().statistics()
        require("statistics", statistics, type(statistics) is type(like))
        for name, array in vars(like).items():
            sums = vars(statistics)[name]
            require_array(name, sums, np.shape(array), largest=np.finfo(np.float64).max)

    @property
    def n_components(self) -> int:
        """K."""
        return len(next(iter(self.arrays().values())))

    @property
    def kind(self) -> str:
        """Which variant of the family this is, as sweeps and files tell them apart."""
        return ""

    @property
    def structure(self) -> str:
        """The variant in words, for people; may be empty."""
        return self.kind

    @property
    def n_features(self) -> int:
        """D, the number of columns."""
        return int(self.sample(0, 1, np.random.default_rng(0)).shape[1])

    @property
    def n_parameters(self) -> int:
        """Free parameters, the mixing weights not counted."""
        return sum(a.size for a in self.arrays().values())

    @property
    def n_own(self) -> int:
        """Rows of a component below which what it shows is chance: as many as its parameters.

        To be overridden where each of them is estimated by columns of its own.
        """
        k = self.n_components
        shared = self.take(range(k - 1)).n_parameters if k > 1 else 0
        return self.n_parameters - shared

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""
        return sum(a.nbytes for a in self.arrays().values())

    @property
    def held_bytes(self) -> int:
        """Bytes of the parameters, with what was derived from them and is kept."""
        return _bytes_within(self)

    @property
    def statistics_bytes(self) -> int:
        """Bytes of the sufficient statistics of any number of rows."""
        return self.kernel().statistics().nbytes

    def attributes(self) -> dict[str, Array]:
        """Return what an estimator shows of the components, by the name it has there."""
        return {f"{name}_": array for name, array in self.arrays().items()}

    def attribute_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each of `attributes`; to be overridden where those are computed."""
        return {name: array.shape for name, array in self.attributes().items()}

    def check_attributes(self, found: Mapping[str, Array]) -> None:
        """Raise `ValueError` where arrays of a file are not `attributes`, but for rounding.

        To be overridden where more is lost to rounding, or where it can be told with less work.
        """
        for name, array in self.attributes().items():
            require_close(name, found[name], array, 1e-6 * np.abs(array).max())

    # -- derived: to and from elsewhere --------------------------------------------------

    @property
    def optional_parameters(self) -> tuple[str, ...]:
        """Names of `parameters` that `with_parameters` does without."""
        return ()

    def parameters(self) -> dict[str, Array]:
        """Return what determines the components, in the units of the data, by name.

        To be overridden, with `with_parameters`, where `attributes` show other numbers than the
        arrays are.
        """
        return self.arrays()

    def with_parameters(self, given: Mapping[str, Array]) -> Self:
        """Return components of such parameters, of whatever size, beside what else this holds.

        Raises
        ------
        ValueError
            A number is none of those allowed.
        """
        return self.with_arrays(given)

    @property
    def formula_support(self) -> Support:
        """Which numbers `formula` describes."""
        return self.support

    def formula(self, operators: Operators[V], rows: V) -> Formula[V]:
        """Write log p(x | k) of rows in the operators of another language.

        To be written by a family whose models can be exported as formulas.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks formula()")

    def take(self, components: Sequence[int]) -> Self:
        """Return the family of some components, in this order."""
        index = list(components)
        return self.with_arrays({name: a[index] for name, a in self.arrays().items()})

    def joined(self, parts: Sequence[Self]) -> Self:
        """Return the components of all parts side by side."""
        names = self.arrays()
        return self.with_arrays(
            {name: np.concatenate([p.arrays()[name] for p in parts]) for name in names}
        )

    def join_key(self, engine: Engine) -> Hashable:
        """Return what families must have in common to be `joined`; None if this stays alone."""
        shapes = tuple((name, a.shape[1:]) for name, a in self.arrays().items())
        return None if self.shares_statistics else (type(self), shapes)

    def to_unconstrained(self) -> Array:
        """Return the parameters as one vector, every value of which is a family, (p,)."""
        return np.concatenate([a.ravel() for a in self.arrays().values()])

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the family whose `to_unconstrained` is this vector."""
        arrays, start = {}, 0
        for name, like in self.arrays().items():
            arrays[name] = vector[start : start + like.size].reshape(like.shape)
            start += like.size
        return self.with_arrays(arrays)

    def information_scale(self, root_weights: Array) -> Array:
        """Return about the square root of the complete data's information, (p,).

        It multiplies each unconstrained parameter for it to count as much as it matters.

        Parameters
        ----------
        root_weights : (k,) array
            Square roots of the mixing weights.
        """
        shapes = [a.shape for a in self.arrays().values()]
        return np.concatenate(
            [np.repeat(root_weights, int(np.prod(s[1:], dtype=int))) for s in shapes]
        )

    # -- derived: weights ------------------------------------------------------------

    def log_prior(self, log_weights: Array) -> Array:
        """Return what the E-step adds to log-densities for each component, (k,): log weights.

        To be overridden where weights have a distribution, of which it takes the mean logarithm.
        """
        return log_weights

    def own_log_weights(self) -> Array | None:
        """Return the log mixing weights that follow from the components, (k,); None where none do.

        A mixture's weights are then these, and are no parameters beside the components'.
        """
        return None

    # -- derived: components that are nearly equal ------------------------------------

    def alike(self) -> Array | None:
        """Return by which component each is computed, (k,) of int; None where each is by itself.

        To be overridden where some may be so nearly equal that no sum tells them apart. Rows of
        such families have no labels.
        """
        return None

    def shared_out(self, statistics: Sums, places: Array, shares: Array) -> Sums:
        """Return sums of k components of those of fewer.

        Parameters
        ----------
        statistics : Additive
            Of c components.
        places : (k,) array of int
            Of which of them each is a part.
        shares : (k,) array
            Which part.
        """
        taken = statistics.take(places.tolist())
        return taken.plus(taken, shares - 1.0)

    # -- derived: rows ---------------------------------------------------------------

    def log_prob(self, X: Array) -> Array:
        """Compute the log-density of each row under each component, (n, k)."""
        kernel = self.kernel()
        out = np.empty((len(X), self.n_components))
        for rows in kernel.blocks(X):
            kernel.load(X[rows])
            out[rows] = kernel.log_prob().T
        return out

    def sufficient_statistics(self, X: Array, resp: Array) -> Sums:
        """Sum the statistics of the rows X (n, d) under `resp` (n, k)."""
        kernel = self.kernel()
        for rows in kernel.blocks(X):
            kernel.load(X[rows])
            kernel.accumulate(np.ascontiguousarray(resp[rows].T))
        return kernel.statistics()

    def constrained(self, resp_sum: Array) -> Self:
        """Return the components nearest to these that obey what joins them, of weights (k,)."""
        return self

    def near(self, X: Array, resp: Array) -> Self:
        """Return a family about which sums under `resp` (n, k) lose no digits."""
        return self

    def descriptions(self, X: Array, resp: Array) -> Sequence[Self]:
        """Return families as `near` does, all that are worth a start; the likeliest first."""
        return (self.near(X, resp),)

    def softened(self) -> Self:
        """Return components a little off the bounds of their parameters, where EM would stay.

        What is estimated of responsibilities that are no E-step's, of a start or a move, may lie
        there: an answer that no row of a start gave would never be given.
        """
        return self

    def coordinates(self, X: Array) -> Array:
        """Return rows (n, d) in coordinates in which directions may be compared."""
        return np.asarray(X, dtype=np.float64)

    def moments(self) -> tuple[Array, Array]:
        """Return mean and variance of each column in each component, (k, d) both."""
        rng = np.random.default_rng(0)
        draws = [self.sample(k, MOMENT_DRAWS, rng) for k in range(self.n_components)]
        return np.stack([x.mean(axis=0) for x in draws]), np.stack([x.var(axis=0) for x in draws])

    def correlations(self, component: int, columns: Sequence[int]) -> Array:
        """Return the correlations of one component between m columns, (m, m)."""
        draws = self.sample(component, MOMENT_DRAWS, np.random.default_rng(0))[:, list(columns)]
        apart = draws - draws.mean(axis=0)
        widths = np.sqrt((apart**2).sum(axis=0))
        return np.asarray((apart.T @ apart) / np.maximum(np.outer(widths, widths), 1e-300))

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        # scipy.stats takes longer to import than all that reads a model file.
        from scipy.stats import gaussian_kde

        rng = np.random.default_rng(0)
        draws = [self.sample(k, MOMENT_DRAWS, rng)[:, column] for k in range(self.n_components)]
        # Draws that are all alike have no density.
        return np.stack([gaussian_kde(y)(x) if np.ptp(y) else np.zeros(len(x)) for y in draws])

    def answer_probabilities(self) -> Mapping[int, Array]:
        """Return the probabilities of answers (k, c), by the columns that hold categories."""
        return {}

    def answers_in(self, X: Array, column: int) -> Array:
        """Return the numbers of the categories in a column of rows (n, d), NaN where there is none.

        Of columns that hold no categories, these are the numbers themselves.
        """
        return np.asarray(X[:, column], dtype=np.float64)

    def profiles(self) -> list[Profile]:
        """Return the tables by which pages describe the components: by default their means."""
        return [means_profile(*self.moments())]

    # -- derived: what is odd ----------------------------------------------------------

    def degenerate(self, weights: Array) -> list[Degenerate]:
        """Return the components whose width is the regularization's, given all weights (k,)."""
        return []

    def owed_to_prior(self, resp_sum: Array) -> list[Degenerate]:
        """Return the components whose width is the prior's, though they have rows (k,) enough."""
        return []

    def warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return what is odd about components of these weights (k,), for the user to be warned of.

        `called` returns how messages name some columns.
        """
        return []

    def group_warnings(self, weights: Array, called: Callable[[Sequence[int]], str]) -> list[str]:
        """Return what is odd although other columns, of other families, tell components apart."""
        return self.warnings(weights, called)

    # -- derived: sums ---------------------------------------------------------------

    def recentre(self, resp_sum: Array, statistics: Sums, to: Self) -> Sums:
        """Return sums about the centres of this object as sums about those of `to`."""
        return statistics

    def gain(self, resp_sum: Array, statistics: Sums, after: Self) -> float:
        """Compute what sum_nk r_nk log p(x_n | k) gains at least by going from here to `after`.

        From sums at this object, in nats: exactly where the family is `linear`.
        """
        zeros = np.zeros(len(resp_sum))
        moved = self.recentre(resp_sum, statistics, after)
        there = after.expected_log_joint(zeros, resp_sum, moved)
        return there - self.expected_log_joint(zeros, resp_sum, statistics)

    @property
    def has_prior(self) -> bool:
        """Whether a prior determines components of any number of rows."""
        return False

    def log_prior_density(self) -> float:
        """Compute the logarithm of the parameters' prior density, in nats, up to a constant.

        The M-step raises sum r log p plus this; it is zero where there is no prior.
        """
        return 0.0

    def with_merged(
        self, resp_sum: Array, statistics: Sums, pair: tuple[int, int]
    ) -> tuple[Self, Array, Sums]:
        """Return sums in which the rows of the second component of a pair are those of the first.

        To be written by a family that is `variational`.

        Returns
        -------
        family
            About whose centres they are.
        (k,) array
        Additive
        """
        raise NotImplementedError(f"{type(self).__name__} lacks with_merged()")

    def adapted(
        self, background: Self, resp_sum: Array, statistics: Sums, relevance: float
    ) -> Self:
        """Return the components with their means between the rows' and those of `background`.

        To be written by a family that is `adaptable`.

        Parameters
        ----------
        background : family
            Whose means the rows are weighed against.
        resp_sum : (k,) array
            n_k = sum_n w_n r_nk.
        statistics : Additive
            What the kernel of this very object summed.
        relevance : float
            Rows that each mean of `background` counts as.
        """
        raise NotImplementedError(f"{type(self).__name__} lacks adapted()")

    def maximize_holding(
        self, resp_sum: Array, statistics: Sums, held: Mapping[str, Sequence[int]]
    ) -> tuple[Self, Sequence[int]]:
        """Return the M-step over the parameters that are not held.

        Parameters
        ----------
        resp_sum, statistics
            As in `maximize`.
        held : mapping of str to sequence of int
            Components by the names of parameters, of `holdable`, that stay as they are in them.
        """
        found, collapsed = self.maximize(resp_sum, statistics)
        if not held:
            return found, collapsed
        whole = set.intersection(*({*held.get(name, ())} for name in self.holdable))
        return found.holding(self, held), [k for k in collapsed if k not in whole]

    def holding(self, of: Self, held: Mapping[str, Sequence[int]]) -> Self:
        """Return these components with the parameters of `of` that are held."""
        arrays, theirs = self.arrays(), of.arrays()
        for name, components in held.items():
            array, at = self.holdable[name], list(components)
            arrays[array] = arrays[array].copy()
            arrays[array][at] = theirs[array][at]
        return self.with_arrays(arrays) if held else self

    def n_held(self, held: Mapping[str, Sequence[int]]) -> int:
        """Count the free parameters that are held."""
        arrays = self.arrays() if held else {}
        sizes = {name: arrays[self.holdable[name]][0].size for name in held}
        return sum(len(of) * sizes[name] for name, of in held.items())

    def relocated(self, resp_sum: Array, statistics: Sums) -> Sequence[int]:
        """Return the components without rows that `maximize` puts elsewhere instead of keeping.

        Where it puts them, the classification likelihood is higher.
        """
        return ()

    def profile_log_likelihood(self, resp_sum: Array, statistics: Sums) -> float | None:
        """Compute the log-likelihood by which models of several K are compared, in nats.

        None where it is that of the pass: a family that holds a parameter fixed while it is
        fitted takes it at its maximum here.
        """
        return None

    def profile_scale(self, resp_sum: Array, statistics: Sums) -> float:
        """Return what multiplies log p(x) of a row for its part of `profile_log_likelihood`."""
        return 1.0

    def inertia(self, statistics: Sums) -> float | None:
        """Sum the squared distances of rows to their centres; None where that says nothing."""
        return None

    def reported_objective(self, log_likelihood: float, weight: float) -> Objective:
        """Return what people are told of a pass that found this log-likelihood.

        Parameters
        ----------
        log_likelihood : float
            Mean per unit of weight, in nats.
        weight : float
            Sum of the weights of all rows.
        """
        return Objective.log_likelihood(log_likelihood)

    def merge_losses(
        self, pairs: Sequence[tuple[int, int]], totals: Array, X: Array, resp: Array
    ) -> list[float]:
        """Compute what sum r log p loses, in nats, where the two of each pair become one.

        Parameters
        ----------
        pairs : sequence of (int, int)
        totals : (k,) array
            sum_n w_n r_nk.
        X : (n, d) array
        resp : (n, k) array
            Responsibilities times weights.
        """
        return [self._merge_loss(pair, totals, X, resp) for pair in pairs]

    def _merge_loss(self, pair: tuple[int, int], totals: Array, X: Array, resp: Array) -> float:
        apart, one = self.take(pair), self.take(pair[:1])
        both = resp[:, list(pair)]
        return apart._value(X, both) - one._value(X, both.sum(axis=1, keepdims=True))

    def _value(self, X: Array, resp: Array) -> float:
        """Return sum r log p after the M-step of `resp`."""
        resp_sum = resp.sum(axis=0)
        sums = self.sufficient_statistics(X, resp)
        after, _ = self.maximize(resp_sum, sums)
        moved = self.recentre(resp_sum, sums, after)
        return after.expected_log_joint(np.zeros(len(resp_sum)), resp_sum, moved)


class FamilyOptions(ABC):
    """A family before it has parameters: what the options of an estimator say of it.

    Examples
    --------
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> options = GaussianOptions("diag")
    >>> options.kind, options.n_parameters(3, 2)
    ('diag', 12)
    >>> options.of_data(Moments.unit(2), 3).n_components
    3
    """

    @property
    def kind(self) -> str:
        """Which variant of the family this is, as in `Family.kind`."""
        return ""

    @property
    def support(self) -> Support:
        """Which numbers the family describes: a fit refuses others, and says where they are."""
        return REAL

    @property
    def variational(self) -> bool:
        """Whether models are compared by a bound on the evidence, as in `Family.variational`."""
        return False

    @property
    def n_factors(self) -> int | None:
        """Number of factors of a component, which sweeps tell models apart by; None without."""
        return None

    @property
    def many_optima(self) -> bool:
        """Whether few rows have so many optima that a fit of them begins from many clusters."""
        return False

    @property
    def truncates(self) -> bool:
        """Whether fractions within the support are taken at their whole part, with a warning."""
        return False

    @property
    def of_missing(self) -> str:
        """The end of a message on what else can be done with NaN; empty where nothing can."""
        return ""

    @property
    def base_measure(self) -> tuple[str, ...]:
        """The measure of values, "a density" or "a probability": of all columns alike, or of each.

        Likelihoods of two models are numbers of one kind where both say the same.
        """
        return tuple("a probability" if whole else "a density" for whole in self.support.whole)

    @abstractmethod
    def of_data(self, moments: Moments, k: int) -> Family[Any]:
        """Return k components alike, each of which describes all of the data."""

    def of_noisy_rows(self) -> FamilyOptions:
        """Return the same options for rows behind whose columns stands their known noise.

        Raises
        ------
        UsageError
            The family knows of none.
        """
        raise no_noise(type(self).__name__.removesuffix("Options"))

    def noisy(self, components: Family[Any]) -> Family[Any]:
        """Return components, of these options, for rows behind whose columns stands their noise.

        Raises
        ------
        UsageError
            The family knows of none.
        """
        raise no_noise(type(self).__name__.removesuffix("Options"))

    def to_sum_labels(self, moments: Moments, k: int) -> Family[Any]:
        """Return k components alike, at which labelled rows are summed for `of_labels`."""
        return self.of_data(moments, k)

    def of_labels(
        self, moments: Moments, at: Family[Any], resp_sum: Array, statistics: Any
    ) -> Sequence[Family[Any]]:
        """Return where a fit may start that begins with labels: the M-step of their sums.

        To be overridden where responsibilities do not determine components, and several may be.

        Parameters
        ----------
        moments : Moments
            Of all data.
        at : family
            What `to_sum_labels` returned.
        resp_sum : (k,) array
        statistics : Additive
            What the kernel of `at` summed.
        """
        return (at.maximize(resp_sum, statistics)[0],)

    def joint_moments(self, d: int) -> bool:
        """Return whether `of_data` needs products of the d columns, or each by itself will do."""
        return True

    def start_coordinates(self, rows: Array, moments: Moments) -> Array:
        """Return sampled rows (m, d) as the clustering of a start sees them."""
        return moments.standardized(rows)

    def with_given(self, components: Family[Any]) -> Family[Any]:
        """Return a start's components with those parameters that the user gave."""
        return components

    @property
    def all_given(self) -> bool:
        """Whether the user gave all parameters of the components."""
        return False

    def warnings(
        self, moments: Moments, constant: Sequence[int], called: Callable[[Sequence[int]], str]
    ) -> list[str]:
        """Return what is odd about data of these moments, for the user to be warned of.

        Parameters
        ----------
        moments : Moments
        constant : sequence of int
            Columns that do not vary.
        called : callable
            Returns how messages name some columns.

        Returns
        -------
        list of str
            To those that end with `LEAVE_OUT` is added how constant columns are left out.
        """
        if not constant:
            return []
        return [
            f"X does not vary in {called(constant)}: such a column tells components nothing apart; "
            f"{LEAVE_OUT}"
        ]

    def refusal(self, moments: Moments, called: Callable[[Sequence[int]], str]) -> str:
        """Return why data of these moments have no fit, whatever the rows; empty where they have.

        Parameters
        ----------
        moments : Moments
        called : callable
            Returns how messages name some columns.

        Returns
        -------
        str
            To one that ends with `LEAVE_OUT` is added how columns without a value are left out.
        """
        return ""

    def n_parameters(self, k: int, d: int) -> int:
        """Count the free parameters of k components in d columns, of which nothing is known."""
        return self.of_data(Moments.unit(d), k).n_parameters

    def n_parameters_of(self, k: int, moments: Moments) -> int:
        """Count the free parameters of k components for data of these moments.

        To be overridden where there are as many whatever the data.
        """
        return self.of_data(moments, k).n_parameters


F = TypeVar("F", bound=Family[Any])


def register_family(tag: str) -> Callable[[type[F]], type[F]]:
    """Register a frozen dataclass as a family that files may hold, under an explicit tag.

    Examples
    --------
    >>> from dask_em.core.codec import tag_of
    >>> from dask_em.families.gaussian.family import Gaussian
    >>> tag_of(Gaussian)  # decorated by register_family("gaussian")
    'gaussian'
    """
    return record(tag)
