"""Whether pyarrow is here, by which tables in files are read and written."""

from __future__ import annotations

from ..errors import StoreAccessError


def require_pyarrow() -> None:
    """Raise `StoreAccessError` where pyarrow is not installed.

    Examples
    --------
    >>> require_pyarrow()
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as e:
        raise StoreAccessError(
            f"Parquet and Arrow are read and written by pyarrow, which does not import here ({e}): "
            "pip install 'dask-em[table]', here and on every worker"
        ) from e
