"""The page of any family: words that are true, effects that rows have, tables, and its script."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from browser import CHROMIUM, Browser, browser
from helpers import blobs, write_zarr
from pages import Page, seen
from sklearn.exceptions import NotFittedError
from test_family_table import FAMILIES

import dask_em
from dask_em import (
    BernoulliMixture,
    CategoricalMixture,
    GaussianMixture,
    KMeans,
    PoissonMixture,
    select,
    write_report,
)
from dask_em.errors import DataError, OutputExistsError, UsageError
from dask_em.estimators.base import MixtureEstimator
from dask_em.report.effects import effects
from dask_em.report.evidence import Evidence
from dask_em.report.page import report_html
from dask_em.report.svg import svg
from dask_em.report.words import five_sentences

mpl = pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
pd = pytest.importorskip("pandas", reason="pandas is not installed")

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X does not", "ignore:reg_covar=", "ignore:1 rows that"),
]

NAMES = ["height", "weight", "age"]
# 700 short, 200 tall and light, 100 tall and heavy.
SIZES, MEANS = (700, 200, 100), np.array([[150.0, 60, 40], [190, 50, 40], [190, 90, 40]])


def people(seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    rows = np.repeat(MEANS, SIZES, axis=0) + rng.normal(size=(1000, 3)) * [3.0, 4.0, 9.0]
    return pd.DataFrame(rng.permutation(rows), columns=NAMES)


@pytest.fixture(scope="module")
def model() -> GaussianMixture:
    return GaussianMixture(3, random_state=0).fit(people())


@cache
def fit_of(name: str) -> MixtureEstimator:
    """A fit of a family, which nothing may change."""
    return FAMILIES[name].fit(tol=1e-3)


# -- every family ------------------------------------------------------------------------


# Pages take a second each; what is not by default here is so in `-m slow`.
DRAWN = ("gaussian-noise", "kmeans", "mixed")


@pytest.mark.parametrize(
    "name", [n if n in DRAWN else pytest.param(n, marks=pytest.mark.slow) for n in FAMILIES]
)
def test_every_family_has_its_page(name: str) -> None:
    row = FAMILIES[name]
    fitted, rows = fit_of(name), row.rows()
    page = seen(report_html(fitted, Evidence(rows)))
    assert page.tags.count("li") >= 5
    told = five_sentences(fitted, Evidence(rows))
    assert " ".join(told) in page.text.replace("\xa0", " ")
    assert "What tells the components apart" in page.text
    chips = re.findall(r'data-choose="(-?\d+)"', page.source)
    noisy = fitted.state_.result.noise_box is not None
    assert chips == ["0", "1", "2", *["-1"] * noisy]
    # Whatever is chosen is somewhere in pictures and in tables.
    for k in chips[:3]:
        assert re.search(rf'<g data-component="{k}"', page.source)
        assert re.search(rf'<(tr|div class="card") data-component="{k}"', page.source)


def test_a_mixture_of_one_component_has_its_page() -> None:
    one = GaussianMixture(1).fit(people())
    page = seen(report_html(one))
    assert "All" not in page.text or "What tells the components apart" not in page.text
    assert "The 1,000 rows are described as one group." in page.text.replace("\xa0", " ")


# -- words -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_its_sentences(name: str) -> None:
    row = FAMILIES[name]
    fitted, rows = fit_of(name), row.rows()
    noisy = fitted.state_.result.noise_box is not None
    for evidence in (Evidence(rows), Evidence()):
        told = five_sentences(fitted, evidence)
        assert len(told) == 5
        assert all(sentence.endswith(".") and ".." not in sentence for sentence in told)
        assert not re.search(r"\b(nan|inf|None|not finite)\b", " ".join(told))
        assert ("noise" in told[0]) == noisy
        assert ("nearest centre" in told[2]) == row.hard
        assert ("lack a value" in told[4]) == bool(evidence.rows is rows and np.isnan(rows).any())


def test_the_sentences_are_true_of_what_was_planted(model: GaussianMixture) -> None:
    rows = people()
    short, light, heavy = (
        int(model.predict(pd.DataFrame(m[None], columns=NAMES))[0]) for m in MEANS
    )
    sizes, apart, sharp, trust, watch = five_sentences(model, Evidence(rows.to_numpy()))
    assert sizes == (
        f"The 1,000 rows fall into three groups: the largest, group {short}, holds 70 % of them, "
        f"the smallest, group {heavy}, 10 %."
    )
    # Against the means of the others' rows.
    tall = rows.height[rows.height > 170].mean()
    assert re.search(
        rf"group {short} \(70 %\) has lower height \(15\d\.?\d* against {tall:.0f}\.?\d* ", apart
    )
    assert re.search(rf"group {heavy} \(10 %\) has higher weight \((89|90|91)", apart)
    assert re.search(rf"group {light} \(20 %\) has (higher height|lower weight)", apart)
    assert "age" not in apart
    assert sharp.startswith("The assignment is sharp: ")
    assert trust.startswith("The fit converged after ")
    assert "set beforehand" in trust
    assert watch.startswith("Nothing calls for caution")


def test_things_to_watch_are_told() -> None:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(3000, 2))
    X[-20:] += [0, 90]
    X[::4, 1] = np.where(X[::4, 1] > 50, X[::4, 1], 0.0)
    X[5, 0] = np.nan
    found = GaussianMixture(3, nonfinite="drop", random_state=0).fit(X)
    told = five_sentences(found, Evidence(X[np.isfinite(X).all(axis=1)]))
    watch = told[4]
    assert "1 row (0.033 %) with NaN or infinity left out of the fit" in watch
    assert re.search(r"group \d is tiny \(0\.67 % of the rows\)", watch)
    assert re.search(r"2\d % of the rows hold 0 in column 1, a spike", watch)
    near = rng.normal(size=(2000, 1)) + 2.0 * (np.arange(2000) % 2)[:, None]
    both = GaussianMixture.from_parameters(
        [0.5, 0.5], means=[[0.0], [2.0]], covariances=[[[1.0]], [[1.0]]]
    )
    told = five_sentences(both, Evidence(near))
    assert re.search(r"groups 0 and 1 overlap \(rows of [01] belong to [01] by 1\d %", told[4])
    assert told[2].startswith("The assignment is soft: ")


def test_categories_and_counts_are_told_in_their_own_words() -> None:
    rng = np.random.default_rng(0)
    of = rng.random(2000) < 0.3
    colour = np.where(rng.random(2000) < np.where(of, 0.9, 0.1), "red", "blue")
    shape = np.where(rng.random(2000) < np.where(of, 0.8, 0.1), "round", "square")
    size = np.where(rng.random(2000) < np.where(of, 0.85, 0.1), "big", "small")
    table = pd.DataFrame({"colour": colour, "shape": shape, "size": size}).astype("category")
    latent = CategoricalMixture(2, random_state=0).fit(table)
    apart = five_sentences(latent, Evidence())[1]
    told = re.findall(r"(more|less) often (\w+) = (\w+) \(([\d.]+) % against ([\d.]+) %", apart)
    assert len(told) == 4
    for way, column, which, inside, outside in told:
        share = (table[column] == which)[of].mean(), (table[column] == which)[~of].mean()
        found = float(inside) / 100, float(outside) / 100
        assert (way == "more") == (found[0] > found[1])
        assert found == pytest.approx(sorted(share, reverse=way == "more"), abs=0.06)
    page = seen(report_html(latent))
    assert "log odds ratio" in page.text
    counts = rng.poisson(np.where(of[:, None], [9.0, 2.0], [2.0, 2.0]))
    counted = five_sentences(PoissonMixture(2, random_state=0).fit(counts), Evidence())[1]
    assert re.search(r"has higher column 0 \(\d\.\d+ against 2\.\d+ in the rest\)", counted)
    assert "column 1" not in counted


def test_a_sweep_says_how_it_chose(tmp_path: Path) -> None:
    X = people()
    found = select(X, range(2, 5), ["full", "spherical"], exhaustive=True, random_state=0)
    write_report(found, tmp_path / "sweep.html", X, drift=False)
    page = seen((tmp_path / "sweep.html").read_text())
    others = sorted(row["bic"] for row in found.table)
    gap = re.search(
        r"BIC chose K = 3 (?:full|spherical) among 6 models, ahead of the next, K = \d \w+, "
        r"by ([\d,.]+) \(very strong evidence\)",
        page.text.replace("\xa0", " "),
    )
    assert gap
    assert float(gap[1].replace(",", "")) == pytest.approx(others[1] - others[0], rel=1e-3)
    assert "end of the range" not in page.text
    assert "write_report with drift=True makes the pass" in page.text
    # The chosen one is bold.
    assert len(re.findall(r"<td><b>(?:full|spherical)</b></td>", page.source)) == 1
    narrow = select(X, [1, 2], random_state=0)
    assert (
        "at the end of the range: more groups may be better"
        in five_sentences(narrow.best, Evidence())[3]
    )
    clusters = select(X, [2, 3, 4], estimator=KMeans, random_state=0)
    assert "among 3 models" in five_sentences(clusters.best, Evidence())[3]


# -- effects -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["gaussian", "gaussian-tied", "student-t", "factor", "bernoulli", "categorical", "poisson",
     "multinomial", "exponential", "gamma", "mixed"],
)  # fmt: skip
def test_effects_are_those_of_rows_that_are_sampled(name: str) -> None:
    fitted = fit_of(name)
    rows, labels = map(np.asarray, fitted.sample(60_000))
    for k, mine in enumerate(effects(fitted)):
        sizes = [abs(one.size) for one in mine]
        assert sizes == sorted(sizes, reverse=True)
        for one in mine:
            values = rows[:, one.column]
            if one.category is not None:
                values = (values == one.category).astype(float)
            inside, outside = values[labels == k], values[labels != k]
            error = 5 * values.std() * np.sqrt(1 / len(inside) + 1 / len(outside))
            # Tails of Student's t are heavy.
            error *= 3 if name == "student-t" else 1
            assert one.inside == pytest.approx(inside.mean(), abs=error)
            assert one.outside == pytest.approx(outside.mean(), abs=error)
            apart = (inside.mean() - outside.mean()) / values.std()
            assert one.size == pytest.approx(apart, rel=0.15, abs=0.06)
            share = len(inside) / len(values)
            assert abs(one.size) <= 1.001 / np.sqrt(share * (1 - share)) + 0.1
            if one.log_odds is not None and 0.01 < outside.mean() < 0.99:
                odds = [np.log(p / (1 - p)) for p in (inside.mean(), outside.mean())]
                assert one.log_odds == pytest.approx(odds[0] - odds[1], rel=0.1, abs=0.15)


def test_yes_is_told_and_not_no() -> None:
    yes = np.random.default_rng(0).random((500, 3)) < 0.5
    told = effects(BernoulliMixture(2, random_state=0).fit(yes.astype(float)))
    assert {one.category for mine in told for one in mine} == {1}


# -- write_report ------------------------------------------------------------------------


def test_data_of_any_kind_make_the_same_page(model: GaussianMixture, tmp_path: Path) -> None:
    X = people()
    write_zarr(tmp_path / "x.zarr", X.to_numpy(), 100)
    stored = GaussianMixture(3, random_state=0).fit(tmp_path / "x.zarr")
    kinds = {
        "dask": (stored, da.from_array(X.to_numpy(), chunks=(100, 3))),
        "frame": (model, X),
    }
    for name, (fitted, data) in kinds.items():
        write_report(fitted, tmp_path / f"{name}.html", data, n_rows=400)
        page = seen((tmp_path / f"{name}.html").read_text())
        assert {"Sharpness", "Mean log-density of each part"} <= {*page.pictures}
        assert "400 rows drawn evenly from the data" in page.text
        assert "rows of these data 1,000 in" in page.text
    write_report(model, tmp_path / "alone.html")
    alone = seen((tmp_path / "alone.html").read_text())
    assert "Pass X to write_report." in alone.text
    assert "Sharpness" not in alone.pictures


def test_write_report_refuses_in_words_of_python(model: GaussianMixture, tmp_path: Path) -> None:
    assert dask_em.write_report is write_report
    path = tmp_path / "r.html"
    with pytest.raises(UsageError, match=r"the order is write_report\(model, path, X\)"):
        write_report(str(path), model)  # type: ignore[arg-type]
    with pytest.raises(NotFittedError):
        write_report(GaussianMixture(2), path)
    with pytest.raises(UsageError, match="n_rows is 0, expected a number of rows, at least 1"):
        write_report(model, path, people(), n_rows=0)
    with pytest.raises(DataError, match="2 columns"):
        write_report(model, path, people().to_numpy()[:, :2])
    assert not path.exists()
    path.write_text("old")
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        write_report(model, path)
    assert path.read_text() == "old"


# -- size --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("k", "bound"), [(50, 1_600_000), pytest.param(200, 2_000_000, marks=pytest.mark.slow)]
)
def test_a_page_of_many_components_and_columns_is_below_its_bound(k: int, bound: int) -> None:
    rng = np.random.default_rng(0)
    big = GaussianMixture.from_parameters(
        rng.dirichlet(np.full(k, 5.0)), means=4 * rng.normal(size=(k, 100)),
        covariances=np.ones((k, 100)), covariance_type="diag",
    )  # fmt: skip
    rows = big.sample(5000)[0]
    assert len(report_html(big, Evidence(rows))) < bound


def test_points_of_a_picture_are_few_bytes_and_all_there() -> None:
    from dask_em.report import plots

    X, _, _ = blobs(2000, 2, 3)
    fitted = GaussianMixture(3, random_state=0).fit(X)
    drawn = svg(lambda ax: plots.plot_components(fitted, X, ax=ax), "pair")
    assert len(drawn) < 60_000
    assert "<image" not in drawn
    for k in range(3):
        groups = re.findall(rf'<g data-component="{k}" fill="none".*?</g>', drawn, re.DOTALL)
        assert len(groups) == 1
        assert groups[0].count("h0") == (fitted.predict(X) == k).sum()


# -- the script, in a browser ------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.fixture(scope="module")
def page(model: GaussianMixture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    X = people().rename(columns={"height": '=HYPERLINK("x"),height'})
    fitted = GaussianMixture(3, random_state=0).fit(X)
    write_report(fitted, path, X, n_rows=300)
    return path


DIM = "document.querySelectorAll('.dim').length"


@pytest.mark.slow
def test_the_script_chooses_a_component_by_fragment_key_and_pointer(
    chromium: Browser, page: Path
) -> None:
    pressed = "[...document.querySelectorAll('.chip')].map(c => c.getAttribute('aria-pressed'))"
    chromium.open(page)
    assert chromium.js(DIM) == 0
    assert chromium.js("document.documentElement.className") == "js"
    chromium.js("document.querySelectorAll('.chip')[1].focus()")
    chromium.press("ArrowRight")
    chromium.js("document.activeElement.click()")
    assert chromium.js(pressed) == ["false", "false", "true"]
    assert chromium.js("location.hash") == "#component=2"
    marked = "[...document.querySelectorAll('[data-component]')]"
    others = f"{marked}.filter(e => e.dataset.component !== '2').length"
    assert chromium.js(DIM) == chromium.js(others) > 20
    chromium.press("Escape")
    assert (chromium.js(DIM), chromium.js("location.hash")) == (0, "")
    # As a link that somebody sent.
    chromium.open(page, "component=1&theme=dark")
    assert chromium.js(pressed) == ["false", "true", "false"]
    assert chromium.js("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    chromium.open(page, "component=99&theme=<b>")
    assert chromium.js(DIM) == 0
    # A bar under the pointer tells its value, and a click chooses its component.
    box = chromium.js(
        "(b => {b.scrollIntoView({block: 'center'}); const r = b.getBoundingClientRect();"
        " return [r.x + r.width / 2, r.y + r.height / 2]})"
        "(document.querySelector('svg[aria-label=Weights] [data-component=\"0\"]'))"
    )
    chromium.point(*box)
    tip = chromium.js("document.querySelector('.tip').textContent")
    assert re.fullmatch(r"component 0: [\d.]+ %", tip)
    chromium.click(*box)
    assert chromium.js("location.hash").startswith("#component=0")
    assert chromium.said == []


@pytest.mark.slow
def test_the_script_sorts_tables_and_downloads_exact_values(
    chromium: Browser, page: Path, model: GaussianMixture
) -> None:
    chromium.open(page)
    download = (
        "(async name => {"
        " URL.createObjectURL = blob => { window.made = blob; return '#'; };"
        " const of = [...document.querySelectorAll('.get button')];"
        " of.find(b => b.getAttribute('aria-label') === `Download CSV: ${name}`).click();"
        " return await window.made.text() })"
    )
    told = chromium.js(f"{download}('means')")
    rows = list(csv.reader(io.StringIO(told.removeprefix("\ufeff"))))
    name = '\'=HYPERLINK("x"),height'
    assert rows[0] == [
        "component", "weight", name, f"{name} sd", "weight", "weight sd", "age", "age sd",
    ]  # fmt: skip
    numbers = np.array(rows[1:], dtype=float)
    np.testing.assert_array_equal(numbers[:, 1], model.weights_)
    np.testing.assert_array_equal(numbers[:, 2::2], model.means_)
    deviations = np.sqrt(np.array([np.diag(c) for c in model.covariances_]))
    np.testing.assert_array_equal(numbers[:, 3::2], deviations)
    # By the button in the head of the second column, twice: the heaviest first.
    head = "document.querySelector('table[data-name=means] th:nth-child(2)')"
    for _ in range(2):
        chromium.js(f"{head}.querySelector('button').click()")
    assert chromium.js(f"{head}.getAttribute('aria-sort')") == "descending"
    first = chromium.js(
        "document.querySelector('table[data-name=means] tbody tr').dataset.component"
    )
    assert int(first) == int(np.argmax(model.weights_))
    assert chromium.said == []


@pytest.mark.slow
def test_pictures_enlarge_and_nothing_overflows_a_phone(
    chromium: Browser, page: Path, tmp_path: Path
) -> None:
    chromium.open(page, width=375, height=800, mobile=True)
    assert chromium.js("document.documentElement.scrollWidth") == 375
    svgs = "document.querySelectorAll('figure svg').length"
    before = chromium.js(svgs)
    chromium.js("document.querySelector('figure button').click()")
    assert chromium.js("document.querySelector('dialog').open")
    assert chromium.js("document.querySelectorAll('dialog svg').length") == 1
    chromium.press("Escape")
    assert not chromium.js("document.querySelector('dialog').open")
    assert chromium.js(svgs) == before
    chromium.printed(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
    assert chromium.said == []


@pytest.mark.slow
def test_without_scripts_all_is_shown(chromium: Browser, page: Path) -> None:
    chromium.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        chromium.open(page)
        document = chromium.call("DOM.getDocument", depth=-1)
        html = chromium.call("DOM.getOuterHTML", nodeId=document["root"]["nodeId"])["outerHTML"]
    finally:
        chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "Enlarge" not in Page(re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)).text
    assert html.count("<title>component") > 10
