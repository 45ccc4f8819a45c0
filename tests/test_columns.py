"""Columns by name: chosen in a fit, found again by whatever is done with the model."""

from __future__ import annotations

import json
import logging
import re
import tracemalloc
from ast import literal_eval
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import blobs, digest, write_zarr
from sklearn.base import clone

from dask_em import GaussianMixture, load, select
from dask_em.cli.fit import fit as fit_command
from dask_em.cli.main import main
from dask_em.cli.words import in_shell
from dask_em.core.columns import Column
from dask_em.data.columns import WeightColumn, choose
from dask_em.data.open import as_source
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError, UsageError

NAMES = ("id", "flux_g", "flux_r", "size", "w")
TABLE = [Column(name) for name in NAMES]


# -- which columns are chosen ----------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "weight", "chosen"),
    [
        ({}, None, NAMES),
        ({}, "w", NAMES[:-1]),
        ({"columns": ["size", "flux_g"]}, None, ("size", "flux_g")),
        ({"columns": "flux_*"}, None, ("flux_g", "flux_r")),
        ({"columns": ["flux_r", "flux_*"]}, None, ("flux_r", "flux_g")),
        ({"columns": ["[sw]*"]}, "w", ("size",)),
        ({"exclude": ["id", "?"]}, None, ("flux_g", "flux_r", "size")),
        ({"columns": ["flux_*", "size"], "exclude": "*_r"}, None, ("flux_g", "size")),
        ({"fitted": ["size", "id"], "columns": "flux_*"}, None, ("size", "id")),
    ],
)
def test_columns_are_those_that_are_named_in_that_order(
    given: dict[str, Any], weight: str | None, chosen: tuple[str, ...]
) -> None:
    found = choose(TABLE, ReadOptions.of(**given), None if weight is None else WeightColumn(weight))
    assert found.names == chosen
    assert tuple(NAMES[j] for j in found.numbers) == chosen
    assert found.weight == (None if weight is None else NAMES.index(weight))


@pytest.mark.parametrize(
    ("given", "weight", "said"),
    [
        ({"columns": "flux_G"}, None, r"columns='flux_G' is no column of X: did you mean 'flux_g'"),
        ({"exclude": "sizes"}, None, r"exclude='sizes' is no column of X: did you mean 'size'\?"),
        ({"columns": "mag_*"}, None, r"columns='mag_\*' matches no column of X: .* 'id', 'flux_g'"),
        ({"exclude": "*"}, None, r"leave no column of X, which has 'id'"),
        ({"fitted": ["size", "colour"]}, None, r"X lacks .* the model was fitted to, 'colour'"),
        ({}, "weight", "the weights 'weight' are no path and no column of X"),
    ],
)
def test_a_column_that_is_not_there_is_named(
    given: dict[str, Any], weight: str | None, said: str
) -> None:
    with pytest.raises(DataError, match=said):
        choose(TABLE, ReadOptions.of(**given), None if weight is None else WeightColumn(weight))


def test_two_columns_of_one_name_are_refused() -> None:
    with pytest.raises(DataError, match="several columns of one name, 'id': rename them"):
        choose([*TABLE, Column("id")], ReadOptions())


def test_a_name_with_brackets_is_that_name() -> None:
    columns = [Column("v"), Column("v[km/s]"), Column("v*")]
    assert choose(columns, ReadOptions.of(columns="v[km/s]")).numbers == (1,)
    assert choose(columns, ReadOptions.of(columns="v*")).numbers == (2,)
    assert choose(columns, ReadOptions(fitted=("v*", "v[km/s]"))).numbers == (2, 1)


def test_columns_beside_those_of_the_model_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "dask_em"):
        choose(TABLE, ReadOptions(fitted=("size", "flux_g", "flux_r")), WeightColumn("w"))
    assert caplog.messages == ["columns of X that the model was not fitted to are ignored: 'id'"]


@pytest.mark.parametrize(
    "given", [{"columns": 3}, {"columns": ["a", 3]}, {"exclude": ["a", "a"]}, {"columns": [""]}]
)
def test_what_is_no_name_is_refused(given: dict[str, Any]) -> None:
    (name,) = given
    with pytest.raises(UsageError, match=f"{name}="):
        ReadOptions.of(**given)
    with pytest.raises(ValueError, match=f"{name}="):
        GaussianMixture(1, **given).fit(np.eye(5, 2))


# -- how data are read goes with the model ---------------------------------------------

READING: dict[str, Any] = {
    "columns": ["b", "a*"], "exclude": "ab", "features": "band", "raw": True,
}  # fmt: skip


def test_columns_by_name_need_names() -> None:
    for given in (GaussianMixture(1, columns="a"), GaussianMixture(1, exclude="a")):
        with pytest.raises(DataError, match=r"=\['a'\]: the columns of X have no names"):
            given.fit(np.eye(5, 2))


def test_options_of_reading_are_parameters_and_in_the_file(tmp_path: Path) -> None:
    model = GaussianMixture(1, random_state=0).fit(np.random.default_rng(0).normal(size=(50, 2)))
    assert model.read_options == ReadOptions()
    model.set_params(**READING)
    assert clone(model).get_params() == model.get_params()
    expected = ReadOptions(columns=("b", "a*"), exclude=("ab",), features="band", raw=True)
    assert model.read_options == expected
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert again.read_options == expected
    assert again.identity(again.engine()) == model.identity(model.engine())
    again.set_params(columns=None)
    assert again.read_options == replace(expected, columns=())
    # A list of another library is one, too.
    assert clone(model).set_params(columns=np.array(["b"])).read_options.columns == ("b",)


def test_the_options_of_reading_tell_fits_apart() -> None:
    identities = []
    for name, value in READING.items():
        model = GaussianMixture(1, **{name: value})
        identities.append(model.identity(model.engine()))
    assert all(a != b for i, a in enumerate(identities) for b in identities[:i])


# -- in a shell ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["fit", "plan", "doctor", "predict", "score", "report"])
def test_every_command_that_reads_takes_the_options(command: str) -> None:
    params = {name: p for p in main.commands[command].params for name in p.opts}
    assert {"--columns", "--exclude", "--features", "--raw"} <= params.keys()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("leave it out by exclude='id'", "leave it out by --exclude id"),
        ("by exclude=['id', 'my name']", "by --exclude 'id,my name'"),
        ("columns='a,b'", "--columns '\"a,b\"'"),
        ("raw=True", "--raw"),
        ("pass features='band'", "pass --features band"),
    ],
)
def test_messages_name_the_options(message: str, said: str) -> None:
    assert in_shell(message, fit_command) == said


def test_names_with_a_comma_are_quoted() -> None:
    (option,) = [p for p in fit_command.params if "--columns" in p.opts]
    assert option.type.convert('a, "b,c",d', option, None) == ("a", "b,c", "d")
    words = ["fit", "x.zarr", "-k", "2", "-o", "m.npz", "--columns", "a,,b"]
    refused = CliRunner().invoke(main, words)
    assert (refused.exit_code, "expected names such as a,b,c" in refused.stderr) == (2, True)


def test_inspect_names_the_columns(tmp_path: Path) -> None:
    path = str(tmp_path / "m.npz")
    GaussianMixture(1, random_state=0).fit(pandas_table(columns("a", "b"))).save(path)
    assert "\ncolumns  a, b\n" in CliRunner().invoke(main, ["inspect", path]).stdout
    told = json.loads(CliRunner().invoke(main, ["inspect", path, "--json"]).stdout)
    assert told["columns"] == ["a", "b"]


def test_a_table_of_components_has_their_columns_and_sizes(tmp_path: Path) -> None:
    """`fit` ends with it, `inspect` shows the same, and of many columns those that tell most."""
    rng = np.random.default_rng(0)
    names = [f"quiet {j}" for j in range(9)]
    rows = {name: rng.normal(size=900) for name in names} | {
        "apart": np.repeat([0.0, 50.0, 90.0], 300) + rng.normal(size=900),
        "a name that is far too long for a terminal": np.repeat([0.0, 9.0, 9.0], 300)
        + rng.normal(size=900),
    }
    pandas_table(rows).to_parquet(tmp_path / "x.parquet")
    words = ["fit", str(tmp_path / "x.parquet"), "-k", "3", "-o", str(tmp_path / "m.npz")]
    fitted = CliRunner().invoke(main, [*words, "--covariance", "diag"])
    assert fitted.exit_code == 0, fitted.stderr
    head, *components, notes = fitted.stdout.splitlines()[-5:]
    assert notes == "mean (standard deviation); the 6 of 11 columns that differ most"
    assert head.split()[:3] == ["component", "weight", "rows"]
    assert "apart" in head
    assert "a name that is fa..." in head
    model = load(tmp_path / "m.npz")
    for k, line in enumerate(components):
        number, weight, size = line.split()[:3]
        assert (int(number), float(weight)) == (k, round(float(model.weights_[k]), 4))
        assert float(size) == pytest.approx(300, abs=3)
        j = 9
        mean, deviation = model.means_[k, j], np.sqrt(model.covariances_[k, j])
        assert f"{mean:.4g} ({deviation:.3g})" in line
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.npz")]).stdout
    assert shown.splitlines()[-5:] == [head, *components, notes]
    for command in (["inspect", str(tmp_path / "m.npz")], [*words, "--overwrite"]):
        told = json.loads(CliRunner().invoke(main, [*command, "--json"]).stdout)
        assert sum(told["sizes"]) == pytest.approx(900)


# -- tables ----------------------------------------------------------------------------

X, _, _ = blobs(600, 3, 2, seed=5)
WEIGHT = np.arange(600) % 4


def pandas_table(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("pandas").DataFrame(columns)


def dask_table(columns: dict[str, Any]) -> Any:
    dd = pytest.importorskip("dask.dataframe")
    return dd.from_pandas(pandas_table(columns), npartitions=3)


def polars_table(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("polars").from_pandas(pandas_table(columns))


def arrow_table(columns: dict[str, Any]) -> Any:
    return pytest.importorskip("pyarrow").Table.from_pandas(pandas_table(columns))


def labelled(columns: dict[str, Any]) -> Any:
    xarray = pytest.importorskip("xarray")
    names = list(columns)
    return xarray.DataArray(
        np.stack([columns[name] for name in names], axis=1),
        {"feature": names},
        ("row", "feature"),
    )


TABLES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "pandas": pandas_table,
    "polars": polars_table,
    "arrow": arrow_table,
    "dask": dask_table,
}
NAMED = {**TABLES, "xarray": labelled}


def columns(*names: str, **more: Any) -> dict[str, Any]:
    """Columns a, b, c of X, in the order that is wanted, and others."""
    return {name: X[:, "abc".index(name)] for name in names} | more


@pytest.fixture(scope="module")
def reference() -> GaussianMixture:
    return GaussianMixture(2, random_state=0).fit(X)


@pytest.mark.parametrize("kind", NAMED)
def test_the_same_rows_are_the_same_fit(kind: str, reference: GaussianMixture) -> None:
    model = GaussianMixture(2, random_state=0).fit(NAMED[kind](columns("a", "b", "c")))
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    if kind == "dask":
        reference = GaussianMixture(2, random_state=0).fit(da.from_array(X, chunks=200))
    assert digest(model) == digest(reference)


@pytest.mark.parametrize("kind", NAMED)
def test_a_model_finds_its_columns_wherever_they_are(
    kind: str, reference: GaussianMixture, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table = NAMED[kind]
    # Pandas' tables that were not told their columns are scikit-learn's: see below.
    told = ["a", "b", "c"] if kind == "pandas" else None
    fitted = GaussianMixture(2, random_state=0, columns=told).fit(table(columns("a", "b", "c")))
    fitted.save(tmp_path / "m.npz")
    for model in (fitted, load(tmp_path / "m.npz")):
        caplog.clear()
        with caplog.at_level(logging.INFO, "dask_em"):
            found = model.predict(table(columns("c", "a", "b", more=WEIGHT)))
        assert "the model was not fitted to are ignored: 'more'" in caplog.text
        in_order = model.predict(table(columns("a", "b", "c")))
        np.testing.assert_array_equal(np.asarray(found), np.asarray(in_order))
        assert model.score(table(columns("b", "c", "a"))) == pytest.approx(reference.score(X))
        with pytest.raises(DataError, match="X lacks columns that the model was fitted to, 'b'"):
            model.predict(table(columns("a", "c", B=WEIGHT)))


def test_a_pandas_table_in_another_order_is_refused_as_scikit_learn_does() -> None:
    model = GaussianMixture(2, random_state=0).fit(pandas_table(columns("a", "b", "c")))
    turned = pandas_table(columns("c", "b", "a", more=WEIGHT))
    with pytest.raises(DataError, match="in another order") as e:
        model.predict(turned)
    (advice,) = re.findall(r"pass (X\[.*?\])", str(e.value))
    expected = model.predict(pandas_table(columns("a", "b", "c")))
    found = model.predict(eval(advice, {"X": turned, "model": model}))
    np.testing.assert_array_equal(found, expected)
    # Other columns beside them are no other order.
    beside = pandas_table(columns("a", "b", more=WEIGHT) | columns("c"))
    np.testing.assert_array_equal(model.predict(beside), expected)
    with pytest.raises(DataError, match=r"(?s)X lacks .*'b'.*Feature names seen at fit time"):
        model.predict(pandas_table(columns("a", "c")))


@pytest.mark.parametrize("kind", NAMED)
def test_a_fit_takes_the_columns_that_it_is_told(kind: str) -> None:
    table = NAMED[kind](columns("a", "b", "c", junk=WEIGHT))
    expected = GaussianMixture(2, random_state=0).fit(NAMED[kind](columns("c", "a")))
    choices: list[dict[str, Any]] = [
        {"columns": ["c", "a"]}, {"columns": ["c", "*"], "exclude": ["b", "j*"]}
    ]  # fmt: skip
    for told in choices:
        model = GaussianMixture(2, random_state=0).set_params(**told).fit(table)
        assert model.feature_names_in_.tolist() == ["c", "a"]
        assert digest(model) == digest(expected)
        found = np.asarray(model.predict(table))
        given = NAMED[kind](columns("c", "a"))
        np.testing.assert_array_equal(found, np.asarray(expected.predict(given)))


def test_a_nan_is_named_by_its_column_in_every_answer() -> None:
    holey = X.copy()
    holey[223, 1] = np.nan
    model = GaussianMixture(2, random_state=0).fit(pandas_table(columns("a", "b", "c")))
    for kind, where in (("pandas", "row 223"), ("dask", "row 23 of block 1"), ("arrow", "row 223")):
        table = TABLES[kind](columns("a", "b", "c") | {"b": holey[:, 1]})
        for ask in (model.predict, model.score_samples, model.score, clone(model).fit):
            with pytest.raises(DataError, match=rf"NaN at {where}, column 'b'"):
                np.asarray(ask(table))


# -- what columns hold -----------------------------------------------------------------

TYPES: dict[str, tuple[Any, list[float]]] = {
    "bool": ([True, False] * 300, [1, 0]),
    "int8": (np.array([1, -2] * 300, "i1"), [1, -2]),
    "uint64": (np.array([1, 2**53] * 300, "u8"), [1, 2**53]),
    "float32": (np.array([0.5, np.nan] * 300, "f4"), [0.5, np.nan]),
    "big-endian": (np.array([1, 2] * 300, ">i4"), [1, 2]),
    "decimal": ([Decimal("1.5"), None] * 300, [1.5, np.nan]),
    "nullable int": (("Int64", [3, None] * 300), [3, np.nan]),
    "nullable bool": (("boolean", [True, None] * 300), [1, np.nan]),
    "arrow int": (("int64[pyarrow]", [3, None] * 300), [3, np.nan]),
    "numbers as categories": (("category", [4, 7] * 300), [4, 7]),
}


OF_OTHER_BYTES = (("polars", "big-endian"), ("arrow", "big-endian"))


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("name", TYPES)
def test_numbers_of_any_type_are_read_and_missing_ones_are_nan(name: str, kind: str) -> None:
    given, expected = TYPES[name]
    if (kind, name) in (("polars", "numbers as categories"), *OF_OTHER_BYTES):
        pytest.skip(f"{kind} has none")
    if kind == "dask" and name == "decimal":
        pytest.skip("Dask takes Python's objects for text")
    if isinstance(given, tuple):
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        given = pandas.array(given[1], dtype=given[0])
    source = as_source(TABLES[kind]({"a": X[:, 0], "n": given}))
    assert source.columns is not None
    assert [column.name for column in source.columns] == ["a", "n"]
    rows = source.reader().read(0)[0]
    np.testing.assert_array_equal(rows[:2], np.column_stack([X[:2, 0], expected]))


@pytest.mark.parametrize("kind", TABLES)
def test_columns_that_hold_no_numbers_are_named_and_the_advice_works(kind: str) -> None:
    pandas = pytest.importorskip("pandas")
    when = pandas.date_range("2020-01-01", periods=600)
    table = TABLES[kind](columns("a", "b", text=["x"] * 600, when=when, late=when - when[0]))
    with pytest.raises(DataError, match=r"no numbers, text \(.*\), when \(.*\), late") as e:
        GaussianMixture(2).fit(table)
    (names,) = re.findall(r"by exclude=(\[.*?\])", str(e.value))
    model = GaussianMixture(2, random_state=0, exclude=literal_eval(names)).fit(table)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(DataError, match=r"no numbers, b \(.*\): make numbers of them"):
        model.predict(TABLES[kind](columns("a", b=["x"] * 600)))
    with pytest.raises(DataError, match=r"sample_weight has columns that hold no numbers, text"):
        model.fit(table, sample_weight="text")


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize("value", [2**53 + 1, -(2**60)])
def test_integers_beyond_those_of_float64_are_refused_by_column(kind: str, value: int) -> None:
    numbers = np.arange(600)
    numbers[321] = value
    with pytest.raises(DataError, match=rf"column 'ID' holds {value} at row \d+") as e:
        np.asarray(GaussianMixture(2).fit(TABLES[kind](columns("a", ID=numbers))))
    (advice,) = re.findall(r"by exclude='(\w+)'", str(e.value))
    GaussianMixture(2, exclude=advice).fit(TABLES[kind](columns("a", ID=numbers)))


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1])
@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_they_are_refused_beside_missing_ones_too(library: str, value: int) -> None:
    module = pytest.importorskip(library)
    numbers = [None, value, *range(600)]
    tables = {
        "pandas": lambda: module.DataFrame({"ID": module.array(numbers, dtype="Int64")}),
        "polars": lambda: module.DataFrame({"ID": numbers}),
        "pyarrow": lambda: module.table({"ID": numbers}),
    }
    with pytest.raises(DataError, match=r"column 'ID' holds about -?9007199254740992 at row 1,"):
        GaussianMixture(2, nonfinite="drop").fit(tables[library]())


@pytest.mark.parametrize("kind", TABLES)
@pytest.mark.parametrize(
    "types", [("f8",), ("f4",), ("f8", "f4", "i2"), ("u1", "i4"), ("f8", "i8")]
)
def test_columns_at_once_are_those_one_by_one(kind: str, types: tuple[str, ...]) -> None:
    given = {f"x{j}": np.rint(8 * X[:, 0]).astype(types[j % len(types)]) for j in range(6)}
    source = as_source(TABLES[kind](given), options=ReadOptions.of(columns=["x3", "x*"]))
    order = [3, 0, 1, 2, 4, 5]
    expected = np.column_stack([given[f"x{j}"] for j in order])
    assert source.dtype == expected.dtype
    for chunk in range(source.n_chunks):
        rows = source.reader().read(chunk)[0]
        np.testing.assert_array_equal(rows, expected[len(rows) * chunk :][: len(rows)])
        assert rows.flags.c_contiguous


def test_names_that_are_no_strings_are_no_names() -> None:
    pandas = pytest.importorskip("pandas")
    model = GaussianMixture(2, random_state=0).fit(pandas.DataFrame(X))
    assert not hasattr(model, "feature_names_in_")
    with pytest.raises(DataError, match="the columns of X have no names"):
        GaussianMixture(2, columns="a").fit(pandas.DataFrame(X))
    with pytest.raises(DataError, match=r"in Python, X.columns = X.columns.astype\(str\)"):
        model.fit(pandas.DataFrame(X), sample_weight="2")
    with pytest.raises(DataError, match="several columns of one name, 'a'"):
        model.fit(pandas.DataFrame(X, columns=["a", "b", "a"]))


def test_a_table_is_never_copied_whole() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.zeros((2**20, 8)), columns=list("abcdefgh"))
    tracemalloc.start()
    try:
        source = as_source(table, options=ReadOptions.of(columns=["h", "a", "c", "d"]))
        for chunk in range(source.n_chunks):
            source.reader().read(chunk)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < table.to_numpy().nbytes / 4


# -- weights in a column ---------------------------------------------------------------


@pytest.mark.parametrize("kind", TABLES)
def test_weights_are_a_column_by_name_and_no_feature(kind: str) -> None:
    table = TABLES[kind]
    given = table({"w": WEIGHT, **columns("a", "b", "c")})
    plain = table(columns("a", "b", "c"))
    beside = da.from_array(WEIGHT, chunks=200) if kind == "dask" else WEIGHT
    expected = GaussianMixture(2, random_state=0).fit(plain, sample_weight=beside)
    model = GaussianMixture(2, random_state=0).fit(given, sample_weight="w")
    assert model.feature_names_in_.tolist() == ["a", "b", "c"]
    assert digest(model) == digest(expected)
    assert model.criteria(given, sample_weight="w") == expected.criteria(plain, beside)
    assert model.criteria(given)["weight"] == len(X)
    found = select(given, [1, 2], random_state=0, sample_weight="w", holdout=0.2)
    assert found.best.n_features_in_ == 3
    with pytest.raises(DataError, match="weights 'W' are no path and no column of X: did you"):
        model.fit(given, sample_weight="W")


@pytest.mark.parametrize("bad", [-1.0, np.nan])
@pytest.mark.parametrize("kind", TABLES)
def test_weights_in_a_column_that_are_none_are_refused(kind: str, bad: float) -> None:
    weights = np.where(np.arange(600) % 300 == 7, bad, 1.0)
    table = TABLES[kind](columns("a", "b", w=weights))
    with pytest.raises(DataError, match="sample_weight has 2 entries that are negative, NaN"):
        GaussianMixture(2).fit(table, sample_weight="w")


def test_a_word_is_a_path_or_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_zarr("w", WEIGHT.astype(float), 100)
    model = GaussianMixture(2, random_state=0)
    given = pandas_table(columns("a", "b", "c", w=np.arange(600)))
    with pytest.raises(DataError, match="weights 'w' are a path, and a column of X") as e:
        model.fit(given, sample_weight="w")
    (advice,) = re.findall("give '(.*?)' for the path", str(e.value))
    for rows, path in ((given, advice), (given.rename(columns={"w": "v"}), "w")):
        assert model.fit(rows, sample_weight=path).provenance_["weight"] == WEIGHT.sum()
        assert model.n_features_in_ == 4
    for nameless in (X, da.from_array(X), write_zarr("x.zarr", X, 100)):
        with pytest.raises(DataError, match="exposure: no such path"):
            GaussianMixture(2).fit(nameless, sample_weight="exposure")
