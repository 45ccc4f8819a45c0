"""Gaussian mixtures of rows whose noise is known: formulas, astroML's values, laws, any data."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import KINDS, write_zarr
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from test_family_table import StopAfter, StoppedError

from dask_em import GaussianMixture, KMeans, PoissonMixture, load, select
from dask_em.backends.serial import SerialBackend
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.family import Family
from dask_em.core.formula import NumpyOperators
from dask_em.core.moments import Moments
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.open import as_source, noise_beside
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError, UsageError
from dask_em.families.gaussian.noisy import GaussianNoisy
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.testing.families import FamilyTests

N, D, K = 600, 3, 2
LOWER = np.tril_indices(D)

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

WEIGHTS = np.array([0.6, 0.4])
MEANS = np.array([[0.0, 0.0, 0.0], [4.0, -2.0, 1.0]])
COVARIANCES = np.array(
    [
        [[1.0, 0.8, 0.0], [0.8, 1.0, 0.3], [0.0, 0.3, 0.5]],
        [[0.4, 0.0, 0.2], [0.0, 2.0, -0.5], [0.2, -0.5, 1.0]],
    ]
)


@cache
def rows(n: int = N, seed: int = 0) -> tuple[Array, Array, Array]:
    """Rows with their noise, its variances in three columns of four, and the rows without it."""
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < WEIGHTS[1]).astype(int)
    factors = np.linalg.cholesky(COVARIANCES)
    clean = MEANS[y] + np.einsum("nij,nj->ni", factors[y], rng.normal(size=(n, D)))
    noise = rng.gamma(1.5, 0.8, size=(n, D))
    noise[::5, 1] = 0.0
    return clean + np.sqrt(noise) * rng.normal(size=(n, D)), noise, clean


@cache
def covariances(seed: int = 1) -> Array:
    """A covariance of the noise of each row."""
    A = np.random.default_rng(seed).normal(size=(N, D, D))
    return 0.3 * A @ A.transpose(0, 2, 1)


X, VARIANCES, CLEAN = rows()
MATRICES = covariances()
NOISE = {"variances": VARIANCES, "covariances": MATRICES, "one": np.tile(VARIANCES[2], (N, 1))}


def matrices_of(noise: Array) -> Array:
    return noise if noise.ndim == 3 else noise[:, :, None] * np.eye(D)


def beside(X: Array, noise: Array) -> Array:
    """Rows as passes take them."""
    return np.hstack([X, noise if noise.ndim == 2 else noise[:, *LOWER]])


def fit(data: Any = X, S: Any = VARIANCES, k: int = K, **options: Any) -> GaussianMixture:
    weights = options.pop("sample_weight", None)
    options = {"reg_covar": 0, "tol": 1e-8, "random_state": 0, "sample_size": 300, **options}
    return GaussianMixture(k, **options).fit(data, sample_weight=weights, noise_covariance=S)


def em(data: Any = X, S: Any = VARIANCES, max_iter: int = 2, **options: Any) -> GaussianMixture:
    """Fit by plain EM from one start, whatever the chunks."""
    start: dict[str, Any] = {"means_init": MEANS + 0.5, "weights_init": [0.5, 0.5]}
    start["precisions_init"] = np.stack([np.eye(D)] * K)
    return fit(data, S, algorithm="em", max_iter=max_iter, **start, **options)


# -- the mathematics --------------------------------------------------------------------------


def family_of(kind: str, noise: Array, k: int = K, **options: Any) -> GaussianNoisy:
    """Components a step away from any start, of their own covariances."""
    made = GaussianOptions(kind, **options).of_noisy_rows().of_data(Moments.of(X), k)
    W, resp = beside(X, noise), np.random.default_rng(2).dirichlet(np.ones(k), N)
    near = made.near(W, resp)
    found, _ = near.maximize(resp.sum(axis=0), near.sufficient_statistics(W, resp))
    assert isinstance(found, GaussianNoisy)
    return found


def plainly(means: Array, spreads: Array, S: Array, resp: Array) -> tuple[Array, ...]:
    """Log-densities and expected sums without noise, row by row, as the paper has them."""
    log_prob = np.zeros(resp.shape)
    first, second = np.zeros_like(means), np.zeros_like(spreads)
    for n, k in np.ndindex(*resp.shape):
        T = spreads[k] + S[n]
        log_prob[n, k] = stats.multivariate_normal(means[k], T).logpdf(X[n])
        gain = spreads[k] @ np.linalg.inv(T)
        b = means[k] + gain @ (X[n] - means[k])
        first[k] += resp[n, k] * b
        second[k] += resp[n, k] * (np.outer(b, b) + spreads[k] - gain @ spreads[k])
    return log_prob, first, second


@pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE)
@pytest.mark.parametrize("kind", KINDS)
def test_one_iteration_is_the_paper_s(kind: str, noise: Array) -> None:
    family, resp = family_of(kind, noise), np.random.default_rng(3).dirichlet(np.ones(K), N)
    resp[::3, 0] = 0.0
    means, structure = family.data_coordinates()
    W = beside(X, noise)
    spreads = np.asarray(structure.full(K, D))
    log_prob, first, second = plainly(means, spreads, matrices_of(noise), resp)
    assert_allclose(family.log_prob(W), log_prob, rtol=1e-9, atol=1e-9)
    total = resp.sum(axis=0)
    after, collapsed = family.maximize(total, family.sufficient_statistics(W, resp))
    assert not list(collapsed)
    expected = first / total[:, None]
    now, found = after.data_coordinates()
    assert_allclose(now, expected, rtol=1e-8, atol=1e-9)
    within = second - total[:, None, None] * expected[:, :, None] * expected[:, None, :]
    want = within / total[:, None, None]
    if kind == "tied":
        want = np.repeat(within.sum(axis=0, keepdims=True) / total.sum(), K, axis=0)
    elif kind != "full":
        want = np.stack([np.diag(np.diagonal(one)) for one in want])
    if kind == "spherical":
        want = np.stack([np.trace(one) / D * np.eye(D) for one in want])
    assert_allclose(found.full(K, D), want, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_ways_of_computing_agree(kind: str) -> None:
    resp = np.random.default_rng(3).dirichlet(np.ones(K), N)
    for noise in (VARIANCES, NOISE["one"]):
        family = family_of(kind, noise)
        ways = [beside(X, noise), beside(X, matrices_of(noise))]
        found = []
        for W in ways:
            for side_by_side in (1, 2**15):
                changed: dict[str, object] = {"side_by_side": side_by_side, "least_rows": 5}
                with use_tuning(tuning().with_changes(noisy_rows=changed)):
                    sums = family.sufficient_statistics(W, resp)
                    found.append([sums.first, sums.scatter, family.log_prob(W)])
        for others in found[1:]:
            for one, other in zip(found[0], others, strict=True):
                assert_allclose(one, other, rtol=1e-9, atol=1e-9)


class TestVariances(FamilyTests):
    kind, noise = "full", "variances"

    def family(self) -> Family[Any]:
        return family_of(self.kind, NOISE[self.noise])

    def rows(self) -> Array:
        return beside(X, NOISE[self.noise])

    def test_a_formula_is_the_density(self) -> None:
        # Programs of other languages see rows without noise.
        family = self.family()
        formula = family.formula(NumpyOperators(), X)
        common = 0.0 if formula.common is None else formula.common()
        assert_allclose(formula.components + common, family.log_prob(X), rtol=1e-7, atol=1e-7)

    def test_draws_have_the_moments(self) -> None:
        # Draws are without noise.
        draws = self.family().sample(0, 4000, np.random.default_rng(1))
        means, variances = self.family().moments()
        assert_allclose(draws.mean(axis=0), means[0], atol=6 * np.sqrt(variances[0].max() / 4000))

    def test_unconstrained_parameters_come_back(self) -> None:
        if self.kind != "EVE":
            super().test_unconstrained_parameters_come_back()


class TestCovariances(TestVariances):
    noise = "covariances"


class TestDiagonal(TestVariances):
    kind = "diag"


@pytest.mark.slow
class TestOther(TestVariances):
    kind, noise = "EVE", "covariances"


class TestPrior(TestCovariances):
    def family(self) -> Family[Any]:
        return family_of("full", MATRICES, prior="conjugate")

    # The M-step raises the posterior density.
    test_an_m_step_is_never_worse = None  # type: ignore[assignment]
    test_plain_em_never_gets_worse = None  # type: ignore[assignment]
    test_the_m_step_of_draws_finds_the_component = None  # type: ignore[assignment]
    test_a_component_without_rows_is_kept_or_put_where_some_are = None  # type: ignore[assignment]


# -- beside another program -------------------------------------------------------------------


def small() -> tuple[Array, Array]:
    rng = np.random.default_rng(7)
    y = np.repeat([0, 1], [90, 60])
    clean = rng.normal(size=(150, 2)) @ np.array([[1.0, 0.8], [0.0, 0.6]])
    clean += np.array([[0.0, 0.0], [3.0, -1.0]])[y]
    A = 0.8 * rng.normal(size=(150, 2, 2))
    return clean + np.einsum("nij,nj->ni", A, rng.normal(size=(150, 2))), A @ A.transpose(0, 2, 1)


# astroML 1.0.2.post1: XDGMM(2) with alpha, mu and V set to the start of below; logL(X, S) there,
# the parameters after one _EMstep(X, S), and after 5001 of them.
AT_START = -605.4502033615463
AFTER_ONE: dict[str, Any] = {
    "weights_": [0.40039778312221586, 0.599602216877784],
    "means_": [
        [-0.3815767295077407, 0.004151065272390176],
        [2.014508082847553, -0.44602706342220205],
    ],
    "covariances_": [
        [[0.9175025494184776, 0.09352385107735767], [0.09352385107735767, 0.853967262039064]],
        [[2.13926306263496, 0.4419071044796004], [0.4419071044796004, 1.1282515879175095]],
    ],
}
AT_END = -547.4865387790278
COVARIANCES_AT_END = [
    [[1.0166533072788877, 0.5463993723033728], [0.5463993723033728, 0.5221413748987017]],
    [[1.1684794363343998, 1.0255589447590305], [1.0255589447590305, 1.0131413898095571]],
]


def test_astroml_s_iterations_and_end_are_ours() -> None:
    data, S = small()
    start: dict[str, Any] = {
        "weights_init": [0.5, 0.5],
        "means_init": [[-0.5, 0.5], [2.0, 0.0]],
        "precisions_init": np.linalg.inv(np.array([np.eye(2), [[2.0, 0.5], [0.5, 1.0]]])),
    }
    plain = {"algorithm": "em", "reg_covar": 0, **start}
    one = GaussianMixture(2, max_iter=1, **plain).fit(data, noise_covariance=S)
    assert 150 * one.lower_bound_ == pytest.approx(AT_START, rel=1e-11)
    for name, theirs in AFTER_ONE.items():
        assert_allclose(getattr(one, name), theirs, rtol=1e-8)
    last = GaussianMixture(2, max_iter=3000, tol=1e-13, **plain).fit(data, noise_covariance=S)
    assert 150 * last.lower_bound_ == pytest.approx(AT_END, rel=1e-9)
    assert_allclose(last.covariances_, COVARIANCES_AT_END, rtol=1e-4)
    quick = GaussianMixture(2, reg_covar=0, tol=1e-10, **start).fit(data, noise_covariance=S)
    assert 150 * quick.lower_bound_ == pytest.approx(AT_END, rel=1e-9)
    assert quick.n_reads_ < last.n_reads_ / 4
    found = GaussianMixture(2, reg_covar=0, tol=1e-8, random_state=0).fit(data, noise_covariance=S)
    assert 150 * found.lower_bound_ > AT_END - 1e-4


# -- what it is for ---------------------------------------------------------------------------


def test_covariances_are_those_without_noise() -> None:
    data, noise, _ = rows(6000, 5)
    model = fit(data, noise, tol=1e-6, sample_size=None)
    order = np.argsort(model.means_[:, 0])
    # A few standard errors of 2400 rows, of which noise is half.
    assert_allclose(model.covariances_[order], COVARIANCES, atol=0.2)
    assert_allclose(model.means_[order], MEANS, atol=0.15)
    plain = GaussianMixture(K, random_state=0).fit(data)
    wider = np.diagonal(plain.covariances_[np.argsort(plain.means_[:, 0])], axis1=1, axis2=2)
    assert (wider - np.diagonal(COVARIANCES, axis1=1, axis2=2)).min() > 0.6
    assert model.lower_bound_ > plain.lower_bound_
    assert model.n_reads_ < 12


def test_without_noise_it_is_the_plain_fit() -> None:
    plain = GaussianMixture(K, random_state=0).fit(X)
    for zeros in (np.zeros_like(X), np.zeros((N, D, D)), np.zeros(D)):
        found = GaussianMixture(K, random_state=0).fit(X, noise_covariance=zeros)
        for name in ("weights_", "means_", "covariances_", "lower_bounds_"):
            assert_array_equal(getattr(found, name), getattr(plain, name))
        assert_array_equal(plain.score_samples(X, noise_covariance=zeros), plain.score_samples(X))
    little = GaussianMixture(K, random_state=0).fit(X, noise_covariance=1e-13 * VARIANCES)
    assert_allclose(little.covariances_, plain.covariances_, rtol=1e-8, atol=1e-9)
    # A block of rows of which some have noise.
    some = np.where(np.arange(N)[:, None] % 2, VARIANCES, 0.0)
    density = plain.score_samples(X, noise_covariance=some)
    assert_allclose(density[::2], plain.score_samples(X)[::2], rtol=1e-11)


def test_noise_of_any_size_keeps_digits() -> None:
    widths = np.array([1e-9, 1.0, 1e9])
    noise = VARIANCES * widths**2
    noise[::3] = 0.0
    noise[1::3] *= 1e12
    model = fit(X * widths, noise, algorithm="em", max_iter=5)
    other = fit(X, noise / widths**2, algorithm="em", max_iter=5)
    assert_allclose(model.means_ / widths, other.means_, rtol=1e-6, atol=1e-6)
    assert np.isfinite(model.covariances_).all()


# -- laws of a fit ----------------------------------------------------------------------------


SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("tied", "spherical", "EVE")]


@pytest.mark.parametrize("kind", ["full", "diag", *SLOW])
def test_plain_em_never_falls_and_acceleration_ends_no_lower(kind: str) -> None:
    plain = fit(covariance_type=kind, algorithm="em", max_iter=150, tol=1e-9)
    bounds = plain.lower_bounds_
    assert (np.diff(bounds) >= -1e-9 * np.abs(bounds[0])).all()
    quick = fit(covariance_type=kind, tol=1e-9)
    assert quick.lower_bound_ > plain.lower_bound_ - 1e-6
    assert quick.n_iter_ <= plain.n_iter_


def test_chunks_do_not_matter() -> None:
    whole = em(S=MATRICES, max_iter=4)
    for chunk in (53, 401):
        data = da.from_array(X, chunks=(chunk, D)) + 0
        found = em(data, MATRICES, max_iter=4)
        assert_allclose(found.means_, whole.means_, rtol=1e-9)
        assert_allclose(found.covariances_, whole.covariances_, rtol=1e-8, atol=1e-12)


def test_a_weight_is_a_row_repeated() -> None:
    weight = np.random.default_rng(2).integers(0, 4, N)
    one = em(sample_weight=weight, max_iter=3)
    other = em(np.repeat(X, weight, axis=0), np.repeat(VARIANCES, weight, axis=0), max_iter=3)
    assert one.lower_bound_ == pytest.approx(other.lower_bound_, rel=1e-10)
    assert_allclose(one.covariances_, other.covariances_, rtol=1e-8, atol=1e-10)


def test_the_order_of_rows_and_units_do_not_matter() -> None:
    model, order = em(max_iter=5), np.random.default_rng(1).permutation(N)
    turned = em(X[order], VARIANCES[order], max_iter=5)
    assert_allclose(turned.covariances_, model.covariances_, rtol=1e-9)
    start: dict[str, Any] = {"means_init": 100 * (MEANS + 0.5) + 1e8, "weights_init": [0.5, 0.5]}
    start["precisions_init"] = np.stack([1e-4 * np.eye(D)] * K)
    data = 100 * ((X + 1e8) - 1e8) + 1e8
    moved = fit(data, 1e4 * VARIANCES, algorithm="em", max_iter=5, **start)
    assert_allclose((moved.means_ - 1e8) / 100, model.means_, atol=1e-5)
    assert_allclose(moved.covariances_ / 1e4, model.covariances_, atol=1e-4)
    assert moved.lower_bound_ + D * np.log(100) == pytest.approx(model.lower_bound_, abs=1e-6)


def test_a_resumed_fit_has_the_bits_of_a_straight_one(synchronous: None, tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 100)
    of_rows = write_zarr(tmp_path / "s.zarr", MATRICES, 333)
    straight = fit(stored, MATRICES, max_iter=4)
    assert digest(fit(stored, of_rows, max_iter=4).state_) == digest(straight.state_)
    for parts in (4, 14):
        kept = tmp_path / f"kept{parts}"
        with pytest.raises(StoppedError):
            fit(stored, of_rows, max_iter=4, checkpoint=kept, callbacks=[StopAfter(parts)])
        resumed = fit(stored, of_rows, max_iter=4, checkpoint=kept)
        assert digest(resumed.state_) == digest(straight.state_)


def test_the_fit_of_other_noise_is_not_gone_on_with(tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 100)
    of_rows = write_zarr(tmp_path / "s.zarr", VARIANCES, 100)
    with pytest.raises(StoppedError):
        fit(stored, of_rows, checkpoint=tmp_path / "kept", callbacks=[StopAfter(14)])
    with pytest.raises(DataError, match="noise"):
        fit(stored, None, checkpoint=tmp_path / "kept")
    of_rows[0] = 1.0
    with pytest.raises(DataError, match="noise"):
        fit(stored, of_rows, checkpoint=tmp_path / "kept")


def test_workers_give_the_bits_of_threads(two_workers: Client, tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 150)
    of_rows = write_zarr(tmp_path / "s.zarr", MATRICES, 99)
    blocks = da.from_array(X, chunks=(150, D)) + 0
    here = fit(stored, MATRICES, max_iter=4)
    answers = here.score_samples(X, noise_covariance=MATRICES)
    with two_workers.as_current():
        there = [fit(stored, S, max_iter=4) for S in (of_rows, MATRICES)]
        lazy = em(blocks, da.from_array(MATRICES))
        for data, S in ((stored, of_rows), (stored, MATRICES), (blocks, MATRICES)):
            found = here.score_samples(data, noise_covariance=S).compute()
            assert_allclose(found, answers, rtol=1e-10)
    assert [digest(model.state_) for model in there] == [digest(here.state_)] * 2
    assert_allclose(lazy.means_, em(S=MATRICES).means_, rtol=1e-9)


def test_engines_agree() -> None:
    pytest.importorskip("numba", reason="the extra `fast` is not installed")
    for S in (VARIANCES, MATRICES):
        found = []
        for fast in (False, True):
            with dask.config.set({"dask_em.fast": fast}):
                found.append(em(S=S, max_iter=4))
        assert_allclose(found[0].covariances_, found[1].covariances_, rtol=1e-8, atol=1e-10)


# -- any data ---------------------------------------------------------------------------------


@pytest.mark.parametrize("S", [VARIANCES, MATRICES], ids=["variances", "covariances"])
def test_any_kind_of_noise_goes_with_any_kind_of_rows(S: Array, tmp_path: Path) -> None:
    model = em(S=S)
    density = model.score_samples(X, noise_covariance=S)
    stored, of_rows = str(tmp_path / "x.zarr"), str(tmp_path / "s.zarr")
    write_zarr(stored, X, 170)
    write_zarr(of_rows, S, 333)
    np.save(tmp_path / "s.npy", S)
    np.save(tmp_path / "f.npy", np.asfortranarray(S))
    np.save(tmp_path / "x.npy", X)
    lazy = da.from_array(S, chunks=(77, 2, 1)[: S.ndim])
    blocks = da.from_array(X, chunks=(123, D)) + 0
    kinds = [S, of_rows, str(tmp_path / "s.npy"), str(tmp_path / "f.npy"), lazy, zarr.array(S)]
    for data in (X, stored, blocks, str(tmp_path / "x.npy")):
        for given in kinds if data is stored else kinds[:-1:2]:
            found = em(data, given)
            assert_allclose(found.means_, model.means_, rtol=1e-9)
            assert_allclose(
                np.asarray(model.score_samples(data, noise_covariance=given)), density, rtol=1e-9
            )
    assert_allclose(
        np.asarray(model.predict_proba(stored, noise_covariance=of_rows)),
        model.predict_proba(X, noise_covariance=S), rtol=1e-9, atol=1e-12,
    )  # fmt: skip
    unknown = blocks[blocks[:, 0] > -1e9]
    found = em(unknown, da.from_array(S, chunks=(123, *S.shape[1:])))
    assert_allclose(found.means_, model.means_, rtol=1e-9)


def test_one_noise_for_all_rows(tmp_path: Path) -> None:
    same = np.tile(VARIANCES[2], (N, 1))
    model = em(S=same, max_iter=3)
    stored = write_zarr(tmp_path / "x.zarr", X, 170)
    blocks = da.from_array(X, chunks=(123, D)) + 0
    for data in (X, stored, blocks, blocks[blocks[:, 0] > -1e9]):
        for given in (VARIANCES[2], np.diag(VARIANCES[2]), VARIANCES[2].tolist()):
            found = em(data, given, max_iter=3)
            assert_allclose(found.covariances_, model.covariances_, rtol=1e-8, atol=1e-12)
            answers = np.asarray(model.predict(data, noise_covariance=given))
            assert_array_equal(answers, model.predict(X, noise_covariance=same))


def test_noise_may_be_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    model = em()
    names, variances = ["a", "b", "c"], ["va", "vb", "vc"]
    table = pandas.DataFrame(np.hstack([X, VARIANCES]), columns=[*names, *variances])
    table.to_parquet(tmp_path / "t.parquet", row_group_size=170)
    table[variances].to_parquet(tmp_path / "s.parquet", row_group_size=99)
    lazy = pytest.importorskip("dask.dataframe").from_pandas(table, npartitions=3)
    path = str(tmp_path / "t.parquet")
    for data in (table, path, lazy):
        for given in (variances, "va,vb,vc"):
            found = em(data, given)
            assert_allclose(found.means_, model.means_, rtol=1e-9)
            assert [*found.feature_names_in_] == names
            answers = np.asarray(found.predict(data, noise_covariance=given))
            assert_array_equal(answers, model.predict(X, noise_covariance=VARIANCES))
    for given in (table[variances], str(tmp_path / "s.parquet"), lazy[variances]):
        found = em(table[names], given)
        assert_allclose(found.means_, model.means_, rtol=1e-9)


def test_noise_of_arrays_with_coordinates() -> None:
    xarray = pytest.importorskip("xarray")
    model = em()
    data = xarray.DataArray(X, dims=("star", "band"), coords={"star": np.arange(N)})
    S = xarray.DataArray(MATRICES, dims=("star", "band", "other"), coords={"star": np.arange(N)})
    found = model.score_samples(data, noise_covariance=S)
    assert_allclose(found, model.score_samples(X, noise_covariance=MATRICES))
    assert found.dims == ("star",)
    with pytest.raises(DataError, match="noise_covariance has other coordinates"):
        fit(data, S[::-1])


@pytest.mark.filterwarnings("ignore:.*left out")
def test_noise_follows_rows_that_are_left_out(tmp_path: Path) -> None:
    holes, noise = X.copy(), VARIANCES.copy()
    holes[::7, 1] = np.nan
    noise[3::50, 0] = np.nan
    whole = np.isfinite(holes).all(axis=1) & np.isfinite(noise).all(axis=1)
    expected = em(holes[whole], noise[whole])
    stored = write_zarr(tmp_path / "x.zarr", holes, 170)
    for data in (holes, stored, da.from_array(holes, chunks=(123, D)) + 0):
        found = em(data, noise, nonfinite="drop")
        assert_allclose(found.means_, expected.means_, rtol=1e-9)
        assert found.n_dropped_ == (~whole).sum()
    answers = found.predict(holes, noise_covariance=noise)
    assert_array_equal(answers == -1, ~whole)


def test_blocks_one_by_one_are_those_of_a_graph() -> None:
    model = em(S=MATRICES)
    source = as_source(da.from_array(X, chunks=(123, D)) + 0)
    source = noise_beside(source, X, MATRICES, ReadOptions())
    found = SerialBackend().map_reduce(source, model.state_.mixture)
    assert found.mean_log_likelihood == pytest.approx(model.lower_bound_, rel=1e-9)
    assert isinstance(model.state_.mixture.components, GaussianNoisy)


def test_memory_that_noise_takes_is_planned(tmp_path: Path) -> None:
    source = as_source(write_zarr(tmp_path / "x.zarr", X, 100))
    for S in (VARIANCES, MATRICES):
        known = noise_beside(source, X, S, ReadOptions())
        assert known.shipped_bytes == S.nbytes
        assert known.held_bytes >= source.held_bytes + 8 * source.chunk_rows * (D + S[0].size)


# -- options ----------------------------------------------------------------------------------


def test_parts_that_are_held_stay() -> None:
    model = fit(fixed={"means"}, means_init=MEANS)
    assert_allclose(model.means_, MEANS, atol=1e-12)
    assert_allclose(model.covariances_, COVARIANCES, atol=0.6)


def test_labels_stand_beside_noise() -> None:
    labels = np.where(np.arange(N) % 2, CLEAN[:, 0] > 2, -1)
    model = GaussianMixture(K, reg_covar=0, random_state=0).fit(
        X, labels_init=labels, labels_fixed=True, noise_covariance=VARIANCES
    )
    assert model.provenance_["labels"]["rows"] == (labels >= 0).sum()
    assert_allclose(model.means_, MEANS, atol=0.5)


def test_a_warm_start_takes_other_noise() -> None:
    model = fit(warm_start=True, tol=1e-6)
    reached = model.lower_bound_
    again = model.fit(X, noise_covariance=VARIANCES)
    assert again.lower_bound_ >= reached - 1e-9
    plain = GaussianMixture(K, reg_covar=0, tol=1e-6, random_state=0).fit(X).lower_bound_
    assert model.fit(X).lower_bound_ > plain - 1e-3


def test_models_of_several_k_share_passes() -> None:
    found = select(
        X, [1, 2], ["full", "diag"], noise_covariance=MATRICES, keep_all=True, random_state=0,
        exhaustive=True, reg_covar=0, tol=1e-5, n_init=1,
    )  # fmt: skip
    alone = fit(S=MATRICES, tol=1e-5, sample_size=None)
    (same,) = (m for m in found.models if m.n_components == 2 and m.covariance_type == "full")
    assert same.lower_bound_ == pytest.approx(alone.lower_bound_, abs=1e-4)
    held = select(X, [1, 2], noise_covariance=MATRICES, random_state=0, criterion="holdout",
                  holdout=0.2)  # fmt: skip
    assert held.best.n_components == 2
    assert held.best.provenance_["noise_covariance"] == "covariances"


def test_a_model_file_says_that_noise_was_known(tmp_path: Path) -> None:
    model = em(max_iter=4)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert isinstance(again, GaussianMixture)
    assert again.provenance_["noise_covariance"] == "variances"
    assert digest(again.state_) == digest(model.state_)
    # Without noise answers are those of rows that have none.
    normals = map(stats.multivariate_normal, model.means_, model.covariances_)
    density = np.stack([normal.pdf(CLEAN) for normal in normals], axis=1) @ model.weights_
    assert_allclose(again.score_samples(CLEAN), np.log(density), rtol=1e-8)
    told = again.score(X, noise_covariance=VARIANCES)
    assert told == pytest.approx(model.score(X, noise_covariance=VARIANCES), rel=1e-10)
    assert model.lower_bound_ < told < model.lower_bound_ + 0.1
    assert again.bic(X, noise_covariance=VARIANCES) == pytest.approx(
        again.criteria(X, noise_covariance=VARIANCES)["bic"]
    )


Made = Callable[[], object]


def changed(S: Array, row: int, column: Any, value: float) -> Array:
    found = S.copy()
    found[row, *column] = value
    return found


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: fit(S=VARIANCES[:-1]), "noise_covariance has 599 entries and X has 600 rows"),
        (lambda: fit(S=VARIANCES[:, :2]), r"has the shape \(n, 2\): expected variances of the 3"),
        (lambda: fit(S=MATRICES[:, :1, :1]), r"has the shape \(n, 1, 1\)"),
        (lambda: fit(S=MATRICES[:, :2]), r"has the shape \(n, 2, 3\)"),
        (lambda: fit(S=np.zeros((N, D, D, 1))), "noise_covariance must be"),
        (
            lambda: fit(S=changed(VARIANCES, 500, (1,), -2.0)),
            "noise_covariance is -2 in column 1 of row 500: expected variances",
        ),
        (
            lambda: fit(S=changed(VARIANCES, 500, (1,), np.nan)),
            "noise_covariance is nan in column 1 of row 500: expected finite",
        ),
        (
            lambda: fit(S=changed(MATRICES, 77, (0, 1), np.inf)),
            "noise_covariance is inf in columns 0 and 1 of row 77",
        ),
        (
            lambda: fit(S=changed(MATRICES, 77, (0, 1), 3.0)),
            "noise_covariance of row 77 is .* from its mirror image",
        ),
        (
            lambda: fit(S=changed(MATRICES, 77, (1, 1), -3.0)),
            "noise_covariance of row 77 has the eigenvalue -",
        ),
        (
            lambda: fit(da.from_array(X, chunks=(99, D)) + 0, changed(VARIANCES, 500, (1,), -2.0)),
            "noise_covariance is -2 in column 1 of row 5 of block 5",
        ),
        (lambda: fit(S=np.full(D, -1.0)), "in column 0 of every row"),
        (lambda: fit(S="va,vb"), "the labels or noise 'va', 'vb' are no path"),
        (lambda: fit(missing_values="mar"), "rows of known noise have no missing values"),
        (lambda: fit(device="cuda"), "rows of known noise are computed on the CPU"),
        (
            lambda: PoissonMixture(2).fit(np.abs(X).round(), noise_covariance=VARIANCES),
            "Poisson components are not told apart from the noise of rows",
        ),
        (lambda: KMeans(2).fit(X, noise_covariance=VARIANCES), "noise_covariance: "),
        (
            lambda: em().set_params(missing_values="mar").predict(X, noise_covariance=VARIANCES),
            "rows of known noise have no missing values",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(wrong: Made, message: str) -> None:
    with pytest.raises((ValueError, UsageError), match=message):
        wrong()


# -- in a shell -------------------------------------------------------------------------------


def test_a_shell_names_a_path_or_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    names = ["a", "b", "c", "va", "vb", "vc"]
    table = str(tmp_path / "t.parquet")
    pandas.DataFrame(np.hstack([X, VARIANCES]), columns=names).to_parquet(table)
    write_zarr(tmp_path / "x.zarr", X, 170)
    write_zarr(tmp_path / "s.zarr", VARIANCES, 400)
    expected = fit(tol=1e-6)
    stored = str(tmp_path / "x.zarr"), str(tmp_path / "s.zarr")
    for data, noise in ((table, "va,vb,vc"), stored):
        model, known = str(tmp_path / f"{len(noise)}.npz"), ["--noise-covariance", noise]
        run(
            "fit", data, "-k", "2", "-o", model, *known, "--reg-covar", "0", "--tol", "1e-6",
            "--seed", "0",
        )  # fmt: skip
        found = np.sort(load(model).fitted_array("means_"), axis=0)
        assert_allclose(found, np.sort(expected.means_, axis=0), rtol=1e-3, atol=1e-3)
        told = run("score", model, data, *known)
        assert told["log_likelihood"] == pytest.approx(expected.lower_bound_, abs=1e-4)
        answers = str(tmp_path / f"{len(noise)}.zarr")
        run("predict", model, data, answers, *known)
        labels = zarr.open_array(f"{answers}/labels", mode="r")[:]
        fitted = load(model)
        assert_array_equal(labels, np.asarray(fitted.predict(data, noise_covariance=noise)))
        planned, plain = (
            run("plan", data, "-k", "2", *more, "--workers", "1") for more in (known, [])
        )
        assert planned["worker_bytes"] > plain["worker_bytes"]
        assert planned["bytes_per_pass"] == X.nbytes + VARIANCES.nbytes
    told = CliRunner().invoke(main, ["inspect", model], catch_exceptions=False).output
    assert "noise    of each row known by its variances" in told


def run(*words: str) -> Any:
    found = CliRunner().invoke(main, [*words, "--json"], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)
