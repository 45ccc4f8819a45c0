"""The version of dask_em: workers, files and checkpoints name it."""

__version__ = "0.1.0"
