"""Pictures and tables in Python: what is drawn, of which rows, in any family, and for print."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from advice.following import hidden
from helpers import HANG, blobs, write_zarr

from dask_em import (
    CategoricalMixture,
    GaussianMixture,
    KMeans,
    MixedMixture,
    MixtureDisplay,
    PoissonMixture,
    StudentTMixture,
    ingest,
    plots,
    select,
)
from dask_em.errors import DataError, UsageError
from dask_em.estimators.describe import colour
from dask_em.estimators.select import Selection
from dask_em.jobs.ingest import Ingested
from dask_em.report.rows import drawn_rows

mpl = pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
plt = pytest.importorskip("matplotlib.pyplot", reason="the extra `plot` is not installed")
pd = pytest.importorskip("pandas", reason="pandas is not installed")

from matplotlib.figure import Figure  # noqa: E402


@pytest.fixture(autouse=True)
def no_windows() -> Iterator[None]:
    with mpl.rc_context({"backend": "Agg"}):
        yield
    plt.close("all")


X = blobs(600, 3, 3, seed=2)[0]


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture(3, random_state=0).fit(X)


@pytest.fixture(scope="module")
def found() -> Selection:
    return select(X, range(1, 5), ["full", "diag"], holdout=0.2, exhaustive=True, random_state=0)


def rows_in(ax: Any) -> np.ndarray:
    return np.asarray(ax.collections[0].get_offsets())


def is_among(rows: np.ndarray, others: np.ndarray) -> bool:
    return {*map(tuple, rows.tolist())} <= {*map(tuple, others.tolist())}


# -- the display -------------------------------------------------------------------------


def test_a_display_shows_rows_by_component_and_ellipses(model: GaussianMixture) -> None:
    display = MixtureDisplay.from_estimator(model, X, (2, 0))
    ax: Any = display.ax_
    assert (display.figure_, display.columns) == (ax.figure, (2, 0))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column 2", "column 0")
    np.testing.assert_array_equal(rows_in(ax), display.rows[:, [2, 0]])
    assert sorted(map(tuple, display.rows.tolist())) == sorted(map(tuple, X.tolist()))
    wanted = [mpl.colors.to_rgb(colour(k)) for k in model.predict(display.rows)]
    np.testing.assert_allclose(ax.collections[0].get_facecolors()[:, :3], wanted)
    for k, (one, two) in enumerate(zip(ax.patches[::2], ax.patches[1::2], strict=True)):
        np.testing.assert_allclose(one.center, model.means_[k, [2, 0]])
        covariance = model.covariances_[k][np.ix_([2, 0], [2, 0])]
        assert one.width * one.height / 4 == pytest.approx(np.sqrt(np.linalg.det(covariance)))
        assert two.width == pytest.approx(2 * one.width)
        assert mpl.colors.same_color(one.get_edgecolor(), colour(k))


def test_a_display_is_drawn_again_into_other_axes(model: GaussianMixture) -> None:
    figure, before = Figure(), plt.get_fignums()
    left, right = figure.subplots(1, 2)
    display = MixtureDisplay.from_estimator(model, X, n_rows=50, ax=left)
    assert display.ax_ is left
    assert display.plot(right) is display
    assert (display.ax_, display.figure_) == (right, figure)
    np.testing.assert_array_equal(rows_in(left), rows_in(right))
    assert plt.get_fignums() == before


def test_columns_are_those_that_tell_components_apart() -> None:
    rng = np.random.default_rng(0)
    table = rng.normal(size=(400, 4))
    table[:200, [1, 3]] += 9
    gm = GaussianMixture(2, random_state=0).fit(pd.DataFrame(table, columns=[*"abcd"]))
    display = MixtureDisplay.from_estimator(gm, pd.DataFrame(table, columns=[*"abcd"]))
    assert (display.columns, display.ax_.get_xlabel()) == ((1, 3), "b")
    named = MixtureDisplay.from_estimator(gm, pd.DataFrame(table, columns=[*"abcd"]), ["d", 0])
    assert (named.ax_.get_xlabel(), named.ax_.get_ylabel()) == ("d", "a")


def test_one_column_is_a_density_over_a_histogram(model: GaussianMixture) -> None:
    ax: Any = MixtureDisplay.from_estimator(model, X, 1).ax_
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("column 1", "density")
    assert sum(p.get_height() * p.get_width() for p in ax.patches) == pytest.approx(1)
    *parts, whole = ax.lines
    assert len(parts) == 3
    x, y = whole.get_data()
    assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(sum(line.get_ydata() for line in parts), y)


def test_a_column_with_holes_has_a_density_too() -> None:
    rng = np.random.default_rng(0)
    holes = np.where(rng.random(X.shape) < 0.1, np.nan, X)
    gm = GaussianMixture(2, missing_values="mar", random_state=0).fit(holes)
    ax: Any = MixtureDisplay.from_estimator(gm, holes, 0).ax_
    assert all(np.isfinite(line.get_xydata()).all() for line in ax.lines)
    assert ax.get_xlim()[0] < np.nanmin(holes[:, 0]) < np.nanmax(holes[:, 0]) < ax.get_xlim()[1]
    assert MixtureDisplay.from_estimator(gm, holes).ax_.patches


def categorical() -> tuple[Any, Any]:
    codes = np.random.default_rng(0).integers(3, size=(300, 2))
    return CategoricalMixture(2, random_state=0).fit(codes), codes


def mixed() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=400)
    table = pd.DataFrame({
        "word": pd.Categorical(np.array(["no", "yes"])[rng.integers(2, size=400)]),
        "size": rng.normal(5.0 * kind), "visits": rng.poisson(2 + 6 * kind),
    })  # fmt: skip
    return MixedMixture(2, random_state=0).fit(table), table


def counts() -> tuple[Any, Any]:
    table = np.random.default_rng(0).poisson([[1, 9]] * 150 + [[6, 2]] * 150)
    return PoissonMixture(2, random_state=0).fit(table), table


FAMILIES: dict[str, tuple[Callable[[], tuple[Any, Any]], tuple[int, ...]]] = {
    "categorical": (categorical, (0,)),
    "kmeans": (lambda: (KMeans(3, random_state=0).fit(X), X), (0, 1)),
    "mixed": (mixed, (1, 2)),
    "poisson": (counts, (0, 1)),
    "student-t": (lambda: (StudentTMixture(2, random_state=0).fit(X), X), (0, 1)),
    "one column": (lambda: (GaussianMixture(2, random_state=0).fit(X[:, :1]), X[:, :1]), (0,)),
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_shown(name: str) -> None:
    make, columns = FAMILIES[name]
    fitted, data = make()
    display = MixtureDisplay.from_estimator(fitted, data)
    if name not in ("categorical", "kmeans", "student-t"):
        assert display.columns == columns
    assert len(display.columns) == len(columns)
    assert display.ax_.has_data()
    display.figure_.canvas.draw()
    frame = fitted.to_frame()
    np.testing.assert_array_equal(frame["weight"], fitted.weights_)
    for profile in fitted.describe().profiles:
        np.testing.assert_array_equal(frame[profile.title], profile.values)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_column_of_categories_is_bars_and_stands_alone() -> None:
    fitted, table = mixed()
    ax = MixtureDisplay.from_estimator(fitted, table, "word").ax_
    assert (ax.get_ylabel(), ax.get_ylim()) == ("probability", (0, 1))
    bars: list[Any] = [*ax.patches]
    heights = np.reshape([bar.get_height() for bar in bars], (2, 2))
    np.testing.assert_allclose(heights.sum(axis=1), 1)
    with pytest.raises(UsageError, match="column 'word' holds categories: it is drawn alone"):
        MixtureDisplay.from_estimator(fitted, table, ["word", "size"])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ("size", "columns names 'size': the model has column 0, column 1, column 2"),
        (3, "column 3: the model has 3 columns"),
        ((0, 1, 2), "expected one column, or two"),
        ([], "expected one column, or two"),
    ],
)
def test_columns_that_are_not_there_are_refused(
    model: GaussianMixture, columns: Any, said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        MixtureDisplay.from_estimator(model, X, columns)


def test_what_cannot_be_drawn_is_refused(model: GaussianMixture) -> None:
    with pytest.raises(ValueError, match="not fitted"):
        MixtureDisplay.from_estimator(GaussianMixture(2), X)
    with pytest.raises(DataError, match="2"):
        MixtureDisplay.from_estimator(model, X[:, :2])
    with pytest.raises(UsageError, match="n_rows is 0, expected a number of rows"):
        MixtureDisplay.from_estimator(model, X, n_rows=0)
    with pytest.raises(UsageError, match="width is 0"):
        plots.publication(0)


# -- rows --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["numpy", "dask", "unknown", "pandas", "zarr", "path"])
def test_rows_of_any_source_are_drawn_evenly(
    kind: str, model: GaussianMixture, tmp_path: Path
) -> None:
    write_zarr(tmp_path / "x.zarr", X, 50)
    lazy = da.from_array(X, chunks=(70, 3))
    data = {
        "numpy": X, "dask": lazy, "unknown": lazy[lazy[:, 0] > -np.inf],
        "pandas": pd.DataFrame(X), "zarr": zarr.open_array(tmp_path / "x.zarr"),
        "path": str(tmp_path / "x.zarr"),
    }[kind]  # fmt: skip
    rows = drawn_rows(model, data, 200)
    assert rows.shape == (200, 3)
    assert is_among(rows, X)
    assert len({*map(tuple, rows.tolist())}) == 200
    np.testing.assert_array_equal(drawn_rows(model, data, 200), rows)
    assert not np.array_equal(drawn_rows(model, data, 200, seed=1), rows)
    # Each third of the data gives its share: 67 +- 5.8 by chance.
    place = {row: i for i, row in enumerate(map(tuple, X.tolist()))}
    thirds = np.bincount([3 * place[row] // 600 for row in map(tuple, rows.tolist())])
    assert (np.abs(thirds - 200 / 3) < 24).all()


def test_rows_that_the_model_leaves_out_are_not_drawn(model: GaussianMixture) -> None:
    bad = X.copy()
    bad[7, 1] = np.nan
    with pytest.raises(DataError, match="row 7"):
        MixtureDisplay.from_estimator(model, bad)
    with pytest.warns(UserWarning, match="left out"):
        dropping = GaussianMixture(2, nonfinite="drop", random_state=0).fit(bad)
    for data in (bad, da.from_array(bad, chunks=(100, 3))):
        rows = drawn_rows(dropping, data, 1000)
        assert len(rows) == 599
        assert np.isfinite(rows).all()


# -- choices -----------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", [None, "bic", "aic", "holdout"])
def test_a_selection_is_drawn_with_the_chosen_model_circled(
    found: Selection, criterion: str | None
) -> None:
    ax: Any = plots.selection(found, criterion)
    key = criterion or "bic"
    full, diag, circle = ax.lines
    for line, kind in ((full, "full"), (diag, "diag")):
        mine = [row for row in found.table if row["covariance_type"] == kind and row[key]]
        np.testing.assert_array_equal(line.get_xdata(), [row["n_components"] for row in mine])
        np.testing.assert_array_equal(line.get_ydata(), [row[key] for row in mine])
    best = found.best
    assert circle.get_xydata().tolist() == [[best.n_components, found.chosen[key]]]
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["full", "diag"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == (
        "components", "held out, nats per row" if key == "holdout" else key.upper()
    )  # fmt: skip


def test_the_chosen_row_is_the_winners(found: Selection) -> None:
    assert found.chosen in found.table
    assert found.chosen["covariance_type"] == found.best.covariance_type
    best = max(row["holdout"] or -np.inf for row in found.table)
    by_holdout = select(X, [1, 3], holdout=0.2, criterion="holdout", random_state=0)
    assert by_holdout.chosen["n_components"] == by_holdout.best.n_components
    assert np.isfinite(best)
    families = [GaussianMixture, StudentTMixture]
    several = select(X, [3], estimator=families, random_state=0, keep_all=True, exhaustive=True)
    assert several.chosen["family"] == several.best.family
    with pytest.raises(UsageError, match="no candidate has a finite 'inertia'"):
        plots.selection(several, "inertia")


def test_a_degenerate_model_that_was_not_chosen_is_not_circled(found: Selection) -> None:
    lower = [{**row, "bic": row["bic"] - 1e6 * (row is found.table[0])} for row in found.table]
    ax: Any = plots.selection(Selection(**{**vars(found), "table": lower}))
    assert ax.lines[-1].get_xydata().tolist() == [[found.best.n_components, found.chosen["bic"]]]


def test_notebooks_show_a_selection(found: Selection) -> None:
    html = found._repr_html_()
    k, kind = found.best.n_components, found.best.covariance_type
    assert f"Chosen of 8 models by BIC: {k} components, {kind}" in html
    rows = re.findall(r"<tr>(.*?)</tr>", html)[1:]
    assert len(rows) == 8
    (bold,) = (row for row in rows if "<b>" in row)
    assert f"<b>{kind}</b>" in bold
    assert f"<b>{found.chosen['bic']:,.1f}</b>" in bold
    assert "may be better" not in html
    ended = Selection(**{**vars(found), "range_end": "largest"})
    assert f"{k} is the largest number of components that was tried" in ended._repr_html_()


def test_notebooks_show_what_was_ingested(tmp_path: Path) -> None:
    table = pd.DataFrame({"<b>": [1.0, 2.0], "b": [3, 4], "name": ["x", "y"]})
    html = ingest(table, tmp_path / "t.zarr")._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<dt>rows</dt><dd>2</dd>" in html
    assert "<dt>beside them</dt><dd>&#x27;name&#x27;</dd>" in html
    done = Ingested("x.zarr", 4, ("a",), "float64", {}, 4, 1, 2 * 10**6, 32, 0.5, 0, True)
    assert "beside them" not in done._repr_html_()


# -- frames ------------------------------------------------------------------------------


def test_results_are_frames(found: Selection, model: GaussianMixture) -> None:
    table = found.to_frame()
    assert table["bic"].tolist() == [row["bic"] for row in found.table]
    assert len(found.to_frame("history")) == len(found.history)
    frame = model.to_frame()
    assert frame.index.name == "component"
    np.testing.assert_array_equal(frame["Means"].to_numpy(), model.means_)
    deviations = np.sqrt(np.diagonal(model.covariances_, axis1=1, axis2=2))
    np.testing.assert_allclose(frame["Means, standard deviations"], deviations)
    assert frame["size"].sum() == pytest.approx(600)
    history = model.to_frame("history")
    assert history["phase"].tolist() == [record["phase"] for record in model.history_]
    start = GaussianMixture(2, max_iter=0, random_state=0)
    with pytest.raises(ValueError, match="not fitted"):
        start.to_frame()


def test_columns_of_any_name_are_kept_apart() -> None:
    names = ["weight", "Means"]
    frame = GaussianMixture(2, random_state=0).fit(pd.DataFrame(X[:, :2], columns=names)).to_frame()
    assert frame.columns.is_unique
    assert [*frame["Means"].columns] == names


def test_frames_refuse_other_words_and_say_what_to_install(
    found: Selection, model: GaussianMixture
) -> None:
    with pytest.raises(ValueError, match="of='passes': expected one of components, history"):
        model.to_frame("passes")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="of='models': expected one of table, history"):
        found.to_frame("models")  # type: ignore[arg-type]
    with hidden("pandas"):
        for make in (model.to_frame, found.to_frame):
            with pytest.raises(UsageError, match="pandas is not installed: pip install pandas"):
                make()


# -- for print ---------------------------------------------------------------------------


def whole(figure: Any) -> Figure:
    """The same, which is no part of another."""
    assert isinstance(figure, Figure)
    return figure


def test_for_print_letters_are_letters_and_rows_are_pictures(
    model: GaussianMixture, tmp_path: Path
) -> None:
    with mpl.rc_context({**plots.publication(3.3), "pdf.compression": 0}):
        display = MixtureDisplay.from_estimator(model, X)
        for end in ("pdf", "svg"):
            whole(display.figure_).savefig(tmp_path / f"p.{end}")
    assert whole(display.figure_).get_size_inches() == pytest.approx([3.3, 3.3 * 5 / 6])
    sizes = {label.get_fontsize() for label in display.ax_.get_xticklabels()}
    assert sizes == {7.0}
    assert not display.ax_.spines["top"].get_visible()
    pdf = (tmp_path / "p.pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    svg = (tmp_path / "p.svg").read_text()
    assert "column 0</text>" in svg
    assert svg.count("<image") == 1


def test_new_figures_are_as_wide_as_the_users_style_says(model: GaussianMixture) -> None:
    assert whole(plots.weights(model).figure).get_size_inches() == pytest.approx([5, 3.5])
    with mpl.rc_context({"figure.figsize": (7.0, 1.0)}):
        assert whole(plots.weights(model).figure).get_size_inches() == pytest.approx([7, 4.9])
        grid = plots.pairs(model, X[:50])
        assert whole(grid[0, 0].figure).get_size_inches() == pytest.approx([7, 7])


def test_pictures_of_fits_are_public(model: GaussianMixture) -> None:
    states: list[Any] = []
    GaussianMixture(3, algorithm="em", random_state=0, callbacks=[states.append]).fit(X)
    axes = plots.iterations({"EM": states}, X, n_drawn=3)
    assert axes[0].get_title() == "start"
    assert [plots.history(model).get_xlabel(), plots.objective(states).get_xlabel()] == [
        "pass", "iteration"
    ]  # fmt: skip
    assert [*plots.__all__] == sorted(plots.__all__, key=lambda name: (name.islower(), name))


def test_without_matplotlib_it_says_what_to_install(model: GaussianMixture) -> None:
    with hidden("matplotlib"), pytest.raises(UsageError, match=r"dask-em\[plot\]"):
        MixtureDisplay.from_estimator(model, X)


def test_matplotlib_is_imported_when_something_is_drawn() -> None:
    code = (
        "import sys\nfrom dask_em import GaussianMixture, MixtureDisplay, plots\n"
        "plots.publication()\nprint(*{'matplotlib'} & sys.modules.keys())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=HANG
    )
    assert done.stdout.strip() == ""
