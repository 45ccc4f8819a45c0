"""Workers that leave it to the caller to tell of tasks that fail."""

from __future__ import annotations

import logging
from typing import Any

from distributed import WorkerPlugin


class QuietFailures(WorkerPlugin):
    """Keep tasks that fail out of the logs of the workers of a cluster that is ours.

    A worker logs each with its key, its code and a traceback. Whoever waits for the task raises
    the same error, or has it tried again.
    """

    name = "dask-em-quiet-failures"

    def setup(self, worker: Any) -> None:
        """Filter the log of a worker that starts."""
        _ = worker
        logging.getLogger("distributed.worker").addFilter(_not_of_a_task)


def _not_of_a_task(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("Compute Failed")
