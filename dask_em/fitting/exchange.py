"""Exchange of clusters among models of one K: where one has been, the others start too.

Models that differ in nothing but the structure of their components (full, diag, ...) have optima
near each other. So each starts also from the responsibilities at which the others ended: those of
a model nested in it, whose likelihood its M-step can only raise, and those of all others, whose
clusters may be better than what its own starts found. Beside these all start from the clusters of
Ward's trees of few rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from ..core.additive import Array
from ..core.em import Convergence, EMState, Rank, rank
from ..core.engine import Engine
from ..core.executor import in_threads, serial_executor
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.protocols import ExecutorFactory
from ..core.scoring import Predict
from ..core.tuning import tuning
from .agglomerative import clusters_of, ward_trees
from .multistart import SampleFits, StartResult
from .sample import Sampled, Start
from .starts import LABELLERS, StartOptions, hard

T = TypeVar("T")


@dataclass(frozen=True)
class Clusters:
    """Hold rows of the sample, and their responsibilities times weights (n, k)."""

    rows: Sampled
    resp: Array


@dataclass(frozen=True)
class Exchange:
    """Let models of one family and K start from the clusters of each other.

    Attributes
    ----------
    models : sequence of StartOptions
    moments : Moments
        Of all data.
    engine : Engine
        What computes on the sample.
    few : bool
        Whether the sample is so small that models of many optima begin from many clusters, too,
        those that are alone of their K among them.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from dask_em.core.engine import NUMPY
    >>> kinds = [GaussianMixture(3, covariance_type=kind) for kind in ("full", "diag")]
    >>> models = [one.start_options() for one in (*kinds, GaussianMixture(2))]
    >>> Exchange(models, Moments.unit(2), NUMPY).groups()
    [[0, 1]]
    """

    models: Sequence[StartOptions]
    moments: Moments
    engine: Engine
    few: bool = False

    def of(self, numbers: Sequence[int]) -> Exchange:
        """Return the exchange among some of the models."""
        return replace(self, models=[self.models[i] for i in numbers])

    def groups(self) -> list[list[int]]:
        """Return the numbers of models that may exchange clusters, those of one K together."""
        found: dict[tuple[str, int], list[int]] = {}
        for i, model in enumerate(self.models):
            found.setdefault((model.family, model.n_components), []).append(i)
        return [
            group
            for (_, k), group in found.items()
            if k > 1 and (len(group) > 1 or self._seeded(group))
        ]

    def _seeded(self, group: Sequence[int]) -> bool:
        return self.few and all(self.models[i].components.many_optima for i in group)

    def run(
        self,
        rows: Sampled,
        ends: Sequence[T],
        state_of: Callable[[T], EMState],
        fit: Callable[[list[tuple[int, Mixture]]], list[T]],
        with_trees: bool = True,
    ) -> tuple[list[T], int]:
        """Return the best end of each model, and the rows that were read to propose starts.

        Parameters
        ----------
        rows : Sampled
            To which all were fitted.
        ends : sequence
            Of each model, in order.
        state_of : callable
            Returns the state at an end.
        fit : callable
            Fits starts, each with the number of its model, to the rows.
        with_trees : bool
            Whether all start from Ward's trees, too.
        """
        ends, n_rows = list(ends), 0
        first = rows.first(tuning().exchange.tree_rows)
        # The noise of rows, which stands behind their columns, is left out.
        data = first.rows[:, : len(self.moments.mean)]
        trees = ward_trees(data, self.moments) if with_trees and self.groups() else []
        for group in self.groups():
            k = self.models[group[0]].n_components
            labels = [clusters_of(tree, k) for tree in trees]
            if with_trees and self._seeded(group):
                labels += self._nearest_seeds(group[0], first)
            given = [Clusters(first, hard(of, k) * first.weights[:, None]) for of in labels]
            n_rows = max(n_rows, self._among(group, rows, given, ends, state_of, fit))
        return ends, n_rows

    def starts(
        self,
        starts: Sequence[Start],
        sample: Sampled,
        limits: Convergence,
        n_weighted: int,
        n_first: int,
        executor: ExecutorFactory = serial_executor,
    ) -> list[Start]:
        """Return the starts of the models, those of others' clusters in place of worse ones.

        Parameters
        ----------
        starts : sequence of Start
            One a model.
        sample : Sampled
        limits : Convergence
            How far starts are fitted to it.
        n_weighted : int
            Rows of the data.
        n_first : int
            Rows of the sample on which clusters are exchanged: the first ones.
        executor : ExecutorFactory
            Makes what calls the fits.
        """
        if not self.groups():
            return list(starts)
        first = sample.first(n_first)
        with executor(SampleFits(sample, n_first, limits, limits)) as calls:
            own = calls.map(SampleFits.fit_subsample, [one.mixture for one in starts])

            def fit(wanted: list[tuple[int, Mixture]]) -> list[StartResult]:
                return calls.map(SampleFits.fit_subsample, [start for _, start in wanted])

            found, n_rows = self.run(first, own, lambda end: end.state, fit)
            better = [i for i, end in enumerate(found) if end is not own[i]]
            both = [starts[i].mixture for i in better] + [found[i].state.result for i in better]
            ends = calls.map(SampleFits.fit_sample, both)
        before, after = ends[: len(better)], ends[len(better) :]
        made = list(starts)
        for i, old, new in zip(better, before, after, strict=True):
            if new.rank > self._bar(i, old.state):
                made[i] = Start(new.state.result, log_likelihood=new.state.log_likelihood)
        n_rows += max(end.rows_read for end in (*own, *found, *before, *after))
        share = n_rows / max(1, n_weighted)
        pairs = zip(made, starts, strict=True)
        return [replace(new, n_passes=old.n_passes + share) for new, old in pairs]

    def _among(
        self,
        group: Sequence[int],
        rows: Sampled,
        given: Sequence[Clusters],
        ends: list[T],
        state_of: Callable[[T], EMState],
        fit: Callable[[list[tuple[int, Mixture]]], list[T]],
    ) -> int:
        """Put better ends in place of those of one group, and return the rows that were read.

        At first all start from the clusters that are `given`, too.
        """
        n_rows = 0

        def gained(shares: Mapping[int, Sequence[Clusters]], each: int) -> list[int]:
            """Let models start from clusters, and return which of them ended better."""
            nonlocal n_rows
            # To find responsibilities, to sum under them, and to judge the M-step of the sums.
            n_rows += 3 * len(rows.rows)
            tasks = [*shares.items()]
            proposed = in_threads(lambda task: self._proposals(rows, *task)[:each], tasks)
            wanted = [
                (i, one) for i, starts in zip(shares, proposed, strict=True) for one in starts
            ]
            better = {}
            for (i, _), end in zip(wanted, fit(wanted), strict=True):
                if _rank(state_of(end)) > self._bar(i, state_of(ends[i])):
                    ends[i] = better[i] = end
            return list(better)

        few = len(rows.rows) <= tuning().exchange.tree_rows
        if given:
            each = min(len(given), tuning().exchange.seeded) if few else 1
            gained(dict.fromkeys(group, given), each)
        changed = list(group)
        for _ in range(tuning().exchange.rounds):
            found = in_threads(lambda j: self._shares(rows, state_of(ends[j])), changed)
            new = dict(zip(changed, found, strict=True))
            others = {i: [one for j, one in new.items() if j != i] for i in group}
            changed = gained(others, tuning().exchange.each if few else 1)
            if not changed:
                break
        return n_rows

    def _nearest_seeds(self, i: int, rows: Sampled) -> list[Array]:
        """Return clusters about seeds of k-means++, as far from those of trees as they happen."""
        model, label = self.models[i], LABELLERS["k-means++"]
        Z = model.components.start_coordinates(rows.rows, self.moments)
        return [
            label(Z, rows.weights, model.n_components, seed)
            for seed in range(tuning().exchange.seeds)
        ]

    def _shares(self, rows: Sampled, state: EMState) -> Clusters:
        """Return the clusters at the end of a fit."""
        proba = Predict(state.result.on_cpu, ("proba",))(rows.rows)["proba"]
        return Clusters(rows, np.asarray(proba * rows.weights[:, None]))

    def _proposals(self, rows: Sampled, i: int, shares: Sequence[Clusters]) -> list[Mixture]:
        """Return the M-steps of one model of the clusters of others, the likeliest first."""
        found = []
        for clusters in shares:
            X, resp = clusters.rows.rows, clusters.resp
            for start in self.models[i].starts_of(self.moments, X, resp):
                start = replace(start, engine=self.engine)
                value = start.objective(rows.accumulate(start))
                if np.isfinite(value):
                    found.append((value, start))
        found.sort(key=lambda one: one[0], reverse=True)
        return [start for _, start in found]

    def _bar(self, i: int, state: EMState) -> Rank:
        """Return the rank that an end must pass to be taken in place of this one of model i."""
        finite, whole, honest, value = _rank(state)
        least = min(self.models[i].tol, tuning().multistart.least_gain)
        return finite, whole, honest, value + least


def _rank(state: EMState) -> Rank:
    return rank(state.objective, state.collapsed, state.spiked)
