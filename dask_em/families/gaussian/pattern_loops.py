"""Loops compiled by Numba over rows that lie by their patterns of missing values.

The observed columns of a pattern's rows are laid out in tiles as complete rows are, and go through
the same tiles of multiply-adds (`simd`), pattern after pattern.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from ...core.additive import Array
from ...core.compiled import _JIT
from . import simd

# An odd number, of which products scatter their bits: 2^64 over the golden ratio.
_SCATTER = 0x9E3779B97F4A7C15

# Tiles of one pattern whose responsibilities stay in level 1 of the cache.
STEP = 8

# Rows of one pattern whose deviations are summed together, and those that are gathered at a time.
ROWS, GATHERED = 960, 96


@njit(**_JIT)
def _key_of(X: Array, row: int) -> tuple[Any, Any]:
    """Return a number of which values a row lacks, equal where these are, and how many."""
    key, word, count = np.uint64(0), np.uint64(0), np.int64(0)
    for j in range(X.shape[1]):
        missing = np.uint64(X[row, j] != X[row, j])
        count += np.int64(missing)
        word = (word << np.uint64(1)) | missing
        if j % 64 == 63:
            key = (key ^ word) * np.uint64(_SCATTER)
            word = np.uint64(0)
    return (key ^ word) * np.uint64(_SCATTER), count


@njit(**_JIT)
def _are_alike(X: Array, a: int, b: int) -> bool:
    """Tell whether two rows whose keys are the same lack the same values."""
    if X.shape[1] > 64:
        for j in range(X.shape[1]):
            if (X[a, j] != X[a, j]) != (X[b, j] != X[b, j]):
                return False
    return True


@njit(**_JIT)
def _place_groups(groups: int, d: int, lacks: Array, sizes: Array, starts: Array) -> None:
    """Write where each pattern begins, those that lack fewer values first; to `sizes`, too."""
    counts = np.zeros(d + 2, np.int64)
    for g in range(groups):
        counts[lacks[g] + 1] += 1
    for j in range(d + 1):
        counts[j + 1] += counts[j]
    places = np.empty(groups, np.int64)
    for g in range(groups):
        places[g] = counts[lacks[g]]
        counts[lacks[g]] += 1
        starts[places[g] + 1] = sizes[g]
    starts[0] = 0
    for g in range(groups):
        starts[g + 1] += starts[g]
    for g in range(groups):
        sizes[g] = starts[places[g]]


@njit(**_JIT)
def group(X: Array, order: Array, starts: Array) -> int:
    """Write the numbers of rows by their patterns, and where each begins.

    Those that lack fewer values come first, then those of which a row comes first.

    Parameters
    ----------
    X : (n, d) array
    order : (n,) int64 array
    starts : (n + 1,) int64 array

    Returns
    -------
    int
        The patterns, of which `starts` holds one number more.
    """
    n, d = X.shape
    size, shift = 4, 62
    while size < 2 * n:
        size, shift = 2 * size, shift - 1
    table, keys = np.full(size, -1, np.int64), np.empty(n, np.uint64)
    pattern, sizes, lacks, example = np.empty((4, n), np.int64)
    groups = 0
    for row in range(n):
        key, count = _key_of(X, row)
        slot = np.int64(key >> np.uint64(shift))
        while True:
            found = table[slot]
            if found < 0:
                table[slot] = found = groups
                keys[found], sizes[found] = key, 0
                lacks[found], example[found] = count, row
                groups += 1
                break
            if keys[found] == key and _are_alike(X, example[found], row):
                break
            slot = (slot + 1) & (size - 1)
        pattern[row] = found
        sizes[found] += 1
    _place_groups(groups, d, lacks, sizes, starts)
    for row in range(n):
        place = sizes[pattern[row]]
        order[place] = row
        sizes[pattern[row]] = place + 1
    return groups


@njit(**_JIT)
def lay_out(
    X: Array, order: Array, groups: Array, columns: Array, counts: Array, shift: Array,
    scale: Array, tiles: Array,
) -> None:  # fmt: skip
    """Lay out the observed columns of rows in tiles, those of a pattern beginning with a new one.

    Parameters
    ----------
    X : (n, d) array
    order : (n,) int64 array
    groups : (g, 4) int64 array
        Of each: where its rows begin and end in the order, its pattern, its first tile.
    columns, counts : (p, d) and (p,) int64 arrays
        The observed columns of each pattern, and how many.
    shift, scale : (d,) arrays
        Columns are moved, then multiplied.
    tiles : (n_tiles, d + 1, tile_columns) array
        Columns beyond the observed ones stay.
    """
    width = tiles.shape[2]
    for g in range(len(groups)):
        start, end, p, t = groups[g]
        for first in range(start, end, width):
            n = min(width, end - first)
            for lane in range(n):
                row = order[first + lane]
                for j in range(counts[p]):
                    c = columns[p, j]
                    tiles[t, j, lane] = (X[row, c] - shift[c]) * scale[c]
            for j in range(counts[p]):
                tiles[t, j, n:] = 0.0
            t += 1


@njit(**_JIT)
def scatter_columns(found: Array, order: Array, first: int, n: int, out: Array) -> None:
    """Write n of the columns (k, >= n) to the places of `out` (k, b) that the order names."""
    for k in range(out.shape[0]):
        for i in range(n):
            out[k, order[first + i]] = found[k, i]


@njit(**_JIT)
def gather_columns(resp: Array, order: Array, first: int, n: int, out: Array) -> None:
    """Fill `out` (>= k, >= n) with columns of `resp` (k, b), zero where there are none."""
    for k in range(out.shape[0]):
        for i in range(out.shape[1]):
            inside = k < resp.shape[0] and i < n
            out[k, i] = resp[k, order[first + i]] if inside else 0.0


# -- what rows of one pattern share --------------------------------------------------------------


@njit(**_JIT)
def whiten(S: Array, columns: Array, L: Array, W: Array) -> float:
    """Factorize S_oo = L L^T of some columns (o,), and write W = L^{-1}; return log |L|."""
    n, half = len(columns), 0.0
    for j in range(n):
        for i in range(j, n):
            value = S[columns[i], columns[j]]
            for m in range(j):
                value -= L[i, m] * L[j, m]
            L[i, j] = math.sqrt(value) if i == j else value / L[j, j]
        half += math.log(L[j, j])
    for j in range(n):
        W[j, j] = 1 / L[j, j]
        for i in range(j):
            W[i, j] = 0.0
        for i in range(j + 1, n):
            value = 0.0
            for m in range(j, i):
                value -= L[i, m] * W[m, j]
            W[i, j] = value / L[i, i]
    return half


@njit(**_JIT)
def place_of(k: int, padded: int, n_features: int) -> tuple[int, int]:
    """Return where the coefficients of component k begin in `pack_groups`, and how far apart."""
    tall = padded // simd.TALL_ROWS * simd.TALL_ROWS
    if k < tall:
        return (k // simd.TALL_ROWS) * simd.TALL_ROWS * n_features + (
            k % simd.TALL_ROWS
        ), simd.TALL_ROWS
    group, member = divmod(k - tall, simd.TILE_ROWS)
    return (tall + group * simd.TILE_ROWS) * n_features + member, simd.TILE_ROWS


@njit(**_JIT)
def write_features(
    covariances: Array, means: Array, columns: Array, constant: float, last: int, width: int,
    padded: int, theta: Array, left: Array, right: Array,
) -> None:  # fmt: skip
    """Write theta of log p(x_o) = theta (1, x_o, products), and where these lie in a tile.

    Parameters
    ----------
    covariances, means : (k, d, d) and (k, d) arrays
    columns : (o,) int64 array
        Those that are observed.
    constant : float
        Is added to each log-density.
    last : int
        The column of a tile that is ones.
    width : int
        Rows of a tile.
    padded : int
        Components, padded as `theta` has them.
    theta : (padded * F,) array
    left, right : (>= F,) int64 arrays
        Those beyond F are ones.
    """
    o = len(columns)
    n_features = 1 + o + o * (o + 1) // 2
    L, W = np.empty((o, o)), np.empty((o, o))
    left[:] = last * width
    right[:] = last * width
    for k in range(len(means)):
        half = whiten(covariances[k], columns, L, W)
        at, by = place_of(k, padded, n_features)
        f = 1 + o
        square = 0.0
        for i in range(o):
            linear = 0.0
            for j in range(o):
                product = 0.0
                for m in range(max(i, j), o):
                    product += W[m, i] * W[m, j]
                linear += product * means[k, columns[j]]
                if j <= i:
                    theta[at + f * by] = -0.5 * product if i == j else -product
                    left[f], right[f] = i * width, j * width
                    f += 1
            theta[at + (1 + i) * by] = linear
            left[1 + i] = i * width
            square += linear * means[k, columns[i]]
        theta[at] = constant - half - 0.5 * square


@njit(**_JIT)
def write_whiteners(
    covariances: Array, means: Array, columns: Array, constant: float, whitener: Array,
    images: Array, constants: Array,
) -> None:  # fmt: skip
    """Write what `simd.subtract_distances` takes of the observed columns (o,).

    Parameters
    ----------
    covariances, means : (k, d, d) and (k, d) arrays
    columns : (o,) int64 array
    constant : float
        Is added to each log-density.
    whitener : (k, size) array
        As in `pack_lower`, divided by the root of two.
    images : (k, padded) array
        Minus the images of the means.
    constants : (k,) array
    """
    o = len(columns)
    L, W = np.empty((o, o)), np.empty((o, o))
    root = math.sqrt(0.5)
    for k in range(len(means)):
        constants[k] = constant - whiten(covariances[k], columns, L, W)
        images[k] = 0.0
        at = 0
        for first in range(0, o, simd.TILE_ROWS):
            for j in range(min(first + simd.TILE_ROWS, o)):
                for i in range(first, first + simd.TILE_ROWS):
                    value = root * W[i, j] if i < o else 0.0
                    whitener[k, at] = value
                    if i < o:
                        images[k, i] -= value * means[k, columns[j]]
                    at += 1


@njit(**_JIT)
def _regress(
    S: Array, columns: Array, missing: Array, W: Array, R: Array, fill: Array
) -> None:  # fmt: skip
    """Write R = S_mo W^T, and what fills rows of observed columns up: ones above B = R W."""
    o = len(columns)
    for i in range(o):
        fill[i, i] = 1.0
    for i in range(len(missing)):
        for j in range(o):
            value = 0.0
            for m in range(j + 1):
                value += W[j, m] * S[missing[i], columns[m]]
            R[i, j] = value
        for j in range(o):
            value = 0.0
            for m in range(j, o):
                value += R[i, m] * W[m, j]
            fill[len(columns) + i, j] = value


@njit(**_JIT)
def _multiply(A: Array, B: Array, out: Array) -> None:
    """Write a product of small matrices."""
    out[:] = 0.0
    for i in range(out.shape[0]):
        for t in range(A.shape[1]):
            for j in range(out.shape[1]):
                out[i, j] += A[i, t] * B[t, j]


@njit(**_JIT)
def add_completed(
    covariances: Array, half_log_det: Array, columns: Array, missing: Array, totals: Array,
    first: Array, second: Array, first_out: Array, scatter_out: Array, half_out: Array,
) -> None:  # fmt: skip
    """Add the completed sums of a pattern's rows, and what is expected of its missing values.

    Parameters
    ----------
    covariances : (k, d, d) array
    half_log_det : (k,) array
        log |Sigma| / 2.
    columns, missing : (o,) and (m,) int64 arrays
    totals, first, second : (k,), (k, o) and (k, o, o) arrays
        Sums about the means.
    first_out, scatter_out : (k, d) and (k, d, d) arrays
    half_out : (k,) array
        sum_n r_nk log |C| / 2 is added to it.
    """
    o = len(columns)
    every = np.concatenate((columns, missing))
    d = len(every)
    L, W, R = np.empty((o, o)), np.empty((o, o)), np.empty((d - o, o))
    fill, half_filled = np.zeros((d, o)), np.empty((d, o))
    products, apart = np.empty((d, d)), np.empty((d - o, d - o))
    for k in range(len(totals)):
        S = covariances[k]
        half = whiten(S, columns, L, W)
        _regress(S, columns, missing, W, R, fill)
        _multiply(fill, second[k], half_filled)
        _multiply(half_filled, fill.T, products)
        _multiply(R, R.T, apart)
        for i in range(d):
            for j in range(o):
                first_out[k, every[i]] += fill[i, j] * first[k, j]
            for j in range(d):
                value = products[i, j]
                if i >= o and j >= o:
                    value += totals[k] * (S[every[i], every[j]] - apart[i - o, j - o])
                scatter_out[k, every[i], every[j]] += value
        half_out[k] += totals[k] * (half_log_det[k] - half)


# -- blocks ---------------------------------------------------------------------------------------


@njit(**_JIT)
def write_features_log_prob(
    groups: Array, order: Array, tiles: Array, theta: Array, theta_at: Array, left: Array,
    right: Array, features_at: Array, padded: int, work: Array, out: Array,
) -> None:  # fmt: skip
    """Write log p(x_o | k) of the rows of all groups, (k, b), by their features."""
    width = tiles.shape[2]
    for g in range(len(groups)):
        start, end, p, first_tile = groups[g]
        own = theta[theta_at[p] : theta_at[p + 1]]
        a, b = left[features_at[p] :], right[features_at[p] :]
        for row in range(start, end, STEP * width):
            n = min(STEP * width, end - row)
            t = first_tile + (row - start) // width
            some = tiles[t : t + (n + width - 1) // width]
            size = len(some) * width
            found = work[: padded * size].reshape(padded, size)
            simd.linear(own, some, a, b, found)
            scatter_columns(found, order, row, n, out)


@njit(**_JIT)
def add_features(
    groups: Array, order: Array, tiles: Array, resp: Array, left: Array, right: Array,
    features_at: Array, padded: int, work: Array, sums: Array, sums_at: Array,
) -> None:  # fmt: skip
    """Add the sums of the features of each group under `resp` (k, b)."""
    width = tiles.shape[2]
    vector = simd.TALL_ROWS
    for g in range(len(groups)):
        start, end, p, first_tile = groups[g]
        a = left[features_at[p] : features_at[p + 1]]
        b = right[features_at[p] : features_at[p + 1]]
        own = sums[sums_at[p] : sums_at[p + 1]].reshape(-1, len(a), vector)
        for row in range(start, end, STEP * width):
            n = min(STEP * width, end - row)
            t = first_tile + (row - start) // width
            some = tiles[t : t + (n + width - 1) // width]
            size = len(some) * width
            gathered = work[: padded * size].reshape(padded, size)
            gather_columns(resp, order, row, n, gathered)
            simd.add_moments(gathered, some, a, b, len(some), own)


@njit(**_JIT)
def write_distances_log_prob(
    groups: Array, order: Array, tiles: Array, counts: Array, whitener: Array, whitener_at: Array,
    images: Array, constants: Array, work: Array, out: Array,
) -> None:  # fmt: skip
    """Write log p(x_o | k) of the rows of all groups, (k, b), by squared distances."""
    width, n_components = tiles.shape[2], len(out)
    for g in range(len(groups)):
        start, end, p, first_tile = groups[g]
        o = counts[p]
        own = whitener[whitener_at[p] : whitener_at[p + 1]].reshape(n_components, -1)
        padded = (o + simd.TILE_ROWS - 1) // simd.TILE_ROWS * simd.TILE_ROWS
        moved = images[p, : n_components * padded].reshape(n_components, padded)
        for row in range(start, end, STEP * width):
            n = min(STEP * width, end - row)
            t = first_tile + (row - start) // width
            some = tiles[t : t + (n + width - 1) // width]
            size = len(some) * width
            found = work[: n_components * size].reshape(n_components, size)
            simd.subtract_distances(own, moved, some, o, constants[p], found)
            scatter_columns(found, order, row, n, out)


@njit(**_JIT)
def add_deviations(
    groups: Array, order: Array, tiles: Array, counts: Array, columns: Array, means: Array,
    resp: Array, totals: Array, sums: Array, sums_at: Array,
) -> None:  # fmt: skip
    """Add the sums about the means of each group under `resp` (k, b).

    Parameters
    ----------
    groups, order, tiles, counts, columns : arrays
        As in `lay_out`.
    means : (k, d) array
    resp : (k, b) array
    totals : (p, k) array
    sums : array
        Of each pattern first (k, D) and scatter (k, D, D), D its columns in whole registers.
    sums_at : (p + 1,) int64 array
    """
    width, vector = tiles.shape[2], simd.REGISTER_BYTES // 8
    n_components = len(resp)
    rows, roots = np.empty(ROWS + 1, np.int64), np.empty(ROWS + 1)
    gathered = np.empty(n_components * ROWS)
    for g in range(len(groups)):
        start, end, p, first_tile = groups[g]
        o = counts[p]
        D = (o + vector - 1) // vector * vector
        own = sums[sums_at[p] : sums_at[p + 1]]
        first = own[: n_components * D].reshape(n_components, D)
        scatter = own[n_components * D :].reshape(n_components, D, D)
        centres = np.zeros((n_components, D))
        for k in range(n_components):
            for j in range(o):
                centres[k, j] = means[k, columns[p, j]]
        Z, work, partial = np.zeros((ROWS, D)), np.empty((GATHERED, D)), np.empty(D)
        for row in range(start, end, ROWS):
            n = min(ROWS, end - row)
            for i in range(n):
                tile, lane = first_tile + (row - start + i) // width, (row - start + i) % width
                for j in range(o):
                    Z[i, j] = tiles[tile, j, lane]
            some = gathered[: n_components * n].reshape(n_components, n)
            gather_columns(resp, order, row, n, some)
            for k in range(n_components):
                totals[p, k] += some[k].sum()
            if o:
                simd.add_scatter(Z, o, centres, some, rows, roots, work, partial, first, scatter)
