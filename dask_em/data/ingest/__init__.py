"""Inputs of `ingest`: tables and arrays of any kind, as rows that one writer takes.

`rows` is the seam, `schema` decides what becomes of each column, `text` and `csv` read CSV files,
`tables` all other tables, `arrays` matrices, `opening` tells them apart, and `written` writes rows
while a pass reads them.
"""
