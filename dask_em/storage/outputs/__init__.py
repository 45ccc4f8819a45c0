"""Outputs, written beside their destination until they are whole.

`files` writes one file, `staging` knows where unfinished work lies and how it gets its name,
`resumable` goes on with a group of arrays, `predictions` writes the arrays.
"""
