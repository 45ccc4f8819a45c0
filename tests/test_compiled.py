"""The compiled kernels of the extra `fast`, against long double, SciPy and the NumPy kernel."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from helpers import (
    HANG,
    add_up,
    assert_sums_close,
    blobs,
    gaussian_of,
    mixture_of,
    precisions_like,
    random_mixture,
    write_zarr,
)
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import draw_resp, evaluate, exact_statistics

from dask_em import GaussianMixture
from dask_em.core.engine import Engine
from dask_em.core.mixture import EStep, Mixture
from dask_em.core.responsibilities import NEGLIGIBLE, CompiledArithmetic, responsibilities
from dask_em.core.scoring import Answer, Predict, Score
from dask_em.core.tuning import tuning, use_tuning
from dask_em.families.gaussian.numpy_kernel import GaussianKernel

pytest.importorskip("numba", reason="the extra `fast` is not installed")

from dask_em.families.gaussian import simd
from dask_em.families.gaussian.compiled_kernel import CentredKernel, FeaturesKernel, pack_lower

NUMBA = Engine("numba")


@given(
    d=st.integers(1, 45),
    k=st.integers(1, 9),
    n=st.integers(1, 1500),
    dtype=st.sampled_from(["f8", "f4", "i4", "u1", "f2"]),
    dense=st.booleans(),
    seed=st.integers(0, 99),
)
def test_centred_gives_the_exact_sums(
    d: int, k: int, n: int, dtype: str, dense: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gaussian = gaussian_of(random_mixture("full", k, d, rng))
    X = np.abs(rng.normal(size=(n, d)) * 3).astype(dtype)
    resp = draw_resp(n, k, rng, dense)
    exact = exact_statistics(gaussian, X, resp)
    numpy_log_prob, _ = evaluate(GaussianKernel(gaussian, features_allowed=False), X, resp)
    log_prob, statistics = evaluate(CentredKernel(gaussian), X, resp)
    assert_sums_close(statistics, exact, rtol=1e-13)
    np.testing.assert_allclose(log_prob, numpy_log_prob, rtol=1e-12)
    log_prob, statistics = evaluate(CentredKernel(gaussian, np.float32), X, resp)
    assert_sums_close(statistics, exact, rtol=tuning().numerics.single_loss)
    np.testing.assert_allclose(log_prob, numpy_log_prob, rtol=tuning().numerics.single_loss)


@given(
    kind=st.sampled_from(["full", "diag"]),
    d=st.integers(1, 20),
    k=st.integers(1, 9),
    n=st.integers(1, 5000),
    dense=st.booleans(),
    seed=st.integers(0, 99),
)
def test_features_give_the_exact_sums(
    kind: str, d: int, k: int, n: int, dense: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    gaussian = gaussian_of(random_mixture(kind, k, d, rng))
    X = rng.normal(size=(n, d)) * 3
    resp = draw_resp(n, k, rng, dense)
    log_prob, statistics = evaluate(FeaturesKernel(gaussian), X, resp)
    assert gaussian.features_are_safe
    assert_sums_close(statistics, exact_statistics(gaussian, X, resp), rtol=1e-11)
    numpy_log_prob, _ = evaluate(GaussianKernel(gaussian, features_allowed=False), X, resp)
    np.testing.assert_allclose(log_prob, numpy_log_prob, rtol=tuning().numerics.allowed_loss)


def test_blocks_that_are_dense_and_blocks_that_are_not_add_up() -> None:
    rng = np.random.default_rng(5)
    k, d, n = 11, 30, 8000
    gaussian = gaussian_of(random_mixture("full", k, d, rng))
    X = rng.normal(size=(n, d)) * 3
    dense = rng.random(n) < np.where(np.arange(n) < n // 2, 1, 0.1)
    resp = np.where(dense[:, None], rng.dirichlet(np.ones(k), size=n), np.eye(k)[np.arange(n) % k])
    kernel = CentredKernel(gaussian)
    assert kernel.block_rows < n // 4
    _, statistics = evaluate(kernel, X, resp)
    assert_sums_close(statistics, exact_statistics(gaussian, X, resp), rtol=1e-11)


@pytest.mark.parametrize("d", [3, 30])
def test_collinear_columns_are_rotated_before_they_are_multiplied(d: int) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(1000, d)) + 1e6
    X[:, 2] = X[:, 0] + 1e-4 * X[:, 2]
    means, precisions = X[:3], precisions_like("full", 1.0, 3, d)
    gaussian = gaussian_of(mixture_of("full", means, precisions, X))
    assert gaussian.whitening.scale.ndim == 2
    resp = draw_resp(len(X), 3, rng, dense=True)
    expected = evaluate(GaussianKernel(gaussian, features_allowed=False), X, resp)
    actual = evaluate(CentredKernel(gaussian), X, resp)
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-9)
    assert_sums_close(actual[1], expected[1], rtol=1e-9)


def choice(kind: str, d: int, width: float, engine: Engine) -> tuple[type, np.dtype]:
    """Kernel and type of products for components of a width beside unit spread."""
    rng = np.random.default_rng(2)
    means = rng.normal(size=(4, d))
    X = means[rng.integers(0, 4, 500)] + width * rng.normal(size=(500, d))
    mixture = mixture_of(kind, means, precisions_like(kind, width**-2, 4, d), X)
    kernel = mixture.components.kernel(engine)
    return type(kernel), getattr(kernel, "dtype", np.dtype(float))


def test_the_kernel_is_chosen_by_columns_width_and_type() -> None:
    double, single = np.dtype("f8"), np.dtype("f4")
    assert choice("full", 3, 1.0, NUMBA) == (FeaturesKernel, double)
    assert choice("full", 3, 1e-5, NUMBA) == (CentredKernel, double)
    assert choice("full", 30, 1.0, NUMBA) == (CentredKernel, double)
    assert choice("full", 30, 1.0, Engine("numba", single=True)) == (CentredKernel, single)
    assert choice("full", 30, 1e-4, Engine("numba", single=True)) == (CentredKernel, double)
    assert choice("diag", 30, 1.0, NUMBA) == (FeaturesKernel, double)
    assert choice("diag", 30, 1e-5, NUMBA) == (GaussianKernel, double)
    assert choice("tied", 30, 1.0, NUMBA) == (GaussianKernel, double)


@pytest.mark.parametrize("width", [1.0, 1e-1, 1e-2])
def test_float32_loses_what_its_bound_states(width: float) -> None:
    rng = np.random.default_rng(3)
    d, k, n = 20, 4, 3000
    labels, means = rng.integers(0, k, n), rng.normal(size=(k, d))
    X = means[labels] + width * rng.normal(size=(n, d))
    gaussian = gaussian_of(mixture_of("full", means, precisions_like("full", width**-2, k, d), X))
    resp = np.eye(k)[labels]
    _, actual = evaluate(CentredKernel(gaussian, np.float32), X, resp)
    exact = exact_statistics(gaussian, X, resp)
    assert_sums_close(actual.scatter, exact.scatter, rtol=2 * gaussian.single_loss)


@given(k=st.integers(1, 20), b=st.integers(1, 300), scale=st.sampled_from([0.1, 10.0, 1e4]))
def test_softmax_is_numpy_s(k: int, b: int, scale: float) -> None:
    rng = np.random.default_rng(k)
    log_joint = rng.normal(size=(k, b)) * scale
    log_weights = np.log(rng.dirichlet(np.ones(k)))
    resp, log_prob = CompiledArithmetic(k, b).normalize(
        log_joint - log_weights[:, None], log_weights
    )
    expected, expected_log_prob = responsibilities(log_joint.copy())
    np.testing.assert_allclose(resp, expected, rtol=1e-12 * scale + 1e-13, atol=1e-25)
    np.testing.assert_allclose(log_prob, expected_log_prob, rtol=1e-14, atol=2e-14)
    single, log_prob32 = CompiledArithmetic(k, b).normalize(log_joint.astype("f4"), np.zeros(k))
    np.testing.assert_allclose(log_prob32, expected_log_prob, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(single.sum(axis=0), 1, rtol=1e-6)


def test_softmax_drops_what_is_negligible_and_shows_what_is_no_number() -> None:
    log_joint = np.array([[0.0, -800.0, 1.0], [NEGLIGIBLE - 1, -800.0, np.nan]])
    resp, log_prob = CompiledArithmetic(2, 3).normalize(log_joint, np.zeros(2))
    np.testing.assert_array_equal(resp[:, 0], [1, 0])
    np.testing.assert_array_equal(resp[:, 1], [0.5, 0.5])
    assert np.isnan(log_prob[2])
    assert np.isfinite(log_prob[:2]).all()


@pytest.mark.parametrize("d", [1, 3, 4, 5, 8, 9])
def test_packed_triangles_hold_every_entry_where_a_tile_reads_it(d: int) -> None:
    lower = np.tril(np.random.default_rng(4).normal(size=(2, d, d)))
    packed = pack_lower(lower)
    start = 0
    for i in range(0, d, simd.TILE_ROWS):
        reach = min(i + simd.TILE_ROWS, d)
        strip = packed[:, start : start + reach * simd.TILE_ROWS].reshape(2, reach, -1)
        rows = lower[:, i : i + simd.TILE_ROWS, :reach]
        np.testing.assert_array_equal(strip[:, :, : rows.shape[1]], rows.transpose(0, 2, 1))
        start += reach * simd.TILE_ROWS
    assert start == packed.shape[1]


def test_both_engines_sum_and_answer_alike(kind: str) -> None:
    rng = np.random.default_rng(5)
    plain = random_mixture(kind, 3, 4, rng)
    plain = Mixture(plain.log_weights, plain.components)
    compiled = Mixture(plain.log_weights, plain.components, NUMBA)
    X, weight = rng.normal(size=(3000, 4)), rng.integers(0, 3, 3000).astype(float)
    assert_sums_close(add_up(compiled, X, weight), add_up(plain, X, weight), rtol=1e-11)
    answers: tuple[Answer, ...] = ("labels", "proba", "log_density")
    for name, values in Predict(compiled, answers)(X).items():
        np.testing.assert_allclose(values, Predict(plain, answers)(X)[name], rtol=1e-9, atol=1e-13)
    folds = [Score(m).fold() for m in (compiled, plain)]
    for fold in folds:
        fold.update(0, X, None)
    assert_sums_close(folds[0].result(), folds[1].result(), rtol=1e-9)


def test_the_engine_is_chosen_where_the_fit_starts_and_saved(tmp_path) -> None:
    X, _, _ = blobs(300, 3, 2)
    with dask.config.set({"dask_em.fast": False}):
        model = GaussianMixture(2, random_state=0).fit(X)
    assert model.state_.mixture.engine == Engine("numpy")
    with dask.config.set({"dask_em.fast": True}):
        model = GaussianMixture(2, random_state=0).fit(X.astype("f4"))
    assert model.state_.mixture.engine == Engine("numba", single=True)


def test_loops_are_loaded_where_the_data_are_worth_it(tmp_path: Path) -> None:
    X, _, _ = blobs(300, 3, 2)
    write_zarr(tmp_path / "x.zarr", X, 100)
    # Of the same rows the same engine, wherever they lie, and before anybody has counted them.
    unknown = da.from_array(X, chunks=(100, 3))[da.from_array(np.ones(300, bool), chunks=100)]
    for data in (X, da.from_array(X, chunks=(100, 3)), tmp_path / "x.zarr", unknown):
        for least in (600, 601):
            with use_tuning(tuning().with_changes(compiled_kernel={"worth_loading": least})):
                model = GaussianMixture(2, random_state=0).fit(data)
                names = {model.state_.mixture.engine.name}
                # Answers are as the fit, be it for a few of the rows.
                for n_rows in (None, 10, 300):
                    names.add(model.predictor(("labels",), n_rows=n_rows).mixture.engine.name)
                assert names == {"numba" if least == 600 else "numpy"}
                # Unless there are so many that loops are worth it.
                many = model.predictor(("labels",), n_rows=301)
            assert many.mixture.engine.name == "numba"


def test_a_process_without_numba_fails_rather_than_take_another_engine() -> None:
    code = """
import sys; sys.modules["numba"] = None; sys.path.insert(0, "tests")
from helpers import random_mixture
import dataclasses, numpy as np
from dask_em.core.engine import Engine
mixture = random_mixture("full", 2, 3, np.random.default_rng(0))
try:
    dataclasses.replace(mixture, engine=Engine("numba")).fold()
except ImportError as e:
    print(e)"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=HANG
    )
    assert "pip install 'dask-em[fast]'" in done.stdout, done.stderr


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(("kind", "k", "d"), [("full", 200, 64), ("full", 8, 8), ("diag", 64, 32)])
@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_kernel_holds_what_it_counts(kind: str, k: int, d: int, single: bool, name: Any) -> None:
    mixture = random_mixture(kind, k, d, np.random.default_rng(0))
    mixture = dataclasses.replace(mixture, engine=Engine(name, single))
    X = np.random.default_rng(1).normal(size=(2 * 4096, d))
    # What is compiled, and what is derived from the parameters, is there.
    add_up(mixture, X)
    tracemalloc.start()
    try:
        fold = mixture.fold()
        counted = fold.nbytes
        fold.update(0, X, None)
        fold.result()
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    counted += mixture.result_bytes
    # A few matrices that are made at a time stay in cache.
    assert most < counted + 10 * 2**20
    # Where rows and components all overlap, no room is made for lists of those that count.
    assert isinstance(fold, EStep)
    assert fold.kernel.divides or counted - 2 * 2**20 < most
