"""The records of a fit that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..core.chunk_log import Logged
from ..core.codec import record
from ..core.em import AlgorithmState, EMState
from .observers import PassRecord
from .survey import Surveyed


@record("survey-pass")
@dataclass(frozen=True)
class SurveyPass:
    """What the survey found, and the record of the pass."""

    found: Logged[Surveyed]
    record: PassRecord


@record("fit-progress")
@dataclass
class Progress:
    """All that a fit of one model knows between two passes.

    Attributes
    ----------
    algorithm : AlgorithmState
    state : EMState or None
        After the last pass.
    start_passes : float
        Passes that the start cost.
    fingerprint : str
        Of what the survey summed.
    records : list of PassRecord
    rejected : list of int
        Numbers of the passes that were rejected.
    """

    algorithm: AlgorithmState
    state: EMState | None
    start_passes: float
    fingerprint: str
    records: list[PassRecord]
    rejected: list[int] = field(default_factory=list)
