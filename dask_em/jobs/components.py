"""Components of a model as commands tell of them: sizes, and a table of each profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..core.additive import Array
from ..core.em import EMState
from ..core.profile import Profile
from ..estimators.describe import FamilyDescription


def components_told(
    weights: Array, state: EMState, components: FamilyDescription
) -> dict[str, Any]:
    """Return weights, sizes and profiles of components as JSON holds them.

    Parameters
    ----------
    weights : (k,) array
    state : EMState
        Of the fit. The size of a component is the sum of the responsibilities of the rows times
        their weights at its best pass; None where there was no pass.
    components : FamilyDescription

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> model = GaussianMixture(1).fit([[-1.0], [1.0]])
    >>> components = FamilyDescription(model.state_.result.components, ["x"])
    >>> told = components_told(model.weights_, model.state_, components)
    >>> told["sizes"], told["profiles"][0]["of"], round(told["profiles"][0]["widths"][0][0], 3)
    ([2.0], ['x'], 1.0)
    """
    sizes = state.statistics.resp_sum.tolist() if state.measured else None
    return {
        "weights": weights.tolist(),
        "sizes": sizes,
        "profiles": [_profile(one, components.columns) for one in components.profiles],
    }


def _profile(profile: Profile, columns: Sequence[str]) -> dict[str, Any]:
    widths = profile.widths
    return {
        "title": profile.title,
        "picture": profile.picture,
        "of": profile.names(columns),
        "values": profile.values.tolist(),
        "widths": None if widths is None else widths.tolist(),
    }
