"""TODO data.any."""

from __future__ import annotations

from .dask import DaskSource
from .memory import ArraySource
from .zarr.source import ZarrSource

AnySource = ArraySource | ZarrSource | DaskSource
