"""Inner chunks of shards: the numbers that Zarr reads, in few requests, and no damaged ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from helpers import Tune
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.storage import LocalStore

from dask_em.core.protocols import Fold
from dask_em.core.reading import fold_range
from dask_em.core.tuning import tuning
from dask_em.data.options import MissingChunks, ReadOptions
from dask_em.data.zarr.readers import RowReader, files_of, read_rows, row_reader
from dask_em.data.zarr.shard_index import NO_CHUNK, ShardIndex
from dask_em.data.zarr.shard_objects import ShardObjects, ShardRunReader, WholeShardReader
from dask_em.data.zarr.shards import ShardFiles
from dask_em.data.zarr.source import ZarrSource
from dask_em.data.zarr.watched import WatchedReader
from dask_em.errors import DataError
from dask_em.storage.url_store import Fetched, UrlStore

pytestmark = pytest.mark.usefixtures("many_chunks")

N, INNER, SHARD = 107, 5, 25
CODECS: dict[str, list[Any]] = {
    "none": [],
    "zstd": [ZstdCodec(level=3)],
    "blosc": [BloscCodec(cname="lz4", shuffle="shuffle")],
    "gzip": [GzipCodec(level=1)],
}
# Rows of a read: a shard, part of one, and several.
READS = {"whole": SHARD, "part": INNER, "two of five": 2 * INNER, "all": 125}


class Far(UrlStore):
    """A folder as an object store, which tells what was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(LocalStore(folder), f"s3://{folder.name}/x")
        self.folder = folder
        self.asked: list[tuple[str, ByteRequest | None, int]] = []

    def _with_store(self, store: Any) -> Far:
        return self

    def fetch(self, key: str, byte_range: ByteRequest | None = None) -> Fetched | None:
        path = self.folder / key
        if not path.is_file():
            return None
        whole = path.read_bytes()
        part = slice(None)
        if isinstance(byte_range, RangeByteRequest):
            part = slice(byte_range.start, byte_range.end)
        elif isinstance(byte_range, SuffixByteRequest):
            part = slice(max(0, len(whole) - byte_range.suffix), None)
        data = whole[part]
        self.asked.append((key, byte_range, len(data)))
        return Fetched(memoryview(data), 0.001, len(whole), str(path.stat().st_mtime_ns))


def numbers(dtype: str = "f8") -> np.ndarray:
    """Some that compress, and in each chunk others."""
    rng = np.random.default_rng(3)
    return (rng.normal(size=(N, 3)).round(1) * 10 + 8).astype(dtype)


def sharding(codecs: list[Any], **options: Any) -> dict[str, Any]:
    """Arguments of `create_array` for shards whose index is as the options say."""
    chunks = options.pop("chunks", (INNER, 3))
    shards = options.pop("shards", (SHARD, chunks[1]))
    inner = ShardingCodec(chunk_shape=chunks, codecs=codecs, **options)
    return {"chunks": shards, "serializer": inner, "compressors": None}


def written(folder: Path, rows: np.ndarray, **layout: Any) -> zarr.Array:
    layout = layout or sharding([BytesCodec()])
    array = zarr.create_array(
        str(folder), shape=rows.shape, dtype=rows.dtype, fill_value=7, **layout
    )
    array[:] = rows
    return array


def at(folder: Path, far: bool) -> zarr.Array:
    """The array in a folder, as a disk or an object store has it."""
    return zarr.open_array(Far(folder) if far else str(folder), mode="r")


def rows_of(array: zarr.Array, size: int, missing: MissingChunks = "error") -> np.ndarray:
    """All rows, read so many at once, by the reader that decodes by itself, or not at all."""
    files = files_of(array, missing)
    assert isinstance(files, ShardFiles)
    reader = files.reader(size)
    reader.expect(slice(0, array.shape[0]))
    found = list(each_read(reader, array.shape[0], size))
    reader.close()
    return np.concatenate(found)


def each_read(reader: RowReader, n: int, size: int) -> Iterator[np.ndarray]:
    for first in range(0, n, size):
        yield read_rows(reader, slice(first, min(first + size, n)))[0].copy()


# -- the same numbers --------------------------------------------------------------------


@pytest.mark.parametrize("far", [False, True], ids=["disk", "objects"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "i2"])
def test_every_layout_gives_the_bytes_that_zarr_gives(
    dtype: str, far: bool, tmp_path: Path, tune: Tune
) -> None:
    rows = numbers(dtype)
    # A shard, and an inner chunk of another, are not written.
    rows[2 * SHARD : 3 * SHARD] = rows[3 * SHARD + INNER : 3 * SHARD + 2 * INNER] = 7
    for i, codecs in enumerate(CODECS.values()):
        for j, run_bytes in enumerate((1, 300, 2**20)):
            tune(reading={"run_bytes": run_bytes, "line_bytes": 2000})
            index = [BytesCodec(), *([] if i == j else [Crc32cCodec()])]
            transposed = [TransposeCodec(order=(1, 0))] if (i + j) % 2 else []
            layout = sharding(
                [
                    *transposed,
                    BytesCodec(endian="big" if j == 1 else "little"),
                    *codecs,
                    *([Crc32cCodec()] if j else []),
                ],
                index_codecs=index,
                index_location=("end", "start")[(i + j) % 2],
                chunks=(INNER, 5 if j == 2 else 3),
            )
            written(tmp_path / f"{i}{j}", rows, **layout)
            array = at(tmp_path / f"{i}{j}", far)
            expected = np.asarray(array[:]).tobytes()
            assert expected == rows.tobytes()
            for size in READS.values():
                assert rows_of(array, size, "fill").tobytes() == expected, (layout, size)
            with pytest.raises(DataError, match=r"lacks chunk 2 \(rows 50 to 74; .*c/2/0"):
                rows_of(array, INNER)


def shuffled(shard: Path, n: int, rng: np.random.Generator) -> None:
    """Put the inner chunks of a shard in another order, with holes between them."""
    whole = shard.read_bytes()
    places = np.frombuffer(whole, "<u8", 2 * n, len(whole) - 16 * n - 4).reshape(n, 2).copy()
    parts, end = [], 0
    for number in rng.permutation(n):
        offset, length = places[number].tolist()
        if offset != NO_CHUNK:
            hole = bytes(int(rng.choice([0, 3, 5000])))
            parts += [hole, whole[offset : offset + length]]
            places[number, 0] = end + len(hole)
            end += len(hole) + length
    stored = places.tobytes()
    shard.write_bytes(b"".join([*parts, stored, checksum(stored)]))


def checksum(stored: bytes) -> bytes:
    from google_crc32c import value

    return int(value(stored)).to_bytes(4, "little")


@pytest.mark.parametrize("far", [False, True], ids=["disk", "objects"])
def test_inner_chunks_may_lie_in_any_order(far: bool, tmp_path: Path, tune: Tune) -> None:
    rows, rng = numbers(), np.random.default_rng(5)
    rows[30:35] = 7
    written(tmp_path / "x", rows)
    for _ in range(3):
        for shard in range(5):
            shuffled(tmp_path / "x" / "c" / str(shard) / "0", SHARD // INNER, rng)
        array = at(tmp_path / "x", far)
        np.testing.assert_array_equal(array[:], rows)
        for run_bytes in (1, 250, 2**20):
            tune(reading={"run_bytes": run_bytes})
            for size in READS.values():
                np.testing.assert_array_equal(rows_of(array, size, "fill"), rows)


@pytest.mark.parametrize("read_bytes", [1, 240, 10**6])
def test_a_pass_gives_what_chunks_without_shards_give(read_bytes: int, tmp_path: Path) -> None:
    rows = numbers()
    written(tmp_path / "x", rows)
    plain = written(tmp_path / "plain", rows, chunks=(INNER, 3))

    class Kept(Fold[Any]):
        def __init__(self) -> None:
            self.rows: list[np.ndarray] = []

        def update(self, index: int, X: np.ndarray, weight: Any) -> None:
            self.rows.append(X.copy())

        def result(self) -> Any:
            return np.concatenate(self.rows).tobytes()

    def read(array: zarr.Array) -> bytes:
        source = ZarrSource(array, read_bytes=read_bytes)
        return bytes(fold_range(source, Kept(), range(source.n_chunks), None))

    assert read(at(tmp_path / "x", True)) == read(at(tmp_path / "x", False)) == read(plain)


# -- requests ----------------------------------------------------------------------------


def test_an_index_is_asked_for_once_and_neighbours_together(tmp_path: Path, tune: Tune) -> None:
    written(tmp_path / "x", numbers())
    chunk, index = INNER * 24, 16 * 5 + 4
    tune(reading={"run_bytes": 2 * chunk})
    array = at(tmp_path / "x", True)
    store: Any = array.store
    files = sorted(path for path in (tmp_path / "x" / "c").rglob("*") if path.is_file())
    stored = sum(path.stat().st_size for path in files)
    # A shard is one read: one request.
    rows_of(array, SHARD)
    assert sorted(key for key, _, _ in store.asked) == [f"c/{i}/0" for i in range(5)]
    # Of a large shard its index, and two inner chunks at once, or one at the end of a read.
    for size, lengths in ((INNER, {chunk}), (4 * INNER, {chunk, 2 * chunk})):
        store.asked.clear()
        rows_of(array, size)
        suffixes = [(key, n) for key, part, n in store.asked if isinstance(part, SuffixByteRequest)]
        assert sorted(suffixes) == [(f"c/{i}/0", index) for i in range(5)]
        parts = {n for _, part, n in store.asked if isinstance(part, RangeByteRequest)}
        assert parts == lengths
        # Of the last shard two of five inner chunks hold rows, and Zarr wrote no others.
        assert sum(n for _, _, n in store.asked) == stored


def test_what_is_on_its_way_stays_within_what_a_plan_counts(tmp_path: Path, tune: Tune) -> None:
    written(tmp_path / "x", numbers())
    chunk = INNER * 24
    tune(reading={"run_bytes": chunk, "line_bytes": 4 * chunk, "fewest_requests": 100})
    array = at(tmp_path / "x", True)
    files = files_of(array)
    assert isinstance(files, ShardObjects)
    reader = files.reader(INNER)
    assert isinstance(reader, ShardRunReader)
    reader.expect(slice(0, N))
    for first in range(0, N, INNER):
        read_rows(reader, slice(first, min(first + INNER, N)))
        assert sum(reader._run_bytes(n) for n, _ in reader._ahead._pending) <= 4 * chunk
        assert len(reader._indices) <= 1 + files.indices_ahead
    reader.close()
    assert isinstance(files.reader(2 * SHARD), WholeShardReader)
    index = 16 * 5 + 4
    assert files.shard_bytes == 5 * chunk + index
    unit = min(files.shard_bytes, max(tuning().reading.bytes, chunk) + index)
    unit = max(unit, chunk)
    ahead = max(4 * chunk, unit)
    assert files.decoding_bytes == ahead + unit + 2 * (1 + files.indices_ahead) * index
    source = ZarrSource(array, read_bytes=10**6)
    assert source.read_ahead == 1
    assert source.held_bytes > files.decoding_bytes


def test_chunks_out_of_turn_are_read_too(tmp_path: Path) -> None:
    rows = numbers()
    written(tmp_path / "x", rows)
    for size in READS.values():
        reader = row_reader(at(tmp_path / "x", True), size)
        order = list(range(0, N, size))
        for first in [*reversed(order), *order[::2]]:
            found = read_rows(reader, slice(first, min(first + size, N)))[0]
            np.testing.assert_array_equal(found, rows[first : first + size])
        reader.close()


# -- damage ------------------------------------------------------------------------------

WAYS = [(False, SHARD), (False, INNER), (True, SHARD), (True, INNER)]
by_every_way = pytest.mark.parametrize(
    ("far", "size"), WAYS, ids=["disk", "disk, parts", "objects", "objects, parts"]
)


@by_every_way
@pytest.mark.parametrize("place", ["start", "end"])
def test_a_damaged_shard_is_named(far: bool, size: int, place: str, tmp_path: Path) -> None:
    rows, rng = numbers(), np.random.default_rng(1)
    codecs = [BytesCodec(), ZstdCodec(), Crc32cCodec()]
    written(tmp_path / "x", rows, **sharding(codecs, index_location=place))
    array, shard = at(tmp_path / "x", far), tmp_path / "x" / "c" / "2" / "0"
    whole = shard.read_bytes()
    where = r"chunk (2|1\d) \(rows (50|55|60|65|70) to \d+; .*c/2/0\) of X"
    for bit in rng.integers(0, 8 * len(whole), 60).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(flipped)
        with pytest.raises(DataError, match=where):
            rows_of(array, size)
    for n in (0, 1, 40, 84, len(whole) // 2, len(whole) - 84, len(whole) - 1):
        shard.write_bytes(whole[:n])
        with pytest.raises(DataError, match=where):
            rows_of(array, size)
    index = bytearray(whole)
    index[3 if place == "start" else -6] ^= 1
    shard.write_bytes(index)
    named = r"^chunk 2 \(rows 50 to 74; .*cannot be decoded \(its index: it does not match its"
    with pytest.raises(DataError, match=named + ".*restore it from a copy or write the array"):
        rows_of(array, size)
    shard.write_bytes(whole)
    np.testing.assert_array_equal(rows_of(array, size), rows)


@by_every_way
def test_missing_and_misplaced_chunks_are_named_as_zarrs_reader_names_them(
    far: bool, size: int, tmp_path: Path
) -> None:
    rows = numbers()
    written(tmp_path / "x", rows, **sharding([BytesCodec()], index_codecs=[BytesCodec()]))
    array, shard = at(tmp_path / "x", far), tmp_path / "x" / "c" / "2" / "0"
    whole = shard.read_bytes()

    def said(read: Any) -> str:
        with pytest.raises(DataError) as e:
            read()
        return str(e.value)

    def by_zarr() -> None:
        list(each_read(WatchedReader(array), N, SHARD))

    def with_index(row: int, offset: int, length: int) -> None:
        index = np.frombuffer(whole[-80:], "<u8").reshape(5, 2).copy()
        index[row] = offset, length
        shard.write_bytes(whole[:-80] + index.tobytes())

    with_index(1, NO_CHUNK, NO_CHUNK)
    assert said(lambda: rows_of(array, size)) == said(by_zarr)
    filled = rows.copy()
    filled[55:60] = 7
    np.testing.assert_array_equal(rows_of(array, size, "fill"), filled)
    for offset, length in ((2**63, 120), (0, 2**63), (NO_CHUNK, 120), (0, NO_CHUNK), (600, 120)):
        with_index(1, offset, length)
        cut = "inner chunk 11 (rows 55 to 59; "
        assert said(lambda: rows_of(array, size)).startswith(cut)
    with_index(1, 0, 0)
    assert "inner chunk 11 (rows 55 to 59; " in said(lambda: rows_of(array, size))
    shard.unlink()
    assert said(lambda: rows_of(array, size)) == said(by_zarr)
    if not far:
        shard.mkdir()
        assert said(lambda: rows_of(array, size)) == said(by_zarr)


def test_a_shard_that_is_written_while_it_is_read_is_named(tmp_path: Path, tune: Tune) -> None:
    tune(reading={"run_bytes": 1, "most_requests": 1})
    written(tmp_path / "x", numbers())
    reader = row_reader(at(tmp_path / "x", True), INNER)
    read_rows(reader, slice(0, INNER))
    shard = tmp_path / "x" / "c" / "0" / "0"
    again = shard.read_bytes()
    shard.unlink()
    with pytest.raises(DataError, match=r"^chunk 0 \(rows 0 to 24; .*changed while it was read"):
        _ = [read_rows(reader, slice(first, first + INNER)) for first in (5, 10, 15, 20)]
    shard.write_bytes(again)
    reader.close()


# -- what Zarr reads ---------------------------------------------------------------------

OTHERS: dict[str, dict[str, Any]] = {
    "nested": sharding([ShardingCodec(chunk_shape=(1, 3), codecs=[BytesCodec()])]),
    "big-endian index": sharding([BytesCodec()], index_codecs=[BytesCodec(endian="big")]),
    "encoded index": sharding([BytesCodec()], index_codecs=[BytesCodec(), Crc32cCodec(),
                                                           Crc32cCodec()]),
    "columns apart": sharding([BytesCodec()], chunks=(INNER, 2), shards=(SHARD, 4)),
    "shards of columns": sharding([BytesCodec()], chunks=(INNER, 2)),
    "another codec": sharding([BytesCodec(), Crc32cCodec(), ZstdCodec()]),
    "a codec behind shards": {**sharding([BytesCodec()]), "compressors": [ZstdCodec()]},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
@pytest.mark.parametrize("far", [False, True], ids=["disk", "objects"])
@pytest.mark.parametrize("kind", OTHERS)
def test_other_shards_zarr_reads(kind: str, far: bool, tmp_path: Path) -> None:
    rows = numbers()
    written(tmp_path / "x", rows, **OTHERS[kind])
    array = at(tmp_path / "x", far)
    assert files_of(array) is None
    reader = row_reader(array, SHARD, ReadOptions("fill"))
    assert isinstance(reader, WatchedReader)
    found = np.concatenate(list(each_read(reader, N, SHARD)))
    np.testing.assert_array_equal(found, rows)


def test_places_are_checked_without_overflow() -> None:
    places = np.array([[0, 5], [5, 5], [NO_CHUNK, NO_CHUNK]], dtype="u8")
    assert ShardIndex(places).first_outside(10) is None
    assert ShardIndex(places).first_outside(9) == 1
    assert ShardIndex(places).first_outside(0) == 0
