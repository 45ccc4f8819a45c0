"""Pictures of what components are like and how they part: their numbers by independent ways."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from helpers import blobs
from scipy.stats import multivariate_normal, poisson
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import dask_em.plots
from dask_em import (
    CategoricalMixture,
    GaussianMixture,
    KMeans,
    MixedMixture,
    PoissonMixture,
    select,
)
from dask_em.errors import UsageError
from dask_em.report import choices
from dask_em.report.discriminants import discriminants
from dask_em.report.evidence import Evidence
from dask_em.report.merge_tree import mergers_of_rows
from dask_em.report.overlap import overlaps
from dask_em.report.profile_matrix import profile_matrix
from dask_em.report.sections import components, overlap, rows
from dask_em.report.separation import Separation, telling_columns
from dask_em.report.sequence import fit_sequences

mpl = pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
plt = pytest.importorskip("matplotlib.pyplot", reason="the extra `plot` is not installed")

from matplotlib.figure import Figure  # noqa: E402

# What is drawn is asked for by matplotlib's own names, whose types are unions of all they may be.
plots: Any = dask_em.plots


@pytest.fixture(autouse=True)
def no_windows() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


def gaussians(k: int, d: int, seed: int = 0, apart: float = 3.0) -> GaussianMixture:
    """Components of given parameters, of unlike weights, shapes and correlations."""
    rng = np.random.default_rng(seed)
    roots = rng.normal(size=(k, d, d)) / np.sqrt(d)
    covariances = roots @ roots.transpose(0, 2, 1) + 0.3 * np.eye(d)
    weights, means = rng.dirichlet(np.full(k, 5.0)), rng.normal(size=(k, d)) * apart
    return GaussianMixture.from_parameters(weights, means, covariances)


def axes() -> Any:
    return Figure().subplots()


def mixed() -> tuple[Any, Any]:
    """A mixture of words, numbers and counts, and its rows."""
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    rng = np.random.default_rng(0)
    kind = (rng.random(600) < 0.3).astype(int)
    table = pd.DataFrame({
        "word": pd.Categorical(np.array(["no", "yes"])[(rng.random(600) < 0.2 + 0.6 * kind) * 1]),
        "size": rng.normal(4.0 * kind), "visits": rng.poisson(2 + 6 * kind),
    })  # fmt: skip
    return MixedMixture(2, random_state=0).fit(table), table


# -- the profile matrix ------------------------------------------------------------------


def test_the_profile_matrix_is_what_draws_say() -> None:
    model = gaussians(3, 4)
    X, labels = model.sample(200_000)
    ax = plots.profile_matrix(model, axes())
    found = profile_matrix(model)
    columns = found.entries.columns
    wanted = (np.stack([X[labels == k].mean(axis=0) for k in range(3)]) - X.mean(axis=0)) / X.std(0)
    wanted = wanted[np.ix_(found.components, columns)]
    np.testing.assert_allclose(ax.images[0].get_array(), wanted, atol=0.02)
    assert found.weights.tolist() == sorted(model.weights_, reverse=True)
    # Columns by the share of their variance that the components explain, as draws have it.
    within = sum((labels == k).mean() * X[labels == k].var(axis=0) for k in range(3))
    np.testing.assert_array_equal(columns, np.argsort(within / X.var(axis=0)))
    assert [t.get_text() for t in ax.get_xticklabels()] == [f"column {j}" for j in columns]
    written = np.reshape([t.get_text() for t in ax.texts], (3, 4)).astype(float)
    np.testing.assert_allclose(written, found.values, atol=0.051)


def test_categories_are_standardized_as_their_indicators() -> None:
    model, table = mixed()
    labels = np.asarray(model.predict_proba(table))
    found = profile_matrix(model)
    names = found.entries.names
    said = (table["word"].cat.codes == 1).to_numpy()
    # In the maximum of the likelihood responsibilities average to the parameters.
    means = (labels * said[:, None]).sum(axis=0) / labels.sum(axis=0)
    wanted = (means - said.mean()) / said.std()
    place = names.index("word = yes")
    np.testing.assert_allclose(found.values[:, place], wanted[found.components], atol=0.02)
    np.testing.assert_allclose(found.values[:, names.index("word = no")], -found.values[:, place])


def test_a_large_matrix_is_bounded_and_says_what_it_leaves_out() -> None:
    model = gaussians(60, 100, apart=1.0)
    ax = plots.profile_matrix(model, axes())
    assert ax.images[0].get_array().shape == (50, 40)
    assert ax.get_title() == (
        "the 40 of 100 columns that separate best and the 50 heaviest of 60 components"
    )
    assert not ax.texts


# -- overlap -----------------------------------------------------------------------------


def test_overlap_is_exact_and_names_the_worst_pair() -> None:
    model = gaussians(4, 2, seed=3, apart=1.2)
    found = overlaps(model)
    assert found.way == "exact"
    rng, n = np.random.default_rng(1), 40_000
    normals = [multivariate_normal(model.means_[k], model.covariances_[k]) for k in range(4)]
    for i in range(4):
        drawn = rng.multivariate_normal(model.means_[i], model.covariances_[i], n)
        joint = [np.log(model.weights_[k]) + normals[k].logpdf(drawn) for k in range(4)]
        for j in {*range(4)} - {i}:
            p = np.mean(joint[j] > joint[i])
            at = [*found.components].index(i), [*found.components].index(j)
            assert found.values[at] == pytest.approx(p, abs=5 * np.sqrt(0.25 / n))
    assert found.worst is not None
    i, j, there, back = found.worst
    exact = model.overlap()
    assert (there, back) == (exact[i, j], exact[j, i])
    assert there + back == max(exact[a, b] + exact[b, a] for a, b in combinations(range(4), 2))
    ax = plots.overlap(model, ax=axes())
    image = np.ma.filled(ax.images[0].get_array(), 100.0)
    order = found.components
    np.testing.assert_allclose(image, 100 * exact[np.ix_(order, order)])


def test_overlap_of_counts_is_estimated_from_rows_or_draws() -> None:
    rates, weights = np.array([[2.0, 5.0], [4.0, 2.0]]), np.array([0.4, 0.6])
    model = PoissonMixture.from_parameters(weights, rates=rates)
    rng = np.random.default_rng(0)
    X = rng.poisson(rates[(rng.random(40_000) < 0.6).astype(int)])
    grid = np.stack(np.meshgrid(np.arange(40), np.arange(40)), axis=-1).reshape(-1, 2)
    p = np.stack([poisson.pmf(grid, rate).prod(axis=1) for rate in rates])
    ahead = weights[1] * p[1] > weights[0] * p[0]
    wanted = {(0, 1): p[0] @ ahead, (1, 0): p[1] @ ~ahead}
    for rows_given, way, close in ((X, "rows", 0.01), (None, "draws", 0.05)):
        found = overlaps(model, rows_given)
        assert found.way == way
        assert [*found.components] == [1, 0]
        assert found.values[1, 0] == pytest.approx(wanted[0, 1], abs=close)
        assert found.values[0, 1] == pytest.approx(wanted[1, 0], abs=close)
        assert way in found.told


# -- the merge tree ----------------------------------------------------------------------


def test_the_tree_is_that_of_merge() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(0, 1, (900, 1)), rng.uniform(9, 19, (900, 1))])
    model = GaussianMixture(5, random_state=0).fit(X)
    tree = model.merge(X)
    ax = plots.merge_tree(tree, axes())
    order = [int(t.get_text()) for t in ax.get_xticklabels()]
    members: list[set[int]] = [{k} for k in range(5)]
    branches = [one for one in ax.lines if len(one.get_xdata()) == 4]
    assert len(branches) == 4
    middles, tops = {k: float(order.index(k)) for k in range(5)}, dict.fromkeys(range(5), 0.0)
    for i, ((one, other), branch) in enumerate(zip(tree.pairs.tolist(), branches, strict=True)):
        x, y = branch.get_data()
        assert sorted(x[[0, 3]]) == sorted((middles[one], middles[other]))
        assert {*y[[0, 3]]} == {tops[one], tops[other]}
        assert y[1] == y[2] == i + 1
        members.append(members[one] | members[other])
        middles[5 + i], tops[5 + i] = (x[0] + x[3]) / 2, i + 1.0
        # No branches cross: leaves of a cluster are side by side.
        places = sorted(order.index(k) for k in members[-1])
        assert places == [*range(places[0], places[-1] + 1)]
    curve, circle, *_ = ax.child_axes[0].lines
    np.testing.assert_array_equal(curve.get_xdata(), tree.entropies)
    assert circle.get_xydata().tolist() == [
        [tree.entropies[5 - tree.n_clusters], 5 - tree.n_clusters]
    ]
    assert ax.yaxis.get_major_formatter()(5 - tree.n_clusters) == str(tree.n_clusters)
    # The page has no tree of merge, and makes one of its rows.
    again = mergers_of_rows(model, X)
    assert again is not None
    np.testing.assert_array_equal(again.pairs, tree.pairs)
    np.testing.assert_allclose(again.entropies, tree.entropies, atol=1e-12)


# -- the discriminant plane --------------------------------------------------------------


def test_the_plane_is_that_of_linear_discriminant_analysis() -> None:
    X, labels, _ = blobs(600, 5, 4, seed=1)
    X = X @ np.random.default_rng(0).normal(size=(5, 5))
    weights = np.bincount(labels) / len(labels)
    means = np.stack([X[labels == k].mean(axis=0) for k in range(4)])
    covariances = np.stack([np.cov(X[labels == k].T, bias=True) for k in range(4)])
    found = discriminants(GaussianMixture.from_parameters(weights, means, covariances))
    lda = LinearDiscriminantAnalysis(solver="eigen").fit(X, labels)
    ours, theirs = found.project(X), lda.transform(X)[:, :2]
    signs = np.sign((ours * (theirs - theirs.mean(axis=0))).sum(axis=0))
    theirs = (theirs - theirs.mean(axis=0)) * signs
    np.testing.assert_allclose(ours - ours.mean(axis=0), theirs, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.shares, lda.explained_variance_ratio_[:2], rtol=1e-6)
    correlations = np.corrcoef(X.T, ours.T)[:5, 5:]
    np.testing.assert_allclose(found.loadings, correlations, atol=1e-6)


@pytest.mark.parametrize("k", [2, 4])
def test_the_plane_stays_under_affine_maps(k: int) -> None:
    model = gaussians(k, 4, seed=k)
    rng = np.random.default_rng(5)
    turn, shift = rng.normal(size=(4, 4)) * [1e-3, 1.0, 1e3, 1.0], rng.normal(size=4) * 1e3
    moved = GaussianMixture.from_parameters(
        model.weights_, model.means_ @ turn + shift, turn.T @ model.covariances_ @ turn
    )
    X = model.sample(100)[0]
    one, other = discriminants(model), discriminants(moved)
    np.testing.assert_allclose(other.project(X @ turn + shift), one.project(X), atol=1e-5)
    within = sum(w * one.covariance(i) for i, w in enumerate(model.weights_))
    np.testing.assert_allclose(within, np.eye(2), atol=1e-9)


def test_the_plane_has_categories_and_names_what_it_is_of() -> None:
    model, table = mixed()
    codes = np.column_stack([table["word"].cat.codes, table["size"], table["visits"]]).astype(float)
    found = discriminants(model)
    points = found.project(found.entries.rows(model, codes))
    labels = model.predict(table)
    across = points[:, 0]
    # Wherever the classes' means part most, they part on the first axis.
    best = max(
        abs(np.subtract(*(column[labels == k].mean() for k in (0, 1)))) / column.std()
        for column in codes.T
    )
    assert abs(across[labels == 0].mean() - across[labels == 1].mean()) / across.std() > best
    ax = plots.discriminants(model, codes, axes())
    np.testing.assert_allclose(ax.collections[0].get_offsets(), points)
    assert "size" in ax.get_xlabel()
    assert ax.get_xlabel().endswith("(100 % of the separation)")


# -- which columns separate --------------------------------------------------------------


def planted(seed: int = 0) -> GaussianMixture:
    """Of 30 columns 7 has other means, 12 other widths, 3 and 21 another correlation; 8 is 7."""
    rng = np.random.default_rng(seed)
    covariances = np.tile(np.eye(30), (2, 1, 1))
    means = np.zeros((2, 30))
    means[1] += rng.normal(size=30) * 0.1
    means[1, [7, 8]] = 1.8
    covariances[:, 7, 8] = covariances[:, 8, 7] = 0.999
    covariances[1, 12, 12] = 36.0
    covariances[0, 3, 21] = covariances[0, 21, 3] = 0.98
    covariances[1, 3, 21] = covariances[1, 21, 3] = -0.98
    return GaussianMixture.from_parameters([0.5, 0.5], means, covariances)


def test_planted_columns_are_found_by_what_separates() -> None:
    model = planted()
    separation = Separation(model)
    assert telling_columns(model, 1) == [12]
    # Neither of them separates by itself, and both together best of all pairs.
    assert separation.pairs(1) == [(3, 21)]
    chosen = telling_columns(model, 4)
    assert {3, 12, 21} < {*chosen}
    # Of two columns that tell the same one is enough.
    assert len({7, 8} & {*chosen}) == 1
    assert telling_columns(model, 2, among=[0, 1, 7, 12]) == [7, 12]


def test_doubts_bound_the_errors_of_the_best_rule() -> None:
    model = planted()
    doubts = Separation(model).doubts
    n, rng = 50_000, np.random.default_rng(0)
    for j in (7, 12):
        means, widths = model.means_[:, j], np.sqrt(model.covariances_[:, j, j])
        x = rng.normal(means[0], widths[0], n)
        log_odds = np.log(model.describe().marginal(j, x))
        # Bhattacharyya's coefficient, integrated by draws, of which half is at odds.
        coefficient = np.exp((log_odds[1] - log_odds[0]) / 2).mean()
        assert doubts[j] == pytest.approx(coefficient / 2, rel=0.02)


# -- criteria ----------------------------------------------------------------------------


def test_criteria_mark_what_was_chosen_dropped_and_degenerate() -> None:
    status = ["CONVERGED", "CONVERGED", "DROPPED", "DEGENERATE"]
    table = [
        {"n_components": k, "covariance_type": "full", "bic": 9.0 - k, "status": status[k - 1]}
        for k in (1, 2, 3, 4)
    ]
    ax: Any = choices.plot_criterion(table, ax=axes(), chosen=table[1])
    line, circle = ax.lines
    assert line.get_markevery() == [0, 1, 3]
    assert circle.get_xydata().tolist() == [[2, 7.0]]
    hollow, crossed = ax.collections
    assert hollow.get_offsets().tolist() == [[3, 6.0]]
    assert not len(hollow.get_facecolors())
    assert crossed.get_offsets().tolist() == [[4, 5.0]]


def test_a_selection_draws_itself() -> None:
    X = blobs(300, 2, 2, seed=0)[0]
    found = select(X, [1, 2, 3], random_state=0, exhaustive=True)
    public: Any = plots.selection(found, ax=axes())
    mine: Any = found.plot(ax=axes())
    for one, other in zip(mine.lines, public.lines, strict=True):
        np.testing.assert_array_equal(one.get_xydata(), other.get_xydata())
    assert mine.lines[-1].get_xdata().tolist() == [found.best.n_components]
    assert found.plot("aic", axes()).get_ylabel() == "AIC"


# -- marginals of counts, sequences, pages -----------------------------------------------


def test_counts_are_probabilities_over_frequencies() -> None:
    rates, weights = np.array([[1.0, 300.0], [6.0, 500.0]]), np.array([0.3, 0.7])
    model = PoissonMixture.from_parameters(weights, rates=rates)
    rng = np.random.default_rng(0)
    X = rng.poisson(rates[(rng.random(2000) < 0.7).astype(int)])
    ax = plots.marginal(model, 0, X, axes())
    assert ax.get_ylabel() == "probability"
    first, second, whole = (line.get_xydata() for line in ax.lines)
    for (x, y), part in zip((first.T, second.T), range(2), strict=True):
        np.testing.assert_allclose(y, weights[part] * poisson.pmf(x, rates[part, 0]))
    np.testing.assert_allclose(whole[:, 1], first[:, 1] + second[:, 1])
    centres = np.array([bar.get_x() + bar.get_width() / 2 for bar in ax.patches])
    heights = np.array([bar.get_height() for bar in ax.patches])
    wanted = np.bincount(X[:, 0], minlength=int(centres.max()) + 1) / len(X)
    np.testing.assert_allclose(heights, wanted[np.rint(centres).astype(int)])
    assert heights.sum() == pytest.approx(1)
    # Of a wide range frequencies are of several counts, and remain those of one.
    wide = plots.marginal(model, 1, X, axes())
    area = sum(bar.get_height() * bar.get_width() / 0.9 for bar in wide.patches)
    assert area == pytest.approx(1)
    x, y = wide.lines[-1].get_data()
    np.testing.assert_allclose(y, weights @ poisson.pmf(x, rates[:, [1]]))


def test_iterations_are_fitted_and_drawn_by_one_call() -> None:
    X = blobs(200, 2, 3, seed=4)[0]
    figure = Figure()
    drawn = plots.iterations(X, n_components=3, n_drawn=3, random_state=1, figure=figure)
    runs = fit_sequences(X, 3, random_state=1)
    again = plots.iterations(runs, X, n_drawn=3, figure=Figure())
    assert [ax.get_title() for ax in drawn] == [ax.get_title() for ax in again]
    assert [ax.get_ylabel() for ax in drawn[:4:3]] == ["K-means", "EM"]
    # Both begin at the same rows, and end where their own estimators do.
    starts = [states[0].mixture.components.moments()[0] for states in runs.values()]
    np.testing.assert_allclose(starts[0], starts[1])
    assert {*map(tuple, starts[0].round(9).tolist())} <= {*map(tuple, X.round(9).tolist())}
    fitted = KMeans(3, init=starts[0], algorithm="lloyd", tol=0).fit(X)
    np.testing.assert_allclose(
        runs["K-means"][-1].mixture.components.moments()[0], fitted.cluster_centers_
    )
    with pytest.raises(UsageError, match="n_components is 999, expected from 1 to 200"):
        plots.iterations(X, n_components=999)
    call: Any = plots.iterations
    with pytest.raises(UsageError, match="expected their number of components"):
        call(X)
    with pytest.raises(UsageError, match="expected their rows"):
        call(runs)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_pages_have_the_pictures_for_which_there_are_numbers() -> None:
    def titles(model: Any, X: Any) -> list[str]:
        evidence = Evidence(rows=X)
        makers = (*components.DRAWINGS, *overlap.DRAWINGS, *rows.DRAWINGS)
        found = [one.title for make in makers for one in make(model, evidence)]
        assert len(found) == len({*found})
        return found

    X = blobs(200, 4, 3, seed=4)[0]
    codes = np.random.default_rng(0).integers(3, size=(200, 3)).astype(float)
    plane = "The plane in which the components are farthest apart"
    every = {"Profile matrix", "Overlap of the components", "Merge tree", plane}
    gaussian = GaussianMixture(3, random_state=0).fit(X)
    assert every <= {*titles(gaussian, X)}
    assert len([t for t in titles(gaussian, X) if " and " in t]) == 6
    assert every - {*titles(gaussian, None)} == {"Merge tree"}
    assert every <= {*titles(CategoricalMixture(2, random_state=0).fit(codes), codes)}
    assert every - {*titles(KMeans(3, random_state=0).fit(X), X)} == {"Merge tree"}
    assert not every & {*titles(GaussianMixture(1).fit(X), X)}
    assert overlap.overlap_section(GaussianMixture(1).fit(X), Evidence(rows=X)) is None
