"""Sources of rows: in memory, in Zarr arrays, in Dask arrays; and the registry that opens them."""
