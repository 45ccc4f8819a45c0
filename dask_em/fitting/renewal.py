"""Where an update begins: the sums that it carries, and moves judged on the sample of a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.agreement import least_matching
from ..core.em import Convergence, EMState
from ..core.incremental import Carried
from ..core.mixture import Mixture
from ..core.scoring import Predict
from ..core.tuning import tuning
from .kept_sample import CarriedSample, KeptSample, is_enough
from .multistart import Multistart, SampleFits
from .sample import Sampled
from .starts import StartOptions
from .survey import Survey, Surveyed, fingerprint_of


@dataclass(frozen=True)
class Earlier:
    """The fit that an update goes on from.

    Attributes
    ----------
    state : EMState
    kept : callable
        The weight of the new rows -> what a row that was read before still counts as.
    sample : KeptSample or None
        Of the rows that were read.
    size : int
        Rows of the sample that are kept of all.
    first : float
        Weight of the rows of the first fit.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> earlier = Earlier(GaussianMixture(1).fit([[0.0], [2.0]]).state_, lambda weight: 0.5)
    >>> earlier.carried(10.0).statistics.weight
    1.0
    """

    state: EMState
    kept: Callable[[float], float]
    sample: KeptSample | None = None
    size: int = 0
    first: float = 1.0

    def carried(self, weight: float) -> Carried:
        """Return the sums that join those of new rows of this weight."""
        return Carried.of(self.state, self.kept(weight))

    def begin(
        self, surveyed: Surveyed, limits: Convergence, options: StartOptions, seed: int
    ) -> tuple[Mixture, Carried]:
        """Return where the passes over new rows begin, and the sums that join theirs.

        Parameters
        ----------
        surveyed : Surveyed
            Of the new rows.
        limits : Convergence
        options : StartOptions
            Of a start of such a mixture.
        seed : int
        """
        start, carried = self.state.result, self.carried(surveyed.moments.weight)
        total = carried.statistics.weight
        if self.sample is None or not is_enough(self.sample, start) or not total > 0:
            return start, carried
        own = KeptSample.of(self.sample.sampled, self.sample.size, total)
        followed = CarriedSample(carried.mixture, carried.statistics, own)
        joined = self.joined(surveyed, carried)
        if not self._is_due(total, surveyed.moments.weight) or joined is None:
            return start, followed
        others = [] if start.noise_box else [started_anew(start, options, joined.sampled, seed)]
        found = best_on(joined.sampled, start, limits, others)
        return (start, followed) if found is start else (found, followed.anew(found))

    def joined(self, surveyed: Surveyed, carried: Carried) -> KeptSample | None:
        """Return the sample of all rows, where the model is to keep one."""
        if self.sample is None:
            return None
        new = KeptSample.of(Sampled.of(surveyed), self.size, surveyed.moments.weight)
        kept = carried.statistics.weight / self.state.statistics.weight
        # Of the rows alone: the seed of a survey may be another in each process.
        return self.sample.joined(kept, new, int(fingerprint_of(surveyed)[:8], 16))

    def _is_due(self, before: float, weight: float) -> bool:
        """Tell whether so many rows join that moves are worth trying: where all have doubled."""
        mixture = self.state.result
        if not mixture.movable or mixture.components.variational or not self.first > 0:
            return False
        one, other = (math.floor(math.log2(w / self.first)) for w in (before, before + weight))
        return other > one


def best_on(
    sample: Sampled, mixture: Mixture, limits: Convergence, others: Sequence[Mixture]
) -> Mixture:
    """Return where split-and-merge moves lead, or other starts, if the sample is sure of the gain.

    The mixture itself where it does not tell that another optimum is higher, by two standard
    errors.

    Parameters
    ----------
    sample : Sampled
        Its weights are those of all rows that it stands for.
    mixture : Mixture
    limits : Convergence
        Of the update.
    others : sequence of Mixture
        Starts that were fitted to the sample, of like numbers.
    """
    here = mixture.on_cpu
    p, k, m = here.n_parameters, len(here.log_weights), len(sample.rows)
    weight = float(sample.weights.sum())
    multistart = Multistart.of(p, k, m, max(weight, m), 1, here.assignment)
    fits = SampleFits(sample, m, limits.on_sample(), limits.on_sample())
    end = fits.fit_sample(here)
    ends = [fits.split_and_merge(end, multistart.moves), *map(fits.fit_sample, others)]
    found = max(ends, key=lambda one: one.rank)
    gain = _gain(end.state.result, found.state.result, sample)
    if not (found.rank[:3] >= end.rank[:3] and gain > tuning().multistart.least_gain):
        return mixture
    return replace(found.state.result, engine=mixture.engine)


def started_anew(mixture: Mixture, options: StartOptions, sample: Sampled, seed: int) -> Mixture:
    """Return a start on a sample as a fit makes it, its components numbered as those of a mixture.

    Numbers go by the rows of the sample that components have in common.
    """
    rows, weights = sample.rows, sample.weights
    survey = Survey(
        seed, len(rows), rows.shape[1], len(rows), options.components.support,
        joint=options.components.joint_moments(rows.shape[1]),
    )  # fmt: skip
    fold = survey.fold()
    fold.update(0, rows, weights)
    engine = mixture.on_cpu.engine
    fresh = replace(options, start_from=None, n_init=1)
    found = fresh.start(fold.result(), engine, seed, ()).mixture
    ours, theirs = (Predict(one.on_cpu, ("proba",))(rows)["proba"] for one in (mixture, found))
    common = (ours * weights[:, None]).T @ theirs
    order = [j for _, j in sorted(least_matching(-common))]
    return found.reordered(order)


def _gain(before: Mixture, after: Mixture, sample: Sampled) -> float:
    """Return what a row gains at least, in nats: the mean less some standard errors of it."""
    if before is after:
        return 0.0
    one, other = (
        np.asarray(Predict(mixture, ("log_density",))(sample.rows)["log_density"])
        for mixture in (before, after)
    )
    weights = sample.weights / sample.weights.sum()
    error = np.sqrt(sample.variance(other - one) / sample.effective_rows)
    return float(weights @ (other - one) - tuning().sample.renewal_errors * error)
