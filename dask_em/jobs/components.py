"""Components of a model as commands tell of them: sizes, and a table of each profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.em import EMState
from ..core.profile import Profile
from ..estimators.describe import FamilyDescription
from ..fitting.kept_sample import KeptSample


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
    >>> told["noise"] is None
    True
    """
    return {
        "weights": weights.tolist(),
        "sizes": state.statistics.resp_sum.tolist() if state.measured else None,
        "noise": _noise(state),
        "profiles": [_profile(one, components.columns) for one in components.profiles],
    }


def sample_told(sample: KeptSample | None) -> dict[str, int] | None:
    """Return how many rows a model keeps, and their bytes, as JSON holds them; None of none.

    Examples
    --------
    >>> sample_told(KeptSample(5, np.zeros((2, 3)), np.ones(2)))
    {'rows': 2, 'size': 5, 'bytes': 64}
    """
    if sample is None:
        return None
    return {"rows": len(sample.rows), "size": sample.size, "bytes": sample.nbytes}


def _noise(state: EMState) -> dict[str, float | None] | None:
    """Return share, rows and volume of noise; None where there is none."""
    box = state.result.noise_box
    if box is None:
        return None
    return {
        "weight": state.result.noise_weight,
        "size": state.statistics.noise_sum if state.measured else None,
        "volume": box.volume if np.isfinite(box.volume) else None,
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
