"""Comparison of two models: components, labels and likelihoods, beside other programs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from helpers import blobs, write_zarr
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.exceptions import NotFittedError
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from dask_em import (
    CategoricalMixture,
    GaussianMixture,
    KMeans,
    PoissonMixture,
    StudentTMixture,
    compare,
    load,
    write_report,
)
from dask_em.cli.main import main
from dask_em.core.agreement import Agreement
from dask_em.errors import UsageError
from dask_em.estimators.compare import Comparison
from dask_em.estimators.matching import Pair
from dask_em.report.comparison import comparison_html, sentences

X = blobs(1500, 3, 4, apart=3.0)[0]
OTHERS = blobs(1500, 3, 4, apart=3.0, seed=1)[0]


def gaussian(k: int, rows: Any = X, **options: Any) -> GaussianMixture:
    return GaussianMixture(k, **{"random_state": 0, **options}).fit(rows)


@pytest.fixture(scope="module")
def four() -> GaussianMixture:
    return gaussian(4)


@pytest.fixture(scope="module")
def three() -> GaussianMixture:
    return gaussian(3, covariance_type="diag")


def pairs_of(found: Comparison) -> tuple[Pair, ...]:
    assert found.pairs is not None
    return found.pairs


def rows_of(found: Comparison) -> Agreement:
    assert found.rows is not None
    return found.rows


def renumbered(model: GaussianMixture, order: list[int], rows: np.ndarray) -> GaussianMixture:
    """The same mixture with its components in another order."""
    return GaussianMixture(
        len(order),
        weights_init=model.weights_[order],
        means_init=model.means_[order],
        precisions_init=model.precisions_[order],
        tol=1e-3,
        random_state=0,
    ).fit(rows)


# -- beside other programs -----------------------------------------------------------


def test_labels_and_likelihoods_are_those_of_other_programs(
    four: GaussianMixture, three: GaussianMixture
) -> None:
    found = rows_of(compare(four, three, OTHERS))
    labels = four.predict(OTHERS), three.predict(OTHERS)
    assert found.adjusted_rand == pytest.approx(adjusted_rand_score(*labels), rel=1e-12)
    full = np.zeros((4, 3))
    table = contingency_matrix(*labels)
    full[np.ix_(np.unique(labels[0]), np.unique(labels[1]))] = table
    assert found.table.tolist() == full.tolist()
    apart = three.score_samples(OTHERS) - four.score_samples(OTHERS)
    assert found.mean_difference == pytest.approx(apart.mean(), rel=1e-12)
    expected = apart.std(ddof=1) / np.sqrt(len(apart))
    assert found.standard_error == pytest.approx(expected, rel=1e-9)


def test_distances_are_the_integrals() -> None:
    rng = np.random.default_rng(2)
    a = gaussian(1, rng.normal(0.0, 1.0, (400, 1)))
    b = gaussian(1, rng.normal(1.5, 2.0, (400, 1)))
    (pair,) = pairs_of(compare(a, b))
    one, two = (
        norm(float(model.means_[0, 0]), float(np.sqrt(model.covariances_[0, 0, 0])))
        for model in (a, b)
    )
    overlap = quad(lambda x: np.sqrt(one.pdf(x) * two.pdf(x)), -20, 20)[0]
    assert pair.distance == pytest.approx(-np.log(overlap), rel=1e-6)
    assert {move.what for move in pair.moves} == {"mean", "deviation"}


def test_standard_errors_cover_the_difference() -> None:
    """Of 150 samples the intervals of two standard errors hold the expectation in 95 %."""
    rng = np.random.default_rng(3)
    a, b = gaussian(2, covariance_type="diag"), gaussian(3, covariance_type="spherical")
    many = gaussian(4).sample(200_000)[0]
    truth = float((b.score_samples(many) - a.score_samples(many)).mean())
    held = 0
    for _ in range(150):
        rows = many[rng.integers(0, len(many), 500)]
        found = rows_of(compare(a, b, rows))
        held += abs(found.mean_difference - truth) < 1.96 * found.standard_error
    assert 0.9 <= held / 150 <= 0.99


# -- laws ------------------------------------------------------------------------------


def test_the_same_model_moved_nowhere(four: GaussianMixture) -> None:
    found = compare(four, four, X)
    assert found.same_data
    assert [(one.first, one.second, one.moves) for one in pairs_of(found)] == [
        (k, k, ()) for k in range(4)
    ]
    assert max(one.distance for one in pairs_of(found)) < 1e-12
    rows = rows_of(found)
    assert (rows.adjusted_rand, rows.mean_difference, rows.standard_error) == (1.0, 0.0, 0.0)


def test_other_numbers_of_components_are_found(four: GaussianMixture) -> None:
    order = [2, 0, 3, 1]
    found = compare(four, renumbered(four, order, X), X)
    assert [one.second for one in pairs_of(found)] == np.argsort(order).tolist()
    assert rows_of(found).adjusted_rand > 0.99


def test_components_too_many_are_matched_to_none(
    four: GaussianMixture, three: GaussianMixture
) -> None:
    found, back = compare(four, three), compare(three, four)
    assert [len(numbers) for numbers in found.without] == [1, 0]
    assert back.without == found.without[::-1]
    ways = [
        {(one.first, one.second): round(one.distance, 9) for one in pairs_of(found)},
        {(one.second, one.first): round(one.distance, 9) for one in pairs_of(back)},
    ]
    assert ways[0] == ways[1]
    assert found.rows is None


@pytest.mark.parametrize("chunks", [100, 333, 1500])
def test_any_chunks_are_one(chunks: int, four: GaussianMixture, three: GaussianMixture) -> None:
    whole = rows_of(compare(four, three, X))
    found = rows_of(compare(four, three, da.from_array(X, chunks=(chunks, 3))))
    assert found.table.tolist() == whole.table.tolist()
    assert found.mean_difference == pytest.approx(whole.mean_difference, rel=1e-12)
    assert found.standard_error == pytest.approx(whole.standard_error, rel=1e-9)


def test_a_weight_is_so_many_rows(four: GaussianMixture, three: GaussianMixture) -> None:
    weights = np.random.default_rng(4).integers(0, 4, len(X))
    found = rows_of(compare(four, three, X, sample_weight=weights.astype(float)))
    again = rows_of(compare(four, three, np.repeat(X, weights, axis=0)))
    assert found.table.tolist() == again.table.tolist()
    assert found.adjusted_rand == pytest.approx(again.adjusted_rand, rel=1e-12)
    assert found.standard_error == pytest.approx(again.standard_error, rel=1e-9)


def test_units_and_origins_change_no_distance() -> None:
    kinds = {4: "full", 3: "diag"}
    scale, shift = np.array([1e-6, 1.0, 1e4]), np.array([0.0, 1e8, -5.0])
    stay, moved = (
        compare(
            *(gaussian(k, rows, covariance_type=kind, reg_covar=0.0) for k, kind in kinds.items())
        )
        for rows in (X, X * scale + shift)
    )
    for one, two in zip(pairs_of(stay), pairs_of(moved), strict=True):
        assert two.distance == pytest.approx(one.distance, rel=1e-3)


def test_rows_left_out_are_counted() -> None:
    holed = X.copy()
    holed[:7, 1] = np.nan
    with pytest.warns(UserWarning, match="7 rows"):
        a, b = (gaussian(k, holed, nonfinite="drop") for k in (2, 3))
    found = compare(a, b, holed)
    assert (found.n_dropped, rows_of(found).weight) == (7, len(X) - 7)


# -- other families and columns -----------------------------------------------------------


def test_columns_are_found_by_their_names(four: GaussianMixture) -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["x", "y", "z"])
    other = frame[["z", "x", "y"]]
    a, b = gaussian(4, frame), gaussian(4, other)
    found = compare(a, b, frame)
    assert max(one.distance for one in pairs_of(found)) < 0.02
    assert rows_of(found).adjusted_rand > 0.98
    expected = (b.score_samples(other) - a.score_samples(frame)).mean()
    assert rows_of(found).mean_difference == pytest.approx(expected, rel=1e-9)
    assert abs(expected) < 0.05
    # The other way round, too.
    assert rows_of(compare(b, a, other)).mean_difference == pytest.approx(-expected, rel=1e-9)
    assert len(pairs_of(compare(a, four))) == 4


def test_other_columns_cannot_be_compared() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(X, columns=["x", "y", "z"])
    a, b = gaussian(2, frame), gaussian(2, frame.rename(columns={"z": "w"}))
    found = compare(a, b)
    assert (found.pairs, found.same_data) == (None, True)
    assert "the second model has no column 'z'" in found.cannot[0]
    with pytest.raises(UsageError, match="has no column 'z'"):
        compare(a, b, frame)
    with pytest.raises(UsageError, match="the models have 3 and 2 columns"):
        compare(a, gaussian(2, X[:, :2]), frame)


def test_student_t_is_compared_by_its_moments(four: GaussianMixture) -> None:
    found = compare(four, StudentTMixture(4, random_state=0).fit(X), X)
    assert max(one.distance for one in pairs_of(found)) < 0.1
    assert found.cannot == ()
    assert found.as_dict()["rows"]["difference"] is not None


def test_categories_are_compared_by_their_shares() -> None:
    rng = np.random.default_rng(5)
    groups = rng.integers(0, 2, 2000)[:, None]
    rows = (rng.random((2000, 4)) < np.where(groups, 0.9, 0.2)) + rng.integers(0, 2, (2000, 4))
    a = CategoricalMixture(2, random_state=0).fit(rows[:1000])
    b = CategoricalMixture(2, random_state=0).fit(rows[1000:])
    found = compare(a, b, rows)
    assert not found.same_data
    assert max(one.distance for one in pairs_of(found)) < 0.05
    assert {move.what for one in pairs_of(found) for move in one.moves} == {"share"}
    expected = adjusted_rand_score(a.predict(rows), b.predict(rows))
    assert rows_of(found).adjusted_rand == pytest.approx(expected, rel=1e-12)


def test_likelihoods_of_other_kinds_are_not_compared(four: GaussianMixture) -> None:
    found = compare(four, KMeans(4, random_state=0).fit(X), X)
    assert "assignment" in found.cannot[0]
    assert rows_of(found).adjusted_rand > 0.6
    assert found.as_dict()["rows"]["difference"] is None
    rates = np.repeat([[2.0, 9.0], [12.0, 30.0]], 250, axis=0)
    counts = np.random.default_rng(6).poisson(rates)
    found = compare(gaussian(2, counts), PoissonMixture(2, random_state=0).fit(counts), counts)
    assert found.cannot[0].startswith("log-likelihoods: models of the families")
    assert found.pairs is not None


def test_what_is_no_model(four: GaussianMixture) -> None:
    with pytest.raises(TypeError, match="b is 'other', expected a fitted mixture"):
        compare(four, "other")  # type: ignore[arg-type]
    with pytest.raises(NotFittedError, match="a is a GaussianMixture that is not fitted"):
        compare(GaussianMixture(2), four)


# -- in a shell --------------------------------------------------------------------------


@pytest.fixture
def folder(
    four: GaussianMixture,
    three: GaussianMixture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    monkeypatch.chdir(tmp_path)
    four.save("a.npz")
    three.save("b.npz")
    write_zarr("x.zarr", X, 400)
    return tmp_path


def test_the_command_tells_what_python_does(
    folder: Path, four: GaussianMixture, three: GaussianMixture
) -> None:
    asked = ["compare", "a.npz", "b.npz", "--data", "x.zarr"]
    done = CliRunner().invoke(main, [*asked, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    expected = compare(four, three, "x.zarr").as_dict()
    for one in told["models"]:
        one.pop("model")
    assert {name: told[name] for name in expected} == expected
    assert [one["n_components"] for one in told["models"]] == [4, 3]
    lines = CliRunner().invoke(main, asked).stdout
    for text in ("adjusted Rand index", "standard error", "only in A: components", "both were fit"):
        assert text in lines


def test_the_command_without_data(folder: Path) -> None:
    done = CliRunner().invoke(main, ["compare", "a.npz", "b.npz"])
    assert (done.exit_code, "adjusted" in done.stdout) == (0, False), done.output
    refused = CliRunner().invoke(main, ["compare", "a.npz", "b.npz", "--weights", "w"])
    assert (refused.exit_code, "pass --data DATA" in refused.stderr) == (2, True)


def test_noise_is_a_label_of_its_own() -> None:
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(300, 2)), rng.uniform(-20, 20, (200, 2))])
    noisy = GaussianMixture(1, noise=True, random_state=0).fit(X)
    plain = GaussianMixture(1, random_state=0).fit(X)
    found = compare(noisy, plain, X).rows
    assert found is not None
    assert found.table.shape == (2, 1)
    assert found.table[1, 0] == (noisy.predict(X) == -1).sum() > 100
    assert found.mean_difference == pytest.approx(plain.score(X) - noisy.score(X))


# -- a page ------------------------------------------------------------------------------


def test_the_page_of_the_command_says_what_the_comparison_does(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    asked = ["compare", "a.npz", "b.npz", "--data", "x.zarr", "--page", "p.html"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 0, done.output
    assert "page         p.html" in done.stdout
    page = Path("p.html").read_text()
    found = compare(load("a.npz"), load("b.npz"), "x.zarr")
    rows = rows_of(found)
    assert f"adjusted Rand index is {rows.adjusted_rand:.3f}" in page
    for value in (rows.mean_difference, rows.standard_error, *rows.table.ravel()):
        assert re.search(rf"data-value=\"{float(value)!r}\"|{abs(value):.4g}|{value:.2g}", page)
    assert page.count("<tr") >= 1 + len(pairs_of(found)) + len(rows.table)
    for title in ("Matched components", "Moved parameters", "Agreement of labels", "Provenance"):
        assert f"<h2>{title}</h2>" in page
    assert (CliRunner().invoke(main, asked).exit_code, len(page) < 200_000) == (73, True)
    assert CliRunner().invoke(main, [*asked, "--overwrite"]).exit_code == 0
    assert CliRunner().invoke(main, [*asked[:5], "--page", "a.npz"]).exit_code == 73


def test_pages_in_python_say_what_is_left_out(
    four: GaussianMixture, three: GaussianMixture, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    write_report(compare(four, three), tmp_path / "p.html")
    page = (tmp_path / "p.html").read_text()
    assert "Labels and likelihoods of rows, for which no data were given." in page
    assert re.search(r"Component \d of A has no counterpart in B", page)
    with pytest.raises(UsageError, match=r"X goes to compare\(a, b, X\)"):
        write_report(compare(four, three), tmp_path / "q.html", X)
    other = GaussianMixture(1).fit(X[:, :2])
    assert "Not compared: components and rows" in comparison_html(compare(four, other).as_dict())


def test_words_of_a_page_follow_the_numbers(four: GaussianMixture) -> None:
    same = sentences(compare(four, four, X).as_dict())
    assert same[0] == "Both give every row the same density: no row can tell them apart."
    assert same[1].startswith("The labels group the rows alike: the adjusted Rand index is 1.000")
    assert same[2] == "No matched component moved by more than a twentieth of its width."
    better = sentences(compare(gaussian(1), four, X).as_dict())
    assert better[0].startswith("B describes the rows better, by ")
    # A hundredth of a standard deviation is no difference that forty rows could show.
    near = gaussian(1)
    near.means_ = near.means_ + 0.01 * X.std(axis=0)
    chance = sentences(compare(gaussian(1), near, X[:40]).as_dict())
    assert chance[0].startswith("The rows do not say which model describes them better")


def test_names_in_a_page_are_only_shown(tmp_path: Path) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    rows = pd.DataFrame(X[:, :2], columns=["<script>alert(1)</script>", "$x_1$"])
    found = compare(gaussian(1, rows), gaussian(2, rows + 1.0))
    page = comparison_html(found.as_dict())
    assert "<script>alert" not in page
    assert page.isascii()
