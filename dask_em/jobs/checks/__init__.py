"""Checks of what a job needs: the machine, the data, the cluster."""
