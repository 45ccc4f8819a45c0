"""What a family of distributions must offer to be a component of a mixture."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Literal, Protocol, Self

from ..statistics import Additive, Array


@dataclass(frozen=True)
class Engine:
    """What computes the E-step: chosen where the fit starts, the same on every worker.

    Two engines agree to rounding, not in their bits, so a worker that lacks the one
    that was chosen must fail rather than take another.

    Attributes
    ----------
    name : {"numpy", "numba"}
        NumPy and BLAS, or the loops that the extra `fast` compiles.
    single : bool
        Whether products may be made in float32 where the family's bound allows.
    device : "cpu", "cuda" or namespace
        As `families.arrays.resolve_device` returns it. Anything but "cpu" takes the
        array kernel, whatever `name` says.
    """

    name: Literal["numpy", "numba"] = "numpy"
    single: bool = False
    device: Any = "cpu"


NUMPY = Engine()

# A responsibility below e^-60 adds less than one rounding error to any sum over
# fewer than 1e10 rows. It is set to exactly zero, so that its rows can be skipped.
NEGLIGIBLE = -60.0


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


def check_engine(engine: Engine) -> None:
    """Raise `ImportError` where this process lacks what `engine` needs."""
    if engine.name == "numba" and find_spec("numba") is None:
        raise ImportError(
            "the fit was started with Numba, and this process has none: pip install "
            "'dask-em[fast]' on every worker, or set dask_em.fast to false where the fit starts"
        )
