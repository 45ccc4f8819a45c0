"""Jobs: what the command line asks for, as plain functions that return plain results."""

from .applying import inspect, predict, report, score
from .cluster import Where
from .fitting import Sweep, checkpointing, fit, sweep
from .planning import mebibytes, plan
from .tour import demo

__all__ = [
    "Sweep",
    "Where",
    "checkpointing",
    "demo",
    "fit",
    "inspect",
    "mebibytes",
    "plan",
    "predict",
    "report",
    "score",
    "sweep",
]
