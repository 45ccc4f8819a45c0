"""The program `dask-em`, also `dask em`: words in, jobs called, results shown."""

from .main import main, program

__all__ = ["main", "program"]
