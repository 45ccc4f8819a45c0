"""What a model file holds: made of a fitted estimator, and checked before one is made of it.

A checksum says that a file is as somebody wrote it, not that it is a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, get_type_hints

import numpy as np

from ..core.additive import Array
from ..core.em import EMState, Status
from ..core.engine import Engine
from ..core.mixture import Mixture, MixtureStatistics
from ..families.gaussian.constraints import CONSTRAINTS
from ..families.gaussian.family import Gaussian
from ..families.gaussian.statistics import GaussianStatistics
from ..families.gaussian.whitening import Whitening
from ..fitting.observers import PassRecord


def _any(value: Any) -> Any:
    return value


def state_header(state: EMState) -> dict[str, Any]:
    """What of a state JSON holds; the rest is in `state_arrays`."""
    return {
        "n_iter": state.n_iter,
        "status": state.status.name,
        "accepted": state.accepted,
        "collapsed": list(state.collapsed),
        "covariance_type": _any(state.mixture.components).covariance_type,
        "ridge": _any(state.mixture.components).ridge,
        "engine": {"name": state.mixture.engine.name, "single": state.mixture.engine.single},
        "n_rows": state.statistics.n_rows,
        "weight": state.statistics.weight,
        "log_likelihood": state.statistics.log_likelihood,
    }


def state_arrays(state: EMState) -> dict[str, Array]:
    """Parameters and statistics of a state, to the bit, by the names in the file."""
    frame, sums = _any(state.mixture.components).whitening, state.statistics
    arrays = {
        "frame.shift": frame.shift,
        "frame.scale": frame.scale,
        "statistics.resp_sum": sums.resp_sum,
        "statistics.first": _any(sums.components).first,
        "statistics.scatter": _any(sums.components).scatter,
    }
    for role, mixture in (("state", state.mixture), ("result", state.result)):
        arrays[f"{role}.log_weights"] = mixture.log_weights
        arrays[f"{role}.means"] = _any(mixture.components).means
        arrays[f"{role}.factor"] = _any(mixture.components).covariance.factor
    return arrays


def read_state(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> EMState:
    """The state that `state_header` and `state_arrays` described."""
    structure = CONSTRAINTS[header["covariance_type"]].storage
    frame = Whitening(arrays["frame.shift"], arrays["frame.scale"])
    engine = Engine(**header["engine"])
    mixtures = []
    for role in ("state", "result"):
        means, factor = arrays[f"{role}.means"], arrays[f"{role}.factor"]
        components = Gaussian(
            means, structure(factor), frame, header["ridge"], header["covariance_type"]
        )
        mixtures.append(Mixture(arrays[f"{role}.log_weights"], components, engine))
    sums = GaussianStatistics(arrays["statistics.first"], arrays["statistics.scatter"])
    statistics = MixtureStatistics(
        header["n_rows"],
        header["weight"],
        header["log_likelihood"],
        arrays["statistics.resp_sum"],
        sums,
    )
    return EMState(
        mixtures[0],
        statistics,
        header["n_iter"],
        tuple(header["collapsed"]),
        Status[header["status"]],
        mixtures[1],
        header.get("accepted", True),
    )


Types = Mapping[str, type | UnionType]


PUBLIC_ARRAYS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")

INIT_ARRAYS = ("weights_init", "means_init", "precisions_init")


NUMBER = int | float

PARTS: Types = {
    "model": str, "options": dict, "history": list, "n_passes": NUMBER, "provenance": dict,
    "state": dict,
}  # fmt: skip

# Of the options those that nobody else checks.
OPTIONS: Types = {
    "n_components": int, "random_state": int | None, "warm_start": bool, "verbose": int,
    "device": str,
}  # fmt: skip

PROVENANCE: Types = {
    "source": str, "n_rows": int, "n_dropped": int, "n_features": int, "dtype": str,
    "fingerprint": str, "fitted": str, "dask_em": str, "sweep": dict, "fit": dict,
}  # fmt: skip

STATE: Types = {
    "n_iter": int, "status": str, "accepted": bool, "collapsed": list, "covariance_type": str,
    "ridge": NUMBER, "engine": dict, "n_rows": int, "weight": NUMBER, "log_likelihood": NUMBER,
}  # fmt: skip

ENGINE: Types = {"name": str, "single": bool}

RECORD: Types = {
    name: {float: NUMBER, float | None: NUMBER | None}.get(kind, kind)
    for name, kind in get_type_hints(PassRecord).items()
} | {"accepted": bool}

# What only some fits and passes have.
OPTIONAL = {"sweep", "fit", "accepted"}


def model_parts(model: Any) -> tuple[dict[str, Any], dict[str, Array]]:
    """Header and arrays of a fitted estimator, for `checkpoint.write_arrays`.

    Raises
    ------
    ValueError
        An option was set since the fit to what no model file holds.
    """
    state = model.state_
    options: dict[str, Any] = {
        name: plain(value)
        for name, value in model.get_params().items()
        if name not in (*INIT_ARRAYS, "callbacks", "checkpoint")
    }
    # The file is of the fit, whatever was set since; no generator or module goes into it.
    options["n_components"] = len(model.weights_)
    options["covariance_type"] = state.result.components.covariance_type
    options |= {"warm_start": bool(model.warm_start), "verbose": int(model.verbose)}
    if not isinstance(options["random_state"], int | None):
        options["random_state"] = None
    if not isinstance(model.device, str):
        options["device"] = "cpu"
    header = {
        "model": type(model).__name__,
        "options": options,
        "n_passes": model.n_passes_,
        "history": model.history_,
        "provenance": model.provenance_,
        "state": state_header(state),
    }
    arrays = {name: np.asarray(getattr(model, name)) for name in PUBLIC_ARRAYS}
    for name in INIT_ARRAYS:
        if getattr(model, name) is not None:
            arrays[name] = np.asarray(getattr(model, name), dtype=np.float64)
    if hasattr(model, "feature_names_in_"):
        arrays["feature_names_in_"] = np.asarray(model.feature_names_in_, dtype=str)
    arrays |= state_arrays(state)
    try:
        check_model(header, arrays)
    except (KeyError, TypeError) as e:
        raise ValueError(f"this model cannot be saved: {e}") from e
    return header, arrays


def plain(value: Any) -> Any:
    """A number of NumPy as one of Python, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def check_model(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> None:
    """Raise unless a header and arrays have the parts of a model.

    Raises
    ------
    KeyError, TypeError, ValueError
        What is missing, of another type or shape, or no number.
    """
    _check_types("", header, PARTS)
    _check_types("options.", header["options"], OPTIONS)
    _check_types("provenance.", header["provenance"], PROVENANCE)
    _check_types("state.", header["state"], STATE)
    for i, record in enumerate(header["history"]):
        _check_types(f"history[{i}].", record, RECORD)
    state = header["state"]
    _check_types("state.engine.", state["engine"], ENGINE)
    _require("state.status", state["status"], state["status"] in Status.__members__)
    _require("state.engine.name", state["engine"]["name"],
             state["engine"]["name"] in ("numpy", "numba"))  # fmt: skip
    for name in ("ridge", "weight"):
        _require(f"state.{name}", state[name], 0 <= state[name] < np.inf)
    kind, k = state["covariance_type"], header["options"]["n_components"]
    _require("state.covariance_type", kind, kind == header["options"]["covariance_type"])
    _require("state.collapsed", state["collapsed"],
             all(type(c) is int and 0 <= c < k for c in state["collapsed"]))  # fmt: skip
    _check_arrays(arrays, k, kind)


def _check_types(where: str, found: Any, types: Types) -> None:
    if not isinstance(found, Mapping):
        raise TypeError(f"{where}{found!r:.60} is not an object")
    for name, kind in types.items():
        if name not in found:
            if name in OPTIONAL:
                continue
            raise KeyError(f"{where}{name}")
        value = found[name]
        # Python counts True among the integers.
        wrong = isinstance(value, bool) and kind is not bool
        if wrong or not isinstance(value, kind):
            raise TypeError(f"{where}{name} is {value!r:.60}")


def _require(name: str, value: Any, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} is {value!r:.60}")


def _check_arrays(arrays: Mapping[str, Array], k: int, kind: str) -> None:
    d = arrays["means_"].shape[-1] if arrays["means_"].ndim else 0
    # No memory is touched, whatever a file claims.
    shape = CONSTRAINTS[kind].storage.zeros(k, d).shape
    shapes: dict[str, tuple[int, ...]] = {
        "weights_": (k,), "means_": (k, d), "covariances_": shape, "precisions_": shape,
        "precisions_cholesky_": shape, "frame.shift": (d,), "statistics.resp_sum": (k,),
        "statistics.first": (k, d), "statistics.scatter": shape,
        "weights_init": (k,), "means_init": (k, d), "precisions_init": shape,
    }  # fmt: skip
    for role in ("state", "result"):
        shapes |= {f"{role}.log_weights": (k,), f"{role}.means": (k, d), f"{role}.factor": shape}
    scale = arrays["frame.scale"]
    shapes["frame.scale"] = (d,) if scale.ndim == 1 else (d, d)
    for name, expected in shapes.items():
        if name.endswith("_init") and name not in arrays:
            continue
        array = arrays[name]
        if array.shape != expected or array.dtype != np.float64:
            raise ValueError(f"{name} is {array.dtype} {array.shape}, expected {expected}")
        # The weight of a component without rows is zero.
        allowed = np.isfinite(array) | (array == -np.inf if "log_weights" in name else False)
        if not allowed.all():
            raise ValueError(f"{name} holds what is no number")
    _check_positive("frame.scale", scale)
    _require("weights_", arrays["weights_"], bool((arrays["weights_"] >= 0).all()))
    names = arrays.get("feature_names_in_")
    if names is not None and (names.shape != (d,) or names.dtype.kind != "U"):
        raise ValueError(f"feature_names_in_ is {names.dtype} {names.shape}, expected {d} names")


def _check_positive(name: str, scale: Array) -> None:
    diagonal = scale if scale.ndim == 1 else np.diagonal(scale)
    if not (diagonal > 0).all():
        raise ValueError(f"{name} is not positive")
