"""A sweep over K beside one fit: its time, its passes, and whether the same model wins.

python tests/benchmarks/sweep.py [--save] [--small] [--folder FOLDER]
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from common import alternate, table
from stores import MIB, Points, options, parse, publish, scratch, stored

# isort: split
import numpy as np
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture, select
from dask_em.core.additive import Array
from dask_em.jobs.cluster import ClusterOptions, cluster_client

ROUNDS = 3
KS = range(1, 17)
N_INIT = 5
# Clusters in the data of which the time is taken.
TRUE_KS = (4, 8, 16)
# The cases of which the winner is compared: all K and two structures.
CASES, CASE_KS, KINDS = 10, range(1, 11), ("full", "diag")


def cost(folder: Path, total: int) -> str:
    """Seconds and passes of the sweep and of one fit of the largest K, on two workers."""
    rows = []
    with cluster_client(ClusterOptions(workers=2)) as client:
        for true_k in TRUE_KS:
            points = Points.of_bytes(total, 8, 8 * MIB, k=true_k)
            with stored(points, folder, client) as source, client.as_current():
                rows.append([true_k, f"{points.n_rows:,}", *_beside_one_fit(source.description)])
            print(*rows[-1], flush=True)
    header = ["clusters", "rows", "fit, s", "sweep, s", "ratio", "fit, passes", "sweep, passes"]
    return table([*header, "ratio", "to the end", "winner"], rows)


def _beside_one_fit(path: str) -> list[str]:
    found: dict[str, Any] = {}

    def fit() -> None:
        found["fit"] = GaussianMixture(max(KS), random_state=0).fit(path)

    def sweep() -> None:
        found["sweep"] = select(path, KS, n_init=N_INIT, random_state=0)

    seconds = alternate({"fit": fit, "sweep": sweep}, ROUNDS)
    passes = {"fit": found["fit"].n_passes_, "sweep": found["sweep"].n_passes}
    served = sum(row["n_passes"] > 0 for row in found["sweep"].table)
    columns = []
    for numbers, form in ((seconds, ".1f"), (passes, ".2f")):
        ratio = numbers["sweep"] / numbers["fit"]
        columns += [format(numbers[name], form) for name in ("fit", "sweep")] + [f"{ratio:.2f}"]
    return [*columns, f"{served} of {len(KS)}", f"K = {found['sweep'].best.n_components}"]


def case(seed: int, n: int) -> tuple[Array, int, str]:
    """Rows of 2 to 8 clusters of unlike sizes and shapes, the true K and structure."""
    rng = np.random.default_rng([20, seed])
    k, d = int(rng.integers(2, 9)), int(rng.integers(2, 7))
    kind = KINDS[seed % len(KINDS)]
    factors = rng.uniform(0.5, 1.5, size=(k, d))[:, :, None] * np.eye(d)
    if kind == "full":
        factors = factors + rng.normal(scale=0.5, size=(k, d, d))
    means = rng.normal(scale=rng.uniform(2, 4), size=(k, d))
    labels = rng.choice(k, n, p=rng.dirichlet(np.full(k, 5.0)))
    X = np.einsum("nij,nj->ni", factors[labels], rng.normal(size=(n, d))) + means[labels]
    return X, k, kind


def separately(X: Array, seed: int) -> dict[tuple[int, str], float]:
    """BIC of separate fits, by K and structure."""
    return {
        (k, kind): GaussianMixture(k, covariance_type=kind, n_init=N_INIT, random_state=seed)
        .fit(X)
        .bic(X)
        for kind in KINDS
        for k in CASE_KS
    }


def winners(n: int, cases: int) -> str:
    """The winner by BIC of sweeps and of separate fits."""
    rows, same, exceptions = [], 0, []
    for seed in range(cases):
        X, k, kind = case(seed, n)
        with warnings.catch_warnings():
            # Too many components for the data collapse, as they should.
            warnings.simplefilter("ignore", ConvergenceWarning)
            bics = separately(X, seed)
            found = select(X, CASE_KS, KINDS, n_init=N_INIT, random_state=seed)
        best = found.best
        won, expected = (best.n_components, best.covariance_type), min(bics, key=bics.__getitem__)
        same += won == expected
        better = (best.bic(X) - bics[expected]) / len(X)
        if won != expected:
            exceptions.append(
                f"Truth {k} {kind}: the sweep's {won[0]} {won[1]} has BIC {best.bic(X):,.0f}, a "
                f"separate fit of the same {bics[won]:,.0f}, the separate winner {expected[0]} "
                f"{expected[1]} {bics[expected]:,.0f}."
            )
        rows.append(
            [
                f"{k} {kind}",
                X.shape[1],
                f"{won[0]} {won[1]}",
                f"{expected[0]} {expected[1]}",
                "yes" if won == expected else "no",
                f"{better:+.1e}",
                sum(row["n_passes"] > 0 for row in found.table),
            ]
        )
        print(*rows[-1], flush=True)
    header = ["truth", "d", "sweep", "separate fits", "same", "BIC a row, sweep less fits"]
    found_table = table([*header, f"of {len(CASE_KS) * len(KINDS)} to the end"], rows)
    return f"{same} of {cases} the same (wanted: at least 9 of 10).\n\n{found_table}" + "".join(
        f"\n\n{line}" for line in exceptions
    )


def main() -> None:
    arguments = parse(options(__doc__))
    with scratch(arguments) as folder:
        times = cost(folder, (64 if arguments.small else 1024) * MIB)
    same = winners(*((20_000, 3) if arguments.small else (200_000, CASES)))
    publish(
        arguments,
        "A sweep over K",
        f"`select` of K = {min(KS)} to {max(KS)}, {N_INIT} starts each, beside one fit of K = "
        f"{max(KS)} with one start: float64, d = 8, full, two workers of one thread, warm cache, "
        f"median of {ROUNDS}, alternating (wanted: at most 3 times the time and twice the "
        f"passes):\n\n{times}\n\n"
        f"The winner by BIC over K = {min(CASE_KS)} to {max(CASE_KS)} and {', '.join(KINDS)}: "
        f"{same}",
    )


if __name__ == "__main__":
    main()
