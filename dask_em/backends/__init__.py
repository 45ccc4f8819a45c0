"""Backends: passes are made by this thread, by threads of this process, or by Dask."""

from __future__ import annotations

from ..core.protocols import Backend


def backend_in_force() -> Backend:
    """Return the backend of the Dask scheduler in force.

    That is the current `Client`'s cluster, else what `dask.config` says, else threads of this
    process. Whoever begins a job asks once, and hands the backend on.

    Examples
    --------
    >>> type(backend_in_force()).__name__
    'DaskBackend'
    """
    from .dask.backend import DaskBackend

    return DaskBackend()
