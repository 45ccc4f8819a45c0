"""What a fit knows as JSON and arrays, and back to the bit: never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from .acceleration import Step
from .callbacks import PassRecord
from .em import EMState, Status
from .families.base import Engine
from .families.covariance import STRUCTURES
from .families.gaussian import Gaussian, GaussianStatistics
from .frame import Frame
from .initialization import Extent, Moments, NonFinite, Sample, Start, Surveyed
from .mixture import Mixture, MixtureStatistics
from .notes import Noted, Notes
from .selection import FleetStatistics, Row
from .shortlist import Shortlisted
from .statistics import Array

RECORDS: dict[str, type[Any]] = {
    record.__name__: record
    for record in (
        EMState, Extent, FleetStatistics, Frame, Gaussian, GaussianStatistics, Mixture,
        MixtureStatistics, Moments, NonFinite, Noted, Notes, PassRecord, Row, Sample, Shortlisted,
        Start, Step, Surveyed, *STRUCTURES.values(),
    )
}  # fmt: skip
"""The only classes that a file may name: frozen dataclasses that are nothing but their fields."""

PLAIN = bool | int | float | str | None


class Packer:
    """Turns values into JSON and puts their arrays aside, each of them once.

    Attributes
    ----------
    arrays : dict of str to array
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[int, str] = {}

    def pack(self, value: Any) -> Any:
        """`value`, of records, engines, lists, dicts, arrays and plain values, as JSON."""
        if isinstance(value, np.ndarray):
            return {"array": self._name(value)}
        if isinstance(value, np.generic):
            # NumPy's numbers divide by zero in another way than Python's.
            return {"scalar": [value.dtype.str, value.item()]}
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, list | tuple):
            return {type(value).__name__: [self.pack(v) for v in value]}
        if isinstance(value, Mapping):
            return {"dict": {name: self.pack(v) for name, v in value.items()}}
        return self._object(value)

    def _object(self, value: Any) -> Any:
        if isinstance(value, Engine):
            # Whoever reads it computes with an engine of its own.
            return {"engine": None}
        if isinstance(value, Status):
            return {"status": value.name}
        name = type(value).__name__
        if RECORDS.get(name) is not type(value):
            raise TypeError(f"{name} is not a record that can be written to a file")
        return {"record": [name, {f.name: self.pack(getattr(value, f.name))
                                  for f in fields(RECORDS[name])}]}  # fmt: skip

    def _name(self, array: Array) -> str:
        # The arrays are held below, so that no other gets the number of one of them.
        known = self._names.setdefault(id(array), f"a{len(self._names)}")
        self.arrays[known] = array
        return known


def unpack(packed: Any, arrays: Mapping[str, Array], engine: Engine) -> Any:
    """The value that was packed, with `engine` in place of its engines.

    Raises
    ------
    KeyError, TypeError, ValueError
        `packed` is not what `Packer` makes.
    """
    if isinstance(packed, PLAIN):
        return packed
    ((kind, content),) = packed.items()

    def inner(value: Any) -> Any:
        return unpack(value, arrays, engine)

    def record(content: Any) -> Any:
        name, values = content
        return RECORDS[name](**{field: inner(value) for field, value in values.items()})

    make: dict[str, Any] = {
        "array": lambda name: arrays[name],
        "scalar": lambda pair: np.dtype(pair[0]).type(pair[1]),
        "list": lambda values: [inner(v) for v in values],
        "tuple": lambda values: tuple(inner(v) for v in values),
        "dict": lambda values: {name: inner(v) for name, v in values.items()},
        "engine": lambda _: engine,
        "status": lambda name: Status[name],
        "record": record,
    }
    return make[kind](content)


def digest(value: Any) -> str:
    """sha256 of all that is in a value that can be packed."""
    packer = Packer()
    result = hashlib.sha256(json.dumps(packer.pack(value), sort_keys=True).encode())
    for name, array in packer.arrays.items():
        result.update(f"{name}:{array.dtype.str}:{array.shape}:".encode())
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()
