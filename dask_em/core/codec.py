"""Serialize records to JSON and arrays, and read them back to the bit: never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import Enum
from functools import cached_property
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from ..foreign import shown
from .additive import Array
from .engine import Engine
from .validation import brief

T = TypeVar("T")

PLAIN = bool | int | float | str | None


@dataclass(frozen=True)
class _Entry:
    """A class that files may hold, under its tag and version."""

    kind: type[Any]
    tag: str
    version: int

    @property
    def field_names(self) -> list[str]:
        return [f.name for f in fields(self.kind)]

    @cached_property
    def hints(self) -> dict[str, Any]:
        """Types of the fields; none where the annotations cannot be evaluated."""
        try:
            return get_type_hints(self.kind)
        except NameError:
            return {}


_by_tag: dict[str, _Entry] = {}
_by_class: dict[type[Any], _Entry] = {}


def record(tag: str, version: int = 1) -> Callable[[type[T]], type[T]]:
    """Register a dataclass, or an enumeration, as one that files may hold.

    Files name the tag and the version, never the class, so that a class may be renamed. A file
    whose record has another version, or other fields, is refused by name.

    Parameters
    ----------
    tag : str
        No other record has it.
    version : int
        Raised by whoever changes the fields of the record, or their meaning.

    Raises
    ------
    ValueError
        Another class has the tag.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @record("doc-point")
    ... @dataclass(frozen=True)
    ... class Point:
    ...     x: float
    >>> Packer().pack(Point(1.5))
    {'record': 'doc-point', 'version': 1, 'fields': {'x': 1.5}}
    """

    def register(kind: type[T]) -> type[T]:
        known = _by_tag.get(tag)
        # A cell of a notebook that is run again defines the class again.
        if known is not None and _name_of(known.kind) != _name_of(kind):
            raise ValueError(f"tag {tag!r} of {_name_of(kind)}: {_name_of(known.kind)} has it")
        _by_tag[tag] = _by_class[kind] = _Entry(kind, tag, version)
        return kind

    return register


def tag_of(kind: type[Any]) -> str:
    """Return the tag of a registered class."""
    return _entry_of(kind).tag


def _entry_of(kind: type[Any]) -> _Entry:
    if kind not in _by_class:
        raise TypeError(f"{kind.__name__} is not a record that can be written to a file")
    return _by_class[kind]


def _name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class Packer:
    """Turn values into JSON and put their arrays aside, each of them once.

    Attributes
    ----------
    arrays : dict of str to array
        Named by the fields in which they were found.

    Examples
    --------
    >>> packer = Packer()
    >>> packed = packer.pack({"x": np.arange(2.0)}, "data")
    >>> packed
    {'dict': {'x': {'array': 'data.x'}}}
    >>> unpack(packed, packer.arrays)
    {'x': array([0., 1.])}
    """

    def __init__(self) -> None:
        self.arrays: dict[str, Array] = {}
        self._names: dict[int, str] = {}

    def pack(self, value: object, where: str = "") -> Any:
        """Return a value as JSON.

        Parameters
        ----------
        value : record, engine, list, tuple, mapping, array, number, str or None
        where : str
            Begins the names of the arrays.

        Raises
        ------
        TypeError
            The value holds something that is not registered.
        """
        if isinstance(value, np.ndarray):
            return {"array": self._name(value, where)}
        if isinstance(value, np.generic):
            # NumPy's numbers divide by zero in another way than Python's.
            return {"scalar": [value.dtype.str, value.item()]}
        if isinstance(value, PLAIN):
            return value
        if isinstance(value, list | tuple):
            items = [self.pack(v, f"{where}.{i}") for i, v in enumerate(value)]
            return {type(value).__name__: items}
        if isinstance(value, Mapping):
            return {"dict": {name: self.pack(v, f"{where}.{name}") for name, v in value.items()}}
        if isinstance(value, Engine):
            # Whoever reads it computes with an engine of its own.
            return {"engine": None}
        entry = _entry_of(type(value))
        if isinstance(value, Enum):
            return {"enum": entry.tag, "member": value.name}
        packed = {
            name: self.pack(getattr(value, name), f"{where}.{name}") for name in entry.field_names
        }
        return {"record": entry.tag, "version": entry.version, "fields": packed}

    def _name(self, array: Array, where: str) -> str:
        # The arrays are held below, so that no other gets the number of one of them.
        if id(array) not in self._names:
            name = where.strip(".") or "array"
            while name in self.arrays:
                name += "'"
            self._names[id(array)] = name
            self.arrays[name] = array
        return self._names[id(array)]


def unpack(packed: object, arrays: Mapping[str, Array], engine: Engine | None = None) -> Any:
    """Return the value that was packed.

    Nothing is made of it but registered records whose fields have the types that their
    annotations say.

    Parameters
    ----------
    packed : JSON
        As `Packer.pack` returned it.
    arrays : mapping of str to array
        As `Packer.arrays`.
    engine : Engine, optional
        Takes the place of the engines in the value; by default NumPy's.

    Raises
    ------
    ValueError
        `packed` is not what `Packer` makes of records that are registered; the message names
        the tag and the field.

    Examples
    --------
    >>> unpack({"dict": {"x": {"array": "data.x"}}}, {"data.x": np.arange(2.0)})
    {'x': array([0., 1.])}
    """
    try:
        return _Unpacker(arrays, Engine() if engine is None else engine).value(packed)
    except RecursionError:
        raise ValueError("records within records, too deep to be read") from None


def array_names(packed: object) -> set[str]:
    """Return the names of the arrays that a packed value refers to.

    Examples
    --------
    >>> array_names({"dict": {"x": {"array": "data.x"}, "y": 5}})
    {'data.x'}
    """
    found: set[str] = set()
    todo = [packed]
    while todo:
        match todo.pop():
            case {"array": str(name)}:
                found.add(name)
            case dict() as inner:
                todo += inner.values()
            case list() as inner:
                todo += inner
    return found


class _Unpacker:
    """The arrays and the engine that packed values are read with."""

    def __init__(self, arrays: Mapping[str, Array], engine: Engine) -> None:
        self._arrays, self._engine = arrays, engine

    def value(self, packed: object) -> Any:
        match packed:
            case None | bool() | int() | float() | str():
                return packed
            case {"array": str(name)}:
                return _named(self._arrays, name, "array")
            case {"scalar": [str(dtype), number]}:
                return _scalar(dtype, number)
            case {"list": list(items)}:
                return [self.value(v) for v in items]
            case {"tuple": list(items)}:
                return tuple(self.value(v) for v in items)
            case {"dict": dict(items)}:
                return {name: self.value(v) for name, v in items.items()}
            case {"engine": None}:
                return self._engine
            case {"enum": str(tag), "member": str(name)}:
                return _named(getattr(_known(tag).kind, "__members__", {}), name, repr(tag))
            case {"record": str(tag), "version": version, "fields": dict(values)}:
                return self._record(_known(tag), version, values)
        raise ValueError(f"{brief(packed)} is no packed value")

    def _record(self, entry: _Entry, version: object, values: Mapping[str, object]) -> Any:
        tag = entry.tag
        if type(version) is not int or version != entry.version:
            raise ValueError(
                f"a {tag!r} of version {brief(version)}, and this dask_em reads version "
                f"{entry.version}"
            )
        if wrong := {*entry.field_names} ^ values.keys():
            names = ", ".join(shown(name, 60) for name in sorted(wrong)[:20])
            raise ValueError(f"a {tag!r} lacks, or should not have, {names}")
        found = {name: self.value(value) for name, value in values.items()}
        for name, value in found.items():
            if not _fits(value, entry.hints.get(name, Any)):
                raise ValueError(f"{name} of a {tag!r} is {brief(value)}, of another type")
        return entry.kind(**found)


def _known(tag: str) -> _Entry:
    if tag not in _by_tag:
        raise ValueError(f"a record of the kind {brief(tag)}, which this dask_em does not know")
    return _by_tag[tag]


def _named(known: Mapping[str, Any], name: str, what: str) -> Any:
    if name not in known:
        raise ValueError(f"there is no {what} of the name {brief(name)}")
    return known[name]


def _scalar(dtype: str, number: object) -> np.generic:
    kinds = {bool: "b", int: "iuf", float: "f", str: "U"}
    try:
        kind = np.dtype(dtype)
        # Neither halves, which overflow, nor what the machine may not have.
        if kind.kind in kinds.get(type(number), "") and kind.itemsize in (1, 4, 8):
            found: np.generic = kind.type(number)
            return found
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{brief(number)} is no number of the type {brief(dtype)}")


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value has the type of an annotation, as far as that is cheap to see."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return any(value is one or (type(value) is type(one) and value == one) for one in inner)
    if origin is tuple and isinstance(value, tuple):
        each = (inner[0],) * len(value) if inner[1:] == (...,) else inner
        return len(value) == len(each) and all(map(_fits, value, each))
    if origin is list and isinstance(value, list):
        return all(_fits(one, inner[0]) for one in value)
    if hint in (int, float):
        # Python counts True among the integers.
        allowed = (int, np.integer) if hint is int else (int, float, np.integer, np.floating)
        return isinstance(value, allowed) and not isinstance(value, bool)
    kind = origin or (NoneType if hint is None else hint)
    # `Any`, protocols and type variables say nothing that can be seen.
    if kind is Any or not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    return isinstance(value, kind)


def digest(value: object) -> str:
    """Return the sha256 of all that is in a value that can be packed.

    The same value has the same digest as long as its records keep their versions.

    Examples
    --------
    >>> digest([1, 2.0]) == digest([1, 2.0])
    True
    """
    packer = Packer()
    result = hashlib.sha256(json.dumps(packer.pack(value), sort_keys=True).encode())
    for name, array in packer.arrays.items():
        result.update(f"{name}:{array.dtype.str}:{array.shape}:".encode())
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()
