"""Find the Gaussian components that `reg_covar` alone keeps from zero width, and say so.

Where many rows hold one value, the likelihood has no maximum: a component there gains without
limit as it narrows (Kiefer and Wolfowitz 1956), and what stops it is `reg_covar`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from ...core.additive import Array
from ...core.degenerate import Degenerate
from ...core.tuning import tuning
from .covariance import Covariance
from .factors import solve_triangular

# A prior widens components of few rows, not those of many on one value.
BOUND = ". What keeps components from narrowing at all is a bound such as max_ratio=10"
PRIOR = '; or pass prior="conjugate", by which few rows are enough'


def degenerate_components(
    weights: Array, means: Array, centre: Array, covariance: Covariance, ridge: float
) -> Iterator[Degenerate]:
    """Yield each component that is as narrow as `ridge` in a direction in which the data are not.

    Parameters
    ----------
    weights : (k,) array
    means : (k, d) array
        In the units of the data, less `centre`.
    centre : (d,) array
    covariance : Covariance
        In the units of the data, `ridge` included.
    ridge : float
        Added to each variance by the M-step.
    """
    if ridge == 0:
        return
    narrow = (1 + tuning().numerics.own_variance) * ridge
    wide = ridge / tuning().numerics.large_ridge
    variances = np.broadcast_to(covariance.variances(means.shape[1]), means.shape)
    apart = means - weights @ means
    total = weights @ (variances + apart**2)
    flat = variances < narrow
    planes = _planes(weights, apart, covariance, flat, narrow, wide)
    for k, combined in enumerate(planes):
        columns = np.flatnonzero(flat[k] & (total > wide))
        if len(columns) or len(combined):
            values = tuple((centre + means[k])[columns].tolist())
            yield Degenerate(k, tuple(columns.tolist()), values, tuple(combined.tolist()))


def _planes(
    weights: Array, apart: Array, covariance: Covariance, flat: Array, narrow: float, wide: float
) -> list[Array]:
    """Return for each component the columns that one of its narrow directions combines."""
    if covariance.whitening_kind != "matrix":
        return [np.empty(0, dtype=int)] * len(apart)
    matrices = covariance.full(*apart.shape)
    total = np.einsum("k,kij->ij", weights, matrices) + (apart.T * weights) @ apart
    n_different = 1 if covariance.shared_scatter else len(apart)
    found = [
        _plane(matrix, total, np.flatnonzero(~own), narrow, wide)
        for matrix, own in zip(matrices[:n_different], flat[:n_different], strict=True)
    ]
    return found if n_different == len(apart) else found * len(apart)


def _plane(matrix: Array, total: Array, columns: Array, narrow: float, wide: float) -> Array:
    """Return those of `columns` that combine to less variance than `narrow`."""
    matrix, total = (m[np.ix_(columns, columns)] for m in (matrix, total))
    if len(columns) < 2 or not np.tril(matrix, -1).any():
        return columns[:0]
    lengths = np.linalg.eigvalsh(matrix)
    if lengths[0] - len(lengths) * np.finfo(float).eps * lengths[-1] > narrow:
        # So mostly, and then SciPy is not needed, which `inspect` would wait for.
        return columns[:0]
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        # The columns' units lie further apart than the digits reach.
        return columns[:0]
    # Of the inverse the largest singular value keeps its digits, whatever the units.
    inverse = solve_triangular(factor, np.eye(len(factor)), lower=True)
    size = np.abs(inverse)
    if size.sum(0).max() * size.sum(1).max() * narrow <= 1:
        return columns[:0]
    _, sizes, directions = np.linalg.svd(inverse)
    found = np.zeros(len(columns), dtype=bool)
    for direction in directions[sizes**2 * narrow > 1]:
        if direction @ total @ direction > wide:
            shares = np.abs(direction) * np.sqrt(np.diagonal(total))
            found |= shares > tuning().numerics.takes_part * shares.max()
    return columns[found]


def degenerate_warnings(
    found: Sequence[Degenerate],
    weights: Array,
    n_features: int,
    ridge: float,
    called: Callable[[Sequence[int]], str],
    remedies: bool = False,
) -> list[str]:
    """Return a warning of components at single values, and one of components in planes.

    Parameters
    ----------
    found : sequence of Degenerate
    weights : (k,) array
    n_features : int
    ridge : float
    called : callable
        Returns how messages name some columns.
    remedies : bool
        Whether the estimator has those of the Gaussian.
    """
    bound, prior = (BOUND, PRIOR) if remedies else ("", "")
    at_values = _grouped([one for one in found if one.columns], lambda one: one.columns)
    in_planes = _grouped([one for one in found if one.combined], lambda one: one.combined)
    messages = []
    if at_values:
        places = [
            f"{_which(there, weights)} at {_values(there, ridge)} in {called(columns)}"
            for columns, there in at_values.items()
        ]
        columns = sorted({j for group in at_values for j in group})
        out = f"leave {called(columns)} out, or " if len(columns) < n_features else ""
        messages.append(
            f"degenerate components: {'; '.join(places)}. Their variance there is little but what "
            f"reg_covar={ridge:g} adds: they stand for single values (counts, zeros, rounded "
            f"numbers), not for clusters. To cluster the rest, {out}add to such a column uniform "
            "noise as wide as the step between its values, or fit the rows of a value that many "
            f"share apart from the others. Only if the values differ after all, by less than "
            f"{ridge**0.5:.2g}, lower reg_covar or scale the column up{bound}"
        )
    if in_planes:
        places = [
            f"{_which(there, weights)} in a combination of {called(columns)}"
            for columns, there in in_planes.items()
        ]
        messages.append(
            f"degenerate components: {'; '.join(places)}. Their variance there is little but what "
            f"reg_covar={ridge:g} adds: their rows lie in a plane, or are too few for a "
            "covariance. Leave out a column that follows from the others, pass "
            f'covariance_type="diag", or lower n_components{prior}'
        )
    return messages


def _grouped(
    found: Sequence[Degenerate], key: Callable[[Degenerate], tuple[int, ...]]
) -> dict[tuple[int, ...], list[Degenerate]]:
    groups: dict[tuple[int, ...], list[Degenerate]] = {}
    for one in found:
        groups.setdefault(key(one), []).append(one)
    return groups


def _which(found: Sequence[Degenerate], weights: Array) -> str:
    numbers = [one.component for one in found]
    share = float(weights[numbers].sum() / weights.sum())
    shown = ", ".join(map(str, numbers[:10])) + ", ..." * (len(numbers) > 10)
    return f"component{'s' * (len(numbers) > 1)} {shown} ({share:.1%} of the rows)"


def _values(found: Sequence[Degenerate], ridge: float) -> str:
    digits = int(np.ceil(-np.log10(ridge) / 2))
    shown = [[f"{round(value, digits) + 0.0:.15g}" for value in one.values] for one in found[:10]]
    each = [f"({', '.join(values)})" if len(values) > 1 else values[0] for values in shown]
    return ", ".join(each) + ", ..." * (len(found) > 10)
