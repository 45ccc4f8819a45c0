"""Quality of the data: rows left out, and holes, ranges and spikes of each column."""

from __future__ import annotations

import numpy as np

from ...estimators.describe import FittedMixture
from ...estimators.html import Cell, facts, table, text
from ..axes import shortened
from ..evidence import Evidence
from ..formats import counted, percent, quantity
from ..quality import ColumnQuality
from ..section import Section, note

# Rows of the table, the columns of most holes and spikes first where there are more.
MOST_COLUMNS = 100


def quality_section(model: FittedMixture, evidence: Evidence) -> Section | None:
    """Make the section on what is odd about the data, as far as it is known."""
    pairs = [*_of_fit(model), *_of_pass(evidence)]
    if not pairs and evidence.rows is None:
        return None
    html = facts([(text(name), text(value)) for name, value in pairs]) if pairs else ""
    if evidence.rows is not None:
        html += _columns(model, np.asarray(evidence.rows, dtype=np.float64))
    return Section("Data quality", html)


def _of_fit(model: FittedMixture) -> list[tuple[str, str]]:
    known = model.provenance_
    if "n_dropped" not in known:
        return []
    n, dropped = int(known["n_rows"]), int(known["n_dropped"])
    share = f" ({percent(dropped / n)})" if n and dropped else ""
    found = [("rows left out of the fit", f"{dropped:,} of {n:,}{share}")]
    weight = float(known.get("weight", n - dropped))
    if weight != n - dropped:
        found.append(("weight of the rows of the fit", quantity(weight)))
    return found


def _of_pass(evidence: Evidence) -> list[tuple[str, str]]:
    densities = evidence.densities
    if densities is None:
        return []
    n, dropped = int(densities.n_rows.sum()), int(densities.n_dropped.sum())
    found = [("rows of these data", f"{n:,} in {counted(len(densities.means), 'part')}")]
    found.append(("left out of them", f"{dropped:,}"))
    if below := int((~densities.finite & (densities.n_used > 0)).sum()):
        found.append(("parts with a row that no component describes", f"{below:,}"))
    return found


def _columns(model: FittedMixture, rows: np.ndarray) -> str:
    components = model.describe()
    found = [(j, ColumnQuality.of(values)) for j, values in enumerate(rows.T)]
    if len(found) > MOST_COLUMNS:
        worst = sorted(found, key=lambda one: (-one[1].missing, not one[1].spike))
        found = sorted(worst[:MOST_COLUMNS], key=lambda one: one[0])
    shown = f" The {MOST_COLUMNS} columns of most holes and spikes." * (
        len(found) < len(components.columns)
    )
    words = f"Of the {len(rows):,} rows drawn.{shown} A spike is a value that stands out."
    common = any(map(_is_common, (one for _, one in found)))
    head = ["column", "missing", "smallest", "median", "largest"]
    head += ["commonest value", "held by"] * common
    table_rows: list[list[str | Cell]] = []
    for j, one in found:
        spread = one.high - one.low
        table_rows.append(
            [
                text(shortened(components.columns[j])),
                Cell(percent(one.missing), one.missing),
                *(
                    Cell(text(quantity(value, spread / 10 or None)), value)
                    for value in (one.low, one.median, one.high)
                ),
                *(_commonest(one, j in components.answers) if common else ()),
            ]
        )
    return note(words) + table(head, table_rows, name="data quality")


def _is_common(one: ColumnQuality) -> bool:
    """Tell whether there is a commonest value: none where each row has one of its own."""
    return one.ahead > 1.0 or one.share >= 0.01


def _commonest(one: ColumnQuality, categories: bool) -> list[str | Cell]:
    if not _is_common(one):
        return ["", ""]
    share = percent(one.share)
    told = f"<b>{share}</b>, spike" if one.spike and not categories else share
    return [Cell(text(quantity(one.common)), one.common), Cell(told, one.share)]
