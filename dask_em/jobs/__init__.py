"""Jobs: what the command line asks for, as plain functions that return plain results."""
