"""Model files, on a disk or in an object store: their digests, and how their models read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ..core.engine import NUMPY
from ..data.options import ReadChoices
from ..errors import UsageError
from ..estimators.load import load
from ..storage.object_store import LARGEST_MODEL, read_bytes
from ..storage.urls import is_url

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator
    from ..estimators.options import MissingValues


def file_sha256(path: str) -> str:
    """Compute the sha256 of a file, in hexadecimal."""
    data = read_bytes(path, LARGEST_MODEL) if is_url(path) else Path(path).read_bytes()
    return hashlib.sha256(data).hexdigest()


class ModelChoices(ReadChoices, total=False):
    """Hold what is read, and whether NaN is a missing value; None is as the model was fitted."""

    missing_values: MissingValues | None


class FleetChoices(ModelChoices, total=False):
    """Hold what else of models decides how large they are; None is the estimator's default."""

    n_factors: int | Sequence[int] | None
    noise: bool | float | None


def load_to_read(path: str, **reading: Unpack[ModelChoices]) -> MixtureEstimator:
    """Read a model, which reads data as its fit did unless it is told otherwise here.

    Raises
    ------
    UsageError
        Its components cannot be told to take missing values, or not to.
    """
    model = load(path)
    wanted = reading.pop("missing_values", None)
    model.set_params(**{name: value for name, value in reading.items() if value is not None})
    # What is none of those allowed is refused before data are opened.
    _ = model.read_options
    if wanted is not None:
        _take_missing(model, wanted)
    return model


def _take_missing(model: MixtureEstimator, wanted: MissingValues) -> None:
    """Have a model take NaN as a missing value, or not."""
    if "missing_values" in model.get_params():
        model.set_params(missing_values=wanted)
    if any(model.mixture(NUMPY).components.support.missing) != (wanted == "mar"):
        raise UsageError(
            f"a {type(model).__name__} is what it was fitted as, and cannot be asked to take "
            f"missing values as {wanted!r}: fit it so"
        )
