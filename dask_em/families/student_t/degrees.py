"""Degrees of freedom of Student's t: the functions of them, and where the likelihood is largest.

Up to what does not depend on them, sum_n r log p(x_n) of one component of N rows is
N level(nu) - (nu + d)/2 sum_n r log(1 + delta_n/nu). The E-step knows E = sum r log(1 + delta/nu)
and X = sum r (u - 1) at its own nu. As log is concave, for any nu' and any distances delta'

    sum r log(1 + delta'/nu') <= E + N log q,
    q = 1 + (nu X - d N + (nu/nu') T') / ((nu + d) N),    T' = sum r u delta',

with equality at the E-step's parameters. So `bound` never exceeds what it bounds and touches it
there: what raises it raises the likelihood (Hunter and Lange 2004), for locations, scales and
degrees of freedom together. In the scales alone its maximum is the scatter over sum r u (Kent,
Tyler and Vardi 1994); in the degrees of freedom it is the equation of the ECME algorithm (Liu and
Rubin 1995) with the weights of the E-step.

Near the normal, where steps of that kind are short, another bound is sharp: by
log(1 + y) <= y - y^2/2 + y^3/3 the sums of delta, delta^2 and delta^3 bound the likelihood at the
E-step's locations and scales for any nu', infinity included: `power_bound`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...core.additive import Array
from ...core.tuning import tuning

# Stirling's series has 15 digits from here on; what is smaller is taken there by recurrence.
LARGE = 20

STEPS = np.arange(LARGE, dtype=np.float64)[:, None]


def _tail(x: Array) -> Array:
    """Return log Gamma(x) - (x - 1/2) log x + x - log(2 pi)/2, for large x."""
    y = 1 / x**2
    return np.asarray((1 / 12 - y * (1 / 360 - y * (1 / 1260 - y / 1680))) / x)


def level(df: Array, d: int) -> Array:
    """Compute of df (m,) log Gamma((nu + d)/2) - log Gamma(nu/2) - d/2 log(nu/2), which tends to 0.

    Examples
    --------
    >>> np.abs(level(np.array([1.0, 1e10]), 2)).round(6).tolist()  # of two columns always
    [0.0, 0.0]
    """
    x, a = np.asarray(df, dtype=np.float64) / 2, d / 2
    small = x < LARGE
    y = np.where(small, x + LARGE, x)
    series = (y + a - 0.5) * np.log1p(a / y) - a + _tail(y + a) - _tail(y)
    back = a * np.log(y / x) - np.log1p(a / (x + STEPS)).sum(axis=0)
    return np.asarray(series + np.where(small, back, 0.0))


def _tail_slope(x: Array) -> Array:
    """Return digamma(x) - log x, for large x."""
    y = 1 / x**2
    return np.asarray(-0.5 / x - y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y / 240))))


def digamma_gap(df: Array, d: int) -> Array:
    """Compute of df (m,) digamma((nu + d)/2) - digamma(nu/2).

    Examples
    --------
    >>> digamma_gap(np.array([4.0]), 2).round(9).tolist()
    [0.5]
    """
    x, a = np.asarray(df, dtype=np.float64) / 2, d / 2
    small = x < LARGE
    y = np.where(small, x + LARGE, x)
    series = np.log1p(a / y) + _tail_slope(y + a) - _tail_slope(y)
    back = (a / ((x + STEPS) * (x + a + STEPS))).sum(axis=0)
    return np.asarray(series + np.where(small, back, 0.0))


def information(df: Array, d: int) -> Array:
    """Compute the expected information of a row about log nu (Lange, Little and Taylor 1989).

    Examples
    --------
    >>> bool(information(np.array([5.0]), 2) > information(np.array([50.0]), 2) > 0)
    True
    """
    from scipy.special import polygamma

    gap = (polygamma(1, df / 2) - polygamma(1, (df + d) / 2)) / 4
    found = df**2 * (gap - d * (df + d + 4) / (2 * df * (df + d) * (df + d + 2)))
    # Where so many are subtracted that nothing is left, it is near its limit.
    return np.asarray(np.where(df < 1e4, found, d * (d + 2) / df**2))


class Bound:
    """The bound of each component, as a function of its degrees of freedom.

    Parameters
    ----------
    df : (k,) array
        Of the E-step.
    d : int
    rows, excess, logs : (k,) arrays
        N, X and E.
    distances : (k,) array
        T' = sum r u delta' at the new locations and scales.
    """

    def __init__(
        self, df: Array, d: int, rows: Array, excess: Array, logs: Array, distances: Array
    ) -> None:
        self.df, self.d = df, d
        self.rows, self.logs, self.distances = rows, logs, distances
        self._gap = df * excess - d * rows
        self._all = (df + d) * rows

    def __call__(self, df: Array) -> Array:
        """Compute the bound at degrees of freedom (k,), but for the volumes of the scales."""
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            logs = self.logs + self.rows * np.log1p(self._beyond(df))
            return np.asarray(self.rows * level(df, self.d) - (df + self.d) / 2 * logs)

    def slope(self, df: Array) -> Array:
        """Compute its derivative by nu."""
        beyond, d = self._beyond(df), self.d
        logs = self.logs + self.rows * np.log1p(beyond)
        turned = (df + d) * self.df * self.distances / (df**2 * (self.df + d) * (1 + beyond))
        return np.asarray((self.rows * (digamma_gap(df, d) - d / df) - logs + turned) / 2)

    def _beyond(self, df: Array) -> Array:
        return np.asarray((self._gap + self.df / df * self.distances) / self._all)

    def best(self, shared: bool) -> Array:
        """Return degrees of freedom (k,) at which it is higher, the highest where they are near.

        Where they are `shared` the sum of all components counts. So few steps as there are find
        what is near to all digits, and an end where it is far: both are no lower.
        """
        constants = tuning().student_t

        def slope(log_df: Array) -> Array:
            found = np.exp(log_df) * self.slope(np.exp(log_df))
            return np.full_like(found, found.sum()) if shared else found

        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            here = np.log(self.df)
            uphill = slope(here)
            far = here + np.sign(uphill) * np.log(constants.longest_step)
            far = np.clip(far, np.log(constants.least_df), np.log(constants.most_df))
            found = np.exp(_root(slope, here, uphill, far, constants.steps))
            gain = self(found) - self(self.df)
            gain = np.full_like(gain, gain.sum()) if shared else gain
        # What is not a number gains nothing.
        return np.where((gain > 0) & (self.df < constants.most_df), found, self.df)


def _root(
    function: Callable[[Array], Array], start: Array, value: Array, end: Array, n: int
) -> Array:
    """Return where a function changes its sign between `start` and `end`, or `end` if it does not.

    By the Illinois rule (Dowell and Jarratt 1971), each of (k,) for itself.
    """
    a, fa, b = start, value, end
    fb = function(b)
    crossed = np.sign(fb) * np.sign(fa) < 0
    for _ in range(n):
        middle = np.where(fb == fa, b, b - fb * (b - a) / (fb - fa))
        fm = function(middle)
        turned = np.sign(fm) * np.sign(fb) < 0
        a, fa = np.where(turned, b, a), np.where(turned, fb, fa / 2)
        b, fb = middle, fm
    return np.where(crossed & np.isfinite(b), b, end)


def power_bound(df: Array, d: int, rows: Array, powers: Array) -> Array:
    """Bound sum r log p at the E-step's locations and scales, but for their volumes, (k, g).

    Parameters
    ----------
    df : (g,) array
    d : int
    rows : (k,) array
    powers : (k, 3) array
        sum r delta^p.

    Examples
    --------
    >>> ones = np.ones(1)
    >>> found = power_bound(np.array([1e10]), 1, ones, np.ones((1, 3)))
    >>> found.round(6).tolist()  # of a normal, -delta/2
    [[-0.5]]
    """
    y = 1 / df
    with np.errstate(over="ignore", invalid="ignore"):
        logs = y * (powers[:, :1] - y * (powers[:, 1:2] / 2 - y * powers[:, 2:] / 3))
        found = rows[:, None] * level(df, d) - (df + d) / 2 * logs
    return np.asarray(np.where(np.isfinite(found), found, -np.inf))


def candidates() -> Array:
    """Return the degrees of freedom at which `power_bound` is tried, the most of all last."""
    constants = tuning().student_t
    grid = np.geomspace(constants.grid_from, constants.most_df, constants.grid)
    return np.append(grid, constants.normal_df)
