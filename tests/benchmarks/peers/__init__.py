"""The children of the peers benchmark, each run as `python -m peers.NAME`.

They are run as modules of a package so that no file here hides a library of the same
name. Only the standard library and NumPy are sure to be in all their environments.
"""
