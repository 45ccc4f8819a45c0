"""One HTML page about two models: words, matched components, what moved, labels, likelihoods."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.additive import Array
from ..estimators.describe import colour
from ..estimators.html import Cell, facts, number, table, text
from ..foreign import shown
from ..storage.outputs.writer import output_file
from ..version import __version__
from .axes import ink, mark, new_axes
from .formats import counted, listed, percent, quantity
from .page import check_can_draw, whole_page
from .section import Drawing, Section, details, figure, grid, note

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Rows of a table, components of a picture, and cells of a heat map whose numbers are written.
MOST_ROWS, MOST_DRAWN, MOST_WRITTEN = 500, 40, 12
# Standard errors beyond which a difference is no chance.
CLEAR = 3.0
# Differences of means, in standard deviations, from which a component is said to have moved.
LEAST_MOVE = 0.05


def write_comparison(
    path: str | os.PathLike[str], told: Mapping[str, Any], overwrite: bool = False
) -> None:
    """Write the page about two models to one file, whole or not at all.

    Parameters
    ----------
    path : path, or URL of an object store
    told : mapping
        As `Comparison.as_dict` has it.
    overwrite : bool
        Replace the file that is there.

    Raises
    ------
    OutputExistsError
        The file is there and `overwrite` is False; `LockedError` where another job writes it.
    UsageError
        matplotlib is not installed, or nothing can be written there.
    """
    check_can_draw()
    with output_file(path, overwrite) as output:
        page = comparison_html(told)
        with output.open() as file:
            file.write(page.encode())


def comparison_html(told: Mapping[str, Any]) -> str:
    """Make the page about two models, in ASCII so that no encoding can spoil it.

    Examples
    --------
    >>> from dask_em import GaussianMixture, compare
    >>> X = np.random.default_rng(0).normal(size=(90, 1))
    >>> one = GaussianMixture(1).fit(X)
    >>> "no row can tell them apart" in comparison_html(compare(one, one, X).as_dict())
    True
    """
    first, second = told["models"]
    title = f"A, {_named(first)}, beside B, {_named(second)}"
    sections = [_matched(told), _moved(told), _labels(told), _left_out(told), _provenance(told)]
    bar = (
        '<nav class="bar" aria-label="Page"><div class="chips"></div>'
        '<span id="said" role="status"></span></nav>'
    )
    parts = [_header(told, title), bar, *(one.whole for one in sections if one is not None)]
    return whole_page(title, parts)


def _named(model: Mapping[str, Any]) -> str:
    k = model["n_components"]
    return f"{counted(k, 'component')} of {model['structure'] or model['family']}"


# -- words first -------------------------------------------------------------------------------


def sentences(told: Mapping[str, Any]) -> list[str]:
    """Say in words what tells the second model from the first, the most telling first.

    Examples
    --------
    >>> from dask_em import GaussianMixture, compare
    >>> X = np.random.default_rng(0).normal(size=(90, 1))
    >>> one = GaussianMixture(1).fit(X)
    >>> sentences(compare(one, one).as_dict())[-1]
    'Both models were fitted to the same data.'
    """
    rows = told["rows"]
    said = [] if rows is None else [_of_likelihood(rows), _of_labels(rows, told)]
    if told["pairs"]:
        said.append(_of_moves(told["pairs"]))
    said += _of_unmatched(told)
    said.append(
        "Both models were fitted to the same data."
        if told["same_data"]
        else "They were fitted to different data, or to the same rows in other chunks."
    )
    return [one for one in said if one]


def _of_likelihood(rows: Mapping[str, Any]) -> str:
    difference, error = rows["difference"], rows["standard_error"]
    if difference is None:
        return ""
    if difference == 0 and not error:
        return "Both give every row the same density: no row can tell them apart."
    if not math.isfinite(error) or error == 0:
        return f"A row has {difference:+.4g} nats under B against A."
    far = abs(difference) / error
    better = "B" if difference > 0 else "A"
    told = f"by {abs(difference):.4g} ± {error:.2g} nats a row (standard error)"
    if far < CLEAR:
        return (
            f"The rows do not say which model describes them better: {better} is ahead {told}, "
            f"which is {far:.1f} standard errors and may be chance."
        )
    return (
        f"{better} describes the rows better, {told}: {far:,.0f} standard errors. On rows of its "
        "own fit a model with more parameters is no worse, so judge by rows that neither has seen."
    )


def _of_labels(rows: Mapping[str, Any], told: Mapping[str, Any]) -> str:
    index = rows["adjusted_rand"]
    how = (
        "group the rows alike" if index > 0.95
        else "mostly group the rows alike" if index > 0.8
        else "group the rows in part alike" if index > 0.3
        else "group the rows differently"
    )  # fmt: skip
    same = _share_matched(rows, told)
    kept = "" if same is None else f"; {percent(same)} of them are in matched components"
    return (
        f"The labels {how}: the adjusted Rand index is {index:.3f} (1 where they agree but for "
        f"names, 0 as by chance){kept}."
    )


def _share_matched(rows: Mapping[str, Any], told: Mapping[str, Any]) -> float | None:
    if told["pairs"] is None or not rows["weight"] > 0:
        return None
    found = np.asarray(rows["table"], dtype=float)
    return float(sum(found[p["first"], p["second"]] for p in told["pairs"]) / found.sum())


def _of_moves(pairs: Sequence[Mapping[str, Any]]) -> str:
    moves = [(move, pair) for pair in pairs for move in pair["moves"]]
    large = [one for one in moves if one[0]["size"] >= LEAST_MOVE]
    if not large:
        return "No matched component moved by more than a twentieth of its width."
    move, pair = max(large, key=lambda one: one[0]["size"])
    n = len({(p["first"], p["second"]) for _, p in large})
    return (
        f"{n} of {counted(len(pairs), 'matched pair')} moved. Most of all component "
        f"{pair['first']} of A ({pair['second']} of B): {_move_words(move)}."
    )


def _move_words(move: Mapping[str, Any]) -> str:
    before, after = quantity(move["before"]), quantity(move["after"])
    what = {"mean": "the mean", "deviation": "the standard deviation"}.get(
        move["what"], "the share"
    )
    size = move["size"]
    far = (
        f", {size:.2g} standard deviations"
        if move["what"] == "mean" and math.isfinite(size)
        else ""
    )
    return f"{what} of {shown(move['column'])} went from {before} to {after}{far}"


def _of_unmatched(told: Mapping[str, Any]) -> list[str]:
    if told["pairs"] is None:
        return []
    said = []
    for name, other, numbers in zip("AB", "BA", told["without"], strict=True):
        if numbers:
            several = "s" * (len(numbers) > 1)
            which = listed([str(k) for k in numbers[:MOST_DRAWN]])
            said.append(f"Component{several} {which} of {name} ha{'ve' if several else 's'} no "
                        f"counterpart in {other}.")  # fmt: skip
    return said


def _header(told: Mapping[str, Any], title: str) -> str:
    said = "".join(f"<li>{text(one)}</li>" for one in sentences(told))
    rows, pairs = told["rows"], told["pairs"]
    tiles = []
    if rows is not None:
        tiles += [(f"{rows['n_rows']:,}", "rows, labelled by both")]
        if rows["difference"] is not None:
            error = number(rows["standard_error"], ".2g")
            tiles.append((f"{rows['difference']:+.4g}", f"nats a row, B less A, ± {error}"))
        tiles.append((f"{rows['adjusted_rand']:.3f}", "adjusted Rand index of labels"))
    if pairs is not None:
        tiles.append((f"{len(pairs):,}", "matched components"))
        tiles.append((f"{sum(map(len, told['without'])):,}", "without a counterpart"))
    made = "".join(
        f"<div><b>{text(value)}</b><span>{text(name)}</span></div>" for value, name in tiles
    )
    files = " and ".join(shown(m["model"]) for m in told["models"] if "model" in m)
    where = f'<p class="source">{text(files)}</p>' if files else ""
    return (
        f'<header><h1>{text(title)}</h1>{where}<div class="front"><div><ol class="told">{said}</ol>'
        f'</div><div><div class="tiles">{made}</div></div></div></header>'
    )


# -- sections ----------------------------------------------------------------------------------


def _matched(told: Mapping[str, Any]) -> Section | None:
    pairs = told["pairs"]
    if not pairs:
        return None
    lines: list[list[str | Cell]] = [
        [
            str(pair["first"]),
            str(pair["second"]),
            text("; ".join(_move_words(move) for move in pair["moves"][:1]) or "nothing moved"),
            Cell(percent(pair["weights"][0]), pair["weights"][0]),
            Cell(percent(pair["weights"][1]), pair["weights"][1]),
            Cell(number(pair["distance"], ".3g"), pair["distance"]),
        ]
        for pair in pairs[:MOST_ROWS]
    ]
    head = ["A", "B", "moved most", "weight in A", "weight in B", "distance"]
    listed_pairs = table(head, lines, text_columns=3, name="pairs")
    picture = figure(
        Drawing(
            partial(plot_pairs_of, pairs),
            "Weights of matched components",
            "Left in A, right in B; a steep line is a group that grew or shrank.",
        )
    )
    words = note(
        "Matched so that the sum of all Bhattacharyya distances is least: 0 is alike, above 1 the "
        "two hardly overlap."
    )
    return Section("Matched components", f"{words}{grid([picture])}{_scroll(listed_pairs)}")


def _moved(told: Mapping[str, Any]) -> Section | None:
    moves = [
        (move, pair)
        for pair in told["pairs"] or ()
        for move in pair["moves"]
        if move["size"] >= LEAST_MOVE
    ]
    if not moves:
        return None
    moves.sort(key=lambda one: -one[0]["size"])
    lines: list[list[str | Cell]] = [
        [
            f"{pair['first']} &#8594; {pair['second']}",
            text(move["what"]),
            text(move["column"]),
            Cell(quantity(move["before"]), move["before"]),
            Cell(quantity(move["after"]), move["after"]),
            Cell(number(move["size"], ".3g"), move["size"]),
        ]
        for move, pair in moves[:MOST_ROWS]
    ]
    head = ["component", "what", "column", "in A", "in B", "size"]
    words = note(
        "Of each pair the five parameters that moved farthest, if by a twentieth. The size of a "
        "mean is in standard deviations, that of a deviation the logarithm of the ratio, that of "
        "shares their total variation."
    )
    return Section("Moved parameters", words + _scroll(table(head, lines, 3, name="moves")))


def _labels(told: Mapping[str, Any]) -> Section | None:
    rows = told["rows"]
    if rows is None:
        return None
    found = np.asarray(rows["table"], dtype=float)
    inner = ""
    if max(found.shape) <= MOST_DRAWN:
        picture = figure(
            Drawing(
                partial(plot_agreement, found),
                "Labels in both models",
                "Each line is a label of A, and where its rows are in B. One dark cell a line: the "
                "group is the same.",
                size=(6.5, 4.0),
                wide=True,
            )
        )
        inner = grid([picture])
    else:
        inner = note(f"The table of {found.shape[0]} x {found.shape[1]} labels is not drawn.")
    n = min(len(found), MOST_ROWS)
    if found.shape[1] <= MOST_DRAWN:
        lines: list[list[str | Cell]] = [
            [str(i), *(Cell(f"{value:,.6g}", value) for value in found[i])] for i in range(n)
        ]
        head = ["A \\ B", *(str(j) for j in range(found.shape[1]))]
        inner += details("Rows by both labels", _scroll(table(head, lines, name="labels")))
    dropped = f"{counted(rows['n_dropped'], 'row')} of NaN or infinity left out" * bool(
        rows["n_dropped"]
    )
    return Section("Agreement of labels", inner + note(dropped))


def _left_out(told: Mapping[str, Any]) -> Section | None:
    reasons = [f"Not compared: {reason}" for reason in told["cannot"]]
    if told["rows"] is None and not told["cannot"]:
        reasons.append("Labels and likelihoods of rows, for which no data were given.")
    if not reasons:
        return None
    return Section("Left out", f"<ul>{''.join(f'<li>{text(one)}</li>' for one in reasons)}</ul>")


def _provenance(told: Mapping[str, Any]) -> Section:
    cards = []
    for name, model in zip("AB", told["models"], strict=True):
        data = model["data"]
        known = [
            ("model", model.get("model", "")),
            ("components", f"{model['n_components']}, {model['structure'] or model['family']}"),
            ("data", data["source"]),
            ("rows", f"{data['n_rows']:,} x {data['n_features']}"),
            ("print", data["fingerprint"][:16]),
            ("columns", ", ".join(shown(c) for c in model["columns"][:MOST_DRAWN])),
        ]
        lines = [(text(key), text(value)) for key, value in known if value]
        cards.append(f"<div><h3>{name}</h3>{facts(lines)}</div>")
    return Section("Provenance", grid(cards) + note(f"Written by dask_em {text(__version__)}."))


def _scroll(inner: str) -> str:
    return (
        inner if inner.startswith('<div class="scroll"') else f'<div class="scroll">{inner}</div>'
    )


# -- pictures ----------------------------------------------------------------------------------


def plot_agreement(counts: Array, ax: Axes | None = None) -> Axes:
    """Draw how the rows of each label of one model are spread over the labels of another.

    Parameters
    ----------
    counts : (a, b) array
        Weights of rows by both labels, as `Agreement.table` has them.
    ax : matplotlib Axes, optional

    Examples
    --------
    >>> plot_agreement(np.array([[8.0, 0.0], [1.0, 9.0]])).get_xlabel()
    'label in B'
    """
    ax = new_axes(ax)
    counts = np.asarray(counts, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.where(totals > 0, totals, 1.0)
    # Where there is nothing the page shows through, light or dark.
    seen = np.ma.masked_equal(shares, 0.0)
    ax.imshow(seen, cmap="Blues", vmin=-0.2, vmax=1.0, aspect="auto")
    small = max(counts.shape) <= MOST_WRITTEN
    for i, j in np.ndindex(counts.shape):
        if small and counts[i, j]:
            dark = shares[i, j] > 0.55
            word = ax.text(
                j, i, percent(float(shares[i, j]), 2), ha="center", va="center", fontsize=7,
                color="white" if dark else "black",
            )  # fmt: skip
            mark(word, told=f"{counts[i, j]:,.6g} rows: {i} in A, {j} in B")
    for axis, n in ((ax.xaxis, counts.shape[1]), (ax.yaxis, counts.shape[0])):
        axis.set_ticks(range(0, n, max(1, n // 20)))
    ax.set(xlabel="label in B", ylabel="label in A", title="Labels in both models")
    return ax


def plot_pairs_of(pairs: Sequence[Mapping[str, Any]], ax: Axes | None = None) -> Axes:
    """Draw the weights of matched components in both models, a line each, heaviest only.

    Parameters
    ----------
    pairs : sequence of mapping
        As `Comparison.as_dict` has them.
    ax : matplotlib Axes, optional

    Examples
    --------
    >>> plot_pairs_of([{"first": 0, "second": 1, "weights": [0.4, 0.6]}]).get_ylabel()
    'weight'
    """
    ax = new_axes(ax)
    drawn = sorted(pairs, key=lambda pair: -max(pair["weights"]))[:MOST_DRAWN]
    for pair in drawn:
        k, both = pair["first"], pair["weights"]
        (line,) = ax.plot([0, 1], both, marker="o", markersize=4, color=colour(k), linewidth=1.4)
        told = f"{k} of A, {pair['second']} of B: {percent(both[0])} and {percent(both[1])}"
        mark(line, told=told)
    if len(drawn) <= MOST_WRITTEN:
        for side, place, name in ((0, "right", "first"), (1, "left", "second")):
            for pair in drawn:
                at = (side + (0.04 if side else -0.04), pair["weights"][side])
                ax.text(*at, str(pair[name]), ha=place, va="center", fontsize=7, color=ink())
    ax.set(xlim=(-0.25, 1.25), ylabel="weight", title="Weights of matched components")
    ax.set_ylim(bottom=0.0)
    ax.set_xticks([0, 1], ["A", "B"])
    return ax
