"""The report: pictures of any model, a page that needs nothing else, drift that is found."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import sklearn
import zarr
from click.testing import CliRunner, Result
from helpers import KINDS, Tune, blobs, write_zarr
from pages import seen
from scipy.special import gammaln

from dask_em import GaussianMixture, load
from dask_em.cli.main import main
from dask_em.core.em import Status
from dask_em.core.objective import Objective
from dask_em.core.profile import means_profile
from dask_em.data.open import stored_source
from dask_em.errors import DataError, OutputExistsError, UsageError
from dask_em.estimators.html import summary_html
from dask_em.jobs import report as report_jobs
from dask_em.jobs.demo import make_demo_data
from dask_em.report import choices, plots
from dask_em.report import page as report
from dask_em.report.drift import (
    ChunkDensities,
    Densities,
    chunk_densities,
    sample_rows,
)
from dask_em.report.evidence import Evidence
from dask_em.report.page import report_html, write_page

mpl = pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
plt = pytest.importorskip("matplotlib.pyplot", reason="the extra `plot` is not installed")
pd = pytest.importorskip("pandas", reason="pandas is not installed")

EVIL = ["<script>alert(1)</script>", "$x_{1$ & b", "'\"><img src=x onerror=alert(2)>"]
LOCAL = ["--workers", "1", "--memory-limit", "1GiB"]


@pytest.fixture(autouse=True)
def no_windows() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch, tune: Tune) -> None:
    """Chunks of a store stay apart, however few bytes they hold."""
    tune(reading={"bytes": 1600})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 20 chunks and a model fitted to it."""
    path = tmp_path_factory.mktemp("report")
    X, _, _ = blobs(4000, 3, 2)
    write_zarr(path / "points.zarr", X, 200)
    GaussianMixture(2, random_state=0).fit(str(path / "points.zarr")).save(path / "model.npz")
    return path


def command(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["report", *map(str, arguments)])
    assert "Traceback" not in result.stderr
    return result


def fitted(kind: str, d: int, k: int = 3, n: int = 300) -> tuple[GaussianMixture, np.ndarray]:
    X, _, _ = blobs(n, d, k, seed=d)
    model = GaussianMixture(
        k,
        covariance_type=kind,
        algorithm="em",
        init_params="k-means++",
        tol=0.1,
        random_state=0,
    )
    return model.fit(X), X


# -- pictures --------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_picture_of_every_structure(kind: str, d: int) -> None:
    model, X = fitted(kind, d)
    figure, axes = plt.subplots(2, 4)
    spare = iter(axes.flat)
    drawn = [
        plots.plot_weights(model, next(spare)),
        plots.plot_log_likelihood(model, next(spare)),
        plots.plot_sharpness(model, X, next(spare)),
        plots.plot_profiles(model, next(spare)),
        plots.plot_marginal(model, d - 1, X, next(spare)),
        plots.plot_marginal(model, ax=next(spare)),
        plots.plot_drift(chunk_densities(model, X), next(spare)),
    ]
    if d > 1:
        drawn.append(plots.plot_components(model, X, (0, d - 1), next(spare)))
    for ax in drawn:
        assert isinstance(ax, mpl.axes.Axes)
        assert ax.figure is figure
        assert ax.has_data()
    figure.canvas.draw()


@pytest.mark.parametrize("d", [1, 3, 6])
def test_pairs_are_a_square_of_axes(d: int) -> None:
    model, X = fitted("diag", d)
    axes = plots.plot_pairs(model, X)
    assert axes.shape == (min(d, 4),) * 2
    assert all(isinstance(ax, mpl.axes.Axes) and ax.has_data() for ax in axes.flat)


@pytest.mark.filterwarnings("ignore:degenerate components. component . has .* rows, fewer than")
def test_many_columns_are_numbered() -> None:
    model, _ = fitted("full", 15)
    ax = plots.plot_profiles(model)
    assert ax.get_xlabel() == "column"
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), range(15))


def test_a_picture_goes_where_it_is_told() -> None:
    model, X = fitted("full", 2)
    _, ax = plt.subplots()
    assert plots.plot_components(model, X, ax=ax) is ax
    assert plots.plot_weights(model, ax=ax) is ax
    _, axes = plt.subplots(2, 2)
    assert plots.plot_pairs(model, X, axes=axes)[0, 1] is axes[0, 1]
    with pytest.raises(UsageError, match=r"axes has shape \(2, 2\), expected \(1, 1\)"):
        plots.plot_pairs(model, X, [0], axes)


@pytest.mark.parametrize("kind", KINDS)
def test_ellipses_are_the_covariances(kind: str) -> None:
    model, X = fitted(kind, 3)
    outlines: Any = plots.plot_components(model, X, (2, 0)).patches
    reference = model.to_sklearn()
    for k in range(3):
        full = {
            "full": lambda k=k: reference.covariances_[k],
            "tied": lambda: reference.covariances_,
            "diag": lambda k=k: np.diag(reference.covariances_[k]),
            "spherical": lambda k=k: reference.covariances_[k] * np.eye(3),
        }[kind]()
        one, two = outlines[2 * k : 2 * k + 2]
        np.testing.assert_allclose(one.center, model.means_[k, [2, 0]])
        # A circle of radius 1 goes through Sigma^(1/2): x^T Sigma^-1 x is 1 on the ellipse.
        for outline, deviations in ((one, 1), (two, 2)):
            on_it = outline.get_patch_transform().transform([[1, 0], [0, 1], [0.6, 0.8]])
            off = on_it - model.means_[k, [2, 0]]
            inverse = np.linalg.inv(full[np.ix_([2, 0], [2, 0])])
            squares = np.einsum("ni,ij,nj->n", off, inverse, off)
            np.testing.assert_allclose(squares, deviations**2, rtol=1e-8)


def test_the_marginal_is_a_density(kind: str) -> None:
    model, _ = fitted(kind, 2)
    x, total = map(np.asarray, plots.plot_marginal(model, 1).lines[-1].get_data())
    assert np.trapezoid(total, x) == pytest.approx(1, abs=1e-3)


def test_rejected_steps_are_marked() -> None:
    model, _ = fitted("full", 2)
    values = [-3.0, -2.0, -2.5, -1.0, -0.9]
    model.history_ = [
        {"phase": "em", "number": i + 1, "log_likelihood": v} for i, v in enumerate(values)
    ]
    model.history_[4]["accepted"] = False
    climbed, rejected = plots.plot_log_likelihood(model).lines
    np.testing.assert_array_equal(climbed.get_xdata(), [1, 2, 4])
    np.testing.assert_array_equal(rejected.get_xdata(), [3, 5])
    # What the record says counts, not what its number looks like.
    model.history_[2]["accepted"] = True
    climbed, _ = plots.plot_log_likelihood(model).lines
    np.testing.assert_array_equal(climbed.get_xdata(), [1, 2, 3, 4])


def selection() -> list[dict[str, Any]]:
    return [
        {
            "n_components": k, "covariance_type": kind, "log_likelihood": -5.0, "n_parameters": k,
            "aic": 10.0, "bic": 100.0 + (k - 3) ** 2 + shift, "icl": None if k > 3 else 1.0 * k,
            "passes": 4, "status": "CONVERGED",
        }
        for shift, kind in enumerate(["diag", "full"])
        for k in range(1, 6)
    ]  # fmt: skip


def test_the_lowest_criterion_is_circled() -> None:
    diag, full, best = choices.plot_criterion(selection()).lines
    np.testing.assert_array_equal(diag.get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(full.get_ydata(), np.asarray(diag.get_ydata()) + 1)
    np.testing.assert_array_equal(best.get_data(), [[3], [100.0]])
    assert np.shape(choices.plot_criterion(selection(), "icl").lines[0].get_xdata()) == (3,)
    with pytest.raises(UsageError, match="no candidate has a finite 'aicc'"):
        choices.plot_criterion(selection(), "aicc")


def test_a_dropped_candidate_has_no_dot_and_no_circle() -> None:
    candidates = selection()
    candidates[2]["status"] = "DROPPED"
    diag, full, best = choices.plot_criterion(candidates).lines
    assert (diag.get_markevery(), full.get_markevery()) == ([0, 1, 3, 4], [0, 1, 2, 3, 4])
    # Two and four components of the first structure and three of the second have the same.
    assert np.asarray(best.get_ydata())[0] == 101.0


def test_pictures_refuse_what_is_not_there() -> None:
    model, X = fitted("full", 2)
    with pytest.raises(UsageError, match="column 2: the model has 2 columns"):
        plots.plot_marginal(model, 2)
    with pytest.raises(UsageError, match=r"X has shape \(300, 1\), expected rows of 2 columns"):
        plots.plot_sharpness(model, X[:, :1])


def test_the_telling_columns_tell() -> None:
    model, _ = fitted("diag", 6, k=2)
    model.weights_ = np.array([0.5, 0.5])
    model.means_ = np.array([np.zeros(6), [50.0, 0.0, 0.0, 0.0, 9.0, 2.0]])
    model.covariances_ = np.tile([1e4, 1.0, 1.0, 1.0, 1.0, 1.0], (2, 1))
    assert plots.telling_columns(model, 1) == [4]
    assert plots.telling_columns(model, 2) == [4, 5]
    assert len(plots.telling_columns(model)) == 4


class Rates:
    """Independent Poisson rates: what a family tells of its components, and no more."""

    family, structure = "Poisson", ""
    columns = ("clicks", "visits")
    means = variances = np.array([[2.0, 5.0], [9.0, 1.0]])
    profiles = (means_profile(means, variances),)
    answers: dict[int, Any] = {}  # noqa: RUF012
    counts = (0, 1)

    def covariance(self, component: int, columns: Any) -> np.ndarray:
        return np.diag(self.variances[component, list(columns)])

    def marginal(self, column: int, x: np.ndarray) -> np.ndarray:
        rates = self.means[:, column, None]
        return np.exp(x * np.log(rates) - rates - gammaln(np.abs(x) + 1)) * (x >= 0)


class PoissonMixture:
    """A fitted mixture that has no covariances, as far as reports know one."""

    n_components = n_features_in_ = 2
    weights_ = np.array([0.4, 0.6])
    state_ = SimpleNamespace(
        result=SimpleNamespace(n_parameters=5, noise_box=None, assignment="soft"),
        mixture=SimpleNamespace(assignment="soft"),
        measured=False,
    )
    status_ = Status.CONVERGED
    lower_bound_, n_iter_, n_reads_, n_sample_passes_ = -4.0, 3, 4, 0.0
    history_: tuple[dict[str, Any], ...] = ()
    warnings_: tuple[str, ...] = ()
    objective_ = Objective.log_likelihood(-4.0)
    provenance_: dict[str, Any] = {}  # noqa: RUF012

    def describe(self) -> Rates:
        return Rates()

    def exact_overlap(self) -> None:
        return None

    def predictor(self, answers: Any) -> Any:
        joint = {
            "labels": lambda X: (X[:, 1] < X[:, 0]).astype(int),
            "proba": lambda X: np.eye(2)[(X[:, 1] < X[:, 0]).astype(int)],
        }
        return lambda X: {answer: joint[answer](X) for answer in answers}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"n_components": 2}


def test_a_family_without_covariances_is_drawn_by_what_it_tells() -> None:
    model: Any = PoissonMixture()
    rows = np.random.default_rng(0).poisson([2.0, 5.0], (50, 2)).astype(float)
    page = seen(report_html(model, Evidence(rows)))
    assert "2 Poisson components in 2 columns" in page.text
    assert {"clicks and visits", "Density of clicks", "Sharpness", "Profiles"} <= {*page.pictures}
    assert "Gaussian" not in page.text
    assert "PoissonMixture: 2 components in 2 columns<" in summary_html(model)


# -- drift -----------------------------------------------------------------------


def test_a_shifted_chunk_is_found(tmp_path: Path, small_chunks: None) -> None:
    X, _, _ = blobs(4000, 3, 2)
    model = GaussianMixture(2, random_state=0).fit(X)
    X[2600:2800] += 1.5
    write_zarr(tmp_path / "x.zarr", X, 200)
    densities = chunk_densities(model, str(tmp_path / "x.zarr"))
    assert len(densities.means) == 20
    assert densities.unlike.nonzero()[0].tolist() == [13]
    assert densities.first_rows[13] == 2600
    page = seen(report_html(model, Evidence(densities=densities)))
    assert "1 of 20 parts" in page.text
    assert "2,600 to 2,799" in page.text


# Two wide clusters, and a model of them.
DRIFT_MEANS = np.array([[0.0, 0.0], [6.0, 2.0]])
LITTLE = np.array([0.0, 0.3])


@pytest.fixture(scope="module")
def known() -> GaussianMixture:
    """A model of two clusters of equal weight."""
    rows = draw(20_000, np.random.default_rng(99))
    return GaussianMixture(2, random_state=0).fit(rows)


def draw(n: int, rng: np.random.Generator, share: float = 0.5) -> np.ndarray:
    """Rows of the two clusters, `share` of them of the second."""
    return rng.normal(size=(n, 2)) + DRIFT_MEANS[(rng.random(n) < share).astype(int)]


def in_parts(model: GaussianMixture, parts: Iterable[np.ndarray]) -> ChunkDensities:
    """What the pass finds where the store is read in these parts."""
    answer = model.predictor(("log_density", "proba"))
    fold = Densities(answer, model.n_components, model.n_features_in_, False).fold()
    for index, rows in enumerate(parts):
        fold.update(index, rows, None)
    return fold.result()


@pytest.mark.parametrize(("n_parts", "n_rows"), [(8, 100), (20, 300), (200, 100), (8, 20_000)])
def test_rows_in_random_order_are_no_alarm(
    known: GaussianMixture, n_parts: int, n_rows: int
) -> None:
    alarms = 0
    for seed in range(min(100, 400_000 // (n_parts * n_rows))):
        rng = np.random.default_rng(seed)
        found = in_parts(known, (draw(n_rows, rng) for _ in range(n_parts)))
        assert found.judged
        alarms += int((found.unlike | found.mixed_otherwise).any())
    assert alarms == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_part_that_differs_is_found(known: GaussianMixture, seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [draw(1000, rng) for _ in range(12)]
    assert (in_parts(known, parts).unlike.sum(), in_parts(known, parts).moved.max() < 0.1) == (0, 1)
    parts[seed] = parts[seed] - np.array([0.0, 1.0])
    found = in_parts(known, parts)
    assert found.unlike.nonzero()[0].tolist() == [seed]
    assert found.shifts[seed] == pytest.approx(-0.5, abs=0.15)
    parts[seed] = draw(1000, rng, share=0.8)
    found = in_parts(known, parts)
    assert found.mixed_otherwise.nonzero()[0].tolist() == [seed]
    assert found.moved[seed] == pytest.approx(0.3, abs=0.05)
    page = seen(report_html(known, Evidence(densities=found))).text
    assert "In 1 of 12 parts more than 10% of the rows belong to other components" in page


def test_what_is_certain_and_small_is_no_alarm(known: GaussianMixture) -> None:
    rng = np.random.default_rng(0)
    parts = [draw(125_000, rng) for _ in range(8)]
    parts[3] = np.concatenate([parts[3][:62_500] - LITTLE, draw(62_500, rng, share=0.54)])
    found = in_parts(known, parts)
    assert found.standard_errors[3] < -5
    assert not found.unlike.any()
    assert not found.mixed_otherwise.any()
    assert "None of 8 parts" in seen(report_html(known, Evidence(densities=found))).text


@pytest.mark.parametrize("n_parts", [1, 2, 7])
def test_few_parts_give_no_verdict(known: GaussianMixture, n_parts: int) -> None:
    rng = np.random.default_rng(0)
    parts = [draw(100_000, rng) for _ in range(n_parts)]
    parts[-1] = parts[-1] + 3.0
    found = in_parts(known, parts)
    assert not found.unlike.any()
    assert not found.mixed_otherwise.any()
    page = seen(report_html(known, Evidence(densities=found))).text
    assert f"read in {n_parts} part" in page
    assert "no verdict below 8 parts" in page
    assert "too few parts" in page
    assert "One chunk holds" not in page


def test_the_page_of_the_demo_is_no_alarm(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make_demo_data(tmp_path / "demo.zarr", 20_000)
    model = GaussianMixture(5, random_state=0).fit(str(tmp_path / "demo.zarr"))
    page = report_html(model, Evidence(densities=chunk_densities(model, tmp_path / "demo.zarr")))
    assert "no verdict" in seen(page).text
    # Chunk by chunk it is sorted by cluster, and the page says what that does.
    request.getfixturevalue("small_chunks")
    found = chunk_densities(model, tmp_path / "demo.zarr")
    assert len(found.means) == 16
    assert not (found.unlike & ~found.mixed_otherwise).any()
    text = seen(report_html(model, Evidence(densities=found))).text
    assert "sorted by cluster or time" in text


def test_densities_are_those_of_the_rows(small_chunks: None, tmp_path: Path) -> None:
    X, _, _ = blobs(1050, 2, 2)
    model = GaussianMixture(2, random_state=0).fit(X)
    write_zarr(tmp_path / "x.zarr", X, 100)
    densities = chunk_densities(model, str(tmp_path / "x.zarr"))
    values = np.split(model.to_sklearn().score_samples(X), range(100, 1050, 100))
    np.testing.assert_array_equal(densities.n_rows, [100] * 10 + [50])
    np.testing.assert_allclose(densities.means, [v.mean() for v in values])
    np.testing.assert_allclose(densities.scatters, [v.var() * len(v) for v in values])
    proba = np.split(model.to_sklearn().predict_proba(X), range(100, 1050, 100))
    np.testing.assert_allclose(densities.shares, [p.mean(axis=0) for p in proba])
    assert not densities.unlike.any()


def test_densities_that_underflow_are_the_most_unlike() -> None:
    densities = ChunkDensities(
        np.array([10, 10, 10]),
        np.zeros(3, dtype=int),
        np.array([-1.0, -np.inf, -1.1]),
        np.array([5.0, np.nan, 5.0]),
        np.ones((3, 1)),
        np.zeros((3, 1)),
        *np.zeros((2, 3, 2)),
    )
    assert densities.most_unlike(1) == [1]
    model, _ = fitted("full", 2)
    assert "not finite" in seen(report_html(model, Evidence(densities=densities))).text


def test_rows_that_are_not_finite_are_named(tmp_path: Path, small_chunks: None) -> None:
    X, _, _ = blobs(500, 2, 2)
    model = GaussianMixture(2, random_state=0, algorithm="em").fit(X)
    X[345, 1] = np.nan
    write_zarr(tmp_path / "x.zarr", X, 100)
    with pytest.raises(DataError, match="X contains NaN at row 345, column 1"):
        chunk_densities(model, str(tmp_path / "x.zarr"))
    with pytest.raises(DataError, match="X contains NaN at row 345, column 1"):
        sample_rows(stored_source(tmp_path / "x.zarr"), 500)


def test_the_sample_is_rows_of_all_chunks(folder: Path, small_chunks: None) -> None:
    source = stored_source(folder / "points.zarr")
    rows = sample_rows(source, 1010)
    stored = zarr.open_array(folder / "points.zarr", mode="r")[:]
    where = {row.tobytes(): i for i, row in enumerate(stored)}
    numbers = [where[row.tobytes()] for row in rows]
    assert len(set(numbers)) == 1010
    counts = np.bincount(np.array(numbers) // 200, minlength=20)
    assert set(counts.tolist()) <= {50, 51}
    np.testing.assert_array_equal(rows, sample_rows(source, 1010))
    np.testing.assert_array_equal(sample_rows(source, 10**6), stored)
    assert len(sample_rows(source, 1)) == 1


# -- the page --------------------------------------------------------------------


def test_the_page_holds_what_it_should(folder: Path, tmp_path: Path, small_chunks: None) -> None:
    out = tmp_path / "r.html"
    data = ["--data", folder / "points.zarr"]
    result = command(folder / "model.npz", out, *data, "--json", "--sample-rows", 500, *LOCAL)
    assert result.exit_code == 0, result.stderr
    told = json.loads(result.stdout)
    assert (told["n_rows_drawn"], told["n_chunks"], told["missing"]) == (500, 20, [])
    html = out.read_text(encoding="ascii")
    page = seen(html)
    assert [*page.pictures[:6], *sorted(page.pictures[6:9]), *page.pictures[9:]] == [
        "Weights",
        "Profiles",
        "Profile matrix",
        "Overlap of the components",
        "Merge tree",
        "The plane in which the components are farthest apart",
        "column 0 and column 1",
        "column 0 and column 2",
        "column 1 and column 2",
        "Density of column 0",
        "Density of column 1",
        "Density of column 2",
        "Sharpness",
        "Log-likelihood over passes",
        "Mean log-density of each part",
    ]
    assert "width=device-width" in html
    assert "prefers-color-scheme:dark" in html
    assert "default-src 'none'" in html
    model = load(folder / "model.npz")
    provenance = model.provenance_
    for value in (provenance["source"], provenance["fingerprint"], provenance["fitted"]):
        assert value in page.text
    assert "4,000" in page.text
    assert f"{model.weights_[1]:.4f}" in page.text
    assert f"{model.lower_bound_:.6f}" in page.text
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]


def test_names_and_paths_from_data_are_shown_not_obeyed() -> None:
    X, _, _ = blobs(400, 3, 2)
    model = GaussianMixture(2, random_state=0).fit(pd.DataFrame(X, columns=EVIL))
    model.provenance_["source"] = "/data/<script>x</script>"
    evidence = Evidence(X, origin={"<b>": "<i>"}, missing=["<script>why"])
    page = seen(report_html(model, evidence))
    for name in (*EVIL, "/data/<script>x</script>", "<script>why"):
        assert name in page.text
    assert "b" not in page.tags[page.tags.index("dl") :]


def test_names_in_any_script_and_duplicates() -> None:
    X, _, _ = blobs(300, 3, 2)
    model = GaussianMixture(2, random_state=0).fit(X)
    model.feature_names_in_ = np.array(["温度", "温度", "π" * 300], dtype=object)
    html = report_html(model, Evidence(X))
    assert html.isascii()
    assert "温度" in seen(html).text


@pytest.mark.parametrize(("d", "k"), [(1, 22), (40, 2)])
def test_a_page_for_few_and_for_many_columns(d: int, k: int) -> None:
    model, X = fitted("diag", d, k, n=400)
    page = seen(report_html(model, Evidence(X)))
    assert ("Shown are the first 16 of 40 columns" in page.text) == (d == 40)
    assert page.pictures.count("Sharpness") == 1


def test_a_page_without_rows_says_what_it_lacks() -> None:
    model, _ = fitted("tied", 2)
    page = seen(report_html(model))
    assert "Sharpness" not in page.pictures
    assert "for which no data were given" in page.text


def test_a_selection_is_drawn_and_listed() -> None:
    model, _ = fitted("full", 1)
    model.provenance_["sweep"] = {"criterion": "bic", "holdout": 0.0, "table": selection()}
    page = seen(report_html(model))
    assert "BIC over the number of components" in page.pictures
    assert "ICL over the number of components" in page.pictures
    # Each of the table, and the sentence.
    assert page.text.count("converged") == 11
    assert "chosen by bic" in page.text
    del model.provenance_["sweep"]
    assert "BIC over the number of components" not in seen(report_html(model)).pictures
    model.selection_ = selection()
    assert "BIC over the number of components" in seen(report_html(model)).pictures


def test_the_page_does_not_depend_on_the_users_style() -> None:
    model, X = fitted("full", 1)
    pictures = re.compile(r"<svg.*?</svg>", re.DOTALL)
    plain = pictures.findall(report_html(model, Evidence(X)))
    with plt.style.context("dark_background"), mpl.rc_context({"svg.fonttype": "path"}):
        before = dict(mpl.rcParams)
        styled = pictures.findall(report_html(model, Evidence(X)))
        assert dict(mpl.rcParams) == before
    assert styled == plain


# -- whole or not at all, and exit codes -----------------------------------------


def test_a_report_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = fitted("full", 2)
    out = tmp_path / "r.html"
    out.write_text("old")
    with pytest.raises(OutputExistsError, match="exists"):
        write_page(out, model)
    with pytest.raises(OutputExistsError, match="is a folder"):
        write_page(tmp_path, model, overwrite=True)

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_page(out, model, overwrite=True)
    assert out.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    write_page(out, model, overwrite=True)
    assert out.read_text().endswith("</html>\n")


def test_exit_codes(folder: Path, tmp_path: Path) -> None:
    model, out = folder / "model.npz", tmp_path / "r.html"
    assert command(model).exit_code == 2
    assert command(tmp_path / "no.npz", out).exit_code == 2
    assert command(model, tmp_path / "no" / "r.html").exit_code == 2
    assert command(model, model, "--overwrite").exit_code == 2
    assert command(model, out, "--sample-rows", 0).exit_code == 2
    assert command(model, out, "--data", tmp_path / "no.zarr").exit_code == 65
    write_zarr(tmp_path / "narrow.zarr", np.ones((10, 2)), 5)
    narrow = command(model, out, "--data", tmp_path / "narrow.zarr")
    assert narrow.exit_code == 65
    assert "has 2 columns, but the model was fitted to 3" in narrow.stderr
    assert not out.exists()
    out.write_text("taken")
    assert command(model, out).exit_code == 73
    assert out.read_text() == "taken"
    data = ["--data", folder / "points.zarr"]
    assert command(model, out, *data, "--overwrite", "--no-drift").exit_code == 0
    assert "drift over chunks: run the report without --no-drift" in seen(out.read_text()).text
    assert load(model).n_components == 2


def test_data_are_opened_only_when_they_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("data were opened")

    page, model = tmp_path / "r.html", folder / "model.npz"
    with monkeypatch.context() as patch:
        patch.setattr(report_jobs, "stored_source", opened)
        result = command(model, page)
    assert result.exit_code == 0, result.stderr
    without = seen(page.read_text())
    assert "Sharpness" not in without.pictures
    for said in (without.text, result.stdout):
        assert "names " + str(folder / "points.zarr") + ": 4,000 x 3 float64" in said
    # What it says to do, done.
    words = shlex.split(result.stdout.partition("To read these: ")[2])
    assert words[:2] == ["dask-em", "report"]
    assert command(*words[2:]).exit_code == 0
    assert "Sharpness" in seen(page.read_text()).pictures


@pytest.mark.parametrize("source", ["array", "s3://bucket/$(id).zarr", "-x", "/a\n'b\x1b.zarr"])
def test_the_data_that_a_model_names_are_shown_and_not_obeyed(source: str, tmp_path: Path) -> None:
    model, _ = fitted("full", 2)
    model.provenance_["source"] = source
    model.save(tmp_path / "m.npz")
    result = command(tmp_path / "m.npz", tmp_path / "r.html")
    assert result.exit_code == 0, result.stderr
    (*_, line) = result.stdout.splitlines()
    assert line.isprintable()
    if not source.startswith(("/", "s3")):
        assert line.endswith("Pass --data DATA.")
        return
    echoed = ["bash", "-c", f"printf %s {line.rpartition('--data ')[2]}"]
    assert subprocess.run(echoed, capture_output=True, text=True, check=True).stdout == source


def test_without_matplotlib_it_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "find_spec", lambda name: None)
    result = command(folder / "model.npz", tmp_path / "r.html")
    assert result.exit_code == 2
    assert "pip install 'dask-em[plot]'" in result.stderr


# -- notebooks -------------------------------------------------------------------


def test_notebooks_show_the_diagram_before_and_a_summary_after_fit() -> None:
    X, _, _ = blobs(400, 3, 2)
    model = GaussianMixture(2, random_state=0)
    assert "dask-em" not in model._repr_html_()
    assert "sk-top-container" in model._repr_html_()
    model.fit(pd.DataFrame(X, columns=EVIL))
    html = model._repr_html_()
    assert "sk-top-container" in html
    summary = html[: html.index("sk-top-container")]
    assert "2 components in 3 columns, full covariance" in summary
    assert "Converged" in summary
    assert "<img" not in summary
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in summary
    bundle = model._repr_mimebundle_()
    assert "dask-em" in bundle["text/html"]
    assert bundle["text/plain"] == repr(model)
    with sklearn.config_context(display="text"):
        assert not hasattr(model, "_repr_html_")
        assert "text/html" not in model._repr_mimebundle_()


def test_notebooks_show_a_loaded_model(folder: Path) -> None:
    model = load(folder / "model.npz")
    assert str(folder / "points.zarr") in model._repr_html_()


def test_means_and_deviations_of_a_column_share_their_decimals() -> None:
    model, _ = fitted("diag", 1)
    model.means_, model.covariances_ = np.array([[1.0], [20.0], [-3.0]]), np.full((3, 1), 0.04)
    for mean in ("1.000", "20.000", "-3.000"):
        assert f"{mean} <small>&plusmn; 0.200" in model._repr_html_()
