"""Components that do not count for a row: what bounds rule out, and sums of what is left."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
from helpers import add_up, assert_sums_close, gaussian_of, mixture_of

from dask_em.backends.serial import SerialBackend
from dask_em.backends.threads import ThreadsBackend
from dask_em.core.box import Box
from dask_em.core.engine import Engine
from dask_em.core.mixture import EStep, Mixture
from dask_em.core.noise import NoisyMixture
from dask_em.core.tuning import Tuning, tuning, use_tuning
from dask_em.data.memory import ArraySource

pytest.importorskip("numba")

from dask_em.families.centers.compiled_kernel import CompiledCentersKernel
from dask_em.families.centers.family import Centers
from dask_em.families.gaussian.candidates import CandidateKernel
from dask_em.families.gaussian.joint_bounds import (
    Bounds,
    DirectionBounds,
    MinorantBounds,
    Scores,
)

FAST = Engine("numba")


def without() -> Tuning:
    """All components are computed."""
    return tuning().with_changes(candidates={"least_components": 10**9})


def drawn(
    kind: str, k: int, d: int, apart: float, n: int, seed: int, thin: float = 0.1
) -> tuple[Mixture, np.ndarray]:
    """A mixture of unlike covariances, and rows of it."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(k, d)) * apart
    roots = rng.normal(size=(k, d, d)) / np.sqrt(2 * d) + np.eye(d) / 2
    covariances = roots @ roots.transpose(0, 2, 1) + thin**2 * np.eye(d)
    labels = rng.integers(0, k, n)
    noise = np.einsum(
        "nij,nj->ni", np.linalg.cholesky(covariances)[labels], rng.normal(size=(n, d))
    )
    precisions = np.linalg.inv(covariances)
    if kind == "diag":
        precisions = 1 / np.einsum("kii->ki", covariances)
    X = means[labels] + noise
    return dataclasses.replace(mixture_of(kind, means, precisions, X), engine=FAST), X


def kernel_of(fold: EStep) -> CandidateKernel:
    """The kernel of an E-step of many components."""
    assert isinstance(fold.kernel, CandidateKernel)
    return fold.kernel


def leaves_out(mixture: Mixture, X: np.ndarray) -> bool:
    """Whether some of the components are not computed for the rows."""
    kernel = kernel_of(EStep(mixture))
    return kernel.add_divided(X[: kernel.part_rows], mixture.log_prior, None) is not None


def assert_as_if_all_were_computed(
    mixture: Mixture, X: np.ndarray, weight: np.ndarray | None = None, rtol: float = 1e-10
) -> None:
    found = add_up(mixture, X, weight)
    with use_tuning(without()):
        expected = add_up(mixture, X, weight)
    assert found.n_rows == expected.n_rows
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-13)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-11)
    np.testing.assert_allclose(found.resp_sum, expected.resp_sum, rtol=rtol, atol=1e-9)
    assert_sums_close(found.components, expected.components, rtol)


CASES = [
    ("full", 64, 8, 20.0),
    ("full", 66, 9, 12.0),
    ("full", 101, 17, 3.0),
    ("full", 70, 33, 0.3),
    ("diag", 64, 8, 20.0),
    ("diag", 131, 40, 3.0),
]


@pytest.mark.parametrize(("kind", "k", "d", "apart"), CASES)
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_what_is_left_out_is_not_missed(
    kind: str, k: int, d: int, apart: float, dtype: str
) -> None:
    for seed, n in enumerate((1, 47, 500, 1000)):
        mixture, X = drawn(kind, k, d, apart, 1000, seed)
        X = X[:n].astype(dtype)
        weight = np.random.default_rng(seed).exponential(size=n)
        weight[1::7] = 0.0
        assert n < 500 or leaves_out(mixture, X)
        assert_as_if_all_were_computed(mixture, X)
        assert_as_if_all_were_computed(mixture, X, weight)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_rows_far_from_all_components_are_divided_as_all_others(kind: str) -> None:
    mixture, X = drawn(kind, 80, 12, 8.0, 1500, 0)
    rng = np.random.default_rng(1)
    X[::100] = rng.normal(size=X[::100].shape) * 10.0 ** rng.integers(1, 7, size=(15, 1))
    assert leaves_out(mixture, X)
    assert_as_if_all_were_computed(mixture, X)
    # Beyond what float32 holds nothing is ruled out.
    X[700] = 1e25
    assert leaves_out(mixture, X)
    assert_as_if_all_were_computed(mixture, X)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_components_that_are_equal_share_their_rows(kind: str) -> None:
    mixture, X = drawn(kind, 66, 10, 8.0, 1200, 2)
    gaussian = gaussian_of(mixture)
    twice = gaussian.take([*range(33), *range(33)])
    mixture = dataclasses.replace(mixture, components=twice)
    X = X[:900]
    assert_as_if_all_were_computed(mixture, X)
    found = add_up(mixture, X).resp_sum
    np.testing.assert_allclose(found[:33], found[33:], rtol=1e-12)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_offset_and_scale_lose_nothing(kind: str) -> None:
    rng = np.random.default_rng(3)
    means = rng.normal(size=(64, 9)) * 20
    X = means[rng.integers(0, 64, 900)] + rng.normal(size=(900, 9))
    scale = 10.0 ** rng.integers(-3, 4, 9)
    ones = np.broadcast_to(np.eye(9), (64, 9, 9)) if kind == "full" else np.ones((64, 9))
    near = dataclasses.replace(mixture_of(kind, means, ones, X), engine=FAST)
    precisions = ones / (np.outer(scale, scale) if kind == "full" else scale**2)
    there = X * scale + 1e8 * scale
    far = mixture_of(kind, means * scale + 1e8 * scale, precisions, there)
    far = dataclasses.replace(far, engine=FAST)
    assert leaves_out(far, there)
    assert_as_if_all_were_computed(far, there, rtol=1e-7)
    np.testing.assert_allclose(add_up(far, there).resp_sum, add_up(near, X).resp_sum, rtol=1e-5)


@pytest.mark.parametrize("apart", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("thin", [1.0, 1e-2, 1e-5])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_bounds_are_above_every_joint_density(kind: str, apart: float, thin: float) -> None:
    mixture, X = drawn(kind, 69, 11, apart, 300, 5, thin)
    X[::50] *= 1e3
    gaussian = gaussian_of(mixture)
    Z = gaussian.coordinates(X)
    joint = gaussian.log_prob(X) + mixture.log_prior
    ways: list[Bounds] = [MinorantBounds(gaussian)]
    if kind == "full":
        for n in (4, 8):
            ways.append(along := DirectionBounds(gaussian))
            along.n_directions = min(n, along.most)
    for bounds in ways:
        into = Scores(69)
        bounds.compute(np.ascontiguousarray(Z), mixture.log_prior, into)
        upper = into.scores.transpose(0, 2, 1).reshape(-1, into.scores.shape[1])[:300, :69]
        upper = upper.astype(float)
        assert (upper + into.slack[:300, None] >= joint - 1e-9 * np.abs(joint)).all()
        np.testing.assert_array_equal(into.labels[:300], upper.argmax(axis=1))


def test_parts_and_threads_give_the_same_bits() -> None:
    mixture, X = drawn("full", 64, 8, 20.0, 20_000, 6)
    whole = add_up(mixture, X)
    fold = mixture.fold()
    for first in range(0, len(X), fold.block_rows):
        fold.update(0, X[first : first + fold.block_rows], None)
    assert_same_bits(fold.result(), whole)
    # Blocks of which few components count, of which all do, and of both.
    mixed = np.concatenate([X[:9000], np.random.default_rng(0).normal(size=(9000, 8))])
    with use_tuning(tuning().with_changes(reading={"bytes": 2**16})):
        source = ArraySource(mixed)
        assert len(source.ranges()) > 3
        one = SerialBackend().map_reduce(source, mixture)
        assert_same_bits(ThreadsBackend(3).map_reduce(source, mixture), one)


def assert_same_bits(found: Any, expected: Any) -> None:
    assert found.log_likelihood == expected.log_likelihood
    np.testing.assert_array_equal(found.resp_sum, expected.resp_sum)
    np.testing.assert_array_equal(found.components.first, expected.components.first)
    np.testing.assert_array_equal(found.components.scatter, expected.components.scatter)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_where_all_components_count_all_are_computed(kind: str) -> None:
    mixture, X = drawn(kind, 64, 8, 0.1, 1000, 7, thin=1.0)
    assert not leaves_out(mixture, X)
    found = add_up(mixture, X)
    with use_tuning(without()):
        assert_same_bits(found, add_up(mixture, X))


def test_labels_noise_and_hard_assignment_take_every_component() -> None:
    mixture, X = drawn("full", 64, 8, 20.0, 1000, 8)
    labels = np.random.default_rng(0).integers(-1, 64, len(X))

    def labelled() -> Any:
        fold = mixture.fold()
        fold.begin_labelled(1)
        fold.update_labelled(0, X, None, labels)
        return fold.result()

    box = Box.of(X.min(axis=0), X.max(axis=0))
    noisy = NoisyMixture(
        mixture.log_weights, mixture.components, FAST, box=box, log_share=np.log(0.1)
    )
    hard = dataclasses.replace(mixture, assignment="hard")
    found = labelled(), add_up(noisy, X), add_up(hard, X)
    with use_tuning(without()):
        for one, expected in zip(
            found, (labelled(), add_up(noisy, X), add_up(hard, X)), strict=True
        ):
            assert_same_bits(one, expected)


def test_a_row_that_is_no_number_is_seen() -> None:
    mixture, X = drawn("full", 64, 8, 20.0, 500, 9)
    X[77, 3] = np.nan
    assert np.isnan(add_up(mixture, X).log_likelihood)


@pytest.mark.parametrize(("kind", "k", "d"), [("full", 200, 32), ("diag", 200, 32)])
def test_a_kernel_holds_what_it_counts(kind: str, k: int, d: int) -> None:
    mixture, X = drawn(kind, k, d, 10.0, 8192, 0)
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
    assert 0.6 * counted < most < counted + 2**20


# -- the nearest of many centres -------------------------------------------------------


def near_centers(k: int, d: int, apart: float, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres, and rows about them."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(k, d)) * apart
    return centers, centers[rng.integers(0, k, n)] + rng.normal(size=(n, d))


def found_and_exact(
    centers: np.ndarray, X: np.ndarray, dtype: str, changes: dict[str, object]
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Labels by bounds, those of all distances, and whether some were ruled out."""
    prior = np.random.default_rng(0).normal(size=len(centers)) * 0.01
    with use_tuning(tuning().with_changes(center_candidates={"blocks_untried": 0, **changes})):
        kernel = CompiledCentersKernel(
            centers, np.zeros(centers.shape[1]), 1.0, False, np.dtype(dtype)
        )
        labels, used = [], False
        for rows in kernel.blocks(X):
            kernel.load(X[rows])
            labels.append(kernel.assign(prior).copy())
            used |= kernel.candidates is not None and kernel.candidates.in_use
    scores = X.astype(np.longdouble) @ centers.T - (centers**2).sum(1) / 2 + prior / 2
    return np.concatenate(labels), scores.argmax(axis=1), used


@pytest.mark.parametrize("dtype", ["f8", "f4"])
@pytest.mark.parametrize(
    ("k", "d", "apart"), [(512, 64, 3.0), (131, 17, 30.0), (1030, 40, 8.0), (300, 64, 1.0)]
)
def test_the_nearest_centre_is_not_ruled_out(k: int, d: int, apart: float, dtype: str) -> None:
    for seed, n in enumerate((1, 47, 700, 1500)):
        centers, X = near_centers(k, d, apart, n, seed)
        X = X.astype(dtype)
        # Rows far from all, and as near to one as to another: the first is taken.
        X[7::211] *= 1e4
        centers[k // 2] = centers[3]
        found, expected, used = found_and_exact(centers, X, dtype, {"row": 0.0, "pair": 0.0})
        np.testing.assert_array_equal(found, expected)
        # In few columns, or near each other, all are computed as quickly.
        assert used or n < 700 or apart <= 1.0 or d < 20


def test_centres_that_are_all_near_are_all_computed() -> None:
    centers, X = near_centers(256, 32, 0.05, 2000, 0)
    found, expected, used = found_and_exact(centers, X, "f8", {})
    np.testing.assert_array_equal(found, expected)
    assert not used


def test_parts_and_threads_cluster_to_the_same_bits() -> None:
    centers, X = near_centers(256, 64, 5.0, 12_000, 1)
    family = Centers(centers, np.zeros(64), 1.0)
    mixture = Mixture(np.full(256, -np.log(256)), family, FAST, "hard")
    whole, fold = add_up(mixture, X), mixture.fold()
    for first in range(0, len(X), fold.block_rows):
        fold.update(0, X[first : first + fold.block_rows], None)
    assert_same_centers(fold.result(), whole)
    with use_tuning(tuning().with_changes(reading={"bytes": 2**20})):
        source = ArraySource(X)
        one = SerialBackend().map_reduce(source, mixture)
        assert_same_centers(ThreadsBackend(3).map_reduce(source, mixture), one)


def assert_same_centers(found: Any, expected: Any) -> None:
    assert found.log_likelihood == expected.log_likelihood
    np.testing.assert_array_equal(found.components.first, expected.components.first)
    np.testing.assert_array_equal(found.components.squares, expected.components.squares)


def test_components_thin_in_one_direction_and_far_apart_are_computed() -> None:
    rng = np.random.default_rng(4)
    means = rng.normal(size=(64, 8))
    widths = np.full(8, 1e-3)
    widths[2] = 1e-11
    X = means[rng.integers(0, 64, 700)] + rng.normal(size=(700, 8)) * widths
    precisions = np.broadcast_to(np.diag(widths**-2), (64, 8, 8))
    mixture = dataclasses.replace(mixture_of("full", means, precisions, X), engine=FAST)
    assert_as_if_all_were_computed(mixture, X, rtol=1e-6)
