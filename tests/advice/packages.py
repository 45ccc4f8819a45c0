"""Advice to install something: pip is asked what it would install, and then that is there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import dask
import pytest

from advice.following import (
    Followed,
    Here,
    X,
    fit,
    hidden,
    installing,
    logged,
    pip_brings,
    program,
    said,
    saved,
    stored,
)
from dask_em import plots
from dask_em.backends.dask.config import _log_that_numba_is_missing
from dask_em.jobs.checks.machine import extras_here, versions_here

PIP = r"pip install (?:--upgrade )?(?:'[^']+'|dask-em)"


def without(package: str, act: Callable[[Here], str]) -> Callable[[Here], str]:
    """Act as if a package were not installed."""

    def lacking(here: Here) -> str:
        with hidden(package):
            return act(here)

    return lacking


def numba_logged(here: Here) -> str:
    """What a fit logs of Numba."""
    _log_that_numba_is_missing.cache_clear()
    lines = logged(lambda: fit(X)).splitlines()
    return "\n".join(line for line in lines if "Numba is not installed" in line)


def fit_with_numba(here: Here) -> str:
    with dask.config.set({"dask_em.fast": True}):
        return said(lambda: fit(stored(here)))


def fit_with(here: Here, words: str) -> str:
    """Set the option that a message names, where there is no Numba."""
    name, value = words.split(" to ")
    with hidden("numba"), dask.config.set({name: {"false": False}[value]}):
        return said(lambda: fit(stored(here)))


def reported(here: Here) -> str:
    return program("report", saved(here), here.path("r.html"), "--overwrite")


def exported(here: Here) -> str:
    return program("export", saved(here), "--onnx", here.path("m.onnx"), "--overwrite")


def drawn(here: Here) -> str:
    """What is said of a picture in a figure of its own."""
    return said(lambda: plots.weights(fit(X)))


def toured(here: Here) -> str:
    """What the tour says of pictures."""
    return program("demo", here.path("tour"), "--rows", 2000, "--overwrite", never="no picture")


def in_memory_of_fsspec(here: Here) -> str:
    """What is said of a store at a URL that fsspec knows."""
    import fsspec
    import zarr

    url = f"memory://{here.folder.name}/x.zarr"
    if not fsspec.filesystem("memory").exists(f"/{here.folder.name}/x.zarr"):
        zarr.create_array(url, data=X, chunks=(100, 2))
    return said(lambda: fit(url))


def opened(here: Here) -> str:
    return said(lambda: fit(f"memory://{here.folder.name}/x.zarr"))


def extras(needed: str) -> Callable[[Here], str]:
    """What the doctor says of the extras, where some are needed."""

    def look(here: Here) -> str:
        with dask.config.set({"dask_em.fast": needed == "fast"}):
            return said_of(extras_here, None)

    return look


def said_of(check: Callable[..., str], *arguments: object) -> str:
    """What a check says, or is ended with."""
    try:
        return check(*arguments)
    except ValueError as e:
        return str(e)


def not_needed(here: Here) -> str:
    """What the doctor says of extras that are not there."""
    return said_of(extras_here, None)


def old_version(here: Here) -> Path:
    """A folder of packages in which an old click is installed."""
    info = here.path("packages/click-0.1.dist-info")
    if not info.exists():
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: click\nVersion: 0.1\n")
        (info / "INSTALLER").write_text("pip\n")
        (info / "RECORD").write_text("")
    return info.parent


def with_old_version(here: Here) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(old_version(here))
        return said_of(versions_here)


def upgraded(here: Here, command: str) -> str:
    """What pip would change there; then the versions of this environment."""
    asked = pip_brings("click", command, str(old_version(here)))
    found = said_of(versions_here)
    return asked or ("" if found.startswith("dask-em ") else found)


def broken(here: Here) -> Path:
    """A folder of packages in which obstore cannot be imported."""
    package = here.path("packages/obstore")
    package.mkdir(parents=True, exist_ok=True)
    (package / "__init__.py").write_text("raise RuntimeError('of another Python')")
    return package.parent


def with_broken(here: Here) -> str:
    pytest.importorskip("obstore", reason="the extra `s3` is not installed")
    import sys

    with pytest.MonkeyPatch.context() as patch:
        for name in [n for n in sys.modules if n.partition(".")[0] == "obstore"]:
            patch.delitem(sys.modules, name)
        patch.syspath_prepend(broken(here))
        return said_of(extras_here, None)


def has_extra(extra: str) -> Callable[[Here], str]:
    """Look whether an extra is there, which is needed."""

    def look(here: Here) -> str:
        found = extras(extra)(here)
        return "" if extra in found.partition(";")[0].removeprefix("installed: ") else found

    return look


def uninstalled(here: Here, words: str) -> str:
    with hidden("obstore"):
        found = said_of(extras_here, None)
    return "" if found.startswith("installed: ") else found


PACKAGES = [
    Followed("Numba is not installed: a pass takes", without("numba", numba_logged), {
        PIP: installing("numba", numba_logged),
    }),
    Followed("the fit was started with Numba", without("numba", fit_with_numba), {
        PIP: installing("numba", fit_with_numba),
        "set (.* to false)": fit_with,
    }),
    Followed("a report needs matplotlib", without("matplotlib", reported), {
        PIP: installing("matplotlib", reported),
    }),
    Followed("an ONNX graph needs onnx", without("onnx", exported), {
        PIP: installing("onnx", exported),
    }),
    Followed("pictures need matplotlib", without("matplotlib", drawn), {
        PIP: installing("matplotlib", drawn),
    }),
    Followed("5. no picture: matplotlib", without("matplotlib", toured), {
        PIP: installing("matplotlib", toured),
    }),
    Followed("install it here and on every worker", without("fsspec", opened), {
        PIP: installing("fsspec", in_memory_of_fsspec),
    }),
    Followed("needed here and not installed", without("numba", extras("fast")), {
        PIP: installing("numba", has_extra("fast")),
    }),
    Followed("; not needed here: {}", without("matplotlib", not_needed), {
        # Of several that are not there, pip says which is the first that it cannot find.
        PIP: installing("(cupy|matplotlib)", has_extra("plot")),
    }),
    Followed("is installed but does not import", with_broken, {
        PIP: installing("obstore", has_extra("s3")),
        "uninstall obstore": uninstalled,
    }),
    Followed("install again: pip install --upgrade dask-em", with_old_version, {PIP: upgraded}),
]  # fmt: skip
