"""Categories of the columns of a fit, whose words are its codes: how model files keep them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise

import numpy as np

from ..core.additive import Array
from ..core.validation import require

WORDS, COUNTS = "feature_categories_", "feature_category_counts_"
"""Arrays of a file: all words one after the other, and how many each column has."""


def packed_categories(categories: Sequence[Sequence[str]]) -> dict[str, Array]:
    """Return the arrays that a file keeps of the categories of each column.

    Examples
    --------
    >>> packed_categories([(), ("a", "b")])[COUNTS]
    array([0, 2])
    """
    words = [word for column in categories for word in column]
    counts = np.array([len(column) for column in categories], dtype=np.int64)
    return {WORDS: np.array(words, dtype=str), COUNTS: counts}


def unpacked_categories(arrays: Mapping[str, Array]) -> tuple[tuple[str, ...], ...]:
    """Return the categories of each column, from the arrays of a file.

    Examples
    --------
    >>> unpacked_categories(packed_categories([(), ("a", "b")]))
    ((), ('a', 'b'))
    """
    words = arrays[WORDS].tolist()
    edges = accumulate(arrays[COUNTS].tolist(), initial=0)
    return tuple(tuple(words[start:stop]) for start, stop in pairwise(edges))


def check_categories(arrays: Mapping[str, Array], d: int) -> None:
    """Raise `ValueError` unless a file that has either array has both, of d columns.

    The words are texts that were checked before.
    """
    if WORDS not in arrays and COUNTS not in arrays:
        return
    require(WORDS, None, WORDS in arrays and COUNTS in arrays)
    counts, n_words = arrays[COUNTS], len(arrays[WORDS])
    integers = counts.shape == (d,) and counts.dtype == np.int64
    require(COUNTS, counts, integers and bool((counts >= 0).all()))
    require(COUNTS, counts, int(counts.max(initial=0)) <= n_words and counts.sum() == n_words)
