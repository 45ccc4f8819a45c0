"""What a family of distributions must offer to be a component of a mixture."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Protocol, Self

from .additive import Additive, Array
from .engine import NUMPY, Engine


class Kernel(Protocol):
    """Evaluates one family on blocks of rows and sums its statistics: state of one task.

    A block is given in the kernel's own coordinates, rows as columns, so that
    everything derived from it stays in cache.
    """

    block_rows: int

    def load(self, X: Array) -> None:
        """Take the rows X (b, d), b <= `block_rows`, as the current block."""

    def log_prob(self) -> Array:
        """log p(x | component) of the current block (k, b), for the caller to overwrite."""

    def accumulate(self, resp: Array) -> None:
        """Add the current block's sufficient statistics under `resp` (k, b)."""

    def statistics(self) -> Additive:
        """Sums over all blocks accumulated so far."""


class Family(Protocol):
    """K component distributions in one frozen object; every array leads with axis k."""

    def log_prob(self, X: Array) -> Array:
        """Log-density of each row under each component, (n, k)."""

    def sufficient_statistics(self, X: Array, resp: Array) -> Additive:
        """Sums over rows weighted by `resp` (n, k); no field has axis n."""

    def maximize(self, resp_sum: Array, statistics: Additive) -> tuple[Self, Sequence[int]]:
        """The M-step: the components that these statistics make most likely.

        Returns
        -------
        family
            A component without a maximum (no rows, or singular) keeps its parameters.
        collapsed
            The components that were kept.
        """

    def kernel(self, engine: Engine = NUMPY) -> Kernel:
        """A kernel with sums of zero."""

    def joins(self, engine: Engine) -> Hashable:
        """What families have in common that can be `joined`; None if this one stays alone."""

    def joined(self, parts: Sequence[Self]) -> Self:
        """The components of all parts in one family; its statistics have `part(slice)`."""

    @property
    def n_components(self) -> int:
        """K."""

    @property
    def n_parameters(self) -> int:
        """Free parameters, the mixing weights not counted."""

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters."""

    @property
    def statistics_bytes(self) -> int:
        """Bytes of the sufficient statistics of any number of rows."""


def blocks(n: int, size: int) -> Iterator[slice]:
    """Slices of at most `size` rows that cover `n` rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))
