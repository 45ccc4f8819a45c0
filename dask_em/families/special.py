"""Special functions of arrays, in NumPy alone: what reads a model file does not wait for SciPy."""

from __future__ import annotations

from functools import lru_cache
from math import lgamma

import numpy as np

from ..core.additive import Array
from ..core.tuning import tuning

# From here on a few terms of Stirling's series are exact to the last digit; smaller numbers are
# brought there by the recurrence of the gamma function.
LARGE = 16
STEPS = np.arange(LARGE, dtype=np.float64)
# B_2j / (2j (2j - 1)) of the series of log Gamma, and B_2j / (2j) of that of its derivative.
_STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
_DIGAMMA = (1 / 12, -1 / 120, 1 / 252, -1 / 240, 1 / 132, -691 / 32760, 1 / 12)


def log_factorials() -> Array:
    """Return log x! of the counts x = 0, 1, 2, ... that are looked up."""
    return _log_factorials(tuning().canonical.factorials)


@lru_cache(maxsize=2)
def _log_factorials(n: int) -> Array:
    found = np.array([lgamma(x + 1.0) for x in range(n)])
    found.flags.writeable = False
    return found


def log_poisson(x: Array, mean: Array) -> Array:
    """Compute log Poisson(x; mean) in nats, with digits to spare where x is large.

    There the terms of x log(mean) - mean - log x! are many times their sum; the deviance and
    Stirling's series are not (Loader, Fast and accurate computation of binomial probabilities,
    2000).

    Parameters
    ----------
    x, mean : (b,) array
        Counts, and positive numbers.

    Examples
    --------
    >>> log_poisson(np.array([0.0, 2.0, 1e9]), np.array([2.0, 2.0, 1e9])).round(4).tolist()
    [-2.0, -1.3069, -11.2806]
    """
    table = log_factorials()
    large = x >= len(table)
    index = np.where(large, 0.0, x).astype(np.intp)
    found = np.where(large, 0.0, x) * np.log(mean) - mean - table[index]
    if large.any():
        x, mean = x[large], np.broadcast_to(mean, x.shape)[large]
        apart = x - mean
        deviance = x * np.log1p(apart / mean) - apart
        found[large] = -deviance - 0.5 * np.log(2 * np.pi * x) - _stirling(x)
    return found


def log_gamma_ratio(a: Array) -> Array:
    """Compute a log a - a - log Gamma(a), which is log(a / (2 pi)) / 2 for large a.

    Examples
    --------
    >>> log_gamma_ratio(np.array([1.0, 1e8])).round(6).tolist()
    [-1.0, 8.291402]
    """
    small = a < LARGE
    z = np.where(small, a + LARGE, a)
    found = 0.5 * np.log(z / (2 * np.pi)) - _stirling(z)
    if small.any():
        low, high = a[small], z[small]
        steps = np.log(low[:, None] + STEPS).sum(axis=1)
        found[small] += low * np.log(low) - high * np.log(high) + LARGE + steps
    return found


def log_less_digamma(a: Array) -> Array:
    """Compute log a - psi(a), which is about 1 / (2 a) for large a and 1 / a for small ones.

    Examples
    --------
    >>> log_less_digamma(np.array([1.0, 1e8])).round(12).tolist()
    [0.577215664902, 5e-09]
    """
    small = a < LARGE
    z = np.where(small, a + LARGE, a)
    found = 0.5 / z + _series(_DIGAMMA, z**-2.0) * z**-2.0
    if small.any():
        low = a[small]
        steps = (1 / (low[:, None] + STEPS)).sum(axis=1)
        found[small] += np.log(low / z[small]) + steps
    return found


def trigamma(a: Array) -> Array:
    """Compute the second derivative of log Gamma(a).

    Examples
    --------
    >>> trigamma(np.array([1.0])).round(10).tolist()  # pi^2 / 6
    [1.6449340668]
    """
    small = a < LARGE
    z = np.where(small, a + LARGE, a)
    terms = tuple(2 * j * b for j, b in enumerate(_DIGAMMA, start=1))
    found = 1 / z + 0.5 * z**-2.0 + _series(terms, z**-2.0) * z**-3.0
    if small.any():
        found[small] += ((a[small, None] + STEPS) ** -2.0).sum(axis=1)
    return found


def _stirling(z: Array) -> Array:
    """Return log Gamma(z + 1) - (z + 1/2) log z + z - log(2 pi) / 2 of large z."""
    return _series(_STIRLING, z**-2.0) / z


def _series(terms: tuple[float, ...], x: Array) -> Array:
    found = np.full(x.shape, terms[-1])
    for term in reversed(terms[:-1]):
        found *= x
        found += term
    return found
