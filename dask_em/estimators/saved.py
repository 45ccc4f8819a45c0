"""The contents of a model file of a fitted estimator, checked when it is read.

A checksum says that a file is as somebody wrote it, not that it is a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from ..core.additive import Array
from ..core.codec import Packer, array_names, unpack
from ..core.em import EMState
from ..core.engine import Engine
from ..core.validation import brief, require, require_array, require_close
from ..fitting.kept_sample import KeptSample
from ..fitting.observers import n_reads
from ..storage.npz import RESERVED
from .categories import COUNTS, WORDS, check_categories
from .schema import header_of

# The largest code point; NumPy's texts may hold what is none.
LAST_CHARACTER, LONGEST_NAME = 0x10FFFF, 10_000

# Arrays beside the state that tell of columns.
OF_COLUMNS = ("feature_names_in_", WORDS, COUNTS)


@dataclass(frozen=True)
class Stored:
    """Say what files of a class of estimators hold beside a state.

    Attributes
    ----------
    options : frozenset of str
        Parameters that JSON holds: none that names a place, or is a function.
    arrays : tuple of str
        Parameters that are arrays of a start.
    kind_option : str or None
        The option that is the kind of the components.
    size_option : str
        The option that is their number.
    """

    options: frozenset[str]
    arrays: tuple[str, ...]
    kind_option: str | None = None
    size_option: str = "n_components"


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
    sample : KeptSample or None
        Rows that stay with the model.
    """

    estimator: str
    options: dict[str, Any]
    state: EMState
    history: list[dict[str, Any]]
    n_passes: float
    provenance: dict[str, Any]
    attributes: dict[str, Array]
    sample: KeptSample | None = None

    @property
    def n_reads(self) -> int:
        """How often the data were read: records of `history` but a survey kept beside them."""
        return n_reads(self.history)

    @property
    def n_sample_passes(self) -> float:
        """Work on the sample, in passes over the data that would compute as much."""
        return max(0.0, self.n_passes - self.n_reads)

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
        if self.sample is not None:
            # Programs that know of none refuse the file by the name of this part.
            header["sample"] = packer.pack(self.sample, "sample")
        return header, {**packer.arrays, **self.attributes}

    @classmethod
    def from_parts(
        cls, header: Mapping[str, Any], arrays: Mapping[str, Array], stored: Stored
    ) -> Self:
        """Return the model of a header and arrays, after all its parts were checked.

        Raises
        ------
        LookupError, TypeError, ValueError
            What is missing, unknown, of another type or shape, or beyond its bounds.
        """
        parts = {name: part for name, part in header.items() if name not in RESERVED}
        header_of(stored.options, stored.size_option).check("", parts)
        state = unpack(parts["state"], arrays, Engine(**parts["engine"]))
        if not isinstance(state, EMState):
            raise TypeError(f"state is {brief(state)}")
        state.validate()
        used, sample = array_names(parts["state"]), None
        if "sample" in parts:
            used |= array_names(parts["sample"])
            sample = _sample_of(unpack(parts["sample"], arrays), state)
        attributes = {name: array for name, array in arrays.items() if name not in used}
        made = cls(
            parts["estimator"],
            parts["options"],
            state,
            parts["history"],
            parts["n_passes"],
            parts["provenance"],
            attributes,
            sample,
        )
        made._check(stored)
        return made

    def _check(self, stored: Stored) -> None:
        """Raise `ValueError` where the parts do not belong together."""
        family, options = self.state.result.components, self.options
        k, d = len(self.state.result.log_weights), family.n_features
        size = stored.size_option
        require(size, options[size], options[size] == k)
        require("n_features", d, d == self.provenance["n_features"])
        for mixture in (self.state.mixture, self.state.result):
            kind, name = mixture.components.kind, stored.kind_option
            require(name or "components", kind, name is None or kind == options.get(name))
        self._check_attributes(stored, k, d)

    def _check_attributes(self, stored: Stored, k: int, d: int) -> None:
        """Raise `ValueError` where arrays beside the state are not what it says, or unknown."""
        found, mixture = self.attributes, self.state.result
        shapes = {"weights_": (k,), **mixture.components.attribute_shapes()}
        unknown = found.keys() - shapes.keys() - {*stored.arrays, *OF_COLUMNS}
        if unknown:
            raise ValueError(f"there is an array {brief(min(unknown))}, which no such model has")
        for name, shape in shapes.items():
            require_array(name, found[name], shape, largest=np.finfo(np.float64).max)
        weights = found["weights_"]
        whole = abs(weights.sum() + mixture.noise_weight - 1) < 1e-12
        require("weights_", weights, bool((weights >= 0).all() and whole))
        require_close("weights_", weights, mixture.shares, 1e-9)
        mixture.components.check_attributes(found)
        for name in found.keys() & {*stored.arrays}:
            # An array to start from has the shape of what it becomes.
            require_array(name, found[name], shapes.get(name[:-4], found[name].shape))
        if "feature_names_in_" in found:
            _check_texts("feature_names_in_", found["feature_names_in_"], d)
        if WORDS in found:
            _check_texts(WORDS, found[WORDS], len(found[WORDS]))
        check_categories(found, d)


def _sample_of(found: object, state: EMState) -> KeptSample:
    """Return what a file holds as a sample, after it was checked to be one of rows of a state."""
    if not isinstance(found, KeptSample):
        raise TypeError(f"sample is {brief(found)}")
    components = state.result.components
    found.validate(components.n_features, components.support)
    return found


def groups_in(header: Mapping[str, Any]) -> list[str]:
    """Return the families of the groups of columns that a header names.

    Examples
    --------
    >>> groups_in({"options": {"columns": {"gaussian": ["x"]}}}), groups_in({"options": {}})
    (['gaussian'], [])
    """
    columns = header["options"].get("columns")
    return [*columns] if isinstance(columns, dict) else []


def _check_texts(name: str, names: Array, n: int) -> None:
    """Raise `ValueError` unless there are n names that are texts."""
    texts = names.shape == (n,) and names.dtype.kind == "U" and names.dtype.isnative
    length = names.dtype.itemsize // 4
    require(name, names, texts and 0 < length <= LONGEST_NAME)
    characters = np.ascontiguousarray(names).view(np.uint32)
    require(name, names, bool((characters <= LAST_CHARACTER).all()))
