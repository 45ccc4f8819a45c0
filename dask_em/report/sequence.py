"""K-means and EM on the same rows from the same start, fitted and drawn iteration by iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, overload

import numpy as np

from ..core.additive import Array
from ..core.em import EMState
from ..errors import UsageError
from .axes import real_rows
from .iterations import plot_iterations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def fit_sequences(
    X: Array,
    n_components: int,
    means_init: Array | None = None,
    max_iter: int = 100,
    random_state: int = 0,
) -> dict[str, list[EMState]]:
    """Fit K-means (Lloyd) and a Gaussian mixture by plain EM, both from the same centres.

    The mixture starts with equal weights, and variances of all rows, divided by K^(2/d): components
    of which K fill the space of the data.

    Parameters
    ----------
    X : (n, d) array
    n_components : int
    means_init : (k, d) array, optional
        By default rows drawn at random, which is a poor start: the iterations show more.
    max_iter : int
        Iterations of each fit, at most.
    random_state : int
        Of the rows drawn.

    Returns
    -------
    dict of lists of EMState
        "K-means" and "EM": the start, and each iteration.

    Examples
    --------
    >>> X = np.random.default_rng(0).normal(size=(90, 2)) + 6 * np.eye(2)[np.arange(90) % 2]
    >>> found = fit_sequences(X, 2)
    >>> starts = [states[0].mixture.components.moments()[0] for states in found.values()]
    >>> [*found], bool(np.allclose(*starts))
    (['K-means', 'EM'], True)
    """
    # scikit-learn takes longer to import than all else here.
    from ..estimators.gaussian import GaussianMixture
    from ..estimators.kmeans import KMeans

    X = np.asarray(X)
    X = np.asarray(real_rows(X, X.shape[-1]), dtype=np.float64)
    if means_init is None:
        means_init = _different_rows(X, n_components, random_state)
    spread = X.var(axis=0) / n_components ** (2 / X.shape[1])
    precision = np.diag(1 / np.where(spread > 0, spread, 1.0))
    hard: list[EMState] = []
    soft: list[EMState] = []
    KMeans(
        n_components, init=means_init, algorithm="lloyd", tol=0, max_iter=max_iter,
        callbacks=[hard.append],
    ).fit(X)  # fmt: skip
    GaussianMixture(
        n_components,
        weights_init=np.full(n_components, 1 / n_components),
        means_init=means_init,
        precisions_init=np.repeat(precision[None], n_components, axis=0),
        algorithm="em",
        tol=1e-5,
        max_iter=max_iter,
        callbacks=[soft.append],
    ).fit(X)
    return {"K-means": hard, "EM": soft}


def _different_rows(X: Array, n: int, random_state: int) -> Array:
    """Draw n different rows of X (n, d)."""
    distinct = np.unique(X, axis=0)
    if not 1 <= n <= len(distinct):
        raise UsageError(
            f"n_components is {n!r}, expected from 1 to {len(distinct)}, the number of different "
            "rows of X"
        )
    return distinct[np.random.default_rng(random_state).choice(len(distinct), n, replace=False)]


@overload
def plot_sequence(
    runs: Mapping[str, Sequence[EMState]],
    X: Array,
    columns: tuple[int, int] = (0, 1),
    n_drawn: int = 6,
    figure: Figure | None = None,
) -> list[Axes]: ...


@overload
def plot_sequence(
    runs: Array,
    X: None = None,
    columns: tuple[int, int] = (0, 1),
    n_drawn: int = 6,
    figure: Figure | None = None,
    *,
    n_components: int,
    means_init: Array | None = None,
    max_iter: int = 100,
    random_state: int = 0,
) -> list[Axes]: ...


def plot_sequence(
    runs: Mapping[str, Sequence[EMState]] | Array,
    X: Array | None = None,
    columns: tuple[int, int] = (0, 1),
    n_drawn: int = 6,
    figure: Figure | None = None,
    *,
    n_components: int | None = None,
    means_init: Array | None = None,
    max_iter: int = 100,
    random_state: int = 0,
) -> list[Axes]:
    """Draw fits to the same rows iteration by iteration, a row of panels each, and objectives.

    Of rows and `n_components` it fits K-means and EM by itself, both from the same centres.

    Parameters
    ----------
    runs : dict of sequences of EMState, or (n, d) array
        By name what each fit told its callbacks; or the rows X that are to be fitted.
    X : (n, d) array, optional
        A few thousand rows, where `runs` are fits.
    columns : pair of int
        Which columns are the axes.
    n_drawn : int
        Iterations of each fit that are drawn, at most.
    figure : matplotlib Figure, optional
    n_components, means_init, max_iter, random_state
        As in `report.sequence.fit_sequences`, where `runs` are rows.

    Returns
    -------
    list of matplotlib Axes

    Raises
    ------
    UsageError
        There are no fits, or no rows of their columns; rows have no `n_components`.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> X = np.random.default_rng(0).normal(size=(90, 2)) + 6 * np.eye(2)[np.arange(90) % 2]
    >>> axes = plot_sequence(X, n_components=2, n_drawn=3, figure=Figure())
    >>> axes[0].get_title(), axes[-1].get_xlabel()
    ('start', 'iteration')
    """
    if isinstance(runs, Mapping):
        if X is None or n_components is not None:
            raise UsageError(
                "runs are fits: expected their rows as X, and no n_components; or rows in place of "
                "runs, to be fitted"
            )
        return plot_iterations(runs, X, columns, n_drawn, figure)
    if X is not None or n_components is None:
        raise UsageError(
            "runs are rows, to be fitted: expected their number of components as n_components, and "
            "no other X; or the states of fits by name, as in {'EM': states}, and X"
        )
    found = fit_sequences(runs, n_components, means_init, max_iter, random_state)
    return plot_iterations(found, np.asarray(runs), columns, n_drawn, figure)
