"""Messages of the library in the words of a shell: options where Python has arguments."""

from __future__ import annotations

import ast
import csv
import io
import re
import shlex

import click

# Options whose parameter has another name in the library, or several.
IN_PYTHON = {
    "covariance_types": ("covariance_type",),
    "folder": ("checkpoint",),
    "labels": ("labels_init",),
    "n_components": ("n_components", "n_clusters"),
    "weights": ("sample_weight",),
}

# Arguments that no sentence has for a word of its own, beside all names of several words.
NO_WORDS = {"nonfinite", "tol"}

VALUE = r"'[^']*'|\"[^\"]*\"|\[[^\[\]]*\]|[-+\w]+(?:\.\w+)*"

# What only Python can do.
ONLY_IN_PYTHON = re.compile(
    r",? or (?:start from this result with|set) warm_start=\w+"
    r"| \(a fitted model is told by set_params\([^)]*\)\)"
)


def in_shell(text: str, command: click.Command) -> str:
    """Return a message with the options of a command in place of the arguments that it names.

    Examples
    --------
    >>> options = [click.Option(["--max-iter"]), click.Option(["--resume/--no-resume"])]
    >>> command = click.Command("fit", params=options)
    >>> in_shell("max_iter=0: raise max_iter, or pass resume=False", command)
    '--max-iter 0: raise --max-iter, or pass --no-resume'
    """
    text = ONLY_IN_PYTHON.sub("", text)
    shell, in_python, rest = _parted(text)
    if in_python:
        return in_shell(shell, command) + in_python + rest
    for option in command.params:
        if isinstance(option, click.Option) and option.name is not None:
            for name in IN_PYTHON.get(option.name, (option.name,)):
                text = _with_option(text, name, option)
    return text


def _typed(value: str, names: bool) -> str:
    """Return what a shell is given for a value of Python: of several names, their list."""
    one = value.strip("'\"")
    try:
        several = ast.literal_eval(value) if value.startswith("[") else [one] if names else None
    except (ValueError, SyntaxError):
        several = None
    if several is None:
        return one
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(several)
    return line.getvalue()


def _parted(text: str) -> tuple[str, str, str]:
    """Return a message up to "in Python,", these words, and what follows, left as it is."""
    found = re.search(r"\b[Ii]n Python,", text)
    if found is None:
        return text, "", ""
    return text[: found.start()], found[0], text[found.end() :]


def _with_option(text: str, name: str, option: click.Option) -> str:
    flag = max(option.opts, key=len)

    def typed(found: re.Match[str]) -> str:
        value = _typed(found[1], option.type.name == "names")
        if option.is_flag:
            chosen = {"True": option.opts, "False": option.secondary_opts}.get(value)
            return max(chosen, key=len) if chosen else found[0]
        return f"{flag} {shlex.quote(value)}"

    # Neither a part of a path, nor of another name, nor a value.
    text = re.sub(rf"(?<![\w/.\\-]){name}=({VALUE})", typed, text)
    if "_" in name or name in NO_WORDS:
        text = re.sub(rf"(?<![\w/.\\'\"-]){name}(?![\w/=\\-]|\.\w)", flag, text)
    return text
