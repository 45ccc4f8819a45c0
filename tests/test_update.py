"""Updates: new rows join the sums that a model keeps, and only they are read."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import blobs, kill_when, write_zarr
from sklearn.exceptions import NotFittedError
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture, KMeans, PoissonMixture, StudentTMixture, adapt, load
from dask_em.backends.serial import SerialBackend
from dask_em.cli.main import main
from dask_em.core.codec import digest
from dask_em.core.em import Status
from dask_em.core.protocols import Source
from dask_em.data.appended import AppendedRows
from dask_em.data.open import as_source
from dask_em.data.zarr.grown import stamp_of_first
from dask_em.errors import DataError, UsageError
from dask_em.estimators.generations import rows_seen
from dask_em.fitting.half_life import HalfLife
from dask_em.fitting.kept_sample import KeptSample
from dask_em.fitting.observers import Event, Observer, RowsDone
from dask_em.jobs import update as update_jobs
from dask_em.report.formats import percent
from dask_em.report.page import report_html
from dask_em.testing.sources import SourceTests

K, D = 3, 2
X = blobs(4000, D, K, apart=4.0)[0]
OLD, NEW = X[:2500], X[2500:]

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@pytest.fixture(autouse=True)
def without_compiled_loops() -> Iterator[None]:
    with dask.config.set({"dask_em.fast": False, "scheduler": "synchronous"}):
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the old rows, and the model of it."""
    folder = tmp_path_factory.mktemp("made")
    write_zarr(folder / "x.zarr", OLD, 100, compressors=[Crc32cCodec()])
    model().fit(str(folder / "x.zarr")).save(folder / "m.npz")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same in a folder of its own, where this process is."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(update_jobs, "workers_for", lambda where, nbytes: nullcontext())
    return tmp_path


def model(**options: Any) -> GaussianMixture:
    return GaussianMixture(**{"n_components": K, "random_state": 0, "tol": 1e-6, **options})


def append(path: Path, rows: np.ndarray) -> None:
    zarr.open_array(str(path), mode="r+").append(rows)


def bits(fitted: Any) -> str:
    """A digest of parameters and sums."""
    return digest(fitted.state_)


def generations(fitted: Any) -> list[dict[str, Any]]:
    return list(fitted.provenance_["generations"])


def run(*words: object) -> tuple[int, dict[str, Any]]:
    """The exit code of `dask-em update`, and its JSON."""
    result = CliRunner().invoke(main, ["update", *map(str, words), "--json"])
    return result.exit_code, json.loads(result.stdout)


# -- what is read ----------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_rows", [100, 300], ids=["whole chunks", "a chunk is filled up"])
@pytest.mark.parametrize("codec", [[Crc32cCodec()], None, "auto"], ids=str)
def test_of_a_store_that_grew_only_what_was_appended_is_read(
    codec: Any, chunk_rows: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.zarr"
    write_zarr(path, OLD, chunk_rows, compressors=codec)
    grown = model().fit(str(path))
    apart = deepcopy(grown).update(NEW)
    append(path, NEW)
    grown.update(str(path))
    assert [one["rows"] for one in generations(grown)] == [len(OLD), len(NEW)]
    assert {record["rows"] for record in grown.history_} == {len(NEW)}
    assert grown.provenance_["n_rows"] == len(X)
    assert generations(grown)[1]["until"] == len(X)
    np.testing.assert_allclose(grown.means_, apart.means_, rtol=1e-9)
    before = bits(grown)
    grown.update(str(path))
    assert bits(grown) == before


@pytest.mark.parametrize("codec", [[Crc32cCodec()], "auto"], ids=str)
@pytest.mark.parametrize("row", [0, 2450], ids=["a whole chunk", "the last chunk"])
def test_a_store_that_changed_below_what_is_new_is_refused(
    codec: Any, row: int, tmp_path: Path
) -> None:
    path = tmp_path / "x.zarr"
    write_zarr(path, OLD, 300, compressors=codec)
    fitted = model().fit(str(path))
    zarr.open_array(str(path), mode="r+")[row] = 9.0
    append(path, NEW)
    before = bits(fitted)
    with pytest.raises(DataError, match=r"first 2,500 rows of .*x\.zarr.* were written since"):
        fitted.update(str(path))
    assert bits(fitted) == before


def test_a_model_that_tells_no_stamp_counts_no_row_twice(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", OLD, 100)
    fitted = model().fit(str(tmp_path / "x.zarr"))
    del fitted.provenance_["stamp"]
    append(tmp_path / "x.zarr", NEW)
    with pytest.raises(DataError, match="of an earlier dask_em"):
        fitted.update(str(tmp_path / "x.zarr"))


def test_a_copy_of_a_checksummed_store_is_known(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", OLD, 100, compressors=[Crc32cCodec()])
    fitted = model().fit(str(tmp_path / "x.zarr"))
    shutil.copytree(tmp_path / "x.zarr", tmp_path / "y.zarr")
    append(tmp_path / "y.zarr", NEW)
    fitted.update(str(tmp_path / "y.zarr"))
    assert generations(fitted)[1]["rows"] == len(NEW)


def test_another_store_joins_with_all_its_rows(tmp_path: Path) -> None:
    for name, rows in (("x", OLD), ("y", NEW), ("z", NEW[:50])):
        write_zarr(tmp_path / f"{name}.zarr", rows, 100)
    fitted = model().fit(str(tmp_path / "x.zarr"))
    for name, n_rows in (("y", len(NEW)), ("z", 50)):
        fitted.update(str(tmp_path / f"{name}.zarr"))
        assert generations(fitted)[-1]["rows"] == n_rows
    before = bits(fitted)
    for name in "xyz":
        fitted.update(str(tmp_path / f"{name}.zarr"))
    assert bits(fitted) == before


def test_a_new_partition_joins(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(name: str, rows: np.ndarray) -> None:
        (tmp_path / "x").mkdir(exist_ok=True)
        parquet.write_table(pa.table({"a": rows[:, 0], "b": rows[:, 1]}), tmp_path / "x" / name)

    write("night-1.parquet", OLD)
    fitted = model().fit(str(tmp_path / "x"))
    write("night-2.parquet", NEW)
    fitted.update(str(tmp_path / "x"))
    assert [one["rows"] for one in generations(fitted)] == [len(OLD), len(NEW)]
    write("night-0.parquet", NEW + 1.0)
    with pytest.raises(DataError, match="files were added before them"):
        fitted.update(str(tmp_path / "x"))
    fitted.update(str(tmp_path / "x" / "night-0.parquet"))
    assert generations(fitted)[-1]["rows"] == len(NEW)


@pytest.mark.parametrize("kind", ["array", "Dask", "float32"])
def test_rows_in_memory_are_not_counted_twice(kind: str) -> None:
    import dask.array as da

    rows: Any = {"array": NEW, "Dask": da.from_array(NEW, chunks=(100, D)) + 0.0}.get(
        kind, NEW.astype(np.float32)
    )
    fitted = model().fit(OLD).update(rows)
    assert fitted.provenance_["n_rows"] == len(X)
    before = bits(fitted)
    fitted.update(rows)
    assert bits(fitted) == before


def test_the_stamp_of_first_rows_is_of_their_layout_too(tmp_path: Path) -> None:
    one = write_zarr(tmp_path / "a.zarr", OLD[:50], 100)
    other = write_zarr(tmp_path / "b.zarr", OLD[50:100], 100)
    assert stamp_of_first(one, 50) != stamp_of_first(other, 50)
    assert stamp_of_first(one, 0) == stamp_of_first(one, 51) == ""


class TestAppendedRows(SourceTests):
    """Rows of a store from the middle of a chunk on."""

    def source(self, folder: Path, X: np.ndarray, sample_weight: np.ndarray | None) -> Source:
        before = np.full((70, X.shape[1]), 7.0)
        stored = write_zarr(folder / "x.zarr", np.concatenate([before, X]), 20)
        weight = None if sample_weight is None else np.concatenate([np.ones(70), sample_weight])
        return AppendedRows(as_source(stored, weight), 70)

    def test_a_row_is_located(self, tmp_path: Path) -> None:
        source = self.made(tmp_path / "x")
        assert source.locate(0, 2).startswith("row 72")
        assert source.first_row == 70


# -- what is computed --------------------------------------------------------------------------


def test_twelve_nights_are_as_good_as_one_fit() -> None:
    nights = np.split(blobs(24_000, D, K, seed=5, apart=3.0)[0], 12)
    fitted = model(tol=1e-4).fit(nights[0])
    for night in nights[1:]:
        fitted.update(night)
    whole = np.concatenate(nights)
    best = model(tol=1e-4).fit(whole).score(whole)
    assert fitted.score(whole) == pytest.approx(best, abs=1e-3)
    assert fitted.state_.statistics.n_rows == len(whole)
    # Each is told as the model saw it before.
    told = [one["log_likelihood"] for one in generations(fitted)[1:]]
    np.testing.assert_allclose(told, best, atol=0.05)


def test_forgetting_follows_what_drifts() -> None:
    nights = [blobs(500, D, K, seed=9, apart=6.0)[0] for _ in range(1)]
    rng, far = np.random.default_rng(1), blobs(1, D, K, seed=9, apart=6.0)[2]
    plain, forgetful = (model(tol=1e-4).fit(nights[0]) for _ in range(2))
    for night in range(8):
        rows = rng.normal(size=(500, D)) + far[rng.integers(0, K, 500)] + 1.5 * (night > 2)
        plain.update(rows)
        forgetful.update(rows, forget=500)

    def error(fitted: GaussianMixture) -> float:
        apart = np.linalg.norm(fitted.means_[:, None] - (far + 1.5), axis=2)
        return float(apart.min(axis=0).max())

    assert error(forgetful) < 0.25 < 0.5 < error(plain)
    assert forgetful.state_.statistics.weight == pytest.approx(1000, rel=0.02)
    assert generations(forgetful)[-1]["kept"] == 0.5
    assert forgetful.provenance_["n_rows"] == plain.provenance_["n_rows"] == 9 * 500


def test_a_weight_is_a_row_repeated() -> None:
    weight = np.random.default_rng(2).integers(0, 3, len(NEW))
    one = model().fit(OLD).update(NEW, weight.astype(np.float64), forget="3000rows")
    other = model().fit(OLD).update(np.repeat(NEW, weight, axis=0), forget=3000)
    np.testing.assert_allclose(one.means_, other.means_, rtol=1e-8)
    np.testing.assert_allclose(one.covariances_, other.covariances_, rtol=1e-8)
    assert generations(one)[1]["kept"] == pytest.approx(generations(other)[1]["kept"])


def test_digits_are_kept_far_from_zero() -> None:
    near = model(reg_covar=0).fit(OLD).update(NEW)
    away = model(reg_covar=0).fit(OLD + 1e8).update(NEW + 1e8)
    np.testing.assert_allclose(away.means_ - 1e8, near.means_, atol=1e-6)
    np.testing.assert_allclose(away.covariances_, near.covariances_, rtol=1e-5)


def test_the_bits_do_not_depend_on_who_computes(here: Path) -> None:
    append(here / "x.zarr", NEW)
    found = set()
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            found.add(bits(load("m.npz").update("x.zarr")))
    alone = SerialBackend()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dask_em.estimators.fits.backend_in_force", lambda: alone)
        found.add(bits(load("m.npz").update("x.zarr")))
    assert len(found) == 1


def test_components_keep_their_numbers() -> None:
    fitted = KMeans(K, random_state=0).fit(OLD)
    labels = fitted.predict(X)
    # The rows of what was the first in order move beyond the others.
    fitted.update(NEW + 0.3)
    assert (fitted.predict(X) == labels).mean() > 0.95
    assert fitted.inertia_ > 0


def test_exact_is_a_fit_that_starts_from_the_model() -> None:
    fitted = model().fit(OLD).update(X, exact=True)
    warm = model().fit(OLD).set_params(warm_start=True).fit(X)
    np.testing.assert_array_equal(fitted.means_, warm.means_)
    assert [(one["rows"], one["kept"]) for one in generations(fitted)] == [
        (len(OLD), 1.0),
        (len(X), 0.0),
    ]
    assert fitted.warm_start is False
    # What the sums are no longer of may join again.
    fitted.update(OLD)
    assert generations(fitted)[-1]["rows"] == len(OLD)


def test_rows_that_are_no_numbers_are_refused_or_left_out() -> None:
    rows = NEW.copy()
    rows[7] = np.nan
    fitted = model().fit(OLD)
    before = bits(fitted)
    with pytest.raises(DataError, match="NaN at row 7"):
        fitted.update(rows)
    with pytest.raises(ValueError, match="X has 1 features"):
        fitted.update(NEW[:, :1])
    assert bits(fitted) == before
    with pytest.warns(UserWarning, match="1 rows"):
        fitted.set_params(nonfinite="drop").update(rows)
    assert (generations(fitted)[1]["dropped"], fitted.n_dropped_) == (1, 1)
    counts = PoissonMixture(2, random_state=0).fit(np.random.default_rng(0).poisson(3, (200, 2)))
    with pytest.raises(DataError, match="where counts"):
        counts.update([[-1.0, 2.0]])


def test_one_row_joins() -> None:
    fitted = model().fit(OLD).update(NEW[:1])
    assert fitted.provenance_["n_rows"] == len(OLD) + 1


def test_models_without_such_sums_are_refused() -> None:
    with pytest.raises(NotFittedError, match="call fit first"):
        model().update(NEW)
    for fitted, said in (
        (StudentTMixture(1, random_state=0).fit(OLD), "sums that hold at its own parameters"),
        (adapt(model().fit(OLD), NEW), "was adapted"),
        (model(max_iter=0).fit(OLD), "as it is of no pass"),
    ):
        with pytest.raises(UsageError, match=said):
            fitted.update(NEW)
        fitted.update(X, exact=True)
        assert generations(fitted)[-1]["kept"] == 0
    changed = model().fit(OLD)
    changed.means_ = changed.means_ + 1.0
    with pytest.raises(UsageError, match="set by hand"):
        changed.update(NEW)


# -- a sample that stays with the model --------------------------------------------------------


def test_a_kept_sample_takes_updates_to_where_one_fit_of_all_ends() -> None:
    """Of two normals that overlap EM is slow, and the first nights' parameters are far off."""
    rng = np.random.default_rng(0)
    nights = [rng.normal(size=(500, 1)) + 2.0 * (rng.random((500, 1)) < 0.3) for _ in range(12)]
    whole = np.concatenate(nights)
    best = GaussianMixture(2, random_state=0, tol=1e-6).fit(whole).score(whole)
    ends, far_off = {}, {"means_init": [[0.0], [0.5]], "weights_init": [0.5, 0.5], "max_iter": 1}
    for size in (0, 1000):
        fitted = model(n_components=2, **far_off).fit(np.concatenate(nights[:4]), keep_sample=size)
        fitted.set_params(max_iter=100)
        for night in nights[4:]:
            fitted.update(night)
        ends[size] = fitted.score(whole) - best
    assert ends[1000] > -5e-4
    assert ends[0] < -5e-3
    kept = fitted.kept_sample_
    assert kept is not None
    assert len(kept.rows) == 1000
    assert kept.weights.sum() == pytest.approx(len(whole))
    # Each night has its share of the rows.
    shares = [np.isin(kept.rows, night).mean() for night in nights]
    np.testing.assert_allclose(shares, 1 / 12, atol=0.05)


@pytest.mark.slow
def test_a_sample_that_leads_nowhere_is_told_of_and_warns_of_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Twelve normals in two columns overlap so much that a step by the sample can go too far."""
    rng = np.random.default_rng(4)
    factors = np.eye(2) + 0.4 * rng.normal(size=(12, 2, 2))
    means, weights = 1.5 * rng.normal(size=(12, 2)), rng.dirichlet(np.full(12, 5.0))

    def rows(night: int) -> np.ndarray:
        rng = np.random.default_rng([night, 1])
        of = rng.choice(12, 2000, p=weights)
        return means[of] + np.einsum("nij,nj->ni", factors[of], rng.normal(size=(2000, 2)))

    fitted = GaussianMixture(12, random_state=0, tol=1e-4).fit(rows(0), keep_sample=20_000)
    with caplog.at_level("INFO", logger="dask_em"):
        for night in range(1, 24):
            fitted.update(rows(night))
    assert "told no better parameters after" in caplog.text


def test_the_bits_with_a_sample_depend_on_nobody_and_files_keep_it(here: Path) -> None:
    model().fit("x.zarr", keep_sample=900).save("m.npz", overwrite=True)
    append(here / "x.zarr", NEW)
    found = []
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            found.append(load("m.npz").update("x.zarr"))
    for parts in (2, 5):
        stopped = load("m.npz").set_params(callbacks=[StopAfter(parts)])
        with pytest.raises(StoppedError):
            stopped.update("x.zarr", checkpoint=f"kept{parts}")
        found.append(load("m.npz").update("x.zarr", checkpoint=f"kept{parts}"))
    found[0].save("n.npz")
    found.append(load("n.npz"))
    assert len({(bits(one), digest(one.kept_sample_)) for one in found}) == 1
    assert bits(found[0]) != bits(load("m.npz").update("x.zarr", keep_sample=0))
    with pytest.raises(UsageError, match="sample"):
        load("m.npz").update("x.zarr", checkpoint="kept5", keep_sample=0)


def test_forgetting_weighs_the_sample_too() -> None:
    fitted = model().fit(OLD, keep_sample=600).update(NEW + 20.0, forget=750)
    kept = fitted.kept_sample_
    assert kept is not None
    old = kept.rows[:, 0] < 10.0
    assert kept.weights[old].sum() == pytest.approx(2500 / 4)
    assert kept.weights[~old].sum() == pytest.approx(1500)
    assert old.sum() == pytest.approx(600 * 625 / 2125, abs=1)
    assert fitted.update(NEW[:10], keep_sample=50).kept_sample_.size == 50  # type: ignore[union-attr]
    assert fitted.update(NEW[:11], keep_sample=0).kept_sample_ is None
    assert fitted.update(X, exact=True, keep_sample=70).kept_sample_ is not None


def test_a_sample_of_too_few_rows_changes_nothing() -> None:
    few, none = (model().fit(OLD, keep_sample=size).update(NEW) for size in (20, 0))
    assert bits(few) == bits(none)
    with pytest.raises(UsageError, match="keeps no sample of the rows that it has read"):
        none.update(NEW[:5], keep_sample=100)
    with pytest.raises(ValueError, match="without their labels"):
        model().fit(OLD, labels_init=np.zeros(2500), labels_fixed=True, keep_sample=9)
    with pytest.raises(ValueError, match="without their noise"):
        model().fit(OLD, noise_covariance=np.ones(D), keep_sample=9)
    with pytest.raises(UsageError, match="clusters have none"):
        KMeans(K).fit(OLD, keep_sample=9)


def test_commands_keep_a_sample_and_count_it(here: Path) -> None:
    words = ["fit", "x.zarr", "-k", "3", "-o", "k.npz", "--keep-sample", "500"]
    assert CliRunner().invoke(main, words).exit_code == 0
    append(here / "x.zarr", NEW)
    code, found = run("k.npz", "x.zarr", "--keep-sample", "400")
    assert (code, found["kept_sample"]) == (0, {"rows": 400, "size": 400, "bytes": 400 * 24})
    told = CliRunner().invoke(main, ["inspect", "k.npz"]).stdout
    assert "sample   400 rows, 9,600 bytes of the file" in told
    plan = ["plan", "x.zarr", "-k", "3", "--no-probe", "--keep-sample", "500", "--json"]
    assert json.loads(CliRunner().invoke(main, plan).stdout)["sample_bytes"] == 500 * 24
    assert run("m.npz", "x.zarr", "--keep-sample", "5")[0] == 2


# -- half-lives --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "word", ["", "30", "-1d", "0rows", "1e6", "2 weeks", "nan", True, "1e999d"]
)
def test_other_half_lives_are_refused(word: Any) -> None:
    with pytest.raises(ValueError, match=r"forget=.*expected a half-life in rows \(1e6rows\)"):
        HalfLife.of(word)


def test_half_lives_halve() -> None:
    for word, weight, seconds in (("10rows", 10, 9e9), ("2h", 9e9, 7200), (" 0.5D", 1, 43_200)):
        assert HalfLife.of(word).kept(weight, seconds) == 0.5  # type: ignore[union-attr]
    assert HalfLife(1.0, "seconds").kept(1.0, -5.0) == 1.0
    assert HalfLife(1.0, "rows").kept(1e9, 0.0) == 0.0


def test_time_is_counted_from_the_last_generation() -> None:
    fitted = model().fit(OLD)
    month = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)
    fitted.provenance_["fitted"] = month.isoformat()
    fitted.update(NEW, forget="30d")
    assert generations(fitted)[1]["kept"] == pytest.approx(0.5, abs=1e-3)
    fitted.update(NEW + 0.1, forget="30d")
    assert generations(fitted)[2]["kept"] == pytest.approx(1.0, abs=1e-3)
    told = model().fit(OLD)
    told.provenance_["fitted"] = "in spring"
    with pytest.raises(UsageError, match="give a half-life in rows"):
        told.update(NEW, forget="30d")


# -- killed jobs -------------------------------------------------------------------------------


class StoppedError(Exception):
    """What ends an update that is to be resumed."""


class StopAfter(Observer):
    """Stop after so many parts of passes."""

    def __init__(self, parts: int) -> None:
        self.left = parts

    def notify(self, event: Event) -> None:
        self.left -= isinstance(event, RowsDone)
        if self.left == 0:
            raise StoppedError


@pytest.mark.parametrize("forget", [None, "30d"])
def test_a_resumed_update_has_the_bits_of_a_straight_one(forget: str | None, here: Path) -> None:
    append(here / "x.zarr", NEW)
    long_ago = load("m.npz")
    long_ago.provenance_["fitted"] = "2020-01-01T00:00:00+00:00"
    long_ago.save("m.npz", overwrite=True)
    straight = load("m.npz").update("x.zarr")
    for parts in (1, 2, 4):
        kept = f"kept{parts}"
        stopped = load("m.npz").set_params(callbacks=[StopAfter(parts)])
        with pytest.raises(StoppedError):
            stopped.update("x.zarr", forget=forget, checkpoint=kept)
        resumed = load("m.npz").update("x.zarr", forget=forget, checkpoint=kept)
        if forget is None:
            assert bits(resumed) == bits(straight)
        assert resumed.provenance_["n_rows"] == len(X)
    with pytest.raises(UsageError, match="forget"):
        load("m.npz").update("x.zarr", forget="9rows", checkpoint=kept)


# -- in a shell --------------------------------------------------------------------------------


def test_the_command_replaces_the_model_and_then_has_nothing_new(here: Path) -> None:
    append(here / "x.zarr", NEW)
    code, found = run("m.npz", "x.zarr", "--metrics-file", "m.prom")
    assert (code, found["new"], found["generation"]["number"]) == (0, True, 2)
    assert found["n_rows"] == len(X)
    assert "dask_em_passes" in Path("m.prom").read_text()
    before = Path("m.npz").read_bytes()
    assert run("m.npz", "x.zarr")[1]["new"] is False
    told = CliRunner().invoke(main, ["update", "m.npz", "x.zarr"])
    assert (told.exit_code, "nothing new in x.zarr" in told.stdout) == (0, True)
    assert Path("m.npz").read_bytes() == before
    assert not [path for path in here.iterdir() if path.name.startswith(".m.npz")]
    inspected = CliRunner().invoke(main, ["inspect", "m.npz"]).stdout
    assert "generation" in inspected
    assert "1,500" in inspected
    told = json.loads(CliRunner().invoke(main, ["inspect", "m.npz", "--json"]).stdout)
    assert [one["rows"] for one in told["provenance"]["generations"]] == [2500, 1500]


def test_the_command_writes_elsewhere_and_reads_all_again(here: Path) -> None:
    append(here / "x.zarr", NEW)
    before = Path("m.npz").read_bytes()
    code, found = run("m.npz", "x.zarr", "-o", "new.npz", "--forget", "2000rows")
    assert (code, found["model"]) == (0, "new.npz")
    assert found["generation"]["kept"] == pytest.approx(0.5 ** (1500 / 2000))
    assert Path("m.npz").read_bytes() == before
    assert run("m.npz", "x.zarr", "-o", "new.npz")[0] == 73
    code, found = run("m.npz", "x.zarr", "-o", "new.npz", "--overwrite", "--exact")
    assert (code, found["generation"]["rows"], found["generation"]["kept"]) == (0, len(X), 0.0)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["m.npz", "x.zarr", "--forget", "soon"], 2, "expected a half-life"),
        (["m.npz", "x.zarr", "--forget", "1d", "--exact"], 2, "and --exact makes new ones"),
        (["x.zarr", "m.npz"], 2, "the order is MODEL DATA"),
        (["m.npz", "x.zarr", "-o", "x.zarr"], 73, "x.zarr"),
    ],
)
def test_the_command_refuses(words: list[str], code: int, said: str, here: Path) -> None:
    found = run(*words)
    assert (found[0], said in found[1]["error"]["message"]) == (code, True), found


def test_the_command_names_what_changed(here: Path) -> None:
    model().fit("x.zarr").save("m.npz", overwrite=True)
    zarr.open_array("x.zarr", mode="r+")[3] = 1.0
    append(here / "x.zarr", NEW)
    before = Path("m.npz").read_bytes()
    code, found = run("m.npz", "x.zarr")
    assert (code, found["error"]["code"]) == (65, "bad-data")
    assert "pass --exact to read everything again" in found["error"]["message"]
    assert Path("m.npz").read_bytes() == before


def test_a_command_that_was_stopped_is_gone_on_with(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(here / "x.zarr", NEW)
    straight = load("m.npz").update("x.zarr")
    with monkeypatch.context() as patch:
        patch.setattr(update_jobs, "reporter", lambda: StopAfter(20))
        stopped = CliRunner().invoke(main, ["update", "m.npz", "x.zarr"])
    assert stopped.exit_code != 0
    assert Path(".m.npz.update.checkpoint").is_dir()
    before = load("m.npz")
    assert "generations" not in before.provenance_
    code, _ = run("m.npz", "x.zarr")
    assert code == 0
    assert bits(load("m.npz")) == bits(straight)
    assert not Path(".m.npz.update.checkpoint").exists()


def test_an_unfinished_update_of_a_store_that_grew_is_begun_anew(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(here / "x.zarr", NEW[:700])
    with monkeypatch.context() as patch:
        patch.setattr(update_jobs, "reporter", lambda: StopAfter(9))
        assert CliRunner().invoke(main, ["update", "m.npz", "x.zarr"]).exit_code != 0
    append(here / "x.zarr", NEW[700:])
    straight = load("m.npz").update("x.zarr")
    assert run("m.npz", "x.zarr")[0] == 0
    assert bits(load("m.npz")) == bits(straight)
    assert not Path(".m.npz.update.checkpoint").exists()


@pytest.mark.slow
@pytest.mark.parametrize("said", ["survey pass 1", "em pass 1", "em pass 2"])
def test_a_killed_command_ends_with_the_bits_of_a_straight_one(said: str, here: Path) -> None:
    append(here / "x.zarr", NEW)
    shutil.copytree(here, here / "straight")
    words = [sys.executable, "-m", "dask_em.cli", "update", "m.npz", "x.zarr"]
    subprocess.run(words, cwd=here / "straight", check=True, capture_output=True)
    kill_when(said, words, cwd=here)
    # Where it was quicker than the signal there is nothing new.
    subprocess.run(words, cwd=here, check=True, capture_output=True)
    assert bits(load("m.npz")) == bits(load("straight/m.npz"))


# -- what others wrote -------------------------------------------------------------------------


def hostile(change: Callable[[dict[str, Any]], None]) -> GaussianMixture:
    fitted = model().fit(OLD[:200]).update(OLD[200:300])
    change(fitted.provenance_["generations"][0])
    return fitted


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.update(kept=2.0),
        lambda one: one.update(number=0),
        lambda one: one.update(rows=-1),
        lambda one: one.update(stamp="../x"),
        lambda one: one.update(more=1),
        lambda one: one.update(weights=[2.0]),
        lambda one: one.pop("data"),
    ],
)
def test_a_log_that_is_none_is_refused(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="cannot be saved"):
        hostile(change).save(tmp_path / "m.npz")


def test_a_page_tells_of_generations(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    fitted = model().fit(OLD)
    before = fitted.weights_.tolist()
    assert "<h2>Generations</h2>" not in report_html(fitted)
    fitted.update(NEW[:900]).update(NEW[900:])
    log = generations(fitted)
    assert log[0]["weights"] == before
    assert log[-1]["weights"] == fitted.weights_.tolist()
    fitted.save(tmp_path / "m.npz")
    assert generations(load(tmp_path / "m.npz")) == log
    page = report_html(load(tmp_path / "m.npz"))
    assert "<h2>Generations</h2>" in page
    assert "3 generations of 4,000 rows in all" in page
    for one in log:
        assert f'data-value="{float(one["log_likelihood"])!r}"' in page
        assert f"<title>generation {one['number']}: {one['rows']:,} rows</title>" in page
    assert f"<title>component 0: from {percent(before[0])} to" in page
    # A log of an earlier version tells no weights.
    for one in fitted.provenance_["generations"]:
        one.pop("weights")
    assert "Weights over generations" not in report_html(fitted)
    assert "weights" not in generations(fitted.update(NEW[:7] + 0.25))[0]


@pytest.mark.parametrize(
    "sample",
    [
        KeptSample(5, np.zeros((2, 3)), np.ones(2)),
        KeptSample(1, np.zeros((2, 2)), np.ones(2)),
        KeptSample(5, np.full((2, 2), np.nan), np.ones(2)),
        KeptSample(5, np.zeros((2, 2)), np.array([1.0, -1.0])),
        KeptSample(5, np.zeros((0, 2)), np.ones(0)),
    ],
)
def test_a_sample_that_is_none_is_refused(sample: KeptSample, tmp_path: Path) -> None:
    fitted = model().fit(OLD[:200])
    fitted.kept_sample_ = sample
    with pytest.raises(ValueError, match=r"cannot be saved: .* of the sample"):
        fitted.save(tmp_path / "m.npz")


def test_a_file_keeps_what_an_update_needs(here: Path) -> None:
    append(here / "x.zarr", NEW)
    once = load("m.npz").update("x.zarr")
    once.save("n.npz")
    again = load("n.npz")
    assert generations(again) == generations(once)
    assert again.status_ is Status.CONVERGED
    assert bits(again.update(NEW[:40] + 0.5)) == bits(once.update(NEW[:40] + 0.5))
    assert rows_seen(as_source("x.zarr"), []) == 0
