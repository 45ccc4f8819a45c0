"""How rows are cut: chunks of rows, and ranges of chunks, by the data alone.

Whoever sums over ranges in this order gets the same bits anywhere.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from .additive import Array
from .tuning import tuning


def even_ranges(n_chunks: int) -> list[range]:
    """Group whole neighbouring chunks: tens of groups to a thousand.

    Few enough that the scheduler's cost per pass does not grow with the number of
    chunks; enough that a slow worker does not hold up the rest.

    Examples
    --------
    >>> even_ranges(5)
    [range(0, 1), range(1, 2), range(2, 3), range(3, 4), range(4, 5)]
    >>> len(even_ranges(100)), len(even_ranges(100_000))
    (16, 1024)
    """
    wanted = max(n_chunks // tuning().reading.range_chunks, tuning().reading.fewest_ranges)
    wanted = min(wanted, tuning().reading.most_ranges, n_chunks)
    edges = np.linspace(0, n_chunks, wanted + 1).round().astype(int)
    return [range(a, b) for a, b in pairwise(edges.tolist())]


def even_bounds(n_rows: int, rows: int) -> Array:
    """Return the first row of each chunk of `rows` rows, and `n_rows`, (n_chunks + 1,).

    Examples
    --------
    >>> even_bounds(10, 4)
    array([ 0,  4,  8, 10])
    """
    return np.append(np.arange(0, n_rows, rows), n_rows)
