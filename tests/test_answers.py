"""Answers and criteria of a fitted model, for every kind of rows: missing ones, chunks, weights."""

from __future__ import annotations

import json
import logging
import re
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner, Result
from helpers import Tune, blobs, write_zarr
from sklearn.base import clone

from dask_em import GaussianMixture, load, select
from dask_em.cli.main import main
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError, NonFiniteError
from dask_em.jobs import predict as predicting
from dask_em.jobs import report as reporting
from dask_em.jobs import score as scoring
from dask_em.report.drift import chunk_densities
from dask_em.storage.outputs.predictions import Regions

pytestmark = pytest.mark.usefixtures("many_chunks")

N, D, K, CHUNK = 900, 2, 3, 70
X, _, _ = blobs(N, D, K, seed=3, apart=6.0)
HOLES = np.array([4, 5, 333, 780, N - 1])
HOLEY = X.copy()
HOLEY[HOLES, [0, 1, 0, 1, 0]] = [np.nan, np.inf, -np.inf, np.nan, np.nan]
FINITE = np.isfinite(HOLEY).all(axis=1)
WEIGHT = np.arange(N) % 4

ANSWERS = ("predict", "predict_proba", "score_samples")
CRITERIA: tuple[Literal["log_likelihood", "aic", "bic", "icl"], ...] = (
    "log_likelihood", "aic", "bic", "icl",
)  # fmt: skip

Rows = Callable[[Path, np.ndarray], Any]


# -- every kind of rows, or of weights -------------------------------------------------


# Zarr leaves chunks of nothing but zeros out.
WRITE_ALL: Any = {"write_empty_chunks": True}


def stored(folder: Path, rows: np.ndarray) -> str:
    path = folder / f"rows-{len(list(folder.iterdir()))}.zarr"
    write_zarr(path, rows, CHUNK, config=WRITE_ALL)
    return str(path)


def sharded(folder: Path, rows: np.ndarray) -> str:
    path = str(folder / f"rows-{len(list(folder.iterdir()))}.zarr")
    inner, shard = (CHUNK, *rows.shape[1:]), (4 * CHUNK, *rows.shape[1:])
    array = zarr.create_array(
        path, shape=rows.shape, chunks=inner, shards=shard, dtype=rows.dtype, config=WRITE_ALL
    )
    array[:] = rows
    return path


def in_memory(folder: Path, rows: np.ndarray) -> Any:
    array = zarr.create_array(
        {}, shape=rows.shape, chunks=(CHUNK, *rows.shape[1:]), dtype=rows.dtype, config=WRITE_ALL
    )
    array[:] = rows
    return array


def unknown(folder: Path, rows: np.ndarray) -> Any:
    """Blocks of which Dask does not know the lengths."""
    lazy = da.from_array(rows, chunks=(CHUNK, *rows.shape[1:]))
    return lazy[da.ones(len(rows), dtype=bool, chunks=CHUNK)]


def blocks_of_columns(folder: Path, rows: np.ndarray) -> Any:
    return da.from_array(rows, chunks=((7, 400, len(rows) - 407), *((1,) * rows.ndim)[1:]))


def viewed_unevenly(folder: Path, rows: np.ndarray) -> Any:
    chunks = ((11, 650, len(rows) - 661), *((n,) for n in rows.shape[1:]))
    return da.from_zarr(stored(folder, rows), chunks=chunks)


def labelled(folder: Path, rows: np.ndarray) -> Any:
    xarray = pytest.importorskip("xarray")
    return xarray.DataArray(rows, dims=("place", "feature")[: rows.ndim])


def labelled_lazily(folder: Path, rows: np.ndarray) -> Any:
    return labelled(folder, rows).chunk(place=CHUNK)


def masked(folder: Path, rows: np.ndarray) -> Any:
    return np.ma.masked_invalid(rows)


def masked_lazily(folder: Path, rows: np.ndarray) -> Any:
    return da.from_array(masked(folder, rows), chunks=(CHUNK, *rows.shape[1:]))


def pandas_table(folder: Path, rows: np.ndarray) -> Any:
    """Of columns without names, as the model has them; weights are one column."""
    pandas = pytest.importorskip("pandas")
    return (pandas.Series if rows.ndim == 1 else pandas.DataFrame)(rows)


def polars_table(folder: Path, rows: np.ndarray) -> Any:
    polars = pytest.importorskip("polars")
    return (polars.Series if rows.ndim == 1 else polars.DataFrame)(rows)


def arrow_table(folder: Path, rows: np.ndarray) -> Any:
    pa = pytest.importorskip("pyarrow")
    table = pa.table({str(j): column for j, column in enumerate(np.atleast_2d(rows.T))})
    return table.column(0) if rows.ndim == 1 else table


def dask_table(folder: Path, rows: np.ndarray) -> Any:
    dd = pytest.importorskip("dask.dataframe")
    return dd.from_pandas(pandas_table(folder, rows), chunksize=CHUNK)


KINDS: dict[str, Rows] = {
    "numpy": lambda folder, rows: rows,
    "list": lambda folder, rows: rows.tolist(),
    "dask": lambda folder, rows: da.from_array(rows, chunks=(CHUNK, *rows.shape[1:])),
    "dask-columns": blocks_of_columns,
    "dask-unknown": unknown,
    "dask-of-zarr": lambda folder, rows: da.from_zarr(stored(folder, rows)),
    "dask-of-zarr-uneven": viewed_unevenly,
    "zarr": lambda folder, rows: zarr.open_array(stored(folder, rows), mode="r"),
    "zarr-in-memory": in_memory,
    "path": stored,
    "pathlib": lambda folder, rows: Path(stored(folder, rows)),
    "sharded": sharded,
    "xarray": labelled,
    "xarray-dask": labelled_lazily,
    "masked": masked,
    "masked-dask": masked_lazily,
    "pandas": pandas_table,
    "polars": polars_table,
    "arrow": arrow_table,
    "dask-table": dask_table,
}


@pytest.fixture(params=KINDS)
def rows(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[np.ndarray], Any]:
    """Make rows, or weights, of each kind in turn."""
    return lambda values: KINDS[request.param](tmp_path, values)


def lazy(answer: Any) -> Any:
    """An answer, or rows, without labels."""
    if hasattr(answer, "to_dask_array"):
        return answer.to_dask_array(lengths=True)
    return answer.data if hasattr(answer, "coords") else answer


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture(K, random_state=0).fit(X)


@pytest.fixture(scope="module")
def dropping(model: GaussianMixture) -> GaussianMixture:
    """One that was fitted to rows of which some were left out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows that hold NaN or infinity were left out")
        return GaussianMixture(K, random_state=0, nonfinite="drop").fit(HOLEY)


# -- rows without an answer ------------------------------------------------------------


@pytest.mark.parametrize("answer", ANSWERS)
def test_rows_left_out_of_the_fit_have_no_answer_and_are_counted(
    answer: str, dropping: GaussianMixture, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dask_em"):
        found = np.asarray(getattr(dropping, answer)(rows(HOLEY)))
    np.testing.assert_allclose(found[FINITE], getattr(dropping, answer)(X[FINITE]), atol=1e-12)
    if answer == "predict":
        assert found.dtype == np.int64
        assert (found[HOLES] == -1).all()
    else:
        assert np.isnan(found[HOLES]).all()
    counts = re.findall(r"(\d+) of \d+ rows hold NaN or infinity and have no answer", caplog.text)
    assert sum(map(int, counts)) == len(HOLES)


def test_criteria_are_of_the_other_rows(
    dropping: GaussianMixture, rows: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "dask_em"):
        found = dropping.criteria(rows(HOLEY))
    expected = dropping.criteria(X[FINITE])
    assert (found["n_rows"], found["n_dropped"]) == (FINITE.sum(), len(HOLES))
    assert expected["n_dropped"] == 0
    for name in CRITERIA:
        assert found[name] == pytest.approx(expected[name], rel=1e-10)
    assert f"{len(HOLES)} rows that hold NaN or infinity were left out" in caplog.text


def test_the_drift_is_of_the_other_rows(
    dropping: GaussianMixture, model: GaussianMixture, rows: Any
) -> None:
    given = rows(HOLEY)
    found = chunk_densities(dropping, given)
    assert (found.n_rows.sum(), found.n_dropped.sum()) == (N, len(HOLES))
    with pytest.raises(NonFiniteError, match='set_params\\(nonfinite="drop"\\)'):
        chunk_densities(model, given)


@pytest.mark.filterwarnings("ignore:.*rows that hold NaN or infinity were left out")
def test_fit_predict_labels_what_it_fitted(rows: Any) -> None:
    found = np.asarray(
        GaussianMixture(K, random_state=0, nonfinite="drop").fit_predict(rows(HOLEY))
    )
    np.testing.assert_array_equal(found == -1, ~FINITE)


@pytest.mark.parametrize("ask", [*ANSWERS, "criteria"])
def test_without_leave_to_drop_the_row_is_named_and_the_advice_works(
    ask: str, model: GaussianMixture, rows: Any
) -> None:
    given, again = rows(HOLEY), load_again(model)
    with pytest.raises(NonFiniteError) as caught:
        np.asarray(getattr(again, ask)(given))
    # Chunks are read by several threads, so that any may be the first.
    blocks = lazy(given).chunks[0] if isinstance(lazy(given), da.Array) else ()
    assert row_in(str(caught.value), np.nan_to_num(blocks, nan=CHUNK)) in HOLES
    assert 'set_params(nonfinite="drop")' in str(caught.value)
    assert "HistGradientBoosting" not in str(caught.value)
    again.set_params(nonfinite="drop")
    if ask == "criteria":
        assert again.criteria(given)["n_dropped"] == len(HOLES)
    else:
        assert np.isfinite(np.asarray(getattr(again, ask)(given))).any()


def row_in(message: str, blocks: Any = ()) -> int:
    """The row of the data that an error names."""
    (found,) = re.findall(r"X contains (?:NaN|infinity) at row (\d+)(?: of block (\d+))?,", message)
    row, block = found
    return int(row) + (int(np.sum(blocks[: int(block)])) if block else 0)


def load_again(model: GaussianMixture) -> GaussianMixture:
    """The same fit, whose options a test may change."""
    return GaussianMixture.from_saved(model.to_saved())


def test_a_weight_is_named_by_its_row_beside_rows_that_are_left_out(rows: Any) -> None:
    weight = np.ones(N)
    weight[[6, 500]] = -1
    with pytest.raises(DataError, match=r"the first -1 at row 6[ ;]"):
        GaussianMixture(K, nonfinite="drop").fit(rows(HOLEY), sample_weight=rows(weight))


def test_nothing_but_rows_left_out_is_an_error(dropping: GaussianMixture) -> None:
    nothing = np.full((3, D), np.nan)
    assert dropping.predict(nothing).tolist() == [-1] * 3
    with pytest.raises(DataError, match="NaN or infinity in every row"):
        dropping.score(nothing)


# -- what is read goes with the model --------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in KINDS if "zarr" in k or "path" in k])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_model_fitted_to_missing_chunks_reads_them_again(kind: str, tmp_path: Path) -> None:
    if kind == "zarr-in-memory":
        pytest.skip("nothing is missing there")
    filled = X.copy()
    filled[2 * CHUNK : 3 * CHUNK] = 0
    data = KINDS[kind](tmp_path, filled)
    (store,) = tmp_path.glob("*.zarr")
    (store / "c/2/0").unlink()
    GaussianMixture(K, random_state=0, missing_chunks="fill").fit(data).save(tmp_path / "m.npz")
    model = load(tmp_path / "m.npz")
    for answer in ANSWERS:
        found, expected = getattr(model, answer)(data), getattr(model, answer)(filled)
        np.testing.assert_allclose(np.asarray(found), expected, atol=1e-12)
    assert model.bic(data) == pytest.approx(model.bic(filled))
    model.set_params(missing_chunks="error")
    for ask in (*ANSWERS, "score"):
        with pytest.raises(DataError, match=r"lacks chunk 2"):
            np.asarray(getattr(model, ask)(data))


def test_how_data_are_read_is_in_the_file(dropping: GaussianMixture, tmp_path: Path) -> None:
    dropping.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert again.read_options == ReadOptions(nonfinite="drop")
    np.testing.assert_array_equal(again.predict(HOLEY), dropping.predict(HOLEY))


def test_a_file_that_does_not_say_it_is_of_the_defaults(model: GaussianMixture) -> None:
    saved = model.to_saved()
    silent = {n: v for n, v in saved.options.items() if n not in ("nonfinite", "missing_chunks")}
    older = {n: v for n, v in saved.provenance.items() if n != "weight"}
    old = GaussianMixture.from_saved(replace(saved, options=silent, provenance=older))
    assert old.read_options == ReadOptions()
    assert old.criteria(X) == model.criteria(X)
    first = load(Path(__file__).parent / "data" / "model-0.1.0-full.npz")
    assert first.read_options == ReadOptions()


# -- answers line up with their rows ---------------------------------------------------


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("of", ["model", "dropping"])
def test_answers_have_the_chunks_of_their_rows(
    answer: str, of: str, rows: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    asked = request.getfixturevalue(of)
    given = rows(X)
    found = lazy(getattr(asked, answer)(given))
    if isinstance(found, np.ndarray):
        return
    blocks = lazy(given)
    if not isinstance(blocks, da.Array):
        blocks = da.from_zarr(blocks)
    if not np.isnan(blocks.shape[0]):
        assert found.chunks[0] == blocks.chunks[0]
    if found.ndim == 2:
        assert found.chunks[1] == (K,)
        found = found[:, 0]
    # What a user would do: a function of rows and their answers, block by block.
    together = da.map_blocks(
        beside, blocks.rechunk({1: -1}), found[:, None], chunks=(blocks.chunks[0], (D + 1,))
    )
    expected = getattr(asked, answer)(X).reshape(N, -1)[:, :1]
    np.testing.assert_allclose(together.compute(), np.hstack([X, expected]), atol=1e-12)


def beside(X: np.ndarray, values: np.ndarray) -> np.ndarray:
    assert len(X) == len(values)
    return np.hstack([X, values])


def test_a_block_of_answers_reads_its_own_chunk_only(
    model: GaussianMixture, tmp_path: Path, tune: Any
) -> None:
    path = Path(stored(tmp_path, X))
    tune(reading={"bytes": 2 * CHUNK * D * 8})
    labels, expected = model.predict(path), model.predict(X)
    (path / "c/8/0").unlink()
    np.testing.assert_array_equal(labels.blocks[1].compute(), expected[CHUNK : 2 * CHUNK])
    with pytest.raises(DataError, match="lacks chunk 8"):
        labels.compute()


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_of_a_dask_table_have_its_index(answer: str, model: GaussianMixture) -> None:
    pandas, dd = pytest.importorskip("pandas"), pytest.importorskip("dask.dataframe")
    again = load_again(model).set_params(nonfinite="drop")
    expected = getattr(again, answer)(HOLEY)
    table = pandas.DataFrame(HOLEY, index=np.arange(N) * 3 + 7)
    known = dd.from_pandas(table, npartitions=5)
    # As files are read: nobody knows the divisions, and the index begins again in each.
    repeated = dd.from_pandas(table.set_index(np.arange(N) % 7), npartitions=5, sort=False)
    for given in (known, known.clear_divisions(), repeated):
        found = getattr(again, answer)(given)
        assert found.divisions == given.divisions
        assert found.compute().index.equals(given.compute().index)
        np.testing.assert_array_equal(found.compute().to_numpy(), expected)
        # As an own column beside the rows.
        one = found if expected.ndim == 1 else found[0]
        beside_rows = given.assign(answer=one).compute()
        np.testing.assert_array_equal(beside_rows["answer"], expected.reshape(N, -1)[:, 0])
    some = given[given[0] > 0]
    assert getattr(again, answer)(some).compute().index.equals(some.compute().index)


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_of_a_table_in_memory_are_one_where_that_is_asked_for(
    answer: str, model: GaussianMixture
) -> None:
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    pa = pytest.importorskip("pyarrow")
    expected = getattr(model, answer)(X)
    table = pandas.DataFrame(X, index=np.arange(N) * 3 + 7)
    assert isinstance(getattr(model, answer)(table), np.ndarray)
    found = getattr(model, answer)(table, as_frame=True)
    assert found.index.equals(table.index)
    np.testing.assert_array_equal(found.to_numpy(), expected)
    kinds = (polars.Series, pa.ChunkedArray) if expected.ndim == 1 else (polars.DataFrame, pa.Table)
    for kind, given in zip(kinds, (polars.DataFrame(X), arrow_table(Path(), X)), strict=True):
        found = getattr(model, answer)(given, as_frame=True)
        assert isinstance(found, kind)
        np.testing.assert_array_equal(np.asarray(found), expected)
    with pytest.raises(ValueError, match="as_frame=True: X is a ndarray, expected a table"):
        getattr(model, answer)(X, as_frame=True)


# -- weights ---------------------------------------------------------------------------


def test_a_row_of_weight_w_is_w_rows(model: GaussianMixture, rows: Any) -> None:
    data, weight = rows(X), rows(WEIGHT.astype(float))
    found = model.criteria(data, sample_weight=weight)
    expected = model.criteria(np.repeat(X, WEIGHT, axis=0))
    assert found["weight"] == expected["weight"] == expected["n_rows"] == WEIGHT.sum()
    assert found["n_rows"] == N
    for name in CRITERIA:
        assert found[name] == pytest.approx(expected[name], rel=1e-10)
    assert model.score(data, sample_weight=weight) == found["log_likelihood"]
    for name in ("aic", "bic", "icl"):
        assert getattr(model, name)(data, sample_weight=weight) == found[name]
    assert abs(model.bic(data) / found["bic"] - 1) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_any_kind_go_with_rows_of_any_other(
    kind: str, model: GaussianMixture, tmp_path: Path
) -> None:
    weight = KINDS[kind](tmp_path, WEIGHT.astype(float))
    expected = model.criteria(X, sample_weight=WEIGHT)
    for other in ("dask", "path"):
        if kind in ("dask-unknown", "dask-table") and other == "path":
            continue
        found = model.criteria(KINDS[other](tmp_path, X), sample_weight=weight)
        assert found == pytest.approx(expected)


def test_a_row_of_weight_zero_is_left_out_whatever_it_holds(
    model: GaussianMixture, rows: Any
) -> None:
    found = model.criteria(rows(HOLEY), sample_weight=rows(FINITE.astype(float)))
    assert found["bic"] == pytest.approx(model.bic(X[FINITE]))


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused(bad: float, model: GaussianMixture, rows: Any) -> None:
    weight = np.ones(N)
    weight[[3, 500]] = bad
    said = r"sample_weight has 2 entries that are negative, NaN .*, the first \S+ at row 3[ ;]"
    for ask in (model.score, clone(model).fit):
        with pytest.raises(DataError, match=said):
            ask(rows(X), sample_weight=rows(weight))
    with pytest.raises(DataError, match="sample_weight is zero for every row"):
        model.score(rows(X), sample_weight=rows(np.zeros(N)))


def test_criteria_of_a_weighted_fit_say_that_they_lack_the_weights(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    fitted = GaussianMixture(K, random_state=0).fit(X, sample_weight=WEIGHT)
    assert fitted.provenance_["weight"] == WEIGHT.sum()
    fitted.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    with caplog.at_level(logging.INFO, "dask_em"):
        again.bic(X, sample_weight=WEIGHT)
        assert "sample_weight" not in caplog.text
        again.bic(X)
    assert "here each row counts once: pass sample_weight to count them" in caplog.text


def test_a_sweep_counts_weights_as_criteria_do() -> None:
    found = select(
        X, [2, 3], ["full", "diag"], random_state=0, sample_weight=WEIGHT, exhaustive=True,
        keep_all=True, tol=1e-8,
    )  # fmt: skip
    for row, fitted in zip(found.table, found.models, strict=True):
        of_weights, of_rows = fitted.criteria(X, WEIGHT), fitted.criteria(X)
        for name in ("aic", "bic", "icl"):
            assert row[name] == pytest.approx(of_weights[name], rel=1e-5)
            assert row[name] != pytest.approx(of_rows[name], rel=1e-2)


# -- the commands ----------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs run in this process, without a cluster."""
    for job in (predicting, reporting, scoring):
        monkeypatch.setattr(job, "workers_for", lambda where, nbytes: nullcontext())


def run(*given: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in given])


def told(*given: object) -> dict[str, Any]:
    result = run(*given, "--json")
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


COMMANDS = {
    "predict": "predict m.npz rows-0.zarr answers.zarr --proba --log-density",
    "score": "score m.npz rows-0.zarr",
    "report": "report m.npz report.html --data rows-0.zarr",
}


@pytest.fixture
def folder(tmp_path: Path, here: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=COMMANDS)
def command(request: pytest.FixtureRequest) -> list[str]:
    """Each command that applies a model, to the data of the fit."""
    if request.param == "report":
        pytest.importorskip("matplotlib")
    return COMMANDS[request.param].split()


def fitted_to(folder: Path, rows: np.ndarray, **options: Any) -> GaussianMixture:
    """A model in a file, fitted to rows in a store."""
    data = stored(folder, rows)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* rows that hold NaN or infinity were left out")
        model = GaussianMixture(K, random_state=0, **options).fit(data)
    model.save(folder / "m.npz")
    return model


def test_commands_leave_out_and_count_what_the_fit_did(command: list[str], folder: Path) -> None:
    model = fitted_to(folder, HOLEY, nonfinite="drop")
    refused = run(*command, "--nonfinite", "error")
    assert refused.exit_code == 65
    assert row_in(refused.stderr) in HOLES
    found = told(*command)
    assert found["n_dropped"] == len(HOLES)
    if command[0] == "score":
        assert found["n_rows"] == FINITE.sum()
        assert found["bic"] == pytest.approx(model.bic(X[FINITE]))
    if command[0] == "predict":
        written: Any = zarr.open_group("answers.zarr", mode="r")
        np.testing.assert_array_equal(written["labels"][:], model.predict(HOLEY))
        np.testing.assert_allclose(written["proba"][:], model.predict_proba(HOLEY))
        np.testing.assert_allclose(written["log_density"][:], model.score_samples(HOLEY))
    if command[0] == "report":
        assert found["n_rows_drawn"] == FINITE.sum()
        assert f"{len(HOLES)} rows that hold NaN" in Path("report.html").read_text()


def test_the_advice_of_a_command_is_an_option_of_it(command: list[str], folder: Path) -> None:
    fitted_to(folder, X)
    zarr.open_array("rows-0.zarr", mode="r+")[:] = HOLEY
    Path("rows-0.zarr/c/2/0").unlink()
    said = []
    while (result := run(*command, "--json")).exit_code:
        assert result.exit_code == 65
        advice, *others = re.findall(
            r"(--[a-z-]+ [a-z]+)", json.loads(result.stdout)["error"]["message"]
        )
        assert set(others) <= {"--missing-values mar"}
        assert advice not in said
        said.append(advice)
        command += advice.split()
    assert sorted(said) == ["--missing-chunks fill", "--nonfinite drop"]
    assert json.loads(result.stdout)["n_dropped"] == len(HOLES)


@pytest.fixture
def half_done(folder: Path, tune: Tune) -> list[str]:
    """A command whose last run left out rows, and had room for the answers of some regions."""
    fitted_to(folder, HOLEY, nonfinite="drop")
    tune(reading={"bytes": CHUNK * D * 8})
    mark = Regions.mark

    def with_little_room(self: Regions, chunks: range, n_dropped: int) -> None:
        if len(self.folder.names()) >= 6:
            raise OSError("no space left")
        mark(self, chunks, n_dropped)

    with dask.config.set(scheduler="synchronous"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Regions, "mark", with_little_room)
        assert run(*COMMANDS["predict"].split()).exit_code == 74
    return COMMANDS["predict"].split()


def test_rows_left_out_by_an_earlier_run_are_counted(half_done: list[str]) -> None:
    found = told(*half_done)
    assert 0 < found["n_rows_kept"] < N
    assert found["n_dropped"] == len(HOLES)


def test_rows_left_out_by_an_earlier_run_are_an_error_where_they_are_now(
    half_done: list[str],
) -> None:
    result = run(*half_done, "--nonfinite", "error")
    assert result.exit_code == 65
    assert row_in(result.stderr) in HOLES[:-1]


def test_score_says_which_weights_it_used(folder: Path) -> None:
    data, weights = stored(folder, X), stored(folder, WEIGHT.astype(float))
    model = GaussianMixture(K, random_state=0).fit(data, sample_weight=weights)
    model.save("m.npz")
    found = told("score", "m.npz", data, "--weights", weights)
    assert (found["weights"], found["weight"]) == (weights, WEIGHT.sum())
    assert found["bic"] == pytest.approx(model.bic(np.repeat(X, WEIGHT, axis=0)))
    shown = run("score", "m.npz", data, "--weights", weights).stdout
    assert f"sum 1,350, of {weights}" in shown
    found = told("score", "m.npz", data)
    assert (found["weights"], found["weight"]) == (None, N)
    assert "none: each row counts once" in run("score", "m.npz", data).stdout
