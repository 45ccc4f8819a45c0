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
from ..errors import DataError

# They say which numbers are sound. xarray leaves them alone, and so does this.
VALID = ("valid_min", "valid_max", "valid_range")

ATTRIBUTES = ("scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned")


@dataclass(frozen=True)
class Packing:
    """Decode stored numbers: `stored * scale + offset`, and NaN where they are masked.

    Attributes
    ----------
    dtype : dtype
        Of the decoded numbers.
    stored : dtype
        That the stored numbers are looked at as.
    missing : tuple of float
        Stored numbers that stand for a missing one.
    scale, offset : float or None

    Examples
    --------
    >>> packing = Packing.of({"scale_factor": 0.5, "_FillValue": -1}, np.dtype("i2"))
    >>> packing.decode(np.array([[4, -1]], dtype="i2"))
    array([[ 2., nan]])
    >>> print(packing)
    scale_factor=0.5, missing=-1, as float64
    >>> Packing.of({"units": "m"}, np.dtype("f4")) is None
    True
    """

    dtype: np.dtype[Any]
    stored: np.dtype[Any]
    missing: tuple[float, ...] = ()
    scale: float | None = None
    offset: float | None = None

    @classmethod
    def of(cls, attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> Packing | None:
        """Read the attributes of an array of `dtype`; None where its numbers are plain.

        Raises
        ------
        DataError
            An attribute is not what the conventions say.
        """
        given = {name: attributes[name] for name in ATTRIBUTES if name in attributes}
        if not given or dtype.kind not in "fiu":
            return None
        stored = _seen_as(dtype, given.get("_Unsigned"))
        fills = [
            number
            for name in ("_FillValue", "missing_value")
            for number in _numbers(name, given.get(name), dtype)
        ]
        if stored.kind != dtype.kind:
            # As they are stored, and as they are seen.
            fills = [int(np.array(int(fill)).astype(dtype).view(stored)) for fill in fills]
        missing = tuple(dict.fromkeys(fill for fill in fills if fill == fill))
        scale, offset = (_factor(name, given.get(name)) for name in ("scale_factor", "add_offset"))
        if not missing and scale is None and offset is None and stored == dtype:
            return None
        decoded = stored
        if scale is not None or offset is not None:
            # xarray takes floats whose only fill value is NaN for decoded ones.
            if missing or not fills or dtype.kind != "f":
                decoded = _packed_dtype(stored, scale, offset)
        elif missing:
            decoded = masked_dtype(stored)
        numbers = [None if x is None else x.item() for x in (scale, offset)]
        return cls(decoded, stored, missing, *numbers)

    def decode(self, X: Array) -> Array:
        """Return stored numbers as what they stand for, in an array of their own."""
        seen = X.astype(self.stored, copy=False)
        out = seen.astype(self.dtype)
        if self.scale is not None:
            out *= self.scale
        if self.offset is not None:
            out += self.offset
        for number in self.missing:
            out[seen == number] = np.nan
        return out

    def __str__(self) -> str:
        parts = {"scale_factor": self.scale, "add_offset": self.offset}
        said = [f"{name}={value}" for name, value in parts.items() if value is not None]
        if self.missing:
            said.append(f"missing={' or '.join(map(str, self.missing))}")
        return ", ".join([*said, f"as {self.dtype}"])


def describe_decoding(decoding: str, attributes: Mapping[str, Any]) -> str:
    """Say how stored numbers are decoded, and what is not looked at; empty where they are plain.

    Examples
    --------
    >>> describe_decoding("scale_factor=0.1, as float64", {"valid_min": 0})
    'packed, and decoded by scale_factor=0.1, as float64; valid_min=0 is not looked at, as in ...
    """
    notes = [f"packed, and decoded by {decoding}"] if decoding else []
    if limits := [f"{name}={attributes[name]}" for name in VALID if name in attributes]:
        limited = ", ".join(limits)
        notes.append(f"{limited} is not looked at, as in xarray: numbers beyond it count")
    return "; ".join(notes)


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
