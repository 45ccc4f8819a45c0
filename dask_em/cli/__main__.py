"""`python -m dask_em.cli`."""

from .main import main

main()
