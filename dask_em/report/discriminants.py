"""Discriminant projection: the plane in which the components are farthest apart."""

from __future__ import annotations

from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..estimators.describe import FittedMixture, colours
from .axes import (
    MOST_LABELLED,
    answer_of,
    heaviest,
    new_axes,
    number_component,
    outline_component,
    real_rows,
    scatter_rows,
    shortened,
)
from .entries import Entries

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Entries that the projection is made of, those that separate best.
MOST_ENTRIES = 200

# Columns that an axis names, and letters of a name, and of a line of them.
MOST_NAMED, LONGEST_NAME, LONGEST_LINE = 3, 18, 44

# Share of the largest variance within components below which a direction is none: of columns that
# are sums of others, as answers and shares are.
LEAST_VARIANCE = 1e-10


@dataclass(frozen=True)
class Discriminants:
    """Hold two axes on which the components of a mixture are farthest apart.

    They maximize the variance between the components' means where the mean variance within them
    is one (Fisher 1936; Rao 1948). Where the means of two components, or of one, leave an axis
    open, it is the direction in which the components' variances differ most (Cook and Weisberg
    1991, "SAVE"). Both stay the same under affine maps of the columns.

    Attributes
    ----------
    entries : Entries
    center : (m,) array
    axes : (m, 2) array
        A row of entries less the center, times these, is a point of the plane.
    shares : (2,) array
        Shares of the variance between means that each axis has.
    loadings : (m, 2) array
        Correlations of the entries with the axes in the whole mixture.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(600, 4))
    >>> X[:300, 2] += 8
    >>> found = discriminants(GaussianMixture(2, random_state=0).fit(X))
    >>> int(np.abs(found.loadings[:, 0]).argmax()), found.shares.round(2).tolist()
    (2, [1.0, 0.0])
    """

    entries: Entries
    center: Array
    axes: Array
    shares: Array
    loadings: Array

    def project(self, rows: Array) -> Array:
        """Return rows of entries (n, m) as points of the plane, (n, 2)."""
        return np.asarray((rows - self.center) @ self.axes)

    def covariance(self, component: int) -> Array:
        """Compute the covariance of a component in the plane, (2, 2)."""
        return np.asarray(self.axes.T @ self.entries.covariance(component) @ self.axes)

    def named(self, axis: int) -> str:
        """Return an axis in words: its share, and the columns that go with it most."""
        loads = self.loadings[:, axis]
        order = np.argsort(-np.abs(loads), kind="stable")[:MOST_NAMED]
        words = [
            f"{shortened(self.entries.names[i], LONGEST_NAME)} {loads[i]:+.1f}"
            for i in order
            if abs(loads[i]) >= 0.05
        ]
        # A line ends between columns, never within the words on one.
        lines = fill(", ".join(word.replace(" ", "\xa0") for word in words), LONGEST_LINE)
        return lines.replace("\xa0", " ")


def discriminants(model: FittedMixture) -> Discriminants:
    """Compute the discriminant axes of a mixture from its parameters, without any rows.

    Of families of counts or amounts by their means and variances, of categories by the
    probabilities of answers.
    """
    entries = Entries.of(model)
    if len(entries.columns) > MOST_ENTRIES:
        total = entries.total
        share = np.divide(entries.between, total, out=np.zeros_like(total), where=total > 0)
        best = np.sort(np.argsort(-share, kind="stable")[:MOST_ENTRIES])
        entries = entries.take(best)
    shares, center = entries.shares, entries.center
    covariances = [entries.covariance(k) for k in range(len(shares))]
    within = np.einsum("k,kij->ij", shares, np.stack(covariances))
    apart = entries.means - center
    whitened = _whitening(within)
    means = apart @ whitened
    values, axes = np.linalg.eigh((means.T * shares) @ means)
    values, axes = np.maximum(values[::-1], 0.0), axes[:, ::-1]
    # Of k means, no more than k - 1 directions are apart; what is beyond is rounding.
    rank = min(len(shares) - 1, len(values), 2)
    rank = int((values[:rank] > 1e-9 * max(1.0, values[:1].sum())).sum())
    chosen = axes[:, :rank]
    if rank < 2:
        chosen = np.hstack([chosen, _of_widths(whitened, covariances, shares, chosen, 2 - rank)])
    found = whitened @ chosen
    found = found * _signs(entries.means @ found - center @ found, found)
    total = within + (apart.T * shares) @ apart
    deviations = np.sqrt(np.outer(np.diagonal(total), np.diagonal(found.T @ total @ found)))
    loadings = np.divide(total @ found, deviations, out=np.zeros_like(found), where=deviations > 0)
    separated = np.append(values, [0.0, 0.0])[:2] / max(values.sum(), 1e-300)
    return Discriminants(entries, center, found, separated, loadings)


def _whitening(within: Array) -> Array:
    """Return a map (m, q) to coordinates in which `within` (m, m) is one, q its rank."""
    scale = np.sqrt(np.maximum(np.diagonal(within), 0.0))
    inverse = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    values, axes = np.linalg.eigh(within * np.outer(inverse, inverse))
    kept = values > LEAST_VARIANCE * max(values[-1], 1e-300)
    return np.asarray(inverse[:, None] * axes[:, kept] / np.sqrt(values[kept]))


def _of_widths(
    whitened: Array, covariances: list[Array], shares: Array, chosen: Array, n: int
) -> Array:
    """Return n directions, at right angles to those chosen, in which variances differ most."""
    q = whitened.shape[1]
    free = np.eye(q) - chosen @ chosen.T
    differ = np.zeros((q, q))
    for share, covariance in zip(shares, covariances, strict=True):
        own = free @ (whitened.T @ covariance @ whitened - np.eye(q)) @ free
        differ += share * own @ own
    # Directions that are taken come last.
    axes = np.linalg.eigh(differ - chosen @ chosen.T)[1][:, ::-1]
    found = np.zeros((q, n))
    given = axes[:, : min(n, q - chosen.shape[1])]
    found[:, : given.shape[1]] = given
    return found


def _signs(points: Array, axes: Array) -> Array:
    """Return signs (2,) by which the component farthest out is on the positive side."""
    found = []
    for place in range(axes.shape[1]):
        values = points[:, place] if np.abs(points[:, place]).max() > 1e-9 else axes[:, place]
        found.append(-1.0 if values[np.abs(values).argmax()] < 0 else 1.0)
    return np.array(found)


def plot_discriminants(
    model: FittedMixture,
    X: Array | None = None,
    ax: Axes | None = None,
    found: Discriminants | None = None,
) -> Axes:
    """Draw rows and components in the plane in which the components are farthest apart.

    One unit is one standard deviation within components; ellipses are at 1 and 2 standard
    deviations. Axes name the columns that go with them most, with their correlations.

    Parameters
    ----------
    model : fitted mixture
    X : (n, d) array, optional
        Rows; those that lack a value are left out.
    ax : matplotlib Axes, optional
    found : Discriminants, optional
        What `report.discriminants.discriminants` computes of the model.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from matplotlib.figure import Figure
    >>> X = np.random.default_rng(0).normal(size=(600, 4))
    >>> X[:300, 2] += 8
    >>> gm = GaussianMixture(2, random_state=0).fit(X)
    >>> plot_discriminants(gm, X, Figure().subplots()).get_xlabel()
    'column 2 +1.0\\n(100 % of the separation)'
    """
    found = discriminants(model) if found is None else found
    ax = new_axes(ax, (6, 5))
    if X is not None:
        X = real_rows(X, model.n_features_in_)
        points = found.project(found.entries.rows(model, X))
        known = np.isfinite(points).all(axis=1)
        labels = answer_of(model, X[known], "labels") if known.any() else np.empty(0, int)
        scatter_rows(ax, points[known], labels, colours(model))
    means = found.project(found.entries.means)
    for k in heaviest(model.weights_):
        outline_component(ax, k, means[k], found.covariance(k))
        if model.n_components <= MOST_LABELLED:
            number_component(ax, k, means[k])
    ax.autoscale_view()
    shares = [f"({100 * share:.0f} % of the separation)" for share in found.shares]
    ax.set_xlabel(f"{found.named(0)}\n{shares[0]}", parse_math=False)
    second = shares[1] if found.shares[1] > 0.005 else "(where variances differ most)"
    ax.set_ylabel(f"{found.named(1)}\n{second}", parse_math=False)
    return ax
