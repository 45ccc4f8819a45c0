"""What is gained because a second start enters the full data, and what is missed.

python tests/benchmarks/runners_up.py [--save] [--small]

Real tables are downloaded with pip.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
from dask_em.backends.blas import one_blas_thread
from dask_em.backends.dask.config import engine_for
from dask_em.backends.serial import SerialBackend
from dask_em.core.em import Convergence, run_algorithm
from dask_em.core.executor import SerialExecutor
from dask_em.core.mixture import Mixture
from dask_em.data.open import as_source
from dask_em.fitting.control_variate import algorithm_of
from dask_em.fitting.multistart import SampleFits
from dask_em.fitting.sample import Start, default_sample_size
from dask_em.fitting.survey import Survey, Surveyed

SEEDS = range(3)
LIMITS = Convergence(1e-4, 100)


@dataclass(frozen=True)
class Found:
    """What a fit makes of its starts.

    Attributes
    ----------
    start : Start
        What enters the full data.
    others : list of Mixture
        Starts that were compared with it on all of the sample and stayed there.
    """

    start: Start
    others: list[Mixture]


def starts_of(case: Case, seed: int) -> Found:
    """The starts that a fit compares on all of its sample."""
    n, d = case.rows.shape
    size = default_sample_size(GaussianMixture(case.k).start_options().n_parameters(d), d)
    surveyed: Surveyed = SerialBackend().map_reduce(
        as_source(case.rows), Survey(seed, max(size, case.k), d, n)
    )
    ends: list[Mixture] = []

    @contextmanager
    def recording(fits: Any) -> Iterator[SerialExecutor[Any]]:
        class Recording(SerialExecutor[Any]):
            def map(self, function: Any, items: Any, advance: Any = None) -> list[Any]:
                results = super().map(function, items, advance)
                if function is SampleFits.fit_sample:
                    ends.extend(tried.state.result for tried in results)
                return results

        yield Recording(fits)

    starts = GaussianMixture(case.k).start_options()
    start = starts.start(surveyed, engine_for(case.rows.dtype), seed, [], recording)
    entered = start.mixtures(start.mixture.engine)
    # Records are compared by what they are: arrays know no truth.
    known = [mixture.to_unconstrained() for mixture in entered]
    others = [
        m for m in ends if not any(np.array_equal(m.to_unconstrained(), one) for one in known)
    ]
    return Found(start, others)


def first_and_last(case: Case, mixture: Mixture) -> tuple[float, float]:
    """What the first pass and the last tell of a start, in nats per row."""
    first, *_, last = [
        state.log_likelihood
        for state in run_algorithm(
            accumulator(case.rows), algorithm_of("auto", mixture, LIMITS, None)
        )
    ]
    return first, last


def main() -> None:
    arguments = parse(options(__doc__))
    n, names = (20_000, list(SYNTHETIC)[:4]) if arguments.small else (200_000, [*SYNTHETIC, *REAL])
    warnings.simplefilter("ignore", ConvergenceWarning)
    rows, missed, n_fits, n_entered = [], [0.0], 0, 0
    with tempfile.TemporaryDirectory() as cache, one_blas_thread():
        for name in names:
            case = SYNTHETIC[name](n) if name in SYNTHETIC else REAL[name](Path(cache))
            for seed in SEEDS:
                found = starts_of(case, seed)
                entered = found.start.mixtures(found.start.mixture.engine)
                n_fits, n_entered = n_fits + 1, n_entered + (len(entered) > 1)
                if len(entered) + len(found.others) == 1:
                    continue
                ends = [first_and_last(case, mixture) for mixture in entered]
                (_, best_of_sample), *_ = ends
                chosen, led = max(ends)
                stayed = [first_and_last(case, mixture)[1] for mixture in found.others]
                missed.append(max(0.0, *(end - led for _, end in ends), *(s - led for s in stayed)))
                which = "enters" if len(entered) > 1 else "stays on the sample"
                if chosen != ends[0][0]:
                    which = "enters and goes on"
                rows.append(
                    [name, seed, which, f"{led - best_of_sample:+.1e}", f"{missed[-1]:.1e}"]
                )
                print(*rows[-1], flush=True)
    header = ["case", "seed", "the second start", "gain by the choice", "missed"]
    publish(
        arguments,
        "One start or two on the full data",
        f"{n_fits} fits ({len(names)} cases, {len(SEEDS)} seeds each); {n_entered} of them let two "
        "starts into the first pass. Below are those in which a second start was near enough to "
        "the best to be fitted to all of the sample; nats per row. The gain is that of the start "
        "that goes on over the one that is best on the sample, missed is what the other would "
        f"have reached above it, each on its way by passes over all rows.\n\n{table(header, rows)}"
        f"\n\nAt most {np.max(missed):.1e} nats per row were missed.",
    )


if __name__ == "__main__":
    main()
