"""The best optimum that restarts of scikit-learn lead to, kept on disk.

A restart is scikit-learn's default fit: its k-means, then EM until a step gains less than 1e-3
nats per row. The EM steps are computed by our kernels, which are several times as fast; that
they are scikit-learn's is checked on every case by a whole fit of scikit-learn's beside the
first restart (and to 1e-9 in tests/test_reference.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture as Reference

from dask_em.backends.dask.config import engine_for
from dask_em.core.em import Convergence, PlainEM, run_algorithm
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.whitening import Whitening
from dask_em.fitting.control_variate import ControlVariateEM

# scikit-learn's defaults.
TOL, MAX_ITER, REG_COVAR = 1e-3, 100, 1e-6
# The best restart goes on until so much is estimated to be left, and 20 passes gain no more.
LIMIT = Convergence(1e-5, 1000, window=20)


@dataclass(frozen=True)
class Optimum:
    """What the restarts found, in nats per row.

    Attributes
    ----------
    limit : float
        Where the best restart goes, if it goes on.
    default : float
        Where scikit-learn's default fit ends, of `random_state=0`.
    n_iter, n_kmeans : int
        Iterations of that fit and of its k-means; k-means++ reads the data k times before.
    ends : list of float
        Where each restart ends.
    """

    limit: float
    default: float
    n_iter: int
    n_kmeans: int
    ends: list[float]


def accumulator(rows: np.ndarray) -> Callable[[Mixture], MixtureStatistics]:
    """The pass over rows in memory."""

    def accumulate(mixture: Mixture) -> MixtureStatistics:
        fold = mixture.fold()
        fold.update(0, rows, None)
        return fold.result()

    return accumulate


def best_optimum(rows: np.ndarray, k: int, restarts: int, cache: Path) -> Optimum:
    """The optimum of `restarts` restarts on rows (n, d), computed where the cache lacks it."""
    folder = _folder(rows, k, cache)
    kept = folder / f"{restarts}.json"
    if not kept.exists():
        fits = [_restart(rows, k, seed, folder) for seed in range(restarts)]
        default, n_iter = _scikit_learn(rows, k, fits[0], folder)
        start = best_restart(rows, k, restarts, cache)
        ends = [float(fit["end"]) for fit in fits]
        found = Optimum(limit_from(rows, start), default, n_iter, int(fits[0]["n_kmeans"]), ends)
        kept.write_text(json.dumps(asdict(found)))
    return Optimum(**json.loads(kept.read_text()))


def best_restart(rows: np.ndarray, k: int, restarts: int, cache: Path) -> Mixture:
    """Where the best of the restarts ends."""
    fits = [_restart(rows, k, seed, _folder(rows, k, cache)) for seed in range(restarts)]
    best = max(fits, key=lambda fit: float(fit["end"]))
    return _like(rows, k).from_unconstrained(best["coordinates"])


def limit_from(rows: np.ndarray, start: Mixture) -> float:
    """Mean log-likelihood where the ascent from `start` ends, in nats per row."""
    *_, last = run_algorithm(accumulator(rows), ControlVariateEM(start, LIMIT))
    return last.log_likelihood


def _folder(rows: np.ndarray, k: int, cache: Path) -> Path:
    digest = hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()[:16]
    folder = cache / f"{digest}-{k}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _like(rows: np.ndarray, k: int) -> Mixture:
    """A mixture in the frame of the rows, whose numbers mean nothing."""
    means = np.repeat(rows.mean(axis=0)[None], k, axis=0)
    spread = np.repeat(np.cov(rows.T, bias=True)[None], k, axis=0)
    return _mixture(rows, np.full(k, 1 / k), means, spread)


def _mixture(
    rows: np.ndarray, weights: np.ndarray, means: np.ndarray, covariances: np.ndarray
) -> Mixture:
    structure = CONSTRAINTS["full"].storage
    frame = Whitening.of_moments(
        rows.mean(axis=0), np.cov(rows.T, bias=True), structure.whitening_kind
    )
    covariance = structure.from_precisions(np.linalg.inv(covariances))
    components = Gaussian.from_data_coordinates(means, covariance, frame, REG_COVAR)
    return Mixture(np.log(weights), components, engine_for(np.float64))


def _restart(rows: np.ndarray, k: int, seed: int, folder: Path) -> dict[str, np.ndarray]:
    """scikit-learn's default fit of this seed."""
    kept = folder / f"restart-{seed}.npz"
    if not kept.exists():
        # GaussianMixture hands its generator on.
        kmeans = KMeans(k, n_init=1, random_state=np.random.RandomState(seed)).fit(rows)
        start = _of_labels(rows, kmeans.labels_, k)
        *_, state = run_algorithm(accumulator(rows), PlainEM(start, Convergence(TOL, MAX_ITER)))
        np.savez(
            kept,
            end=state.log_likelihood,
            n_iter=state.n_iter,
            n_kmeans=kmeans.n_iter_,
            coordinates=state.result.to_unconstrained(),
        )
    with np.load(kept) as saved:
        return dict(saved)


def _of_labels(rows: np.ndarray, labels: np.ndarray, k: int) -> Mixture:
    """scikit-learn's first M-step, of responsibilities that are one for each row's label."""
    parts = [rows[labels == j] for j in range(k)]
    weights = np.array([len(part) for part in parts]) / len(rows)
    means = np.stack([part.mean(axis=0) for part in parts])
    ridge = REG_COVAR * np.eye(rows.shape[1])
    spreads = np.stack([np.atleast_2d(np.cov(part.T, bias=True)) + ridge for part in parts])
    return _mixture(rows, weights, means, spreads)


def _scikit_learn(
    rows: np.ndarray, k: int, first: dict[str, np.ndarray], folder: Path
) -> tuple[float, int]:
    """Where scikit-learn itself ends with `random_state=0`, and its iterations of EM."""
    kept = folder / "scikit-learn.json"
    if not kept.exists():
        model = Reference(k, random_state=0).fit(rows)
        kept.write_text(json.dumps([float(model.lower_bound_), int(model.n_iter_)]))
    end, n_iter = json.loads(kept.read_text())
    assert n_iter == int(first["n_iter"]), (n_iter, first["n_iter"])
    np.testing.assert_allclose(float(first["end"]), end, rtol=1e-7)
    return end, n_iter
