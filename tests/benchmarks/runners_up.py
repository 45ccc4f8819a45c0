"""What would be gained if more than the best start entered the full data.

python tests/benchmarks/runners_up.py [--save] [--small]

Real tables are downloaded with pip.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import table
from stores import options, parse, publish

# isort: split
import numpy as np
from cases import REAL, SYNTHETIC, Case
from optima import accumulator
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture
from dask_em.acceleration import ascent
from dask_em.backends.blas import one_blas_thread
from dask_em.backends.serial import SerialBackend
from dask_em.calls import Each, in_turn
from dask_em.em import Convergence, climb
from dask_em.estimators import engine_for
from dask_em.initialization import Survey, Surveyed, default_sample_size
from dask_em.opening import as_source
from dask_em.race import Fits, Tried
from dask_em.starts import Starts, n_parameters

SEEDS = range(3)
LIMITS = Convergence(1e-4, 100)


def finalists(case: Case, seed: int) -> list[Tried]:
    """The starts that a fit compares on all of its sample, the best first."""
    n, d = case.rows.shape
    size = default_sample_size(n_parameters("full", case.k, d), d)
    surveyed: Surveyed = SerialBackend().map_reduce(
        as_source(case.rows), Survey(seed, max(size, case.k), d, n)
    )
    found: list[Tried] = []

    @contextmanager
    def recording(fits: Any) -> Iterator[Each]:
        with in_turn(fits) as each:

            def recorded(
                function: Callable[[Any, Any], Any], arguments: Sequence[Any], advance: Any = None
            ) -> list[Any]:
                results = each(function, arguments, advance)
                if function is Fits.wholly:
                    found.extend(results)
                return results

            yield recorded

    starts = Starts.of(GaussianMixture(case.k))
    starts.start(surveyed, engine_for(case.rows.dtype), seed, [], recording)
    return sorted(found, key=lambda tried: tried.rank, reverse=True)


def ends(case: Case, found: Sequence[Tried]) -> list[float]:
    """Where each leads on all rows, in nats per row."""
    accumulate = accumulator(case.rows)
    values = []
    for tried in found:
        *_, last = climb(accumulate, ascent("auto", tried.state.result, LIMITS, None))
        values.append(last.log_likelihood)
    return values


def main() -> None:
    arguments = parse(options(__doc__))
    n, names = (20_000, list(SYNTHETIC)[:4]) if arguments.small else (200_000, [*SYNTHETIC, *REAL])
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, gains = [], [0.0]
    with tempfile.TemporaryDirectory() as cache, one_blas_thread():
        for name in names:
            case = SYNTHETIC[name](n) if name in SYNTHETIC else REAL[name](Path(cache))
            for seed in SEEDS:
                found = finalists(case, seed)
                best, *others = ends(case, found)
                for tried, value in zip(found[1:], others, strict=True):
                    gains.append(value - best)
                    behind = tried.value - found[0].value
                    rows.append([name, seed, f"{behind:+.1e}", f"{gains[-1]:+.1e}"])
                    print(*rows[-1], flush=True)
    header = ["case", "seed", "on the sample", "on all rows"]
    publish(
        arguments,
        "One start or several on the full data",
        f"Of {len(names)} cases, {len(SEEDS)} seeds each, those in which a second start was near "
        "enough to the best to be fitted to all of the sample: nats per row by which it is above "
        "the best there, and where both lead on all rows. No other start is as good on the part "
        f"of the sample that chooses.\n\n{table(header, rows)}\n\n"
        f"A second start in the first pass would gain at most {np.max(gains):.1e} nats per row.",
    )


if __name__ == "__main__":
    main()
