"""Descriptions of fitted mixtures for tables and pictures, whatever the family.

Tables, pages and pictures know a model by `FittedMixture` and its components by
`ComponentDescription`; a family that offers one is drawn without a line of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..core.additive import Array
from ..core.em import EMState, Status
from ..core.family import Family
from ..core.objective import Objective
from ..core.profile import Profile, means_profile
from ..core.scoring import Answer, Predict
from ..data.options import ReadOptions

# Ten colours told apart under every common colour blindness, on white and on black
# (M. A. Petroff, Accessible color sequences for data visualization, 2021).
COLOURS = (
    "#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6",
    "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd",
)  # fmt: skip


# That of rows that are noise, between black and white.
NOISE_COLOUR = "#8a8a8a"


def colour(k: int) -> str:
    """Return the colour of component `k`, as #rrggbb; they repeat after ten.

    Examples
    --------
    >>> colour(0) == colour(10)
    True
    """
    return COLOURS[k % len(COLOURS)]


class ComponentDescription(Protocol):
    """Moments and marginals of the K components of a mixture over d columns."""

    @property
    def family(self) -> str:
        """Name of the family, as in "Gaussian"."""

    @property
    def structure(self) -> str:
        """The variant of the family, as in "full covariance"; may be empty."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of the d columns."""

    @property
    def means(self) -> Array:
        """Means, (k, d)."""

    @property
    def variances(self) -> Array:
        """Variances, (k, d)."""

    @property
    def answers(self) -> Mapping[int, Array]:
        """Probabilities of answers (k, c), by the columns that hold categories."""

    @property
    def counts(self) -> Collection[int]:
        """Numbers of the columns that hold whole numbers, of which marginals are probabilities."""

    @property
    def profiles(self) -> Sequence[Profile]:
        """Tables of the components by column, and how they are drawn."""

    def covariance(self, component: int, columns: Sequence[int]) -> Array:
        """Compute the covariance of one component between m columns, (m, m)."""

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""


class FittedMixture(Protocol):
    """A fitted mixture of any family, as reports and notebooks see it."""

    @property
    def n_components(self) -> int:
        """Number of components."""

    @property
    def n_features_in_(self) -> int:
        """Number of columns."""

    @property
    def weights_(self) -> Array:
        """Weights of the components, (k,)."""

    @property
    def state_(self) -> EMState:
        """Parameters of the best pass paired with their statistics."""

    @property
    def status_(self) -> Status:
        """The reason for which the fit ended."""

    @property
    def warnings_(self) -> Sequence[str]:
        """The warnings of the fit about its components."""

    @property
    def lower_bound_(self) -> float:
        """Mean log-likelihood per row, in nats."""

    @property
    def objective_(self) -> Objective:
        """The objective that the fit raised or lowered, and the value that it reached."""

    @property
    def n_iter_(self) -> int:
        """Passes of EM, and M-steps."""

    @property
    def n_reads_(self) -> int:
        """How often the data were read."""

    @property
    def n_sample_passes_(self) -> float:
        """Work on the sample, in passes over the data that would compute as much."""

    @property
    def history_(self) -> Sequence[Mapping[str, Any]]:
        """One record a pass."""

    @property
    def provenance_(self) -> Mapping[str, Any]:
        """Source, shape and type of the data, and what else is known of the fit."""

    @property
    def read_options(self) -> ReadOptions:
        """How the data are read."""

    def describe(self) -> ComponentDescription:
        """Describe the components in the units of the data."""

    def exact_overlap(self) -> Array | None:
        """Return how often a row of component i is taken for one of j, (k, k), if that is known."""

    def predictor(self, answers: Sequence[Answer]) -> Predict:
        """Return a function from rows (n, d) to a dict of answers."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters of the estimator."""


def colours(model: FittedMixture) -> Array:
    """Return the colours of the components of a mixture, and of its noise behind them, (p,)."""
    noise = [NOISE_COLOUR] * (model.state_.result.noise_box is not None)
    return np.array([*map(colour, range(model.n_components)), *noise])


def all_weights(model: FittedMixture) -> list[float]:
    """Return the weights of the components of a mixture, and that of its noise behind them."""
    found = model.state_.result
    noise = [] if found.noise_box is None else [found.noise_weight]
    return [*model.weights_.tolist(), *noise]


def noise_density(model: FittedMixture, j: int, x: Array) -> Array:
    """Compute the part of noise in the density of column j at m points, within its box, (m,)."""
    found = model.state_.result
    box = found.noise_box
    if box is None or not box.high[j] > box.low[j]:
        return np.zeros(len(x))
    inside = (x >= box.low[j]) & (x <= box.high[j])
    return np.asarray(found.noise_weight / (box.high[j] - box.low[j]) * inside)


def shares_among(model: FittedMixture) -> Array:
    """Return the weights of the components among themselves, without noise, (k,)."""
    return np.asarray(model.weights_ / model.weights_.sum())


def mixture_moments(weights: Array, components: ComponentDescription) -> tuple[Array, Array]:
    """Compute mean and standard deviation of all components in each column, (d,) and (d,).

    Examples
    --------
    >>> means, variances = np.array([[-1.0], [1.0]]), np.array([3.0, 3.0])
    >>> halves = GaussianDescription("spherical", "spherical", ["x"], means, variances)
    >>> mean, deviation = mixture_moments(np.array([0.5, 0.5]), halves)
    >>> mean.tolist(), deviation.tolist()
    ([0.0], [2.0])
    """
    weights = weights / weights.sum()
    mean = weights @ components.means
    variance = weights @ (components.variances + (components.means - mean) ** 2)
    return mean, np.sqrt(variance)


def names_of_columns(names: Array | None, d: int) -> list[str]:
    """Return the names of d columns, "column 3" where they have none.

    Examples
    --------
    >>> names_of_columns(None, 2)
    ['column 0', 'column 1']
    """
    return [f"column {j}" for j in range(d)] if names is None else [str(name) for name in names]


@dataclass(frozen=True)
class GaussianDescription:
    """Describe Gaussian components by their means and covariances.

    Attributes
    ----------
    constraint : str
        What the covariances are called.
    kind : {"full", "tied", "diag", "spherical"}
        How they are stored.
    columns : sequence of str
        Names of the d columns.
    means : (k, d) array
    covariances : array
        (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical.
    missing : bool
        Whether rows of which values are missing are described by the others.

    Examples
    --------
    >>> one = GaussianDescription(
    ...     "spherical", "spherical", ["x", "y"], np.zeros((1, 2)), np.array([4.0])
    ... )
    >>> one.variances
    array([[4., 4.]])
    >>> one.covariance(0, [0, 1])
    array([[4., 0.],
           [0., 4.]])
    """

    constraint: str
    kind: str
    columns: Sequence[str]
    means: Array
    covariances: Array
    missing: bool = False

    @property
    def family(self) -> str:
        """Name of the family."""
        return "Gaussian"

    @property
    def structure(self) -> str:
        """The structure of the covariances, in words."""
        more = ", values missing at random" if self.missing else ""
        return f"{self.constraint} covariance{more}"

    @property
    def answers(self) -> Mapping[int, Array]:
        """Probabilities of answers, of which there are none."""
        return {}

    @property
    def counts(self) -> Collection[int]:
        """Numbers of the columns that hold whole numbers, of which there are none."""
        return ()

    @property
    def profiles(self) -> Sequence[Profile]:
        """Means with their standard deviations."""
        return [means_profile(self.means, self.variances)]

    @property
    def variances(self) -> Array:
        """Variances, (k, d), whatever the structure."""
        covariances = np.asarray(self.covariances)
        if self.kind in ("full", "tied"):
            covariances = np.diagonal(covariances, axis1=-2, axis2=-1)
        elif self.kind == "spherical":
            covariances = covariances[:, None]
        return np.broadcast_to(covariances, self.means.shape)

    def covariance(self, component: int, columns: Sequence[int]) -> Array:
        """Compute the covariance of one component between m columns, (m, m)."""
        # Without making those of all other columns.
        chosen = np.ix_(columns, columns)
        if self.kind == "full":
            return np.asarray(self.covariances[component][chosen])
        if self.kind == "tied":
            return np.asarray(self.covariances[chosen])
        return np.diag(self.variances[component, columns])

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        widths = np.sqrt(self.variances[:, column])[:, None]
        z = (x - self.means[:, column, None]) / widths
        return np.asarray(np.exp(-(z**2) / 2) / (widths * np.sqrt(2 * np.pi)))


@dataclass(frozen=True)
class FamilyDescription:
    """Describe components of any family by what the family can say of itself.

    Attributes
    ----------
    components : Family
    columns : sequence of str
        Names of the d columns.
    """

    components: Family[Any]
    columns: Sequence[str]

    @property
    def family(self) -> str:
        """Name of the family."""
        return type(self.components).__name__

    @property
    def structure(self) -> str:
        """The variant of the family."""
        return self.components.structure

    @cached_property
    def _moments(self) -> tuple[Array, Array]:
        return self.components.moments()

    @property
    def means(self) -> Array:
        """Means, (k, d)."""
        return self._moments[0]

    @property
    def variances(self) -> Array:
        """Variances, (k, d)."""
        return self._moments[1]

    @property
    def answers(self) -> Mapping[int, Array]:
        """Probabilities of answers (k, c), by the columns that hold categories."""
        return self.components.answer_probabilities()

    @property
    def counts(self) -> Collection[int]:
        """Numbers of the columns that hold whole numbers, of which marginals are probabilities."""
        whole = np.broadcast_to(self.components.support.whole, len(self.columns))
        return np.flatnonzero(whole).tolist()

    @property
    def profiles(self) -> Sequence[Profile]:
        """Tables of the components by column, and how they are drawn."""
        return self.components.profiles()

    def covariance(self, component: int, columns: Sequence[int]) -> Array:
        """Compute the covariance of one component between m columns, (m, m)."""
        widths = np.sqrt(self.variances[component, list(columns)])
        correlations = self.components.correlations(component, columns)
        return np.asarray(correlations * np.outer(widths, widths))

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each component at m points, (k, m)."""
        return self.components.marginal(column, x)


@dataclass(frozen=True)
class ClusterDescription:
    """Describe clusters of K-means by their centres, and the spread of their rows about them.

    Attributes
    ----------
    structure : str
        The distance, in words.
    columns : sequence of str
        Names of the d columns.
    means : (k, d) array
        Centres.
    within : (k,) array
        Mean squared deviation of a column from the centre.

    Examples
    --------
    >>> one = ClusterDescription("Euclidean distance", ["x"], np.zeros((1, 1)), np.array([4.0]))
    >>> one.variances.tolist(), round(float(one.marginal(0, np.zeros(1))[0, 0]), 3)
    ([[4.0]], 0.199)
    """

    structure: str
    columns: Sequence[str]
    means: Array
    within: Array

    @property
    def family(self) -> str:
        """Name of the family."""
        return "K-means"

    @property
    def variances(self) -> Array:
        """Variances, (k, d)."""
        return np.broadcast_to(self.within[:, None], self.means.shape)

    @property
    def answers(self) -> Mapping[int, Array]:
        """Probabilities of answers, of which there are none."""
        return {}

    @property
    def counts(self) -> Collection[int]:
        """Numbers of the columns that hold whole numbers, of which there are none."""
        return ()

    @property
    def profiles(self) -> Sequence[Profile]:
        """Centres, with the standard deviation of a column about them."""
        return [means_profile(self.means, self.variances)]

    def covariance(self, component: int, columns: Sequence[int]) -> Array:
        """Compute the covariance of one cluster between m columns, (m, m)."""
        return np.diag(self.variances[component, list(columns)])

    def marginal(self, column: int, x: Array) -> Array:
        """Compute the density of one column under each cluster at m points, (k, m).

        That of a normal distribution of the cluster's spread; zero where it has none.
        """
        widths = np.sqrt(self.within)[:, None]
        safe = np.where(widths > 0, widths, 1.0)
        z = (x - self.means[:, column, None]) / safe
        found = np.exp(-(z**2) / 2) / (safe * np.sqrt(2 * np.pi))
        return np.where(widths > 0, found, 0.0)
