"""Seconds of a pass of latent classes over answers of one byte, beside reading and StepMix.

python tests/benchmarks/latent.py [--save] [--small] [--folder FOLDER]
"""

from __future__ import annotations

import time
from importlib.util import find_spec
from typing import Any

from common import alternate, table
from stores import Count, options, parse, publish, scratch

# isort: split
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from dask_em.backends.blas import one_blas_thread
from dask_em.backends.serial import SerialBackend
from dask_em.core.additive import Array
from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.data.open import as_source
from dask_em.families.categorical.family import Categorical

D, CATEGORIES, K, ROUNDS = 20, 5, 8, 5

# Rows that StepMix is given; its seconds are scaled up.
THEIRS = 100_000


def answers(n: int, seed: int = 0) -> Array:
    """Answers of K classes that overlap, (n, D)."""
    rng, truth = np.random.default_rng(seed), probabilities(1)
    labels = rng.integers(0, K, n)
    rows = np.empty((n, D), dtype=np.uint8)
    for j in range(D):
        ends = np.cumsum(truth[:, j], axis=1)[labels, :-1]
        rows[:, j] = (rng.random((n, 1)) > ends).sum(axis=1)
    return rows


def probabilities(seed: int) -> Array:
    """Probabilities of the answers in each class, (K, D, CATEGORIES)."""
    return np.random.default_rng(seed).dirichlet(np.ones(CATEGORIES), (K, D))


def mixture(engine: Engine) -> Mixture:
    """A mixture at other probabilities than those of the answers."""
    logs = np.log(probabilities(2)).reshape(K, -1)
    family = Categorical(logs, (CATEGORIES,) * D)
    return Mixture(np.full(K, -np.log(K)), family, engine)


def stepmix_pass(rows: Array) -> float:
    """Seconds of an iteration of StepMix."""
    from stepmix.stepmix import StepMix

    def seconds(n: int) -> float:
        model = StepMix(
            K, measurement="categorical", max_iter=n, n_init=1, random_state=0, abs_tol=0,
            rel_tol=0, progress_bar=0, verbose=0,
        )  # fmt: skip
        begin = time.perf_counter()
        model.fit(rows)
        return time.perf_counter() - begin

    return (seconds(12) - seconds(2)) / 10


def main() -> None:
    arguments = parse(options(__doc__))
    n = 200_000 if arguments.small else 10_000_000
    with scratch(arguments) as folder, one_blas_thread():
        stored: Any = zarr.create_array(
            folder / "answers.zarr",
            shape=(n, D),
            chunks=(400_000, D),
            dtype=np.uint8,
            compressors=[Crc32cCodec()],
        )
        for start in range(0, n, 1_000_000):
            stop = min(start + 1_000_000, n)
            stored[start:stop] = answers(stop - start, start)
        source, backend = as_source(stored), SerialBackend()
        work: dict[str, Any] = {"reading alone": Count()}
        work |= {f"a pass, {name}": mixture(Engine(name)) for name in ("numba", "numpy")}

        def one(pass_: Any) -> Any:
            return lambda: backend.map_reduce(source, pass_)

        found = alternate({name: one(pass_) for name, pass_ in work.items()}, ROUNDS)
        rows = [[name, f"{seconds:.3f}"] for name, seconds in found.items()]
        if find_spec("stepmix"):
            theirs = min(n, THEIRS)
            seconds = stepmix_pass(answers(theirs)) * n / theirs
            rows.append([f"StepMix, of {theirs:,} rows scaled up", f"{seconds:.3f}"])
        else:
            rows.append(["StepMix", "not installed"])
    publish(
        arguments,
        "Latent classes",
        f"{n:,} rows of {D} answers of {CATEGORIES} categories (uint8, Zarr), K = {K}: seconds "
        "on one thread from the page cache, alternating.\n\n" + table(["what", "seconds"], rows),
    )


if __name__ == "__main__":
    main()
