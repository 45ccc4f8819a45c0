"""Jobs and estimators over any rows in files: the same rows in each kind give the same model."""

from __future__ import annotations

import json
import logging
import os
import pickle
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import SmallReads, blobs, digest, start, start_cluster, write_zarr

from dask_em import GaussianMixture, load
from dask_em.cli.main import main
from dask_em.core.protocols import StoredSource
from dask_em.core.reading import fold_range
from dask_em.data.open import as_source, stored_source
from dask_em.errors import DataError
from dask_em.jobs import plan as planning
from dask_em.jobs import predict as applying
from dask_em.testing.passes import RowsFold

pq = pytest.importorskip("pyarrow.parquet", reason="the extra `table` is not installed")
import pyarrow as pa  # noqa: E402
from pyarrow import feather  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    # The rows in memory, which the answers are compared to, have no names.
    pytest.mark.filterwarnings("ignore:X does not have valid feature names"),
]

N, D, K, ROWS = 6000, 3, 3, 250
EXACT, _, MEANS = blobs(N, D, K, apart=8.0)
X = EXACT.astype(np.float32)
WEIGHT = np.random.default_rng(1).integers(0, 4, N).astype(float)
NAMES = [f"x{j}" for j in range(D)]

Write = Callable[[Path, np.ndarray], Path]


def table(rows: np.ndarray) -> pa.Table:
    return pa.table(dict(zip(NAMES, rows.T, strict=True)))


def to_zarr(folder: Path, rows: np.ndarray) -> Path:
    write_zarr(folder / "x.zarr", rows, ROWS)
    return folder / "x.zarr"


def to_npy(folder: Path, rows: np.ndarray) -> Path:
    np.save(folder / "x.npy", rows)
    return folder / "x.npy"


def to_parquet(folder: Path, rows: np.ndarray) -> Path:
    pq.write_table(table(rows), folder / "x.parquet", row_group_size=ROWS)
    return folder / "x.parquet"


def to_folder(folder: Path, rows: np.ndarray) -> Path:
    """Files whose edges are edges of chunks, which are of other lengths there."""
    (folder / "x").mkdir()
    for number, first in enumerate(range(0, len(rows), 7 * ROWS)):
        part = table(rows[first : first + 7 * ROWS])
        pq.write_table(part, folder / f"x/part-{number}.parquet", row_group_size=ROWS)
    return folder / "x"


def to_arrow(folder: Path, rows: np.ndarray) -> Path:
    feather.write_feather(table(rows), str(folder / "x.arrow"), chunksize=ROWS)
    return folder / "x.arrow"


KINDS: dict[str, Write] = {
    "zarr": to_zarr, "npy": to_npy, "parquet": to_parquet, "folder": to_folder, "arrow": to_arrow,
}  # fmt: skip


@pytest.fixture(params=KINDS)
def write(request: pytest.FixtureRequest) -> Write:
    """Every kind of files in turn."""
    return KINDS[request.param]


def fitted(data: Any, sample_weight: Any = None, **options: Any) -> GaussianMixture:
    options = {"random_state": 0, "tol": 1e-6, "sample_size": 500, **options}
    return GaussianMixture(K, **options).fit(data, sample_weight=sample_weight)


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, many_chunks: None) -> str:
    """The digest of a fit of the Zarr array in chunks that the tables have as row groups."""
    with dask.config.set(scheduler="synchronous"):
        return digest(fitted(to_zarr(tmp_path_factory.mktemp("zarr"), X)))


@pytest.fixture(params=["threads", "one worker", "three workers"])
def computing(request: pytest.FixtureRequest) -> Iterator[None]:
    """Who computes."""
    if request.param == "threads":
        with dask.config.set(scheduler="threads"):
            yield
        return
    with start_cluster(1 if "one" in request.param else 3) as cluster, Client(cluster) as client:
        client.register_plugin(SmallReads())
        yield


def test_the_same_chunks_give_the_same_bits(computing: None, tmp_path: Path, expected: str) -> None:
    for name in ("parquet", "folder", "arrow"):
        (tmp_path / name).mkdir()
        path = KINDS[name](tmp_path / name, X)
        # Two are read together.
        assert stored_source(path).bounds.tolist() == [*range(0, N, 2 * ROWS), N]
        assert digest(fitted(path)) == expected
    # Its chunks are what is read at once.
    rows = int(np.diff(stored_source(to_npy(tmp_path, X)).bounds)[0])
    write_zarr(tmp_path / "x.zarr", X, rows)
    assert digest(fitted(tmp_path / "x.npy")) == digest(fitted(tmp_path / "x.zarr"))


def test_other_chunks_give_the_same_to_twelve_digits(tmp_path: Path, synchronous: None) -> None:
    # Plain EM: the rows of the sample, by which a fit is accelerated, depend on the chunks.
    begun = {**start("full", MEANS), "algorithm": "em"}
    whole = fitted(EXACT, **begun)
    for name in KINDS:
        (tmp_path / name).mkdir()
        model = fitted(KINDS[name](tmp_path / name, EXACT), **begun)
        np.testing.assert_allclose(model.means_, whole.means_, rtol=1e-12)
        np.testing.assert_allclose(model.covariances_, whole.covariances_, rtol=1e-11)


@pytest.fixture
def alone() -> Iterator[None]:
    """Jobs run in this thread."""
    with dask.config.set(scheduler="synchronous"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(applying, "workers_for", lambda where, nbytes: nullcontext())
        patch.setattr(planning, "workers_for", lambda where, nbytes: nullcontext())
        yield


def run(*words: object, code: int = 0) -> Any:
    """What a command prints as JSON, or what it says where it is to fail."""
    result = CliRunner().invoke(main, [*map(str, words)])
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    if code:
        return result.stderr
    return json.loads(result.stdout) if "--json" in words else result.stdout


@pytest.mark.parametrize(
    "name",
    [
        "zarr",
        "parquet",
        # They differ from those two in how they are opened, which each command does alike.
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("npy", "folder", "arrow")),
    ],
)
def test_all_commands_take_all_kinds(name: str, tmp_path: Path, alone: None) -> None:
    data, model = KINDS[name](tmp_path, X), tmp_path / "m.npz"
    run("fit", data, "-k", K, "-o", model, "--seed", 0, "--json")
    known = run("plan", data, "-k", K, "--json")
    assert (known["n_rows"], known["n_features"], known["dtype"]) == (N, D, "float32")
    assert known["n_chunks"] > 5
    checks = run("doctor", data, "-k", K, "--json", "--workers", 1)["checks"]
    said = {check["name"]: check["text"] for check in checks}
    assert "6,000 x 3 float32" in said["store"]
    assert "there" in said["chunks"]
    run("predict", model, data, tmp_path / "a.zarr", "--log-density", "--json")
    answers = zarr.open_group(tmp_path / "a.zarr", mode="r")
    expected = load(model)
    np.testing.assert_array_equal(answers["labels"][:], expected.predict(X))
    np.testing.assert_allclose(
        answers["log_density"][:], expected.score_samples(X), rtol=1e-4, atol=1e-4
    )
    scores = run("score", model, data, "--json")
    assert scores["log_likelihood"] == pytest.approx(expected.score(X), rel=1e-6)
    drawn = run("report", model, tmp_path / "r.html", "--data", data, "--json")
    assert drawn["n_rows_drawn"] == 5000
    assert drawn["n_chunks"] > 5


def test_lazy_answers_are_those_of_rows_in_memory(write: Write, tmp_path: Path) -> None:
    path = write(tmp_path, X)
    with dask.config.set(scheduler="threads"):
        model = fitted(path)
        np.testing.assert_array_equal(np.asarray(model.predict(path)), model.predict(X))
        proba = np.asarray(model.predict_proba(path))
        np.testing.assert_allclose(proba, model.predict_proba(X), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("stored", ["zarr", "npy", "memory"])
def test_weights_of_any_kind_are_those_of_the_rows(
    write: Write, stored: str, tmp_path: Path, synchronous: None
) -> None:
    weight: Any = WEIGHT
    if stored == "zarr":
        weight = str(tmp_path / "w.zarr")
        write_zarr(weight, WEIGHT, 1000)
    elif stored == "npy":
        weight = str(tmp_path / "w.npy")
        np.save(weight, WEIGHT)
    begun, path = {**start("full", MEANS), "algorithm": "em"}, write(tmp_path, EXACT)
    found = fitted(path, weight, **begun)
    expected = fitted(EXACT, WEIGHT, **begun)
    np.testing.assert_allclose(found.means_, expected.means_, rtol=1e-12)
    with pytest.raises(DataError, match="sample_weight has 10 entries and X has 6000 rows"):
        fitted(path, WEIGHT[:10])


def test_weights_of_a_command_are_a_column(tmp_path: Path, alone: None) -> None:
    """And so they are in Python; they are no feature, and the same as in a file of their own."""
    weighted = table(X).append_column("w", pa.array(WEIGHT))
    pq.write_table(weighted, tmp_path / "x.parquet", row_group_size=ROWS)
    np.save(tmp_path / "w.npy", WEIGHT)
    data, model, other = (tmp_path / name for name in ("x.parquet", "m.npz", "n.npz"))
    run("fit", data, "-k", K, "-o", model, "--weights", "w")
    apart = ["--weights", tmp_path / "w.npy", "--exclude", "w"]
    run("fit", data, "-k", K, "-o", other, *apart)
    assert digest(load(model)) == digest(load(other))
    assert load(model).feature_names_in_.tolist() == NAMES
    found = run("score", model, data, "--weights", "w", "--json")
    assert found["weight"] == WEIGHT.sum()
    assert found["bic"] == run("score", other, data, *apart[:2], "--json")["bic"]
    said = run("fit", data, "-k", K, "-o", tmp_path / "o.npz", "--weights", "ww", code=65)
    assert "did you mean 'w'?" in said


def test_a_sent_source_is_small_and_cut_alike(write: Write, tmp_path: Path, tune: Any) -> None:
    source = stored_source(write(tmp_path, X))
    sent = pickle.dumps(source)
    assert len(sent) < 20_000
    # Whoever receives it may have another tuning.
    tune(reading={"bytes": 2**20})
    there: StoredSource = pickle.loads(sent)
    assert there.bounds.tolist() == source.bounds.tolist()


# -- files that change -------------------------------------------------------------------


def test_rows_that_changed_since_the_first_pass_are_named(write: Write, tmp_path: Path) -> None:
    source = as_source(write(tmp_path, X))
    part = source.ranges()[1]
    first = source.reader()
    log = {chunk: first.read(chunk) and first.fingerprints[chunk] for chunk in part}
    shutil.rmtree(tmp_path / "x", ignore_errors=True)
    for path in tmp_path.glob("x*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    changed = X.copy()
    changed[:, 0] += 1
    write(tmp_path, changed)
    expected = np.zeros(source.n_chunks, dtype=np.uint64)
    expected[list(log)] = list(log.values())
    held: Any = replace(source, expected=expected)  # type: ignore[type-var]
    row = int(held.bounds[part.start])
    with pytest.raises(DataError, match=rf"changed since the first pass read it: rows {row} to "):
        fold_range(held, RowsFold(), part, None)


def test_a_file_that_is_gone_or_another_is_named_before_a_fit(
    write: Write, tmp_path: Path, synchronous: None
) -> None:
    path = write(tmp_path, X)
    source = as_source(path)
    file = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    file.unlink()
    with pytest.raises(DataError, match=r"is gone since|was written or removed|lacks 1 of"):
        source.check()


def test_stamps_tell_which_ranges_were_written_to(write: Write, tmp_path: Path) -> None:
    source = stored_source(write(tmp_path, X))
    before = source.stamps()
    assert list(before) == source.ranges()
    assert all(before.values())
    assert source.stamps() == before
    file = max((p for p in tmp_path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    os.utime(file)
    after = source.stamps()
    changed = [part for part in before if before[part] != after[part]]
    assert changed
    many_files = write in (to_zarr, to_folder)
    assert (len(changed) < len(before)) == many_files


def test_large_groups_are_one_task_each_and_cut_evenly_for_arrays(tmp_path: Path) -> None:
    pq.write_table(table(X), tmp_path / "x.parquet", row_group_size=2500)
    source = stored_source(tmp_path / "x.parquet")
    assert source.chunk_rows < 2500
    starts = [int(source.bounds[part.start]) for part in source.ranges()]
    assert starts == [0, 2500, 5000]
    even = source.even()
    assert len(set(np.diff(even.bounds)[:-1])) == 1
    rows = [
        chunk for part in even.ranges() for _, chunk, _ in fold_range(even, RowsFold(), part, None)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), X)


def test_a_folder_in_which_nothing_is_known_is_named(tmp_path: Path, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "readme.txt").write_text("nothing")
    with pytest.raises(DataError, match="not a Zarr array"):
        as_source(tmp_path / "x")
