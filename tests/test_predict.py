"""Predictions that are interrupted go on where they stopped, and end with the same bytes."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import zarr
from click.testing import CliRunner, Result
from helpers import HANG, SMALL_READ, Tune, wait_until
from zarr.codecs import Crc32cCodec
from zarr.storage import LocalStore

from dask_em import GaussianMixture, load
from dask_em.cli.main import main
from dask_em.data.open import stored_source
from dask_em.jobs import predict as applying
from dask_em.storage.locks import locked
from dask_em.storage.outputs import predictions
from dask_em.storage.outputs import resumable as unfinished

CHUNKS, CHUNK_ROWS = 40, 500
REGIONS = 16
# A chunk that a job waits for.
GATE = 30
# The program, cutting a test's few rows into many chunks as large data are.
PROGRAM = (
    "from dask_em.core import tuning; "
    f"tuning.DEFAULTS = tuning.DEFAULTS.with_changes(reading={{'bytes': {SMALL_READ}}}); "
    "from dask_em.cli import main; main()"
)


def write_points(path: Path, seed: int = 0) -> np.ndarray:
    """Two clusters in turn, a chunk each: every other chunk's labels are nothing but zeros."""
    rng = np.random.default_rng(seed)
    cluster = np.repeat(np.arange(CHUNKS) % 2, CHUNK_ROWS)
    X = rng.normal(size=(CHUNKS * CHUNK_ROWS, 2)) + 30 * cluster[:, None]
    array = zarr.create_array(
        path, shape=X.shape, chunks=(CHUNK_ROWS, 2), dtype="f8", compressors=[Crc32cCodec()]
    )
    array[:] = X
    return X


def write_model(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(2000, 2)) + 30 * rng.integers(0, 2, (2000, 1))
    GaussianMixture(2, random_state=seed).fit(X).save(path)


def arguments(model: Path, points: Path, answers: Path, *more: str) -> list[str]:
    return ["predict", str(model), str(points), str(answers), "--log-density", *more]


def start(given: list[str]) -> subprocess.Popen[str]:
    """The program in a process of its own, with a worker whose second thread goes on."""
    command = [sys.executable, "-c", PROGRAM, *given, "--workers", "1", "--threads", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def gated(points: Path) -> Iterator[None]:
    """Whoever reads one of the chunks waits in the block: it is a pipe that nobody writes."""
    path, aside = points / f"c/{GATE}/0", points / "aside"
    path.rename(aside)
    os.mkfifo(path)
    try:
        yield
    finally:
        aside.replace(path)


def partial_of(answers: Path) -> Path:
    return answers.with_name(f".{answers.name}.partial")


def markers(answers: Path) -> list[range]:
    """Regions that are marked as whole."""
    found = partial_of(answers).glob("regions-*/*")
    names = (p.name.split("-") for p in found if p.suffix != ".tmp")
    return [range(int(start), int(stop)) for start, stop, *_ in names]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def written(answers: Path) -> dict[str, int]:
    """When each chunk of the answers was written."""
    return {
        str(p.relative_to(answers)): p.stat().st_mtime_ns
        for p in answers.glob("*/c/*")
        if p.suffix == ""
    }


def chunks_of(regions: list[range]) -> set[str]:
    return {f"{name}/c/{i}" for r in regions for i in r for name in ("labels", "log_density")}


@contextmanager
def without_cluster() -> Iterator[None]:
    with dask.config.set(scheduler="synchronous"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "workers_for", lambda where, nbytes: nullcontext())
        yield


def invoke(given: list[str]) -> Result:
    """The program in this process."""
    result = CliRunner().invoke(main, given)
    assert "Traceback" not in result.stderr
    return result


@dataclass(frozen=True)
class Interrupted:
    """A job that was killed, and what the same job gives undisturbed."""

    points: Path
    model: Path
    partial: Path
    undisturbed: dict[str, bytes]

    def into(self, folder: Path) -> Path:
        """A copy of the unfinished work; the destination that it belongs to."""
        answers = folder / "answers.zarr"
        shutil.copytree(self.partial, partial_of(answers))
        return answers


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory, many_chunks: None) -> Interrupted:
    folder = tmp_path_factory.mktemp("interrupted")
    points, model, answers = (folder / name for name in ("points.zarr", "m.npz", "answers.zarr"))
    write_points(points)
    write_model(model, 0)

    # In this process: other workers, the same bytes.
    with without_cluster():
        result = invoke(arguments(model, points, folder / "undisturbed.zarr"))
    assert result.exit_code == 0, result.stderr
    assert not partial_of(folder / "undisturbed.zarr").exists()

    with gated(points):
        process = start(arguments(model, points, answers))
        wait_until(lambda: len(markers(answers)) >= 5 or process.poll() is not None)
        family = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        process.communicate(timeout=HANG)
        # A killed job leaves no worker behind that goes on writing.
        assert not psutil.wait_procs(family, timeout=HANG)[1]
    assert not answers.exists()
    assert 5 <= len(markers(answers)) < REGIONS
    return Interrupted(points, model, partial_of(answers), contents(folder / "undisturbed.zarr"))


@contextmanager
def full_disk(room: int = 60) -> Iterator[None]:
    """A disk that is full after some files were synced to it."""
    sync, n_synced = os.fsync, 0

    def fail_at_last(descriptor: int) -> None:
        nonlocal n_synced
        n_synced += 1
        if n_synced > room:
            raise OSError(28, "No space left on device")
        sync(descriptor)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail_at_last)
        yield


@pytest.fixture
def here(many_chunks: None) -> Iterator[None]:
    """Jobs run in this thread, without a cluster."""
    with without_cluster():
        yield


def test_a_killed_job_is_resumed_and_ends_with_the_same_bytes(
    interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = interrupted.into(tmp_path)
    (answers_so_far,) = partial_of(answers).glob("answers-*")
    whole = markers(answers)
    # What a killed writer leaves beside a chunk must not become part of the answers.
    (answers_so_far / "labels/c/39.0123456789abcdef.partial").write_bytes(b"half")
    before = written(answers_so_far)

    # On other workers: none.
    result = invoke(arguments(interrupted.model, interrupted.points, answers, "--json"))

    assert result.exit_code == 0, result.stderr
    assert f"resuming: {len(whole)} of {REGIONS} regions are whole" in result.stderr
    kept = chunks_of(whole)
    after = written(answers)
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert all(after[name] != before.get(name) for name in after.keys() - kept)
    assert json.loads(result.stdout)["n_rows_kept"] == sum(map(len, whole)) * CHUNK_ROWS
    assert contents(answers) == interrupted.undisturbed
    assert [p.name for p in tmp_path.iterdir()] == ["answers.zarr"]


def test_labels_are_right_and_every_chunk_is_there(interrupted: Interrupted) -> None:
    names = {name for name in interrupted.undisturbed if "/c/" in name}
    assert names == chunks_of([range(CHUNKS)])


@pytest.mark.parametrize(
    ("differing", "said"),
    [
        ("model", "model sha256: "),
        ("data", "data: "),
        ("answers", "answers: ['labels', 'log_density'] there, ['labels'] asked for"),
        ("missing chunks", "missing chunks: error there, fill asked for"),
        ("version", "dask em: 0.0.1 there, "),
        ("format", "format version: 0 there, 2 asked for"),
    ],
)
def test_unfinished_work_of_something_else_is_refused(
    differing: str, said: str, interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = interrupted.into(tmp_path)
    model, points = interrupted.model, interrupted.points
    given = arguments(model, points, answers)
    header = partial_of(answers) / "header.json"
    if differing == "model":
        write_model(tmp_path / "other.npz", 1)
        given = arguments(tmp_path / "other.npz", points, answers)
    elif differing == "data":
        write_points(tmp_path / "other.zarr")
        given = arguments(model, tmp_path / "other.zarr", answers)
    elif differing == "answers":
        given.remove("--log-density")
    elif differing == "missing chunks":
        given += ["--missing-chunks", "fill"]
    else:
        key, value = {"version": ("dask_em", "0.0.1"), "format": ("format_version", 0)}[differing]
        found = json.loads(header.read_text())
        found["identity"][key] = value
        header.write_text(json.dumps(found))
    before = contents(partial_of(answers))

    result = invoke(given)

    assert result.exit_code == 73
    assert said in result.stderr
    assert result.stderr.count(" there, ") == 1
    assert "--no-resume" in result.stderr
    assert contents(partial_of(answers)) == before
    assert not answers.exists()


def test_a_damaged_header_is_refused(interrupted: Interrupted, tmp_path: Path, here: None) -> None:
    answers = interrupted.into(tmp_path)
    (partial_of(answers) / "header.json").write_text("{")
    result = invoke(arguments(interrupted.model, interrupted.points, answers))
    assert result.exit_code == 73
    assert "is damaged or not of this program" in result.stderr


def test_no_resume_starts_anew(interrupted: Interrupted, tmp_path: Path, here: None) -> None:
    answers = interrupted.into(tmp_path)
    write_model(tmp_path / "other.npz", 1)
    given = arguments(tmp_path / "other.npz", interrupted.points, answers, "--json")

    result = invoke([*given, "--no-resume"])

    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["n_rows_kept"] == 0
    fresh = tmp_path / "fresh.zarr"
    assert invoke(arguments(tmp_path / "other.npz", interrupted.points, fresh)).exit_code == 0
    assert contents(answers) == contents(fresh) != interrupted.undisturbed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["answers.zarr", "fresh.zarr", "other.npz"]


def test_a_chunk_that_went_missing_is_computed_again(
    interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = interrupted.into(tmp_path)
    lost, *_ = markers(answers)
    (chunk,) = partial_of(answers).glob(f"answers-*/labels/c/{lost.start}")
    chunk.unlink()
    result = invoke(arguments(interrupted.model, interrupted.points, answers))
    assert result.exit_code == 0, result.stderr
    assert contents(answers) == interrupted.undisturbed


@dataclass(frozen=True)
class Layout:
    """How data are cut, which tuning cuts the reads, and rows of a chunk of the answers."""

    cut: dict[str, tuple[int, int]]
    rows: int
    few_chunks: int = 1024
    damaged: str = "c/8/0"


LAYOUTS = {
    "several are read together": Layout({"chunks": (250, 2)}, 250),
    "several columns of chunks": Layout({"chunks": (250, 1)}, 250),
    "one is read": Layout({"chunks": (500, 2)}, 500, damaged="c/4/0"),
    "larger than a read": Layout({"chunks": (1000, 2)}, 1000, damaged="c/2/0"),
    "in shards": Layout({"chunks": (50, 2), "shards": (1000, 2)}, 50, damaged="c/2/0"),
    "many and small": Layout({"chunks": (50, 2)}, 250, few_chunks=16, damaged="c/40/0"),
    "the last is cut": Layout({"chunks": (300, 2)}, 300),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_chunks_of_answers_are_those_of_the_data(
    name: str, tmp_path: Path, here: None, tune: Tune
) -> None:
    """So they line up, and what is whole of an interrupted job is found in them."""
    layout, X = LAYOUTS[name], np.random.default_rng(0).normal(size=(4000, 2))
    X[::2] += 30
    tune(reading={"few_chunks": layout.few_chunks, "chunk_bytes": 4000, "bytes": SMALL_READ})
    points, model = tmp_path / "x.zarr", tmp_path / "m.npz"
    zarr.create_array(points, shape=X.shape, dtype="f8", **layout.cut)[:] = X
    write_model(model, 0)
    undisturbed, answers = tmp_path / "undisturbed.zarr", tmp_path / "answers.zarr"
    assert invoke(arguments(model, points, undisturbed)).exit_code == 0

    group = zarr.open_group(undisturbed, mode="r")
    for array in (group["labels"], group["log_density"]):
        assert array.chunks == (layout.rows,)
        assert array.chunks[0] % zarr.open_array(points).chunks[0] == 0
    np.testing.assert_array_equal(group["labels"][:], load(model).predict(X))

    whole = (points / layout.damaged).read_bytes()
    (points / layout.damaged).write_bytes(b"nothing")
    assert invoke(arguments(model, points, answers)).exit_code == 65
    (points / layout.damaged).write_bytes(whole)
    regions = markers(answers)
    assert regions
    # One that somebody removed is computed again, wherever in its region it is.
    read = stored_source(points).chunk_rows
    last = min(regions[0].stop * read, len(X)) - 1
    (lost,) = partial_of(answers).glob(f"answers-*/labels/c/{last // layout.rows}")
    lost.unlink()
    result = invoke(arguments(model, points, answers))
    assert result.exit_code == 0, result.stderr
    kept = f"resuming: {len(regions) - 1} of"
    assert kept in result.stderr or len(regions) == 1
    assert contents(answers) == contents(undisturbed)


def test_answers_to_few_rows_are_one_chunk(tmp_path: Path, here: None) -> None:
    points, model, answers = tmp_path / "x.zarr", tmp_path / "m.npz", tmp_path / "a.zarr"
    array = zarr.create_array(points, shape=(100, 2), chunks=(1000, 2), dtype="f8")
    array[:] = np.random.default_rng(0).normal(size=(100, 2))
    write_model(model, 0)
    assert invoke(arguments(model, points, answers)).exit_code == 0
    assert zarr.open_array(answers / "labels").chunks == (100,)


def test_bad_data_are_mended_and_only_what_changed_is_computed_again(
    tmp_path: Path, here: None
) -> None:
    points, model, answers = (tmp_path / n for n in ("points.zarr", "m.npz", "answers.zarr"))
    X = write_points(points)
    write_model(model, 0)
    array = zarr.open_array(points, mode="r+")
    with full_disk():
        assert invoke(arguments(model, points, answers)).exit_code == 74
    bad = min(set(range(CHUNKS)) - {chunk for region in markers(answers) for chunk in region})
    array[bad * CHUNK_ROWS] = np.nan

    result = invoke(arguments(model, points, answers))
    assert result.exit_code == 65
    assert f"X contains NaN at row {bad * CHUNK_ROWS}, column 0" in result.stderr
    whole = markers(answers)
    assert 0 < len(whole) < REGIONS
    kept_in = f"{len(whole)} of {REGIONS} regions are whole and kept in {partial_of(answers)}"
    assert kept_in in result.stderr
    assert not answers.exists()
    (so_far,) = partial_of(answers).glob("answers-*")
    before = written(so_far)

    # One chunk is mended, and another one, whose answers were whole, is changed.
    changed = next(r for r in whole)
    array[bad * CHUNK_ROWS] = X[bad * CHUNK_ROWS]
    array[changed.start * CHUNK_ROWS] = [15.0, 16.0]
    result = invoke(arguments(model, points, answers))
    assert result.exit_code == 0, result.stderr
    after = written(answers)
    untouched = chunks_of([r for r in whole if r != changed])
    assert {n for n in after if after[n] == before.get(n)} == untouched

    fresh = tmp_path / "fresh.zarr"
    assert invoke(arguments(model, points, fresh)).exit_code == 0
    assert contents(answers) == contents(fresh)


# -- tables --------------------------------------------------------------------------------


def write_table(path: Path, rows: int = 250) -> Path:
    """The points as a table in two files, with a number and a word for each row."""
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `table` is not installed")
    import pyarrow as pa

    X = np.random.default_rng(0).normal(size=(6000, 2))
    X[::2] += 30
    numbers = np.arange(len(X))
    table = pa.table(
        {"u": X[:, 0], "v": X[:, 1], "id": numbers, "word": [f"row {n}" for n in numbers]}
    )
    path.mkdir()
    for name, part in (("a", table.slice(0, 2100)), ("b", table.slice(2100))):
        pq.write_table(part, path / f"{name}.parquet", row_group_size=rows)
    return path


def write_table_model(path: Path, data: Path) -> None:
    GaussianMixture(2, random_state=0, columns=["u", "v"]).fit(data).save(path)


@pytest.mark.parametrize("data", ["table", "array"])
@pytest.mark.parametrize("stop", ["full disk", "killed"])
def test_answers_in_a_table_are_gone_on_with_and_end_with_the_same_bytes(
    data: str, stop: str, tmp_path: Path, here: None
) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `table` is not installed")
    model, answers = tmp_path / "m.npz", tmp_path / "answers.parquet"
    more: list[str] = []
    if data == "table":
        points = write_table(tmp_path / "x")
        write_table_model(model, points)
        more = ["--keep", "word,id"]
    else:
        points = tmp_path / "x.zarr"
        write_points(points)
        write_model(model, 0)
    given = arguments(model, points, answers, *more)
    undisturbed = tmp_path / "undisturbed.parquet"
    assert invoke(arguments(model, points, undisturbed, *more, "--proba")).exit_code == 0
    shutil.rmtree(undisturbed)
    assert invoke(arguments(model, points, undisturbed, *more)).exit_code == 0

    if stop == "full disk":
        with full_disk(25):
            assert invoke(given).exit_code == 74
    else:
        stopped_in_the_fork(given, after=4)
    whole = markers(answers)
    assert whole
    assert not answers.exists()
    (so_far,) = partial_of(answers).glob("answers-*")
    before = {p.name: p.stat().st_mtime_ns for p in so_far.glob("*.parquet")}
    # What a killed writer leaves must not become part of the answers.
    (so_far / "part-00001.parquet.01234567.partial").write_bytes(b"half")

    result = invoke([*given, "--json"])
    assert result.exit_code == 0, result.stderr
    assert contents(answers) == contents(undisturbed)
    after = {p.name: p.stat().st_mtime_ns for p in answers.glob("*.parquet")}
    kept = {name for name in before if before[name] == after[name]}
    assert len(kept) == len(whole)
    assert json.loads(result.stdout)["n_rows_kept"] > 0
    assert sorted(after) == [f"part-{n:05d}.parquet" for n in range(len(after))]
    found = pq.read_table(answers)
    expected = load(model).predict(str(points)).compute(scheduler="synchronous")
    np.testing.assert_array_equal(found["labels"].to_numpy(), expected)
    if more:
        assert found.column_names == ["word", "id", "labels", "log_density"]
        assert found["id"].to_pylist() == list(range(6000))
        assert found["word"].to_pylist()[::1000] == [f"row {n}" for n in range(0, 6000, 1000)]


def stopped_in_the_fork(given: list[str], after: int) -> None:
    """Kill a job in a process of its own when so many regions are whole."""
    pid = os.fork()
    if pid == 0:
        mark, done = predictions.Regions.mark, 0

        def counted(self: predictions.Regions, chunks: range, n_dropped: int) -> None:
            nonlocal done
            mark(self, chunks, n_dropped)
            done += 1
            if done == after:
                os.kill(os.getpid(), signal.SIGKILL)

        predictions.Regions.mark = counted  # type: ignore[method-assign]
        try:
            main(given, standalone_mode=False)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


def test_arrays_of_a_table_are_gone_on_with_and_end_with_the_same_bytes(
    tmp_path: Path, here: None
) -> None:
    """Its row groups are of other lengths than the chunks of an array may be."""
    points, model, answers = write_table(tmp_path / "x"), tmp_path / "m.npz", tmp_path / "a.zarr"
    write_table_model(model, points)
    undisturbed = tmp_path / "undisturbed.zarr"
    assert invoke(arguments(model, points, undisturbed)).exit_code == 0
    stopped_in_the_fork(arguments(model, points, answers), after=3)
    assert len(markers(answers)) == 3
    result = invoke(arguments(model, points, answers))
    assert "resuming: 3 of" in result.stderr
    assert contents(answers) == contents(undisturbed)
    labels = zarr.open_group(answers, mode="r")["labels"][:]
    expected = load(model).predict(str(points)).compute(scheduler="synchronous")
    np.testing.assert_array_equal(labels, expected)


def test_a_table_that_was_written_to_meanwhile_is_read_again(tmp_path: Path, here: None) -> None:
    points, model, answers = write_table(tmp_path / "x"), tmp_path / "m.npz", tmp_path / "a.parquet"
    write_table_model(model, points)
    stopped_in_the_fork(arguments(model, points, answers), after=10)
    os.utime(points / "a.parquet")
    result = invoke(arguments(model, points, answers))
    assert result.exit_code == 0, result.stderr
    # Those of the other file are whole still.
    whole = int(result.stderr.partition("resuming: ")[2].split()[0])
    assert 0 < whole < 10


def test_columns_are_kept_in_tables_of_tables_only(tmp_path: Path, here: None) -> None:
    points, model = write_table(tmp_path / "x"), tmp_path / "m.npz"
    write_table_model(model, points)
    to_array = invoke(arguments(model, points, tmp_path / "a.zarr", "--keep", "id"))
    assert (to_array.exit_code, "--keep id" in to_array.stderr) == (2, True)
    unknown = invoke(arguments(model, points, tmp_path / "a.parquet", "--keep", "idd"))
    assert unknown.exit_code == 65
    assert "no column 'idd' to keep: did you mean 'id'?" in unknown.stderr
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    write_model(tmp_path / "n.npz", 0)
    nameless = invoke(arguments(tmp_path / "n.npz", tmp_path / "x.npy", tmp_path / "a.parquet",
                                "--keep", "id"))  # fmt: skip
    assert nameless.exit_code == 65
    assert "has no columns beside its numbers" in nameless.stderr
    assert not list(tmp_path.glob("*a.*"))


def test_a_table_of_answers_needs_pyarrow(
    tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_points(tmp_path / "x.zarr")
    write_model(tmp_path / "m.npz", 0)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    given = arguments(tmp_path / "m.npz", tmp_path / "x.zarr", tmp_path / "a.parquet")
    result = invoke(given)
    assert (result.exit_code, "pip install 'dask-em[table]'" in result.stderr) == (2, True)


def test_rows_without_an_answer_are_so_in_a_table_too(tmp_path: Path, here: None) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `table` is not installed")
    import pyarrow as pa

    points, model, answers = write_table(tmp_path / "x"), tmp_path / "m.npz", tmp_path / "a.parquet"
    write_table_model(model, points)
    values = [1.0, None, 31.0]
    pq.write_table(pa.table({"v": values, "u": values, "id": [7, 8, 9]}), tmp_path / "y.parquet")
    result = invoke(arguments(model, tmp_path / "y.parquet", answers, "--proba"))
    assert result.exit_code == 65
    assert "X contains NaN at row 1 of " in result.stderr
    given = arguments(model, tmp_path / "y.parquet", answers, "--keep", "id", "--nonfinite", "drop")
    assert invoke([*given, "--proba"]).exit_code == 0
    found = pq.read_table(answers).to_pydict()
    assert found["id"] == [7, 8, 9]
    assert found["labels"][1] == -1
    assert found["labels"][0] != found["labels"][2]
    assert np.isnan([found["proba_0"][1], found["log_density"][1]]).all()


def test_a_job_that_cannot_even_begin_leaves_nothing(
    interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = tmp_path / "answers.zarr"
    with full_disk(0):
        result = invoke(arguments(interrupted.model, interrupted.points, answers))
    assert result.exit_code == 74
    assert not list(tmp_path.iterdir())


def test_a_job_that_wrote_nothing_whole_leaves_nothing(tmp_path: Path, here: None) -> None:
    points, model = tmp_path / "points.zarr", tmp_path / "m.npz"
    write_points(points)
    write_model(model, 0)
    zarr.open_array(points, mode="r+")[::CHUNK_ROWS] = np.nan
    result = invoke(arguments(model, points, tmp_path / "answers.zarr"))
    assert result.exit_code == 65
    assert "kept" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.npz", "points.zarr"]


def test_whole_answers_that_could_not_be_named_are_not_computed_again(
    interrupted: Interrupted, tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = interrupted.into(tmp_path)
    answers.write_text("old")
    given = arguments(interrupted.model, interrupted.points, answers, "--overwrite")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(unfinished.UnfinishedGroup, "publish", full)
        result = invoke(given)
    assert result.exit_code == 74
    assert f"{REGIONS} of {REGIONS} regions are whole" in result.stderr
    assert answers.read_text() == "old"

    # Nothing is left to compute, so no cluster is started.
    monkeypatch.setattr(applying, "workers_for", full)
    assert invoke(given).exit_code == 0
    assert contents(answers) == interrupted.undisturbed
    assert [p.name for p in tmp_path.iterdir()] == ["answers.zarr"]


def test_a_job_killed_while_it_cleaned_up_leaves_nothing_to_resume(
    interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = interrupted.into(tmp_path)
    (named,) = partial_of(answers).glob("answers-*")
    named.rename(answers)
    given = arguments(interrupted.model, interrupted.points, answers)
    assert invoke(given).exit_code == 73
    assert [p.name for p in tmp_path.iterdir()] == ["answers.zarr"]
    assert invoke([*given, "--overwrite"]).exit_code == 0
    assert contents(answers) == interrupted.undisturbed
    assert [p.name for p in tmp_path.iterdir()] == ["answers.zarr"]


def test_two_jobs_do_not_write_the_same_answers(
    interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = interrupted.into(tmp_path)
    before = contents(partial_of(answers))
    with locked(answers):
        result = invoke(arguments(interrupted.model, interrupted.points, answers, "--no-resume"))
    assert result.exit_code == 73
    assert f"is writing {answers}: wait until it ends" in result.stderr
    assert contents(partial_of(answers)) == before


def test_ctrl_c_keeps_what_is_whole_and_says_how_to_resume(
    interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = tmp_path / "answers.zarr"
    with gated(interrupted.points):
        process = start(arguments(interrupted.model, interrupted.points, answers))
        wait_until(lambda: len(markers(answers)) >= 3 or process.poll() is not None)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=HANG)
    assert process.returncode == 75, error
    whole = markers(answers)
    assert (
        f"interrupted by SIGINT; {len(whole)} of {REGIONS} regions are whole and kept in" in error
    )
    assert "run the same command again to resume" in error
    assert not answers.exists()
    result = invoke(arguments(interrupted.model, interrupted.points, answers))
    assert result.exit_code == 0, result.stderr
    assert contents(answers) == interrupted.undisturbed


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        ("set", "zarr.json"),
        ("set", "labels/zarr.json"),
        ("set", "labels/c/7"),
        ("get", "zarr.json"),
        ("get", "labels/zarr.json"),
    ],
)
def test_an_error_of_the_disk_names_the_answers(
    operation: str,
    what: str,
    interrupted: Interrupted,
    tmp_path: Path,
    here: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers, done = tmp_path / "answers.zarr", getattr(LocalStore, operation)

    async def failing(store: LocalStore, key: str, *rest: object, **more: object) -> object:
        if tmp_path in store.root.parents and key.endswith(what):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return await done(store, key, *rest, **more)

    given = arguments(interrupted.model, interrupted.points, answers)
    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, operation, failing)
        result = invoke(given)
    assert result.exit_code == 74, result.stderr
    assert f"Input/output error: '{tmp_path}/.answers.zarr.partial/" in result.stderr
    assert not answers.exists()
    assert invoke(given).exit_code == 0
    assert contents(answers) == interrupted.undisturbed


def test_a_full_disk_keeps_what_is_whole(
    interrupted: Interrupted, tmp_path: Path, here: None
) -> None:
    answers = tmp_path / "answers.zarr"
    given = arguments(interrupted.model, interrupted.points, answers, "--json")
    with full_disk():
        result = invoke(given)
    assert result.exit_code == 74
    whole = markers(answers)
    assert 0 < len(whole) < REGIONS
    assert "No space left on device" in result.stderr
    assert f"{len(whole)} of {REGIONS} regions are whole and kept" in result.stderr
    assert not answers.exists()

    result = invoke(given)
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["n_rows_kept"] == sum(map(len, whole)) * CHUNK_ROWS
    assert contents(answers) == interrupted.undisturbed
