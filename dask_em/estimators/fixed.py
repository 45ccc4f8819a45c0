"""The option `fixed`: names of parameters that no step changes, for all components or for some."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

NAMES = ("weights", "means", "covariances")


def fixed_parts(fixed: Any, k: int) -> dict[str, Sequence[int] | None] | None:
    """Return the components of each parameter that is held, None for all; None where none is.

    Parameters
    ----------
    fixed : str, iterable of str, mapping of str to int or sequence of int, or None
    k : int
        Number of components.

    Raises
    ------
    ValueError
        It is something else, or names other parameters or components.

    Examples
    --------
    >>> fixed_parts({"means"}, 3), fixed_parts({"means": [0], "covariances": 0}, 3)
    ({'means': None}, {'means': [0], 'covariances': [0]})
    >>> fixed_parts({"means": [3]}, 3)
    Traceback (most recent call last):
    ValueError: fixed={'means': [3]}: expected numbers of components from 0 to 2, each of them once
    """
    if fixed is None:
        return None
    given = fixed if isinstance(fixed, Mapping) else _names(fixed)
    unknown = [name for name in given if name not in NAMES]
    if unknown or not given:
        raise ValueError(
            f"fixed={fixed!r}: expected names of {', '.join(NAMES)}, such as {{'means'}}, or the "
            "components of each, such as {'means': [0]}"
        )
    return {name: _components(fixed, of, k) for name, of in given.items()}


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
