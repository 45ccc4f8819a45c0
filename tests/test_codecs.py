"""Chunks decoded by their codec's own library: the numbers that Zarr reads, and no damaged ones."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    TransposeCodec,
    ZstdCodec,
)
from zarr.storage import MemoryStore

from dask_em.data.open import as_source
from dask_em.data.options import ReadOptions
from dask_em.data.zarr.chunk_files import ChunkFileReader, ChunkFiles
from dask_em.data.zarr.pipeline import Pipeline
from dask_em.data.zarr.readers import read_rows, row_reader
from dask_em.data.zarr.watched import WatchedReader
from dask_em.errors import DataError

N, ROWS = 107, 25
# The last chunk of rows is not whole, and one layout is wider than the data.
CHUNKS = ((ROWS, 3), (ROWS, 5), (200, 3))
VERSION_3: dict[str, list[Any]] = {
    "none": [],
    "zstd": [ZstdCodec(level=3)],
    "zstd that verifies": [ZstdCodec(checksum=True)],
    "blosc": [BloscCodec(cname="lz4", shuffle="shuffle")],
    "blosc bits": [BloscCodec(cname="zstd", shuffle="bitshuffle")],
    "gzip": [GzipCodec(level=1)],
}
VERSION_2: dict[str, Any] = {
    "none": None,
    "zstd": numcodecs.Zstd(1),
    "blosc": numcodecs.Blosc("lz4"),
    "gzip": numcodecs.GZip(1),
    "zlib": numcodecs.Zlib(1),
}


def numbers(dtype: str) -> np.ndarray:
    """Some that compress, and in each chunk others."""
    rng = np.random.default_rng(3)
    return (rng.normal(size=(N, 3)).round(1) * 10).astype(dtype)


def layouts(dtype: str) -> Iterator[dict[str, Any]]:
    """Arguments of `create_array`: every codec, order of bytes and of axes."""
    for i, codecs in enumerate(VERSION_3.values()):
        for big in (False, True):
            for transposed in (False, True):
                for checked in (False, True):
                    yield {
                        "dtype": dtype,
                        "serializer": BytesCodec(endian="big" if big else "little"),
                        "filters": [TransposeCodec(order=(1, 0))] if transposed else None,
                        "compressors": [*codecs, *([Crc32cCodec()] if checked else [])] or None,
                        "chunks": CHUNKS[(i + big + checked) % 3],
                    }
    for i, codec in enumerate(VERSION_2.values()):
        for order in "CF":
            for little in "<>":
                yield {
                    "dtype": np.dtype(dtype).newbyteorder("<" if little == "<" else ">"),
                    "zarr_format": 2,
                    "order": order,
                    "compressors": codec,
                    "chunks": CHUNKS[(i + (order == "F")) % 3],
                }


def read_directly(array: zarr.Array, missing: Any = "error") -> np.ndarray:
    """All rows, by the reader that decodes by itself, or not at all."""
    files = ChunkFiles.of(array, missing)
    assert files is not None
    reader = ChunkFileReader(files, -(-array.shape[0] // array.chunks[0]) * array.chunks[0])
    found = read_rows(reader, slice(0, array.shape[0]))[0].copy()
    reader.close()
    return found


@pytest.mark.parametrize("dtype", ["f8", "f4", "i2", "u1"])
def test_every_codec_gives_the_bytes_that_zarr_gives(dtype: str, tmp_path: Path) -> None:
    rows = numbers(dtype)
    for number, layout in enumerate(layouts(dtype)):
        path = str(tmp_path / str(number))
        array = zarr.create_array(path, shape=rows.shape, fill_value=7, **layout)
        # Of some chunks there is nothing, and Zarr has their fill value.
        array[: 4 * ROWS] = rows[: 4 * ROWS].astype(layout["dtype"])
        # As it was made, and as others find it.
        for one in (array, zarr.open_array(path, mode="r")):
            expected = np.asarray(one[:])
            found = read_directly(one, "fill")
            assert found.dtype == expected.dtype, layout
            assert found.tobytes() == expected.tobytes(), layout
        if layout["chunks"][0] == ROWS:
            with pytest.raises(DataError, match=r"lacks chunk 4 \(rows 100 to 106"):
                read_directly(array)


OTHERS: dict[str, dict[str, Any]] = {
    "a checksum before the codec": {"compressors": [Crc32cCodec(), ZstdCodec()]},
    "two codecs": {"compressors": [GzipCodec(), ZstdCodec()]},
    "a filter of version 2": {"zarr_format": 2, "filters": [numcodecs.Delta("<f8")]},
    "another codec of version 2": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "columns apart": {"chunks": (ROWS, 2)},
    "shards of columns": {"chunks": (5, 2), "shards": (ROWS, 4)},
    "no folder": {"store": MemoryStore()},
}


@pytest.mark.parametrize("kind", OTHERS)
def test_what_is_not_known_here_zarr_decodes(kind: str, tmp_path: Path) -> None:
    rows = numbers("f8")
    options = {"store": str(tmp_path / "x"), "chunks": (ROWS, 3), "dtype": "f8", **OTHERS[kind]}
    array = zarr.create_array(shape=rows.shape, **options)
    array[:] = rows
    assert ChunkFiles.of(array) is None
    reader = row_reader(array, N)
    assert isinstance(reader, WatchedReader)
    np.testing.assert_array_equal(read_rows(reader, slice(0, N))[0], rows)


# -- damage ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in VERSION_3 if name != "none"])
@pytest.mark.parametrize("checked", [False, True])
def test_a_damaged_file_is_named_or_read_as_zarr_reads_it(
    name: str, checked: bool, tmp_path: Path
) -> None:
    rows = numbers("f8")
    array = zarr.create_array(
        str(tmp_path / "x"),
        shape=rows.shape,
        chunks=(ROWS, 3),
        dtype="f8",
        compressors=[*VERSION_3[name], *([Crc32cCodec()] if checked else [])],
    )
    array[:] = rows
    file, rng = tmp_path / "x" / "c" / "2" / "0", np.random.default_rng(1)
    whole, named = file.read_bytes(), r"chunk 2 \(rows 50 to 74; .*c/2/0\)"
    cuts = [whole[:n] for n in (0, 1, 5, 17, len(whole) // 2, len(whole) - 9, len(whole) - 1)]
    for cut in cuts:
        file.write_bytes(cut)
        with pytest.raises(DataError, match=named):
            read_directly(array)
    found = 0
    for bit in rng.integers(0, 8 * len(whole), 60).tolist():
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        file.write_bytes(flipped)
        try:
            # What no checksum covers may be other numbers, and then the same for everybody.
            assert read_directly(array).tobytes() == np.asarray(array[:]).tobytes()
        except DataError as e:
            assert "chunk 2 (rows 50 to 74; " in str(e)  # noqa: PT017
            found += 1
    if checked or name == "gzip":
        # A header of gzip holds a time and a name of the system, of which nothing depends.
        assert found >= (60 if checked else 40)
    file.unlink()
    with pytest.raises(DataError, match=rf"X lacks {named}"):
        read_directly(array)


def zstd_frame(content: bytes) -> bytes:
    """A frame that does not say how much it holds, as a program that streams writes it."""
    block = (len(content) << 3 | 1).to_bytes(3, "little") + content
    return bytes.fromhex("28b52ffd0058") + block


def test_frames_and_members_may_be_several_and_say_no_size() -> None:
    rows = np.arange(75.0).reshape(ROWS, 3)
    content, half = rows.tobytes(), rows.nbytes // 2
    zstd, gz = numcodecs.Zstd().encode, gzip.compress
    cases = {
        "zstd": [
            zstd_frame(content),
            zstd(content[:half]) + zstd(content[half:]),
            zstd_frame(content[:half]) + zstd_frame(content[half:]),
        ],
        "gzip": [gz(content[:half]) + gz(content[half:]), gz(content) + bytes(13)],
    }
    for name, kinds in cases.items():
        pipeline = Pipeline((ROWS, 3), np.dtype("f8"), name)
        for stored in kinds:
            out = np.zeros((ROWS, 3))
            pipeline.decode(np.frombuffer(stored, np.uint8), out)
            np.testing.assert_array_equal(out, rows)
            for wrong in (np.zeros((ROWS + 1, 3)), np.zeros((ROWS - 1, 3))):
                with pytest.raises(ValueError, match=r"bytes of numbers|too small"):
                    pipeline.decode(np.frombuffer(stored, np.uint8), wrong)


def test_a_header_that_lies_of_its_size_is_given_no_memory() -> None:
    out = np.zeros((ROWS, 3))
    frame = bytearray(bytes.fromhex("28b52ffde0") + (2**60).to_bytes(8, "little") + bytes(30))
    blosc = bytearray(numcodecs.Blosc().encode(out.tobytes()))
    blosc[4:8] = (2**31 - 1).to_bytes(4, "little")
    behind = bytearray(numcodecs.Blosc().encode(out.tobytes()))
    behind[12:16] = (2**30).to_bytes(4, "little")
    bomb = gzip.compress(bytes(2**22))
    for name, stored in (("zstd", frame), ("blosc", blosc), ("blosc", behind), ("gzip", bomb)):
        pipeline = Pipeline((ROWS, 3), np.dtype("f8"), name)
        with pytest.raises(ValueError, match="bytes"):
            pipeline.decode(np.frombuffer(bytes(stored), np.uint8), out)


def test_plans_count_what_decoding_takes(tmp_path: Path) -> None:
    held, chunk = {}, 2**16 * 16 * 8
    kinds = {"plain": None, "zstd": [ZstdCodec()], "gzip": [GzipCodec()]}
    for name, compressors in kinds.items():
        array = zarr.create_array(
            str(tmp_path / name),
            shape=(2**17, 16),
            chunks=(2**16, 16),
            dtype="f8",
            compressors=compressors,
        )
        source = as_source(array, options=ReadOptions("fill"))
        held[name] = source.held_bytes
        assert source.library_bytes == 0
    # The bytes of one file, and one more chunk where a library returns what it decoded.
    assert held["zstd"] == held["plain"] + chunk
    assert held["gzip"] == held["plain"] + 2 * chunk
