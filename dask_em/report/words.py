"""Five sentences about a model and its data in words, of the numbers that the page shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.em import Status
from ..estimators.describe import FittedMixture, mixture_moments, shares_among
from ..fitting.criteria import DROPPED, entropy, model_in, range_end
from .axes import is_finite, shortened
from .choices import candidates, selection_of
from .effects import Effect, effects
from .evidence import Evidence
from .formats import answer_name, counted, listed, percent, quantity
from .quality import Assignment, ColumnQuality

COUNTS = (
    *("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve"),
)
# Groups that are told one by one, and columns of each.
MOST_GROUPS, MOST_COLUMNS = 3, 2
# Half a standard deviation: what Cohen called a medium effect.
LEAST_EFFECT = 0.5
# A group of fewer rows is tiny, and one of less than this share.
FEWEST_ROWS, LEAST_SHARE = 20, 0.01
# Responsibilities from here on are sharp; shares of rows that have them make the words.
SHARP, MOSTLY, PARTLY = 0.9, 0.9, 0.7
# A difference of BIC from here on is very strong evidence (Kass and Raftery 1995).
VERY_STRONG = 10.0
# Things to watch that are told.
MOST_WATCHED = 6


def five_sentences(model: FittedMixture, evidence: Evidence) -> list[str]:
    """Say how large the groups are, what tells them apart, how sharply, how sure, what to watch.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = np.random.default_rng(0).normal(size=(400, 2)) + 9 * np.eye(2)[np.arange(400) % 2]
    >>> sentences = five_sentences(GaussianMixture(2, random_state=0).fit(X), Evidence(X))
    >>> len(sentences), sentences[0]
    (5, 'The 400 rows fall into two groups: the larger, group ..., holds 50 % of them, ...')
    """
    assigned = None if evidence.rows is None else Assignment.of(model, evidence.rows)
    return [
        _sizes(model),
        _differences(model),
        _sharpness(model, assigned),
        _trust(model),
        _watch(model, evidence, assigned),
    ]


def with_rows(model: FittedMixture) -> list[int]:
    """Return the components that have rows, the largest first: a prior may have left some out."""
    n = model.provenance_.get("n_rows")
    least = 0.5 / n if n else 0.0
    order = np.argsort(-model.weights_, kind="stable").tolist()
    return [k for k in order if model.weights_[k] > least]


def category(model: FittedMixture, effect: Effect) -> str:
    """Return the name of the category that an effect is of, its code where it has none."""
    return "" if effect.category is None else answer_name(model, effect.column, effect.category)


def _number(n: int) -> str:
    return COUNTS[n] if n < len(COUNTS) else f"{n:,}"


def _sizes(model: FittedMixture) -> str:
    n, live = model.provenance_.get("n_rows"), with_rows(model)
    used = None if n is None else int(n) - int(model.provenance_.get("n_dropped", 0))
    result, apart = model.state_.result, ""
    if result.noise_box is not None:
        apart = f"; {percent(result.noise_weight, 2)} are noise, in no group"
    rows = "The rows" if used is None or model.status_ is Status.GIVEN else f"The {used:,} rows"
    if len(live) == 1:
        return f"{rows} are described as one group{apart}."
    largest, smallest = live[0], live[-1]
    of = [percent(float(model.weights_[k]), 2) for k in (largest, smallest)]
    unused = model.n_components - len(live)
    more = f" ({_number(unused)} more that the model may have hold no rows)" if unused else ""
    words = ("larger", "smaller") if len(live) == 2 else ("largest", "smallest")
    return (
        f"{rows} fall into {_number(len(live))} groups{more}: the {words[0]}, group {largest}, "
        f"holds {of[0]} of them, the {words[1]}, group {smallest}, {of[1]}{apart}."
    )


def _differences(model: FittedMixture) -> str:
    live = with_rows(model)
    if len(live) < 2:
        return "With one group there is nothing that tells groups apart."
    found = effects(model)
    told = [
        f"group {k} ({percent(float(model.weights_[k]), 2)}) {_of_one(model, found[k])}"
        for k in live[:MOST_GROUPS]
    ]
    first = "Against all other rows" if len(live) <= MOST_GROUPS else "The largest of them first"
    return f"{first}: {'; '.join(told)}."


def _of_one(model: FittedMixture, found: Sequence[Effect]) -> str:
    strong = [one for one in found if abs(one.size) >= LEAST_EFFECT][:MOST_COLUMNS]
    if not strong:
        return "differs from the rest by less than half a standard deviation in every column"
    return f"has {listed([effect_words(model, one) for one in strong])}"


def effect_words(model: FittedMixture, effect: Effect) -> str:
    """Say what tells a component from the rest in one column, in the column's own unit.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture.from_parameters([0.5, 0.5], means=[[0.0], [3.0]],
    ...     covariances=[[[1.0]], [[1.0]]], feature_names=["height"])
    >>> effect_words(model, Effect(1, 0, 1.7, 3.0, 0.0, 1.8))
    'higher height (3.0 against 0.0 in the rest)'
    """
    name = shortened(model.describe().columns[effect.column])
    if effect.category is not None:
        more = "more" if effect.size > 0 else "less"
        inside, outside = percent(effect.inside, 2), percent(effect.outside, 2)
        which = f"{name} = {shortened(category(model, effect))}"
        return f"{more} often {which} ({inside} against {outside} in the rest)"
    way = "higher" if effect.size > 0 else "lower"
    inside, outside = (
        quantity(v, effect.spread, digits=2) for v in (effect.inside, effect.outside)
    )
    return f"{way} {name} ({inside} against {outside} in the rest)"


def _sharpness(model: FittedMixture, assigned: Assignment | None) -> str:
    if model.n_components == 1:
        return "Every row belongs to the one group, so there is no doubt to measure."
    if model.state_.mixture.assignment == "hard":
        return (
            "Each row belongs wholly to the group of its nearest centre, and nothing is said of "
            f"doubt; the centres account for {percent(_explained(model), 2)} of the variance."
        )
    if assigned is not None:
        share = float((assigned.largest >= SHARP).mean())
        words = "sharp" if share >= MOSTLY else "mostly sharp" if share >= PARTLY else "soft"
        return (
            f"The assignment is {words}: {percent(share, 2)} of {len(assigned.largest):,} rows "
            f"drawn belong to their group with a probability of {SHARP:g} or more."
        )
    state = model.state_
    if not state.measured or model.status_ is Status.GIVEN:
        return "How sharp the assignment is was not measured, because no rows were given."
    doubt = entropy(state.mixture, state.statistics) / max(state.statistics.weight, 1e-300)
    share = doubt / np.log(model.n_components)
    return (
        f"The assignment leaves {percent(share, 2)} of the doubt that there would be if every row "
        "were as likely in each group."
    )


def _explained(model: FittedMixture) -> float:
    """Return the share of the variance, of all columns together, that lies between components."""
    components = model.describe()
    center, spread = mixture_moments(model.weights_, components)
    between = shares_among(model) @ (components.means - center) ** 2
    total = float((spread**2).sum())
    return float(between.sum()) / total if total > 0 else 0.0


def _trust(model: FittedMixture) -> str:
    reads = (
        f"{counted(model.n_iter_, 'iteration')} and {counted(model.n_reads_, 'read')} of the data"
    )
    status = model.status_
    if status is Status.GIVEN:
        return "The parameters were given and nothing was fitted, so the data did not test them."
    if status.converged:
        ended = f"The fit converged after {reads}"
    elif status is Status.ADAPTED:
        ended = f"The means were adapted to these data by {reads}"
    else:
        name = status.name.replace("_", " ").lower()
        ended = f"The fit did not converge ({name}) after {reads}, and may still change"
    return f"{ended}; {_choice(model)}."


def _choice(model: FittedMixture) -> str:
    table = selection_of(model)
    criterion = str(model.provenance_.get("sweep", {}).get("criterion", "bic"))
    tried = candidates(table, criterion)
    if len(tried) < 2:
        return "the number of groups was set beforehand, and nothing here tests it"
    chosen = chosen_row(model, tried)
    name = "held-out rows" if criterion == "holdout" else criterion.upper()
    if chosen is None:
        return f"the model was chosen by {name} among {len(tried)}"
    words = f"{name} chose {_called(chosen, tried)} among {len(tried)} models"
    sign = -1 if criterion == "holdout" else 1
    others = [c for c in tried if c is not chosen]
    second = min(others, key=lambda c: (c.get("status") == DROPPED, sign * float(c[criterion])))
    gap = sign * (float(second[criterion]) - float(chosen[criterion]))
    unit = " nats per row" if criterion == "holdout" else ""
    estimated = second.get("status") == DROPPED
    ahead = f"about {quantity(float(f'{gap:.2g}'))}" if estimated else quantity(gap)
    words += f", ahead of the next, {_called(second, tried)}, by {ahead}{unit}"
    if estimated:
        words += " (an estimate: all others were given up early)"
    elif criterion == "bic":
        words += " (very strong evidence)" if gap >= VERY_STRONG else " (weak evidence)"
    ks = [int(c["n_components"]) for c in tried]
    end = range_end(model.n_components, ks)
    more = "more" if end == "largest" else "fewer"
    return f"{words}, at the end of the range: {more} groups may be better" if end else words


def chosen_row(
    model: FittedMixture, table: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Return the row of a selection that is of the model; None where it cannot be told."""
    p = model.state_.result.n_parameters
    same = [
        c
        for c in table
        if c["n_components"] == model.n_components
        and c.get("status") != DROPPED
        and c.get("n_parameters") in (None, p)
    ]
    return same[0] if len(same) == 1 else None


def _called(candidate: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    several = len({model_in(c) for c in among}) > 1
    return f"K = {candidate['n_components']}" + (f" {model_in(candidate)}" if several else "")


def _watch(model: FittedMixture, evidence: Evidence, assigned: Assignment | None) -> str:
    found = [
        *_of_fit(model),
        *_of_groups(model, assigned),
        *_of_parts(evidence),
        *_of_columns(model, evidence),
    ]
    if found:
        told, more = found[:MOST_WATCHED], len(found) - MOST_WATCHED
        return f"To watch: {'; '.join(told)}{f'; and {more} more' if more > 0 else ''}."
    looked = ["rows left out", "tiny groups"]
    if evidence.rows is not None:
        looked += ["overlaps", "spikes", "holes"]
    if evidence.densities is not None and evidence.densities.judged:
        looked.append("drift")
    return f"Nothing calls for caution among what was looked for: {listed(looked)}."


def _of_fit(model: FittedMixture) -> Iterator[str]:
    if n := len(model.warnings_):
        yield f"the fit gave {counted(n, 'warning')}, told below"
    known = model.provenance_
    if dropped := int(known.get("n_dropped", 0)):
        yield f"{counted(dropped, 'row')} ({percent(dropped / known['n_rows'], 2)}) " + (
            "with NaN or infinity left out of the fit"
        )
    if model.state_.result.noise_box is not None and model.state_.result.noise_weight > 0:
        yield f"{percent(model.state_.result.noise_weight, 2)} of the rows are noise"


def _of_groups(model: FittedMixture, assigned: Assignment | None) -> Iterator[str]:
    n, live = model.provenance_.get("n_rows") or np.inf, with_rows(model)
    tiny = [
        k for k in live if model.weights_[k] < LEAST_SHARE or model.weights_[k] * n < FEWEST_ROWS
    ]
    if tiny and len(live) > 1:
        several = len(tiny) > MOST_GROUPS
        named = f"{len(tiny)} groups" if several else _groups(sorted(tiny))
        of_rows = percent(float(model.weights_[tiny].sum()), 2)
        together = " together" * (len(tiny) > 1)
        yield f"{named} {'is' if len(tiny) == 1 else 'are'} tiny ({of_rows} of the rows{together})"
    if assigned is not None and model.state_.mixture.assignment == "soft":
        for a, b, share in assigned.overlaps[:2]:
            yield (
                f"groups {min(a, b)} and {max(a, b)} overlap (rows of {a} belong to {b} by "
                f"{percent(share, 2)} on average)"
            )


def _groups(numbers: Sequence[int]) -> str:
    return f"group{'s' * (len(numbers) > 1)} {listed([str(k) for k in numbers])}"


def _of_parts(evidence: Evidence) -> Iterator[str]:
    densities = evidence.densities
    if densities is None:
        return
    if n := int(densities.unlike.sum()):
        yield f"{n:,} of {len(densities.means):,} parts of the data are unlike the model"
    if n := int((densities.mixed_otherwise & ~densities.unlike).sum()):
        yield f"in {n:,} of {len(densities.means):,} parts the groups are mixed otherwise"


def _of_columns(model: FittedMixture, evidence: Evidence) -> Iterator[str]:
    if evidence.rows is None:
        return
    components = model.describe()
    found = [ColumnQuality.of(values) for values in np.asarray(evidence.rows, dtype=float).T]
    names = [shortened(name) for name in components.columns]
    holes = sorted((-one.missing, j) for j, one in enumerate(found) if one.missing > 0)
    if holes:
        more = f", and in {len(holes) - 1} more columns" if len(holes) > 1 else ""
        fewest, j = holes[0]
        yield f"{percent(-fewest, 2)} of the rows lack a value in {names[j]}{more}"
    for j, one in enumerate(found):
        if one.constant and is_finite(one.low):
            yield f"{names[j]} is the same in every row drawn"
        elif one.spike and j not in components.answers:
            yield (
                f"{percent(one.share, 2)} of the rows hold {quantity(one.common)} in {names[j]}, "
                "a spike"
            )
