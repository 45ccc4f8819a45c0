"""Components that the data do not determine: equal ones, and those of too few rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from .degenerate import Degenerate
from .mixture import Mixture
from .parts import MixtureStatistics
from .tuning import tuning


def undetermined(mixture: Mixture, statistics: MixtureStatistics) -> list[Degenerate]:
    """Return the components that are equal to others, or have fewer rows than parameters.

    Parameters
    ----------
    mixture : Mixture
    statistics : MixtureStatistics
        Of which `mixture` is the M-step.

    Examples
    --------
    >>> from .moments import Moments
    >>> from ..families.gaussian.options import GaussianOptions
    >>> two = Mixture(np.log([0.5, 0.5]), GaussianOptions().of_data(Moments.unit(1), 2))
    >>> fold = two.fold()
    >>> fold.update(0, np.arange(9.0)[:, None], None)
    >>> undetermined(two, fold.result())[0].equal
    (1,)
    """
    found = {k: Degenerate(k, (), (), equal=others) for k, others in _equal(mixture).items()}
    for k, rows in _few(mixture, statistics).items():
        found[k] = replace(found.get(k, Degenerate(k, (), ())), rows=rows)
    return [found[k] for k in sorted(found)]


def owed_warnings(found: Sequence[Degenerate], called: Callable[[Sequence[int]], str]) -> list[str]:
    """Return a warning of components whose width is the prior's.

    Parameters
    ----------
    found : sequence of Degenerate
    called : callable
        Returns how messages name some columns.
    """
    if not found:
        return []
    places = [
        f"component {one.component} at {', '.join(f'{v:.6g}' for v in one.values)} in "
        f"{called(one.columns)}"
        for one in found[:10]
    ]
    return [
        f"degenerate components: {'; '.join(places)}. Their variance there is little but what the "
        "prior adds: so many rows hold one value that it cannot widen them. Bound the eigenvalues, "
        "by max_ratio=10, or lower n_components"
    ]


def undetermined_warnings(found: Sequence[Degenerate]) -> list[str]:
    """Return a warning of equal components, and one of those of too few rows."""
    equal = [one for one in found if one.equal]
    few = [one for one in found if one.rows is not None]
    messages = []
    if equal:
        groups = [", ".join(map(str, (one.component, *one.equal))) for one in equal[:10]]
        messages.append(
            f"degenerate components: {' and '.join(groups)} are equal: the data show fewer "
            "clusters than there are components; lower n_components, or try another random_state"
        )
    if few:
        shown = [f"component {one.component} has {one.rows:.3g} rows" for one in few[:10]]
        messages.append(
            f"degenerate components: {', '.join(shown)}, fewer than parameters of its own: what "
            "it shows is chance; lower n_components, or fit components of fewer parameters"
        )
    return messages


def _few(mixture: Mixture, statistics: MixtureStatistics) -> dict[int, float]:
    """Return the rows of components that have fewer of them than parameters."""
    if mixture.components.has_prior:
        return {}
    rows = statistics.n_rows * statistics.resp_sum / statistics.weight
    return {int(i): float(rows[i]) for i in np.flatnonzero(rows < mixture.n_own)}


def _equal(mixture: Mixture) -> dict[int, tuple[int, ...]]:
    """Return the later components that are equal to a component, where there are any."""
    k, near = len(mixture.log_weights), tuning().numerics.equal
    if mixture.components.variational:
        # Those without rows are all the prior's: so they are told of, by their weights.
        return {}
    alone = [mixture.components.take([i]) for i in range(k if k > 1 else 0)]
    if not alone:
        return {}
    vectors = np.stack([one.to_unconstrained() for one in alone])
    units = np.stack([one.information_scale(np.ones(1)) for one in alone])
    order = np.argsort(vectors[:, 0], kind="stable")
    firsts = vectors[order, 0]
    found: dict[int, tuple[int, ...]] = {}
    taken: set[int] = set()
    for place, i in enumerate(order.tolist()):
        reach = vectors[i, 0] + near / units[i, 0]
        later = order[place + 1 : np.searchsorted(firsts, reach, "right")]
        gaps = np.abs(vectors[later] - vectors[i]) * units[i]
        alike = [j for j in later[(gaps <= near).all(axis=1)].tolist() if j not in taken]
        if alike and i not in taken:
            first, *others = sorted([i, *alike])
            found[first] = tuple(others)
            taken |= {i, *alike}
    return found
