"""Half-lives: how much rows that were read before count for, as others join them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

GRAMMAR = re.compile(r"(\d+(?:\.\d+)?(?:e\+?\d+)?) ?(rows|h|d)")

SECONDS = {"h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True)
class HalfLife:
    """Say after how many rows, or how much time, a row counts as half of one.

    Attributes
    ----------
    amount : float
        Above zero.
    unit : {"rows", "seconds"}

    Examples
    --------
    >>> HalfLife.of("1e6rows"), HalfLife.of("30d") == HalfLife.of("720h")
    (HalfLife(amount=1000000.0, unit='rows'), True)
    >>> HalfLife.of("1e6rows").kept(weight=2e6, seconds=0.0)
    0.25
    """

    amount: float
    unit: Literal["rows", "seconds"]

    @classmethod
    def of(cls, forget: object, exact: bool = False) -> Self | None:
        """Return the half-life of a word such as "1e6rows" or "30d"; of a number, that of rows.

        Parameters
        ----------
        forget : str, float or None
        exact : bool
            Whether all rows are read anew, so that there is nothing to forget.

        Raises
        ------
        ValueError
            It is none; or all rows are read anew.
        """
        if forget is None:
            return None
        if exact:
            raise ValueError(
                f"forget={forget!r} weighs the sums that a model keeps, and exact=True makes new "
                "ones: leave one out"
            )
        word = f"{forget}rows" if isinstance(forget, int | float) else str(forget)
        found = GRAMMAR.fullmatch(word.strip().lower())
        amount = float(found[1]) if found else 0.0
        if found is None or isinstance(forget, bool) or not 0 < amount < float("inf"):
            raise ValueError(
                f"forget={forget!r}: expected a half-life in rows (1e6rows), hours (36h) or days "
                "(30d)"
            )
        if found[2] == "rows":
            return cls(amount, "rows")
        return cls(amount * SECONDS[found[2]], "seconds")

    def kept(self, weight: float, seconds: float) -> float:
        """Return what a row counts as when rows of this weight have come, so long after it."""
        passed = weight if self.unit == "rows" else max(seconds, 0.0)
        return float(0.5 ** (passed / self.amount))
