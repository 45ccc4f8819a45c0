"""Read and write files of a header and arrays: one checksummed .npz each, never a pickle.

A file is written whole or not at all. The comment that ends the archive holds the sha256 of all
bytes before it, so no bit of the file can change unnoticed, and every reader of .npz files still
takes it.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from ..core.additive import Array
from ..core.validation import brief
from ..errors import (
    DaskEMError,
    ModelFileError,
    ModelNotFoundError,
    UsageError,
    naming,
)
from ..version import __version__
from .object_store import LARGEST_MODEL, read_bytes
from .outputs.writer import output_file
from .urls import is_url

FORMAT_VERSION = 3

KIND = "dask_em model"

# Versions of the format beside this one that can be read, by the kind of the file.
OLDER = {KIND: (2,)}

HEADER = "header"

# Names in the header of what every file has.
RESERVED = ("format_version", "kind", "dask_em")


@dataclass(frozen=True)
class Limits:
    """Sizes beyond which a file is refused before it is unpacked: it would take long."""

    members: int
    header_bytes: int


# A record of 250 bytes a pass; an array for each field of a few mixtures.
LIMITS = {KIND: Limits(1000, 32 * 2**20)}

# Checkpoints of sweeps hold many models.
OTHER_LIMITS = Limits(100_000, 256 * 2**20)

# In the archive's list a member takes 46 bytes and its name; no name of ours is half as long.
LISTED_BYTES = 400

SEAL, DIGEST_BYTES = b"dask_em sha256 ", 64


class DamagedError(Exception):
    """A file's checksum is not that of its bytes."""


class FormatError(ModelFileError):
    """A whole file, but of a version or of records that this program does not read."""


def _seal(file: BinaryIO) -> None:
    """End an archive with the sha256 of all its other bytes, as the archive's comment."""
    # The last two bytes of an archive are the length of its comment, none so far.
    file.seek(-2, os.SEEK_END)
    file.write((len(SEAL) + DIGEST_BYTES).to_bytes(2, "little") + SEAL)
    size = file.tell()
    file.write(_digest(file, size))


def _check_seal(file: BinaryIO, size: int) -> None:
    """Raise unless a file ends with the sha256 of all its other bytes."""
    end = size - DIGEST_BYTES
    file.seek(max(0, end - len(SEAL)))
    if file.read(len(SEAL)) != SEAL:
        raise ValueError("it does not end with its checksum")
    if file.read() != _digest(file, end):
        raise DamagedError


def _digest(file: BinaryIO, end: int) -> bytes:
    """Return the sha256 of the first `end` bytes, in hexadecimal; leave the file at its end."""
    digest = hashlib.sha256()
    file.seek(0)
    while (left := end - file.tell()) > 0:
        part = file.read(min(left, 2**20))
        if not part:
            raise EOFError("it ends too early")
        digest.update(part)
    file.seek(0, os.SEEK_END)
    return digest.hexdigest().encode()


def write_arrays(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    arrays: Mapping[str, Array],
    overwrite: bool = False,
    kind: str = KIND,
) -> None:
    """Write a header and arrays to one file: all of it, or the old file stays.

    Parameters
    ----------
    path : path, or URL of an object store
    header : mapping
        Whatever JSON holds; `format_version`, `kind` and `dask_em`, the version of this
        package, are added.
    arrays : mapping of str to array
    overwrite : bool
        False raises `OutputExistsError` where there is a file.
    kind : str
        What the file is, for whoever reads it.

    Raises
    ------
    UsageError
        It would be larger than any file that is read, or there is no such folder.
    OutputExistsError
        The file is there, and `overwrite` is False.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "file.npz")
    ...     write_arrays(path, {"name": "x"}, {"a": np.arange(3)}, kind="example")
    ...     header, arrays = read_arrays(path, kind="example")
    >>> header["name"], arrays["a"]
    ('x', array([0, 1, 2]))
    """
    write = file_writer(path, header, arrays, kind)
    with output_file(path, overwrite) as output, output.open() as file:
        write(file)


def file_writer(
    path: str | os.PathLike[str], header: Mapping[str, Any], arrays: Mapping[str, Array], kind: str
) -> Callable[[BinaryIO], None]:
    """Return a function that writes to an open file what `write_arrays` writes to `path`.

    Raises
    ------
    UsageError
        It would be larger than any file that is read.
    """
    full = {**header, "format_version": FORMAT_VERSION, "kind": kind, "dask_em": __version__}
    text = json.dumps(full, sort_keys=True)
    _check_size(path, len(text) + sum(np.asarray(a).nbytes for a in arrays.values()), UsageError)
    limits = LIMITS.get(kind, OTHER_LIMITS)
    if len(text) > limits.header_bytes or len(arrays) >= limits.members:
        raise UsageError(
            f"{path}: a header of {len(text)} bytes and {len(arrays)} arrays, and no file of more "
            f"than {limits.header_bytes} and {limits.members - 1} is read"
        )

    def write(file: BinaryIO) -> None:
        np.savez(
            file, allow_pickle=False, **{HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
        )
        _seal(file)

    return write


def read_arrays(
    path: str | os.PathLike[str], kind: str = KIND, data: bytes | None = None
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the header and the arrays of a file, after its checksum was verified.

    Never takes more memory than the file has bytes.

    Parameters
    ----------
    path : path, or URL of an object store
    kind : str
        What the file must be.
    data : bytes, optional
        All of the file, where it is at hand.

    Raises
    ------
    ModelFileError
        Not one of ours, or damaged; `ModelNotFoundError` where there is no such file, and
        `FormatError` where it is whole, and of a format that is not read.
    StoreError
        It lies in an object store that cannot be reached, or refuses.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "file.npz")
    ...     write_arrays(path, {"name": "x"}, {"a": np.arange(3)}, kind="example")
    ...     header, arrays = read_arrays(path, kind="example")
    >>> header["kind"], header["name"], arrays["a"].tolist()
    ('example', 'x', [0, 1, 2])
    """
    noun = kind.removeprefix("dask_em ")
    try:
        with _opened(path) if data is None else io.BytesIO(data) as file:
            size = file.seek(0, os.SEEK_END)
            _check_size(path, size, ModelFileError)
            _check_seal(file, size)
            contents = _members(file, size, LIMITS.get(kind, OTHER_LIMITS))
        header = json.loads(contents.pop(HEADER).tobytes().decode())
        found, version = header["kind"], header["format_version"]
        writer = header.get("dask_em")
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}: no such {noun} file") from None
    except IsADirectoryError:
        raise ModelNotFoundError(f"{path}: no such {noun} file, but a folder") from None
    except DamagedError as e:
        wrong = "its checksum does not match its contents: it is damaged"
        raise ModelFileError(f"{path}: {wrong}") from e
    except DaskEMError:
        raise
    except (OSError, ValueError, LookupError, TypeError, EOFError, AttributeError) as e:
        if isinstance(e, OSError) and e.errno == errno.EIO:
            # The disk, not the file.
            with naming(path):
                raise
        raise ModelFileError(f"{path}: not a whole dask_em {noun} file ({e})") from e
    except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, MemoryError) as e:
        raise ModelFileError(f"{path}: not a whole dask_em {noun} file ({e})") from e
    if found != kind:
        raise ModelFileError(f"{path}: a file of kind {brief(found)}, expected {kind!r}")
    _check_version(path, kind, version, writer)
    return header, contents


def _check_version(
    path: str | os.PathLike[str], kind: str, version: object, writer: object
) -> None:
    if version == FORMAT_VERSION and not isinstance(writer, str):
        raise ModelFileError(
            f"{path}: dask_em is {brief(writer)}, expected the version that wrote it"
        )
    reads = (*OLDER.get(kind, ()), FORMAT_VERSION)
    if type(version) is not int or version not in reads:
        by = f" by dask_em {writer:.20}" if isinstance(writer, str) else ""
        raise FormatError(
            f"{path}: format version {brief(version)}, written{by}, and this dask_em "
            f"({__version__}) reads version {' and '.join(map(str, reads))}: open it with the "
            "dask_em that wrote it"
        )


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file, or the bytes of an object."""
    if not is_url(path):
        return Path(path).open("rb")
    return io.BytesIO(read_bytes(os.fspath(path), LARGEST_MODEL))


def _check_size(path: str | os.PathLike[str], size: int, error: type[DaskEMError]) -> None:
    if size > LARGEST_MODEL:
        raise error(f"{path} takes {size} bytes, and no file of more than {LARGEST_MODEL} is read")


class _Directory(io.RawIOBase):
    """A file of which no more is read at a time than its list of members may take.

    `zipfile` reads that list at once and makes an object of each entry, whatever their number.
    """

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        if size > self._most:
            raise ValueError(f"the list of its parts takes {size} bytes")
        return self._file.read(size)


def _members(file: BinaryIO, size: int, limits: Limits) -> dict[str, Array]:
    """Return the arrays of an archive that holds no more than it may, and than it says."""
    # Beside the list, the end of the archive is looked for in its last 64 KiB.
    with zipfile.ZipFile(_Directory(file, max(2**17, limits.members * LISTED_BYTES))) as archive:
        members = archive.infolist()
    if len(members) > limits.members or len({m.filename for m in members}) < len(members):
        raise ValueError(f"it has {len(members)} parts, or two of one name")
    # What was packed could unpack to any size; `write_arrays` packs nothing.
    if any(m.compress_type != zipfile.ZIP_STORED for m in members):
        raise ValueError("it is compressed")
    if sum(m.file_size for m in members) > size:
        raise ValueError("its parts claim to be larger than the file")
    if any(m.filename == f"{HEADER}.npy" and m.file_size > limits.header_bytes for m in members):
        raise ValueError(f"its header takes more than {limits.header_bytes} bytes")
    with zipfile.ZipFile(file) as archive:
        return {m.filename.removesuffix(".npy"): _member(archive, m) for m in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Return one array, after its type and size were compared with the bytes that are there."""
    with archive.open(member) as file:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = read[npy.read_magic(file)](file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{brief(member.filename)} is of another size than it claims")
        if dtype.kind not in "biufU" or max(shape, default=0) > 2**40:
            raise ValueError(f"{brief(member.filename)} is of a type or shape that no file holds")
    with archive.open(member) as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))
