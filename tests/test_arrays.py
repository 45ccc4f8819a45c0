"""The E-step on array namespaces: equal to NumPy's, through array-api-strict and, if any, a GPU."""

from __future__ import annotations

import os
import socket
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers import (
    add_up,
    assert_sums_close,
    blobs,
    gaussian_of,
    leaves,
    mixture_of,
    precisions_like,
    random_precisions,
    sums_of,
)

from dask_em.backends.dask.backend import DaskBackend
from dask_em.backends.dask.config import engine_for
from dask_em.backends.serial import SerialBackend
from dask_em.core import device as device_room
from dask_em.core.device import namespace, resolve_device
from dask_em.core.em import Convergence, em
from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics
from dask_em.core.scoring import Answer, Predict, Score
from dask_em.core.tuning import tuning, use_tuning
from dask_em.data.memory import ArraySource
from dask_em.errors import UsageError
from dask_em.families.gaussian.array_api import ArrayKernel

array_api_strict = pytest.importorskip("array_api_strict", reason="it is not installed")

EPS = np.finfo(float).eps
# Functions of the standard that CuPy 13 has in its main namespace (it lacks astype,
# concat, permute_dims and matrix_transpose).
IN_CUPY = {
    *("arange", "argmax", "exp", "float32", "float64", "log", "matmul", "max", "moveaxis"),
    *("sqrt", "stack", "sum", "where", "zeros_like"),
}


class Accelerator:
    """array-api-strict on a device of its own, as far from NumPy as a GPU.

    Its arrays refuse to become NumPy's, to meet NumPy's or those of another
    device, and come back by `asnumpy` alone, as CuPy's do.
    """

    def __getattr__(self, name: str) -> Any:
        if name not in IN_CUPY:
            raise AttributeError(f"{name} is not in CuPy's main namespace")
        return getattr(array_api_strict, name)

    def asarray(self, values: Any, *, dtype: Any = None) -> Any:
        device = array_api_strict.Device("device1")
        return array_api_strict.asarray(values, dtype=dtype, device=device)

    def asnumpy(self, values: Any) -> np.ndarray:
        return np.asarray(values.to_device(array_api_strict.Device("CPU_DEVICE")))


@pytest.fixture(params=["strict", "cuda"])
def device(request: pytest.FixtureRequest) -> Any:
    """Where to compute: an accelerator without NumPy, and a GPU where there is one."""
    if request.param == "strict":
        return Accelerator()
    why = device_room.why_no_cupy()
    if why is not None:
        pytest.skip(f"the GPU itself is not run: {why}")
    return "cuda"


def on_device(device: Any, mixture: Mixture, single: bool = False) -> Mixture:
    """The same mixture, computed on a device; in float32 where that is asked for and safe."""
    return replace(mixture, engine=Engine("numpy", single, device))


def add_up_on(
    device: Any, mixture: Mixture, X: np.ndarray, weight: np.ndarray | None = None,
    device_bytes: int = 2**28,
) -> MixtureStatistics:  # fmt: skip
    """The E-step over all rows as one chunk, on a device."""
    with use_tuning(tuning().with_changes(device_kernel={"bytes": device_bytes})):
        return add_up(on_device(device, mixture, X.dtype == np.float32), X, weight)


def kernel_on(device: Any, mixture: Mixture, **options: Any) -> ArrayKernel:
    return ArrayKernel(gaussian_of(mixture), namespace(device), **options)


def chosen_type(mixture: Mixture, dtype: str) -> str:
    """What rows of a type are multiplied in."""
    single = engine_for(np.dtype(dtype)).single
    kernel = mixture.components.kernel(Engine("numpy", single, array_api_strict))
    return str(kernel._dtype).rpartition(".")[2]  # type: ignore[attr-defined]


def answer_on(
    device: Any, mixture: Mixture, X: np.ndarray, answers: tuple[Answer, ...],
    device_bytes: int = 2**28,
) -> dict[str, np.ndarray]:  # fmt: skip
    with use_tuning(tuning().with_changes(device_kernel={"bytes": device_bytes})):
        return Predict(on_device(device, mixture), answers)(X)


def problem(kind: str, n: int, d: int, k: int, offset: float = 0.0) -> tuple[np.ndarray, Mixture]:
    """Rows of overlapping components, and a mixture somewhat beside the truth."""
    X, _, means = blobs(n, d, k, seed=n + d, apart=1.0)
    rng = np.random.default_rng(d)
    beside = means + 0.1 * rng.normal(size=means.shape)
    precisions = random_precisions(kind, k, d, rng)
    mixture = mixture_of(kind, beside + offset, precisions, X + offset)
    weights = rng.dirichlet(np.full(k, 5.0))
    return X + offset, Mixture(np.log(weights), mixture.components)


def rounding(mixture: Mixture) -> float:
    """What rounding rows to float64 in the frame may change, or 1e-10."""
    return max(1e-10, 8 * EPS * float(np.sqrt(gaussian_of(mixture).amplification)))


SHAPES = [(1, 1, 1), (7, 1, 3), (50, 3, 1), (501, 2, 4), (300, 8, 5), (200, 17, 2)]


@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
def test_sums_equal_the_numpy_kernel(kind: str, n: int, d: int, k: int, device: Any) -> None:
    X, mixture = problem(kind, n, d, k)
    assert_sums_close(add_up_on(device, mixture, X), add_up(mixture, X), 1e-10)


@pytest.mark.parametrize("weights", ["real", "with zeros", "all zero", "huge", "tiny"])
def test_weighted_sums_equal_the_numpy_kernel(kind: str, weights: str, device: Any) -> None:
    X, mixture = problem(kind, 400, 3, 3)
    w = np.random.default_rng(1).exponential(size=400)
    if weights == "with zeros":
        w[::3] = 0.0
    w *= {"all zero": 0.0, "huge": 1e200, "tiny": 1e-200}.get(weights, 1.0)
    assert_sums_close(add_up_on(device, mixture, X, w), add_up(mixture, X, w), 1e-10)


def test_rows_of_weight_zero_may_hold_anything(kind: str, device: Any) -> None:
    X, mixture = problem(kind, 100, 2, 2)
    spoilt, w = X.copy(), np.ones(100)
    spoilt[10:20], w[10:20] = np.nan, 0.0
    actual = add_up_on(device, mixture, spoilt, w)
    kept = add_up(mixture, np.delete(X, range(10, 20), axis=0))
    assert_sums_close(actual, replace(kept, n_rows=100), 1e-10)


def test_rows_that_are_not_finite_do_not_pass_in_silence(kind: str, device: Any) -> None:
    X, mixture = problem(kind, 100, 2, 2)
    X[5, 1] = np.nan
    assert np.isnan(add_up_on(device, mixture, X).log_likelihood)


@pytest.mark.parametrize("offset", [1e8, -1e8])
def test_sums_are_right_far_from_zero(kind: str, offset: float, device: Any) -> None:
    X, mixture = problem(kind, 400, 3, 3, offset)
    assert_sums_close(add_up_on(device, mixture, X), add_up(mixture, X), rounding(mixture))


@pytest.mark.parametrize("kind", ["full", "tied"])
def test_sums_are_right_in_a_rotated_frame(kind: str, device: Any) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 400)
    base = rng.normal(size=(400, 2)) + 3.0 * labels[:, None]
    X = np.column_stack([base, base.sum(axis=1) + 1e-3 * rng.normal(size=400)])
    means = np.stack([X[labels == j].mean(axis=0) for j in range(2)])
    precision_ = np.linalg.inv(np.cov(X[labels == 0].T, bias=True))
    mixture = mixture_of(
        kind, means, np.stack([precision_] * 2) if kind == "full" else precision_, X
    )
    assert gaussian_of(mixture).whitening.scale.ndim == 2
    assert_sums_close(add_up_on(device, mixture, X), add_up(mixture, X), 1e-10)


@pytest.mark.parametrize("width", [1e-3, 1e-6])
def test_sums_of_tight_components_are_right(kind: str, width: float, device: Any) -> None:
    rng = np.random.default_rng(4)
    means = 5.0 * rng.normal(size=(3, 3))
    X = means[rng.integers(0, 3, 600)] + width * rng.normal(size=(600, 3))
    mixture = mixture_of(kind, means, precisions_like(kind, width**-2, 3, 3), X)
    assert not gaussian_of(mixture).features_are_safe
    assert_sums_close(add_up_on(device, mixture, X), add_up(mixture, X), rounding(mixture))


@pytest.mark.parametrize("device_bytes", [1, 5_000, 60_000])
def test_groups_and_blocks_do_not_change_the_sums(
    kind: str, device_bytes: int, device: Any
) -> None:
    X, mixture = problem(kind, 100, 6, 5)
    whole = kernel_on(device, mixture)
    assert len(whole._groups) == 1
    assert whole.block_rows > 100
    cut = kernel_on(device, mixture, device_bytes=device_bytes)
    assert len(cut._groups) > 1 or cut.block_rows < 100
    actual = add_up_on(device, mixture, X, device_bytes=device_bytes)
    assert_sums_close(actual, add_up_on(device, mixture, X), 1e-13)


@pytest.mark.parametrize(("d", "k"), [(2, 50), (50, 2), (20, 20)])
def test_temporaries_keep_below_the_budget(kind: str, d: int, k: int) -> None:
    X, mixture = problem(kind, 3000, d, k)
    budget = 2 * 2**20
    kernel = kernel_on(Accelerator(), mixture, device_bytes=budget)
    assert kernel.block_rows < 3000
    with use_tuning(tuning().with_changes(device_kernel={"bytes": budget})):
        fold = on_device(Accelerator(), mixture).fold()
    fold.update(0, X[:1], None)
    # What other threads of this process allocate meanwhile only adds.
    peak = min(traced_peak(lambda: fold.update(0, X, None)) for _ in range(3))
    assert budget / 8 < peak < budget


def traced_peak(work: Callable[[], object]) -> int:
    """Bytes at most: the device's arrays are NumPy's underneath, so its memory is watched."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_components_are_grouped_as_far_as_the_budget_allows(kind: str) -> None:
    _, mixture = problem(kind, 20, 40, 40)
    groups = kernel_on(Accelerator(), mixture, device_bytes=2**20)._groups
    assert [i for g in groups for i in range(40)[g]] == list(range(40))
    few = kernel_on(Accelerator(), mixture, device_bytes=2**40)._groups
    assert (len(groups), len(few)) == (40, 1)


@pytest.mark.parametrize("dtype", ["i1", "u2", "i8", "f2", "f4", ">f8", ">i4"])
def test_rows_of_any_numeric_type(kind: str, dtype: str, device: Any) -> None:
    X, mixture = problem(kind, 100, 3, 2)
    X = np.abs(np.round(X)).astype(dtype)
    expected = Predict(mixture, ("log_density",))(X)["log_density"]
    actual = answer_on(device, mixture, X, ("log_density",))["log_density"]
    np.testing.assert_allclose(actual, expected, rtol=1e-10)


def test_answers_equal_the_numpy_kernels(kind: str, device: Any) -> None:
    X, mixture = problem(kind, 500, 4, 3, offset=1e3)
    wanted: tuple[Answer, ...] = ("labels", "proba", "log_density")
    kernel = kernel_on(device, mixture, device_bytes=30_000)
    assert kernel.block_rows < 500
    actual = answer_on(device, mixture, X, wanted, 30_000)
    expected = Predict(mixture, wanted)(X)
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        assert actual[name].dtype == values.dtype
        np.testing.assert_allclose(actual[name], values, rtol=1e-10, atol=1e-12)
    labels = answer_on(device, mixture, X, ("labels",), 30_000)
    assert labels.keys() == {"labels"}
    np.testing.assert_array_equal(labels["labels"], actual["labels"])


def test_scores_equal_the_numpy_kernels(kind: str, device: Any) -> None:
    X, mixture = problem(kind, 500, 4, 3)
    # One component far off, whose responsibilities are exactly zero.
    log_weights = np.append(mixture.log_weights[:2], -np.inf)
    mixture = Mixture(log_weights, mixture.components)
    fold = Score(mixture).fold()
    fold.update(0, X, None)
    expected = fold.result()
    there = Score(on_device(device, mixture)).fold()
    there.update(0, X, None)
    actual = there.result()
    np.testing.assert_allclose(
        (actual.log_likelihood, actual.entropy),
        (expected.log_likelihood, expected.entropy),
        rtol=1e-10,
    )


def test_negligible_responsibilities_are_exactly_zero_as_in_numpy(device: Any) -> None:
    means = np.array([[0.0], [10.0], [11.5]])
    # No row lies on the very border, where rounding decides.
    X = np.linspace(-1.003, 1, 201)[:, None]
    mixture = mixture_of("full", means, np.ones((3, 1, 1)), X)
    actual = answer_on(device, mixture, X, ("proba",))["proba"]
    expected = Predict(mixture, ("proba",))(X)["proba"]
    np.testing.assert_array_equal(actual == 0, expected == 0)
    assert 0 < (actual == 0).sum() < actual.size


# -- float32 -----------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("weighted", [False, True])
def test_float32_data_are_multiplied_in_float32(
    kind: str, offset: float, weighted: bool, device: Any
) -> None:
    X, mixture = problem(kind, 2000, 5, 3, offset)
    X = X.astype(np.float32)
    w = 1e60 * np.random.default_rng(2).exponential(size=2000) if weighted else None
    assert chosen_type(mixture, "f4") == "float32"
    actual, expected = add_up_on(device, mixture, X, w), add_up(mixture, X, w)
    assert_sums_close(actual, expected, 1e-4)
    # It was float32 indeed, and what is returned is float64.
    error = abs(actual.log_likelihood / expected.log_likelihood - 1)
    assert error > 1e-12
    assert all(leaf.dtype == np.float64 for leaf in leaves(actual)[1:])


def test_float32_sums_are_about_the_means_as_given(kind: str, device: Any) -> None:
    # Means rounded to float32 would move every row the same way: here by more than rows
    # and their sums are rounded, which goes either way.
    rng = np.random.default_rng(6)
    means = np.array([[1.0, 2.0, 3.0], [-3.0, -1.0, -2.0]])
    X = np.repeat(means, 10_000, axis=0) + 0.08 * rng.normal(size=(20_000, 3))
    X = X.astype(np.float32)
    mixture = mixture_of(kind, means, precisions_like(kind, 0.08**-2, 2, 3), X)
    assert chosen_type(mixture, "f4") == "float32"
    actual = sums_of(add_up_on(device, mixture, X, device_bytes=50_000)).first
    expected = sums_of(add_up(mixture, X)).first
    means = gaussian_of(mixture).means
    bias = 10_000 * np.abs(means.astype(np.float32) - means).max()
    assert np.abs(actual - expected).max() < bias / 4


def test_the_bound_hands_tight_components_of_float32_data_to_float64(
    kind: str, device: Any
) -> None:
    rng = np.random.default_rng(5)
    means = 5.0 * rng.normal(size=(3, 3))

    def at(width: float) -> tuple[np.ndarray, Mixture]:
        X = (means[rng.integers(0, 3, 500)] + width * rng.normal(size=(500, 3))).astype("f4")
        return X, mixture_of(kind, means, precisions_like(kind, width**-2, 3, 3), X)

    chosen = [chosen_type(at(w)[1], "f4") for w in (1.0, 0.3, 1e-2, 1e-3)]
    assert chosen == ["float32", "float32", "float64", "float64"]
    X, mixture = at(1e-3)
    assert_sums_close(add_up_on(device, mixture, X), add_up(mixture, X), rounding(mixture))


def test_precision_is_float64_unless_float32_is_known_to_be_right() -> None:
    wide, tight = problem("full", 500, 3, 3)[1], problem("full", 500, 3, 3, 1e8)[1]
    tight = replace(tight, components=replace(gaussian_of(tight), means=1e9 + np.zeros((3, 3))))
    assert chosen_type(wide, "f4") == "float32"
    assert chosen_type(tight, "f4") == "float64"
    assert {chosen_type(wide, t) for t in ("f8", "i4", ">f4", "f2")} == {"float64"}


# -- in the loop ---------------------------------------------------------------------------


def test_em_takes_the_same_path_as_on_numpy(kind: str, device: Any) -> None:
    X, mixture = problem(kind, 600, 3, 3)
    convergence = Convergence(tol=0.0, max_iter=8)
    on_device = list(em(lambda m: add_up_on(device, m, X), mixture, convergence))
    on_numpy = list(em(lambda m: add_up(m, X), mixture, convergence))
    assert len(on_device) == len(on_numpy) == 8
    for a, b in zip(on_device, on_numpy, strict=True):
        np.testing.assert_allclose(a.log_likelihood, b.log_likelihood, rtol=1e-10)
    found, expected = (gaussian_of(states[-1].result) for states in (on_device, on_numpy))
    np.testing.assert_allclose(found.means, expected.means, atol=1e-8)
    np.testing.assert_allclose(found.covariance.factor, expected.covariance.factor, atol=1e-8)


@pytest.mark.usefixtures("many_chunks")
def test_a_pass_has_the_same_bits_on_every_backend(kind: str, device: Any) -> None:
    X, mixture = problem(kind, 3000, 3, 3)
    work = on_device(device, mixture)
    source = ArraySource(X)
    assert source.n_chunks > 1
    serial, threads = (b.map_reduce(source, work) for b in (SerialBackend(), DaskBackend()))
    for a, b in zip(leaves(serial), leaves(threads), strict=True):
        np.testing.assert_array_equal(a, b)
    assert_sums_close(serial, SerialBackend().map_reduce(source, mixture), 1e-10)


# -- where ---------------------------------------------------------------------------------


def fake_cupy(count: int | Exception) -> Any:
    """CuPy as far as the choice of a device looks at it."""

    def get_device_count() -> int:
        if isinstance(count, Exception):
            raise count
        return count

    return SimpleNamespace(
        cuda=SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=get_device_count))
    )


@pytest.fixture
def install_cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Puts a module in CuPy's place; None, as if it were not installed."""
    monkeypatch.delenv("CUPY_TF32", raising=False)
    return lambda module: monkeypatch.setitem(sys.modules, "cupy", module)


def test_auto_is_cuda_only_where_cupy_finds_a_device(install_cupy: Any) -> None:
    for module, expected in [
        (None, "cpu"),
        (fake_cupy(0), "cpu"),
        (fake_cupy(RuntimeError("no driver")), "cpu"),
        (fake_cupy(2), "cuda"),
    ]:
        install_cupy(module)
        assert resolve_device("auto") == expected


def test_what_was_asked_for_by_name_is_not_changed(install_cupy: Any) -> None:
    install_cupy(None)
    # The process that starts the fit needs no GPU; those that compute do.
    assert resolve_device("cuda") == "cuda"
    assert resolve_device("cpu") == "cpu"
    assert resolve_device(array_api_strict) is array_api_strict
    assert namespace(array_api_strict) is array_api_strict


@pytest.mark.parametrize("device", ["gpu", "CUDA", "", "cuda:1", None, 0, np.float64(1)])
def test_an_unknown_device_is_named(device: Any) -> None:
    with pytest.raises(UsageError, match=r"'cpu', 'cuda', 'auto'.*got") as error:
        resolve_device(device)
    assert repr(device) in str(error.value)


@pytest.mark.parametrize("device", ["cpu", "auto", "nothing"])
def test_only_resolved_devices_have_a_namespace(device: str) -> None:
    with pytest.raises(UsageError, match=f"{device!r} has no array namespace"):
        namespace(device)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, "pip install cupy-cuda12x"),
        (fake_cupy(0), "sees no CUDA device.*CUDA_VISIBLE_DEVICES"),
        (fake_cupy(RuntimeError("driver too old")), "driver too old.*nvidia-smi"),
    ],
)
def test_a_worker_without_a_gpu_says_so(install_cupy: Any, module: Any, message: str) -> None:
    install_cupy(module)
    _, mixture = problem("full", 10, 1, 1)
    with pytest.raises(UsageError, match=message) as error:
        on_device("cuda", mixture).fold()
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(error.value)


def test_products_in_tf32_are_refused(install_cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    install_cupy(fake_cupy(1))
    assert namespace("cuda") is sys.modules["cupy"]
    monkeypatch.setenv("CUPY_TF32", "1")
    with pytest.raises(UsageError, match="CUPY_TF32"):
        namespace("cuda")
