"""Supports: which numbers a family of distributions describes, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import NonFiniteError
from .additive import Array
from .finite import NOWHERE, Missing, check_finite, finite_only, not_finite


@dataclass(frozen=True)
class Support:
    """Hold what each column may hold; tuples are of one entry for all columns, or one each.

    Attributes
    ----------
    words : tuple of str
        What is expected, for messages.
    least, most : tuple of float
    whole : tuple of bool
        Whether the numbers are whole.
    missing : tuple of bool
        Whether NaN is a value that is missing, which the family knows what to do with.

    Examples
    --------
    >>> X = np.array([[0.0], [2.5], [-1.0], [np.nan]])
    >>> COUNTS.kept(X).tolist(), COUNTS.outside(X).ravel().tolist()
    ([True, False, False, False], [False, True, True, False])
    >>> COUNTS.check(X[:2], range(2))
    Traceback (most recent call last):
    ...
    dask_em.errors.NonFiniteError: X contains 2.5 at row 1 of its chunk, column 0, where ...
    """

    words: tuple[str, ...] = ("finite numbers",)
    least: tuple[float, ...] = (-np.inf,)
    most: tuple[float, ...] = (np.inf,)
    whole: tuple[bool, ...] = (False,)
    missing: Missing = NOWHERE

    @property
    def is_real(self) -> bool:
        """Whether every finite number is one of these."""
        return self.least == (-np.inf,) and self.most == (np.inf,) and self.whole == (False,)

    def word(self, column: int) -> str:
        """Return what is expected of a column."""
        return self.words[column if len(self.words) > 1 else 0]

    def outside(self, X: Array) -> Array:
        """Return which finite numbers of X (n, d) are none of these, (n, d) of bool."""
        bad = np.less(X, self.least) | np.greater(X, self.most)
        if any(self.whole) and X.dtype.kind == "f":
            bad |= np.asarray(self.whole) & (np.rint(X) != X)
        return np.asarray(bad & np.isfinite(X))

    def holds(self, X: Array, low: Array, high: Array) -> bool:
        """Tell whether all of the finite X (n, d) are such numbers, given the columns' extremes."""
        if self.is_real:
            return True
        if not self.holds_between(low, high, True):
            return False
        fractions = any(self.whole) and X.dtype.kind == "f"
        return not fractions or not self.outside(X).any()

    def not_finite(self, X: Array) -> Array:
        """Return which numbers of X (n, d) are NaN or infinite, but for missing values, (n, d)."""
        return not_finite(X, self.missing)

    def holds_between(self, low: Array, high: Array, whole: bool) -> bool:
        """Tell whether columns of these extremes hold such numbers, where all may be `whole`."""
        inside = bool((low >= self.least).all() and (high <= self.most).all())
        return inside and (whole or not any(self.whole))

    def kept(self, X: Array) -> Array | None:
        """Return which rows of X (n, d) have an answer, (n,) of bool; None where all have."""
        finite = finite_only(X, self.missing)
        if self.is_real:
            return finite
        kept: Array = np.asarray(~self.outside(X).any(axis=1))
        if finite is not None:
            kept &= finite
        return None if kept.all() else kept

    def check(self, block: Array, numbers: Sequence[int] | Array) -> None:
        """Raise `NonFiniteError` where a block (b, d), of rows of these numbers, has no answer."""
        check_finite(block, numbers, self.missing)
        if self.is_real:
            return
        bad = self.outside(block)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            value = f"{float(block[row, column]):.15g}"
            raise NonFiniteError(value, int(numbers[row]), column, expected=self.word(column))


REAL = Support()
"""Every finite number."""

COUNTS = Support(("counts (whole numbers from 0)",), (0.0,), whole=(True,))

POSITIVE = Support(("positive numbers",), (float(np.nextafter(0, 1)),))


def supports_of_columns(parts: Sequence[tuple[Support, Sequence[int]]], d: int) -> Support:
    """Return the support of d columns, of which each part describes some.

    Examples
    --------
    >>> mixed = supports_of_columns([(COUNTS, [1]), (REAL, [0])], 2)
    >>> mixed.least, mixed.word(0)
    ((-inf, 0.0), 'finite numbers')
    """
    found: dict[str, list[Any]] = {}
    for name, default in vars(REAL).items():
        found[name] = list(default * d)
        for support, columns in parts:
            values = vars(support)[name]
            for i, j in enumerate(columns):
                found[name][j] = values[i if len(values) > 1 else 0]
    return Support(**{name: tuple(values) for name, values in found.items()})


def common_support(supports: Sequence[Support]) -> Support:
    """Return the numbers that all of some supports hold.

    Examples
    --------
    >>> common_support([REAL, COUNTS, REAL]) == COUNTS
    True
    >>> ratio = Support(("numbers from 0 to 9",), (0.0,), (9.0,))
    >>> both = common_support([ratio, POSITIVE])
    >>> both.words, both.least == POSITIVE.least, both.most
    (('positive numbers',), True, (9.0,))
    """
    found, *others = dict.fromkeys(supports)
    for other in others:
        found = _both(found, other)
    return found


def _both(one: Support, other: Support) -> Support:
    d = max(len(values) for s in (one, other) for values in vars(s).values())
    ours, theirs = (
        {name: values * (d // len(values)) for name, values in vars(s).items()}
        for s in (one, other)
    )
    narrower = [
        whole > mine or (whole == mine and (top < most or bottom > least))
        for whole, mine, top, most, bottom, least in zip(
            theirs["whole"], ours["whole"], theirs["most"], ours["most"], theirs["least"],
            ours["least"], strict=True,
        )
    ]  # fmt: skip
    # Whichever is narrower says what is expected.
    words = zip(ours["words"], theirs["words"], narrower, strict=True)
    return Support(
        tuple(b if its else a for a, b, its in words),
        tuple(map(max, ours["least"], theirs["least"])),
        tuple(map(min, ours["most"], theirs["most"])),
        tuple(map(max, ours["whole"], theirs["whole"])),
        tuple(map(min, ours["missing"], theirs["missing"])),
    )
