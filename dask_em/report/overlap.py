"""The overlap matrix: how often rows of one component are taken for rows of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from ..core.additive import Array
from ..estimators.describe import FittedMixture
from .axes import answer_of, new_axes, real_rows
from .heat import Layout, Scale, draw_matrix

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Components of a matrix, the heaviest: more can't be read on a page.
MOST_COMPONENTS = 50

# Draws of each component, where there are neither closed forms nor rows.
N_DRAWS = 2000

# From white to dark blue: told apart by lightness alone (ColorBrewer's Blues).
COLOURS = (
    "#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c",
    "#08306b",
)  # fmt: skip

Way = Literal["exact", "rows", "draws"]


@dataclass(frozen=True)
class Overlaps:
    """Hold how often rows of one component are taken for rows of another.

    Attributes
    ----------
    components : (r,) array of int
        Heaviest first.
    values : (r, r) array
        At [i, j] the probability that w_j p_j(x) is larger than w_i p_i(x) for x of component i
        (Maitra and Melnykov, Journal of Computational and Graphical Statistics 19, 2010); NaN on
        the diagonal, and where a component has no rows.
    way : {"exact", "rows", "draws"}
        How they are known: in closed form, or estimated from rows or draws.
    n : int
        Rows or draws of all components.

    Examples
    --------
    >>> found = Overlaps(np.array([1, 0]), np.array([[np.nan, 0.1], [0.3, np.nan]]), "exact", 0)
    >>> found.worst
    (0, 1, 0.3, 0.1)
    """

    components: Array
    values: Array
    way: Way
    n: int

    @property
    def worst(self) -> tuple[int, int, float, float] | None:
        """The two components of the largest overlap, and how often each is taken for the other.

        The first is the one that is taken for the second more often. None where no two overlap.
        """
        both = np.nan_to_num(self.values, nan=0.0)
        if not both.any():
            return None
        i, j = (int(n) for n in np.unravel_index(int((both + both.T).argmax()), both.shape))
        if both[i, j] < both[j, i]:
            i, j = j, i
        return (
            int(self.components[i]),
            int(self.components[j]),
            float(both[i, j]),
            float(both[j, i]),
        )

    @property
    def layout(self) -> Layout:
        """Numbers of the components, twice."""
        names = [str(k) for k in self.components.tolist()]
        return Layout.of(names, names)

    @property
    def told(self) -> str:
        """How the numbers are known, in words."""
        return {
            "exact": "exact, of the model's parameters",
            "rows": f"estimated from {self.n:,} rows",
            "draws": f"estimated from {self.n:,} draws of the model",
        }[self.way]


def overlaps(model: FittedMixture, X: Array | None = None) -> Overlaps:
    """Compute how often rows of one component are taken for rows of another.

    In closed form where the model has one that takes no more than seconds; else estimated from the
    responsibilities r of rows, sum_n r_ni [r_nj > r_ni] / sum_n r_ni. Without rows, and of a hard
    assignment, whose responsibilities tell of none, from draws: of clusters those of normals of
    their spread.

    Parameters
    ----------
    model : fitted mixture
    X : (n, d) array, optional

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.array([[-1.0], [1.0], [3.0], [5.0]])
    >>> start = {"means_init": [[0], [4]], "precisions_init": np.ones((2, 1, 1))}
    >>> gm = GaussianMixture(2, max_iter=0, weights_init=[0.5, 0.5], **start).fit(X)
    >>> found = overlaps(gm)
    >>> found.way, found.values.round(4).tolist()
    ('exact', [[nan, 0.0228], [0.0228, nan]])
    """
    heaviest = np.argsort(-model.weights_, kind="stable")[:MOST_COMPONENTS]
    exact = model.exact_overlap()
    way: Way = "draws"
    if exact is not None:
        values, n, way = exact[np.ix_(heaviest, heaviest)], 0, "exact"
    elif X is not None and not _is_hard(model):
        values, n, way = _of_rows(model, X)[np.ix_(heaviest, heaviest)], len(X), "rows"
    else:
        values, n = _of_draws(model, heaviest), N_DRAWS * len(heaviest)
    np.fill_diagonal(values, np.nan)
    return Overlaps(heaviest, values, way, n)


def _is_hard(model: FittedMixture) -> bool:
    return model.state_.result.assignment == "hard"


def _of_rows(model: FittedMixture, X: Array) -> Array:
    k = model.n_components
    resp = answer_of(model, real_rows(X, model.n_features_in_), "proba")[:, :k]
    resp = resp[np.isfinite(resp).all(axis=1)]
    sizes, found = resp.sum(axis=0), np.full((k, k), np.nan)
    for i in np.flatnonzero(sizes > 0):
        found[i] = resp[:, i] @ (resp > resp[:, [i]]) / sizes[i]
    return found


def _of_draws(model: FittedMixture, components: Array) -> Array:
    rng, k, described = np.random.default_rng(0), len(components), model.describe()
    found = np.empty((k, k))
    for place, i in enumerate(components.tolist()):
        if _is_hard(model):
            widths = np.sqrt(described.variances[i])
            rows = described.means[i] + widths * rng.normal(size=(N_DRAWS, len(widths)))
        else:
            rows = model.state_.result.components.sample(i, N_DRAWS, rng)
        joint = answer_of(model, rows, "log_prob")
        found[place] = (joint[:, components] > joint[:, [i]]).mean(axis=0)
    return found


def plot_overlap(
    model: FittedMixture,
    X: Array | None = None,
    ax: Axes | None = None,
    found: Overlaps | None = None,
) -> Axes:
    """Draw how often rows of each component are taken for rows of each other one.

    The pair that overlaps most has a frame. The title says how the numbers are known: exactly, or
    from rows, or draws of the model.

    Parameters
    ----------
    model : fitted mixture
    X : (n, d) array, optional
        Rows for models that have no closed form.
    ax : matplotlib Axes, optional
    found : Overlaps, optional
        What `report.overlap.overlaps` computes of the model.

    Returns
    -------
    matplotlib Axes

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from matplotlib.figure import Figure
    >>> X = np.random.default_rng(0).normal(size=(300, 1)) + 9.0 * (np.arange(300) % 2)[:, None]
    >>> gm = GaussianMixture(2, random_state=0).fit(X)
    >>> plot_overlap(gm, ax=Figure().subplots()).get_title()
    "exact, of the model's parameters"
    """
    found = overlaps(model, X) if found is None else found
    ax = new_axes(ax, found.layout.size)
    percent = 100 * found.values
    top = max(1.0, float(np.nan_to_num(percent).max(initial=0.0)))
    numbers = found.components.tolist()

    def told(i: int, j: int, value: float) -> str:
        return f"{_percent(value)} % of the rows of {numbers[i]} are taken for {numbers[j]}"

    scale = Scale(COLOURS, 0.0, top, "% of its rows", _percent, told)
    draw_matrix(ax, percent, found.layout, scale)
    if (worst := found.worst) is not None and worst[2] > LEAST_FRAMED:
        from matplotlib.patches import Rectangle

        places = {k: place for place, k in enumerate(numbers)}
        i, j = places[worst[0]], places[worst[1]]
        for x, y in ((j, i), (i, j)):
            frame = Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, lw=1.6, ec=WORST, zorder=3)
            ax.add_patch(frame)
    ax.set_xlabel("is taken for component")
    ax.set_ylabel("a row of component")
    ax.set_title(found.told)
    return ax


# Of frames, on cells of any blue; a pair that overlaps less than this has none.
WORST, LEAST_FRAMED = "#e76300", 5e-4


def _percent(value: float) -> str:
    """Return the words in a cell: no number of what is none."""
    if value < 0.05:
        return "0" if value == 0 else "<0.1"
    return f"{value:.1f}" if value < 9.95 else f"{value:.0f}"
