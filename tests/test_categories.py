"""Categories as codes: the same numbers of whatever holds them, for families that take them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Tune

import dask_em
from dask_em import GaussianMixture
from dask_em.core.columns import Column
from dask_em.core.protocols import Source
from dask_em.data.open import as_source, stored_source
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError
from dask_em.estimators.categories import (
    COUNTS,
    check_categories,
    packed_categories,
    unpacked_categories,
)
from dask_em.estimators.categories import WORDS as WORDS_KEY

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow", reason="the extra `table` is not installed")
pq = pytest.importorskip("pyarrow.parquet")
feather = pytest.importorskip("pyarrow.feather")

N = 1500
RNG = np.random.default_rng(0)
WORDS = ["blue", "dark red", "grün"]
X = RNG.normal(size=N)
CODES = np.where(RNG.random(N) < 0.1, -1, RNG.integers(0, 3, N))
FRAME = pd.DataFrame({"x": X, "w": pd.Categorical.from_codes(CODES, WORDS)})
EXPECTED = np.column_stack([X, np.where(CODES < 0, np.nan, CODES)])

TAKEN = ReadOptions(codes=True)


@pytest.fixture(autouse=True)
def small(tune: Tune) -> None:
    tune(reading={"bytes": 4096}, ingest={"batch_rows": 200})


def rows_of(source: Source) -> np.ndarray:
    reader = source.reader()
    found = [X.copy() for c in range(source.n_chunks) for X, _ in reader.blocks(c)]
    reader.close()
    return np.concatenate(found)


def arrow() -> Any:
    return pa.Table.from_pandas(FRAME)


def pieces() -> Any:
    """Chunks of which each numbers the words in its own way."""
    parts = [FRAME[:500], FRAME[500:501], FRAME[501:]]
    parts = [p.assign(w=p["w"].cat.remove_unused_categories()) for p in parts]
    return pa.concat_tables([pa.Table.from_pandas(p, preserve_index=False) for p in parts])


def polars_enum() -> Any:
    pl = pytest.importorskip("polars")
    return pl.DataFrame({"x": X}).with_columns(
        pl.Series("w", [None if c < 0 else WORDS[c] for c in CODES], pl.Enum(WORDS))
    )


def polars_categorical() -> Any:
    pl = pytest.importorskip("polars")
    return polars_enum().with_columns(pl.col("w").cast(pl.String).cast(pl.Categorical))


def parquet(folder: Path) -> Any:
    pq.write_table(arrow(), folder / "x.parquet", row_group_size=400)
    return str(folder / "x.parquet")


def feather_file(folder: Path) -> Any:
    feather.write_feather(arrow(), str(folder / "x.feather"), chunksize=400)
    return str(folder / "x.feather")


def ingested(folder: Path) -> Any:
    dask_em.ingest(FRAME, folder / "x.zarr")
    return str(folder / "x.zarr")


HOLDERS: list[Callable[[Path], Any]] = [
    lambda _: FRAME, lambda _: arrow(), lambda _: polars_enum(), parquet, feather_file, ingested,
]  # fmt: skip
IDS = ["pandas", "arrow", "polars", "parquet", "feather", "ingested"]


@pytest.mark.parametrize("make", HOLDERS, ids=IDS)
def test_words_are_codes_and_categories_are_told(make: Any, tmp_path: Path) -> None:
    source = as_source(make(tmp_path), options=TAKEN)
    assert source.columns is not None
    assert [*source.columns] == [Column("x"), Column("w", "categorical", tuple(WORDS))]
    np.testing.assert_array_equal(rows_of(source), EXPECTED)


@pytest.mark.parametrize("make", HOLDERS, ids=IDS)
def test_a_model_finds_its_own_codes_by_the_words(make: Any, tmp_path: Path) -> None:
    theirs = ("grün", "blue", "other", "dark red")
    options = ReadOptions(codes=True, fitted=("w", "x"), categories=(theirs, ()))
    source = as_source(make(tmp_path), options=options)
    expected = [np.nan if c < 0 else theirs.index(WORDS[c]) for c in CODES]
    np.testing.assert_array_equal(rows_of(source), np.column_stack([expected, X]))
    unknown = ReadOptions(codes=True, fitted=("w",), categories=(("blue", "grün"),))
    with pytest.raises(DataError, match=r"'w'.*'?dark red"):
        rows_of(as_source(make(tmp_path / "again"), options=unknown))


@pytest.fixture(autouse=True)
def again(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()


@pytest.mark.parametrize("make", [lambda: pieces(), polars_categorical])
def test_words_numbered_apart_are_numbered_together(make: Any) -> None:
    source = as_source(make(), options=TAKEN)
    assert source.columns is not None
    words = source.columns[1].categories
    assert sorted(words) == WORDS
    found = rows_of(source)[:, 1]
    expected = [np.nan if c < 0 else words.index(WORDS[c]) for c in CODES]
    np.testing.assert_array_equal(found, expected)


def test_files_of_other_categories_are_joined(tmp_path: Path) -> None:
    for i, part in enumerate((FRAME[:700], FRAME[700:])):
        words = part["w"].cat.reorder_categories(WORDS if i else WORDS[::-1])
        table = pa.Table.from_pandas(part.assign(w=words))
        pq.write_table(table, tmp_path / f"{i}.parquet", row_group_size=300)
    source = stored_source(str(tmp_path), options=TAKEN)
    assert source.columns is not None
    assert source.columns[1].categories == tuple(sorted(WORDS))
    np.testing.assert_array_equal(rows_of(source), EXPECTED)
    plain = pa.table({"x": [1.0], "w": ["blue"]})
    pq.write_table(plain, tmp_path / "2.parquet")
    with pytest.raises(DataError, match=r"hold no numbers, w .*of words categories"):
        stored_source(str(tmp_path), options=TAKEN)


def test_names_of_folders_are_categories(tmp_path: Path) -> None:
    for word in ("b", "a"):
        (tmp_path / f"k={word}").mkdir()
        pq.write_table(arrow().slice(0, 10), tmp_path / f"k={word}/0.parquet")
    options = ReadOptions(codes=True, columns=("k", "x"))
    source = stored_source(str(tmp_path), options=options)
    assert source.columns is not None
    assert source.columns[0] == Column("k", "categorical", ("a", "b"))
    np.testing.assert_array_equal(rows_of(source)[:, 0], np.repeat([0, 1], 10))


def test_dask_partitions(tmp_path: Path) -> None:
    dd = pytest.importorskip("dask.dataframe")
    frame = dd.from_pandas(FRAME, npartitions=3)
    source = as_source(frame, options=TAKEN)
    assert source.columns is not None
    assert source.columns[1] == Column("w", "categorical", tuple(WORDS))
    np.testing.assert_array_equal(source.X.compute(), EXPECTED)  # type: ignore[attr-defined]
    unknown = frame.assign(w=frame["w"].cat.as_unknown())
    with pytest.raises(DataError, match=r"hold no numbers, w .*of words categories"):
        as_source(unknown, options=TAKEN)


@pytest.mark.parametrize("make", HOLDERS[:-1], ids=IDS[:-1])
def test_a_gaussian_refuses_words_as_before(make: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"hold no numbers, w .*exclude=.*a column of 0 and 1"):
        GaussianMixture(2).fit(make(tmp_path))
    assert GaussianMixture(2, exclude="w", random_state=0).fit(make(tmp_path)).n_features_in_ == 1


def test_a_gaussian_reads_the_matrix_of_an_ingested_store(tmp_path: Path) -> None:
    model = GaussianMixture(2, random_state=0).fit(ingested(tmp_path))
    assert [*model.feature_names_in_] == ["x"]
    assert model.history_[0]["phase"] == "kept-survey"


def test_categories_that_are_numbers_stay_numbers_unless_codes_are_wanted() -> None:
    frame = pd.DataFrame({"n": pd.Categorical([30, 10, None, 10])})
    values = [[30.0], [10.0], [np.nan], [10.0]]
    np.testing.assert_array_equal(rows_of(as_source(frame)), values)
    source = as_source(frame, options=TAKEN)
    assert source.columns == (Column("n", "categorical", ("10", "30")),)
    np.testing.assert_array_equal(rows_of(source), [[1.0], [0.0], [np.nan], [0.0]])


class CodesMixture(GaussianMixture):
    """Stands for a family that takes codes."""

    takes_codes = True


@pytest.mark.filterwarnings("ignore:degenerate components")
@pytest.mark.parametrize("make", HOLDERS, ids=IDS)
def test_a_family_that_takes_codes_is_fitted_alike(make: Any, tmp_path: Path) -> None:
    given: dict[str, Any] = {"n_components": 1, "nonfinite": "drop"}
    with pytest.warns(UserWarning, match="were left out"):
        expected = GaussianMixture(**given).fit(EXPECTED)
    with pytest.warns(UserWarning, match="were left out"):
        model = CodesMixture(**given).fit(make(tmp_path))
    np.testing.assert_allclose(model.means_, expected.means_, rtol=1e-9)
    assert [*model.feature_names_in_] == ["x", "w"]
    found = np.asarray(model.predict(make(tmp_path / "again")))
    assert found.shape == (N,)
    np.testing.assert_array_equal(found, expected.predict(EXPECTED))


@pytest.mark.filterwarnings("ignore:degenerate components")
def test_a_model_keeps_its_categories_in_its_file(tmp_path: Path) -> None:
    whole = FRAME.dropna()
    model = CodesMixture(2, random_state=0).fit(whole)
    assert model.feature_categories_ == ((), tuple(WORDS))
    # Another order of the categories is another order of the codes, and the same words.
    turned = whole.assign(w=whole["w"].cat.reorder_categories(WORDS[::-1]))
    np.testing.assert_array_equal(model.predict(turned), model.predict(whole))
    more = whole.assign(w=whole["w"].cat.rename_categories({"blue": "mauve"}))
    with pytest.raises(DataError, match=r"'w' holds 'mauve' at row \d+, which is none of its 3"):
        model.predict(more)
    arrays = packed_categories(model.feature_categories_)
    assert unpacked_categories(arrays) == model.feature_categories_
    check_categories(arrays, 2)
    for wrong in (
        {WORDS_KEY: arrays[WORDS_KEY]},
        {**arrays, COUNTS: np.array([1, 1])},
        {**arrays, COUNTS: np.array([-1, 4])},
        {**arrays, COUNTS: np.array([0.0, 3.0])},
    ):
        with pytest.raises(ValueError, match="feature_categor"):
            check_categories(wrong, 2)
