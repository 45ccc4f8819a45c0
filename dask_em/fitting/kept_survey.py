"""The survey that is kept beside the data, so that a fit need not make it.

It holds the sums of each range of chunks, so that they are added in the tree of whatever fit takes
them, and as large a sample as fits draw unasked, of which a smaller one is the beginning. So the
fit has the bits that it would have if it had made the pass.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..core.additive import Additive, Array
from ..core.chunk_log import ChunkLog, Logged
from ..core.codec import record
from ..core.moments import Moments
from ..core.passes import LoggingPass
from ..core.protocols import Fold, Pass, Source
from ..core.reduction import add_tree, fan_in
from ..core.support import Support
from ..core.tuning import tuning
from ..version import __version__
from .survey import NonFinite, Sample, Survey, Surveyed

logger = logging.getLogger("dask_em")


@dataclass(frozen=True)
class Leaves(Additive):
    """Hold the survey of each range by itself, but for the sample and the log.

    Attributes
    ----------
    surveys : tuple of Surveyed
        Without samples.
    sample : Sample
    log : ChunkLog
    """

    surveys: tuple[Surveyed, ...]
    sample: Sample
    log: ChunkLog

    def __add__(self, other: Leaves) -> Leaves:
        surveys = (*self.surveys, *other.surveys)
        return Leaves(surveys, self.sample + other.sample, self.log + other.log)


@dataclass(frozen=True)
class SurveyLeaves(Pass[Leaves]):
    """Make a survey without rows of NaN or infinity, of which every range's sums are kept.

    Attributes
    ----------
    survey : Survey

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> survey = Survey(seed=0, sample_size=2, n_features=2, n_rows=3)
    >>> found = SerialBackend().map_reduce(ArraySource(np.eye(3, 2)), SurveyLeaves(survey))
    >>> len(found.surveys), found.sample.rows.shape
    (1, (2, 2))
    """

    survey: Survey

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a range."""
        return self.survey.result_bytes

    def fold(self) -> SurveyLeavesFold:
        """Return the survey of one range, before its first chunk."""
        return SurveyLeavesFold(LoggingPass(self.survey, drop=True).fold())


class SurveyLeavesFold(Fold[Leaves]):
    """Survey one range."""

    def __init__(self, fold: Fold[Logged[Surveyed]]) -> None:
        self._fold = fold

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add chunk number `index`, of rows X (n, d)."""
        self._fold.update(index, X, sample_weight)

    def take_fingerprints(self, fingerprints: Mapping[int, int]) -> None:
        """Take the fingerprint of each chunk that was read for the fold."""
        self._fold.take_fingerprints(fingerprints)

    def result(self) -> Leaves:
        """Return the survey of the chunks given so far."""
        found = self._fold.result()
        sample = found.sums.sample
        return Leaves((_without_sample(found.sums),), sample, found.log)


def _without_sample(surveyed: Surveyed) -> Surveyed:
    d = len(surveyed.moments.mean)
    return Surveyed(
        surveyed.n_rows,
        surveyed.n_weighted,
        surveyed.moments,
        surveyed.non_finite,
        surveyed.outside,
        Sample(0, np.empty(0), np.empty((0, d)), np.empty(0)),
    )


@record("kept-survey", 2)
@dataclass(frozen=True)
class KeptSurvey:
    """Keep the leaves of a survey, and what they depend on.

    Attributes
    ----------
    seed : int
        Of the sample.
    made_by : str
        The version of dask_em.
    tuning : str
        Constants that differ from the defaults, by which ranges are cut and sums added.
    compiled : bool
        Whether the compiled loop made the sums.
    n_rows, weight : (r,) array
        Of each range.
    mean, low, high : (r, d) array
    scatter : (r, d, d) or (r, d) array
    sample : Sample
    log : ChunkLog

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> source, survey = ArraySource(np.eye(3, 2)), Survey(0, 3, 2, 3)
    >>> leaves = SerialBackend().map_reduce(source, SurveyLeaves(survey))
    >>> found = KeptSurvey.of(survey, leaves).found(Survey(0, 2, 2, 3))
    >>> made = SerialBackend().map_reduce(source, Survey(0, 2, 2, 3))
    >>> bool((found.sums.sample.rows == made.sample.rows).all()), found.sums.n_rows
    (True, 3)
    """

    seed: int
    made_by: str
    tuning: str
    compiled: bool
    n_rows: Array
    weight: Array
    mean: Array
    scatter: Array
    low: Array
    high: Array
    sample: Sample
    log: ChunkLog

    @classmethod
    def of(cls, survey: Survey, leaves: Leaves) -> KeptSurvey:
        """Keep the leaves of a survey."""
        each = leaves.surveys
        return cls(
            survey.seed,
            __version__,
            _cutting(),
            survey.compiled,
            np.array([leaf.n_rows for leaf in each]),
            np.array([leaf.moments.weight for leaf in each]),
            np.stack([leaf.moments.mean for leaf in each]),
            np.stack([leaf.moments.scatter for leaf in each]),
            np.stack([leaf.moments.low for leaf in each]),
            np.stack([leaf.moments.high for leaf in each]),
            leaves.sample.smallest(),
            leaves.log,
        )

    def found(self, survey: Survey) -> Logged[Surveyed]:
        """Return what a survey of the same seed would find."""
        parts = [_without_sample(self._leaf(i, survey)) for i in range(len(self.n_rows))]
        whole = add_tree(parts, fan_in(survey.result_bytes))
        size = survey.sample_size
        sample = Sample(
            size, self.sample.keys[:size], self.sample.rows[:size], self.sample.weights[:size]
        )
        sums = Surveyed(
            whole.n_rows,
            whole.n_weighted,
            whole.moments,
            whole.non_finite,
            whole.outside,
            sample,
        )
        return Logged(sums, self.log)

    def _leaf(self, i: int, survey: Survey) -> Surveyed:
        n_rows = int(self.n_rows[i])
        moments = Moments(
            float(self.weight[i]), self.mean[i], self.scatter[i], self.low[i], self.high[i]
        )
        return Surveyed(n_rows, n_rows, moments, NonFinite(), NonFinite(), self.sample)

    def unfit(self, survey: Survey, drop: bool, source: Source) -> str:
        """Say why a fit cannot take it; empty where it can."""
        n, d = source.n_rows, source.n_features
        of = int(self.n_rows.sum()) + self.log.n_dropped, self.mean.shape[1]
        reasons = {
            f"it was made by dask_em {self.made_by}": self.made_by != __version__,
            "the constants that cut the data differ": self.tuning != _cutting(),
            f"it was made {'with' if self.compiled else 'without'} Numba": (
                self.compiled != survey.compiled
            ),
            "it is of other rows or columns": of != (n, d)
            or len(self.log.chunks) != source.n_chunks,
            "its sums of columns are of another kind": (self.scatter.ndim == 3) != survey.joint,
            "its sample was drawn by another seed": self.seed != survey.seed,
            f"its sample holds {self.sample.size} rows": self.sample.size < survey.sample_size,
            "it leaves out rows of NaN or infinity": bool(self.log.n_dropped)
            and (not drop or any(survey.support.missing)),
            f"it does not tell whether all are {survey.support.word(0)}": not self._within(
                survey.support, source
            ),
        }
        found = next((reason for reason, holds in reasons.items() if holds), "")
        if not found and not source.unchanged_since(self.log):
            return "chunks were written to since"
        return found

    def _within(self, support: Support, source: Source) -> bool:
        """Tell whether all numbers are those of a support, where that is certain."""
        whole = source.dtype.kind in "iub"
        low, high = self.low.min(axis=0), self.high.max(axis=0)
        return support.is_real or support.holds_between(low, high, whole)


def _cutting() -> str:
    """The constants on which the sums of a survey depend, where they are not the defaults."""
    groups = ("reading.", "reduction.")
    found = {name: v for name, v in tuning().changes().items() if name.startswith(groups)}
    return json.dumps(found, sort_keys=True)


def largest_sample(n_features: int) -> int:
    """Return the rows of the largest sample that a fit draws unasked.

    Examples
    --------
    >>> largest_sample(8)
    100000
    """
    return max(1, min(tuning().sample.most_sampled, tuning().sample.bytes // (8 * n_features)))


def worth_keeping(n_ranges: int, n_features: int) -> bool:
    """Tell whether the sums of so many ranges are few beside the data.

    Examples
    --------
    >>> worth_keeping(64, 100), worth_keeping(64, 5000)
    (True, False)
    """
    return 8 * n_ranges * n_features * (n_features + 3) <= tuning().ingest.kept_bytes


def survey_kept_beside(
    source: Source, pass_: Pass[Surveyed], drop: bool, any_sample: bool = False
) -> Logged[Surveyed] | None:
    """Return what a survey would find, where that is kept beside the data and they are the same.

    Parameters
    ----------
    source : Source
    pass_ : Pass
        The survey that a fit would make.
    drop : bool
        Whether rows that hold NaN or infinity are left out.
    any_sample : bool
        Whether the sample may be of another seed.
    """
    kept = source.kept_beside(KeptSurvey)
    if kept is None:
        return None
    if source.weighted:
        reason = "rows have weights"
    elif source.beside.noise is not None:
        reason = "rows have noise, which its sample lacks"
    elif not isinstance(pass_, Survey):
        reason = "rows are held out"
    else:
        survey = replace(pass_, seed=kept.seed) if any_sample else pass_
        reason = kept.unfit(survey, drop, source)
        if not reason:
            logger.info(
                "the survey is kept beside the data, whose chunks are those of then: no pass is "
                "made for it"
            )
            return kept.found(survey)
    logger.info("the survey that is kept beside the data does not serve this fit: %s", reason)
    return None
