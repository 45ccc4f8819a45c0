"""`python -m dask_em.cli`."""

from .main import program

program()
