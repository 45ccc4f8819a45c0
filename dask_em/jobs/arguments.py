"""Checks of the paths that a command was given, before anything is imported that takes long."""

from __future__ import annotations

import os
from pathlib import Path

from ..data.open import columns_named
from ..data.zarr.opening import check_path
from ..errors import ModelNotFoundError, UsageError
from ..storage.urls import describe_url, is_url

# What an array or a group of Zarr has in its folder, whatever its format.
ZARR_DOCUMENTS = ("zarr.json", ".zarray", ".zgroup")


def check_model(path: str, order: str) -> None:
    """Check that there is a file where a model is to be read; of a URL its name alone is known.

    Parameters
    ----------
    path : str
    order : str
        The arguments of the command in their order, as its help has them.

    Raises
    ------
    UsageError
        It is a Zarr array.
    ModelNotFoundError
        There is nothing.

    Examples
    --------
    >>> check_model("s3://bucket/points.zarr", "MODEL DATA")
    Traceback (most recent call last):
    dask_em.errors.UsageError: MODEL: s3://bucket/points.zarr is a Zarr array, expected a model ...
    """
    if _is_zarr(path):
        raise UsageError(
            f"MODEL: {describe_url(path)} is a Zarr array, expected a model file; the order is "
            f"{order}"
        )
    if not is_url(path) and not os.path.exists(path):
        raise ModelNotFoundError(f"{path}: no such model file")


def check_data(path: str, name: str = "DATA", order: str = "") -> None:
    """Check that there is something where data are to be read, and that it is no model file.

    Parameters
    ----------
    path : str
    name : str
        Of the argument or option.
    order : str
        The arguments of the command in their order, where a model is one of them.

    Raises
    ------
    UsageError
        It is a model file.
    DataError
        There is nothing.
    """
    if path.endswith(".npz") and (is_url(path) or Path(path).is_file()):
        swapped = f"; the order is {order}" if order else ""
        raise UsageError(f"{name}: {describe_url(path)} is a model file, expected data{swapped}")
    check_path(path)


def check_noise_path(path: str | None) -> None:
    """Check that there is something where noise is to be read, unless it is columns of the data.

    Raises
    ------
    UsageError
        It is a model file.
    DataError
        There is nothing.

    Examples
    --------
    >>> check_noise_path("var_x,var_y")
    """
    if path is not None and not columns_named(path):
        check_data(path, "--noise-covariance")


def check_apart(output: str, path: str, name: str) -> None:
    """Check that an output replaces nothing that is read.

    Parameters
    ----------
    output : str
    path : str
        Of what is read.
    name : str
        The word for it.

    Raises
    ------
    UsageError
        The output is what is read, or a folder that it lies in.

    Examples
    --------
    >>> check_apart("out/answers.zarr", "out/x.zarr", "data")
    >>> check_apart("out", "out/x.zarr", "data")
    Traceback (most recent call last):
    dask_em.errors.UsageError: out would replace the data, out/x.zarr; choose another name
    """
    ours, theirs = (
        name.rstrip("/") if is_url(name) else os.path.realpath(name) for name in (output, path)
    )
    if theirs == ours or theirs.startswith(f"{ours}/"):
        raise UsageError(
            f"{describe_url(output)} would replace the {name}, {describe_url(path)}; choose "
            "another name"
        )


def check_not_within(output: str, data: str) -> None:
    """Check that an output does not lie in the folder of a table, whose files it would be among.

    Raises
    ------
    UsageError
        It does.

    Examples
    --------
    >>> check_not_within("s3://bucket/x/answers.parquet", "s3://bucket/x")
    Traceback (most recent call last):
    dask_em.errors.UsageError: s3://bucket/x/answers.parquet would lie in the data, ...
    """
    ours, theirs = (
        name.rstrip("/") if is_url(name) else os.path.realpath(name) for name in (output, data)
    )
    if ours.startswith(f"{theirs}/"):
        raise UsageError(
            f"{describe_url(output)} would lie in the data, {describe_url(data)}, and be read as a "
            "part of them: choose another folder"
        )


def _is_zarr(path: str) -> bool:
    if is_url(path):
        return path.rstrip("/").endswith(".zarr")
    return any(Path(path, document).is_file() for document in ZARR_DOCUMENTS)
