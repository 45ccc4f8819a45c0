"""Checks of this process and its disk: versions, extras, BLAS, room for checkpoints."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections import Counter
from collections.abc import Mapping
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path

import dask.config
from packaging.requirements import Requirement
from threadpoolctl import threadpool_info

from ...backends.blas import one_blas_thread
from ...core.partial_sums import partial_bytes
from ...core.protocols import StoredSource
from ...core.tuning import tuning
from ...data.open import is_table_path
from ...errors import StoreError, UsageError
from ...storage.checkpoint import GENERATIONS
from ...storage.object_store import check_bucket, check_writable, is_object_url
from ...storage.outputs.files import write_durably
from ...storage.urls import describe_url, is_url
from ..plan import Plan, mebibytes

# Here and on every worker these must be the same: what is sent between them, or the bits.
SAME = ("dask-em", "dask", "distributed", "numpy", "scipy", "zarr", "numba")

# Each extra and the module that it brings.
EXTRAS = {
    "fast": "numba",
    "fsspec": "fsspec",
    "gpu": "cupy",
    "plot": "matplotlib",
    "s3": "obstore",
    "table": "pyarrow",
    "xarray": "xarray",
}

# One file of what a fit knows after a pass, in units of its parameters and its sums: the
# states that it looks back on are among them. Measured: 6.0 to 6.6 where they are large.
STATES = 8


def versions_here() -> str:
    """Check the versions of this process against the requirements of the package."""
    wrong = []
    for line in _requirements():
        wanted = Requirement(line)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        found = version_here(wanted.name)
        if found is None or not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found or 'is missing'} (needs {wanted.specifier})")
    if wrong:
        raise UsageError(f"{', '.join(wrong)}: install again: pip install --upgrade dask-em")
    found = ", ".join(f"{name} {version_here(name)}" for name in SAME if version_here(name))
    return f"{found}, Python {platform.python_version()}"


def _requirements() -> list[str]:
    try:
        return metadata.requires("dask-em") or []
    except metadata.PackageNotFoundError:
        # Run from a folder where nothing was installed.
        return []


def version_here(package: str) -> str | None:
    """Return the version of an installed package; None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def extras_here(data: str | None) -> str:
    """Check that the extras installed can be imported, and that those `data` needs are there."""
    needed = set()
    if data is not None and is_url(data):
        needed.add("s3" if is_object_url(data) else "fsspec")
    if data is not None and is_table_path(data):
        needed.add("table")
    if dask.config.get("dask_em.fast", False):
        needed.add("fast")
    there: list[str] = []
    absent: list[str] = []
    wrong: list[str] = []
    for extra, module in EXTRAS.items():
        if find_spec(module) is None:
            (wrong if extra in needed else absent).append(extra)
            continue
        try:
            import_module(module)
        except Exception as e:
            # Whatever a package raises that does not fit the others.
            raise UsageError(
                f"{module} is installed but does not import ({type(e).__name__}: {e}): "
                f"pip install --upgrade 'dask-em[{extra}]', or uninstall {module}"
            ) from e
        there.append(extra)
    if wrong:
        raise UsageError(
            f"{', '.join(wrong)} needed here and not installed: pip install "
            f"'dask-em[{','.join(wrong)}]', here and on every worker"
        )
    found = f"installed: {', '.join(there) or 'none'}"
    if absent:
        names = ",".join(absent)
        found += f"; not needed here: {', '.join(absent)} (pip install 'dask-em[{names}]')"
    return found


def blas_here() -> str:
    """Check that BLAS can be held to one thread in this process."""
    return blas_line({"here": held_blas()})


def held_blas() -> list[tuple[str, int, int]]:
    """List each BLAS of this process: name, threads within a pass, threads outside."""
    outside = {lib["filepath"]: lib["num_threads"] for lib in threadpool_info()}
    with one_blas_thread():
        return [
            (
                " ".join(str(lib.get(part) or "") for part in ("internal_api", "version"))
                + (f" for {lib['architecture']}" if lib.get("architecture") else ""),
                int(lib["num_threads"]),
                int(outside.get(lib["filepath"], 1)),
            )
            for lib in threadpool_info()
            if lib["user_api"] == "blas"
        ]


def blas_line(found: Mapping[str, list[tuple[str, int, int]]]) -> str:
    """Check the BLAS of some processes; return one line about all of them."""
    for place, libraries in found.items():
        free = [name for name, within, _ in libraries if within != 1]
        if free or not libraries:
            raise UsageError(
                f"{place}: {', '.join(free) or 'BLAS'} cannot be held to one thread: start the "
                "processes with OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1"
            )
    kinds = Counter(name for libraries in found.values() for name, _, _ in libraries)
    outside = max(n for libraries in found.values() for _, _, n in libraries)
    text = f"one thread within a pass ({outside} outside): {', '.join(sorted(kinds))}"
    if len({tuple(sorted(name for name, _, _ in libs)) for libs in found.values()}) > 1:
        text += "; these differ between workers, so the last digits depend on who computes"
    return text


def describe_disk(folder: str, source: StoredSource | None, planned: Plan | None) -> str:
    """Check that a folder can be written durably, and has room for checkpoints."""
    if is_url(folder):
        check_writable(folder)
        check_bucket(folder)
        return f"{describe_url(folder)} is in a bucket that answers"
    path = Path(folder)
    while not path.exists() and path != path.parent:
        # A checkpoint's own folder is made when there is something to keep.
        path = path.parent
    if not path.is_dir():
        raise UsageError(f"--checkpoint {folder}: {path} is a file; expected a folder")
    probe = path / f".dask-em-doctor.{socket.gethostname()}.{os.getpid()}"
    try:
        # Written, synced and renamed as checkpoints are.
        write_durably(probe, b"x")
    finally:
        probe.unlink(missing_ok=True)
    free = shutil.disk_usage(path).free
    if source is None or planned is None:
        return f"{path.absolute()} can be written; {mebibytes(free)} free"
    needed = checkpoint_bytes(source, planned)
    text = f"{path.absolute()} has {mebibytes(free)} free, checkpoints take up to "
    text += mebibytes(needed)
    if free < needed:
        raise StoreError(f"{text}: make room, or pass --checkpoint FOLDER of another disk")
    return text


def checkpoint_bytes(source: StoredSource, planned: Plan) -> int:
    """Compute an upper bound of the bytes that an unfinished fit takes on the disk."""
    sample = min(tuning().sample.bytes, 8 * source.n_rows * (source.n_features + 2))
    log = 16 * source.n_chunks
    state = STATES * (planned.parameter_bytes + planned.statistics_bytes)
    kept = partial_bytes(len(source.ranges()), planned.statistics_bytes)
    # A file is written before the one that it replaces is removed.
    return sample + log + (GENERATIONS + 1) * state + 2 * kept + 2**20
