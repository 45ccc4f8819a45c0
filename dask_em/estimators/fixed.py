"""The option `fixed`: names of parameters that no step changes, for all components or for some."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.held import WEIGHTS


def fixed_parts(
    fixed: Any, k: int, names: Collection[str]
) -> dict[str, Sequence[int] | None] | None:
    """Return the components of each parameter that is held, None for all; None where none is.

    Parameters
    ----------
    fixed : str, iterable of str, mapping of str to int or sequence of int, or None
    k : int
        Number of components.
    names : collection of str
        Of the parameters that the family can hold.

    Raises
    ------
    ValueError
        It is something else, or names other parameters or components.

    Examples
    --------
    >>> names = ("weights", "means")
    >>> fixed_parts({"means"}, 3, names), fixed_parts({"means": [0], "weights": 0}, 3, names)
    ({'means': None}, {'means': [0], 'weights': [0]})
    >>> fixed_parts({"means": [3]}, 3, names)
    Traceback (most recent call last):
    ValueError: fixed={'means': [3]}: expected numbers of components from 0 to 2, each of them once
    """
    if fixed is None:
        return None
    given = fixed if isinstance(fixed, Mapping) else _names(fixed)
    unknown = [name for name in given if name not in names]
    if unknown or not given:
        first = [*names][:2][-1]
        raise ValueError(
            f"fixed={fixed!r}: expected names of {', '.join(names)}, such as {{{first!r}}}, or the "
            f"components of each, such as {{{first!r}: [0]}}"
        )
    return {name: _components(fixed, of, k) for name, of in given.items()}


def check_given(fixed: Any, k: int, options: Mapping[str, str], given: Collection[str]) -> None:
    """Check that what is held is given.

    Parameters
    ----------
    fixed : object
        As in `fixed_parts`.
    k : int
    options : mapping of str to str
        By the names of what the family can hold, the options that give it.
    given : collection of str
        Those of these options that have a value.

    Raises
    ------
    ValueError
        It is not. Weights are equal where none are given.

    Examples
    --------
    >>> check_given({"rates"}, 2, {"weights": "weights_init", "rates": "rates_init"}, ())
    Traceback (most recent call last):
    ValueError: fixed={'rates'} holds rates: give them by rates_init
    """
    held = fixed_parts(fixed, k, options.keys()) or {}
    for name in held:
        if name != WEIGHTS and options[name] not in given:
            raise ValueError(f"fixed={fixed!r} holds {name}: give them by {options[name]}")
    of = held.get(WEIGHTS)
    if of is not None and len(of) < k and options[WEIGHTS] not in given:
        raise ValueError(
            f"fixed={fixed!r} holds the weights of some components: give all weights by "
            "weights_init, or hold all weights, which are equal where none are given"
        )


def _names(fixed: Any) -> dict[Any, None]:
    several = [fixed] if isinstance(fixed, str) or not isinstance(fixed, Iterable) else [*fixed]
    return dict.fromkeys(name if isinstance(name, str) else repr(name) for name in several)


def _components(fixed: Any, of: Any, k: int) -> list[int] | None:
    if of is None:
        return None
    try:
        several = sorted(of) if isinstance(of, set | frozenset) else of
        numbers = np.atleast_1d(np.asarray(several))
        whole = numbers.dtype.kind in "iu" and numbers.ndim == 1
    except (TypeError, ValueError):
        whole = False
    found = numbers.tolist() if whole else []
    if not found or min(found) < 0 or max(found) >= k or len(set(found)) < len(found):
        raise ValueError(
            f"fixed={fixed!r}: expected numbers of components from 0 to {k - 1}, each of them once"
        )
    return list(map(int, found))
