"""Find probabilities at 0 or 1, and models that are not identified."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ...core.additive import Array
from ...core.degenerate import Degenerate
from ...core.tuning import tuning

# Probabilities that a message names.
NAMED = 6


def at_bounds(log_probabilities: Array, places: Sequence[slice]) -> list[Degenerate]:
    """Return the components that give one answer to some question, and no other ever.

    Examples
    --------
    >>> (found,) = at_bounds(np.log([[0.5, 0.5, 1e-12, 1.0]]), [slice(0, 2), slice(2, 4)])
    >>> found.component, found.columns, found.values
    (0, (1,), (1.0,))
    """
    found = []
    for k, row in enumerate(log_probabilities):
        answers = {
            j: float(row[place].argmax())
            for j, place in enumerate(places)
            if place.stop - place.start > 1 and _is_one(row[place].max())
        }
        if answers:
            found.append(Degenerate(k, tuple(answers), tuple(answers.values()), bounded=True))
    return found


def never_given(log_probabilities: Array, places: Sequence[slice]) -> list[tuple[int, int, int]]:
    """Return (component, question, answer) of answers that a component never gives, but others do.

    Questions to which it gives one answer alone are left out: they are named by that.

    Examples
    --------
    >>> with np.errstate(divide="ignore"):
    ...     found = never_given(np.log([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]]), [slice(0, 3)])
    >>> found
    [(0, 0, 2)]
    """
    zero = np.exp(log_probabilities) < tuning().categorical.at_bound
    zero &= ~zero.all(axis=0)
    return [
        (k, j, int(c))
        for k, row in enumerate(log_probabilities)
        for j, place in enumerate(places)
        if not _is_one(row[place].max())
        for c in np.flatnonzero(zero[k, place])
    ]


def answer_warnings(
    log_probabilities: Array,
    places: Sequence[slice],
    weights: Array,
    called: Callable[[Sequence[int]], str],
) -> list[str]:
    """Return warnings of what is odd about components.

    Parameters
    ----------
    log_probabilities : (k, m) array
    places : sequence of slice
        Of the categories of each column.
    weights : (k,) array
    called : callable
        Returns how messages name some columns.
    """
    messages = bound_warnings(
        at_bounds(log_probabilities, places), called, never_given(log_probabilities, places)
    )
    numbers = [place.stop - place.start for place in places]
    k, n_free = len(weights), sum(numbers) - len(numbers)
    cells = float(np.prod([float(n) for n in numbers])) - 1
    if k * (n_free + 1) - 1 > cells:
        messages.append(
            f"not identified: {k * (n_free + 1) - 1} parameters, and the answers to all questions "
            f"have no more than {cells:g} free probabilities: other parameters describe the data "
            "as well, so lower n_components"
        )
    return messages


def bound_warnings(
    bounds: Sequence[Degenerate],
    called: Callable[[Sequence[int]], str],
    never: Sequence[tuple[int, int, int]] = (),
) -> list[str]:
    """Return a warning of components that give an answer always, or never; none where none do."""
    if not bounds and not never:
        return []
    said = [
        f"component {one.component} always answers {value:g} to {called([j])}"
        for one in bounds
        for j, value in zip(one.columns, one.values, strict=True)
    ]
    said += [f"component {k} never answers {c} to {called([j])}" for k, j, c in never]
    more = f", ... ({len(said)} in all)" if len(said) > NAMED else ""
    return [
        f"probabilities at 0 or 1: {', '.join(said[:NAMED])}{more}. Such estimates have no "
        "standard errors, and come of few rows: pass alpha=1 to smooth them, or lower n_components"
    ]


def _is_one(log_probability: float) -> bool:
    return -log_probability < tuning().categorical.at_bound
