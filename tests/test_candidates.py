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
from dask_em.core.responsibilities import UNDECIDED
from dask_em.core.scoring import NO_LABEL, Answer, Predict, Score
from dask_em.core.scoring import Scores as RowScores
from dask_em.core.tuning import Tuning, tuning, use_tuning
from dask_em.data.memory import ArraySource
from dask_em.errors import NonFiniteError

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
# Answers of any number of rows are tried by bounds.
EAGER: dict[str, object] = {"answered_rows": 0, "answered_products": 0.0, "answered_row": -1e6}


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


# -- answers of many components ---------------------------------------------------------


def answers(mixture: Mixture, X: np.ndarray, *names: Answer, drop: bool = False) -> Any:
    """Answers for rows, of which few are enough to be divided."""
    with use_tuning(tuning().with_changes(candidates=EAGER)):
        return Predict(mixture, names, drop)(X)


def answers_of_all(mixture: Mixture, X: np.ndarray, *names: Answer, drop: bool = False) -> Any:
    with use_tuning(without()):
        return Predict(mixture, names, drop)(X)


def undecided(mixture: Mixture, X: np.ndarray) -> float | None:
    """The share of rows that candidates do not label; None where all are computed."""
    with use_tuning(tuning().with_changes(candidates=EAGER)):
        kernel = kernel_of(EStep(mixture))
        labels = kernel.label(X[: kernel.part_rows], mixture.log_prior)
        return None if labels is None else float((labels == UNDECIDED).mean())


def assert_labels_are_those_of_all(mixture: Mixture, X: np.ndarray, drop: bool = False) -> None:
    found = answers(mixture, X, "labels", drop=drop)["labels"]
    expected = answers_of_all(mixture, X, "labels", drop=drop)["labels"]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("kind", "k", "d", "apart"), [*CASES, ("full", 64, 20, 0.05)])
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_labels_are_the_same_bits(kind: str, k: int, d: int, apart: float, dtype: str) -> None:
    for seed, n in enumerate((1, 47, 500, 4000)):
        # Wide enough for float32.
        mixture, X = drawn(kind, k, d, apart, 4000, seed, thin=1.0)
        X = X[:n].astype(dtype)
        rng = np.random.default_rng(seed)
        log_weights = np.log(rng.dirichlet(np.ones(k)))
        mixture = dataclasses.replace(
            mixture, log_weights=log_weights, engine=Engine("numba", single=dtype == "f4")
        )
        if n == 4000 and apart >= 3.0:
            share = undecided(mixture, X)
            assert share is not None
            assert share < 0.02
        assert_labels_are_those_of_all(mixture, X)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_equal_components_label_by_the_first(kind: str, single: bool) -> None:
    mixture, X = drawn(kind, 66, 20, 8.0, 1200, 2, thin=1.0)
    twice = gaussian_of(mixture).take([*range(33), *range(33)])
    mixture = dataclasses.replace(mixture, components=twice, engine=Engine("numba", single=single))
    assert undecided(mixture, X) == 1.0
    assert_labels_are_those_of_all(mixture, X)
    assert answers(mixture, X, "labels")["labels"].max() < 33
    # One is a rounding error away: which is the larger differs by kernels, and by rows.
    means = twice.means.copy()
    means[33:] *= 1 + np.finfo(np.float64).eps
    near = dataclasses.replace(twice, means=means)
    assert_labels_are_those_of_all(dataclasses.replace(mixture, components=near), X)


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("kind", ["full", "diag"])
def test_rows_between_two_components_are_labelled_as_by_all(kind: str, single: bool) -> None:
    mixture, X = drawn(kind, 64, 12, 8.0, 1200, 3, thin=1.0)
    gaussian = gaussian_of(mixture)
    # All of one shape: rows half-way between two means are as far from either.
    factor = np.broadcast_to(gaussian.covariance.factor[0], gaussian.covariance.factor.shape)
    gaussian = dataclasses.replace(gaussian, covariance=type(gaussian.covariance)(factor.copy()))
    mixture = dataclasses.replace(
        mixture, components=gaussian, engine=Engine("numba", single=single)
    )
    means = gaussian.whitening.unwhiten(gaussian.means)
    X[::3] = ((means + np.roll(means, 1, axis=0)) / 2)[np.arange(400) % 64]
    far = 10.0 ** np.linspace(-9, 60, 400)[:, None]
    X[1::3] += np.random.default_rng(0).normal(size=(400, 12)) * far
    assert_labels_are_those_of_all(mixture, X)


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_labels_of_collinear_columns_and_components_without_weight(kind: str) -> None:
    mixture, X = drawn(kind, 64, 12, 8.0, 1200, 4, thin=1.0)
    X[:, 3] = X[:, 2] + 1e-6 * X[:, 3]
    log_weights = mixture.log_weights.copy()
    log_weights[::5] = -np.inf
    precisions = np.linalg.inv(np.cov(X.T)) * 20 if kind == "full" else 20 / X.var(axis=0)
    precisions = np.broadcast_to(precisions, (64, *precisions.shape))
    there = dataclasses.replace(
        mixture_of(kind, X[:64].copy(), precisions, X), engine=FAST, log_weights=log_weights
    )
    assert_labels_are_those_of_all(there, X)


def test_rows_without_answers_and_chunkings_change_no_label() -> None:
    mixture, X = drawn("full", 80, 12, 8.0, 9000, 0)
    whole = answers_of_all(mixture, X, "labels")["labels"]
    for step in (9000, 4001, 777):
        parts = [X[i : i + step] for i in range(0, len(X), step)]
        found = [answers(mixture, part, "labels")["labels"] for part in parts]
        np.testing.assert_array_equal(np.concatenate(found), whole)
    X[::7, 2], X[3::11, 0] = np.nan, np.inf
    bad = ~np.isfinite(X).all(axis=1)
    found = answers(mixture, X, "labels", "proba", "log_density", drop=True)
    np.testing.assert_array_equal(found["labels"], np.where(bad, NO_LABEL, whole))
    assert np.isnan(found["proba"][bad]).all()
    assert np.isnan(found["log_density"][bad]).all()
    assert_answers_are_those_of_all(mixture, X, drop=True)
    with pytest.raises(NonFiniteError) as here:
        answers(mixture, X[1:], "labels")
    with pytest.raises(NonFiniteError) as there:
        answers_of_all(mixture, X[1:], "labels")
    assert str(here.value) == str(there.value)


def assert_answers_are_those_of_all(
    mixture: Mixture, X: np.ndarray, drop: bool = False, rtol: float = 1e-10
) -> None:
    names: tuple[Answer, ...] = ("labels", "proba", "log_density", "entropy")
    found, expected = (one(mixture, X, *names, drop=drop) for one in (answers, answers_of_all))
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["log_density"], expected["log_density"], rtol=rtol)
    np.testing.assert_allclose(found["proba"], expected["proba"], rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(found["proba"] == 0, expected["proba"] == 0)
    np.testing.assert_allclose(found["entropy"], expected["entropy"], rtol=rtol, atol=rtol)


@pytest.mark.parametrize(("kind", "k", "d", "apart"), CASES)
def test_other_answers_and_scores_miss_nothing(kind: str, k: int, d: int, apart: float) -> None:
    mixture, X = drawn(kind, k, d, apart, 4000, 0)
    assert_answers_are_those_of_all(mixture, X)
    weight = np.random.default_rng(0).exponential(size=len(X))
    weight[1::7] = 0.0

    def score(constants: Tuning) -> RowScores:
        with use_tuning(constants):
            fold = Score(mixture).fold()
            fold.update(0, X, weight)
            return fold.result()

    found, expected = score(tuning().with_changes(candidates=EAGER)), score(without())
    assert found.n_rows == expected.n_rows
    np.testing.assert_allclose(found.weight, expected.weight, rtol=1e-13)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-11)
    np.testing.assert_allclose(found.entropy, expected.entropy, rtol=1e-9, atol=1e-9)


def test_hard_assignment_and_noise_answer_as_before() -> None:
    mixture, X = drawn("full", 64, 20, 5.0, 1500, 8)
    box = Box.of(X.min(axis=0), X.max(axis=0))
    noisy = NoisyMixture(
        mixture.log_weights, mixture.components, FAST, box=box, log_share=np.log(0.1)
    )
    hard = dataclasses.replace(mixture, assignment="hard")
    names: tuple[Answer, ...] = ("proba", "log_density")
    for one in (noisy, hard):
        assert_labels_are_those_of_all(one, X)
        found, expected = answers(one, X, *names), answers_of_all(one, X, *names)
        for name in names:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("kind", ["full", "diag"])
def test_labels_and_densities_agree_with_scikit_learn(kind: str) -> None:
    mixture_module = pytest.importorskip("sklearn.mixture")
    mixture, X = drawn(kind, 64, 16, 3.0, 3000, 5, thin=1.0)
    theirs = mixture_module.GaussianMixture(64, covariance_type=kind)
    attributes = gaussian_of(mixture).attributes()
    theirs.weights_, theirs.means_ = mixture.weights, attributes["means_"]
    theirs.precisions_cholesky_ = attributes["precisions_cholesky_"]
    found = answers(mixture, X, "log_density", "labels")
    np.testing.assert_array_equal(found["labels"], theirs.predict(X))
    np.testing.assert_allclose(found["log_density"], theirs.score_samples(X), rtol=1e-10)


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
