"""The software and the processor of a process, which decide the bits that it computes."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_info

from ..core.engine import compiler
from ..errors import WorkerError
from ..machine import processor
from ..version import __version__
from .blas import one_blas_thread

PACKAGE = Path(__file__).parents[1]

# Workers that a sentence names.
MOST_NAMED = 3

BLAS_PARTS = ("internal_api", "version", "architecture")

Software = dict[str, str]
"""The parts that decide the bits of a process: sent with tasks, compared by workers.

No class, so that a worker of any version can read it:

dask_em, numpy, numba
    Versions. That of Numba is empty where Numba computes nothing.
code
    sha256 of the package's files, which tells copies of one version apart in which somebody has
    edited something. Empty where they are no files.
digits
    sha256 of products, factors and functions that the process computed, and for which vectors
    Numba compiles. All choose their loops by the processor, and loops that add in another order
    round otherwise.
computer
    Processor and libraries, for people.
"""


@cache
def software_here(numba: bool) -> Software:
    """Return what decides the bits of this process, where Numba computes or does not.

    It takes some milliseconds, once a process.

    Examples
    --------
    >>> software_here(numba=False)["dask_em"] == __version__
    True
    """
    version, vectors = compiler() if numba else ("", "")
    return {
        "dask_em": __version__,
        "numpy": np.__version__,
        "numba": version,
        "code": _code(),
        "digits": _digits() + vectors,
        "computer": _computer(),
    }


def refuse_other(here: Software, there: Software, worker: str) -> None:
    """Raise where a worker runs another program than the process that sends it tasks.

    Versions of dask_em and Numba must be the same, and of NumPy the first two numbers: with the
    second its random numbers may become others. What else differs is seen by the digits that
    come of it, of which `other_digits` tells.

    Parameters
    ----------
    here, there : Software
        Of the process that sends tasks, and of the worker.
    worker : str
        Its name for people.

    Raises
    ------
    WorkerError
        It names the worker, its versions and those of here.

    Examples
    --------
    >>> here = software_here(numba=False)
    >>> refuse_other(here, here, "tcp://10.0.0.7:41231")
    >>> refuse_other(here, here | {"dask_em": "0.0.9"}, "tcp://10.0.0.7:41231")
    Traceback (most recent call last):
        ...
    dask_em.errors.WorkerError: worker tcp://10.0.0.7:41231 has dask_em 0.0.9 and here is ...
    """
    if there == here:
        return
    wrong = [
        f"{name} {theirs} and here is {ours}"
        for name, theirs, ours in _programs(here, there)
        if theirs != ours
    ]
    if wrong:
        raise WorkerError(
            f"worker {worker} has {'; it has '.join(wrong)}, so it would compute other numbers: "
            "install the same versions here and on every worker, and start the workers anew"
        )


def _programs(here: Software, there: Software) -> Iterator[tuple[str, str, str]]:
    """Yield names of what must be the same, and what it is there and here."""
    ours, theirs = here["dask_em"], there.get("dask_em", "unknown")
    yield "dask_em", theirs, ours
    codes = there.get("code", ""), here["code"]
    if theirs == ours and all(codes):
        there_edited, here_edited = (f"{ours} of the files {code[:8]}" for code in codes)
        yield "dask_em", there_edited, here_edited
    yield "NumPy", _feature_release(there.get("numpy", "")), _feature_release(here["numpy"])
    if here["numba"]:
        yield "Numba", there.get("numba") or "not installed", here["numba"]


def _feature_release(version: str) -> str:
    return ".".join(version.split(".")[:2])


def other_digits(here: Software, there: Software) -> bool:
    """Return whether two processes that run the same program round differently."""
    return here["digits"] != there["digits"]


def describe_workers(workers: Mapping[str, str]) -> dict[str, str]:
    """Say of each kind of computer that its workers round otherwise than this process.

    Parameters
    ----------
    workers : mapping of str to str
        Addresses, and the `computer` of each.

    Returns
    -------
    dict of str to str
        A sentence for each `computer`.

    Examples
    --------
    >>> print(*describe_workers({"tcp://10.0.0.7:41231": "AMD EPYC, openblas Zen"}).values())
    worker tcp://10.0.0.7:41231 (AMD EPYC, openblas Zen) rounds the last digits otherwise than ...
    """
    kinds: dict[str, list[str]] = {}
    for worker, computer in workers.items():
        kinds.setdefault(computer, []).append(worker)
    return {computer: _sentence(found, computer) for computer, found in kinds.items()}


def _sentence(workers: Collection[str], computer: str) -> str:
    some = sorted(workers)[:MOST_NAMED]
    more = f" and {len(workers) - len(some)} more" if len(workers) > len(some) else ""
    one = len(workers) == 1
    return (
        f"worker{'' if one else 's'} {', '.join(some)}{more} ({computer}) "
        f"round{'s' if one else ''} the last digits otherwise than this process "
        f"({software_here(numba=False)['computer']}), so the last digits of a result depend on who "
        "computes what: for the same bits each time use processors of one kind, with the same "
        "NumPy"
    )


def _code() -> str:
    found = hashlib.sha256()
    files = sorted(PACKAGE.rglob("*.py"))
    for file in files:
        found.update(file.relative_to(PACKAGE).as_posix().encode())
        found.update(file.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest() if files else ""


def _digits() -> str:
    # With it comes SciPy's BLAS, which is then held to one thread too.
    from ..core.digits import digest_of_digits

    with one_blas_thread():
        return digest_of_digits()


def _computer() -> str:
    blas = [lib for lib in threadpool_info() if lib["user_api"] == "blas"]
    # SciPy may have brought another one, or is not imported yet.
    blas = [lib for lib in blas if "numpy" in lib["filepath"]] or blas
    names = {" ".join(str(lib.get(part) or "") for part in BLAS_PARTS) for lib in blas}
    return ", ".join([processor(), f"NumPy {np.__version__}", *sorted(names)])
