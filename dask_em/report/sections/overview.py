"""The head of a page: five sentences, how the fit ended, its numbers, and the components."""

from __future__ import annotations

from ...estimators.describe import FittedMixture, all_weights
from ...estimators.html import number, status_words, text, warning_lines
from ...estimators.shapes import spot
from ..evidence import Evidence
from ..formats import NOISE, called, percent
from ..plots import heaviest
from ..section import of_noise
from ..words import five_sentences

# Components that can be chosen, the heaviest.
MOST_CHIPS = 60


def header(model: FittedMixture, evidence: Evidence, title: str) -> str:
    """Make the head of the page, under a title."""
    source = model.provenance_
    where = f'<p class="source">{text(source["source"])}</p>' if source else ""
    good = "good" if model.status_.done else "warn"
    told = "".join(f"<li>{text(one)}</li>" for one in five_sentences(model, evidence))
    return (
        f'<header><h1>{text(title)}</h1>{where}<div class="front">'
        f'<div><ol class="told">{told}</ol></div>'
        f'<div><div class="tiles">{_tiles(model)}</div>'
        f'<p class="status {good}">{status_words(model)}</p>{warning_lines(model)}</div>'
        "</div></header>"
    )


def _tiles(model: FittedMixture) -> str:
    tiles = [
        (number(model.objective_.value, ".6g"), model.objective_.label),
        (f"{model.n_reads_:,}", "passes over the data"),
        (number(model.n_sample_passes_, ",.2f"), "passes' worth of work on the sample"),
        (f"{model.n_iter_:,}", "iterations"),
        (f"{model.state_.result.n_parameters:,}", "free parameters"),
    ]
    if of_noise(model, "shown"):
        share = percent(model.state_.result.noise_weight)
        tiles.append((share, "share of noise, label -1"))
    if source := model.provenance_:
        tiles.insert(0, (f"{source['n_rows']:,}", "rows"))
    return "".join(f"<div><b>{text(value)}</b><span>{name}</span></div>" for value, name in tiles)


def components_bar(model: FittedMixture) -> str:
    """Make the legend of the components, each of which can be chosen where scripts run."""
    weights = all_weights(model)
    order = sorted(heaviest(model.weights_), key=lambda k: -model.weights_[k])[:MOST_CHIPS]
    numbers = [*sorted(order), *([NOISE] if of_noise(model, "there") else [])]
    chips = "".join(
        f'<button type="button" class="chip" data-choose="{k}" aria-pressed="false" '
        f'aria-label="{called(k)}, {percent(weights[k])}">{spot(k)}'
        f"{'noise' if k == NOISE else k}<small>{percent(weights[k])}</small></button>"
        for k in numbers
    )
    return (
        '<nav class="bar" aria-label="Components">'
        f'<div class="chips">{chips if len(numbers) > 1 else ""}</div>'
        '<span id="said" role="status"></span></nav>'
    )
