"""Write fitted estimators to model files, and check what is read before one is made of it.

A checksum says that a file is as somebody wrote it, not that it is a model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Protocol, Self, TypeVar, get_type_hints

import numpy as np

from ..core.additive import Array
from ..core.codec import Packer, unpack
from ..core.em import EMState
from ..core.engine import Engine
from ..core.validation import require
from ..errors import ModelFileError
from ..fitting.observers import PassRecord
from ..storage.npz import read_arrays, write_arrays
from .format_2 import from_format_2

Types = Mapping[str, type | UnionType]

NUMBER = int | float

PARTS: Types = {
    "estimator": str, "options": dict, "history": list, "n_passes": NUMBER, "provenance": dict,
    "engine": dict,
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

ENGINE: Types = {"name": str, "single": bool}

RECORD: Types = {
    name: {float: NUMBER, float | None: NUMBER | None}.get(kind, kind)
    for name, kind in get_type_hints(PassRecord).items()
} | {"accepted": bool}

# What only some fits and passes have.
OPTIONAL = {"sweep", "fit", "accepted"}


@dataclass(frozen=True)
class SavedModel:
    """What a model file holds of a fitted estimator.

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
        _check_types("options.", header["options"], OPTIONS)
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
        return cls(
            header["estimator"],
            header["options"],
            state,
            header["history"],
            header["n_passes"],
            header["provenance"],
            {name: array for name, array in arrays.items() if not name.startswith("state.")},
        )


class StoredEstimator(Protocol):
    """A fitted estimator that model files may hold."""

    def to_saved(self) -> SavedModel:
        """Return what a model file holds of it."""

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Return the fitted estimator; raise where its parts do not belong together."""


E = TypeVar("E", bound=type[StoredEstimator])

_estimators: dict[str, type[StoredEstimator]] = {}


def register_estimator(tag: str) -> Callable[[E], E]:
    """Register a class of estimators under the tag that names it in model files.

    Parameters
    ----------
    tag : str
        Stays when the class is renamed.

    Raises
    ------
    ValueError
        Another class has the tag.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> @register_estimator("doc-mixture")
    ... class Mine(GaussianMixture):
    ...     pass
    >>> estimator_tag(Mine)
    'doc-mixture'
    """

    def register(kind: E) -> E:
        known = _estimators.get(tag, kind)
        # A cell of a notebook that is run again defines the class again.
        if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
            raise ValueError(f"tag {tag!r}: {known.__module__}.{known.__qualname__} has it")
        _estimators[tag] = kind
        return kind

    return register


def estimator_tag(kind: type[StoredEstimator]) -> str:
    """Return the tag of a class, or of the registered class that it is derived from."""
    tags = {registered: tag for tag, registered in _estimators.items()}
    for base in kind.__mro__:
        if base in tags:
            return tags[base]
    raise TypeError(f"{kind.__name__} has no tag: decorate it with register_estimator")


def estimator_of(tag: str) -> type[StoredEstimator]:
    """Return the class that is registered under a tag."""
    if tag not in _estimators:
        raise ValueError(
            f"a model of the kind {tag!r:.60}, which this dask_em does not know: import the module "
            "that registers it, or use a newer dask_em"
        )
    return _estimators[tag]


def write_model(
    path: str | os.PathLike[str], model: StoredEstimator, overwrite: bool = True
) -> None:
    """Write a fitted estimator to one file, whole or not at all.

    Raises
    ------
    ValueError
        An option was set since the fit to what no model file holds.
    OutputExistsError
        The file is there and `overwrite` is False.
    """
    saved = model.to_saved()
    header, arrays = saved.parts()
    try:
        # What could not be read must not be written.
        estimator_of(saved.estimator).from_saved(SavedModel.from_parts(header, arrays))
    except (KeyError, TypeError, ValueError) as e:
        raise ValueError(f"this model cannot be saved: {e}") from e
    write_arrays(path, header, arrays, overwrite)


def read_model(path: str | os.PathLike[str]) -> StoredEstimator:
    """Read a fitted estimator of a registered class.

    Raises
    ------
    ModelFileError
        No such file, not one of ours, or damaged.
    """
    header, arrays = read_arrays(path)
    try:
        if header["format_version"] == 2:
            header, arrays = from_format_2(header, arrays)
        saved = SavedModel.from_parts(header, arrays)
        return estimator_of(saved.estimator).from_saved(saved)
    except (
        KeyError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError
    ) as e:  # fmt: skip
        raise ModelFileError(
            f"{path}: a part of the model is missing or wrong ({e!r}): restore it from a copy, or "
            "fit again"
        ) from e


def plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


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
