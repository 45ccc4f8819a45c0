"""Checks of a Zarr array: it can be read, has a checksum, and all its chunks."""

from __future__ import annotations

import time
from dataclasses import replace

from ...data.open import stored_source
from ...data.options import ReadOptions
from ...data.packing import VALID
from ...data.zarr.layout import check_present, file_shape, has_checksum
from ...data.zarr.source import ZarrSource
from ..plan import mebibytes
from .check import SafetyWarning


def describe_store(data: str, options: ReadOptions) -> str:
    """Read the first chunk of an array; return its shape, type and chunks in words."""
    source = stored_source(data, options=replace(options, missing_chunks="fill"))
    begin = time.perf_counter()
    first_chunk(source)
    seconds = time.perf_counter() - begin
    return (
        f"{source.description}: {source.n_rows:,} x {source.n_features} {source.dtype}, "
        f"{source.n_chunks:,} chunks of {mebibytes(source.nbytes / source.n_chunks)}; the first "
        f"was read in {seconds:.2g} s{_describe_packing(source)}"
    )


def _describe_packing(source: ZarrSource) -> str:
    """Say how stored numbers are decoded, and what is not looked at."""
    said = f"; packed, and decoded by {source.decoding}" if source.decoding else ""
    limits = [f"{name}={source.array.attrs[name]}" for name in VALID if name in source.array.attrs]
    if limits:
        said += f"; {', '.join(limits)} is not looked at, as in xarray: numbers beyond it count"
    return said


def first_chunk(source: ZarrSource) -> int:
    """Read the first chunk and return its fingerprint."""
    reader = source.reader()
    reader.read(0)
    reader.close()
    return reader.fingerprints[0]


def describe_checksum(source: ZarrSource) -> str:
    """Check that a codec of the array finds flipped bits."""
    if not has_checksum(source.array):
        raise SafetyWarning(
            "no codec has one, so bits that flipped before the first pass would pass for data: "
            "write the array again with zarr.codecs.Crc32cCodec() as the last of its compressors"
        )
    return "a codec finds flipped bits"


def describe_chunks(source: ZarrSource) -> str:
    """Check by a listing that all files of the array are there."""
    shape = file_shape(source.array)
    n_files = 1
    for n, size in zip(source.array.shape, shape, strict=True):
        n_files *= -(-n // size)
    if source.options.missing_chunks == "fill":
        return f"{n_files:,} expected; missing ones read as {source.array.fill_value}"
    check_present(source.array)
    return f"all {n_files:,} are there"
