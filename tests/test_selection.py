"""Fleets: many models by the same passes, each as it would be alone, and the right one wins."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import (
    HANG,
    KINDS,
    PARAMETERS,
    Tune,
    add_up,
    assert_fits_close,
    assert_sums_close,
    blobs,
    digest,
    gaussian_of,
    leaves,
    random_mixture,
    write_zarr,
)
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

import dask_em
from dask_em import GaussianMixture, load, select
from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.dask.config import engine_for
from dask_em.backends.serial import SerialBackend
from dask_em.cli.main import main
from dask_em.core.em import Convergence, PlainEM
from dask_em.core.engine import Engine
from dask_em.core.fleet import Fleet, joined
from dask_em.core.passes import Holdout, Slice, Training
from dask_em.core.scoring import Score
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.memory import ArraySource
from dask_em.data.open import as_source, stored_source
from dask_em.errors import DataError
from dask_em.families.gaussian.whitening import Whitening
from dask_em.fitting.candidates import Candidate, Model, eliminate, run_together, to_gain
from dask_em.fitting.criteria import entropy
from dask_em.fitting.survey import Survey
from dask_em.jobs.cluster import Worker
from dask_em.jobs.memory import FitMemory
from dask_em.jobs.plan import count, fleet_of

pytestmark = pytest.mark.usefixtures("many_chunks")
FULL_OF_2_TO_6: dict[str, Any] = {"n_components": range(2, 7), "random_state": 0}


def fleet(d: int, seed: int = 0) -> tuple[Any, ...]:
    rng = np.random.default_rng(seed)
    return tuple(random_mixture(kind, k, d, rng) for kind in KINDS for k in (1, 4))


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return blobs(8000, 3, 4, seed=3)[0]


@pytest.fixture(scope="module")
def stored(points: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "points.zarr"
    write_zarr(path, points, 500)
    return path


# -- the pass ------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
def test_a_fleet_sums_what_each_mixture_sums_alone(
    points: np.ndarray, weighted: bool, engine: str
) -> None:
    weights = np.random.default_rng(1).uniform(0, 2, len(points)) if weighted else None
    source = ArraySource(points, weights)
    computes = engine_for(np.float64)
    mixtures = tuple(replace(m, engine=computes) for m in (*fleet(3), *fleet(3, seed=8)))
    # The frames are the data's, so all of a structure can be joined, but not tied ones.
    assert sorted(map(len, joined(mixtures))) == [1, 1, 1, 1, 4, 4, 4]
    together = SerialBackend().map_reduce(source, Fleet(mixtures))
    for mixture, found in zip(mixtures, together.members, strict=True):
        alone = SerialBackend().map_reduce(source, mixture)
        assert (found.n_rows, found.weight) == (alone.n_rows, alone.weight)
        assert_sums_close(found, alone, 1e-10)
    assert together.held_weight == 0
    assert together.held_out(0) is None
    size = Fleet(mixtures).result_bytes
    assert together.nbytes <= size + 24 * len(mixtures)
    assert together.nbytes >= sum(m.result_bytes for m in mixtures)


def test_mixtures_join_where_it_pays() -> None:
    rng = np.random.default_rng(0)

    def sizes(*mixtures: Any) -> list[int]:
        return [len(group) for group in joined(mixtures)]

    def made(k: int, d: int = 3, kind: str = "full", name: Any = "numpy", **changes: Any) -> Any:
        mixture = random_mixture(kind, k, d, rng)
        components = replace(gaussian_of(mixture), **changes)
        return replace(mixture, components=components, engine=Engine(name))

    assert sizes(made(4), made(16), made(1)) == [3]
    # Many components fill a block alone, and too many fill more than one.
    assert sizes(made(4), made(tuning().fleet.most_each + 1), made(2)) == [2, 1]
    assert sizes(*[made(16) for _ in range(17)]) == [tuning().fleet.most_joined // 16, 1]
    # In other coordinates, of other structures, with another bound, by other loops.
    other = Whitening(np.ones(3), np.ones(3))
    tight: dict[str, Any] = {"means": np.full((4, 3), 1e6)}
    assert (
        sizes(made(4), made(4, whitening=other), made(4, kind="diag"), made(4, **tight)) == [1] * 4
    )
    assert sizes(made(4), made(4, name="numba"), made(4, name="numba")) == [1, 2]
    assert sizes(made(4, 60), made(4, 60)) == [2]
    assert sizes(*[made(4, 60, name="numba") for _ in range(2)]) == [1, 1]
    assert sizes(*[made(4, 60, "diag", "numba") for _ in range(2)]) == [2]
    elsewhere = [replace(made(4), engine=Engine(device="cuda")) for _ in range(2)]
    assert sizes(*elsewhere) == [1, 1]


def test_entropy_of_sums_is_that_of_the_rows(points: np.ndarray) -> None:
    for mixture in fleet(3, seed=5):
        scores = SerialBackend().map_reduce(ArraySource(points), Score(mixture))
        found = entropy(mixture, add_up(mixture, points))
        assert found == pytest.approx(scores.entropy, rel=1e-9, abs=1e-6)


# -- rows that no fit sees -------------------------------------------------------------


def test_held_out_rows_count_for_nothing_but_the_score(points: np.ndarray) -> None:
    holdout = Holdout(seed=7, share=0.2)
    source = ArraySource(points)
    out = np.concatenate([holdout.mask(i, len(source.read(i)[0])) for i in range(source.n_chunks)])
    assert 0.18 < out.mean() < 0.22
    changed = points.copy()
    changed[out] = np.random.default_rng(0).normal(size=(out.sum(), 3)) * 50
    mixtures = fleet(3)
    before = SerialBackend().map_reduce(source, Fleet(mixtures, holdout))
    after = SerialBackend().map_reduce(ArraySource(changed), Fleet(mixtures, holdout))
    for a, b in zip(before.members, after.members, strict=True):
        for x, y in zip(leaves(a), leaves(b), strict=True):
            np.testing.assert_array_equal(x, y)
    assert before.held_weight == out.sum()
    for i, mixture in enumerate(mixtures):
        assert_sums_close(before.members[i].components,
                          add_up(mixture, points[~out]).components, 1e-9)  # fmt: skip
        density = add_up(mixture, points[out]).mean_log_likelihood
        assert before.held_out(i) == pytest.approx(density, rel=1e-12)
    survey = Training(Survey(7, 500, 3, len(points)), holdout)
    one, other = (SerialBackend().map_reduce(ArraySource(X), survey) for X in (points, changed))
    np.testing.assert_array_equal(one.sample.rows, other.sample.rows)
    np.testing.assert_array_equal(one.moments.scatter, other.moments.scatter)
    assert one.n_weighted == (~out).sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_a_slice_counts_its_own_rows_only(points: np.ndarray, weighted: bool) -> None:
    rng = np.random.default_rng(2)
    weights = rng.integers(0, 3, len(points)).astype(float) if weighted else None
    source = ArraySource(points, weights)
    holdout, part, mixtures = Holdout(7, 0.2), Slice(7, 0.3), fleet(3)[:3]
    sizes = [len(source.read(i)[0]) for i in range(source.n_chunks)]
    out, drawn = (
        np.concatenate([some.mask(i, n) for i, n in enumerate(sizes)]) for some in (holdout, part)
    )
    # Which rows are held out says nothing about which are in the slice.
    assert (out & drawn).mean() == pytest.approx(0.06, abs=0.01)
    sums = SerialBackend().map_reduce(source, Fleet(mixtures, holdout, part))
    ones = np.ones(len(points)) if weights is None else weights
    assert sums.held_weight == ones[out & drawn].sum()
    for i, mixture in enumerate(mixtures):
        fitted, scored = (
            add_up(mixture, points[rows], ones[rows]) for rows in (~out & drawn, out & drawn)
        )
        assert_sums_close(sums.members[i].components, fitted.components, 1e-9)
        assert sums.held_out(i) == pytest.approx(scored.mean_log_likelihood, rel=1e-12)
    broken = points.copy()
    row = int(np.flatnonzero(out & drawn)[-1])
    broken[row, 2] = np.inf
    expected = f"infinity at row {row}, column 2"
    if weights is None or weights[row] > 0:
        work, source = Fleet(mixtures, holdout, part), ArraySource(broken, weights)
        with pytest.raises(DataError, match=expected):
            SerialBackend().map_reduce(source, work)


def test_a_fit_with_rows_held_out_is_that_of_the_other_rows(points: np.ndarray) -> None:
    options: dict[str, Any] = {**FULL_OF_2_TO_6, "holdout": 0.1, "algorithm": "em"}
    found = select(points, **options)
    seed = int(np.random.RandomState(0).randint(np.iinfo(np.int32).max))
    source = ArraySource(points)
    out = np.concatenate(
        [Holdout(seed, 0.1).mask(i, len(source.read(i)[0])) for i in range(source.n_chunks)]
    )
    changed = points.copy()
    changed[out] += 3.0
    again = select(changed, **options)
    assert digest(again.best) == digest(found.best)
    (row,) = (r for r in found.table if r["n_components"] == found.best.n_components)
    scored = found.best.state_.mixture
    assert row["holdout"] == pytest.approx(add_up(scored, points[out]).mean_log_likelihood)
    (moved,) = (r for r in again.table if r["n_components"] == found.best.n_components)
    assert moved["holdout"] < row["holdout"]


def test_weights_count_in_the_score_of_rows_held_out(points: np.ndarray) -> None:
    weights = np.random.default_rng(2).integers(0, 3, len(points)).astype(float)
    source = ArraySource(points, weights)
    holdout, mixtures = Holdout(3, 0.5), fleet(3)[:2]
    sums = SerialBackend().map_reduce(source, Fleet(mixtures, holdout))
    out = np.concatenate([holdout.mask(i, len(source.read(i)[0])) for i in range(source.n_chunks)])
    assert sums.held_weight == weights[out].sum()
    for i, mixture in enumerate(mixtures):
        expected = add_up(mixture, points[out], weights[out]).mean_log_likelihood
        assert sums.held_out(i) == pytest.approx(expected, rel=1e-12)


def test_a_held_out_row_that_is_not_finite_is_named(points: np.ndarray) -> None:
    holdout = Holdout(7, 0.2)
    row = int(np.flatnonzero(holdout.mask(0, 50))[0])
    broken = points.copy()
    broken[row, 1] = np.nan
    with pytest.raises(DataError, match=f"NaN at row {row}, column 1"):
        SerialBackend().map_reduce(ArraySource(broken), Fleet(fleet(3)[:1], holdout))


# -- a sweep ---------------------------------------------------------------------------


@pytest.fixture
def one_engine() -> Iterator[None]:
    """A sweep is computed by what its largest model would be, which here is the same for all."""
    with dask.config.set({"dask_em.fast": False}):
        yield


@pytest.mark.usefixtures("one_engine")
@pytest.mark.parametrize("algorithm", ["em", "auto"])
def test_an_exhaustive_sweep_is_separate_fits(points: np.ndarray, algorithm: str) -> None:
    options: dict[str, Any] = {"n_init": 2, "sample_size": 3000, "random_state": 5,
                               "algorithm": algorithm}  # fmt: skip
    kinds = ("full", "diag")
    found = select(points, [2, 4], kinds, exhaustive=True, keep_all=True, **options)
    assert len(found.models) == len(found.table) == 4
    passes = []
    for model, row in zip(found.models, found.table, strict=True):
        k, kind = row["n_components"], row["covariance_type"]
        alone = GaussianMixture(k, covariance_type=kind, **options).fit(points)
        # Products that models share are equal to rounding.
        assert_fits_close(model, alone, 1e-12)
        assert model.n_iter_ == alone.n_iter_ == row["n_passes"]
        np.testing.assert_allclose(model.lower_bounds_, alone.lower_bounds_, rtol=1e-12)
        assert row["status"] == alone.status_.name
        # The table's numbers are of the last pass, the model's one M-step later.
        assert row["bic"] == pytest.approx(alone.bic(points), rel=1e-4)
        assert row["aic"] == pytest.approx(alone.aic(points), rel=1e-4)
        assert row["icl"] == pytest.approx(alone.icl(points), rel=1e-3)
        assert model.status_ is alone.status_
        passes.append(len(alone.history_))
    # One read serves all, so the sweep reads as often as the longest of them.
    assert len(found.history) == max(passes)


@pytest.mark.parametrize(("seed", "k", "kind"), [(0, 2, "full"), (1, 4, "diag"), (2, 3, "tied")])
def test_the_truth_wins_by_bic_and_pruning_keeps_it(seed: int, k: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    d, n = 3, 6000
    factors = {
        "full": rng.normal(size=(k, d, d)) * 0.5 + np.eye(d),
        "diag": rng.uniform(0.4, 1.6, (k, d))[:, :, None] * np.eye(d),
        "tied": np.broadcast_to(rng.normal(size=(d, d)) * 0.5 + np.eye(d), (k, d, d)),
    }[kind]
    labels = rng.integers(0, k, n)
    X = np.einsum("nij,nj->ni", factors[labels], rng.normal(size=(n, d)))
    X += (rng.normal(size=(k, d)) * 4)[labels]
    options: dict[str, Any] = {"n_init": 3, "random_state": 0, "sample_size": 3000}
    quick = select(X, range(1, 6), ("full", "tied", "diag"), **options)
    slow = select(X, range(1, 6), ("full", "tied", "diag"), exhaustive=True, **options)
    for found in (quick, slow):
        assert (found.best.n_components, found.best.covariance_type) == (k, kind)
    assert any(row["status"] == "DROPPED" for row in quick.table)
    assert not any(row["status"] == "DROPPED" for row in slow.table)
    assert len(quick.history) <= len(slow.history)
    # What the sample alone says is about right; one component has one optimum only.
    for a, b in zip(quick.table[::5], slow.table[::5], strict=True):
        assert (a["n_components"], a["n_passes"]) == (1, 0)
        assert a["log_likelihood"] == pytest.approx(b["log_likelihood"], abs=0.05)


@pytest.mark.parametrize("criterion", ["aic", "icl", "holdout"])
def test_every_criterion_chooses_its_best(points: np.ndarray, criterion: Any) -> None:
    found = select(points, range(2, 7), criterion=criterion, holdout=0.2, exhaustive=True,
                   random_state=0, sample_size=2000)  # fmt: skip
    values = [row[criterion] for row in found.table]
    best = int(np.argmax(values) if criterion == "holdout" else np.argmin(values))
    assert found.table[best]["n_components"] == found.best.n_components
    assert found.best.n_components >= 4


def test_the_winner_is_a_fitted_estimator(points: np.ndarray, tmp_path: Path) -> None:
    found = select(points, **FULL_OF_2_TO_6)
    best = found.best
    assert best.n_components == 4
    assert best.means_.shape == (4, 3)
    assert best.score(points) == pytest.approx(best.lower_bound_, abs=1e-3)
    passes = [record["phase"] for record in best.history_]
    assert passes[0] == "survey"
    assert len(passes) == len(found.history)
    assert len(best.lower_bounds_) == passes.count("em")
    assert len(passes) <= best.n_passes_ == found.n_passes
    best.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    np.testing.assert_array_equal(again.predict(points), best.predict(points))
    assert again.provenance_["sweep"]["table"] == found.table
    assert again.lower_bounds_ == best.lower_bounds_
    assert isinstance(best.to_sklearn(), SklearnGaussianMixture)
    assert dask_em.select is select


# The smaller sample leaves it to a slice of the data to choose.
@pytest.mark.parametrize("sample_size", [None, 200])
def test_the_same_bits_wherever_it_runs(
    stored: Path, sample_size: int | None, request: pytest.FixtureRequest
) -> None:
    options: dict[str, Any] = {**FULL_OF_2_TO_6, "holdout": 0.1, "n_init": 2}
    covariances = ("full", "spherical")

    def bits() -> tuple[str, str]:
        found = select(str(stored), covariance_type=covariances, sample_size=sample_size, **options)
        sliced = any(record["phase"] == "slice" for record in found.history)
        assert sliced == (sample_size is not None)
        return digest(found.best), json.dumps(found.table)

    with dask.config.set(scheduler="synchronous"):
        expected = bits()
    with dask.config.set(scheduler="threads"):
        assert bits() == expected
    request.getfixturevalue("client")
    assert bits() == expected


def test_every_kind_of_data_is_read(points: np.ndarray, stored: Path) -> None:
    import dask.array as da

    options: dict[str, Any] = {**FULL_OF_2_TO_6, "sample_size": 2000}
    lazy = da.from_array(points, chunks=(500, 3)) + 0
    for X in (str(stored), lazy):
        found = select(X, **options)
        assert found.best.n_components == 4


def test_weights_are_as_good_as_copies(points: np.ndarray) -> None:
    counts = np.random.default_rng(4).integers(0, 3, len(points))
    options: dict[str, Any] = {"random_state": 0, "sample_size": 10**6, "exhaustive": True}
    weighted = select(points, [3, 4], sample_weight=counts.astype(float), tol=1e-8, **options)
    copied = select(np.repeat(points, counts, axis=0), [3, 4], tol=1e-8, **options)
    assert weighted.best.n_components == copied.best.n_components == 4
    (a,), (b,) = ([r for r in s.table if r["n_components"] == 4] for s in (weighted, copied))
    for name in ("aic", "bic", "icl"):
        assert a[name] == pytest.approx(b[name], rel=1e-6)


# -- who is given up -------------------------------------------------------------------


def test_what_is_to_gain_of_a_geometric_series_is_its_rest() -> None:
    values = [1 - 0.8**i for i in range(6)]
    assert to_gain(values) == pytest.approx(1 - values[-1])
    assert to_gain(values[:1]) == np.inf
    assert to_gain([0.0, 1.0, 1.0]) == 0


@pytest.mark.parametrize("seed", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_slice_gives_up_what_the_sample_cannot(seed: int) -> None:
    X = blobs(40_000, 3, 4, seed=seed)[0]
    options: dict[str, Any] = {"n_components": range(2, 9), "random_state": 0}
    found = select(X, sample_size=800, **options)
    with use_tuning(tuning().with_changes(screening={"most_slice": 0.0})):
        whole = select(X, sample_size=800, **options)
    phases = [record["phase"] for record in found.history]
    n_slices = phases.count("slice")
    assert phases == ["survey"] + ["slice"] * n_slices + ["em"] * phases.count("em")
    assert n_slices > 0
    assert found.best.n_components == whole.best.n_components == 4
    assert all(record["phase"] != "slice" for record in whole.history)
    served, without = (sum(r["n_passes"] > 0 for r in one.table) for one in (found, whole))
    assert served < without
    assert [r["phase"] for r in found.best.history_[: 1 + n_slices]] == phases[: 1 + n_slices]
    assert n_slices <= tuning().screening.most_slices
    # What the slice says of the others is about right.
    for row, true in zip(found.table[2:], whole.table[2:], strict=True):
        assert row["log_likelihood"] == pytest.approx(true["log_likelihood"], abs=0.01)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_winner_of_a_small_sample_is_that_of_separate_fits() -> None:
    """Each K needs a start good enough that one more component does not win by a poor one."""
    X = blobs(40_000, 3, 4, seed=1)[0]
    options: dict[str, Any] = {"n_components": range(2, 9), "sample_size": 800, "random_state": 0}
    found = select(X, **options)
    separate = select(X, exhaustive=True, **options)
    assert found.best.n_components == separate.best.n_components == 4
    assert found.best.bic(X) <= separate.best.bic(X) + 1e-4 * len(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_slices_count_as_passes_at_most() -> None:
    X = blobs(20_000, 3, 4, seed=0)[0]
    for most in (2, 3, 4):
        found = select(X, range(2, 7), sample_size=400, max_passes=most, random_state=0)
        phases = [record["phase"] for record in found.history]
        assert len(phases) <= most
        assert "em" in phases
        assert ("slice" in phases) == (most > 2)


def candidate(k: int, tells: list[Any]) -> Candidate:
    mixture, X = tells
    made = Candidate(Model(k, "full", mixture.n_parameters), PlainEM(mixture, Convergence(0.0, 50)))
    for _ in range(3):
        made.tell(add_up(made.algorithm.proposal, X))
    return made


def test_only_those_that_cannot_win_are_dropped(points: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    far = random_mixture("full", 2, 3, rng)
    near = select(points, 4, random_state=0).best.state_.mixture
    behind, leader, same = (candidate(k, [m, points]) for k, m in ((2, far), (4, near), (4, near)))
    eliminate([leader, same], "bic")
    assert leader.running
    assert same.running
    # A model that gains quickly is not eliminated, however far it is behind.
    behind._fitted = [-100.0, -50.0, -20.0]
    eliminate([behind, leader], "bic")
    assert behind.running
    last = behind.last_state().log_likelihood
    behind._fitted = [last - 3e-9, last - 1e-9, last]
    eliminate([behind, leader], "bic")
    assert behind.dropped
    assert leader.running


def test_the_climb_serves_only_those_that_still_run(points: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    mixtures = [random_mixture("diag", 2, 3, rng) for _ in range(3)]
    limits = [2, 4, 1]
    candidates = [
        Candidate(Model(2, "diag", 13), PlainEM(m, Convergence(0.0, limit)))
        for m, limit in zip(mixtures, limits, strict=True)
    ]
    served = []

    def accumulate(proposals: tuple[Any, ...]) -> Any:
        served.append(len(proposals))
        return DaskBackend().map_reduce(as_source(points), Fleet(proposals))

    list(run_together(accumulate, candidates))
    assert served == [3, 2, 1, 1]
    assert [c.n_passes for c in candidates] == limits


# -- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_components": []}, "n_components="),
        ({"n_components": [3, 3]}, "each of them once"),
        ({"n_components": [0, 2]}, "n_components=0"),
        ({"n_components": 2, "covariance_type": ["full", "round"]}, "covariance_type='round'"),
        ({"n_components": 2, "criterion": "likelihood"}, "criterion='likelihood'"),
        ({"n_components": 2, "holdout": 1.5}, "holdout=1.5"),
        ({"n_components": 2, "holdout": True}, "holdout=True"),
        ({"n_components": 2, "criterion": "holdout"}, "needs rows to score"),
        ({"n_components": 2, "means_init": np.zeros((2, 3))}, "means_init belongs"),
        ({"n_components": 2, "warm_start": True}, "warm_start belongs"),
        ({"n_components": [2, 9000]}, "n_components=9000"),
    ],
)
def test_what_cannot_be_asked_for(
    points: np.ndarray, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        select(points, **options)


def test_too_few_rows_to_hold_any_out() -> None:
    X = np.random.default_rng(0).normal(size=(12, 2))
    with pytest.raises(DataError, match=r"holdout=1e-06 of 12 rows drew none"):
        select(X, [1, 2], holdout=1e-6, random_state=0)


# -- the command line --------------------------------------------------------------------


def test_a_sweep_on_the_command_line(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tune: Tune, two_workers: Client
) -> None:
    # The program cuts the data as users' programs do.
    tune(reading={"bytes": 8 * 2**20})
    saved = tmp_path / "m.npz"
    options = ["-k", "3:5", "--covariance", "full,spherical", "--holdout", 0.1, "--exhaustive",
               "--keep-all", "--tol", 0.01]  # fmt: skip
    scheduler = ["--scheduler", two_workers.scheduler.address]
    command = ["fit", stored, "-o", saved, *options, "--json", *scheduler]
    result = subprocess.run(
        [sys.executable, "-m", "dask_em.cli", *map(str, command)],
        capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert [r["n_components"] for r in found["table"]] == [3, 4, 5] * 2
    assert (found["n_components"], found["covariance_type"]) == (4, "spherical")
    best = load(saved)
    assert best.n_components == 4
    assert best.provenance_["sweep"]["criterion"] == "bic"
    library = select(str(stored), [3, 4, 5], ["full", "spherical"], holdout=0.1, exhaustive=True,
                     tol=0.01, random_state=0)  # fmt: skip
    for name in PARAMETERS:
        np.testing.assert_array_equal(getattr(best, name), getattr(library.best, name))
    files = sorted(p.name for p in tmp_path.iterdir())
    kept = [f"m-k{k}-{kind}.npz" for k in (3, 4, 5) for kind in ("full", "spherical")]
    assert files == sorted(["m.npz", *kept])
    assert load(tmp_path / "m-k5-full.npz").n_components == 5

    again = CliRunner().invoke(main, [str(word) for word in command])
    assert again.exit_code == 73
    assert "m.npz exists" in again.stderr


def test_the_table_on_a_terminal(stored: Path, tmp_path: Path, two_workers: Client) -> None:
    command = ["fit", stored, "-o", tmp_path / "m.npz", "-k", "3,4", "--scheduler",
               two_workers.scheduler.address]  # fmt: skip
    result = CliRunner().invoke(main, [str(word) for word in command])
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["K", "covariance", "log_likelihood"]
    assert [line.split()[0] for line in lines[1:3]] == ["3", "*"]
    assert "best by bic" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-k", "0:3"], "K is at least 1"),
        (["-k", "5:2"], "a range goes up"),
        (["-k", "3,x"], "expected 8, or 4,8,16"),
        (["-k", "3,3"], "names a value twice"),
        (["-k", "3", "--covariance", "full,round"], "expected one or several of"),
        (["-k", "3", "--criterion", "best"], "'best' is not one of"),
        (["-k", "3", "--holdout", "1.5"], "1.5 is not in the range"),
        (["-k", "3", "--criterion", "holdout"], "--holdout 0.1"),
        (["-k", "3,4", "--criterion", "holdout"], "--holdout 0.1"),
    ],
)
def test_wrong_usage(stored: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, ["fit", str(stored), "-o", str(tmp_path / "m"), *arguments])
    assert result.exit_code == 2
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_plan_of_a_sweep_counts_all_its_models(stored: Path) -> None:
    source, workers = stored_source(stored), [Worker(1, 0)]
    one, other = (count(source, fleet_of(k, "full"), workers) for k in (3, 9))
    both = count(source, fleet_of([3, 9], "full"), workers)
    em = [FitMemory(source, fleet_of(k, "full")).worker.phases[-1] for k in (3, 9, [3, 9])]
    assert em[2].parameters == em[0].parameters + em[1].parameters
    assert em[2].task > max(em[0].task, em[1].task)
    assert both.statistics_bytes == one.statistics_bytes + other.statistics_bytes
    assert both.parameter_bytes == one.parameter_bytes + other.parameter_bytes
    assert both.bytes_per_pass == one.bytes_per_pass
