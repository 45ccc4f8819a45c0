"""Seeds of K-means: k-means|| (Bahmani et al. 2012), and many runs of k-means++ at once.

And coordinates in which columns without groups hide none.
"""

from __future__ import annotations

import numpy as np

from ..core.additive import Array
from ..core.tuning import tuning


def oversampled(rows: Array, weights: Array, k: int, seed: int) -> tuple[Array, Array]:
    """Draw more than k rows in a few rounds, each of which draws many at once.

    In each round a row is drawn with the probability l w d^2 / sum w d^2 of its squared distance to
    those drawn before, for l of twice k.

    Parameters
    ----------
    rows : (m, d) array
    weights : (m,) array
    k : int
    seed : int

    Returns
    -------
    (s, d) array
        The rows drawn, k of them at least.
    (s,) array
        The weight of the rows that are nearest to each.

    Examples
    --------
    >>> rows = np.repeat([[0.0], [9.0], [30.0]], 20, axis=0)
    >>> drawn, shares = oversampled(rows, np.ones(60), 3, seed=0)
    >>> sorted({*drawn.ravel().tolist()}), round(float(shares.sum()))
    ([0.0, 9.0, 30.0], 60)
    """
    constants = tuning().sample
    rng = np.random.default_rng(seed)
    chosen = np.array([rng.choice(len(rows), p=weights / weights.sum())])
    nearest = np.zeros(len(rows), dtype=np.int64)
    squares = np.full(len(rows), np.inf)
    _approach(rows, rows[chosen], 0, nearest, squares)
    for _ in range(constants.parallel_rounds):
        costs = weights * squares
        total = costs.sum()
        if not total > 0:
            break
        drawn = rng.random(len(rows)) < constants.oversampling * k * costs / total
        found = np.flatnonzero(drawn)
        _approach(rows, rows[found], len(chosen), nearest, squares)
        chosen = np.concatenate([chosen, found])
    if len(chosen) < k:
        # There are fewer places than k: more rows of the same.
        rest = np.setdiff1d(np.argsort(-squares, kind="stable"), chosen, assume_unique=True)
        chosen = np.concatenate([chosen, rest[: k - len(chosen)]])
    shares = np.bincount(nearest, weights, minlength=len(chosen))
    # Of rows in one place only the first is nearest to any, and the others weigh nothing.
    return rows[chosen], np.maximum(shares, np.finfo(np.float64).tiny)


def _approach(rows: Array, seeds: Array, first: int, nearest: Array, squares: Array) -> None:
    """Note for each row whether one of more seeds, numbered from `first` on, is nearer."""
    if len(seeds) == 0:
        return
    most = max(1, tuning().sample.hard_numbers // len(seeds))
    halves = (seeds**2).sum(axis=1) / 2
    for start in range(0, len(rows), most):
        some = slice(start, start + most)
        X = rows[some]
        label = (X @ seeds.T - halves).argmax(axis=1)
        square = ((X - seeds[label]) ** 2).sum(axis=1)
        nearer = square < squares[some]
        nearest[some] = np.where(nearer, first + label, nearest[some])
        squares[some] = np.where(nearer, square, squares[some])


def best_of_runs(rows: Array, weights: Array, k: int, seed: int, n_runs: int) -> Array:
    """Label rows (m, d) by the best of several runs of K-means from k-means++, made side by side.

    Of so few rows that a call takes longer than what it computes: the centres of all runs are
    factors of one product.

    Parameters
    ----------
    rows : (m, d) array
    weights : (m,) array
    k, seed, n_runs : int

    Returns
    -------
    (m,) array of int

    Examples
    --------
    >>> rows = np.array([[0.0], [1.0], [9.0], [10.0]])
    >>> found = best_of_runs(rows, np.ones(4), 2, seed=0, n_runs=5)
    >>> bool(found[0] == found[1] != found[2] == found[3])
    True
    """
    m, d = rows.shape
    squares = (rows**2).sum(axis=1)
    centers = _seeds_of_runs(rows, weights, k, np.random.default_rng(seed), n_runs)
    first = k * np.arange(n_runs)
    labels = np.full((m, n_runs), -1)
    best = np.zeros((m, n_runs))
    every = np.repeat(weights, n_runs)
    for _ in range(tuning().sample.kmeans_iterations):
        scores = (rows @ centers.reshape(-1, d).T).reshape(m, n_runs, k)
        scores -= (centers**2).sum(axis=2) / 2
        before, labels = labels, scores.argmax(axis=2)
        best = np.take_along_axis(scores, labels[..., None], axis=2)[..., 0]
        if np.array_equal(before, labels):
            break
        places = (labels + first).ravel()
        counts = np.bincount(places, every, n_runs * k)
        sums = [
            np.bincount(places, np.repeat(weights * column, n_runs), n_runs * k)
            for column in rows.T
        ]
        means = np.stack(sums, axis=1) / np.where(counts > 0, counts, 1.0)[:, None]
        moved = np.where(counts[:, None] > 0, means, centers.reshape(-1, d))
        centers = moved.reshape(n_runs, k, d)
    costs = weights @ (squares[:, None] - 2 * best)
    return np.asarray(labels[:, int(costs.argmin())])


def _seeds_of_runs(
    rows: Array, weights: Array, k: int, rng: np.random.Generator, n_runs: int
) -> Array:
    """Draw the seeds of each run by k-means++, (runs, k, d)."""
    squares, centers = (rows**2).sum(axis=1), np.empty((n_runs, k, rows.shape[1]))
    nearest = np.ones((n_runs, len(rows)))
    for j in range(k):
        reached = np.cumsum(nearest * weights, axis=1)
        drawn = rng.random((n_runs, 1)) * reached[:, -1:]
        chosen = np.minimum((reached <= drawn).sum(axis=1), len(rows) - 1)
        centers[:, j] = rows[chosen]
        apart = np.maximum(squares + squares[chosen, None] - 2 * centers[:, j] @ rows.T, 0.0)
        nearest = apart if j == 0 else np.minimum(nearest, apart)
    return centers


def grouped_columns(rows: Array, weights: Array, k: int) -> Array | None:
    """Scale columns by how far each shows groups by itself, and leave out those that show none.

    Where one column tells groups apart and many do not, the squared distances of K-means are
    nearly all of these. Each column is cut into k parts by K-means of its own. With s the standard
    deviation within them, of columns of unit variance, and s0 that of a normal column, it is scaled
    by the root of 1 / s^2 - 1 / s0^2.

    Parameters
    ----------
    rows : (m, d) array
    weights : (m,) array
    k : int

    Returns
    -------
    (m, g) array or None
        None where no column shows groups, or all do so alike.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> rows = np.column_stack([rng.normal(size=(600, 5)), np.repeat([0.0, 9.0, 30.0], 200)])
    >>> grouped_columns(rows, np.ones(600), 3).shape
    (600, 1)
    >>> grouped_columns(rows[:, :5], np.ones(600), 3) is None
    True
    """
    constants = tuning().multistart
    some = slice(constants.grouped_rows)
    X, w = rows[some], weights[some] / weights[some].sum()
    deviations = np.sqrt(w @ (X - w @ X) ** 2)
    varies = deviations > 0
    within = np.ones(rows.shape[1])
    within[varies] = [
        _deviation_within(X[:, j] / deviations[j], w, k) for j in np.flatnonzero(varies)
    ]
    normal = _deviation_within(_normal_quantiles(), np.ones(constants.grouped_rows), k)
    shows = within < constants.grouped_share * normal
    if not shows.any():
        return None
    # Of very many parts a normal column's are narrower yet.
    within = np.maximum(within[shows], min(constants.least_within, normal / 2))
    scales = np.sqrt(1 / within**2 - 1 / normal**2)
    if shows.all() and scales.max() <= constants.grouped_alike * scales.min():
        return None
    return np.asarray(rows[:, shows] * (scales / deviations[shows]))


def _normal_quantiles() -> Array:
    from scipy.special import ndtri

    n = tuning().multistart.grouped_rows
    return np.asarray(ndtri((np.arange(n) + 0.5) / n))


def _deviation_within(column: Array, weights: Array, k: int) -> float:
    """Return the standard deviation within the k parts of one column by K-means from quantiles."""
    order = np.argsort(column, kind="stable")
    x, w = column[order], weights[order]
    sums = np.zeros((3, len(x) + 1))
    np.cumsum([w, w * x, w * x**2], axis=1, out=sums[:, 1:])
    cuts = np.searchsorted(sums[0], sums[0, -1] * np.arange(1, k) / k)
    for _ in range(tuning().multistart.grouped_iterations):
        total, first, _ = np.diff(sums[:, [0, *cuts, len(x)]], axis=1)
        centers = first[total > 0] / total[total > 0]
        before, cuts = cuts, np.searchsorted(x, (centers[1:] + centers[:-1]) / 2)
        if np.array_equal(before, cuts):
            break
    total, first, second = np.diff(sums[:, [0, *cuts, len(x)]], axis=1)
    inside = second - first**2 / np.where(total > 0, total, 1.0)
    return float(np.sqrt(max(inside.sum() / sums[0, -1], 0.0)))
