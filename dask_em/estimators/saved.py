"""The contents of a model file of a fitted estimator, checked when it is read.

A checksum says that a file is as somebody wrote it, not that it is a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Self, get_type_hints

from ..core.additive import Array
from ..core.codec import Packer, unpack
from ..core.em import EMState
from ..core.engine import Engine
from ..core.validation import require, require_array
from ..fitting.observers import PassRecord

Types = Mapping[str, type | UnionType]

NUMBER = int | float

PARTS: Types = {
    "estimator": str, "options": dict, "history": list, "n_passes": NUMBER, "provenance": dict,
    "engine": dict,
}  # fmt: skip

OPTIONS: Types = {
    "n_components": int, "random_state": int | None, "warm_start": bool, "verbose": int,
    "device": str,
}  # fmt: skip

# Options that some estimators have, which check their values; who inspects a file makes none.
OWN_OPTIONS: Types = {
    "algorithm": str, "covariance_type": str, "init_params": str, "missing_chunks": str,
    "nonfinite": str, "tol": NUMBER, "reg_covar": NUMBER, "max_iter": int, "n_init": int,
    "max_time": NUMBER | None, "sample_size": int | None,
}  # fmt: skip

PROVENANCE: Types = {
    "source": str, "n_rows": int, "n_dropped": int, "n_features": int, "dtype": str,
    "fingerprint": str, "fitted": str, "dask_em": str, "sweep": dict, "fit": dict,
    "tuning": dict, "weight": NUMBER,
}  # fmt: skip

ENGINE: Types = {"name": str, "single": bool}

RECORD: Types = {
    name: {float: NUMBER, float | None: NUMBER | None}.get(kind, kind)
    for name, kind in get_type_hints(PassRecord).items()
} | {"accepted": bool}

# What only some fits and passes have.
OPTIONAL = {"sweep", "fit", "tuning", "weight", "accepted", *OWN_OPTIONS}


@dataclass(frozen=True)
class SavedModel:
    """Hold what a model file keeps of a fitted estimator.

    Attributes
    ----------
    estimator : str
        The tag of its class, see `register_estimator`.
    options : dict
        Parameters of the estimator that JSON holds.
    state : EMState
    history : list of dict
        One record a pass.
    n_passes : float
    provenance : dict
    attributes : dict of str to array
        Fitted attributes, and those parameters that are arrays, by their names.
    """

    estimator: str
    options: dict[str, Any]
    state: EMState
    history: list[dict[str, Any]]
    n_passes: float
    provenance: dict[str, Any]
    attributes: dict[str, Array]

    @property
    def n_reads(self) -> int:
        """How often the data were read: one record of `history` each."""
        return len(self.history)

    @property
    def n_sample_passes(self) -> float:
        """Work on the sample, in passes over the data that would compute as much."""
        return max(0.0, self.n_passes - len(self.history))

    def check_arrays(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Check the arrays beside the state by the shapes that its family's attributes have.

        Raises
        ------
        KeyError, ValueError
            One is missing, of another shape, or no number; also of those to start from.
        """
        found = self.attributes
        for name, shape in shapes.items():
            require_array(name, found[name], shape)
        for name in [name for name in found if name.endswith("_init")]:
            require_array(name, found[name], found[name.removesuffix("init")].shape)

    def parts(self) -> tuple[dict[str, Any], dict[str, Array]]:
        """Return header and arrays for `storage.npz.write_arrays`."""
        packer = Packer()
        engine = self.state.mixture.engine
        header = {
            "estimator": self.estimator,
            "options": self.options,
            "history": self.history,
            "n_passes": self.n_passes,
            "provenance": self.provenance,
            "engine": {"name": engine.name, "single": engine.single},
            "state": packer.pack(self.state, "state"),
        }
        return header, {**packer.arrays, **self.attributes}

    @classmethod
    def from_parts(cls, header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Self:
        """Return the model of a header and arrays, after all its parts were checked.

        Raises
        ------
        KeyError, TypeError, ValueError
            What is missing, of another type or shape, or no number.
        """
        _check_types("", header, PARTS)
        _check_types("options.", header["options"], {**OPTIONS, **OWN_OPTIONS})
        _check_types("provenance.", header["provenance"], PROVENANCE)
        _check_types("engine.", header["engine"], ENGINE)
        for i, record in enumerate(header["history"]):
            _check_types(f"history[{i}].", record, RECORD)
        engine = Engine(**header["engine"])
        require("engine.name", engine.name, engine.name in ("numpy", "numba"))
        state = unpack(header["state"], arrays, engine)
        if not isinstance(state, EMState):
            raise TypeError(f"state is {state!r:.60}")
        state.validate()
        found = {name: array for name, array in arrays.items() if not name.startswith("state.")}
        k, d = len(state.result.weights), state.result.components.n_features
        n_components = header["options"]["n_components"]
        require("n_components", n_components, n_components == k)
        require_array("weights_", found["weights_"], (k,))
        require("weights_", found["weights_"], bool((found["weights_"] >= 0).all()))
        if "feature_names_in_" in found:
            names = found["feature_names_in_"]
            wrong = f"{names.dtype} {names.shape}"
            require("feature_names_in_", wrong, names.shape == (d,) and names.dtype.kind == "U")
        return cls(
            header["estimator"],
            header["options"],
            state,
            header["history"],
            header["n_passes"],
            header["provenance"],
            found,
        )


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
