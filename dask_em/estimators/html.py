"""Pieces of HTML: tables, numbers, and the summary of a model that notebooks show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.profile import Profile
from ..fitting.criteria import RangeEnd, model_in
from ..foreign import shown
from .describe import FittedMixture
from .shapes import spot

MOST_COLUMNS, MOST_COMPONENTS = 8, 10
# Entries of a profile, as the answers to all questions, each of which is a row.
MOST_ENTRIES = 200


def text(value: object) -> str:
    """Escape anything, so that HTML, and who reads it, see it and obey none of it.

    Examples
    --------
    >>> text("<b>")
    '&lt;b&gt;'
    """
    return escape(shown(value), quote=True)


def number(value: float | None, form: str = ",.4g") -> str:
    """Format a number as a person reads it; words where it is none.

    Examples
    --------
    >>> number(1234567.0), number(0.5, ".3f"), number(None)
    ('1.235e+06', '0.500', 'none')
    """
    if value is None:
        return "none"
    if not np.isfinite(value):
        return "not finite"
    return format(value, form)


@dataclass(frozen=True)
class Cell:
    """Hold a cell of a table that shows a number, and the number itself.

    Attributes
    ----------
    html : str
        What is shown, as HTML.
    value : float
        By which rows sort, and what a download has, to the last bit.
    spread : float, optional
        A standard deviation that is shown behind the value; a download has it in a column of its
        own.

    Examples
    --------
    >>> Cell("0.31", 0.3125).td
    '<td class="n" data-value="0.3125">0.31</td>'
    """

    html: str
    value: float
    spread: float | None = None

    @property
    def td(self) -> str:
        """The cell as HTML."""
        spread = "" if self.spread is None else f' data-spread="{float(self.spread)!r}"'
        return f'<td class="n" data-value="{float(self.value)!r}"{spread}>{self.html}</td>'


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str | Cell]],
    text_columns: int = 1,
    components: Sequence[int] = (),
    name: str = "",
) -> str:
    """Make a table of cells that are HTML already; all but the first are aligned as numbers.

    Parameters
    ----------
    head : sequence of str
    rows : iterable of sequences of str or Cell
    text_columns : int
        The first so many are not.
    components : sequence of int, optional
        The component of each row, -1 for noise.
    name : str
        Of the file when it is downloaded from a page; it is no download without one.

    Examples
    --------
    >>> "<td>one</td>" in table(["name", "rows"], [["one", "10"]])
    True
    """

    def cell(j: int, value: str | Cell, tag: str = "td") -> str:
        if isinstance(value, Cell):
            return value.td
        kind = "" if j < text_columns else ' class="n"'
        return f"<{tag}{kind}>{value}</{tag}>"

    top = "".join(cell(j, title, "th") for j, title in enumerate(head))
    body = []
    for i, row in enumerate(rows):
        of = f' data-component="{components[i]}"' if components else ""
        cells = (cell(j, value) for j, value in zip(range(len(head)), row, strict=True))
        body.append(f"<tr{of}>{''.join(cells)}</tr>")
    named = f' data-name="{text(name)}"' if name else ""
    return (
        f'<div class="scroll"><table{named}>'
        f"<thead><tr>{top}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Make a list of names and values, which are HTML already.

    Examples
    --------
    >>> facts([("rows", "10")])
    '<dl><dt>rows</dt><dd>10</dd></dl>'
    """
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in pairs)}</dl>"


def components_table(
    model: FittedMixture, most: int | None = None, most_columns: int = MOST_COLUMNS
) -> str:
    """Make tables of the components: weights, and the profiles by which the family describes them.

    So many components and columns are shown at most; see `left_out`.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture(1).fit(np.random.default_rng(0).normal(size=(100, 2)))
    >>> "<th>component</th>" in components_table(model), components_table(model).count("&plusmn;")
    (True, 2)
    """
    components = model.describe()
    profiles = components.profiles
    names = components.columns
    tables = [
        _entries_table(model, one, names, most)
        if one.entries
        else _profile_table(model, one, names, most, most_columns)
        for one in profiles
    ]
    if len(tables) == 1:
        return tables[0]
    titles = [f"<p>{text(one.title)}</p>" for one in profiles]
    return "".join(map("".join, zip(titles, tables, strict=True)))


def _profile_table(
    model: FittedMixture,
    profile: Profile,
    columns: Sequence[str],
    most: int | None,
    most_columns: int,
) -> str:
    names = profile.names(columns)[:most_columns]
    values, widths = profile.values, profile.widths
    forms = [
        ".4g" if widths is None else _form(values[:, j], widths[:, j]) for j in range(len(names))
    ]
    rows: list[list[str | Cell]] = []
    for k in range(len(values))[:most]:
        cells = [Cell(number(m, f), m) for m, f in zip(values[k], forms, strict=False)]
        if widths is not None:
            bands = zip(cells, widths[k], forms, strict=False)
            cells = [
                Cell(f"{cell.html} <small>&plusmn; {number(s, f)}</small>", cell.value, s)
                for cell, s, f in bands
            ]
        rows.append([f"{spot(k)}{k}", _weight_cell(model, k), *cells])
    name = profile.title.lower()
    return table(
        ["component", "weight", *map(text, names)], rows, components=range(len(rows)), name=name
    )


def _weight_cell(model: FittedMixture, k: int) -> Cell:
    return Cell(number(model.weights_[k], ".4f"), model.weights_[k])


def _entries_table(
    model: FittedMixture, profile: Profile, columns: Sequence[str], most: int | None
) -> str:
    """Make a table that has a row for each entry, of which there are many, as of all answers."""
    shown_components = range(len(profile.values))[:most]
    heads = [f"{spot(k)}{k}" for k in shown_components]
    weights = [_weight_cell(model, k) for k in shown_components]
    names = profile.names(columns)[:MOST_ENTRIES]
    rows: list[list[str | Cell]] = [
        [text(name), *(_share_cell(float(profile.values[k, j])) for k in shown_components)]
        for j, name in enumerate(names)
    ]
    return table(["component", *heads], [["weight", *weights], *rows], name=profile.title.lower())


def _share_cell(value: float) -> Cell:
    return Cell(number(value, ".4f"), value)


def _form(means: Array, widths: Array) -> str:
    """Choose a format for one column that shows three digits of its smallest deviation."""
    smallest, largest = widths.min(), max(np.abs(means).max(), widths.max())
    if smallest < 1e-6 or largest > 1e9:
        return ".3e"
    return f",.{max(0, 2 - int(np.floor(np.log10(smallest))))}f"


# Columns of the table of candidates, and how their numbers are shown.
CANDIDATE = {
    "n_components": ",", "log_likelihood": ",.4f", "n_parameters": ",",
    "aic": ",.1f", "bic": ",.1f", "icl": ",.1f", "inertia": ",.6g",
    "holdout": ",.4f", "passes": ",.4g",
    "n_passes": ",.4g", "status": "",
}  # fmt: skip


def candidates_table(
    selection: Sequence[Mapping[str, Any]], chosen: Mapping[str, Any] | None = None
) -> str:
    """Make a table of the models of a choice, the chosen one in bold.

    Examples
    --------
    >>> rows = [{"n_components": 1, "bic": 5.0}, {"n_components": 2, "bic": 3.0}]
    >>> "<b>3.0</b>" in candidates_table(rows, rows[1])
    True
    """

    def cell(value: Any, form: str, bold: bool) -> str | Cell:
        if value is None:
            return ""
        told = number(value, form) if form else text(str(value).lower().replace("_", " "))
        told = f"<b>{told}</b>" if bold else told
        return Cell(told, value) if form else told

    names = [n for n in CANDIDATE if any(c.get(n) is not None for c in selection)]
    rows = []
    for c in selection:
        kind, bold = text(model_in(c)), c == chosen
        cells = [cell(c.get(name), CANDIDATE[name], bold) for name in names]
        rows.append([f"<b>{kind}</b>" if bold else kind, *cells])
    return table(["kind", *(text(n.replace("_", " ")) for n in names)], rows, name="candidates")


def left_out(
    model: FittedMixture, most: int | None = None, most_columns: int = MOST_COLUMNS
) -> str:
    """Say what `components_table` does not show; empty where it shows all.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture(2).fit(np.random.default_rng(0).normal(size=(100, 2)))
    >>> left_out(model, most=1), left_out(model)
    ('Shown are the first 1 of 2 components.', '')
    """
    profiles = model.describe().profiles
    k, d = model.n_components, _widest(profiles, False)
    parts, n_entries = [], _widest(profiles, True)
    if most is not None and k > most:
        parts.append(f"{most} of {k} components")
    if d > most_columns:
        parts.append(f"{most_columns} of {d} columns")
    if n_entries > MOST_ENTRIES:
        parts.append(f"{MOST_ENTRIES} of {n_entries} values")
    return f"Shown are the first {' and '.join(parts)}." if parts else ""


def _widest(profiles: Sequence[Profile], entries: bool) -> int:
    sizes = [one.values.shape[1] for one in profiles if bool(one.entries) == entries]
    return max(sizes, default=0)


def status_words(model: FittedMixture) -> str:
    """Say why the fit ended and what to try, as HTML.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture(1).fit(np.random.default_rng(0).normal(size=(100, 2)))
    >>> status_words(model)
    '<b>Converged</b>: ...'
    """
    status, why = model.status_, model.status_.reason(model.objective_.name)
    return f"<b>{text(status.name.replace('_', ' ').capitalize())}</b>: {text(why)}."


def warning_lines(model: FittedMixture) -> str:
    """Say what is odd about the fitted components, as HTML paragraphs; empty where nothing is.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture(1).fit(np.random.default_rng(0).normal(size=(100, 2)))
    >>> warning_lines(model)
    ''
    """
    return "".join(
        f'<p class="status warn"><b>Warning</b>: {text(message)}.</p>'
        for message in model.warnings_
    )


# Colours are those of the notebook, so that dark themes stay dark.
_SUMMARY_STYLE = """
.dask-em{font:13px/1.45 system-ui,sans-serif;max-width:60rem}
.dask-em h4{margin:.2em 0}.dask-em p{margin:.3em 0}
.dask-em .scroll{overflow-x:auto}
.dask-em table{border-collapse:collapse;font-size:inherit;font-variant-numeric:tabular-nums}
.dask-em th{font-weight:500;max-width:14rem;overflow:hidden;text-overflow:ellipsis}
.dask-em th,.dask-em td{padding:.15em .7em .15em 0;text-align:left;white-space:nowrap;
background:none;border-bottom:1px solid rgba(128,128,128,.3)}
.dask-em .n{text-align:right}.dask-em small{opacity:.7}
.dask-em .spot{width:.75em;height:.75em;margin-right:.45em}
.dask-em dl{display:grid;grid-template-columns:max-content 1fr;gap:0 1em;margin:.4em 0}
.dask-em dt{opacity:.7}.dask-em dd{margin:0;overflow-wrap:anywhere}
"""


def summary_html(model: FittedMixture) -> str:
    """Summarize a fitted model in a few lines for notebooks: the fit, the data, the components."""
    components, source = model.describe(), model.provenance_
    k, d = components.means.shape
    structure = f", {text(components.structure)}" if components.structure else ""
    pairs = [
        (
            model.objective_.name,
            f"{number(model.objective_.value, '.6f')} {model.objective_.unit}".strip(),
        ),
        ("passes over the data", f"{model.n_reads_}, {model.n_iter_} iterations"),
        ("work on the sample", f"as much as {number(model.n_sample_passes_, '.2f')} passes"),
    ]
    if model.state_.result.noise_box is not None:
        share = number(model.state_.result.noise_weight, ".4f")
        pairs.append(("noise, label -1", f"{share} of all rows"))
    if source:
        shape = f"{source['n_rows']:,} &times; {source['n_features']} {text(source['dtype'])}"
        pairs.insert(0, ("data", f"{text(source['source'])} ({shape})"))
    more = left_out(model, MOST_COMPONENTS)
    return notebook_part(
        f"<h4>{text(type(model).__name__)}: {k} component{'s' * (k > 1)} in {d} "
        f"column{'s' * (d > 1)}{structure}</h4>"
        f"<p>{status_words(model)}</p>{warning_lines(model)}{facts(pairs)}"
        f"{components_table(model, MOST_COMPONENTS)}{f'<p>{more}</p>' * bool(more)}"
    )


def selection_html(
    selection: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, Any],
    criterion: str,
    range_end: RangeEnd | None,
    n_reads: int,
) -> str:
    """Summarize a choice among models for notebooks: the winner, and how the others did.

    Examples
    --------
    >>> rows = [{"n_components": 1, "bic": 5.0}, {"n_components": 2, "bic": 3.0}]
    >>> "Chosen of 2 models" in selection_html(rows, rows[1], "bic", "largest", 4)
    True
    """
    k, kind = int(chosen["n_components"]), model_in(chosen)
    by = "hold-out" if criterion == "holdout" else criterion.upper()
    more = "more" if range_end == "largest" else "fewer"
    end = (
        f'<p class="warn"><b>At the end</b>: {k} is the {range_end} number of components that was '
        f"tried, so {more} may be better.</p>"
    )
    return notebook_part(
        f"<h4>Chosen of {len(selection):,} model{'s' * (len(selection) > 1)} by {text(by)}: "
        f"{k} component{'s' * (k > 1)}{f', {text(kind)}' * bool(kind)}</h4>{end * bool(range_end)}"
        f"{facts([('passes over the data', f'{n_reads:,}')])}"
        f"{candidates_table(selection, chosen)}"
    )


def notebook_part(body: str) -> str:
    """Wrap HTML, made of the pieces above, for the page of a notebook.

    Examples
    --------
    >>> notebook_part("<p>one</p>")
    '<div class="dask-em"><style>...</style><p>one</p></div>'
    """
    return f'<div class="dask-em"><style>{_SUMMARY_STYLE}</style>{body}</div>'
