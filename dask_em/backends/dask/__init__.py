"""Passes and calls on the Dask scheduler in force."""
