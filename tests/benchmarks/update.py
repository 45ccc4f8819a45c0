"""Updates night by night beside one fit of all nights, and beside drift.

    python tests/benchmarks/update.py [--save] [--nights 100] [--rows 20000] [--hard-rows 2000]

A store grows by a night's rows at a time, and the model of the first night is updated; at the end
it is compared with a fit of all rows. Then sets whose components overlap, with and without a sample
that stays with the model; and components that move from night 60 on, with the nights of the alarm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

from common import machine, save, table

# isort: split
import dask
import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from dask_em import GaussianMixture
from dask_em.core.additive import Array
from dask_em.data.open import as_source
from dask_em.report.alarm import Baseline, drift_densities, drift_told

K, D = 8, 5
DRIFTS_AT, A_NIGHT = 0.6, 0.05
LIMIT = 0.01
SECTION = "A model renewed every night"


@dataclass(frozen=True)
class Truth:
    """Normals whose means move by so much of a standard deviation a night, from a night on."""

    means: Array
    factors: Array
    weights: Array

    @classmethod
    def drawn(cls, seed: int = 0) -> Truth:
        """Return overlapping components."""
        rng = np.random.default_rng(seed)
        factors = np.eye(D) + 0.4 * rng.normal(size=(K, D, D))
        return cls(2.0 * rng.normal(size=(K, D)), factors, rng.dirichlet(np.full(K, 5.0)))

    def rows(self, night: int, n: int, moved: float = 0.0) -> Array:
        """Draw the rows of a night."""
        rng = np.random.default_rng([night, 1])
        of = rng.choice(len(self.weights), n, p=self.weights)
        apart = np.einsum("nij,nj->ni", self.factors[of], rng.normal(size=(n, self.means.shape[1])))
        return np.asarray(self.means[of] + apart + moved)

    def error(self, model: GaussianMixture, moved: float) -> float:
        """Return the mean distance of each true mean to the nearest of a model."""
        apart = np.linalg.norm(self.means[:, None] + moved - model.means_, axis=2)
        return float(apart.min(axis=1).mean())


def fitted(path: str, keep_sample: int = 0) -> GaussianMixture:
    return GaussianMixture(K, random_state=0, tol=1e-4).fit(path, keep_sample=keep_sample)


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def nightly(truth: Truth, nights: int, n: int, folder: Path) -> list[list[object]]:
    """Rows of the table: likelihood and seconds of updates, and of one fit of all."""
    path = str(folder / "x.zarr")
    store = zarr.create_array(
        path, shape=(0, D), chunks=(n, D), dtype="f8", compressors=[Crc32cCodec()]
    )
    store.append(truth.rows(0, n))
    model = fitted(path)
    seconds = []
    for night in range(1, nights):
        store.append(truth.rows(night, n))
        seconds.append(timed(lambda: model.update(path)))
    whole: list[GaussianMixture] = []
    of_fit = timed(lambda: whole.append(fitted(path)))
    updated, best = (float(one.score(path)) for one in (model, whole[0]))
    passes = [one["passes"] for one in model.provenance_["generations"][1:]]
    return [
        ["updates", f"{updated:.6f}", f"{updated - best:+.1e}",
         f"{np.median(seconds):.2f} a night", f"{np.mean(passes):.1f} of a night"],
        ["one fit of all", f"{best:.6f}", "", f"{of_fit:.2f}", f"{whole[0].n_iter_} of all"],
    ]  # fmt: skip


# Seed, K, columns, and the standard deviation of a mean, of sets whose components overlap.
HARD = ((0, 8, 5, 1.0), (1, 8, 5, 1.0), (2, 16, 5, 1.5), (3, 6, 2, 1.0), (4, 12, 2, 1.5))
KEPT = 20_000


def overlapping(nights: int, n: int) -> list[list[object]]:
    """Rows of the table: what updates lack of one fit of all, without and with a kept sample."""
    found = []
    for seed, k, d, apart in HARD:
        rng = np.random.default_rng(seed)
        factors = np.eye(d) + 0.4 * rng.normal(size=(k, d, d))
        truth = Truth(apart * rng.normal(size=(k, d)), factors, rng.dirichlet(np.full(k, 5.0)))
        rows = [truth.rows(night, n) for night in range(nights)]
        whole = np.concatenate(rows)
        made = GaussianMixture(k, random_state=0, tol=1e-4)
        best: list[GaussianMixture] = []
        of_fit = timed(lambda made=made, whole=whole, best=best: best.append(made.fit(whole)))  # type: ignore[misc]
        line: list[object] = [f"K = {k}, {d} columns, means within {apart:g} (seed {seed})"]
        for size in (0, KEPT):
            model = GaussianMixture(k, random_state=0, tol=1e-4).fit(rows[0], keep_sample=size)
            seconds = [timed(lambda x=x, model=model: model.update(x)) for x in rows[1:]]  # type: ignore[misc]
            lacks = float(model.score(whole)) - float(best[0].score(whole))
            line += [f"{lacks:+.1e}", f"{np.median(seconds):.2f}"]
        found.append([*line, f"{of_fit:.2f}"])
    return found


def drifting(truth: Truth, nights: int, n: int) -> tuple[list[list[object]], list[int]]:
    """Rows of the table: the error of means at some nights, by half-lives; and nights of alarms."""
    half_lives: Sequence[int | None] = (None, 10 * n, 3 * n)
    first = GaussianMixture(K, random_state=0, tol=1e-4).fit(truth.rows(0, n))
    models = [deepcopy(first) for _ in half_lives]
    begins, told, alarms = int(DRIFTS_AT * nights), [], []
    for night in range(1, nights):
        moved = A_NIGHT * max(0, night - begins)
        rows = truth.rows(night, n, moved)
        parts = drift_densities(first, as_source(rows), ())
        if drift_told(Baseline.of(first), parts, LIMIT)["alarm"]:
            alarms.append(night)
        for model, half_life in zip(models, half_lives, strict=True):
            model.update(rows, forget=half_life)
        if night in (begins, (begins + nights) // 2, nights - 1):
            errors = [f"{truth.error(model, moved):.3f}" for model in models]
            told.append([f"night {night}, moved by {moved:.2f}", *errors])
    return told, alarms


def main() -> None:
    """Measure, print, and save where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--hard-rows", type=int, default=2_000)
    given = parser.parse_args()
    truth = Truth.drawn()
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads"):
        beside = nightly(truth, given.nights, given.rows, Path(folder))
        hard = overlapping(given.nights, given.hard_rows)
        drift, alarms = drifting(truth, given.nights, given.rows)
    begins = int(DRIFTS_AT * given.nights)
    false = [night for night in alarms if night <= begins]
    true = [night for night in alarms if night > begins]
    text = "\n\n".join([
        f"`python tests/benchmarks/update.py --save`; {machine('numpy', 'dask', 'zarr')}. "
        f"{given.nights} nights of {given.rows:,} rows, {D} columns, K = {K}, tol 1e-4; each night "
        "is appended to a store of which the update reads what is new.",
        table(["", "nats a row, of all rows", "beside the fit", "seconds", "passes"], beside),
        f"Components that overlap: {given.nights} nights of {given.hard_rows:,} rows, nats a row "
        f"beside one fit of all, without and with keep_sample={KEPT} (rows in memory).",
        table(
            ["", "no sample", "seconds a night", "sample kept", "seconds a night", "fit of all, s"],
            hard,
        ),
        f"`score --drift --alarm {LIMIT:g}` with the model of the first night as it was, on each "
        f"night's rows: first alarm after the drift began on night {begins} at night "
        f"{true[0] if true else 'none'}; before, {len(false)} of {begins} nights.",
        f"Means that move by {A_NIGHT} in every column each night, from night "
        f"{begins} on: mean distance of a true mean to the nearest of the "
        "model.",
        table(["", "no `forget`", "half-life 10 nights", "half-life 3 nights"], drift),
    ])  # fmt: skip
    print(text)
    if given.save:
        save(SECTION, text)


if __name__ == "__main__":
    main()
