"""Whether criteria of several models may be compared: of the same data and base measure."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.additive import Array
from ..errors import UsageError
from .checks import Columns
from .starts import StartOptions


def check_comparable(
    models: Sequence[StartOptions], names: Sequence[str] | Array | None, d: int
) -> None:
    """Raise where likelihoods of models of d columns are not numbers of one kind.

    A density is relative to lengths, and changes with the unit of the data; a probability does
    not. A classification likelihood (of a hard assignment) is none of a mixture.

    Parameters
    ----------
    models : sequence of StartOptions
    names : (d,) sequence of str or None
        Of the columns.
    d : int

    Raises
    ------
    UsageError
        Two models differ in the measure of some column, or in their assignment.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> models = [GaussianMixture(k).start_options() for k in (1, 2)]
    >>> check_comparable(models, None, 2)
    """
    first, columns = models[0], Columns(names)
    measures = _measures(first, d)
    for other in models[1:]:
        if other.assignment != first.assignment:
            raise UsageError(
                f"{_both(first, other)} cannot be compared: the {first.assignment} assignment of "
                f"rows to components has another likelihood than the {other.assignment} one: "
                "compare such models apart"
            )
        for j, (ours, theirs) in enumerate(zip(measures, _measures(other, d), strict=True)):
            if ours != theirs:
                raise UsageError(
                    f"{_both(first, other)} cannot be compared: {columns.name(j)} has {ours} under "
                    f"{first.family} and {theirs} under {other.family}, and likelihoods of both "
                    "are no numbers of one kind: compare models apart that take it for the same"
                )


def _measures(model: StartOptions, d: int) -> tuple[str, ...]:
    """Return what the model gives to values of each column."""
    found = model.components.base_measure
    return found * d if len(found) == 1 else found


def _both(one: StartOptions, other: StartOptions) -> str:
    return f"models of the families {one.family} and {other.family}"
