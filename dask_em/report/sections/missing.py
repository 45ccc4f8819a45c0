"""Parts that a page lacks, why, and how to get them."""

from __future__ import annotations

from ...estimators.describe import FittedMixture
from ...estimators.html import text
from ..evidence import Evidence
from ..section import Section


def missing_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on what the page lacks, and how to get it."""
    reasons = list(evidence.missing)
    if evidence.rows is None and not reasons:
        reasons = ["Pictures of rows and the drift over chunks, for which no data were given."]
    if not reasons:
        return None
    items = "".join(f"<li>{text(reason)}</li>" for reason in reasons)
    return Section("Left out", f"<ul>{items}</ul>")
