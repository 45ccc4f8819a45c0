"""Where answers go: Zarr arrays beside each other in a group, written chunk by chunk."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import DataError, OutputExistsError
from .statistics import Additive, Array

if TYPE_CHECKING:
    import zarr


@dataclass(frozen=True)
class Written(Additive):
    """How many rows were written."""

    n_rows: int


@dataclass(frozen=True)
class WriteAnswers:
    """The description of a pass that writes an answer for every row.

    The output's chunks begin where the source's do, so no two tasks write the same
    chunk, and a task that runs twice writes the same bytes twice.

    Attributes
    ----------
    answer : callable
        Rows (n, d) -> a dict of arrays that begin with axis n.
    bounds : (n_chunks + 1,) array
        First row of each chunk of the source.
    outputs : mapping of str to zarr.Array
        Where each entry of the dict goes.
    """

    answer: Callable[[Array], dict[str, Array]]
    bounds: Array
    outputs: Mapping[str, zarr.Array[Any]]

    def fold(self) -> AnswerWriter:
        """The writer of one range, before its first chunk."""
        return AnswerWriter(self)


class AnswerWriter:
    """Writes the answers of chunks as they come."""

    def __init__(self, work: WriteAnswers) -> None:
        self.work = work
        self._n_rows = 0

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Write the answers of chunk number `index`."""
        rows = slice(int(self.work.bounds[index]), int(self.work.bounds[index + 1]))
        try:
            answers = self.work.answer(X)
        except DataError as e:
            raise DataError(f"chunk {index} (from row {rows.start}): {e}") from e
        for name, values in answers.items():
            self.work.outputs[name][rows] = values
        self._n_rows += len(X)

    def result(self) -> Written:
        """Rows written so far."""
        return Written(self._n_rows)


def create_outputs(
    path: Path, n_rows: int, chunk_rows: int, kinds: Mapping[str, tuple[int | None, Any]]
) -> dict[str, zarr.Array[Any]]:
    """Empty checksummed Zarr arrays in a new group.

    Parameters
    ----------
    path : Path
    n_rows, chunk_rows : int
    kinds : mapping of str to (columns or None, dtype)
    """
    import zarr
    from zarr.codecs import Crc32cCodec, ZstdCodec

    group = zarr.create_group(path)
    outputs = {}
    for name, (columns, dtype) in kinds.items():
        tail = () if columns is None else (columns,)
        outputs[name] = group.create_array(
            name,
            shape=(n_rows, *tail),
            chunks=(min(chunk_rows, n_rows), *tail),
            dtype=np.dtype(dtype),
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            config={"write_empty_chunks": True},
        )
    return outputs


@contextmanager
def whole_or_nothing(path: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary folder beside `path` that becomes `path` if the block ends well.

    Raises
    ------
    OutputExistsError
        `path` is there and `overwrite` is False.
    """
    check_free(path, overwrite)
    wip = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.wip")
    old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.old")
    try:
        yield wip
        if path.exists():
            check_free(path, overwrite)
            path.rename(old)
        wip.rename(path)
    finally:
        for leftover in (wip, old):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path, overwrite: bool) -> Iterator[None]:
    """A new folder for the block to fill, removed again if the block fails."""
    with whole_or_nothing(path, overwrite) as empty:
        empty.mkdir()
    try:
        yield
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise


def check_free(path: str | os.PathLike[str], overwrite: bool) -> None:
    """Raise `OutputExistsError` where `path` is taken and may not be replaced."""
    if not overwrite and os.path.lexists(path):
        raise OutputExistsError(f"{path} exists; choose another name or pass --overwrite")
