"""Updates night by night beside one fit of all nights, and beside drift.

    python tests/benchmarks/update.py [--save] [--nights 100] [--rows 20000]

A store grows by a night's rows at a time, and the model of the first night is updated; at the end
it is compared with a fit of all rows. Then the same with components that move from night 60 on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
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

K, D = 8, 5
DRIFTS_AT, A_NIGHT = 0.6, 0.05
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
        of = rng.choice(K, n, p=self.weights)
        apart = np.einsum("nij,nj->ni", self.factors[of], rng.normal(size=(n, D)))
        return np.asarray(self.means[of] + apart + moved)

    def error(self, model: GaussianMixture, moved: float) -> float:
        """Return the mean distance of each true mean to the nearest of a model."""
        apart = np.linalg.norm(self.means[:, None] + moved - model.means_, axis=2)
        return float(apart.min(axis=1).mean())


def fitted(path: str) -> GaussianMixture:
    return GaussianMixture(K, random_state=0, tol=1e-4).fit(path)


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


def drifting(truth: Truth, nights: int, n: int) -> list[list[object]]:
    """Rows of the table: the error of means at some nights, by half-lives."""
    half_lives: Sequence[int | None] = (None, 10 * n, 3 * n)
    models = [
        GaussianMixture(K, random_state=0, tol=1e-4).fit(truth.rows(0, n)) for _ in half_lives
    ]
    begins, told = int(DRIFTS_AT * nights), []
    for night in range(1, nights):
        moved = A_NIGHT * max(0, night - begins)
        rows = truth.rows(night, n, moved)
        for model, half_life in zip(models, half_lives, strict=True):
            model.update(rows, forget=half_life)
        if night in (begins, (begins + nights) // 2, nights - 1):
            errors = [f"{truth.error(model, moved):.3f}" for model in models]
            told.append([f"night {night}, moved by {moved:.2f}", *errors])
    return told


def main() -> None:
    """Measure, print, and save where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true")
    parser.add_argument("--nights", type=int, default=100)
    parser.add_argument("--rows", type=int, default=20_000)
    given = parser.parse_args()
    truth = Truth.drawn()
    with tempfile.TemporaryDirectory() as folder, dask.config.set(scheduler="threads"):
        beside = nightly(truth, given.nights, given.rows, Path(folder))
        drift = drifting(truth, given.nights, given.rows)
    text = "\n\n".join([
        f"`python tests/benchmarks/update.py --save`; {machine('numpy', 'dask', 'zarr')}. "
        f"{given.nights} nights of {given.rows:,} rows, {D} columns, K = {K}, tol 1e-4; each night "
        "is appended to a store of which the update reads what is new.",
        table(["", "nats a row, of all rows", "beside the fit", "seconds", "passes"], beside),
        f"Means that move by {A_NIGHT} in every column each night, from night "
        f"{int(DRIFTS_AT * given.nights)} on: mean distance of a true mean to the nearest of the "
        "model.",
        table(["", "no `forget`", "half-life 10 nights", "half-life 3 nights"], drift),
    ])  # fmt: skip
    print(text)
    if given.save:
        save(SECTION, text)


if __name__ == "__main__":
    main()
