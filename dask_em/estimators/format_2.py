"""Convert model files of format 2, which dask_em 0.1.0 wrote, to the format of today."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.additive import Array
from ..core.codec import Packer
from ..core.em import EMState, Status
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from ..families.gaussian.constraints import CONSTRAINTS
from ..families.gaussian.family import Gaussian
from ..families.gaussian.statistics import GaussianStatistics
from ..families.gaussian.whitening import Whitening

# Options that have another name today.
RENAMED = {"missing": "missing_chunks"}

STATE_ARRAYS = ("state.", "result.", "frame.", "statistics.")


def from_format_2(
    header: Mapping[str, Any], arrays: Mapping[str, Array]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return header and arrays of a model of today's format; nothing is checked.

    Raises
    ------
    KeyError, TypeError
        A part is missing, or of another type.
    """
    old = header["state"]
    if not isinstance(header["model"], str):
        raise TypeError(f"model is {header['model']!r:.60}")
    packer = Packer()
    new = {
        **{name: header[name] for name in ("history", "n_passes", "provenance")},
        "estimator": "gaussian-mixture",
        "options": {RENAMED.get(name, name): value for name, value in header["options"].items()},
        "engine": old["engine"],
        "state": packer.pack(_state(old, arrays), "state"),
    }
    others = {name: array for name, array in arrays.items() if not name.startswith(STATE_ARRAYS)}
    return new, {**others, **packer.arrays}


def _state(old: Mapping[str, Any], arrays: Mapping[str, Array]) -> EMState:
    kind = old["covariance_type"]
    structure = CONSTRAINTS[kind].storage
    whitening = Whitening(arrays["frame.shift"], arrays["frame.scale"])

    def mixture(role: str) -> Mixture:
        factor = structure(arrays[f"{role}.factor"])
        components = Gaussian(arrays[f"{role}.means"], factor, whitening, old["ridge"], kind)
        return Mixture(arrays[f"{role}.log_weights"], components)

    statistics = MixtureStatistics(
        old["n_rows"],
        old["weight"],
        old["log_likelihood"],
        arrays["statistics.resp_sum"],
        GaussianStatistics(arrays["statistics.first"], arrays["statistics.scatter"]),
    )
    return EMState(
        mixture("state"),
        statistics,
        old["n_iter"],
        tuple(old["collapsed"]),
        Status[old["status"]],
        mixture("result"),
        old.get("accepted", True),
    )
