"""Who computes: this thread, or Dask."""
