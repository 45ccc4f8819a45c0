"""The log of the program on standard error: lines for people, or JSON for machines."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from copy import copy
from pathlib import Path
from typing import Any

import click

from ..foreign import LONGEST_MESSAGE, shown
from .words import in_shell


def log_as(formatter: logging.Formatter) -> None:
    """Send the log of the library to standard error, in this format."""
    logger = logging.getLogger("dask_em")
    if not logger.handlers:
        logger.addHandler(StandardError())
        logger.setLevel(logging.INFO)
        logger.propagate = False
    logger.handlers[0].setFormatter(formatter)


class StandardError(logging.Handler):
    """A handler that looks up standard error for every line: whoever calls may replace it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, in the words of the command that runs."""
        try:
            said = copy(record)
            said.msg, said.args = in_words_of_command(record.getMessage()), ()
            print(self.format(said), file=sys.stderr, flush=True)
        except Exception:
            self.handleError(record)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and the numbers of a pass or a summary."""

    structured = True

    def format(self, record: logging.LogRecord) -> str:
        """Format a record as one JSON object."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "time": f"{when}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "numbers", {}),
        }
        return json.dumps(line)


def in_words_of_command(text: str) -> str:
    """Return a message in the words of the command that this thread runs, if it does."""
    ctx = click.get_current_context(silent=True)
    return text if ctx is None else in_shell(text, ctx.command)


def show_warning(
    message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any
) -> None:
    """Print or log a warning that is for the user; others stay within the libraries."""
    if category.__module__.partition(".")[0] not in ("builtins", "sklearn", "dask_em"):
        return
    if any(filename.startswith(home) for home in _homes("numpy", "scipy", "sklearn")):
        return
    message = shown(in_words_of_command(str(message)), LONGEST_MESSAGE)
    logger = logging.getLogger("dask_em")
    if any(isinstance(handler.formatter, JsonLines) for handler in logger.handlers):
        logger.warning("%s", message)
    else:
        click.echo(f"Warning: {message}", err=True)


def _homes(*libraries: str) -> list[str]:
    """Return the folders of libraries that are loaded: what they warn of is their own."""
    files = [sys.modules[name].__file__ for name in libraries if name in sys.modules]
    return [str(Path(file).parent) + os.sep for file in files if file]
