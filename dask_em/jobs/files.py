"""TODO jobs.files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..storage.object_store import LARGEST_MODEL, read_bytes
from ..storage.urls import is_url


def _sha256(path: str) -> str:
    data = read_bytes(path, LARGEST_MODEL) if is_url(path) else Path(path).read_bytes()
    return hashlib.sha256(data).hexdigest()
