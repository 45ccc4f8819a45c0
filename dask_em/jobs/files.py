"""Model files, on a disk or in an object store: their digests, and how their models read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ..data.options import ReadChoices
from ..estimators.load import load
from ..storage.object_store import LARGEST_MODEL, read_bytes
from ..storage.urls import is_url

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator


def file_sha256(path: str) -> str:
    """Compute the sha256 of a file, in hexadecimal."""
    data = read_bytes(path, LARGEST_MODEL) if is_url(path) else Path(path).read_bytes()
    return hashlib.sha256(data).hexdigest()


def load_to_read(path: str, **reading: Unpack[ReadChoices]) -> MixtureEstimator:
    """Read a model, which reads data as its fit did unless it is told otherwise here."""
    model = load(path)
    model.set_params(**{name: value for name, value in reading.items() if value is not None})
    # What is none of those allowed is refused before data are opened.
    _ = model.read_options
    return model
