"""Columns of rows, against those of a model."""

from __future__ import annotations

from ..errors import DataError


def check_columns(name: str, found: int, fitted: int) -> None:
    """Check that rows of `found` columns can be rows of a model of `fitted`.

    Raises
    ------
    DataError
        The numbers differ; the message names the data by `name`.

    Examples
    --------
    >>> check_columns("X", 2, 2)
    """
    if found != fitted:
        raise DataError(
            f"{name} has {found} columns, but the model was fitted to {fitted}: give the same "
            "columns in the same order"
        )
