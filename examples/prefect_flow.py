"""A fit in Prefect 3: look, fit, label, report.

    python examples/prefect_flow.py DATA FOLDER K [OPTIONS OF DASK-EM ...]

Exit code 75 means stopped before the end: the retry is the same command and goes on where the
fit was. 74 (the disk or the store failed) is tried again too. Any other code fails at once,
because the same command would fail again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from prefect import flow, get_run_logger, task

# The program of an environment of its own, where Prefect's has no dask_em.
DASK_EM = os.environ.get("DASK_EM", "dask-em")
AGAIN = {74, 75}
RETRIES = int(os.environ.get("DASK_EM_RETRIES", "20"))
RETRY_SECONDS = float(os.environ.get("DASK_EM_RETRY_SECONDS", "60"))


class CommandError(RuntimeError):
    """`dask-em` left with a code that is not 0."""

    def __init__(self, command: str, exit_code: int) -> None:
        super().__init__(f"{command}: exit code {exit_code}")
        self.exit_code = exit_code


def goes_on(task: Any, run: Any, state: Any) -> bool:
    """Whether the same command, run again, goes on."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, CommandError) and error.exit_code in AGAIN


@task(
    retries=RETRIES,
    retry_delay_seconds=RETRY_SECONDS,
    retry_condition_fn=goes_on,
    task_run_name="dask-em {command}",
)
def dask_em(command: str, *arguments: str) -> None:
    """Run one command; what it says goes to the log of the run."""
    words = [DASK_EM, command, *arguments]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            get_run_logger().info(line.rstrip())
    except BaseException:
        # Cancelled: let the program keep what is done, within 10 seconds.
        process.terminate()
        raise
    finally:
        code = process.wait()
    if code:
        raise CommandError(" ".join(words), code)


@flow(name="dask-em")
def fit_and_label(data: str, folder: str, k: str = "8", where: tuple[str, ...] = ()) -> str:
    """Fit a mixture to `data`, label every row, and write a page about it."""
    model = f"{folder}/model.npz"
    dask_em("doctor", data, "-k", k, "--checkpoint", folder, *where)
    dask_em("fit", data, "-k", k, "-o", model, "--overwrite", *where)
    dask_em("predict", model, data, f"{folder}/answers.zarr", "--overwrite", *where)
    dask_em("report", model, f"{folder}/report.html", "--data", data, "--overwrite", *where)
    return model


if __name__ == "__main__":
    data, folder, k, *where = sys.argv[1:]
    print(fit_and_label(data, folder, k, tuple(where)))
