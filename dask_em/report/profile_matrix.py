"""The profile matrix: components by columns, in standard deviations of the whole mixture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..core.additive import Array
from ..estimators.describe import FittedMixture
from .axes import new_axes
from .entries import Entries
from .heat import Layout, Scale, draw_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows and columns of the matrix: more can't be read on a page.
MOST_COMPONENTS, MOST_ENTRIES = 50, 40

# From brown by white to blue, less to more, as bars of effects have it: told apart under every
# common colour blindness, and in grey the middle from the ends (ColorBrewer's PuOr and RdBu).
DIVERGING = (
    "#7f3b08", "#b35806", "#e08214", "#fdb863", "#fee0b6", "#f7f7f7",
    "#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061",
)  # fmt: skip

UNIT = "standard deviations\nfrom the mean of all"

# Standard deviations at which colours end.
FARTHEST = 3.0


@dataclass(frozen=True)
class ProfileMatrix:
    """Hold what tells components apart, column by column.

    Attributes
    ----------
    components : (r,) array of int
        Heaviest first.
    weights : (r,) array
    entries : Entries
        Of the columns that separate the components best, best first; an answer of a column of
        categories is an entry of its own.
    values : (r, m) array
        Means, or probabilities of answers, less those of the whole mixture, in its standard
        deviations.
    left_out : str
        Words on what is not in it; empty where all is.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(300, 2))
    >>> X[100:, 1] += 9
    >>> found = profile_matrix(GaussianMixture(2, random_state=0).fit(X))
    >>> found.entries.names, found.weights.round(1).tolist(), found.values[:, 0].round(1).tolist()
    (('column 1', 'column 0'), [0.7, 0.3], [0.7, -1.4])
    """

    components: Array
    weights: Array
    entries: Entries
    values: Array
    left_out: str

    @property
    def layout(self) -> Layout:
        """Names of the rows, components with their weights, and of the columns."""
        return Layout.of(component_names(self.components, self.weights), self.entries.names)


def component_names(components: Array, weights: Array) -> list[str]:
    """Return the numbers of components with their weights, in words.

    Examples
    --------
    >>> component_names(np.array([4, 0]), np.array([0.312, 0.004]))
    ['4 (31 %)', '0 (0.4 %)']
    """
    shares = [f"{100 * w:.0f}" if w >= 0.0095 else f"{100 * w:.1g}" for w in weights.tolist()]
    return [f"{k} ({share} %)" for k, share in zip(components.tolist(), shares, strict=True)]


def profile_matrix(
    model: FittedMixture, n_components: int = MOST_COMPONENTS, n_entries: int = MOST_ENTRIES
) -> ProfileMatrix:
    """Compute the profile matrix of a fitted mixture of any family, no larger than this.

    Columns are ordered by the share of their variance that is between components; that of a column
    of categories is that of its indicators together (Goodman and Kruskal's tau).
    """
    entries = Entries.of(model)
    d = int(entries.columns[-1]) + 1
    between, total = (
        np.bincount(entries.columns, weights=part, minlength=d)
        for part in (entries.between, entries.total)
    )
    share = np.divide(between, total, out=np.zeros(d), where=total > 0)
    order = np.argsort(-share, kind="stable")
    reach = np.cumsum(np.bincount(entries.columns, minlength=d)[order])
    n_columns = max(1, int(np.searchsorted(reach, n_entries, side="right")))
    chosen = entries.of_columns(order[:n_columns])
    # One column of very many answers alone.
    if len(chosen.columns) > n_entries:
        first = np.argsort(-chosen.between, kind="stable")[:n_entries]
        chosen = chosen.take(first)
    heaviest = np.argsort(-model.weights_, kind="stable")[:n_components]
    k = model.n_components
    told = [f"the {n_columns} of {d} columns that separate best"] if n_columns < d else []
    told += [f"the {len(heaviest)} heaviest of {k} components"] if len(heaviest) < k else []
    left_out = f"Shown are {' and '.join(told)}." if told else ""
    values = chosen.standardized[heaviest]
    return ProfileMatrix(heaviest, model.weights_[heaviest], chosen, values, left_out)


def plot_profile_matrix(
    model: FittedMixture, ax: Axes | None = None, matrix: ProfileMatrix | None = None
) -> Axes:
    """Draw what each component is like in each column, in colours.

    Means, and probabilities of answers, less those of the whole mixture, in its standard
    deviations: blue is more than in all rows, brown is less. Components are ordered by weight,
    columns by how well they separate the components; 50 components and 40 columns at most.

    Parameters
    ----------
    model : fitted mixture
    ax : matplotlib Axes, optional
    matrix : ProfileMatrix, optional
        What `report.profile_matrix.profile_matrix` computes of the model.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from matplotlib.figure import Figure
    >>> X = np.random.default_rng(0).normal(size=(300, 3)) + 9 * np.eye(3)[np.arange(300) % 2]
    >>> gm = GaussianMixture(2, random_state=0).fit(X)
    >>> plot_profile_matrix(gm, Figure().subplots()).get_ylabel()
    'component (share of all)'
    """
    found = profile_matrix(model) if matrix is None else matrix
    ax = new_axes(ax, found.layout.size)
    reach = float(np.clip(np.abs(found.values).max(initial=0.0), 0.5, FARTHEST))

    def told(i: int, j: int, value: float) -> str:
        return f"component {found.components[i]}, {found.entries.names[j]}: {value:+.2f}"

    scale = Scale(DIVERGING, -reach, reach, UNIT, _signed, told)
    draw_matrix(ax, found.values, found.layout, scale)
    ax.set_ylabel("component (share of all)")
    ax.set_title(found.left_out.removeprefix("Shown are ").removesuffix("."))
    return ax


def _signed(value: float) -> str:
    """Return the words in a cell.

    Examples
    --------
    >>> _signed(1.26), _signed(-0.04)
    ('+1.3', '0.0')
    """
    return f"{value:+.1f}" if abs(value) >= 0.05 else "0.0"
