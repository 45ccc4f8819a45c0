"""What a fit knows as JSON and arrays, and back to the bit: never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, TypeVar

import numpy as np

from .additive import Array
from .engine import Engine

T = TypeVar("T")

_classes: dict[str, type[Any]] = {}
_tags: dict[type[Any], str] = {}

PLAIN = bool | int | float | str | None


def record(tag: str) -> Callable[[type[T]], type[T]]:
    """Register a frozen dataclass, or an enumeration, as one that files may hold.

    Files name the tag, never the class, so that a class may be renamed; whoever changes what
    a record means gives it another tag.

    Parameters
    ----------
    tag : str
        No other record has it.
    """

    def register(kind: type[T]) -> type[T]:
        assert tag not in _classes, f"two records have the tag {tag}"
        _classes[tag], _tags[kind] = kind, tag
        return kind

    return register


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
        tag = _tags.get(type(value))
        if tag is None:
            raise TypeError(f"{type(value).__name__} is not a record that can be written to a file")
        if isinstance(value, Enum):
            return {"member": [tag, value.name]}
        return {"record": [tag, {f.name: self.pack(getattr(value, f.name)) for f in fields(value)}]}

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
        tag, values = content
        kind = _class_of(tag)
        wanted = {f.name for f in fields(kind)}
        if wrong := wanted ^ values.keys():
            raise ValueError(
                f"a {tag!r} that lacks, or should not have, {', '.join(sorted(wrong))}"
            )
        return kind(**{name: inner(value) for name, value in values.items()})

    make: dict[str, Any] = {
        "array": lambda name: arrays[name],
        "scalar": lambda pair: np.dtype(pair[0]).type(pair[1]),
        "list": lambda values: [inner(v) for v in values],
        "tuple": lambda values: tuple(inner(v) for v in values),
        "dict": lambda values: {name: inner(v) for name, v in values.items()},
        "engine": lambda _: engine,
        "member": lambda pair: _class_of(pair[0])[pair[1]],
        "record": record,
    }
    return make[kind](content)


def _class_of(tag: str) -> Any:
    if tag not in _classes:
        raise ValueError(f"a record of the kind {tag!r}, which this dask_em does not know")
    return _classes[tag]


def digest(value: Any) -> str:
    """sha256 of all that is in a value that can be packed."""
    packer = Packer()
    result = hashlib.sha256(json.dumps(packer.pack(value), sort_keys=True).encode())
    for name, array in packer.arrays.items():
        result.update(f"{name}:{array.dtype.str}:{array.shape}:".encode())
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()
