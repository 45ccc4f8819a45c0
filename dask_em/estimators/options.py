"""Checks of an estimator's options: which one, what came, what was expected."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np
from sklearn.utils import check_random_state

from ..fitting.observers import Observer
from ..storage.checkpoint import Checkpointing

MissingValues = Literal["error", "mar"]


def check_number(name: str, value: Any, kind: type, least: float) -> None:
    """Raise `ValueError` unless an option is a finite number of at least `least`.

    Examples
    --------
    >>> check_number("n_init", 0, int, 1)
    Traceback (most recent call last):
    ValueError: n_init=0: expected an integer of at least 1
    """
    allowed = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    right = isinstance(value, allowed) and not isinstance(value, bool) and value >= least
    if not right or not np.isfinite(value):
        noun = "an integer" if kind is int else "a number"
        raise ValueError(f"{name}={value!r}: expected {noun} of at least {least}")


def check_above(name: str, value: Any, least: float) -> None:
    """Raise `ValueError` unless an option is a finite number above `least`.

    Examples
    --------
    >>> check_above("mean_precision_prior", 0, 0)
    Traceback (most recent call last):
    ValueError: mean_precision_prior=0: expected a number above 0
    """
    right = isinstance(value, int | float | np.integer | np.floating)
    if not right or isinstance(value, bool) or not np.isfinite(value) or not value > least:
        raise ValueError(f"{name}={value!r}: expected a number above {least:g}")


def check_n_samples(n_samples: Any) -> None:
    """Raise `ValueError` unless so many rows can be drawn; in scikit-learn's words, too.

    Examples
    --------
    >>> check_n_samples(1)
    >>> check_n_samples(0)
    Traceback (most recent call last):
    ValueError: n_samples=0: expected an integer of at least 1. Invalid value for 'n_samples': ...
    """
    try:
        check_number("n_samples", n_samples, int, 1)
    except ValueError as e:
        raise ValueError(
            f"{e}. Invalid value for 'n_samples': {n_samples!r}. The sampling requires at least "
            "one sample."
        ) from None


def check_label_type(dtype: Any, least: int, n_components: int) -> None:
    """Raise `ValueError` unless a type holds the labels of so many components, from `least` on.

    Examples
    --------
    >>> check_label_type("int8", -1, 128)
    >>> check_label_type("int8", 0, 129)
    Traceback (most recent call last):
    ValueError: dtype='int8': expected a type of integers that holds 0 to 128, such as int64
    """
    try:
        kind = np.dtype(dtype)
        right = kind.kind in "iu" and (
            np.iinfo(kind).min <= least and n_components - 1 <= np.iinfo(kind).max
        )
    except TypeError:
        right = False
    if not right:
        signed = ", signed for rows that are noise or have no answer" if least < 0 else ""
        raise ValueError(
            f"dtype={dtype!r}: expected a type of integers that holds {least} to "
            f"{n_components - 1}{signed}, such as int64"
        )


def check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Raise `ValueError` unless an option is one of some words.

    Examples
    --------
    >>> check_choice("algorithm", "sgd", ("auto", "em"))
    Traceback (most recent call last):
    ValueError: algorithm='sgd': expected one of auto, em
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(choices)}")


def check_flag(name: str, value: Any) -> None:
    """Raise `ValueError` unless an option is True or False.

    Examples
    --------
    >>> check_flag("shared_df", "yes")
    Traceback (most recent call last):
    ValueError: shared_df='yes': expected True or False
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name}={value!r}: expected True or False")


def check_callbacks(callbacks: Any) -> None:
    """Raise `ValueError` unless `callbacks` is None or holds functions and observers."""
    if callbacks is not None and not (
        isinstance(callbacks, Iterable)
        and all(callable(one) or isinstance(one, Observer) for one in callbacks)
    ):
        raise ValueError(f"callbacks={callbacks!r}: expected a list of callables, or None")


def check_checkpoint(checkpoint: Any) -> None:
    """Raise `ValueError` unless `checkpoint` is None, a path, or a `Checkpointing`."""
    if not isinstance(checkpoint, str | os.PathLike | Checkpointing | None):
        raise ValueError(
            f"checkpoint={checkpoint!r}: expected the path of a folder or a Checkpointing"
        )


def check_seed(random_state: Any) -> None:
    """Raise `ValueError` unless `random_state` is a seed, a generator of scikit-learn, or None."""
    try:
        check_random_state(random_state)
    except ValueError as e:
        raise ValueError(
            f"random_state={random_state!r}: expected an integer from 0 to 2**32 - 1, a "
            "numpy.random.RandomState, or None"
        ) from e


def plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, sets as sorted lists, anything else as it is.

    Examples
    --------
    >>> plain(np.int8(3)), plain({"means": {1, 0}}), plain({"weights", "means"})
    (3, {'means': [0, 1]}, ['means', 'weights'])
    """
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    return value.item() if isinstance(value, np.generic) else value
