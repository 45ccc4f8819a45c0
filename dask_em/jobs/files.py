"""Digests of model files, on a disk or in an object store."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..storage.object_store import LARGEST_MODEL, read_bytes
from ..storage.urls import is_url


def file_sha256(path: str) -> str:
    """Compute the sha256 of a file, in hexadecimal."""
    data = read_bytes(path, LARGEST_MODEL) if is_url(path) else Path(path).read_bytes()
    return hashlib.sha256(data).hexdigest()
