"""Columns of Arrow's types in files: what they hold, in one file and in several together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...core.additive import Array
from ..fields import Field, codes_of, exact
from ..frames import arrow_codes, arrow_dtype, arrow_values, is_encoded

if TYPE_CHECKING:
    import pyarrow as pa


def field_of(field: pa.Field, missing: bool) -> Field:
    """Return what a column of an Arrow schema holds, with its unit where one is noted.

    Examples
    --------
    >>> import pyarrow as pa
    >>> column = pa.field("t", pa.int16(), metadata={"units": "K"})
    >>> field_of(column, missing=True).dtype, field_of(column, missing=False).column.unit
    (dtype('float32'), 'K')
    """
    metadata = field.metadata or {}
    unit = metadata.get(b"units", metadata.get(b"unit", b"")).decode(errors="replace")
    found = Field.of(field.name, arrow_dtype(field.type), field.type, missing)
    return replace(found, unit=unit, encoded=is_encoded(field.type))


def joined_field(one: Field, other: Field) -> Field:
    """Return the column that holds what two of one name hold, in different files.

    Examples
    --------
    >>> narrow, wide = np.dtype("i2"), np.dtype("f4")
    >>> joined_field(Field.of("x", wide, "float"), Field.of("x", narrow, "int16")).dtype
    dtype('float32')
    """
    if one.dtype is None or other.dtype is None:
        return replace(one, encoded=one.encoded and other.encoded)
    kind = one.kind if one.kind == other.kind else "continuous"
    return replace(one, dtype=np.result_type(one.dtype, other.dtype), kind=kind)


def exact_values(column: pa.Array, field: Field, first: int, part: str) -> Array:
    """Return a column of numbers, (n,), a missing one as NaN; see `fields.exact`.

    Examples
    --------
    >>> import pyarrow as pa
    >>> exact_values(pa.array([1, None]), Field.of("n", np.dtype("i8"), "int64", True), 0, "")
    array([ 1., nan])
    """
    import pyarrow as pa

    if field.coded:
        return codes_of(*arrow_codes(column), field, first, part)
    if field.dated:
        # Of other resolutions and days, too; missing ones are NaT.
        dates = column.cast(pa.timestamp("us")).to_numpy(zero_copy_only=False)
        since = (dates - np.datetime64(0, "us")) / np.timedelta64(1, "s")
        return np.asarray(since, dtype=np.float64)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_float16(column.type) and column.null_count:
        column = column.cast(pa.float32())
    values = arrow_values(pa.chunked_array([column]))
    if not pa.types.is_integer(column.type):
        return values
    # Beside NaN they would be rounded before they are looked at.
    whole = column.fill_null(0).to_numpy(zero_copy_only=False) if column.null_count else values
    exact(whole, replace(field, kind="count"), first, part)
    return values
