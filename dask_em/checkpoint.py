"""Files of results: one checksummed .npz each, never a pickle, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .em import EMState, Status
from .errors import ModelFileError, OutputExistsError
from .families.base import Engine
from .families.covariance import STRUCTURES
from .families.gaussian import Gaussian, GaussianStatistics
from .frame import Frame
from .mixture import Mixture, MixtureStatistics
from .sinks import sync
from .statistics import Array

FORMAT_VERSION = 1
KIND = "dask_em model"
HEADER = "header"


def _checksum(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}:".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_arrays(
    path: str | os.PathLike[str],
    header: Mapping[str, Any],
    arrays: Mapping[str, Array],
    overwrite: bool = True,
) -> None:
    """Write a header and arrays to one file: all of it, or the old file stays.

    The bytes go to a temporary file beside `path`, are synced to the disk and
    renamed over it, and the folder is synced.

    Parameters
    ----------
    path : path
    header : mapping
        Whatever JSON holds; `format_version`, `kind` and `sha256` are added.
    arrays : mapping of str to array
    overwrite : bool
        False raises `OutputExistsError` where there is a file.
    """
    path = Path(path)
    if not overwrite and path.exists():
        raise OutputExistsError(f"{path} exists; choose another name or ask to overwrite it")
    full = {**header, "format_version": FORMAT_VERSION, "kind": KIND}
    text = json.dumps({**full, "sha256": _checksum(full, arrays)}, sort_keys=True)
    contents: dict[str, Any] = {HEADER: np.frombuffer(text.encode(), dtype=np.uint8), **arrays}
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


def read_arrays(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a file, after its checksum was verified.

    Raises
    ------
    ModelFileError
        No such file, not one of ours, of a newer format, or damaged.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            contents = {name: file[name] for name in file.files}
        header = json.loads(contents.pop(HEADER).tobytes().decode())
        kind, version = header["kind"], header["format_version"]
        claimed = header.pop("sha256")
    except (FileNotFoundError, IsADirectoryError):
        raise ModelFileError(f"{path}: no such model file") from None
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError) as e:
        raise ModelFileError(f"{path}: not a whole dask_em model file ({e})") from e
    except (zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError, MemoryError) as e:
        raise ModelFileError(f"{path}: not a whole dask_em model file ({e})") from e
    if kind != KIND:
        raise ModelFileError(f"{path}: a file of kind {kind!r}, expected {KIND!r}")
    if version != FORMAT_VERSION:
        raise ModelFileError(
            f"{path}: format version {version}, and this dask_em reads version "
            f"{FORMAT_VERSION}: open it with the dask_em that wrote it"
        )
    if _checksum(header, contents) != claimed:
        raise ModelFileError(f"{path}: its checksum does not match its contents: it is damaged")
    return header, contents


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
