"""The merge tree: which components become one cluster, and what that takes of the entropy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..core.merging import Mergers, merged_by_entropy
from ..estimators.describe import COLOURS, FittedMixture, colour, shares_among
from ..estimators.merge_tree import MergeTree
from .axes import answer_of, ink, mark, new_axes, real_rows, whole_numbers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# More leaves than this have no numbers.
MOST_NAMED = 60

# Shares of the width that the entropies have, and what is between them and the tree.
SIDE, GAP = 0.24, 0.05

# Leaves above which their numbers are small.
MANY = 24


def mergers_of_rows(model: FittedMixture, X: Array) -> Mergers | None:
    """Compute the mergers of a model's components by rows (n, d) alone, without noise.

    None where there is nothing to merge, or responsibilities are all 0 or 1.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal([[0.0], [5.0], [9.0]], size=(3, 300)).reshape(-1, 1)
    >>> mergers_of_rows(GaussianMixture(3, random_state=0).fit(X), X).pairs.shape
    (2, 2)
    """
    k = model.n_components
    resp = answer_of(model, real_rows(X, model.n_features_in_), "proba")[:, :k]
    resp = resp[np.isfinite(resp).all(axis=1)]
    # Rows that are noise belong to no cluster.
    sizes = resp.sum(axis=1)
    resp = resp[sizes > 0.5] / sizes[sizes > 0.5, None]
    if k < 2 or not len(resp) or ((resp == 0) | (resp == 1)).all():
        return None
    return merged_by_entropy(np.asarray(resp, dtype=np.float64), np.ones(len(resp)))


def elbow_of(model: FittedMixture, mergers: Mergers) -> int | None:
    """Return the number of clusters at the elbow of a model's mergers; None of too few."""
    return mergers.elbow(shares_among(model)) if mergers.n_components > 3 else None


def plot_merge_tree(tree: MergeTree, ax: Axes | None = None) -> Axes:
    """Draw how components become clusters, and the entropy of each number of clusters.

    Components are the leaves; upwards, two clusters at a time are merged, those whose merger lowers
    the entropy of the responsibilities most. At the right is the mean entropy that is left; its
    elbow is circled, and a dashed line cuts the tree into so many clusters.

    Parameters
    ----------
    tree : MergeTree
        What `merge` of a fitted mixture returned.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib Axes
        Of the tree; the entropies are in its first child.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from matplotlib.figure import Figure
    >>> X = np.random.default_rng(0).normal(size=(300, 1))
    >>> gm = GaussianMixture(4, random_state=0).fit(X)
    >>> ax = plot_merge_tree(gm.merge(X), Figure().subplots())
    >>> ax.get_ylabel(), len(ax.child_axes)
    ('clusters', 1)
    """
    return draw_mergers(tree.mergers, tree.n_clusters if tree.n_components > 3 else None, ax)


def draw_mergers(mergers: Mergers, n_clusters: int | None, ax: Axes | None = None) -> Axes:
    """Draw mergers as `plot_merge_tree`, cut into so many clusters."""
    k = mergers.n_components
    ax = new_axes(ax, tree_size(k))
    order = leaves(mergers)
    places = {component: float(place) for place, component in enumerate(order)}
    heights = dict.fromkeys(range(k), 0.0)
    for i, (one, other) in enumerate(mergers.pairs.tolist()):
        height = i + 1.0
        left, right = places[one], places[other]
        (branch,) = ax.plot(
            [left, left, right, right], [heights[one], height, height, heights[other]],
            lw=1.2, color=ink(), solid_joinstyle="miter",
        )  # fmt: skip
        mark(branch, told=f"{k - i - 1} clusters: {mergers.entropies[i + 1]:.3g} nats a row")
        places[k + i], heights[k + i] = (left + right) / 2, height
    ax.scatter(range(k), np.zeros(k), s=16, c=[colour(c) for c in order], zorder=3, clip_on=False)
    size: dict[str, Any] = {"fontsize": "x-small"} if k > MANY else {}
    named = k <= MOST_NAMED
    ax.set_xticks(range(k) if named else [], [str(c) for c in order] if named else [], **size)
    ax.tick_params(axis="x", length=0)
    if k > MANY:
        ax.tick_params(axis="x", rotation=90)
    ax.set_xlim(-0.6, -0.6 + (k + 0.2) / (1 - SIDE - GAP))
    ax.set_ylim(-0.03 * k, k - 0.5)
    # Heights count mergers; the axis says how many clusters these leave.
    ax.yaxis.set_major_formatter(lambda height, _: f"{k - height:.0f}")
    whole_numbers(ax.yaxis)
    ax.set_xlabel("component", x=(1 - SIDE - GAP) / 2)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_ylabel("clusters")
    _entropies(ax, mergers, n_clusters)
    return ax


def tree_size(k: int) -> tuple[float, float]:
    """Return inches of a tree of k leaves whose numbers can be read.

    Examples
    --------
    >>> tree_size(4), tree_size(60)
    ((4.2, 3.0), (9.5, 5.5))
    """
    return max(4.2, min(9.5, 2.0 + 0.125 * k)), 3.0 if k <= MANY else 5.5


def leaves(mergers: Mergers) -> list[int]:
    """Return the components in an order in which no branches of their tree cross.

    Examples
    --------
    >>> leaves(Mergers(np.array([[0, 2], [1, 3]]), np.array([0.5, 0.1, 0.0])))
    [1, 0, 2]
    """
    k = mergers.n_components
    members = {i: [i] for i in range(k)}
    for i, (one, other) in enumerate(mergers.pairs.tolist()):
        members[k + i] = members.pop(one) + members.pop(other)
    (found,) = members.values()
    return found


def _entropies(ax: Axes, mergers: Mergers, n_clusters: int | None) -> None:
    """Draw the entropy after each merger beside the tree, at the heights of these."""
    from matplotlib.ticker import MaxNLocator

    side = ax.inset_axes((1 - SIDE, 0, SIDE, 1), sharey=ax)
    side.set_facecolor("none")
    side.tick_params(axis="y", labelleft=False)
    heights = np.arange(mergers.n_components)
    side.plot(mergers.entropies, heights, "o-", ms=3.5, lw=1.2, color=COLOURS[0])
    side.set_xlim(0, 1.15 * max(float(mergers.entropies.max()), 1e-12))
    side.xaxis.set_major_locator(MaxNLocator(2))
    side.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}")
    side.set_xlabel("entropy left,\nnats a row")
    if n_clusters is not None:
        at = mergers.n_components - n_clusters
        side.plot(
            mergers.entropies[at], at, "o", ms=10, mfc="none", mec=ink(), mew=1.2, clip_on=False
        )
        for one in (ax, side):
            one.axhline(at + 0.5, ls="--", lw=1, color=COLOURS[6])
        side.annotate(
            f"{n_clusters} cluster{'s' * (n_clusters > 1)}", (1, at + 0.5),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2), textcoords="offset points", ha="right", va="bottom",
            fontsize="small", color=COLOURS[6],
        )  # fmt: skip
