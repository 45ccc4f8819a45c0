"""Checks of stored data: they can be read, have a checksum, and all their files."""

from __future__ import annotations

import time
from dataclasses import replace

from ...core.protocols import StoredSource
from ...data.open import stored_source
from ...data.options import ReadOptions
from ..plan import mebibytes
from .check import SafetyWarning


def describe_store(data: str, options: ReadOptions) -> str:
    """Read the first chunk of stored rows; return their shape, type and chunks in words."""
    source = stored_source(data, options=replace(options, missing_chunks="fill"))
    begin = time.perf_counter()
    first_chunk(source)
    seconds = time.perf_counter() - begin
    notes = source.storage_notes()
    return (
        f"{source.description}: {source.n_rows:,} x {source.n_features} {source.dtype}, "
        f"{source.n_chunks:,} chunks of {mebibytes(source.nbytes / source.n_chunks)}; the first "
        f"was read in {seconds:.2g} s{f'; {notes}' if notes else ''}"
    )


def first_chunk(source: StoredSource) -> int:
    """Read the first chunk and return its fingerprint."""
    reader = source.reader()
    reader.read(0)
    reader.close()
    return reader.fingerprints[0]


def describe_checksum(source: StoredSource) -> str:
    """Check that flipped bits are found."""
    if source.lacks_checksum:
        raise SafetyWarning(
            "there is none, so bits that flipped before the first pass would pass for data: "
            f"{source.lacks_checksum}"
        )
    return "flipped bits are found"


def describe_chunks(source: StoredSource) -> str:
    """Check that all files of the data are there."""
    return source.presence()
