"""TODO data.columns."""

from __future__ import annotations

from ..errors import DataError


def check_columns(name: str, found: int, fitted: int) -> None:
    """Raise `DataError` where rows of `found` columns cannot be rows of a model of `fitted`."""
    if found != fitted:
        raise DataError(
            f"{name} has {found} columns, but the model was fitted to {fitted}: give the same "
            "columns in the same order"
        )
