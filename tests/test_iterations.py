"""Pictures of fits iteration by iteration: what each panel shows is what its pass was made at."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from helpers import blobs
from scipy.stats import multivariate_normal

from dask_em import GaussianMixture, KMeans, StudentTMixture
from dask_em.core.em import EMState
from dask_em.errors import UsageError
from dask_em.estimators.describe import colour
from dask_em.jobs.demo import three_clusters

mpl = pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
plt = pytest.importorskip("matplotlib.pyplot", reason="the extra `plot` is not installed")

from dask_em.report.iterations import (  # noqa: E402
    objective_of,
    plot_iterations,
    plot_objective,
    plot_state,
    spread_numbers,
)

X, START = three_clusters()


@pytest.fixture(autouse=True)
def no_windows() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


@pytest.fixture(scope="module")
def kmeans() -> tuple[KMeans, list[EMState]]:
    states: list[EMState] = []
    model = KMeans(3, init=START, algorithm="lloyd", tol=0, callbacks=[states.append])
    return model.fit(X), states


@pytest.fixture(scope="module")
def em() -> tuple[GaussianMixture, list[EMState]]:
    states: list[EMState] = []
    model = GaussianMixture(
        3, weights_init=[0.2, 0.3, 0.5], means_init=START, precisions_init=[np.eye(2)] * 3,
        algorithm="em", tol=1e-4, callbacks=[states.append],
    )  # fmt: skip
    return model.fit(X), states


def colours_of(ax: Any) -> np.ndarray:
    """The colour of each row, (n, 3)."""
    return ax.collections[0].get_facecolors()[:, :3]


def rgb(k: int) -> tuple[float, ...]:
    return mpl.colors.to_rgb(colour(k))


def full_covariance(kind: str, covariances: np.ndarray, k: int) -> np.ndarray:
    """The covariance of a component, whatever scikit-learn stores of it."""
    if kind == "tied":
        return covariances
    own = covariances[k]
    return own if kind == "full" else np.diag(np.broadcast_to(own, 3))


def test_rows_of_a_hard_assignment_have_the_colours_of_their_clusters(kmeans: Any) -> None:
    model, states = kmeans
    ax = plot_state(states[-1], X)
    np.testing.assert_allclose(colours_of(ax), [rgb(k) for k in model.labels_])
    assert not ax.patches
    assert ax.get_title() == f"iteration {model.n_iter_}"


def test_rows_have_the_colours_of_the_components_mixed_by_responsibilities(em: Any) -> None:
    _, states = em
    ax = plot_state(states[0], X)
    joint = np.array([0.2, 0.3, 0.5]) * np.stack(
        [multivariate_normal(mean, np.eye(2)).pdf(X) for mean in START], axis=1
    )
    resp = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(colours_of(ax), resp @ [rgb(k) for k in range(3)], atol=1e-9)
    assert ax.get_title() == "start"


def test_ellipses_and_centres_are_those_of_the_pass(kind: str) -> None:
    rows, states = blobs(300, 3, 3, seed=1)[0], list[EMState]()
    GaussianMixture(
        3, covariance_type=kind, algorithm="em", init_params="k-means++", tol=0.1, random_state=0,
        callbacks=[states.append],
    ).fit(rows)  # fmt: skip
    for state in states:
        ax: Any = plot_state(state, rows, (2, 0), before=states[:1])
        found = state.mixture.components.attributes()
        for k in range(3):
            full = full_covariance(kind, found["covariances_"], k)[np.ix_([2, 0], [2, 0])]
            for outline, deviations in zip(ax.patches[2 * k : 2 * k + 2], (1, 2), strict=True):
                off = outline.get_patch_transform().transform([[1, 0], [0, 1], [0.6, 0.8]])
                off = off - found["means_"][k, [2, 0]]
                squares = np.einsum("ni,ij,nj->n", off, np.linalg.inv(full), off)
                np.testing.assert_allclose(squares, deviations**2, rtol=1e-8)
            path, centre = ax.lines[2 * k : 2 * k + 2]
            started = states[0].mixture.components.attributes()["means_"][k, [2, 0]]
            np.testing.assert_allclose(path.get_xydata()[0], started)
            np.testing.assert_allclose(centre.get_xydata(), [found["means_"][k, [2, 0]]])


def test_components_without_a_variance_have_no_ellipse() -> None:
    rows = np.random.default_rng(0).standard_cauchy((500, 2))
    state = StudentTMixture(1, df=1.0, random_state=0).fit(rows).state_
    ax = plot_state(state, rows)
    assert not ax.patches
    assert len(colours_of(ax)) == 500


def test_the_objective_is_that_of_the_fit(kmeans: Any, em: Any) -> None:
    (km, hard), (gm, soft) = kmeans, em
    assert objective_of(hard[-1]).value == pytest.approx(km.inertia_)
    assert objective_of(soft[-1]).value == pytest.approx(gm.lower_bound_)
    for (sign, states), name in (((-1, hard), "inertia"), ((1, soft), "log-likelihood")):
        ax = plot_objective(states)
        numbers, values = map(np.asarray, ax.lines[0].get_data())
        np.testing.assert_array_equal(numbers, range(len(states)))
        assert (np.diff(values) * sign >= -1e-9 * abs(values[0])).all()
        assert ax.get_title() == name
    squares = ((X[:, None] - START) ** 2).sum(axis=2).min(axis=1)
    assert objective_of(hard[0]).value == pytest.approx(squares.sum())


def test_fits_are_side_by_side(kmeans: Any, em: Any) -> None:
    (_, hard), (_, soft) = kmeans, em
    runs = {"K-means": hard[:3], "EM": soft}
    figure = plt.figure(layout="constrained")
    axes = plot_iterations(runs, X, n_drawn=4, figure=figure)
    figure.canvas.draw()
    assert len(axes) == 3 + 4 + 2
    assert all(ax.has_data() for ax in axes)
    assert [ax.get_title() for ax in axes[:3]] == ["start", "iteration 1", "iteration 2"]
    assert axes[3].get_title() == "start"
    assert axes[6].get_title() == f"iteration {len(soft) - 1}"
    assert [axes[i].get_ylabel() for i in (0, 1, 3)] == ["K-means", "", "EM"]
    assert [ax.get_title() for ax in axes[7:]] == ["K-means: inertia", "EM: log-likelihood"]
    assert axes[-1].lines[0].get_markevery() == spread_numbers(len(soft), 4)
    for ax in axes[:7]:
        (left, right), (low, high) = ax.get_xlim(), ax.get_ylim()
        assert ((left < X[:, 0]) & (X[:, 0] < right)).all()
        assert ((low < X[:, 1]) & (X[:, 1] < high)).all()


def test_a_new_figure_is_made_where_none_is_given(em: Any) -> None:
    axes = plot_iterations({"EM": em[1]}, X)
    assert len(axes) == 6 + 1
    assert {ax.figure.figure for ax in axes} == {plt.gcf()}


@pytest.mark.parametrize("most", range(2, 12))
def test_iterations_that_are_drawn_begin_and_end_with_the_fit(most: int) -> None:
    for n in range(2, 300):
        found = spread_numbers(n, most)
        assert (found[0], found[-1], len(found)) == (0, n - 1, min(n, most))
        assert (np.diff(found) > 0).all()


def test_what_cannot_be_drawn_is_refused(em: Any) -> None:
    states = em[1]
    with pytest.raises(UsageError, match=r"runs\['EM'\] is empty: expected the states"):
        plot_iterations({"EM": []}, X)
    with pytest.raises(UsageError, match="states is empty"):
        plot_objective([])
    with pytest.raises(UsageError, match="runs has 0 fits"):
        plot_iterations({}, X)
    with pytest.raises(UsageError, match="n_drawn is 1: expected"):
        plot_iterations({"EM": states}, X, n_drawn=1)
    with pytest.raises(UsageError, match=r"X has shape \(900, 1\), expected rows of 2 columns"):
        plot_iterations({"EM": states}, X[:, :1])
    with pytest.raises(UsageError, match="column 2: the model has 2 columns"):
        plot_state(states[0], X, (0, 2))
