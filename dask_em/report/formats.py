"""Numbers and names as a person reads them: significant digits, thousands, per cent."""

from __future__ import annotations

import math

NOISE = -1
"""Number of the noise among components."""


def called(k: int) -> str:
    """Return the name of component `k`, or of noise.

    Examples
    --------
    >>> called(3), called(NOISE)
    ('component 3', 'noise')
    """
    return "noise" if k == NOISE else f"component {k}"


def percent(share: float, digits: int = 3) -> str:
    """Return a share in per cent, with so many significant digits.

    Examples
    --------
    >>> percent(0.31234), percent(0.31234, 2), percent(0.00042), percent(0.99999), percent(1.0)
    ('31.2 %', '31 %', '0.042 %', '> 99.9 %', '100 %')
    """
    value = 100 * share
    if not math.isfinite(value):
        return "not finite"
    if value in (0, 100):
        return f"{value:.0f} %"
    if abs(value) < 1e-3:
        return "< 0.001 %"
    if digits > 2 or value < 1:
        digits = 2 if abs(value) < 1 else digits
    written = f"{value:.{_decimals(value, digits)}f}"
    if 0 < share < 1 and float(written) == 100:
        return f"> {'99' if digits < 3 else '99.9'} %"
    return f"{written} %"


def quantity(value: float, spread: float | None = None, sign: bool = False, digits: int = 3) -> str:
    """Return a number with thousands, and so many digits of its spread, or four of its own.

    Examples
    --------
    >>> quantity(1234567.8), quantity(0.0123456), quantity(5.0063, 0.349), quantity(2.5, sign=True)
    ('1,234,568', '0.01235', '5.006', '+2.5')
    """
    if not math.isfinite(value):
        return "not finite"
    plus = "+" if sign else ""
    known = spread is not None and math.isfinite(spread) and spread > 0
    size = max(abs(value), spread if known and spread is not None else 0.0)
    if size == 0:
        return f"{0:{plus}d}"
    if not 1e-5 <= size < 1e12:
        return f"{value:{plus}.3e}"
    if known and spread is not None:
        # A spread far below the number itself asks for more digits than anybody reads.
        decimals = min(_decimals(spread, digits), max(0, 9 - math.floor(math.log10(size))))
        return f"{value:{plus},.{decimals}f}"
    written = f"{value:{plus},.{_decimals(value, 4)}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def about(mean: float, width: float) -> str:
    """Return a mean with its standard deviation.

    Examples
    --------
    >>> about(5.0063, 0.349)
    '5.006 ± 0.349'
    """
    return f"{quantity(mean, width)} ± {quantity(width, width)}"


def counted(n: int, name: str, names: str = "") -> str:
    """Return a number of things, with thousands.

    Examples
    --------
    >>> counted(1, "row"), counted(12345, "row"), counted(2, "pass", "passes")
    ('1 row', '12,345 rows', '2 passes')
    """
    return f"{n:,} {name if n == 1 else names or name + 's'}"


def listed(words: list[str]) -> str:
    """Join words as a sentence does.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join([", ".join(words[:-1])] * (len(words) > 1) + words[-1:])


def _decimals(value: float, digits: int) -> int:
    """Return the decimals by which a number has so many significant digits."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
