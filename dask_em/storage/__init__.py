"""Where bytes lie and what is kept: URLs, folders, locks, files of arrays, checkpoints, outputs."""
