"""The head of a page: what was fitted, how the fit ended, and its numbers."""

from __future__ import annotations

from ...estimators.describe import FittedMixture
from ...estimators.html import number, status_words, text, warning_lines
from ..section import of_noise


def header(model: FittedMixture, title: str) -> str:
    """Make the head of the page, under a title."""
    source = model.provenance_
    tiles = [
        (number(model.objective_.value, ".6g"), model.objective_.label),
        (f"{model.n_reads_:,}", "passes over the data"),
        (number(model.n_sample_passes_, ",.2f"), "passes' worth of work on the sample"),
        (f"{model.n_iter_:,}", "iterations"),
        (f"{model.state_.result.n_parameters:,}", "free parameters"),
    ]
    if of_noise(model, "shown"):
        share = number(model.state_.result.noise_weight, ".4f")
        tiles.append((share, "share of noise, label -1"))
    if source:
        tiles.insert(0, (f"{source['n_rows']:,}", "rows"))
    shown = "".join(f"<div><b>{text(value)}</b><span>{name}</span></div>" for value, name in tiles)
    where = f'<p class="source">{text(source["source"])}</p>' if source else ""
    good = "good" if model.status_.done else "warn"
    return (
        f"<header><h1>{text(title)}</h1>{where}"
        f'<p class="status {good}">{status_words(model)}</p>{warning_lines(model)}'
        f'<div class="tiles">{shown}</div></header>'
    )
