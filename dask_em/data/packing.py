"""Packed and masked numbers: the attributes of the CF conventions, decoded as xarray does.

https://cfconventions.org/cf-conventions/cf-conventions.html#packed-data and #missing-data.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.columns import Column, ColumnKind
from ..errors import DataError

# They say which numbers are sound. xarray leaves them alone.
VALID = ("valid_min", "valid_max", "valid_range")

FLAGS = ("flag_values", "flag_meanings", "flag_masks")

ATTRIBUTES = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")


@dataclass(frozen=True)
class Packing:
    """Decode stored numbers: `stored * scale + offset`, and NaN where they are masked.

    Beyond what xarray decodes, numbers outside of `valid_range` (`valid_min`, `valid_max`) are
    masked, and `flag_values` become 0, 1, ... in their order, which `flag_meanings` name.

    Attributes
    ----------
    dtype : dtype
        Of the decoded numbers.
    stored : dtype
        That the stored numbers are looked at as.
    missing : tuple of float
        Stored numbers that stand for a missing one.
    scale, offset : float or None
    valid : (float, float) or None
        The least and the greatest sound number.
    valid_decoded : bool
        Whether these are decoded numbers, not stored ones.
    flags : tuple of float
        Stored numbers that become 0, 1, ...; any other is missing.

    Examples
    --------
    >>> packing = Packing.of({"scale_factor": 0.5, "_FillValue": -1}, np.dtype("i2"))
    >>> packing.decode(np.array([[4, -1]], dtype="i2"))
    array([[ 2., nan]])
    >>> print(packing)
    scale_factor=0.5, missing=-1, as float64
    >>> print(Packing.of({"valid_range": [0, 9]}, np.dtype("u1")))
    valid at least 0 and at most 9, as float32
    >>> Packing.of({"units": "m"}, np.dtype("f4")) is None
    True
    """

    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    missing: tuple[float, ...] = ()
    scale: float | None = None
    offset: float | None = None
    valid: tuple[float, float] | None = None
    valid_decoded: bool = False
    flags: tuple[float, ...] = ()

    @classmethod
    def of(cls, attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> Packing | None:
        """Read the attributes of an array of `dtype`; None where its numbers are plain.

        Raises
        ------
        DataError
            An attribute is not what the conventions say.
        """
        given = {name: attributes[name] for name in (*ATTRIBUTES, *VALID) if name in attributes}
        flags = _flags(attributes, dtype)
        if not (given or flags) or dtype.kind not in "fiu":
            return None
        stored = _seen_as(dtype, given.get("_Unsigned"))
        numbers = {name: _numbers(name, given.get(name), dtype) for name in (*FILLS, *VALID)}
        fills = [fill for name in FILLS for fill in _as_seen(numbers[name], dtype, stored)]
        missing = tuple(dict.fromkeys(fill for fill in fills if fill == fill))
        scale, offset = (_factor(name, given.get(name)) for name in ("scale_factor", "add_offset"))
        valid, valid_decoded = _limits(numbers, dtype, stored)
        if not (missing or valid or flags or stored != dtype) and scale is None and offset is None:
            return None
        decoded = stored
        if scale is not None or offset is not None:
            # xarray takes floats whose only fill value is NaN for decoded ones.
            if missing or not fills or dtype.kind != "f":
                decoded = _packed_dtype(stored, scale, offset)
        elif missing or valid or flags:
            decoded = masked_dtype(stored)
        factor, shift = (None if x is None else x.item() for x in (scale, offset))
        return cls(decoded, stored, missing, factor, shift, valid, valid_decoded, flags)

    @classmethod
    def of_decoded(
        cls, attributes: Mapping[str, Any], encoding: Mapping[str, Any], dtype: np.dtype[Any]
    ) -> Packing | None:
        """Read what is left to decode of numbers that xarray decoded, and of those it did not.

        Parameters
        ----------
        attributes, encoding : mapping
            Those of a DataArray. xarray moves to `encoding` what it has decoded, and leaves the
            limits of sound numbers, which are of the stored ones.
        dtype : dtype
            That of the DataArray.
        """
        done = {name: encoding[name] for name in ATTRIBUTES if name in encoding}
        if not done.keys() & {"scale_factor", "add_offset", "_Unsigned"}:
            return cls.of(attributes, dtype)
        limits = {name: attributes[name] for name in VALID if name in attributes}
        packed = cls.of({**done, **limits}, np.dtype(encoding.get("dtype", dtype)))
        if packed is None or packed.valid is None:
            return None
        valid = packed.valid
        if not packed.valid_decoded:
            bounded = np.clip(valid, *_range(packed.stored)).astype(packed.stored)
            plain = cls(dtype, packed.stored, (), packed.scale, packed.offset)
            valid = tuple(sorted(plain.decode(bounded).tolist()))
        return cls(masked_dtype(dtype), dtype, valid=valid, valid_decoded=True)

    def decode(self, X: Array) -> Array:
        """Return stored numbers as what they stand for, in an array of their own."""
        seen = X.astype(self.stored, copy=False)
        if self.flags:
            out = np.full(X.shape, np.nan, self.dtype)
            for code, flag in enumerate(self.flags):
                out[seen == flag] = code
        else:
            out = seen.astype(self.dtype)
        if self.scale is not None:
            out *= self.scale
        if self.offset is not None:
            out += self.offset
        if self.valid is not None:
            least, greatest = self.valid
            limited = out if self.valid_decoded else seen
            out[(limited < least) | (limited > greatest)] = np.nan
        for number in self.missing:
            out[seen == number] = np.nan
        return out

    def __str__(self) -> str:
        parts = {"scale_factor": self.scale, "add_offset": self.offset}
        said = [f"{name}={value}" for name, value in parts.items() if value is not None]
        if self.missing:
            said.append(f"missing={' or '.join(map(str, self.missing))}")
        if self.valid is not None:
            least, greatest = self.valid
            limits = {"at least": least, "at most": greatest}
            told = [f"{words} {x}" for words, x in limits.items() if np.isfinite(x)]
            decoded = " when decoded" if self.valid_decoded and self.scale is not None else ""
            said.append(f"valid {' and '.join(told)}{decoded}")
        if self.flags:
            said.append(f"flags {', '.join(map(str, self.flags))} as 0 to {len(self.flags) - 1}")
        return ", ".join([*said, f"as {self.dtype}"])


def masked_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the type of numbers of which some are missing: that of NaN.

    Examples
    --------
    >>> masked_dtype(np.dtype("i2")), masked_dtype(np.dtype("i4")), masked_dtype(np.dtype("f4"))
    (dtype('float32'), dtype('float64'), dtype('float32'))
    """
    if dtype.kind == "f":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 2 else np.float64)


def unmasked(X: Array) -> Array:
    """Return an array whose masked entries are NaN; one without a mask as it is.

    Examples
    --------
    >>> unmasked(np.ma.masked_equal([1, 2], 2))
    array([ 1., nan])
    """
    if not isinstance(X, np.ma.MaskedArray):
        return X
    filled = X.astype(masked_dtype(X.dtype))
    # A copy already.
    return np.asarray(np.ma.filled(filled, np.nan))


def categories(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what `flag_values` mean, in their order; empty where numbers are no flags.

    Examples
    --------
    >>> categories({"flag_values": [1, 2], "flag_meanings": "land sea"})
    ('land', 'sea')
    """
    values, meanings = (attributes.get(name) for name in FLAGS[:2])
    if values is None or meanings is None or "flag_masks" in attributes:
        return ()
    words = meanings.split() if isinstance(meanings, str) else list(map(str, np.ravel(meanings)))
    return tuple(words) if len(words) == np.size(values) else ()


def column_of(name: str, attributes: Mapping[str, Any], dtype: Any) -> Column:
    """Say what a variable holds, by its type and its attributes."""
    kinds: dict[str, ColumnKind] = {"f": "continuous", "b": "binary"}
    kind = kinds.get(np.dtype(dtype).kind, "count")
    if "scale_factor" in attributes or "add_offset" in attributes:
        kind = "continuous"
    meanings, unit = categories(attributes), attributes.get("units", "")
    return Column(
        name, "categorical" if meanings else kind, meanings, unit if isinstance(unit, str) else ""
    )


FILLS = ("_FillValue", "missing_value")


def _flags(attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> tuple[float, ...]:
    """Flags that are not their own codes."""
    if not categories(attributes) or "scale_factor" in attributes or "add_offset" in attributes:
        return ()
    stored = _seen_as(dtype, attributes.get("_Unsigned"))
    values = _as_seen(_numbers("flag_values", attributes["flag_values"], dtype), dtype, stored)
    return () if values == list(range(len(values))) else tuple(values)


def _as_seen(numbers: list[float], dtype: np.dtype[Any], stored: np.dtype[Any]) -> list[float]:
    """Numbers that were told as they are stored, as they are seen."""
    if stored.kind == dtype.kind:
        return numbers
    return [int(np.array(int(number)).astype(dtype).view(stored)) for number in numbers]


def _limits(
    numbers: Mapping[str, list[float]], dtype: np.dtype[Any], stored: np.dtype[Any]
) -> tuple[tuple[float, float] | None, bool]:
    """The least and greatest sound number, and whether they are decoded ones.

    Floats that tell of stored integers are: so netCDF has it.
    """
    if len(numbers["valid_range"]) == 2:
        found = numbers["valid_range"]
    else:
        found = [
            (numbers[name] or [fallback])[0]
            for name, fallback in (("valid_min", -np.inf), ("valid_max", np.inf))
        ]
    if not np.isfinite(found).any():
        return None, False
    decoded = dtype.kind != "f" and any(isinstance(x, float) and np.isfinite(x) for x in found)
    if not decoded:
        found = [_as_seen([x], dtype, stored)[0] if np.isfinite(x) else x for x in found]
    return (found[0], found[1]), decoded


def _range(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The least and the greatest number of a type."""
    info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    return info.min, info.max


def _seen_as(dtype: np.dtype[Any], unsigned: object) -> np.dtype[Any]:
    told = str(unsigned).lower()
    if dtype.kind == "i" and told == "true":
        return np.dtype(f"u{dtype.itemsize}")
    if dtype.kind == "u" and told == "false":
        return np.dtype(f"i{dtype.itemsize}")
    return dtype


def _numbers(name: str, value: Any, dtype: np.dtype[Any]) -> list[float]:
    """The numbers of an attribute, which may be one or several, or bytes of float64 in base64."""
    if value is None:
        return []
    found: list[float] = []
    for one in np.ravel(np.asarray(value)).tolist():
        try:
            found.append(_number(one) if isinstance(one, str | bytes) else one + 0)
        except (TypeError, ValueError, binascii.Error, struct.error) as e:
            raise DataError(
                f"the attribute {name}={value!r} of X is not a number of {dtype}: mend it, so that "
                "masked numbers can be told from others"
            ) from e
    return found


def _number(text: str | bytes) -> float:
    try:
        return float(text)
    except ValueError:
        # As xarray writes it in version 3 of Zarr's format.
        (number,) = struct.unpack("<d", base64.standard_b64decode(text))
        return float(number)


def _factor(name: str, value: Any) -> np.generic | None:
    if value is None:
        return None
    found = np.asarray(value)
    if found.size != 1 or found.dtype.kind not in "fiu":
        raise DataError(f"the attribute {name}={value!r} of X is not one number: mend it")
    factor: np.generic = found.reshape(-1)[0]
    return factor


def _packed_dtype(
    stored: np.dtype[Any], scale: np.generic | None, offset: np.generic | None
) -> np.dtype[Any]:
    """The float that holds the decoded numbers, as xarray chooses it."""
    double = np.dtype(np.float64)
    given = [x.dtype for x in (scale, offset) if x is not None]
    if len(set(given)) > 1 or given[0] not in (np.float32, np.float64):
        return double
    if offset is not None and (scale is None or (stored.kind in "iu" and stored.itemsize == 4)):
        return double
    return given[0]
