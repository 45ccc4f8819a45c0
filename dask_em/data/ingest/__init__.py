"""Inputs of `ingest`: tables and arrays of any kind, as rows that one writer takes.

`rows` is the seam, `schema` decides what becomes of each column, `text` and `csv` read CSV files,
`parts` files and frames whose columns have types, `tables` makes one table of all parts, `arrays`
one of matrices, `opening` tells them apart, and `written` writes rows while a pass reads them.
"""
