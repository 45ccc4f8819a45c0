"""Write fitted estimators to model files, and read them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from ..errors import ModelFileError
from ..storage.npz import read_arrays, write_arrays
from .format_2 import from_format_2
from .registry import StoredEstimator, estimator_of, stored_of, tag_named
from .saved import SavedModel, groups_in

T = TypeVar("T")


def write_model(
    path: str | os.PathLike[str], model: StoredEstimator, overwrite: bool = False
) -> None:
    """Write a fitted estimator to one file, whole or not at all.

    Raises
    ------
    ValueError
        An option was set since the fit to what no model file holds.
    OutputExistsError
        The file is there and `overwrite` is False.
    """
    try:
        saved = model.to_saved()
        header, arrays = saved.parts()
        # What could not be read must not be written.
        made = SavedModel.from_parts(header, arrays, stored_of(saved.estimator))
        estimator_of(saved.estimator).from_saved(made)
    except (LookupError, TypeError, ValueError) as e:
        raise ValueError(f"this model cannot be saved: {e}") from e
    write_arrays(path, header, arrays, overwrite)


def read_model(path: str | os.PathLike[str]) -> StoredEstimator:
    """Read a fitted estimator of a registered class.

    Raises
    ------
    ModelFileError
        No such file, not one of ours, or damaged.
    """
    return read_as(path, lambda saved: estimator_of(saved.estimator).from_saved(saved))


def read_as(path: str | os.PathLike[str], make: Callable[[SavedModel], T]) -> T:
    """Read what a model file holds, and return what `make` makes of it.

    Raises
    ------
    ModelFileError
        No such file, not one of ours, or damaged: parts are missing, or `make` cannot use them.
    """
    header, arrays = read_arrays(path)
    try:
        # What overflows is found by its result.
        with np.errstate(all="ignore"):
            if header["format_version"] == 2:
                header, arrays = from_format_2(header, arrays)
            stored = stored_of(header["estimator"])
            for name in groups_in(header):
                # Whoever registers a family registers the records of its state.
                stored_of(tag_named(name))
            return make(SavedModel.from_parts(header, arrays, stored))
    except (
        LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError,
        RecursionError,
    ) as e:  # fmt: skip
        raise ModelFileError(
            f"{path}: a part of the model is missing or wrong ({e!r}): restore it from a copy, or "
            "fit again"
        ) from e
