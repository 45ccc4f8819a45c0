"""Data that are not what they seem: found, named by chunk and rows, and never fitted."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import SMALL_READ, assert_fits_close, blobs, digest, start, write_zarr
from zarr.codecs import (
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.storage import MemoryStore

from dask_em import GaussianMixture, load
from dask_em.cli.main import main
from dask_em.core.protocols import Fold
from dask_em.core.reading import fold_range
from dask_em.data.open import as_source
from dask_em.data.options import MissingChunks, ReadOptions
from dask_em.data.zarr import watched
from dask_em.data.zarr.fingerprints import fingerprint
from dask_em.data.zarr.layout import check_present, has_checksum
from dask_em.data.zarr.readers import read_rows, row_reader
from dask_em.data.zarr.shard_index import index_request
from dask_em.data.zarr.source import ZarrReader
from dask_em.data.zarr.watched import WatchedReader
from dask_em.errors import DataError

pytestmark = pytest.mark.usefixtures("many_chunks")

N, D, K = 600, 3, 2
X, _, MEANS = blobs(N, D, K, seed=1)
CHUNK = 50
RAW, CHECKED = {"compressors": None}, {"compressors": [Crc32cCodec()]}
# name: (options of the array, key of one of its chunk files, what names its rows)
LAYOUTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "raw": (RAW, "c/3/0", r"chunk 3 \(rows 150 to 199;"),
    "checked": (CHECKED, "c/3/0", r"chunk 3 \(rows 150 to 199;"),
    "compressed": ({}, "c/3/0", r"chunk 3 \(rows 150 to 199;"),
    "columns": (
        {"chunks": (CHUNK, 2), **RAW},
        "c/3/1",
        r"chunk \(3, 1\) \(rows 150 to 199, columns 2 to 2;",
    ),
    "shards": ({"chunks": (10, D), "shards": (CHUNK, D)}, "c/3/0", r"chunk 3 \(rows 150 to 199;"),
    "parts of shards": (
        {"chunks": (10, D), "shards": (500, D), **RAW},
        "c/0/0",
        r"chunk 0 \(rows 0 to 499;",
    ),
    "version 2": ({"zarr_format": 2}, "3.0", r"chunk 3 \(rows 150 to 199;"),
}
# Where a chunk of its own cannot be cut out of the file by its name alone.
SHARDED = ("shards", "parts of shards")


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return request.param


def stored(path: Path, layout: str, rows: np.ndarray = X) -> zarr.Array:
    return write_zarr(path / "x.zarr", rows, CHUNK, **LAYOUTS[layout][0])


def chunk_file(path: Path, layout: str) -> Path:
    return path / "x.zarr" / LAYOUTS[layout][1]


class Rows(Fold[np.ndarray]):
    """A fold that keeps what it was given."""

    def __init__(self) -> None:
        self.rows: list[np.ndarray] = []

    def update(self, index: int, X: np.ndarray, sample_weight: np.ndarray | None) -> None:
        self.rows.append(X.copy())

    def result(self) -> np.ndarray:
        return np.concatenate(self.rows)


def read_all(source: Any) -> np.ndarray:
    parts = source.ranges()
    return np.concatenate(
        [fold_range(source, Rows(), part, source.shipped_weights(part)) for part in parts]
    )


def options(**more: Any) -> dict[str, Any]:
    """A start of its own, and passes enough to see a change between two of them."""
    # The tolerance is never met: every fit makes all its passes.
    return {
        "n_components": K,
        **start("full", MEANS),
        "tol": 0.0,
        "max_iter": 3,
        "algorithm": "em",
        "random_state": 0,
        **more,
    }


def fit(rows: Any, sample_weight: Any = None, **more: Any) -> GaussianMixture:
    with pytest.warns(Warning, match="max_iter|left out"):
        return GaussianMixture(**options(**more)).fit(rows, sample_weight=sample_weight)


def refuses(rows: Any, message: str, sample_weight: Any = None, **more: Any) -> None:
    """Fitting ends with this error, and leaves nothing that passes for a fit."""
    model = GaussianMixture(**options(**more))
    with pytest.raises(DataError, match=message):
        model.fit(rows, sample_weight=sample_weight)
    assert not any(hasattr(model, name) for name in ("weights_", "means_", "state_"))


def after_pass(number: int, change: Callable[[], None]) -> Callable[[Any], None]:
    """A callback that changes the data once that pass of EM is over."""

    def callback(state: Any) -> None:
        if state.n_iter == number:
            change()

    return callback


# -- chunks that are not there -------------------------------------------------------


def test_a_chunk_that_was_deleted_before_the_fit_is_named(layout: str, tmp_path) -> None:
    array = stored(tmp_path, layout)
    chunk_file(tmp_path, layout).unlink()
    named = LAYOUTS[layout][2]
    refuses(array, rf'X lacks 1 of \d+ chunks: {named}.*missing_chunks="fill"')
    # Whoever does not look before reading finds it too.
    with pytest.raises(DataError, match=rf"X lacks {named}"):
        read_all(as_source(array))


@pytest.mark.parametrize("number", [1, 2])
def test_a_chunk_that_is_deleted_between_passes_is_named(
    layout: str, number: int, tmp_path
) -> None:
    array, file = stored(tmp_path, layout), chunk_file(tmp_path, layout)
    callback = after_pass(number, file.unlink)
    refuses(array, rf"X lacks {LAYOUTS[layout][2]}", callbacks=[callback])
    assert not file.exists()


@pytest.mark.parametrize("during", [1, 2, 3])
def test_a_chunk_that_is_deleted_during_a_pass_is_named(
    layout: str, during: int, tmp_path, monkeypatch, synchronous
) -> None:
    array, file = stored(tmp_path, layout), chunk_file(tmp_path, layout)
    reader, readers = ZarrReader.blocks, []

    def deleting(self: Any, chunk: int, *block_rows: Any) -> Any:
        if chunk == 0:
            readers.append(self)
            # The rows before it were read, and it was there when the pass began.
            if len(readers) == during:
                file.unlink()
        return reader(self, chunk, *block_rows)

    monkeypatch.setattr(ZarrReader, "blocks", deleting)
    refuses(array, rf"X lacks {LAYOUTS[layout][2]}")
    assert len(readers) == during


def test_the_worker_that_finds_a_chunk_missing_names_it(client: Client, tmp_path) -> None:
    array, file = stored(tmp_path, "checked"), chunk_file(tmp_path, "checked")
    refuses(array, "X lacks chunk 3", callbacks=[after_pass(1, file.unlink)])


def test_many_missing_chunks_are_counted_and_the_first_are_named(layout: str, tmp_path) -> None:
    array = stored(tmp_path, layout)
    folder = tmp_path / "x.zarr"
    for file in [*folder.glob("c/*/*"), *folder.glob("*.0")]:
        file.unlink()
    n = len(list(folder.glob("c/*"))) * (2 if layout == "columns" else 1) or N // CHUNK
    message = rf"X lacks {n} of {n} chunks: chunk (0|\(0, 0\)) .*" + (r", \.\.\.:" * (n > 3))
    refuses(array, message)


@pytest.mark.parametrize("layout", ["raw", "compressed", "shards"])
def test_chunks_that_zarr_did_not_write_are_refused_or_filled(layout: str, tmp_path) -> None:
    rows = X.copy()
    rows[150:200] = 0
    array = stored(tmp_path, layout, rows)
    assert not chunk_file(tmp_path, layout).exists()
    refuses(array, "lacks 1 of 12 chunks: chunk 3 .*fill value 0.0 .*write_empty_chunks=True")
    filled = fit(array, missing_chunks="fill")
    whole = {"config": {"write_empty_chunks": True}}
    assert digest(filled) == digest(fit(write_zarr(tmp_path / "y.zarr", rows, CHUNK, **whole)))
    labels = filled.predict(array).compute()
    np.testing.assert_array_equal(labels, filled.predict(rows))
    with pytest.raises(DataError, match="X lacks chunk 3"):
        filled.set_params(missing_chunks="error").predict(array).compute()


@pytest.mark.parametrize("layout", SHARDED)
def test_an_inner_chunk_that_is_missing_in_its_shard_is_named(layout: str, tmp_path) -> None:
    rows = X.copy()
    rows[170:180] = 0
    array = stored(tmp_path, layout, rows)
    assert chunk_file(tmp_path, layout).exists()
    refuses(array, r"X lacks inner chunk 17 \(rows 170 to 179; .*missing_chunks=\"fill\"")
    np.testing.assert_array_equal(read_all(as_source(array, options=ReadOptions("fill"))), rows)


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("shard", [(50, 4), (500, 4), (500, 2)])
def test_inner_chunks_are_found_wherever_the_index_is(location: str, shard: Any, tmp_path) -> None:
    rows = np.concatenate([X, X[:, :1]], axis=1)
    rows[170:180, 2:] = 0
    array = zarr.create_array(
        str(tmp_path / "x.zarr"),
        shape=rows.shape,
        dtype="f8",
        chunks=shard,
        compressors=None,
        serializer=ShardingCodec(chunk_shape=(10, 2), index_location=location),
    )
    array[:] = rows
    named = r"inner chunk \(17, 1\) \(rows 170 to 179, columns 2 to 3;"
    with pytest.raises(DataError, match=named):
        read_all(as_source(array))
    np.testing.assert_array_equal(read_all(as_source(array, options=ReadOptions("fill"))), rows)
    rows[170:180] = 1
    array[:] = rows
    np.testing.assert_array_equal(read_all(as_source(array)), rows)


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_shards_that_cannot_be_looked_into_are_refused(tmp_path) -> None:
    inner = ShardingCodec(chunk_shape=(10, D), codecs=[BytesCodec()])
    serializers = {
        "nested": {"serializer": ShardingCodec(chunk_shape=(20, D), codecs=[inner])},
        "behind": {"serializer": inner, "compressors": [Crc32cCodec()]},
        "transposed": {"serializer": inner, "filters": [TransposeCodec(order=(0, 1))]},
        "index": {
            "serializer": ShardingCodec(
                chunk_shape=(10, D), codecs=[BytesCodec()], index_codecs=[BytesCodec(endian="big")]
            )
        },
    }
    for name, given in serializers.items():
        array = zarr.create_array(
            str(tmp_path / name),
            **{"shape": X.shape, "chunks": (40, D), "dtype": "f8", "compressors": None, **given},
        )
        array[:] = X
        refuses(array, "shards within shards, or behind other codecs")
        np.testing.assert_array_equal(read_all(as_source(array, options=ReadOptions("fill"))), X)


def test_chunks_in_stores_that_are_no_folders_are_looked_for(tmp_path) -> None:
    group = zarr.open_group(MemoryStore(), mode="w")
    for name in ("x", "other"):
        group.create_array(name, shape=X.shape, chunks=(CHUNK, D), dtype="f8")[:] = X
    array = group["x"]
    check_present(array)
    del array.store._store_dict["x/c/3/0"]
    refuses(array, r"X lacks 1 of 12 chunks: chunk 3 \(rows 150 to 199; x/c/3/0\)")
    with pytest.raises(DataError, match="lacks chunk 3"):
        read_all(as_source(array))
    check_present(group["other"])


def test_missing_weights_are_named_as_weights(tmp_path) -> None:
    array = stored(tmp_path, "raw")
    weights = write_zarr(tmp_path / "w.zarr", np.ones(N), 100)
    (tmp_path / "w.zarr" / "c" / "1").unlink()
    refuses(array, r"sample_weight lacks 1 of 6 chunks: chunk 1 \(rows 100 to 199;", weights)
    with pytest.raises(DataError, match="sample_weight lacks chunk 1"):
        read_all(as_source(array, weights))


def test_zarr_beside_dask_is_looked_at_too(tmp_path, synchronous) -> None:
    array = stored(tmp_path, "compressed")
    weights = write_zarr(tmp_path / "w.zarr", np.ones(N), 100)
    fit(array, da.ones(N, chunks=77))
    fit(da.from_array(X, chunks=(77, D)), weights)
    chunk_file(tmp_path, "compressed").unlink()
    (tmp_path / "w.zarr" / "c" / "1").unlink()
    refuses(array, "X lacks chunk 3", da.ones(N, chunks=77))
    refuses(da.from_array(X, chunks=(77, D)), "sample_weight lacks chunk 1", weights)


# -- chunks that are not whole ---------------------------------------------------------


def made_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda file: file.write_bytes(file.read_bytes()[:-7]),
    "cut in half": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "empty": lambda file: file.write_bytes(b""),
    "a folder": made_a_folder,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_chunk_that_is_not_whole_is_named(damage: str, layout: str, tmp_path) -> None:
    array = stored(tmp_path, layout)
    DAMAGE[damage](chunk_file(tmp_path, layout))
    named = LAYOUTS[layout][2]
    if layout in SHARDED:
        named += r"|inner chunk \d+ \(rows \d+ to \d+;"
    refuses(array, named)
    for missing in ("error", "fill"):
        with pytest.raises(DataError, match=named):
            read_all(as_source(array, options=ReadOptions(missing)))


def test_a_disk_that_fails_is_not_called_bad_data(tmp_path, monkeypatch) -> None:
    class Failing(MemoryStore):
        async def get(self, key: str, *args: Any, **kwargs: Any) -> Any:
            if key.startswith("c/3"):
                raise OSError(5, "Input/output error")
            return await super().get(key, *args, **kwargs)

    array = zarr.create_array(Failing(), shape=X.shape, chunks=(CHUNK, D), dtype="f8")
    array[:] = X
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_all(as_source(array))
    assert not isinstance(caught.value, DataError)


# -- flipped bits ------------------------------------------------------------------------


def flip(file: Path, bit: int) -> None:
    with file.open("r+b") as f:
        f.seek(bit // 8)
        byte = f.read(1)[0]
        f.seek(bit // 8)
        f.write(bytes([byte ^ (1 << bit % 8)]))


CHECKSUMMED: dict[str, dict[str, Any]] = {
    "raw": CHECKED,
    "zstd": {"compressors": [ZstdCodec(), Crc32cCodec()]},
    "columns": {"chunks": (CHUNK, 2), **CHECKED},
    "shards": {"chunks": (25, D), "shards": (CHUNK, D), **CHECKED},
}


@pytest.mark.parametrize("kind", CHECKSUMMED)
def test_no_flipped_bit_behind_a_checksum_is_read_as_data(kind: str, tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, CHUNK, **CHECKSUMMED[kind])
    files = sorted(file for file in (tmp_path / "x.zarr" / "c").rglob("*") if file.is_file())
    rng = np.random.default_rng(5)
    reader = row_reader(array, CHUNK)
    # Every byte of these files is behind a checksum or part of one.
    for _ in range(125):
        file = files[rng.integers(len(files))]
        bit = int(rng.integers(8 * file.stat().st_size))
        first = int(file.relative_to(tmp_path / "x.zarr" / "c").parts[0]) * CHUNK
        flip(file, bit)
        with pytest.raises(DataError, match=rf"rows {first} to|inner chunk"):
            read_rows(reader, slice(first, first + CHUNK))
        flip(file, bit)
        found, _ = read_rows(reader, slice(first, first + CHUNK))
        np.testing.assert_array_equal(found, X[first : first + CHUNK])


# -- data that change between passes -----------------------------------------------------


def rewritten(array: zarr.Array) -> Callable[[], None]:
    def rewrite() -> None:
        array[160:170] += 1.0

    return rewrite


@pytest.mark.parametrize("number", [1, 2])
def test_a_chunk_that_changes_between_passes_is_named(layout: str, number: int, tmp_path) -> None:
    array = stored(tmp_path, layout)
    # Small chunks are read, and known, together.
    named = r"(one of the chunks 0 to 5|chunk [03] \(rows).*of X changed since the first pass"
    refuses(array, named, callbacks=[after_pass(number, rewritten(array))])


def test_the_worker_that_finds_a_chunk_changed_names_it(client: Client, tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 200, **RAW)
    refuses(array, "chunk 0 .*of X changed", callbacks=[after_pass(1, rewritten(array))])


def test_the_worker_that_finds_the_array_gone_names_it(client: Client, tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 200, **RAW)
    gone = after_pass(1, (tmp_path / "x.zarr/zarr.json").unlink)
    refuses(array, "is not a Zarr array any more", callbacks=[gone])


@pytest.mark.parametrize("layout", ["raw", "columns", "parts of shards"])
@pytest.mark.parametrize("seed", range(4))
def test_a_bit_flipped_between_passes_is_found_without_a_checksum(
    layout: str, seed: int, tmp_path
) -> None:
    array, file = stored(tmp_path, layout), chunk_file(tmp_path, layout)
    # A shard's index has a checksum in any case.
    size = file.stat().st_size if layout != "parts of shards" else 500 * D * 8
    bit = int(np.random.default_rng(seed).integers(8 * size))
    if layout == "columns":
        # Half of the file is what a chunk holds beside the data: nobody reads it.
        bit = 128 * (bit // 128) + bit % 64
    refuses(array, "of X changed", callbacks=[after_pass(1, lambda: flip(file, bit))])


def test_rows_that_change_places_are_a_change(tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 200, **RAW)

    def swap() -> None:
        array[250:252] = X[[251, 250]]

    refuses(array, r"chunk 1 \(rows 200 to 399;.*of X changed", callbacks=[after_pass(1, swap)])


def test_weights_that_change_are_named_as_weights(tmp_path) -> None:
    array = stored(tmp_path, "raw")
    weights = write_zarr(tmp_path / "w.zarr", np.ones(N), 100)

    def change() -> None:
        weights[120] = 2.0

    callback = after_pass(1, change)
    refuses(array, "chunks 0 to 2, .*of sample_weight changed", weights, callbacks=[callback])


def test_a_chunk_that_appears_between_passes_is_a_change(tmp_path) -> None:
    for layout in ("raw", "compressed"):
        rows = X.copy()
        rows[150:200] = 0
        path = tmp_path / layout
        array = stored(path, layout, rows)

        def write(array: zarr.Array = array) -> None:
            array[150:200] = X[150:200]

        refuses(array, "of X changed", callbacks=[after_pass(1, write)], missing_chunks="fill")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda array: array.resize((N + 70, D)), r"its shape was \(600, 3\) and is \(670, 3\)"),
        (lambda array: array.append(X[:10]), r"its shape was \(600, 3\) and is \(610, 3\)"),
        (lambda array: array.resize((N - 70, D)), r"its shape was .* and is \(530, 3\)"),
        (
            lambda array: write_zarr(
                array.store.root, X.astype("i8"), CHUNK, overwrite=True, **RAW
            ),
            "its dtype was float64 and is int64",
        ),
        (
            lambda array: write_zarr(array.store.root, X, 2 * CHUNK, overwrite=True, **RAW),
            r"its chunks was \(50, 3\) and is \(100, 3\)",
        ),
        (lambda array: shutil.rmtree(array.store.root), "is not a Zarr array any more"),
    ],
)
@pytest.mark.parametrize("between", ["opening and fitting", "passes"])
def test_an_array_that_changes_its_shape_or_type_is_named(
    between: str, change: Callable[[zarr.Array], Any], message: str, tmp_path
) -> None:
    array = stored(tmp_path, "raw")
    writer = zarr.open_array(tmp_path / "x.zarr", mode="r+")
    if between == "passes":
        refuses(array, message, callbacks=[after_pass(1, lambda: change(writer))])
    else:
        change(writer)
        refuses(array, message)


def test_attributes_may_change_between_passes(tmp_path) -> None:
    array = stored(tmp_path, "raw")
    callback = after_pass(1, lambda: array.attrs.update({"note": "fine"}))
    assert digest(fit(array, callbacks=[callback])) == digest(fit(array))


def test_data_that_stay_the_same_may_be_written_again(layout: str, tmp_path) -> None:
    array = stored(tmp_path, layout)

    def write() -> None:
        array[:] = X

    assert digest(fit(array, callbacks=[after_pass(1, write)])) == digest(fit(array))


# -- rows that are left out ---------------------------------------------------------------


def with_gaps() -> tuple[np.ndarray, np.ndarray]:
    """Rows with NaN and infinity, some chunks of nothing else, and which rows are finite."""
    rows = X.copy()
    rows[7, 0], rows[163, 2], rows[599, 1] = np.nan, np.inf, -np.inf
    rows[250:300] = np.nan
    return rows, np.isfinite(rows).all(axis=1)


def held_by(holder: str, rows: np.ndarray, tmp_path: Path) -> Any:
    if holder in LAYOUTS:
        return stored(tmp_path, holder, rows)
    return da.from_array(rows, chunks={0: 50}) if holder == "dask" else rows


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("holder", ["raw", "compressed", "shards", "numpy", "dask"])
def test_rows_that_are_dropped_are_as_if_they_had_not_been(
    holder: str, weighted: bool, tmp_path
) -> None:
    rows, finite = with_gaps()
    weight = np.random.default_rng(0).random(N) + 0.5 if weighted else None
    held = held_by(holder, rows, tmp_path)
    model = GaussianMixture(**options(nonfinite="drop"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(held, sample_weight=weight)
    message = "53 rows that hold NaN or infinity were left out of the fit, which goes on with 547"
    assert sum(message in str(w.message) for w in caught) == 1
    expected = fit(rows[finite], None if weight is None else weight[finite])
    assert_fits_close(model, expected, 1e-10)
    assert model.n_dropped_ == model.provenance_["n_dropped"] == 53
    assert model.provenance_["n_rows"] == N
    assert {record["rows"] for record in model.history_ if record["phase"] == "em"} == {547}
    assert expected.n_dropped_ == 0


def test_the_start_is_made_without_dropped_rows(tmp_path) -> None:
    rows, finite = with_gaps()
    model = GaussianMixture(K, random_state=0, nonfinite="drop")
    with pytest.warns(UserWarning, match="53 rows"):
        model.fit(stored(tmp_path, "raw", rows))
    expected = GaussianMixture(K, random_state=0, sample_size=10**6).fit(rows[finite])
    assert abs(model.lower_bound_ - expected.lower_bound_) < 1e-3


def test_dropping_gives_the_same_bits_everywhere(client: Client, tmp_path) -> None:
    rows, _ = with_gaps()
    array = stored(tmp_path, "raw", rows)
    on_workers = digest(fit(array, nonfinite="drop"))
    with client.as_current():
        import dask

        with dask.config.set(scheduler="synchronous"):
            assert digest(fit(array, nonfinite="drop")) == on_workers


def test_data_of_nothing_but_gaps_are_refused(tmp_path) -> None:
    for holder in ("raw", "numpy", "dask"):
        rows = held_by(holder, np.full((N, D), np.nan), tmp_path)
        refuses(rows, "NaN or infinity in every row", nonfinite="drop")


def test_without_gaps_dropping_changes_no_bit(tmp_path) -> None:
    array = stored(tmp_path, "raw")
    assert digest(fit(array, nonfinite="drop")) == digest(fit(array))


def test_predict_has_no_answer_for_rows_that_the_fit_dropped(tmp_path) -> None:
    rows, _ = with_gaps()
    model = fit(rows, nonfinite="drop")
    labels = model.predict(stored(tmp_path, "raw", rows)).compute()
    np.testing.assert_array_equal(labels == -1, ~np.isfinite(rows).all(axis=1))


def test_what_was_dropped_is_in_the_model_file(tmp_path) -> None:
    rows, _ = with_gaps()
    fit(rows, nonfinite="drop").save(tmp_path / "m.npz")
    model = load(tmp_path / "m.npz")
    assert (model.n_dropped_, model.nonfinite) == (53, "drop")


# -- on the command line -------------------------------------------------------------------


def command(client: Client, *arguments: Any) -> tuple[int, str]:
    """The exit code and all that is said."""
    where = ("--scheduler", client.scheduler.address)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = CliRunner().invoke(main, [*map(str, arguments), *where])
    return result.exit_code, result.output


def test_missing_chunks_on_the_command_line(client: Client, tmp_path) -> None:
    array = stored(tmp_path, "checked")
    chunk_file(tmp_path, "checked").unlink()
    data, model = tmp_path / "x.zarr", tmp_path / "m.npz"
    fitting = ("fit", data, "-k", K, "-o", model)
    code, said = command(client, *fitting)
    assert (code, model.exists()) == (65, False)
    assert "X lacks 1 of 12 chunks: chunk 3 (rows 150 to 199;" in said
    assert "--missing-chunks fill" in said
    assert command(client, *fitting, "--missing-chunks", "fill")[0] == 0
    assert command(client, "score", model, data)[0] == 0
    assert command(client, "predict", model, data, tmp_path / "answers.zarr")[0] == 0
    labels = zarr.open_array(tmp_path / "answers.zarr" / "labels")[:]
    np.testing.assert_array_equal(labels, load(model).predict(array[:]))


def test_rows_are_dropped_on_the_command_line(client: Client, tmp_path) -> None:
    stored(tmp_path, "checked", with_gaps()[0])
    fitting = ("fit", tmp_path / "x.zarr", "-k", K, "-o", tmp_path / "m.npz")
    code, said = command(client, *fitting)
    assert (code, "--nonfinite drop" in said) == (65, True)
    assert not (tmp_path / "m.npz").exists()
    code, said = command(client, *fitting, "--nonfinite", "drop")
    assert (code, "53 rows that hold NaN or infinity were left out" in said) == (0, True)
    assert load(tmp_path / "m.npz").n_dropped_ == 53


# -- checksums ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (RAW, False),
        ({}, False),
        (CHECKED, True),
        ({"compressors": [ZstdCodec(), Crc32cCodec()]}, True),
        ({"compressors": [ZstdCodec(checksum=True)]}, True),
        ({"compressors": [GzipCodec()]}, True),
        ({"chunks": (10, D), "shards": (50, D)}, False),
        ({"chunks": (10, D), "shards": (50, D), **CHECKED}, True),
        ({"zarr_format": 2}, False),
        ({"zarr_format": 2, "compressors": None}, False),
    ],
)
def test_an_array_without_a_checksum_is_told_once_how_to_get_one(
    given: dict[str, Any], expected: bool, tmp_path, caplog
) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, CHUNK, **given)
    assert has_checksum(array) is expected
    with caplog.at_level(logging.INFO, logger="dask_em"):
        for _ in range(2):
            fit(array)
    told = [r for r in caplog.records if "Crc32cCodec() as the last" in r.message]
    assert len(told) == (not expected)
    assert all(r.levelno == logging.INFO for r in told)


# -- what watching costs, and how newer versions of Zarr read ------------------------------


def test_watching_keeps_no_chunk(tmp_path) -> None:
    array = stored(tmp_path, "parts of shards")
    watch = watched.Watch(array.store, index_request(array))
    reader = WatchedReader(array)
    np.testing.assert_array_equal(reader._read(watch, slice(0, 100)), X[:100])
    assert sum(map(len, watch.indices.values())) == 50 * 16 + 4


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1", ">f8"])
@pytest.mark.parametrize("n", [1, 511, 512, 4096, 10_007])
def test_every_flipped_bit_has_another_fingerprint(dtype: str, n: int) -> None:
    rng = np.random.default_rng(n)
    numbers = rng.integers(0, 256, n * np.dtype(dtype).itemsize, dtype=np.uint8)
    first = fingerprint(numbers.view(dtype))
    for bit in rng.integers(0, 8 * len(numbers), 200).tolist():
        numbers[bit // 8] ^= 1 << bit % 8
        assert fingerprint(numbers.view(dtype)) != first
        numbers[bit // 8] ^= 1 << bit % 8
    assert fingerprint(numbers.view(dtype)) == first


def test_every_reader_has_the_same_fingerprint(layout: str, tmp_path) -> None:
    array = stored(tmp_path, layout)
    rows = slice(0, SMALL_READ // (8 * D) // CHUNK * CHUNK)
    first, second = row_reader(array, rows.stop), row_reader(array, rows.stop)
    (a, seen), (b, again) = read_rows(first, rows), read_rows(second, rows)
    assert seen == again
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("missing", ["error", "fill"])
@pytest.mark.parametrize("linked", ["c/3/0", "c/3", "c"])
def test_a_link_out_of_the_array_is_not_followed(
    linked: str, missing: MissingChunks, tmp_path: Path
) -> None:
    write_zarr(tmp_path / "x.zarr", np.ones((800, 2)) * np.arange(800)[:, None], 100)
    place, outside = tmp_path / "x.zarr" / linked, tmp_path / "outside"
    place.rename(outside)
    place.symlink_to(outside)
    with pytest.raises(DataError, match=rf"{linked} is a link to .*outside, outside of the array"):
        GaussianMixture(2, missing_chunks=missing).fit(tmp_path / "x.zarr")
    # One within it, or to all of it, is.
    place.unlink()
    outside.rename(tmp_path / "x.zarr" / "moved")
    place.symlink_to(tmp_path / "x.zarr" / "moved")
    (tmp_path / "link").symlink_to(tmp_path / "x.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert (
            GaussianMixture(2, missing_chunks=missing, max_iter=1).fit(tmp_path / "link").n_iter_
            == 1
        )
