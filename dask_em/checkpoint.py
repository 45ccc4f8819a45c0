"""Files of results: one checksummed .npz each, never a pickle, written whole or not at all."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import math
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .em import EMState, Status
from .errors import ModelFileError, OutputExistsError, StoreError, UsageError
from .families.base import Engine
from .families.covariance import STRUCTURES
from .families.gaussian import Gaussian, GaussianStatistics
from .frame import Frame
from .mixture import Mixture, MixtureStatistics
from .sinks import sync
from .statistics import Array
from .stores import LARGEST_MODEL, is_url, read_bytes, write_bytes

FORMAT_VERSION = 1
KIND = "dask_em model"
HEADER = "header"


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}:".encode())
        # Without a copy, which arrays of many megabytes would notice; NumPy has no buffer
        # of strings and of nothing.
        array = np.ascontiguousarray(array)
        plain = array.size and array.dtype.kind in "fiub"
        digest.update(array.data.cast("B") if plain else array.tobytes())
    return digest.hexdigest()


def write_arrays(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    arrays: Mapping[str, Array],
    overwrite: bool = True,
    kind: str = KIND,
) -> None:
    """Write a header and arrays to one file: all of it, or the old file stays.

    The bytes go to a temporary file beside `path`, are synced to the disk and
    renamed over it, and the folder is synced. An object store takes them at once.

    Parameters
    ----------
    path : path, or URL of an object store
    header : mapping
        Whatever JSON holds; `format_version`, `kind` and `sha256` are added.
    arrays : mapping of str to array
    overwrite : bool
        False raises `OutputExistsError` where there is a file.
    kind : str
        What the file is, for whoever reads it.
    """
    full = {**header, "format_version": FORMAT_VERSION, "kind": kind}
    text = json.dumps({**full, "sha256": _checksum(full, arrays)}, sort_keys=True)
    contents: dict[str, Any] = {HEADER: np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
    if is_url(path):
        whole = io.BytesIO()
        np.savez(whole, allow_pickle=False, **contents)
        write_bytes(os.fspath(path), whole.getvalue(), overwrite)
        return
    path = Path(path)
    if not overwrite and path.exists():
        raise OutputExistsError(f"{path} exists; choose another name or ask to overwrite it")
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **contents)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
        sync(path.parent)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Remove what a writer of the file at `path` left when it was killed.

    Whoever calls this must know that nobody is writing there.
    """
    path = Path(path)
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????.tmp"):
        leftover.unlink(missing_ok=True)


def read_arrays(
    path: str | os.PathLike[str], kind: str = KIND
) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a file, after its checksum was verified.

    Never takes more memory than the file has bytes.

    Raises
    ------
    ModelFileError
        No such file, not one of ours, of a newer format, or damaged.
    StoreError
        It lies in an object store that cannot be reached, or refuses.
    """
    noun = kind.removeprefix("dask_em ")
    try:
        contents = _members(*_opened(path))
        header = json.loads(contents.pop(HEADER).tobytes().decode())
        found, version = header["kind"], header["format_version"]
        claimed = header.pop("sha256")
    except (FileNotFoundError, IsADirectoryError):
        raise ModelFileError(f"{path}: no such {noun} file") from None
    except (StoreError, UsageError):
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError) as e:
        raise ModelFileError(f"{path}: not a whole dask_em {noun} file ({e})") from e
    except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, MemoryError) as e:
        raise ModelFileError(f"{path}: not a whole dask_em {noun} file ({e})") from e
    if found != kind:
        raise ModelFileError(f"{path}: a file of kind {found!r}, expected {kind!r}")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: format version {version}, and this dask_em reads version "
            f"{FORMAT_VERSION}: open it with the dask_em that wrote it"
        )
    if _checksum(header, contents) != claimed:
        raise ModelFileError(f"{path}: its checksum does not match its contents: it is damaged")
    return header, contents


def _opened(path: str | os.PathLike[str]) -> tuple[Any, int]:
    """What holds the bytes of a file, and how many."""
    if not is_url(path):
        return path, Path(path).stat().st_size
    data = read_bytes(os.fspath(path), LARGEST_MODEL)
    return io.BytesIO(data), len(data)


def _members(file: Any, size: int) -> dict[str, Array]:
    """The arrays of an archive that is no larger than it says."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        # What was packed could unpack to any size; `write_arrays` packs nothing.
        if any(m.compress_type != zipfile.ZIP_STORED for m in members):
            raise ValueError("it is compressed")
        if sum(m.file_size for m in members) > size:
            raise ValueError("its parts claim to be larger than the file")
        return {m.filename.removesuffix(".npy"): _member(archive, m) for m in members}


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    with archive.open(member) as file:
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, _, dtype = read[npy.read_magic(file)](file)
        if dtype.hasobject or math.prod(shape) * dtype.itemsize != member.file_size - file.tell():
            raise ValueError(f"{member.filename} is of another size than it claims")
    with archive.open(member) as file:
        return np.asarray(npy.read_array(file, allow_pickle=False))


def state_header(state: EMState) -> dict[str, Any]:
    """What of a state JSON holds; the rest is in `state_arrays`."""
    return {
        "n_iter": state.n_iter,
        "status": state.status.name,
        "accepted": state.accepted,
        "collapsed": list(state.collapsed),
        "covariance_type": state.mixture.components.covariance.kind,
        "ridge": state.mixture.components.ridge,
        "engine": {"name": state.mixture.engine.name, "single": state.mixture.engine.single},
        "n_rows": state.statistics.n_rows,
        "weight": state.statistics.weight,
        "log_likelihood": state.statistics.log_likelihood,
    }


def state_arrays(state: EMState) -> dict[str, Array]:
    """Parameters and statistics of a state, to the bit, by the names in the file."""
    frame, sums = state.mixture.components.frame, state.statistics
    arrays = {
        "frame.shift": frame.shift,
        "frame.scale": frame.scale,
        "statistics.resp_sum": sums.resp_sum,
        "statistics.first": sums.components.first,
        "statistics.scatter": sums.components.scatter,
    }
    for role, mixture in (("state", state.mixture), ("result", state.result)):
        arrays[f"{role}.log_weights"] = mixture.log_weights
        arrays[f"{role}.means"] = mixture.components.means
        arrays[f"{role}.factor"] = mixture.components.covariance.factor
    return arrays


def same_state(one: EMState, other: EMState) -> bool:
    """Whether two states are the same to the bit."""
    if state_header(one) != state_header(other):
        return False
    mine, theirs = state_arrays(one), state_arrays(other)
    return all(np.array_equal(mine[name], theirs[name]) for name in mine)


def read_state(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> EMState:
    """The state that `state_header` and `state_arrays` described."""
    structure = STRUCTURES[header["covariance_type"]]
    frame = Frame(arrays["frame.shift"], arrays["frame.scale"])
    engine = Engine(**header["engine"])
    mixtures = []
    for role in ("state", "result"):
        means, factor = arrays[f"{role}.means"], arrays[f"{role}.factor"]
        components = Gaussian(means, structure(factor), frame, header["ridge"])
        mixtures.append(Mixture(arrays[f"{role}.log_weights"], components, engine))
    sums = GaussianStatistics(arrays["statistics.first"], arrays["statistics.scatter"])
    statistics = MixtureStatistics(
        header["n_rows"],
        header["weight"],
        header["log_likelihood"],
        arrays["statistics.resp_sum"],
        sums,
    )
    return EMState(
        mixtures[0],
        statistics,
        header["n_iter"],
        tuple(header["collapsed"]),
        Status[header["status"]],
        mixtures[1],
        header.get("accepted", True),
    )
