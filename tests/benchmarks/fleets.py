"""What is gained where the mixtures of a fleet share their products.

python tests/benchmarks/fleets.py [--save] [--small]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from common import alternate, table
from stores import options, parse, publish

# isort: split
import dask
import numpy as np

from dask_em.backends.blas import one_blas_thread
from dask_em.backends.dask.config import engine_for
from dask_em.core.fleet import Fleet
from dask_em.core.mixture import Mixture
from dask_em.core.tuning import tuning, use_tuning
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.whitening import Whitening

FLEETS = {"K = 1..16": range(1, 17), "7, 8, 9": (7, 8, 9), "5 x 16": (16,) * 5, "2 x 4": (4, 4),
          "2 x 16": (16, 16), "2 x 32": (32, 32)}  # fmt: skip
ROWS = {4: 100_000, 10: 50_000, 32: 20_000, 64: 6_000}


def fleet(kind: str, d: int, ks: Any, rng: np.random.Generator) -> tuple[Mixture, ...]:
    """Mixtures whose components overlap, so that every responsibility counts."""
    frame = Whitening(np.zeros(d), np.ones(d))

    def mixture(k: int) -> Mixture:
        width = CONSTRAINTS[kind].storage.of_data(np.eye(d), k)
        components = Gaussian(rng.normal(size=(k, d)) / np.sqrt(d), width, frame)
        return Mixture(np.full(k, -np.log(k)), components, engine_for(np.float64))

    return tuple(mixture(k) for k in ks)


def summed(work: Fleet, X: np.ndarray, most_each: int) -> Any:
    """A pass in which mixtures of so many components join."""
    # The limit is the measured choice; the benchmark sets it to see both sides.
    with use_tuning(tuning().with_changes(fleet={"most_each": most_each})):
        fold = work.fold()
    fold.update(0, X, None)
    return fold.result()


def lines(small: bool) -> Iterator[list[object]]:
    """The rows of the table."""
    rng = np.random.default_rng(0)
    for fast in (True, False):
        with dask.config.set({"dask_em.fast": fast}):
            for kind in ("full", "diag"):
                for d, n in ROWS.items():
                    X = rng.normal(size=(n // 10 if small else n, d))
                    ratios = []
                    for ks in FLEETS.values():
                        work = Fleet(fleet(kind, d, ks, rng))
                        seconds = alternate(
                            {
                                "apart": lambda work=work, X=X: summed(work, X, 0),
                                "joined": lambda work=work, X=X: summed(work, X, 10**6),
                            },
                            1 if small else 7,
                        )
                        ratios.append(f"{seconds['apart'] / seconds['joined']:.2f}")
                    name = "compiled" if fast else "NumPy"
                    print(name, kind, d, *ratios, flush=True)
                    yield [name, kind, d, *ratios]


def main() -> None:
    arguments = parse(options(__doc__))
    kept = tuning().fleet.most_each
    # Full covariances of many columns stay alone there by a rule of their own.
    with one_blas_thread():
        rows = list(lines(arguments.small))
    header = ["loops", "covariances", "d", *FLEETS]
    publish(
        arguments,
        "Mixtures that share their products",
        "Seconds of a pass over rows in memory with each mixture alone, over those with the "
        "mixtures joined in one E-step; one thread, every responsibility counts, medians of 7. "
        f"A fleet joins mixtures of up to {kept} components (the last column shows more), and "
        "none of compiled full covariances beyond d = 48, where a ratio of 1 is noise."
        f"\n\n{table(header, rows)}",
    )


if __name__ == "__main__":
    main()
