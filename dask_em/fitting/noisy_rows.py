"""Starts of fits to rows whose noise is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..core.em import EMState
from ..core.family import FamilyOptions
from ..core.mixture import Mixture
from .starts import StartOptions
from .survey import Surveyed

Earlier = Callable[[Surveyed], Mixture | EMState]


def of_noisy_rows(start: StartOptions) -> StartOptions:
    """Return the options of a start for rows behind whose columns stands their known noise.

    Raises
    ------
    UsageError
        The components know of none.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> of_noisy_rows(GaussianMixture(2).start_options()).components.of_noise
    True
    """
    components, earlier = start.components.of_noisy_rows(), start.start_from
    if earlier is not None:
        earlier = partial(_with_noise, components, earlier)
    return replace(start, components=components, start_from=earlier)


def _with_noise(components: FamilyOptions, earlier: Earlier, surveyed: Surveyed) -> Mixture:
    """Return the mixture of an earlier fit, which was of other rows: its sums say nothing."""
    found = earlier(surveyed)
    mixture = found.result if isinstance(found, EMState) else found
    return mixture.holding(components.noisy(mixture.components))
