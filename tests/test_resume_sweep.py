"""A sweep that is stopped anywhere and started again ends with the bits of one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import HANG, Tune, blobs, digest, kill_when, write_zarr

from dask_em import Checkpointing, load, select
from dask_em.backends.dask import backend as dask_backend
from dask_em.core import reading
from dask_em.core.tuning import tuning, use_tuning
from dask_em.errors import DataError, UsageError
from dask_em.estimators.select import Selection
from dask_em.fitting.observers import Event, Observer, PassStarted

X = blobs(8000, 3, 4, apart=1.2)[0]
OPTIONS: dict[str, Any] = {
    "n_components": range(2, 6), "covariance_type": ("full", "spherical"), "random_state": 0,
    "tol": 1e-5, "max_iter": 5, "sample_size": 200,
}  # fmt: skip

pytestmark = [
    pytest.mark.usefixtures("many_chunks", "synchronous"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


class StoppedError(Exception):
    """What ends a sweep in these tests."""


class StopBefore(Observer):
    """An observer that ends a sweep at the beginning of a pass over the data."""

    def __init__(self, number: int) -> None:
        self.left = number

    def notify(self, event: Event) -> None:
        if isinstance(event, PassStarted):
            self.left -= event.phase != "start"
            if self.left == 0:
                raise StoppedError


def sweep(data: Any = X, stop_before: int = 0, **options: Any) -> Selection:
    return select(data, **{**OPTIONS, **options}, callbacks=[StopBefore(stop_before)])


def phases(found: Selection) -> list[str]:
    return [record["phase"] for record in found.history]


def assert_same(found: Selection, other: Selection) -> None:
    assert digest(found.best) == digest(other.best)
    assert found.best.get_params()["n_components"] == other.best.get_params()["n_components"]
    assert json.dumps(found.table) == json.dumps(other.table)
    assert phases(found) == phases(other)
    assert found.n_passes == other.n_passes
    assert found.best.lower_bounds_ == other.best.lower_bounds_
    assert [digest(m) for m in found.models] == [digest(m) for m in other.models]


CASES: dict[str, dict[str, Any]] = {
    "slices": {},
    "holdout": {"holdout": 0.1, "criterion": "holdout", "keep_all": True},
    "exhaustive": {"exhaustive": True, "n_components": (2, 4), "max_iter": 3},
    "em": {"algorithm": "em", "n_components": (2, 4), "max_passes": 4},
    "few passes": {"max_passes": 5},
}


@pytest.mark.parametrize("case", CASES)
def test_stopped_before_every_pass_is_not_stopped_at_all(case: str, tmp_path: Path) -> None:
    options = CASES[case]
    straight = sweep(**options)
    assert ("slice" in phases(straight)) == (case in ("slices", "holdout", "few passes"))
    stops = 0
    while True:
        try:
            # Each makes one pass, and is stopped before the next.
            found = sweep(stop_before=2, checkpoint=tmp_path / "c", **options)
        except StoppedError:
            stops += 1
        else:
            break
    assert stops == len(straight.history) - 1 > 1
    assert_same(found, straight)
    # The last state was kept, too, so nothing is left to do.
    assert_same(sweep(stop_before=1, checkpoint=tmp_path / "c", **options), straight)


def test_a_sweep_goes_on_within_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_zarr(tmp_path / "x.zarr", X, 1000)
    whole, read = reading.fold_range, [0]
    limit = [10**9]

    def fold_range(*arguments: Any) -> Any:
        if read[0] == limit[0]:
            raise StoppedError
        read[0] += 1
        return whole(*arguments)

    monkeypatch.setattr(dask_backend, "fold_range", fold_range)
    straight, in_all = sweep(data), read[0]
    assert in_all == 8 * len(straight.history) > 40
    for stop_after in (3, 14, 40):
        keep = Checkpointing(tmp_path / f"c{stop_after}", interval=0.0)
        read[0], limit[0] = 0, stop_after
        with pytest.raises(StoppedError):
            sweep(data, checkpoint=keep)
        read[0], limit[0] = 0, 10**9
        assert_same(sweep(data, checkpoint=keep), straight)
        # Not a range is read twice.
        assert read[0] == in_all - stop_after


def test_other_sweeps_and_fits_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with pytest.raises(StoppedError):
        sweep(stop_before=3, checkpoint=folder)
    for options, named in (
        ({"n_components": range(2, 8)}, "n_components=.2, 3, 4, 5."),
        ({"covariance_type": "full"}, "covariance_type=.'full', 'spherical'."),
        ({"criterion": "aic"}, "criterion='bic', and this one is of criterion='aic'"),
        ({"holdout": 0.1}, "holdout=0.0"),
        ({"exhaustive": True}, "exhaustive=False"),
        ({"tol": 1e-3}, "tol=1e-05"),
        ({"n_components": 2, "covariance_type": "full"}, "covariance_type="),
    ):
        with pytest.raises(UsageError, match=named):
            sweep(checkpoint=folder, **options)
    with pytest.raises(DataError, match="contents was"):
        sweep(X + 1, checkpoint=folder)
    assert sweep(X + 1, checkpoint=Checkpointing(folder, force=True)).best.n_components > 1
    anew = Checkpointing(folder, resume=False)
    assert_same(sweep(tol=1e-3, checkpoint=anew), sweep(tol=1e-3))


def test_time_that_is_over_leaves_the_best_so_far(tmp_path: Path) -> None:
    straight = sweep()
    short = sweep(max_time=0, checkpoint=tmp_path / "c")
    assert short.best.status_.name == "OUT_OF_TIME"
    assert phases(short).count("em") == 1 < phases(straight).count("em")
    assert_same(sweep(checkpoint=tmp_path / "c"), straight)


@pytest.mark.slow
def test_a_sweep_of_the_program_goes_on_where_it_was_killed(tune: Tune, tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", np.tile(X, (25, 1)), 20_000)
    command = [
        sys.executable, "-m", "dask_em.cli", "fit", "x.zarr", "-k", "2:4", "-o", "m.npz", "--tol",
        "0", "--max-iter", "6", "--exhaustive", "--sample-size", "500", "--n-init", "1",
        "--workers", "1", "--memory-limit", "1GiB", "--json", "--keep-all",
    ]  # fmt: skip
    kill_when("em pass 2", command, cwd=tmp_path)
    assert not (tmp_path / "m.npz").exists()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=HANG)
    assert again.returncode == 0, again.stderr
    assert "resuming from .m.npz.checkpoint: " in again.stderr
    assert "survey pass" not in again.stderr
    files = {"m.npz", "x.zarr", *(f"m-k{k}-full.npz" for k in (2, 3, 4))}
    assert {path.name for path in tmp_path.iterdir()} == files
    with use_tuning(tuning().with_changes(reading={"bytes": 8 * 2**20})):
        straight = select(
            tmp_path / "x.zarr", [2, 3, 4], tol=0, max_iter=6, exhaustive=True, sample_size=500,
            n_init=1, random_state=0,
        )  # fmt: skip
    assert digest(load(tmp_path / "m.npz")) == digest(straight.best)
    assert json.loads(again.stdout)["table"] == straight.table
