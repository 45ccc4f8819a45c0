"""How messages are provoked, and how their own words are followed."""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import LocalCluster
from distributed.security import Security
from helpers import HANG, blobs, write_zarr
from object_stores import environment, s3_server

from advice.messages import Message
from dask_em import GaussianMixture
from dask_em.cli.main import main
from dask_em.jobs import adapt as adapt_jobs
from dask_em.jobs import compare as compare_jobs
from dask_em.jobs import plan as plan_jobs
from dask_em.jobs import predict as predict_jobs
from dask_em.jobs import report as report_jobs
from dask_em.jobs import score as score_jobs
from dask_em.jobs import update as update_jobs


@dataclass(frozen=True)
class Followed:
    """A message, known by some of its words: how it comes, and what follows each advice.

    Attributes
    ----------
    words : str
        A part of the message in the source, and of no other in its file.
    provoke : callable
        Causes the fault, and returns what is said of it.
    follow : mapping
        The advice as it is said, a regular expression, and what does so: it is given the words
        that matched (of a group if there is one), and returns what is said then. An advice that
        works says nothing: neither an error nor a warning.
    place : str
        The file that says so, where several say the same.
    """

    words: str
    provoke: Callable[[Here], str]
    follow: Mapping[str, Callable[[Here, str], str]]
    place: str = ""

    def is_of(self, message: Message) -> bool:
        """Whether this is the row of a message."""
        return self.words in message.text and message.place.startswith(self.place)


# -- where -------------------------------------------------------------------------------


class Services:
    """What some messages need: started when the first asks, stopped after the last."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack, self._folder = stack, folder

    @cached_property
    def plain(self) -> str:
        """The address of a scheduler."""
        return self._cluster(protocol="tcp")

    @cached_property
    def encrypted(self) -> str:
        """The address of a scheduler that speaks TLS."""
        files = self.certificate
        return self._cluster(
            protocol="tls",
            security=Security(
                require_encryption=True,
                tls_ca_file=files["ca-file"],
                **{f"tls_{role}_cert": files["cert"] for role in ROLES},
                **{f"tls_{role}_key": files["key"] for role in ROLES},
            ),
        )

    @cached_property
    def certificate(self) -> dict[str, str]:
        """Files: what signed a certificate (`ca-file`), itself (`cert`), and its `key`."""
        pytest.importorskip("cryptography", reason="cryptography is not installed")
        made = Security.temporary()
        texts = {"ca-file": made.tls_ca_file, "cert": made.tls_client_cert,
                 "key": made.tls_client_key}  # fmt: skip
        for name, text in texts.items():
            (self._folder / name).write_text(text)
        return {name: str(self._folder / name) for name in texts}

    @cached_property
    def bucket(self) -> str:
        """The URL of a bucket, which this process can write to."""
        endpoint = self._stack.enter_context(s3_server("bucket"))
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in environment(endpoint).items():
            patch.setenv(name, value)
        return "s3://bucket"

    def _cluster(self, **options: Any) -> str:
        cluster = LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0", **options
        )
        self._stack.enter_context(cluster)
        return str(cluster.scheduler_address)


ROLES = ("client", "worker", "scheduler")


@dataclass(frozen=True)
class Here:
    """A folder of a test's own, and the services of all."""

    folder: Path
    services: Services

    def path(self, name: str) -> Path:
        return self.folder / name


# -- rows, and models --------------------------------------------------------------------

X = blobs(400, 2, 2, apart=6.0)[0]
OVERLAPPING = blobs(400, 2, 2, apart=1.2)[0]


def fit(rows: Any = X, **options: Any) -> GaussianMixture:
    return GaussianMixture(**{"n_components": 2, "random_state": 0, **options}).fit(rows)


def stored(here: Here, rows: np.ndarray = X, name: str = "x.zarr") -> Path:
    """Rows in a store, in chunks of a hundred."""
    if not here.path(name).exists():
        write_zarr(here.path(name), rows, 100)
    return here.path(name)


def saved(here: Here, **options: Any) -> Path:
    """The file of a model of the rows that are stored."""
    if not here.path("m.npz").exists():
        fit(stored(here), **options).save(here.path("m.npz"))
    return here.path("m.npz")


# -- what is said ------------------------------------------------------------------------


def said(act: Callable[[], object]) -> str:
    """What an act warns of, or is refused with; rows that are left out as asked are counted."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            act()
        except Exception as e:
            return " ".join([str(e), *getattr(e, "__notes__", [])])
    found = [str(w.message) for w in caught]
    return " ".join(text for text in found if "were left out of the fit" not in text)


def refused(act: Callable[[], object]) -> str:
    """What an act is refused with, whatever it warns of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
        except Exception as e:
            return str(e)
    return ""


def logged(act: Callable[[], object]) -> str:
    """The lines that an act logs."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("dask_em"), Kept()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        act()
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    return "\n".join(lines)


def printed(*words: object) -> tuple[int, str]:
    """The exit code of the program in this process, and all that it prints."""
    result = CliRunner().invoke(main, [*map(str, words)])
    return result.exit_code, result.output


@contextmanager
def without_cluster() -> Iterator[None]:
    """Let the program compute in this thread, whatever cluster it is told to start."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler="synchronous"):
        several = adapt_jobs, compare_jobs, plan_jobs, predict_jobs, report_jobs, score_jobs
        for jobs in (*several, update_jobs):
            patch.setattr(jobs, "workers_for", lambda where, nbytes: nullcontext())
        yield


def program(*words: object, never: str = "") -> str:
    """What the program says, without a cluster; nothing where all was well.

    All is well where it ends so, and does not say what is `never` to be said.
    """
    with without_cluster():
        code, text = printed(*words)
    return "" if code == 0 and not (never and never in text) else text


def connected(*words: object, never: str = "") -> str:
    """The same, with the cluster that it is told of."""
    code, text = printed(*words)
    return "" if code == 0 and not (never and never in text) else text


# -- words that are followed -------------------------------------------------------------


def keywords(words: str) -> dict[str, Any]:
    """The arguments that a message shows, as Python reads them."""
    found: dict[str, Any] = eval(f"dict({words})", {})
    return found


def code(words: str, **names: Any) -> Any:
    """What the code that a message shows comes to."""
    return eval(words, {"np": np, "zarr": zarr, **names})


def options(words: str) -> list[str]:
    """The options that a message shows, as a shell reads them."""
    return shlex.split(words)


def each_of(words: str) -> list[str]:
    """The words of a list."""
    return re.split(r", | or ", words)


# -- packages ----------------------------------------------------------------------------


@contextmanager
def hidden(package: str) -> Iterator[None]:
    """Take a package away from this process, as if it were not installed."""
    pytest.importorskip(package)
    with pytest.MonkeyPatch.context() as patch:
        for name in [package, *(n for n in sys.modules if n.startswith(f"{package}."))]:
            patch.setitem(sys.modules, name, None)
        yield


@cache
def pip_says(command: str, path: str = "") -> str:
    """What pip makes of a command, in this environment and without a network."""
    try:
        metadata.version("dask-em")
    except metadata.PackageNotFoundError:
        pytest.skip("dask-em is not installed here")
    words = shlex.split(command)
    assert words[0] == "pip"
    done = subprocess.run(
        [sys.executable, "-m", *words, "--dry-run", "--no-index", "--no-input"],
        env={**os.environ, "PYTHONPATH": path}, cwd=tempfile.gettempdir(),
        capture_output=True, text=True, timeout=HANG, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def pip_brings(package: str, command: str, path: str = "") -> str:
    """Nothing where a command of pip asks for a package, else what pip says."""
    text = pip_says(command, path)
    asked = re.search(rf"(already satisfied: |requirement |for ){package}\b", text)
    return "" if asked and "does not provide the extra" not in text else text


def installing(package: str, act: Callable[[Here], str]) -> Callable[[Here, str], str]:
    """Follow a command of pip, and act again."""
    return lambda here, command: pip_brings(package, command) or act(here)
