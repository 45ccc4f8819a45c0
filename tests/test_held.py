"""Parameters that are held: formulas of one iteration, laws of fits, counts, files, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import KINDS, write_zarr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from test_family_table import FAMILIES, RATES, Row, StopAfter, StoppedError

from dask_em import (
    ExponentialMixture,
    GaussianMixture,
    PoissonMixture,
    StudentTMixture,
    load,
    select,
)
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.held import Held

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

N, K, D = 900, 3, 2
WEIGHTS = np.array([0.2, 0.3, 0.5])
MEANS = np.array([[0.3, 0.1], [2.8, 2.7], [6.0, 6.3]])


def rows() -> Array:
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, N)
    return rng.normal(size=(N, D)) * [1.0, 2.0] + 3.0 * y[:, None]


X = rows()
PRECISIONS: dict[str, Array] = {
    "full": np.stack([np.eye(D) / (1 + k) for k in range(K)]),
    "tied": np.eye(D) / 1.5,
    "diag": np.ones((K, D)) / [[1.0], [2.0], [3.0]],
    "spherical": 1 / np.array([1.0, 2.0, 3.0]),
}
# Of which the last is no set, for tests are named alike in all processes.
ALL: list[Any] = [{"weights"}, {"means"}, {"covariances"}, ["means", "covariances"]]
SOME = [
    {"weights": [0]},
    {"means": [0, 2]},
    {"means": [0], "covariances": [0], "weights": [0]},
]


def make(kind: str = "full", **options: Any) -> GaussianMixture:
    options = {
        "covariance_type": kind, "weights_init": WEIGHTS, "means_init": MEANS,
        "precisions_init": PRECISIONS[kind], "reg_covar": 0, "random_state": 0, **options,
    }  # fmt: skip
    return GaussianMixture(K, **options)


def one_iteration(fixed: dict[str, list[int]]) -> tuple[Array, Array, Array]:
    """Weights, means and covariances after the E-step at the start, and the M-step of the rest."""
    covariances = np.linalg.inv(PRECISIONS["full"])
    p = np.column_stack(
        [
            w * stats.multivariate_normal(m, c).pdf(X)
            for w, m, c in zip(WEIGHTS, MEANS, covariances, strict=True)
        ]
    )
    r = p / p.sum(axis=1, keepdims=True)
    total = r.sum(axis=0)
    held = fixed.get("weights", [])
    free = [k for k in range(K) if k not in held]
    weights = WEIGHTS.copy()
    weights[free] = (1 - WEIGHTS[held].sum()) * total[free] / max(total[free].sum(), 1e-300)
    means = r.T @ X / total[:, None]
    means[fixed.get("means", [])] = MEANS[fixed.get("means", [])]
    apart = X[:, None] - means
    found = np.einsum("nk,nki,nkj->kij", r, apart, apart) / total[:, None, None]
    found[fixed.get("covariances", [])] = covariances[fixed.get("covariances", [])]
    return weights, means, found


@pytest.mark.parametrize("fixed", [*ALL, *SOME], ids=str)
def test_one_iteration_is_that_of_the_formulas(fixed: Any) -> None:
    parts = fixed if isinstance(fixed, dict) else {name: list(range(K)) for name in fixed}
    model = make(fixed=fixed, algorithm="em", max_iter=1).fit(X)
    for found, right in zip(
        (model.weights_, model.means_, model.covariances_), one_iteration(parts), strict=True
    ):
        assert_allclose(found, right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("fixed", [*ALL, *SOME], ids=str)
@pytest.mark.parametrize("kind", KINDS[:4])
def test_what_is_held_stays_and_nothing_falls(kind: str, fixed: Any) -> None:
    if kind == "tied" and "covariances" in fixed and isinstance(fixed, dict):
        pytest.skip("one covariance is held as a whole")
    plain = make(kind, fixed=fixed, algorithm="em", tol=1e-7, max_iter=500).fit(X)
    quick = make(kind, fixed=fixed, tol=1e-8).fit(X)
    assert (np.diff(plain.lower_bounds_) >= -1e-12).all()
    assert quick.lower_bound_ > plain.lower_bound_ - 1e-6
    starts = {"weights": WEIGHTS, "means": MEANS, "covariances": PRECISIONS[kind]}
    for model in (plain, quick):
        now = {"weights": model.weights_, "means": model.means_, "covariances": model.precisions_}
        for name in fixed:
            of = fixed[name] if isinstance(fixed, dict) else slice(None)
            assert_allclose(now[name][of], starts[name][of], rtol=1e-12)
        assert model.weights_.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    ("kind", "fixed", "free"),
    [
        ("full", {"weights"}, 15),
        ("full", {"weights": [0]}, 16),
        ("full", {"means": [0, 2]}, 13),
        ("full", {"means": [0], "covariances": [0], "weights": [0]}, 11),
        ("tied", {"covariances"}, 8),
        ("diag", ["means", "covariances"], 2),
        ("spherical", {"weights", "means", "covariances"}, 0),
    ],
)
def test_what_is_held_is_no_free_parameter(kind: str, fixed: Any, free: int) -> None:
    model = make(kind, fixed=fixed).fit(X)
    penalty = model.bic(X) + 2 * N * model.score(X)
    assert penalty == pytest.approx(free * np.log(N), abs=1e-6)
    assert model._n_parameters() == free


def test_equal_weights_need_no_start_and_are_swept() -> None:
    found = select(X, [2, 3], fixed={"weights"}, random_state=0, keep_all=True, exhaustive=True)
    for model in found.models:
        assert_array_equal(model.weights_, np.full(model.n_components, 1 / model.n_components))
    row = next(row for row in found.table if row["n_components"] == 3)
    assert row["n_parameters"] == 15


def test_a_known_background_is_found_again_beside_what_is_estimated() -> None:
    rng = np.random.default_rng(1)
    background, peak = rng.normal(0, 5, (4000, 2)), rng.normal([6, 6], 0.5, (800, 2))
    data = np.concatenate([background, peak])
    model = GaussianMixture(
        2, means_init=[[0, 0], [4, 4]], precisions_init=[np.eye(2) / 25, np.eye(2)],
        weights_init=[0.5, 0.5], fixed={"means": [0], "covariances": [0]},
    ).fit(data)  # fmt: skip
    assert_allclose(model.means_[1], [6, 6], atol=0.1)
    assert_allclose(model.weights_[1], 1 / 6, atol=0.02)
    assert_allclose(model.covariances_[0], 25 * np.eye(2), rtol=1e-12)


def test_files_and_warm_starts_hold_the_same(tmp_path: Path) -> None:
    fixed = {"means": {0}, "weights": None}
    model = make(fixed=fixed, max_iter=3).fit(X)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert digest(again.state_) == digest(model.state_)
    assert again.bic(X) == pytest.approx(model.bic(X), rel=1e-12)
    again.set_params(warm_start=True, max_iter=100).fit(X)
    assert_allclose(again.means_[0], MEANS[0], rtol=1e-12)
    assert_allclose(again.weights_, WEIGHTS, rtol=1e-12)
    assert again.lower_bound_ > model.lower_bound_


def test_resumed_fits_and_workers_give_the_same_bits(
    two_workers: Client, synchronous: None, tmp_path: Path
) -> None:
    stored, fixed = write_zarr(tmp_path / "x.zarr", X, 150), {"means": [1], "weights": [0]}
    straight = make(fixed=fixed, tol=1e-6).fit(stored)
    with pytest.raises(StoppedError):
        make(fixed=fixed, tol=1e-6, checkpoint=tmp_path / "k", callbacks=[StopAfter(15)]).fit(
            stored
        )
    resumed = make(fixed=fixed, tol=1e-6, checkpoint=tmp_path / "k").fit(stored)
    assert digest(resumed.state_) == digest(straight.state_)
    with two_workers.as_current():
        there = make(fixed=fixed, tol=1e-6).fit(stored)
    assert digest(there.state_) == digest(straight.state_)


def test_labels_start_what_is_not_held() -> None:
    z = np.random.default_rng(2).integers(0, K, N)
    model = make(fixed={"means"}, precisions_init=None, max_iter=5).fit(X, labels_init=z)
    assert_allclose(model.means_, MEANS, rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"mean"}}, "expected names of weights, means, covariances"),
        ({"fixed": 3}, "expected names of weights"),
        ({"fixed": {"means": [3]}}, "expected numbers of components from 0 to 2"),
        ({"fixed": {"means": [0, 0]}}, "each of them once"),
        ({"fixed": {"means"}, "means_init": None}, "give them by means_init"),
        ({"fixed": {"covariances"}, "precisions_init": None}, "give them by precisions_init"),
        ({"fixed": {"weights": [0]}, "weights_init": None}, "give all weights by weights_init"),
        ({"fixed": {"covariances": [0]}, "kind": "tied"}, "are estimated together"),
        ({"fixed": {"means"}, "prior": "conjugate"}, "go with neither prior nor max_ratio"),
        ({"fixed": {"means"}, "max_ratio": 9.0}, "go with neither prior nor max_ratio"),
    ],
)
def test_what_cannot_be_held_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options).fit(X)


def test_a_shell_holds_equal_weights(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", X, 150)
    out = str(tmp_path / "m.npz")
    told = ["fit", str(tmp_path / "x.zarr"), "-k", "3", "-o", out, "--fixed"]
    found = CliRunner().invoke(main, [*told, "weights"])
    assert found.exit_code == 0, found.output
    assert_array_equal(load(out).fitted_array("weights_"), np.full(3, 1 / 3))
    refused = CliRunner().invoke(main, [*told, "weight", "--overwrite"])
    assert refused.exit_code == 2
    assert "expected names of weights, means, covariances" in refused.output


# -- other families ------------------------------------------------------------------------------

QUICK = ["poisson", "exponential", "bernoulli"]
SLOW = ["gamma", "multinomial", "categorical", "student-t", "factor", "mixed"]


@pytest.fixture(params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def family(request: pytest.FixtureRequest) -> Row:
    return FAMILIES[request.param]


def test_weights_of_any_family_are_held(family: Row, tmp_path: Path) -> None:
    data = family.rows()
    known: dict[str, Any] = {"weights_init": WEIGHTS, "fixed": {"weights"}, "algorithm": "em"}
    free = family.fit(data, algorithm="em", max_iter=1)
    model = family.fit(data, **known, max_iter=30)
    assert_allclose(model.weights_, WEIGHTS, rtol=1e-12)
    assert (np.diff(model.lower_bounds_) >= -1e-11).all()
    counts = [m.state_.result.n_parameters for m in (free, model)]
    assert counts[0] - counts[1] == K - 1
    quick = family.fit(data, weights_init=WEIGHTS, fixed={"weights": [0]})
    assert quick.weights_[0] == pytest.approx(WEIGHTS[0], rel=1e-12)
    assert quick.lower_bound_ > model.lower_bound_ - 1e-3
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert digest(again.state_) == digest(model.state_)
    again.set_params(warm_start=True, max_iter=5).fit(data)
    assert_allclose(again.fitted_array("weights_"), WEIGHTS, rtol=1e-12)


def test_fits_of_any_family_are_gone_on_with(
    family: Row, synchronous: None, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", family.rows(), 150)
    options: dict[str, Any] = {"fixed": {"weights"}, "tol": 1e-9, "max_iter": 8}
    straight = family.fit(stored, **options)
    with pytest.raises(StoppedError):
        family.fit(stored, **options, checkpoint=tmp_path / "k", callbacks=[StopAfter(20)])
    resumed = family.fit(stored, **options, checkpoint=tmp_path / "k")
    assert digest(resumed.state_) == digest(straight.state_)


COUNTS = np.random.default_rng(4).poisson(RATES[np.arange(N) % K])


def test_rates_are_held() -> None:
    start, fixed = RATES + 0.5, {"rates": [1]}
    options: dict[str, Any] = {"rates_init": start, "weights_init": WEIGHTS, "algorithm": "em"}
    model = PoissonMixture(K, fixed=fixed, max_iter=1, **options).fit(COUNTS)
    log_p = np.asarray(stats.poisson.logpmf(COUNTS[:, None], start))
    p = np.exp(log_p.sum(axis=2)) * WEIGHTS
    r = p / p.sum(axis=1, keepdims=True)
    expected = r.T @ COUNTS / r.sum(axis=0)[:, None]
    expected[1] = start[1]
    assert_allclose(model.rates_, expected, rtol=1e-9)
    assert_allclose(model.weights_, r.mean(axis=0), rtol=1e-9)
    model = PoissonMixture(K, fixed=fixed, tol=1e-9, max_iter=200, **options).fit(COUNTS)
    assert (np.diff(model.lower_bounds_) >= -1e-12).all()
    penalty = model.bic(COUNTS) + 2 * N * model.score(COUNTS)
    assert penalty == pytest.approx((K - 1 + 2 * 3) * np.log(N), abs=1e-6)
    every = PoissonMixture(K, rates_init=start, fixed={"rates"}, random_state=0).fit(COUNTS)
    assert_allclose(every.rates_, start, rtol=1e-12)
    assert every.converged_


def test_rates_that_are_held_are_in_files(tmp_path: Path) -> None:
    fixed = {"rates": [0], "weights": None}
    model = PoissonMixture(K, rates_init=RATES, fixed=fixed, max_iter=2).fit(COUNTS)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert_array_equal(again.rates_init, RATES)
    again.set_params(warm_start=True, max_iter=100).fit(COUNTS)
    assert_allclose(again.fitted_array("rates_")[0], RATES[0], rtol=1e-12)
    assert_allclose(again.fitted_array("weights_"), np.full(K, 1 / K), rtol=1e-12)
    assert again.lower_bound_ > model.lower_bound_


@pytest.mark.parametrize("df", [None, 4.0])
@pytest.mark.parametrize("kind", ["full", "tied"])
def test_locations_are_held(kind: str, df: float | None) -> None:
    data = X + 0.3 * np.random.default_rng(3).standard_t(2, X.shape)
    options: dict[str, Any] = {
        "covariance_type": kind, "means_init": MEANS, "df": df, "reg_covar": 0, "random_state": 0,
        "fixed": {"means": [0, 2]},
    }  # fmt: skip
    plain = StudentTMixture(K, algorithm="em", tol=1e-7, max_iter=300, **options).fit(data)
    assert (np.diff(plain.lower_bounds_) >= -1e-12).all()
    quick = StudentTMixture(K, tol=1e-8, **options).fit(data)
    assert quick.lower_bound_ > plain.lower_bound_ - 1e-5
    for model in (plain, quick):
        assert_allclose(model.means_[[0, 2]], MEANS[[0, 2]], rtol=1e-12)
        matrices = 3 * K if kind == "full" else 3
        free = K - 1 + D + matrices + (K if df is None else 0)
        assert model.state_.result.n_parameters == free


def test_scales_are_those_about_locations_that_are_held() -> None:
    options: dict[str, Any] = {"df": 4.0, "reg_covar": 0, "algorithm": "em", "random_state": 0}
    start = StudentTMixture(1, means_init=MEANS[1:2], max_iter=0, **options).fit(X)
    model = StudentTMixture(1, means_init=MEANS[1:2], fixed={"means"}, max_iter=1, **options)
    model.fit(X)
    apart = X - MEANS[1]
    squares = np.einsum("ni,ij,nj->n", apart, np.linalg.inv(start.scales_[0]), apart)
    u = (4 + D) / (4 + squares)
    # Kent, Tyler and Vardi (1994).
    assert_allclose(model.scales_[0], (apart.T * u) @ apart / u.sum(), rtol=1e-8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoissonMixture(K, fixed={"rates"}), "give them by rates_init"),
        (lambda: PoissonMixture(K, fixed={"means"}), "expected names of weights, rates"),
        (
            # No option of another family is named.
            lambda: PoissonMixture(K, rates_init=RATES[:2]),
            r"rates_init has shape .*\) for the components and columns of this fit$",
        ),
        (lambda: PoissonMixture(K, rates_init=-RATES), "rates_init holds -14: expected rates"),
        (lambda: ExponentialMixture(K, fixed={"scales"}), "expected names of weights, such as"),
        (lambda: StudentTMixture(K, fixed={"scales"}), "expected names of weights, means"),
        (lambda: StudentTMixture(K, fixed={"means"}), "give them by means_init"),
        (lambda: ExponentialMixture(K, fixed={"weights": [1]}), "give all weights"),
    ],
)
def test_other_families_refuse_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().fit(COUNTS + 1)


def test_a_file_that_holds_no_parameter_is_refused() -> None:
    model = PoissonMixture(K, fixed={"weights"}, max_iter=1).fit(COUNTS)
    held: Any = model.state_.result
    for parts in ((("rates", (K,)),), (("means", (0,)),)):
        state = replace(model.state_, result=replace(held, held=Held(parts)))
        with pytest.raises(ValueError, match="held"):
            state.validate()


def test_a_shell_holds_the_weights_of_other_families(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", COUNTS, 150)
    told = ["fit", str(tmp_path / "x.zarr"), "-k", "3", "-o", str(tmp_path / "m.npz")]
    found = CliRunner().invoke(main, [*told, "--family", "poisson", "--fixed", "weights"])
    assert found.exit_code == 0, found.output
    weights = load(tmp_path / "m.npz").fitted_array("weights_")
    assert_allclose(weights, np.full(K, 1 / K), rtol=1e-12)
    refused = CliRunner().invoke(
        main, [*told, "--family", "kmeans", "--fixed", "weights", "--overwrite"]
    )
    assert refused.exit_code == 2
    assert "--fixed" in refused.output
