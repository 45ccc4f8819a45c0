"""How a fit of the program ends: in time, as undisturbed, and over nobody else's model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import HANG, blobs, digest, start_cluster, write_zarr

from dask_em import GaussianMixture, load
from dask_em.backends.dask import backend as dask_backend
from dask_em.cli.main import main
from dask_em.core import reading
from dask_em.data.open import as_source
from dask_em.jobs import plan as planning
from dask_em.runtime import current_job
from dask_em.storage.locks import lock_file

X = blobs(4000, 3, 3, apart=1.2)[0]
FIT = ["-k", "3", "--tol", "1e-9", "--max-iter", "5", "--sample-size", "300"]
RANGES = 8

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Data, and the program without a cluster of its own."""

    @contextmanager
    def here(where: Any, nbytes: int) -> Iterator[None]:
        with dask.config.set(scheduler="synchronous"):
            yield

    monkeypatch.setattr(planning, "workers_for", here)
    write_zarr(tmp_path / "x.zarr", X, 500)
    assert len(as_source(str(tmp_path / "x.zarr")).ranges()) == RANGES
    return tmp_path / "x.zarr"


def fit(points: Path, *more: str, output: str = "m.npz") -> Any:
    """The program's answer."""
    command = ["fit", str(points), *FIT, "-o", str(points.with_name(output)), *more]
    return CliRunner().invoke(main, command)


@pytest.fixture
def over_after(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets the time of the next fit be over after so many ranges of chunks."""
    whole, left = reading.fold_range, [0]

    def fold_range(*arguments: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            current_job().deadline = 0.0
        return whole(*arguments)

    def over(ranges: int) -> None:
        left[0] = ranges

    monkeypatch.setattr(dask_backend, "fold_range", fold_range)
    return over


def names(points: Path) -> list[str]:
    return sorted(path.name for path in points.parent.iterdir())


def undisturbed(points: Path) -> str:
    result = fit(points, output="undisturbed.npz")
    assert result.exit_code == 0, result.stderr
    file = points.with_name("undisturbed.npz")
    found = digest(load(file))
    file.unlink()
    return found


def assert_stopped(result: Any, points: Path) -> None:
    """It says so, and its last line is what goes on."""
    assert result.exit_code == 75, result.stderr
    assert "the time limit is reached" in result.stderr
    assert "what was done is kept in" in result.stderr
    *_, last = result.stderr.splitlines()
    assert last.endswith(f"fit {points} {' '.join(FIT)} -o {points.with_name('m.npz')}")


@pytest.mark.parametrize(
    ("ranges", "n_iter"), [(3, None), (RANGES + 3, 0), (2 * RANGES + 1, 1), (4 * RANGES, 2)]
)
def test_a_fit_that_is_out_of_time_keeps_a_model_and_goes_on(
    ranges: int, n_iter: int | None, points: Path, over_after: Any
) -> None:
    expected, output = undisturbed(points), points.with_name("m.npz")
    over_after(ranges)
    result = fit(points)
    assert_stopped(result, points)
    kept = [".m.npz.checkpoint", "x.zarr"]
    if n_iter is None:
        # Not even the survey was made.
        assert names(points) == kept
        assert f"before there is a model, so {output} is not written" in result.stderr
    else:
        assert names(points) == [".m.npz.checkpoint", "m.npz", "x.zarr"]
        model = load(output)
        assert (model.status_.name, model.n_iter_) == ("OUT_OF_TIME", n_iter)
        assert model.predict(X).max() == 2
        assert np.isfinite(model.score(X))
        assert CliRunner().invoke(main, ["inspect", str(output)]).exit_code == 0
    over_after(ranges + 2 * RANGES)
    result = fit(points)
    if result.exit_code:
        # Stopped once more: the model of the first time is replaced by a better one.
        assert_stopped(result, points)
        assert load(output).n_iter_ > (n_iter or 0)
        over_after(0)
        result = fit(points)
    assert result.exit_code == 0, result.stderr
    assert digest(load(output)) == expected
    assert names(points) == ["m.npz", "x.zarr"]


def test_wrong_usage_is_not_to_be_repeated(points: Path, over_after: Any) -> None:
    over_after(3)
    assert_stopped(fit(points), points)
    over_after(0)
    result = fit(points, "--reg-covar", "1e-5")
    assert result.exit_code == 2
    assert "give the same, or pass --no-resume" in result.stderr
    assert "run the same command again" not in result.stderr


def test_a_report_of_a_start_alone(points: Path, over_after: Any, tmp_path: Path) -> None:
    over_after(RANGES + 1)
    assert fit(points).exit_code == 75
    page = tmp_path / "page.html"
    result = CliRunner().invoke(main, ["report", str(tmp_path / "m.npz"), str(page)])
    assert result.exit_code == 0, result.output
    assert page.stat().st_size > 10_000


def test_the_program_stops_in_time(tmp_path: Path, client: Client) -> None:
    rows = np.random.default_rng(0).normal(size=(20_000, 4))
    write_zarr(tmp_path / "x.zarr", rows, 1000)
    endless = ["fit", str(tmp_path / "x.zarr"), "-k", "2", "-o", str(tmp_path / "m.npz"), "--tol",
               "0", "--algorithm", "em", "--max-iter", "1000000", "--scheduler",
               client.scheduler.address]  # fmt: skip
    for seconds in (5, 10, 20, 40, 80, 160, 320):
        began = time.monotonic()
        limited = [*endless, "--max-time", f"{seconds}s"]
        result = CliRunner().invoke(main, limited)
        assert result.exit_code == 75, result.stderr
        assert time.monotonic() - began >= seconds
        assert result.stderr.splitlines()[-1].endswith(" ".join(limited[-4:]))
        if (tmp_path / "m.npz").exists():
            break
        # A busy machine needs several runs for the survey.
        assert f"before there is a model, so {tmp_path / 'm.npz'} is not written" in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == [".m.npz.checkpoint", "m.npz", "x.zarr"]
    assert load(tmp_path / "m.npz").status_.name == "OUT_OF_TIME"


def test_another_s_model_is_never_replaced(points: Path, over_after: Any) -> None:
    output = points.with_name("m.npz")
    over_after(2 * RANGES + 1)
    assert fit(points).exit_code == 75
    ours = output.read_bytes()
    # Of the same data and options, and without a word of the fit that it is of.
    GaussianMixture(3, tol=1e-9, max_iter=5, sample_size=300, random_state=0).fit(X).save(
        output, overwrite=True
    )
    theirs = [output.read_bytes()]
    assert fit(points, "--no-resume", output="other.npz").exit_code == 0
    theirs.append(points.with_name("other.npz").read_bytes())
    theirs.append(b"not a model")
    for contents in theirs:
        output.write_bytes(contents)
        result = fit(points)
        assert (result.exit_code, "exists" in result.stderr) == (73, True), result.stderr
        assert output.read_bytes() == contents
    output.write_bytes(ours)
    assert fit(points, "--no-resume").exit_code == 73
    assert fit(points).exit_code == 0
    assert fit(points).exit_code == 73


def test_all_but_tidied_up(points: Path) -> None:
    """Where a job was killed when its model was written, the next finds that it is done."""
    assert fit(points).exit_code == 0
    output = points.with_name("m.npz")
    fit_id = load(output).provenance_["fit"]["id"]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    left = {
        "id": "x", "host": socket.gethostname(), "pid": gone.pid, "since": "then",
        "written": {"fit": fit_id, "outputs": [str(output)]},
    }  # fmt: skip
    written = output.read_bytes()

    def again(record: dict[str, Any], *more: str) -> int:
        lock_file(output).write_text(json.dumps(record))
        code = fit(points, *more).exit_code
        assert output.read_bytes() == written
        assert not lock_file(output).exists()
        return code

    assert again(left) == 0
    assert again({**left, "written": {"fit": "another", "outputs": [str(output)]}}) == 73
    assert again(left, "--max-iter", "6") == 73
    assert again(left, "--no-resume") == 73
    assert again({**left, "written": None}) == 73
    # What it did not come to remove goes, too.
    output.with_name(".m.npz.checkpoint").mkdir()
    output.with_name(".m.npz.12345678.tmp").write_bytes(b"half")
    assert again(left) == 0
    assert names(points) == ["m.npz", "x.zarr"]


def test_a_checkpoint_is_not_the_model(points: Path) -> None:
    result = fit(points, "--checkpoint", str(points.with_name("m.npz")))
    assert (result.exit_code, "is the model itself" in result.stderr) == (2, True), result.stderr
    result = fit(points, "--metrics-file", str(points.with_name("no") / "m.prom"))
    assert (result.exit_code, "there is no folder" in result.stderr) == (2, True), result.stderr
    assert names(points) == ["x.zarr"]


# SampleFits with little memory left, on the cluster of another process.
SHORT_OF_MEMORY = """
import resource, sys
import numpy as np
from dask_em import estimators
from dask_em.cli import main

whole = estimators.GaussianMixture.fit

def fit(self, *arguments, **more):
    np.ones((500, 500)) @ np.ones((500, 500))
    held = next(l for l in open("/proc/self/status") if l.startswith("VmSize"))
    most = int(held.split()[1]) * 1024 + 160 * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
    return whole(self, *arguments, **more)

estimators.GaussianMixture.fit = fit
main(sys.argv[1:])
"""


@pytest.mark.faults
def test_memory_that_runs_out_here_is_no_fault_of_ours(tmp_path: Path) -> None:
    """The driver cannot hold the sample that its workers could."""
    write_zarr(tmp_path / "x.zarr", np.random.default_rng(0).normal(size=(250_000, 64)), 25_000)
    command = ["fit", str(tmp_path / "x.zarr"), "-k", "2", "-o", "m.npz"]
    with start_cluster(1) as cluster:
        command += ["--sample-size", "250000", "--scheduler", cluster.scheduler_address]
        result = subprocess.run(
            [sys.executable, "-c", SHORT_OF_MEMORY, *command],
            cwd=tmp_path,
            env={**os.environ, "MALLOC_ARENA_MAX": "1"},
            capture_output=True,
            text=True,
            timeout=HANG,
        )
    assert result.returncode == 75, result.stderr
    *_, said, last = result.stderr.splitlines()
    assert "this process ran out of memory (" in said
    assert "a sample (--sample-size rows of 512 bytes)" in said
    assert "lower --sample-size or -k" in said
    assert last.endswith(f"--scheduler {cluster.scheduler_address}")
    assert not (tmp_path / "m.npz").exists()
