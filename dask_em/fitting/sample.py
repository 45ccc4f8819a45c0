"""TODO fitting.sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ..core.additive import Array
from ..core.codec import record
from ..core.engine import Engine
from ..core.mixture import Mixture, MixtureStatistics
from ..core.tuning import tuning
from .survey import Surveyed


def default_sample_size(n_parameters: int, n_features: int) -> int:
    """Rows of the sample: by the number of free parameters, within memory and a cap."""
    wanted = min(
        max(tuning().sample.rows_per_parameter * n_parameters, tuning().sample.fewest_sampled),
        tuning().sample.most_sampled,
    )
    return max(1, min(wanted, tuning().sample.bytes // (8 * n_features)))


@dataclass(frozen=True)
class Sampled:
    """The sample of a survey as data for EM in memory."""

    rows: Array
    weights: Array

    @classmethod
    def of(cls, surveyed: Surveyed) -> Sampled:
        """The sampled rows, in the random order of their keys."""
        sample = surveyed.sample.smallest()
        return cls(sample.rows, sample.weights)

    @cached_property
    def _uniform(self) -> bool:
        return bool((self.weights == 1).all())

    def first(self, n: int) -> Sampled:
        """The first `n` rows, a uniform sample too, because the rows lie in random order."""
        return Sampled(self.rows[:n], self.weights[:n])

    @cached_property
    def effective_rows(self) -> float:
        """Rows of equal weight that would tell as much (Kish 1965)."""
        return float(self.weights.sum() ** 2 / (self.weights**2).sum())

    def variance(self, values: Array) -> Array:
        """Of values (..., m) of its rows, weighted."""
        weights = self.weights / self.weights.sum()
        return np.asarray(((values - (values @ weights)[..., None]) ** 2) @ weights)

    def accumulate(self, mixture: Mixture) -> MixtureStatistics:
        """The E-step over the sample."""
        fold = mixture.fold()
        fold.update(0, self.rows, None if self._uniform else self.weights)
        return fold.result()


@record("start")
@dataclass(frozen=True)
class Start:
    """Where the fit starts, and what it cost.

    Attributes
    ----------
    mixture : Mixture
    n_passes : float
        Rows of the sample that were read, as a share of the data.
    log_likelihood : float
        Per row of the sample.
    rivals : tuple of Mixture
        Other starts, of which the sample cannot say that they are worse.
    """

    mixture: Mixture
    n_passes: float
    log_likelihood: float
    rivals: tuple[Mixture, ...] = ()

    def mixtures(self, engine: Engine) -> tuple[Mixture, ...]:
        """The mixture and its rivals, to be computed by `engine`."""
        return tuple(replace(one, engine=engine) for one in (self.mixture, *self.rivals))
