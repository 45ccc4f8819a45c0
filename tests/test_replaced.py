"""Data that somebody replaces while a job is interrupted, or runs: seen, and never mixed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result
from helpers import SMALL_READS, blobs, write_zarr
from object_stores import environment, put_bucket, s3_server
from zarr.codecs import Crc32cCodec

from dask_em import Checkpointing, GaussianMixture
from dask_em.cli.main import main
from dask_em.core.tuning import use_tuning
from dask_em.errors import DataError
from dask_em.jobs import predict as applying
from dask_em.storage.outputs.predictions import PredictionWriter, Written
from dask_em.storage.url_store import UrlStore, open_store

X = blobs(1616, 4, 3, apart=9.0)[0]

# The same rows in another order: each chunk has other labels, and as many bytes.
OTHER = np.ascontiguousarray(X[::-1])

CHUNK = 101

RAW: dict[str, Any] = {"compressors": None}

LAYOUTS: dict[str, dict[str, Any]] = {
    "raw": RAW,
    "raw with checksums": {"compressors": [Crc32cCodec()]},
    "zstd": {},
    "sharded": {"chunks": (CHUNK, 4), "shards": (CHUNK * 2, 4)},
    "columns": {"chunks": (CHUNK, 2), **RAW},
    "Zarr 2": {"zarr_format": 2, "compressors": None},
}


def with_times_of(path: Path, replaced: os.stat_result) -> None:
    os.utime(path, ns=(replaced.st_atime_ns, replaced.st_mtime_ns))


def copy(new: Path, old: Path) -> None:
    subprocess.run(["cp", "-p", str(new), str(old)], check=True)


def unpack(new: Path, old: Path) -> None:
    packed = new.with_suffix(".tar")
    subprocess.run(
        ["tar", "--format=posix", "-cf", str(packed), "-C", str(new.parent), new.name], check=True
    )
    subprocess.run(["tar", "xf", str(packed), "-C", str(old.parent)], check=True)
    (old.parent / new.name).replace(old)


def synchronize(new: Path, old: Path) -> None:
    if shutil.which("rsync") is None:
        pytest.skip("rsync is not installed")
    subprocess.run(["rsync", "-t", "--checksum", str(new), str(old)], check=True)


def rename(new: Path, old: Path) -> None:
    beside = old.with_name("beside")
    shutil.copy2(new, beside)
    beside.replace(old)


def write_in_place(new: Path, old: Path) -> None:
    before = old.stat()
    with old.open("r+b") as file:
        file.write(new.read_bytes())
        file.truncate()
    with_times_of(old, before)


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "cp -p": copy,
    "tar x": unpack,
    "rsync -t": synchronize,
    "rename": rename,
    "in place": write_in_place,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.npz"
    with dask.config.set({"dask_em.fast": False}):
        GaussianMixture(3, random_state=0).fit(X).save(path)
    return path


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs run in this thread, range by range, without a cluster."""
    monkeypatch.setattr(applying, "workers_for", lambda where, nbytes: nullcontext())
    how = {"scheduler": "synchronous", "dask_em.fast": False}
    one_chunk = SMALL_READS.with_changes(reading={"bytes": 4096})
    with dask.config.set(how), use_tuning(one_chunk):
        yield


def predict(model: Path, points: object, answers: object, *more: str) -> Result:
    given = ["predict", str(model), str(points), str(answers), "--json", *more]
    return CliRunner().invoke(main, given, catch_exceptions=False)


def labels(model: Path, points: object, answers: Path) -> np.ndarray:
    assert predict(model, points, answers).exit_code == 0
    found: np.ndarray = zarr.open_array(str(answers), path="labels", mode="r")[:]  # type: ignore[index, assignment]
    return found


@contextmanager
def writing(monkeypatch: pytest.MonkeyPatch, after: int, act: Callable[[], None]) -> Iterator[None]:
    """Something happens once so many regions are written."""
    n_done, result = 0, PredictionWriter.result

    def counted(writer: PredictionWriter) -> Written:
        nonlocal n_done
        found = result(writer)
        n_done += 1
        if n_done == after:
            act()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(PredictionWriter, "result", counted)
        yield


def fail() -> None:
    raise OSError(5, "of the test")


def interrupt(
    monkeypatch: pytest.MonkeyPatch, model: Path, points: object, answers: object
) -> Result:
    with writing(monkeypatch, 6, fail):
        result = predict(model, points, answers)
    assert (result.exit_code, "6 of 16 regions are whole" in result.stderr) == (74, True), (
        result.stderr
    )
    return result


def whole(answers: Path) -> list[int]:
    """The chunks whose labels are kept; which they are is for the scheduler to say."""
    markers = answers.with_name(f".{answers.name}.partial").glob("regions-*/*")
    return sorted(int(marker.name.partition("-")[0]) for marker in markers)


def files(points: Path) -> list[Path]:
    """The files of chunks, in the order of their rows."""
    hidden = {"zarr.json", ".zarray", ".zattrs"}
    found = [p for p in points.rglob("*") if p.is_file() and p.name not in hidden]
    return sorted(
        found, key=lambda p: [int(n) for n in re.findall(r"\d+", str(p.relative_to(points)))]
    )


def stored(folder: Path, layout: dict[str, Any]) -> tuple[Path, Path]:
    """Rows, and others in files of the same names, and for raw chunks of the same sizes."""
    points, other = folder / "points.zarr", folder / "other.zarr"
    for path, rows in ((points, X), (other, OTHER)):
        write_zarr(path, rows, CHUNK, **layout)
    for old, new in zip(files(points), files(other), strict=True):
        with_times_of(new, old.stat())
    return points, other


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", WAYS)
def test_labels_of_data_that_were_replaced_are_computed_again(
    way: str, layout: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, other = stored(tmp_path, LAYOUTS[layout])
    interrupt(monkeypatch, model, points, tmp_path / "answers.zarr")
    number = whole(tmp_path / "answers.zarr")[0] * len(files(points)) // 16
    old, new = files(points)[number], files(other)[number]
    before = old.stat()
    WAYS[way](new, old)
    if LAYOUTS[layout].get("compressors", 1) is None:
        assert old.stat().st_size == before.st_size
    assert old.stat().st_mtime_ns == before.st_mtime_ns
    result = predict(model, points, tmp_path / "answers.zarr")
    assert result.exit_code == 0, result.stderr
    found = zarr.open_array(str(tmp_path / "answers.zarr"), path="labels", mode="r")[:]
    np.testing.assert_array_equal(found, labels(model, points, tmp_path / "again.zarr"))
    kept = json.loads(result.stdout)["n_rows_kept"]
    assert 0 < kept < 6 * CHUNK


def test_labels_of_data_that_were_only_read_are_kept(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, _ = stored(tmp_path, RAW)
    interrupt(monkeypatch, model, points, tmp_path / "answers.zarr")
    for file in files(points):
        file.read_bytes()
        os.access(file, os.W_OK)
    result = predict(model, points, tmp_path / "answers.zarr")
    assert json.loads(result.stdout)["n_rows_kept"] == 6 * CHUNK


def test_a_layout_that_was_rewritten_is_computed_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files mean other numbers where their description says so."""
    points, _ = stored(tmp_path, RAW)
    interrupt(monkeypatch, model, points, tmp_path / "answers.zarr")
    document = points / "zarr.json"
    before = document.stat()
    text = document.read_text().replace('"fill_value": 0.0', '"fill_value": 1.0')
    document.write_text(text)
    with_times_of(document, before)
    result = predict(model, points, tmp_path / "answers.zarr")
    assert json.loads(result.stdout)["n_rows_kept"] == 0


@pytest.mark.parametrize("part", ["written", "to be written"])
@pytest.mark.parametrize("resumed", [False, True], ids=["at first", "resumed"])
def test_data_replaced_while_labels_are_written_are_named(
    resumed: bool, part: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, other = stored(tmp_path, RAW)
    answers = tmp_path / "answers.zarr"
    if resumed:
        interrupt(monkeypatch, model, points, answers)
    chunk = 1 if part == "written" else 12
    with writing(monkeypatch, 8, lambda: WAYS["rename"](files(other)[chunk], files(points)[chunk])):
        result = predict(model, points, answers)
    assert result.exit_code == 65
    first = chunk * CHUNK
    assert f"rows {first} to {first + CHUNK - 1} of " in result.stderr
    assert not answers.exists()
    result = predict(model, points, answers)
    assert json.loads(result.stdout)["n_rows_kept"] == 15 * CHUNK
    found = zarr.open_array(str(answers), path="labels", mode="r")[:]
    np.testing.assert_array_equal(found, labels(model, points, tmp_path / "again.zarr"))


# -- stores that are no folders --------------------------------------------------------


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("moto.server", reason="moto is not installed")
    with s3_server() as found:
        yield found


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty folder in a store that fsspec opens, and in one of objects."""
    name = f"replaced-{request.node.name.partition('[')[0].replace('_', '-')[-40:]}"
    if request.param == "memory":
        return f"memory://{name}/points.zarr"
    endpoint = request.getfixturevalue("endpoint")
    for variable, value in environment(endpoint).items():
        monkeypatch.setenv(variable, value)
    put_bucket(endpoint, name)
    return f"s3://{name}/points.zarr"


def put(url: str, rows: np.ndarray, chunks: range) -> None:
    array = zarr.open_array(open_store(url, read_only=False), mode="r+")
    for chunk in chunks:
        window = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
        array[window] = rows[window]


@pytest.fixture
def filled(url: str) -> str:
    layout = {"shape": X.shape, "dtype": X.dtype, "chunks": (CHUNK, 4), **RAW}
    zarr.create_array(open_store(url, read_only=False), overwrite=True, **layout)
    put(url, X, range(16))
    return url


@pytest.mark.parametrize("told", [True, False], ids=["with versions", "without"])
def test_objects_that_were_replaced_are_seen(
    told: bool, filled: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = tmp_path / "answers.zarr"
    if not told:
        monkeypatch.setattr(UrlStore, "versions", lambda store, prefix: {})
    with writing(monkeypatch, 6, fail):
        assert predict(model, filled, answers).exit_code == 74
    # Where the store tells nothing, nothing is kept.
    chunk = whole(answers)[0] if told else 1
    put(filled, OTHER, range(chunk, chunk + 1))
    result = predict(model, filled, answers)
    assert json.loads(result.stdout)["n_rows_kept"] == (5 * CHUNK if told else 0)
    found = zarr.open_array(str(answers), path="labels", mode="r")[:]
    np.testing.assert_array_equal(found, labels(model, filled, tmp_path / "again.zarr"))


def test_objects_replaced_while_labels_are_written_are_named(
    filled: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with writing(monkeypatch, 8, lambda: put(filled, OTHER, range(3, 4))):
        result = predict(model, filled, tmp_path / "answers.zarr")
    assert result.exit_code == 65
    assert f"rows {3 * CHUNK} to {4 * CHUNK - 1} of {filled}" in result.stderr


# -- fits ------------------------------------------------------------------------------


class Stop(Exception):  # noqa: N818
    """The end of a fit, as if it were killed."""


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("what", ["rows", "weights"])
def test_a_fit_that_goes_on_with_replaced_data_is_refused(
    what: str, layout: str, tmp_path: Path
) -> None:
    points, other = stored(tmp_path, LAYOUTS[layout])
    weights, weights_after = tmp_path / "weights.zarr", tmp_path / "after.zarr"
    write_zarr(weights, np.linspace(1.0, 2.0, len(X)), CHUNK, **RAW)
    write_zarr(weights_after, np.linspace(2.0, 1.0, len(X)), CHUNK, **RAW)
    kept = Checkpointing(tmp_path / "fit.checkpoint")

    def told(state: Any) -> None:
        raise Stop

    def fitted(**more: Any) -> GaussianMixture:
        return GaussianMixture(3, random_state=0, checkpoint=kept, **more).fit(
            str(points), sample_weight=zarr.open_array(str(weights), mode="r")
        )

    with pytest.raises(Stop):
        fitted(callbacks=[told])
    old = files(points if what == "rows" else weights)[3]
    new = files(other if what == "rows" else weights_after)[3]
    os.utime(new, ns=(old.stat().st_atime_ns, old.stat().st_mtime_ns))
    copy(new, old)
    named = "X" if what == "rows" else "sample_weight"
    with pytest.raises(DataError, match=f"of {named} changed since the first pass read it"):
        fitted()
