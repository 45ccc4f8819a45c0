"""The uniform sample of the rows, and where a fit starts on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core.additive import Array
from ..core.codec import record
from ..core.em import EMState
from ..core.engine import Engine
from ..core.mixture import Mixture
from ..core.objective import Objective
from ..core.parts import MixtureStatistics
from ..core.tuning import tuning
from .criteria import Row
from .survey import Surveyed


def default_sample_size(n_parameters: int, n_features: int) -> int:
    """Return the rows of the sample: by the free parameters, within memory and a cap."""
    wanted = min(
        max(tuning().sample.rows_per_parameter * n_parameters, tuning().sample.fewest_sampled),
        tuning().sample.most_sampled,
    )
    return max(1, min(wanted, tuning().sample.bytes // (8 * n_features)))


@dataclass(frozen=True)
class Sampled:
    """Hold the sample of a survey as data for EM in memory."""

    rows: Array
    weights: Array

    @classmethod
    def of(cls, surveyed: Surveyed) -> Sampled:
        """Return the sampled rows, in the random order of their keys."""
        sample = surveyed.sample.smallest()
        return cls(sample.rows, sample.weights)

    def standing_for(self, weight: float) -> Sampled:
        """Return the same rows, in place of all rows of this weight."""
        return Sampled(self.rows, self.weights * (weight / float(self.weights.sum())))

    @cached_property
    def _uniform(self) -> bool:
        return bool((self.weights == 1).all())

    def first(self, n: int) -> Sampled:
        """Return the first `n` rows, a uniform sample too, because the rows lie in random order."""
        return Sampled(self.rows[:n], self.weights[:n])

    @cached_property
    def effective_rows(self) -> float:
        """Rows of equal weight that would tell as much (Kish 1965)."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def variance(self, values: Array) -> Array:
        """Compute the weighted variance of values (..., m) of the rows."""
        weights = self.weights / self.weights.sum()
        return np.asarray(((values - (values @ weights)[..., None]) ** 2) @ weights)

    def accumulate(self, mixture: Mixture) -> MixtureStatistics:
        """Sum the statistics of the E-step over the sample."""
        fold = mixture.fold()
        fold.update(0, self.rows, None if self._uniform else self.weights)
        return fold.result()


@record("start", 2)
@dataclass(frozen=True)
class Start:
    """Hold the mixture that a fit starts from, and its results on the sample.

    Attributes
    ----------
    mixture : Mixture
    n_passes : float
        Rows of the sample that were read for it alone, as a share of the data.
    log_likelihood : float
        Per row of the sample.
    contenders : tuple of Mixture
        Other starts of the model, of which the sample cannot say that they are worse.
    row : Row or None
        The sample's numbers, scaled to all rows, where models were compared on it.
    eliminated : bool
        Whether the sample, or a slice, says that the model cannot win.
    state : EMState or None
        The state of an earlier fit of the same data, to go on from.
    """

    mixture: Mixture
    n_passes: float = 0.0
    log_likelihood: float = 0.0
    contenders: tuple[Mixture, ...] = ()
    row: Row | None = None
    eliminated: bool = False
    state: EMState | None = None

    def reported_objective(self, weight: float) -> Objective:
        """Return what people are told of the start, as an estimate for rows of this weight."""
        return self.mixture.components.reported_objective(self.log_likelihood, weight)

    def mixtures(self, engine: Engine) -> tuple[Mixture, ...]:
        """Return the mixture and its contenders, to be computed by `engine`."""
        return tuple(replace(one, engine=engine) for one in (self.mixture, *self.contenders))

    def going_on(self, engine: Engine) -> EMState | None:
        """Return the state to go on from, to be computed by `engine`; None where a fit begins."""
        return None if self.state is None else self.state.computed_by(engine)

    @property
    def numbers(self) -> Row:
        """The sample's numbers of a model that was compared on it."""
        assert self.row is not None, "the models were not compared on the sample"
        return self.row

    def moved(self, nats: float, weight: float) -> Start:
        """Return the same with numbers `nats` better for each of rows of this weight."""
        return replace(self, row=self.numbers.moved(nats, weight))
