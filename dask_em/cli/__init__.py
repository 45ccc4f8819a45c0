"""The program `dask-em`, also `dask em`: words in, jobs called, results shown."""

from .main import main

__all__ = ["main"]
