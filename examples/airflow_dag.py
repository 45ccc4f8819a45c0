"""A nightly fit in Airflow 3: look, fit, label, report.

Exit code 75 means stopped before the end: the retry is the same command and goes on where the
fit was. 74 (the disk or the store failed) is tried again too. Any other code fails at once,
because the same command would fail again.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from typing import Any

from airflow.providers.standard.hooks.subprocess import SubprocessHook
from airflow.sdk import DAG, BaseOperator, Param
from airflow.sdk.exceptions import AirflowException, AirflowFailException

# The program of an environment of its own: Airflow's pins many versions.
DASK_EM = os.environ.get("DASK_EM", "dask-em")
AGAIN = {74, 75}


class DaskEM(BaseOperator):
    """Runs `dask-em`, and lets Airflow retry what goes on when it is run again."""

    template_fields = ("arguments",)

    def __init__(self, arguments: list[str], **options: Any) -> None:
        super().__init__(**options)
        self.arguments = arguments

    def execute(self, context: Any) -> str:
        """The last line that the command printed, for the tasks that follow."""
        self.hook = SubprocessHook()
        # Lists in `params` come out of templates as text.
        command = [DASK_EM, *map(str, self.arguments)]
        done = self.hook.run_command(command=command)
        if done.exit_code == 0:
            return done.output
        said = f"{' '.join(command)}: exit code {done.exit_code}: {done.output}"
        raise AirflowException(said) if done.exit_code in AGAIN else AirflowFailException(said)

    def on_kill(self) -> None:
        """Let the program keep what is done: it leaves within 10 seconds."""
        self.hook.send_sigterm()


with DAG(
    "dask_em_nightly",
    schedule="0 2 * * *",
    start_date=datetime(2026, 1, 1),
    catchup=False,
    # Two fits of one model would find its lock: the second ends with 73.
    max_active_runs=1,
    default_args={
        "retries": int(os.environ.get("DASK_EM_RETRIES", "20")),
        "retry_delay": timedelta(seconds=float(os.environ.get("DASK_EM_RETRY_SECONDS", "60"))),
    },
    params={
        "data": Param("/data/points.zarr", type="string"),
        "folder": Param("/data/models", type="string"),
        "k": Param("8", type="string", description="8, or 2:20 to choose"),
    },
) as dag:
    # A folder for each night, so that a rerun of one night replaces nothing of another.
    model = "{{ params.folder }}/{{ ds_nodash | default('manual', true) }}.npz"
    where = os.environ.get("DASK_EM_WHERE", "").split()
    data, k = "{{ params.data }}", "{{ params.k }}"
    look = DaskEM(
        task_id="doctor",
        arguments=["doctor", data, "-k", k, "--checkpoint", "{{ params.folder }}", *where],
    )
    fit = DaskEM(
        task_id="fit",
        # What a night has written already is replaced when the night is run again.
        arguments=["fit", data, "-k", k, "-o", model, "--overwrite", "--log-json", *where],
    )
    label = DaskEM(
        task_id="predict",
        arguments=["predict", model, data, f"{model}.answers.zarr", "--overwrite", *where],
    )
    page = DaskEM(
        task_id="report",
        arguments=["report", model, f"{model}.html", "--data", data, "--overwrite", *where],
    )
    look >> fit >> [label, page]
