"""Comparison of the software of all workers of a cluster with that of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import WorkerError
from ..software import Software, other_digits, refuse_other, software_here

if TYPE_CHECKING:
    from distributed import Client


def compare_workers(client: Client, here: Software) -> dict[str, str]:
    """Hold all workers to the software of this process, as each of their tasks does.

    Returns
    -------
    dict of str to str
        Addresses of the workers that round the last digits otherwise, with their computers.

    Raises
    ------
    WorkerError
        It names a worker with other software, or without what could tell.
    """
    found = client.run(software_here, bool(here["numba"]), on_error="return")
    unlike = {}
    for worker, there in sorted(found.items()):
        if isinstance(there, Exception):
            raise WorkerError(
                f"worker {worker} has no dask_em {here['dask_em']} that works ({there!r}): install "
                "the same versions here and on every worker, and start the workers anew"
            ) from there
        refuse_other(here, there, worker)
        if other_digits(here, there):
            unlike[worker] = there["computer"]
    return unlike
