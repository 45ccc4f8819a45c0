"""Small reads for workers: a plugin that imports no more than it changes.

Each worker of each cluster unpickles it, and imports this module; `helpers` would bring it
scikit-learn, which takes a worker longer than all that it does in a test.
"""

from __future__ import annotations

from typing import Any

from distributed import WorkerPlugin

from dask_em.core import tuning as core_tuning
from dask_em.core.tuning import Tuning

# Small enough that a test's few thousand rows are many chunks.
SMALL_READ = 8 * 2**10
SMALL_READS = Tuning().with_changes(reading={"bytes": SMALL_READ})


class SmallReads(WorkerPlugin):
    """Makes a worker cut small arrays into as many chunks as this process does."""

    name = "small-reads"

    def setup(self, worker: Any) -> None:
        core_tuning.DEFAULTS = SMALL_READS
