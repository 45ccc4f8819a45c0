"""Logarithms of times and amounts, and components at single values: for families of these."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ..core.additive import Array
from ..core.degenerate import Degenerate
from ..core.moments import Moments
from ..core.support import Support
from ..core.tuning import tuning

FROM_ZERO = Support(("numbers from 0",), (0.0,))


def reference_means(moments: Moments) -> Array:
    """Return the means of numbers from zero; 1 where all are zero, or where there are none."""
    means = np.asarray(moments.mean, dtype=np.float64)
    return np.where(means > 0, means, 1.0)


def logs_of(X: Array, reference: Array, limit: float = 0.0) -> Array:
    """Compute logarithms of rows X (n, d) in units of the reference, zeros as a small share of it.

    Examples
    --------
    >>> logs_of(np.array([[1.0, 4.0]]), np.array([1.0, 2.0])).round(4).tolist()
    [[0.0, 0.6931]]
    """
    rows = np.maximum(np.asarray(X, dtype=np.float64), limit) / reference
    return np.asarray(np.log(np.maximum(rows, tuning().canonical.least_number)))


def spikes_of(spikes: Array, means: Array) -> list[Degenerate]:
    """Return the components that stand for one value in some columns, as `spikes` (k, d) says."""
    # A column of one value makes spikes of all components, and is what is odd.
    varies = np.ptp(means, axis=0) > tuning().canonical.apart * means.max(axis=0)
    return [
        Degenerate(k, tuple(np.flatnonzero(at).tolist()), tuple(means[k, at].tolist()))
        for k, at in enumerate(spikes & (varies | ~spikes.all(axis=0)))
        if at.any()
    ]


def spike_warnings(
    found: Sequence[Degenerate], weights: Array, called: Callable[[Sequence[int]], str]
) -> list[str]:
    """Return a warning of components that stand for single values."""
    if not found:
        return []
    groups: dict[tuple[int, ...], list[Degenerate]] = {}
    for one in found:
        groups.setdefault(one.columns, []).append(one)
    places = []
    for columns, there in groups.items():
        numbers = [one.component for one in there]
        share = float(weights[numbers].sum() / weights.sum())
        shown = ", ".join(map(str, numbers[:10])) + ", ..." * (len(numbers) > 10)
        values = [", ".join(f"{value:.6g}" for value in one.values) for one in there[:10]]
        at = ", ".join(f"({v})" if len(columns) > 1 else v for v in values)
        plural = "s" * (len(numbers) > 1)
        places.append(
            f"component{plural} {shown} ({share:.1%} of the rows) at {at} in {called(columns)}"
        )
    return [
        f"degenerate components: {'; '.join(places)}. They stand for single values (zeros, rounded "
        "numbers), not for clusters, and the likelihood has no bound there but that of the "
        "program: add to such a column uniform noise as wide as the step between its values, "
        "fit the rows of that value apart from the others, or lower n_components"
    ]
