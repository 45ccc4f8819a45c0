"""Sources: what is a chunk, what is a range, and how rows are read."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from helpers import leaves, random_mixture, write_zarr
from hypothesis import given
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec

from dask_em.core.engine import Engine
from dask_em.core.protocols import Fold
from dask_em.core.ranges import even_bounds, even_ranges
from dask_em.core.reading import fold_range
from dask_em.core.tuning import tuning
from dask_em.data.dask import DaskSource, zarr_behind
from dask_em.data.memory import ArraySource
from dask_em.data.open import as_source
from dask_em.data.options import ReadOptions
from dask_em.data.zarr.source import ZarrSource
from dask_em.errors import DataError
from dask_em.storage.urls import describe_url

X = np.random.default_rng(0).normal(size=(500, 3))


class Rows(Fold[Any]):
    """A fold that keeps what it was given."""

    def __init__(self) -> None:
        self.chunks: list[tuple[int, np.ndarray, np.ndarray | None]] = []

    def update(self, index: int, X: np.ndarray, sample_weight: np.ndarray | None) -> None:
        self.chunks.append((index, X.copy(), sample_weight))

    def result(self) -> list[tuple[int, np.ndarray, np.ndarray | None]]:
        return self.chunks


def read_all(source) -> list[tuple[int, np.ndarray, np.ndarray | None]]:
    """Every chunk of every range, in order."""
    return [
        chunk
        for part in source.ranges()
        for chunk in fold_range(source, Rows(), part, source.shipped_weights(part))
    ]


LAYOUTS: dict[str, dict[str, Any]] = {
    "compressed": {"chunks": (37, 3)},
    "raw": {"chunks": (37, 3), "compressors": None},
    "checksummed": {"chunks": (37, 3), "compressors": [Crc32cCodec()]},
    "big endian": {"chunks": (37, 3), "compressors": None, "serializer": "big"},
    "columns apart": {"chunks": (37, 2), "compressors": None},
    "wider than the data": {"chunks": (37, 5), "compressors": None},
    "longer than the data": {"chunks": (900, 3), "compressors": None},
    "sharded": {"chunks": (10, 3), "shards": (200, 3)},
    "raw shards": {"chunks": (10, 3), "shards": (200, 3), "compressors": None},
    "version 2": {"chunks": (37, 3), "zarr_format": 2, "compressors": None},
}


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4", "u1", "f2"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_row_is_read_once_and_in_order(
    layout: str, dtype: str, tmp_path, many_chunks: None
) -> None:
    options = dict(LAYOUTS[layout])
    if options.get("serializer") == "big":
        options["serializer"] = zarr.codecs.BytesCodec(endian="big")
    rows = np.abs(10 * X).astype(dtype)
    source = as_source(write_zarr(tmp_path / "x.zarr", rows, 1, **options))
    chunks = read_all(source)
    assert [index for index, _, _ in chunks] == list(range(source.n_chunks))
    np.testing.assert_array_equal(np.concatenate([part for _, part, _ in chunks]), rows)
    assert {part.dtype for _, part, _ in chunks} == {np.dtype(dtype)}


def test_a_chunk_that_was_never_written_is_an_error_or_the_fill_value(tmp_path) -> None:
    for name, compressors in (("raw", None), ("compressed", "auto")):
        array = zarr.create_array(
            str(tmp_path / name),
            shape=(100, 2),
            chunks=(10, 2),
            dtype="f8",
            fill_value=7.0,
            compressors=compressors,
        )
        array[:50] = 1.0
        with pytest.raises(
            DataError, match=r'lacks chunk 5 \(rows 50 to 59; .*missing_chunks="fill"'
        ):
            read_all(as_source(array))
        (_, rows, _), *_ = read_all(as_source(array, options=ReadOptions("fill")))
        np.testing.assert_array_equal(rows, array[:])


@pytest.mark.parametrize("compressors", [None, [Crc32cCodec()]], ids=["raw", "checksummed"])
def test_a_truncated_chunk_is_named(compressors, tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 100, compressors=compressors)
    chunk = tmp_path / "x.zarr" / "c" / "3" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"chunk 3 .*holds .* bytes, expected"):
        read_all(as_source(array))


def test_a_damaged_chunk_is_named_by_its_checksum(tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 100, compressors=[Crc32cCodec()])
    chunk = tmp_path / "x.zarr" / "c" / "2" / "0"
    damaged = bytearray(chunk.read_bytes())
    damaged[100] ^= 1
    chunk.write_bytes(damaged)
    with pytest.raises(DataError, match=r"chunk 2 .*checksum"):
        read_all(as_source(array))


@given(n_chunks=st.integers(1, 5000))
def test_ranges_cover_every_chunk_once_with_a_bounded_number_of_tasks(
    n_chunks: int,
) -> None:
    parts = even_ranges(n_chunks)
    assert [chunk for part in parts for chunk in part] == list(range(n_chunks))
    assert (
        min(n_chunks, tuning().reading.fewest_ranges) <= len(parts) <= tuning().reading.most_ranges
    )
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@given(n=st.integers(1, 500), rows=st.integers(1, 600))
def test_bounds_cut_all_rows(n: int, rows: int) -> None:
    bounds = even_bounds(n, rows).tolist()
    assert (bounds[0], bounds[-1]) == (0, n)
    assert all(0 < b - a <= rows for a, b in pairwise(bounds))


def test_small_chunks_are_read_together_and_large_ones_whole(tmp_path, many_chunks: None) -> None:
    small = ZarrSource(write_zarr(tmp_path / "small.zarr", X, 10))
    assert small.chunk_rows % 10 == 0
    assert 10 < small.chunk_rows <= tuning().reading.bytes // X[0].nbytes
    large = ZarrSource(write_zarr(tmp_path / "large.zarr", X, 450))
    assert large.chunk_rows == 450
    shards = ZarrSource(write_zarr(tmp_path / "shards.zarr", X, 1, chunks=(50, 3), shards=(500, 3)))
    assert 500 % shards.chunk_rows == 0
    assert shards.chunk_rows % 50 == 0


@pytest.mark.parametrize("holder", ["numpy", "zarr"])
def test_weights_come_beside_their_rows(holder: str, tmp_path, many_chunks: None) -> None:
    weights = np.arange(500.0)
    stored = weights if holder == "numpy" else write_zarr(tmp_path / "w.zarr", weights, 77)
    source = as_source(write_zarr(tmp_path / "x.zarr", X, 37), stored)
    found = np.concatenate([weight for _, _, weight in read_all(source)])
    np.testing.assert_array_equal(found, weights)


def test_weights_in_memory_stay_out_of_what_is_sent_to_everyone(tmp_path) -> None:
    import pickle

    source = as_source(write_zarr(tmp_path / "x.zarr", X, 37), np.ones(500))
    assert pickle.loads(pickle.dumps(source)).memory_weight is None
    assert len(pickle.dumps(source)) < 500 * 8


def test_everything_that_holds_rows_is_a_source(tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 37)
    group = zarr.open_group(str(tmp_path / "group.zarr"), mode="w")
    group.create_array("points", shape=X.shape, dtype="f8", chunks=(50, 3))[:] = X
    kinds = {
        "array": (X, ArraySource),
        "list": (X.tolist(), ArraySource),
        "zarr": (array, ZarrSource),
        "path": (tmp_path / "x.zarr", ZarrSource),
        "text": (str(tmp_path / "x.zarr"), ZarrSource),
        "url": (f"file://{tmp_path}/x.zarr", ZarrSource),
        "member": (tmp_path / "group.zarr" / "points", ZarrSource),
        "dask on zarr": (da.from_zarr(array), ZarrSource),
        "dask": (da.from_array(X), DaskSource),
    }
    for held, expected in kinds.values():
        source = as_source(held)
        assert isinstance(source, expected)
        assert (source.n_rows, source.n_features, source.dtype) == (500, 3, np.float64)
        assert source.nbytes == X.nbytes
        assert source.description


def test_a_dask_array_that_is_nothing_but_a_zarr_array_is_that_array(tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 37)
    for lazy in (
        da.from_zarr(array),
        da.from_zarr(str(tmp_path / "x.zarr")),
        da.from_zarr(array, chunks=(100, 3)),
        da.from_zarr(array, chunks=(37, 1)),
        da.from_zarr(array)[:],
    ):
        found = zarr_behind(lazy)
        assert found is not None
        np.testing.assert_array_equal(found[:], X)


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x + 0,
        lambda x: x[10:],
        lambda x: x[::-1],
        lambda x: x[:, :2],
        lambda x: x[:, ::-1],
        lambda x: x.astype("f4"),
        lambda x: x.rechunk((100, 3)),
        lambda x: x.map_blocks(np.negative),
        lambda x: da.concatenate([x, x]),
        lambda x: da.from_array(X, chunks=(37, 3)),
        lambda x: da.from_array(X, chunks=(37, 3), name="from-zarr-looks-like-it"),
        lambda x: x.T[:3].T,
    ],
)
def test_a_dask_array_with_another_layer_is_not(change, tmp_path) -> None:
    array = write_zarr(tmp_path / "x.zarr", X, 37)
    assert zarr_behind(change(da.from_zarr(array))) is None


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("points.zarr", "points.zarr"),
        ("s3://bucket/points.zarr", "s3://bucket/points.zarr"),
        ("https://me:secret@host/p.zarr?token=abc#x", "https://host/p.zarr"),
        ("abfs://box@account.dfs.core.windows.net/x", "abfs://box@account.dfs.core.windows.net/x"),
        ("zip://x.zarr::s3://me:secret@data/a.zip", "zip://x.zarr::s3://data/a.zip"),
        ("plain/path", "plain/path"),
    ],
)
def test_a_description_holds_no_credentials(url: str, shown: str) -> None:
    assert describe_url(url) == shown


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("fast", [False, True])
def test_a_chunk_summed_while_it_is_read_has_the_bits_of_one_read_whole(
    weighted: bool, fast: bool, tmp_path
) -> None:
    if fast:
        pytest.importorskip("numba", reason="the extra `fast` is not installed")
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200_000, 5))
    weight = rng.integers(0, 3, len(X)).astype(float) if weighted else None
    mixture = replace(
        random_mixture("full", 3, 5, rng), engine=Engine("numba" if fast else "numpy")
    )
    sums = []
    for name, options in {"raw": {"compressors": None}, "zstd": {}}.items():
        source = as_source(write_zarr(tmp_path / name, X, 80_000, **options), weight)
        fold: Any = mixture.fold()
        calls = 0
        update = fold.update

        def counted(*arguments: Any, update: Any = update) -> None:
            nonlocal calls
            calls += 1
            update(*arguments)

        fold.update = counted
        chunks = range(source.n_chunks)
        sums.append(fold_range(source, fold, chunks, source.shipped_weights(chunks)))
        # A file of plain numbers is summed as it arrives.
        assert calls > 2 * source.n_chunks if name == "raw" else calls == source.n_chunks
    for one, other in zip(*map(leaves, sums), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_was_summed_of_a_damaged_chunk_is_given_up(tmp_path) -> None:
    X = np.random.default_rng(0).normal(size=(100_000, 5))
    source = as_source(write_zarr(tmp_path / "x", X, 100_000, compressors=[Crc32cCodec()]))
    file = tmp_path / "x" / "c" / "0" / "0"
    data = bytearray(file.read_bytes())
    data[-5] ^= 1
    file.write_bytes(data)
    fold = random_mixture("full", 3, 5, np.random.default_rng(0)).fold()
    with pytest.raises(DataError, match="does not match its checksum"):
        fold_range(source, fold, range(1), None)
