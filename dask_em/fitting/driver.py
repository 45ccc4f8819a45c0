"""TODO fitting.driver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..core.em import EMState
from .observers import PassRecord


@dataclass
class Progress:
    """All that a fit of one model knows between two passes.

    Attributes
    ----------
    memory : dict
        The ascent's, see `em.memory_of`.
    state : EMState or None
        What it told last.
    start_passes : float
        What the start cost.
    fingerprint : str
        Of what the survey summed.
    records : list of PassRecord
    rejected : list of int
        Numbers of the passes that were rejected.
    """

    memory: dict[str, Any]
    state: EMState | None
    start_passes: float
    fingerprint: str
    records: list[PassRecord]
    rejected: list[int] = field(default_factory=list)
