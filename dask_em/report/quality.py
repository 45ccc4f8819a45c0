"""Quality of rows that were drawn, and of their assignment: holes, spikes, doubt, overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.additive import Array
from ..estimators.describe import FittedMixture

# A value that so many rows hold, and so many times as many as any other, is a spike: neighbours of
# a count's commonest value are about as common.
LEAST_SPIKE, LEAST_AHEAD = 0.05, 5.0
# Rows of one component belong to another by this much on average: the two overlap.
LEAST_OVERLAP = 0.1


@dataclass(frozen=True)
class ColumnQuality:
    """Describe one column of rows that were drawn.

    Attributes
    ----------
    missing : float
        Share of the rows that have no value in it.
    low, median, high : float
        Of the values; NaN where there are none.
    common : float
        The commonest value.
    share : float
        Share of the values that are this one.
    ahead : float
        How many times as common it is as the next.
    """

    missing: float
    low: float
    median: float
    high: float
    common: float
    share: float
    ahead: float

    @property
    def constant(self) -> bool:
        """Whether the values are all the same."""
        return self.low == self.high

    @property
    def spike(self) -> bool:
        """Whether one value stands out that is not the only one."""
        out = self.share >= LEAST_SPIKE and self.ahead >= LEAST_AHEAD
        return out and not self.constant

    @classmethod
    def of(cls, values: Array) -> ColumnQuality:
        """Describe the values of a column (n,), NaN where one is missing.

        Examples
        --------
        >>> found = ColumnQuality.of(np.array([0.0] * 6 + [1.5, 2.5, np.nan, 3.5]))
        >>> found.missing, found.common, round(found.share, 2), found.spike
        (0.1, 0.0, 0.67, True)
        """
        known = values[~np.isnan(values)]
        missing = (len(values) - len(known)) / max(len(values), 1)
        if not len(known):
            nothing = np.nan
            return cls(missing, nothing, nothing, nothing, nothing, 0.0, 0.0)
        found, counts = np.unique(known, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        first, second = counts[order[0]], counts[order[1]] if len(order) > 1 else 1
        return cls(
            missing,
            float(known.min()),
            float(np.median(known)),
            float(known.max()),
            float(found[order[0]]),
            float(first) / len(known),
            # A value that one row holds is as common as none.
            float(first) / max(float(second), 1.0) if first > 1 else 1.0,
        )


@dataclass(frozen=True)
class Assignment:
    """Hold how rows that were drawn are shared among the components.

    Attributes
    ----------
    largest : (n,) array
        The largest responsibility of each row.
    confusion : (k, k) array
        Mean responsibilities of the rows of each component, by their likeliest.
    """

    largest: Array
    confusion: Array

    @classmethod
    def of(cls, model: FittedMixture, rows: Array) -> Assignment:
        """Assign rows (n, d); those of noise count in `largest` alone.

        Examples
        --------
        >>> from dask_em import GaussianMixture
        >>> X = np.random.default_rng(0).normal(size=(90, 1)) + 99 * (np.arange(90) % 2)[:, None]
        >>> Assignment.of(GaussianMixture(2).fit(X), X).confusion.round(3).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
        """
        resp = np.asarray(model.predictor(("proba",))(rows)["proba"], dtype=np.float64)
        labels, k = resp.argmax(axis=1), model.n_components
        confusion = np.zeros((k, k))
        for one in range(k):
            mine = resp[labels == one, :k]
            confusion[one] = mine.mean(axis=0) if len(mine) else np.eye(k)[one]
        return cls(resp.max(axis=1), confusion)

    @property
    def overlaps(self) -> list[tuple[int, int, float]]:
        """Pairs of components of which the rows of the first belong to the second too.

        By how much they do on average, from the largest on.
        """
        apart = self.confusion - np.diag(np.diagonal(self.confusion))
        pairs = [(int(a), int(b), float(apart[a, b])) for a, b in np.argwhere(apart > 0)]
        found: dict[frozenset[int], tuple[int, int, float]] = {}
        for a, b, share in sorted(pairs, key=lambda pair: -pair[2]):
            if share >= LEAST_OVERLAP:
                found.setdefault(frozenset((a, b)), (a, b, share))
        return [*found.values()]
