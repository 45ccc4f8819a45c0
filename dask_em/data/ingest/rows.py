"""The seam of ingest: rows whose numbers become a matrix, and other columns arrays beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from ...core.additive import Array
from ...core.columns import Column
from ...errors import DataError
from ...storage.stored_files import StoredFile, stamps_now

Part = tuple[Array, Mapping[str, Array]]
"""Rows of the matrix (n, d), and of each array beside it by its name."""


@dataclass(frozen=True)
class Aside:
    """Describe the array of a column that is not of the matrix.

    Attributes
    ----------
    column : Column
    dtype : dtype
    attributes : mapping
        As the CF conventions have them.
    """

    column: Column
    dtype: np.dtype[Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """Say what becomes of the columns.

    Attributes
    ----------
    columns : sequence of Column
        Of the matrix.
    dtype : dtype
        Of the matrix.
    asides : sequence of Aside
        All other columns.

    Examples
    --------
    >>> Layout([Column("x"), Column("y")], np.dtype("f4")).row_bytes
    8
    """

    columns: Sequence[Column]
    dtype: np.dtype[Any]
    asides: Sequence[Aside] = ()

    @property
    def row_bytes(self) -> int:
        """Bytes of a row of the matrix."""
        return len(self.columns) * self.dtype.itemsize


class Rows(Protocol):
    """Rows of one or several inputs, in their order.

    Attributes
    ----------
    layout : Layout
    n_rows : int
    nbytes : int
        Of the inputs as they lie there.
    unit_rows : int
        The most rows that are decoded together, so that reading from the middle of them costs
        all that lie before.
    """

    layout: Layout
    n_rows: int
    nbytes: int
    unit_rows: int

    def read(self, start: int) -> Iterator[Part]:
        """Yield all rows from number `start` on, some at a time."""

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return what tells whether these spans of rows were written to; empty: nobody can tell."""


def file_stamp(file: StoredFile) -> str:
    """Return what tells whether a file was written to since; empty where a store does not tell.

    Raises
    ------
    DataError
        It is gone.

    Examples
    --------
    >>> file_stamp(StoredFile("nowhere.csv", 0, "", "nowhere.csv"))
    Traceback (most recent call last):
    dask_em.errors.DataError: nowhere.csv is gone: it was there when ingest began; ...
    """
    # Asked for itself: a listing may tell less.
    found = stamps_now([replace(file, listed=False)])[file.name]
    if found == "missing":
        raise gone(str(file))
    return found


def gone(path: str) -> DataError:
    """Make the error of a file that vanished."""
    return DataError(
        f"{path} is gone: it was there when ingest began; put it back and run the same command "
        "again"
    )


def changed(path: str) -> DataError:
    """Make the error of a file that was written to while it was read."""
    return DataError(
        f"{path} was written to while it was read: run the same command again when nobody writes "
        "there"
    )


def joint_stamp(stamps: Sequence[str]) -> str:
    """Return one stamp of several; empty where one of them is.

    Examples
    --------
    >>> joint_stamp(["a", ""]), len(joint_stamp(["a", "b"]))
    ('', 64)
    """
    if not all(stamps):
        return ""
    return hashlib.sha256(";".join(stamps).encode()).hexdigest()
