"""Rows of Zarr arrays, read so that nothing is taken for what it is not."""
