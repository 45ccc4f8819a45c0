"""Outputs, written beside their destination until they are whole.

`writer` is the one way to write a file or fill a folder: locked, checked before the work, replacing
nothing unasked. `files` has its steps on a disk, `staging` knows where unfinished work lies and how
it gets its name, `resumable` goes on with a group of arrays, `predictions` writes the arrays.
"""
