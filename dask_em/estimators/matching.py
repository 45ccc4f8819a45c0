"""Components of two models matched to each other, and what moved between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.agreement import least_matching
from .describe import ComponentDescription

# What moved most in a pair of components: all numbers are in the models.
MOST_MOVES = 5
# Variances below this share of the columns' mean variance have no direction of their own.
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class Move:
    """Tell of one parameter of a matched pair of components.

    Attributes
    ----------
    what : {"mean", "deviation", "share"}
        Of a column; "share" is the probability of a category.
    column : str
        Its name; with a share also the category's number.
    before, after : float
        In the first and the second model.
    size : float
        How far that is: a mean in the mean deviation of both components, a deviation by the
        logarithm of its ratio, the shares of a column by their total variation.
    """

    what: str
    column: str
    before: float
    after: float
    size: float


@dataclass(frozen=True)
class Pair:
    """Tell of a component of the first model and the one of the second that it is matched to.

    Attributes
    ----------
    first, second : int
        Their numbers.
    weights : tuple of float
        Of both.
    distance : float
        The Bhattacharyya distance between them: 0 where they are alike.
    moves : tuple of Move
        What moved most, at most five.
    """

    first: int
    second: int
    weights: tuple[float, float]
    distance: float
    moves: tuple[Move, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the pair as JSON has it."""
        return {**asdict(self), "weights": list(self.weights), "moves": [*map(asdict, self.moves)]}


def matched(
    ours: ComponentDescription,
    theirs: ComponentDescription,
    order: Sequence[int],
    weights: tuple[Array, Array],
) -> list[Pair]:
    """Match components so that the sum of the distances of all pairs is least.

    Parameters
    ----------
    ours, theirs : ComponentDescription
    order : sequence of int
        The column of `theirs` for each of `ours`.
    weights : tuple of (a,) and (b,) array

    Returns
    -------
    list of Pair
        As many as the model of fewer components has, by the number in the first.

    Examples
    --------
    >>> from dask_em.estimators.describe import GaussianDescription
    >>> means = np.array([[0.0], [9.0]])
    >>> ours = GaussianDescription("spherical", "spherical", ["x"], means, np.ones(2))
    >>> theirs = GaussianDescription("spherical", "spherical", ["x"], means[::-1], np.ones(2))
    >>> halves = np.array([0.5, 0.5])
    >>> [(one.first, one.second) for one in matched(ours, theirs, [0], (halves, halves))]
    [(0, 1), (1, 0)]
    """
    apart = distances(ours, theirs, order)
    return [
        Pair(
            i,
            j,
            (float(weights[0][i]), float(weights[1][j])),
            float(apart[i, j]),
            tuple(_moves(ours, theirs, order, i, j)[:MOST_MOVES]),
        )
        for i, j in least_matching(apart)
    ]


def distances(
    ours: ComponentDescription, theirs: ComponentDescription, order: Sequence[int]
) -> Array:
    """Compute the Bhattacharyya distances of components, -log integral sqrt(p_i q_j), (a, b).

    Columns of categories are taken as independent, as their models do. Those of numbers count by
    the normal distribution of the component's means and covariances (Fukunaga, Introduction to
    Statistical Pattern Recognition, 1990, equation 3.152): of normals this is exact, and of other
    families a distance of their moments.

    Examples
    --------
    >>> from dask_em.estimators.describe import GaussianDescription
    >>> at = [np.array([[mean]]) for mean in (0.0, 2.0)]
    >>> one, two = (
    ...     GaussianDescription("spherical", "spherical", ["x"], mean, np.ones(1)) for mean in at
    ... )
    >>> distances(one, two, [0]).tolist()
    [[0.5]]
    """
    found = np.zeros((len(ours.means), len(theirs.means)))
    categories = ours.answers
    for j, shares in categories.items():
        likeness = np.sqrt(shares) @ np.sqrt(theirs.answers[order[j]]).T
        found -= np.log(np.clip(likeness, np.finfo(float).tiny, 1.0))
    numbers = [j for j in range(len(order)) if j not in categories]
    return found + _of_normals(ours, theirs, numbers, [order[j] for j in numbers])


def _of_normals(
    ours: ComponentDescription,
    theirs: ComponentDescription,
    own: Sequence[int],
    other: Sequence[int],
) -> Array:
    """Compute the distances of normals in columns `own` of one, and `other` of the other."""
    found = np.zeros((len(ours.means), len(theirs.means)))
    if not own:
        return found
    variances = np.concatenate([ours.variances[:, own], theirs.variances[:, other]]).mean(axis=0)
    # Any unit of the columns gives the same distances.
    unit = np.sqrt(np.where(variances > 0, variances, 1.0))
    means = ours.means[:, own] / unit, theirs.means[:, other] / unit
    first, second = (
        [one.covariance(k, columns) / np.outer(unit, unit) for k in range(len(one.means))]
        for one, columns in ((ours, own), (theirs, other))
    )
    volumes = [[_log_volume(np.linalg.eigvalsh(c)) for c in each] for each in (first, second)]
    for i, j in np.ndindex(found.shape):
        values, axes = np.linalg.eigh((first[i] + second[j]) / 2)
        apart = (means[1][j] - means[0][i]) @ axes
        mahalanobis = float((apart**2 / np.maximum(values, LEAST_VARIANCE)).sum())
        volume = _log_volume(values) - (volumes[0][i] + volumes[1][j]) / 2
        found[i, j] = mahalanobis / 8 + max(0.0, volume) / 2
    return found


def _log_volume(values: Array) -> float:
    return float(np.log(np.maximum(values, LEAST_VARIANCE)).sum())


def _moves(
    ours: ComponentDescription,
    theirs: ComponentDescription,
    order: Sequence[int],
    i: int,
    j: int,
) -> list[Move]:
    """Return what moved from component i to component j, farthest first."""
    found = []
    categories = ours.answers
    for own, other in enumerate(order):
        name = ours.columns[own]
        if own in categories:
            found.append(_share_moved(name, categories[own][i], theirs.answers[other][j]))
            continue
        means = float(ours.means[i, own]), float(theirs.means[j, other])
        widths = np.sqrt([ours.variances[i, own], theirs.variances[j, other]])
        pooled = float(np.sqrt((widths**2).mean()))
        shift = abs(means[1] - means[0])
        if shift > 0:
            found.append(Move("mean", name, *means, shift / pooled if pooled > 0 else np.inf))
        if widths[0] != widths[1]:
            with np.errstate(divide="ignore"):
                size = float(abs(np.log(widths[1] / widths[0]))) if widths[0] > 0 else np.inf
            found.append(Move("deviation", name, float(widths[0]), float(widths[1]), size))
    return sorted((one for one in found if one.size > 0), key=lambda one: -one.size)


def _share_moved(name: str, before: Array, after: Array) -> Move:
    """Return the category of a column whose share changed most."""
    changes: Mapping[int, float] = dict(enumerate(np.abs(after - before).tolist()))
    c = max(changes, key=lambda one: changes[one])
    total = sum(changes.values()) / 2
    return Move("share", f"{name} = {c}", float(before[c]), float(after[c]), total)
