"""Pictures that results draw of themselves, by functions of whoever draws.

Pictures are made of results, so that what draws lies above them. A result names its picture, and
whoever draws registers under that name; that of this package is found by its place when it is
asked for, as a family is by its tag.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

Draw = Callable[..., Any]
D = TypeVar("D", bound=Draw)

# Modules that register the pictures of this package.
OWN = {"selection": "dask_em.report.choices"}

_drawings: dict[str, Draw] = {}


def register_drawing(name: str) -> Callable[[D], D]:
    """Register a function of a result that draws it, in place of any other of this name.

    Examples
    --------
    >>> @register_drawing("doc-picture")
    ... def draw(result):
    ...     return f"a picture of {result}"
    >>> drawing("doc-picture")("a result")
    'a picture of a result'
    """

    def register(draw: D) -> D:
        _drawings[name] = draw
        return draw

    return register


def drawing(name: str) -> Draw:
    """Return the function that draws a result."""
    if name not in _drawings:
        import_module(OWN[name])
    return _drawings[name]
