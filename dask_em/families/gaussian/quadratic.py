"""The distribution of a quadratic form of normal variables, which is a generalized chi-square."""

from __future__ import annotations

import numpy as np

from ...core.additive import Array

# Nodes of the integral, and the variable that they are even in: exp(pi / 2 sinh x), which takes
# them from 1e-13 widths of the integrand to 1e13. Twice as many changed no digit of 1e-12.
_X = np.linspace(-3.6, 3.6, 577)
_NODES = np.exp(np.pi / 2 * np.sinh(_X))
_LEAN = np.pi / 8
# Squares that are less of the form's spread than this are none.
_LEAST = 4 * np.finfo(np.float64).eps
_STEPS = (_X[1] - _X[0]) * np.pi / 2 * np.cosh(_X) * _NODES


def quadratic_cdf(squares: Array, linear: Array, limit: float) -> float:
    """Compute P(sum_l a_l v_l^2 + b_l v_l < limit) of independent standard normal variables v_l.

    With K the cumulant function, K(s) = sum_l -log(1 - 2 a_l s) / 2 + b_l^2 s^2 / (2 - 4 a_l s),
    it is the integral of exp(K(s) - s limit) / s over 2 pi i, along a path from one end of the
    complex plane to the other (Rice, SIAM Journal on Scientific and Statistical Computing 1,
    1980): here through the saddle point, along which nothing oscillates for long. Errors are
    1e-10 or so, of small probabilities too.

    Parameters
    ----------
    squares, linear : (m,) array
        a and b, of any sign; no form of the two needs to be definite.
    limit : float

    Examples
    --------
    >>> from scipy.stats import chi2, norm
    >>> bool(np.isclose(quadratic_cdf(np.ones(3), np.zeros(3), 2.0), chi2.cdf(2, 3)))
    True
    >>> bool(np.isclose(quadratic_cdf(np.zeros(1), np.ones(1), -9), norm.cdf(-9), atol=0))
    True
    """
    a, b = np.asarray(squares, dtype=np.float64), np.asarray(linear, dtype=np.float64)
    spread = float(np.sqrt(2 * (a**2).sum() + (b**2).sum()))
    if not spread > 0:
        return float(limit > 0)
    a, b, limit = a / spread, b / spread, limit / spread
    # What rounding leaves of none: its parabola would end where nothing else does.
    a = np.where(np.abs(a) < _LEAST, 0.0, a)
    low, high = _extremes(a, b)
    if limit <= low or limit >= high:
        return float(limit >= high)
    saddle = _saddle(a, b, limit)
    if abs(saddle) < 0.5:
        # Apart from the pole, within where the cumulant function is finite.
        saddle = 0.5 if saddle >= 0 else -0.5
        first, last = _domain(a)
        saddle = min(max(saddle, first / 2), last / 2)
    found = _integral(a, b, limit, saddle)
    return min(max(found + (1.0 if saddle > 0 else 0.0), 0.0), 1.0)


def _extremes(a: Array, b: Array) -> tuple[float, float]:
    """Return the smallest and the largest value of the form."""
    straight = bool((b[a == 0] != 0).any())
    curved = a != 0
    at = -float((b[curved] ** 2 / (4 * a[curved])).sum())
    return (
        -np.inf if straight or (a < 0).any() else at,
        np.inf if straight or (a > 0).any() else at,
    )


def _domain(a: Array) -> tuple[float, float]:
    """Return between which real numbers the cumulant function is finite."""
    most, least = float(a.max()), float(a.min())
    return (0.5 / least if least < 0 else -np.inf), (0.5 / most if most > 0 else np.inf)


def _slope(a: Array, b: Array, s: float) -> float:
    """Return K'(s), which rises."""
    rest = 1 - 2 * a * s
    return float((a / rest + b**2 * s * (1 - a * s) / rest**2).sum())


def _saddle(a: Array, b: Array, limit: float) -> float:
    """Return the s of the domain where K'(s) = limit."""
    first, last = _domain(a)

    def of(u: float) -> float:
        # From the whole line to the domain, which holds zero.
        end = last if u >= 0 else first
        inside = abs(end) * (1 - 1e-13) / (1 + abs(u)) if np.isfinite(end) else 1.0
        return u * inside

    reach = 1.0
    while not _slope(a, b, of(-reach)) <= limit <= _slope(a, b, of(reach)) and reach < 1e15:
        reach *= 4
    left, right = -reach, reach
    for _ in range(200):
        middle = (left + right) / 2
        if middle in (left, right):
            break
        if _slope(a, b, of(middle)) < limit:
            left = middle
        else:
            right = middle
        if right - left < 1e-9 * (1 + abs(middle)):
            # The path may cross the axis anywhere near it.
            break
    return of((left + right) / 2)


def _integral(a: Array, b: Array, limit: float, saddle: float) -> float:
    """Return the integral over 2 pi i along the path, with the sign of P(form < limit) - [s > 0].

    The path is its own mirror image, so that the imaginary part of its upper half is that of both.
    """
    # K'' at the saddle: how narrow the integrand is there.
    scale = 1 / np.sqrt(_curvature(a, b, np.array([saddle])).real[0])
    reach = _NODES * scale
    s, direction = _path(a, b, limit, saddle, reach)
    rest = 1 - 2 * np.outer(s, a)
    exponent = -0.5 * np.log(rest).sum(axis=1) - s * limit
    exponent += 0.5 * s**2 * (b**2 / rest).sum(axis=1)
    with np.errstate(over="ignore", under="ignore"):
        values = np.exp(exponent) / s * direction
    return float(-(values * _STEPS).sum().imag * scale / np.pi)


def _path(a: Array, b: Array, limit: float, saddle: float, reach: Array) -> tuple[Array, Array]:
    """Return points so far from the saddle, and the derivatives by the distance, (n,) both.

    The path leaves upright and leans to where the integrand would otherwise turn: along it it
    decays instead.
    """
    upright = saddle + 1j * reach
    rest = 1 - 2 * np.outer(upright, a)
    slope = ((a / rest) + b**2 * upright[:, None] * (1 - np.outer(upright, a)) / rest**2).sum(
        axis=1
    )
    turned = reach * (limit - slope.real)
    by_reach = limit - slope.real + reach * _curvature(a, b, upright).imag
    length = np.sqrt(1 + turned**2)
    angle = np.pi / 2 - _LEAN * turned / length
    turning = -_LEAN * by_reach / length**3
    ray = np.exp(1j * angle)
    return saddle + reach * ray, ray * (1 + 1j * reach * turning)


def _curvature(a: Array, b: Array, s: Array) -> Array:
    """Return K''(s) at points (n,)."""
    rest = 1 - 2 * np.outer(s, a)
    return np.asarray((2 * a**2 / rest**2 + b**2 / rest**3).sum(axis=1))
