"""Fleets: the E-steps of many mixtures in one pass over the data."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .additive import Additive, Array
from .codec import record
from .mixture import JointEStep, Mixture
from .parts import MixtureStatistics
from .passes import Holdout, Slice
from .protocols import Fold, Pass
from .scoring import Predict
from .support import common_support
from .tuning import tuning

# -- the pass ------------------------------------------------------------------------


@record("fleet-statistics")
@dataclass(frozen=True)
class FleetStatistics(Additive):
    """Hold the sums of one pass for many mixtures.

    Attributes
    ----------
    members : tuple of MixtureStatistics
        Of each mixture, over the rows that are fitted.
    held_weight : float
        Weight of the rows that are held out.
    held_log_likelihood : (c,) array
        sum_n w_n log p(x_n) of each mixture over them, in nats.

    Examples
    --------
    >>> one = FleetStatistics((), 2.0, np.array([-3.0]))
    >>> other = FleetStatistics((), 1.0, np.array([-6.0]))
    >>> (one + other).held_out(0)
    -3.0
    """

    members: tuple[MixtureStatistics, ...]
    held_weight: float
    held_log_likelihood: Array

    def held_out(self, i: int) -> float | None:
        """Mean log-likelihood of the rows held out under mixture i; None if there are none."""
        return float(self.held_log_likelihood[i]) / self.held_weight if self.held_weight else None


@dataclass(frozen=True)
class Fleet(Pass[FleetStatistics]):
    """The E-step of many mixtures in one pass: each chunk is read once for all of them.

    Attributes
    ----------
    mixtures : tuple of Mixture
    holdout : Holdout or None
        Rows that are scored instead of fitted.
    part : Slice or None
        The rows that count, fitted or scored; None for all.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> normal = Mixture(np.zeros(1), GaussianOptions().of_data(Moments.unit(1), 1))
    >>> fold = Fleet((normal, normal)).fold()
    >>> fold.update(0, np.array([[0.0], [2.0]]), None)
    >>> [member.n_rows for member in fold.result().members]
    [2, 2]
    """

    mixtures: tuple[Mixture, ...]
    holdout: Holdout | None = None
    part: Slice | None = None

    def __sizeof__(self) -> int:
        # Schedulers ask this before they move the parameters of a pass.
        return object.__sizeof__(self) + sum(m.__sizeof__() for m in self.mixtures)

    def fold(self) -> FleetFold:
        """Return the fold of one range, before its first chunk."""
        return FleetFold(self)

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return sum(m.result_bytes for m in self.mixtures) + 8 * len(self.mixtures) + 8


def joined(mixtures: Sequence[Mixture]) -> list[list[int]]:
    """Return the numbers of the mixtures that share an E-step, in groups."""
    open_groups: dict[Hashable, tuple[list[int], int]] = {}
    groups: list[list[int]] = []
    for i, mixture in enumerate(mixtures):
        k = len(mixture.log_weights)
        key = mixture.join_key if k <= tuning().fleet.most_each else None
        group, size = open_groups.get(key, ([], 0))
        if not group or size + k > tuning().fleet.most_joined:
            group, size = [], 0
            groups.append(group)
        group.append(i)
        if key is not None:
            open_groups[key] = group, size + k
    return groups


class FleetFold(Fold[FleetStatistics]):
    """Feeds each chunk to the E-steps of the mixtures, those that can share one together.

    Attributes
    ----------
    block_rows : int
        Where chunks may come in parts: rows of which a part has whole blocks; else 0.
    """

    takes_labels = True

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._groups = joined(fleet.mixtures)
        self._folds: list[Any] = []
        for group in self._groups:
            mixtures = [fleet.mixtures[i] for i in group]
            alone = len(group) == 1
            self._folds.append(mixtures[0].fold() if alone else JointEStep(mixtures))
        self._see_block_rows()
        self._support = common_support([m.components.support for m in fleet.mixtures])
        self._held_weight = 0.0
        self._held_log_likelihood = np.zeros(len(fleet.mixtures))

    @property
    def nbytes(self) -> int:
        """Bytes of the E-steps of all mixtures."""
        return sum(fold.nbytes for fold in self._folds)

    def _see_block_rows(self) -> None:
        fleet = self.fleet
        whole = len(self._folds) > 1 or fleet.holdout is not None or fleet.part is not None
        self.block_rows = 0 if whole else self._folds[0].block_rows

    def begin_labelled(self, width: int) -> None:
        """Tell the E-steps, before any row is added, that all rows come with labels."""
        for fold in self._folds:
            fold.begin_labelled(width)
        self._see_block_rows()

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d) with weights (n,)."""
        self._update(index, X, sample_weight, None)

    def update_labelled(
        self, index: int, X: Array, sample_weight: Array | None, labels: Array
    ) -> None:
        """Add rows whose labels restrict the E-step; those held out are scored without."""
        self._update(index, X, sample_weight, labels)

    def _update(
        self, index: int, X: Array, sample_weight: Array | None, labels: Array | None
    ) -> None:
        n, holdout, part = len(X), self.fleet.holdout, self.fleet.part
        out, weight = None, sample_weight
        if holdout is not None:
            out, weight = holdout.split(index, n, sample_weight)
        if part is not None:
            rows = np.flatnonzero(part.mask(index, n))
            X = X[rows]
            out, weight, sample_weight, labels = (
                None if a is None else a[rows] for a in (out, weight, sample_weight, labels)
            )
        if out is not None:
            if sample_weight is not None:
                out &= sample_weight > 0
            numbers = np.arange(n) if part is None else rows
            # The survey looks at fitted rows only.
            self._support.check(X[out], numbers[out])
            self._score(X[out], None if sample_weight is None else sample_weight[out])
        for fold in self._folds:
            if labels is None:
                fold.update(index, X, weight)
            else:
                fold.update_labelled(index, X, weight, labels)

    def _score(self, X: Array, sample_weight: Array | None) -> None:
        if len(X) == 0:
            return
        self._held_weight += len(X) if sample_weight is None else float(sample_weight.sum())
        for i, mixture in enumerate(self.fleet.mixtures):
            density = Predict(mixture, ("log_density",))(X)["log_density"]
            if sample_weight is not None:
                density *= sample_weight
            self._held_log_likelihood[i] += density.sum()

    def result(self) -> FleetStatistics:
        """Return the sums over all chunks given so far."""
        members: dict[int, MixtureStatistics] = {}
        for group, fold in zip(self._groups, self._folds, strict=True):
            found = fold.results() if len(group) > 1 else [fold.result()]
            members.update(zip(group, found, strict=True))
        in_order = tuple(members[i] for i in range(len(members)))
        return FleetStatistics(in_order, self._held_weight, self._held_log_likelihood)
