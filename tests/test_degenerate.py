"""Components at single values: named wherever a fit is shown, and nothing else is.

Counts, zeros and rounded numbers let a component narrow to a value, where `reg_covar` alone gives
it a width. Every remedy in the warning is followed to the letter here.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import KINDS, start_cluster, write_zarr
from sklearn.exceptions import ConvergenceWarning
from strangers.negative_binomial_mixture import NegativeBinomialMixture
from strangers.pooled_covariance import pooled

from dask_em import GaussianMixture, load, select
from dask_em.cli.main import main
from dask_em.cli.words import in_shell
from dask_em.core.additive import Array
from dask_em.core.degenerate import Degenerate
from dask_em.core.em import Status
from dask_em.core.mixture import Mixture
from dask_em.core.moments import Moments
from dask_em.core.tuning import tuning, use_tuning
from dask_em.estimators.html import summary_html
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.report.page import report_html

RIDGE = 1e-6
N = 3000


@pytest.fixture(params=dict.fromkeys([*KINDS, pooled.__name__]))
def kind(request: pytest.FixtureRequest) -> str:
    """Every covariance structure, and a stranger's."""
    return str(request.param)


# -- the law, on M-steps of known components -----------------------------------------------


def m_step(
    kind: str, X: Array, labels: Array, ridge: float = RIDGE, weights: Array | None = None
) -> Mixture:
    """The mixture whose components are the rows of each label."""
    k = labels.max() + 1
    weights = np.ones(len(X)) if weights is None else weights
    mean = np.average(X, axis=0, weights=weights)
    centred = X - mean
    scatter = (centred.T * weights) @ centred
    moments = Moments(float(weights.sum()), mean, scatter, X.min(axis=0), X.max(axis=0))
    family = GaussianOptions(kind, ridge).of_data(moments, k)
    resp = np.eye(k)[labels] * weights[:, None]
    return Mixture(np.full(k, -np.log(k)), family.near(X, resp)).of_responsibilities(X, resp)


def degenerate(*arguments: Any, **options: Any) -> list[Degenerate]:
    found = m_step(*arguments, **options)
    assert isinstance(found.components, Gaussian)
    return found.components.degenerate(found.weights)


def labels_of(k: int = 3) -> Array:
    return np.arange(N) % k


def at_values(kind: str, values: Array, rng: np.random.Generator) -> Array:
    """Rows at one value a component; in one column of two where the structure can tell."""
    column = values[labels_of(len(values))]
    if kind == "spherical":
        return column[:, None]
    return np.column_stack([column, rng.normal(size=N)])


SINGLE_VALUES = {
    "counts": [0.0, 1.0, 2.0],
    "rounded": [0.1, 0.2, 0.3],
    "far": [1e8, 1e8 + 1, 1e8 + 2],
    "cents": [-19.99, 0.0, 1999.99],
}


@pytest.mark.parametrize("values", SINGLE_VALUES.values(), ids=SINGLE_VALUES)
def test_components_at_single_values_are_named(kind: str, values: list[float]) -> None:
    X = at_values(kind, np.array(values), np.random.default_rng(0))
    found = degenerate(kind, X, labels_of())
    assert [(one.component, one.columns, one.combined) for one in found] == [
        (k, (0,), ()) for k in range(3)
    ]
    np.testing.assert_allclose([one.values[0] for one in found], values, atol=1e-7)


def test_every_column_is_judged_alone(kind: str) -> None:
    """One component has one value in the first column, one in both, one in none."""
    rng, labels = np.random.default_rng(1), labels_of()
    X = rng.normal(size=(N, 3))
    X[labels == 0, 0] = 4.0
    X[labels == 1, :2] = [7.0, 8.0]
    named = {one.component: one.columns for one in degenerate(kind, X, labels)}
    # What is shared, or is one for all columns, is nobody's single value.
    expected = {"full": {0: (0,), 1: (0, 1)}, "diag": {0: (0,), 1: (0, 1)}}
    assert named == expected.get(kind, {})


def test_a_point_is_one_value_in_every_column(kind: str) -> None:
    rng, labels = np.random.default_rng(2), labels_of()
    X = rng.normal(size=(N, 2))
    X[labels == 1] = [3.0, 5.0]
    named = {one.component: one.columns for one in degenerate(kind, X, labels)}
    assert named == ({} if kind in ("tied", "pooled") else {1: (0, 1)})


@pytest.mark.parametrize("scale", [1e-7, 1e5])
@pytest.mark.parametrize("offset", [0.0, 1e8])
def test_units_do_not_matter(kind: str, scale: float, offset: float) -> None:
    """Neither those of all columns, nor those of the others."""
    labels = labels_of()
    for values, sign in (([0.0, 1.0, 2.0], True), ([0.0, 0.5, 1.0], False)):
        rng = np.random.default_rng(3)
        X = at_values(kind, np.array(values), rng)
        if not sign:
            X[:, 0] += rng.normal(0, 2 * RIDGE**0.5, N)
        moved = scale * (X + (offset if scale > 1 or sign else 0.0))
        assert bool(degenerate(kind, moved, labels, scale**2 * RIDGE)) is sign
        X[:, 1:] *= scale
        assert bool(degenerate(kind, X, labels)) is sign


def test_a_few_rows_that_come_near_do_not_hide_it(kind: str) -> None:
    X = at_values(kind, np.array([0.0, 1.0, 2.0]), np.random.default_rng(4))
    X[:60, 0] += np.linspace(-3, 3, 60) * RIDGE**0.5
    assert len(degenerate(kind, X, labels_of())) == 3


@pytest.mark.parametrize("width", [1.5, 10.0, 1000.0])
def test_tight_clusters_are_clusters(kind: str, width: float) -> None:
    """As long as `reg_covar` is not most of their variance."""
    rng = np.random.default_rng(5)
    for k in (3, 30):
        X = at_values(kind, 100 * np.arange(k, dtype=float), rng)
        X[:, 0] += rng.normal(0, width * RIDGE**0.5, N)
        assert degenerate(kind, X, labels_of(k)) == []


def test_what_does_not_vary_at_all_tells_components_nothing_apart(kind: str) -> None:
    """Columns that are constant, or follow from others: the survey's business."""
    X = np.random.default_rng(6).normal(size=(N, 3)) + 5.0 * labels_of()[:, None]
    same = {"diag": [0, 1, 2], "spherical": [0, 1, 2]}.get(kind, [0, 0, 0])
    constant = X.copy()
    constant[:, 1] = 8.0
    if kind == "spherical":
        constant = constant[:, [0, 2]]
    for rows in (constant, X[:, same]):
        assert degenerate(kind, rows, labels_of()) == []


def test_a_column_as_narrow_as_reg_covar_is_the_surveys_business(kind: str) -> None:
    X = at_values(kind, np.array([0.0, 1.0, 2.0]), np.random.default_rng(7))
    assert degenerate(kind, 1e-4 * X, labels_of()) == []


def test_without_reg_covar_there_is_nothing_to_say(kind: str) -> None:
    X = np.random.default_rng(8).normal(size=(N, 2)) * 1e-9
    assert degenerate(kind, X, labels_of(), ridge=0.0) == []


def test_weights_count_as_rows(kind: str) -> None:
    """The rows that make a component wide may weigh nothing, or all."""
    X = at_values(kind, np.array([0.0, 1.0, 2.0]), np.random.default_rng(9))
    X[:300, 0] += np.linspace(-0.3, 0.3, 300)
    weights = np.ones(N)
    assert degenerate(kind, X, labels_of(), weights=weights) == []
    weights[:300] = 0
    assert len(degenerate(kind, X, labels_of(), weights=weights)) == 3


def test_a_component_in_a_plane_is_named_with_its_columns() -> None:
    rng, labels = np.random.default_rng(10), labels_of()
    X = rng.normal(size=(N, 3)) * [1.0, 1e4, 1.0]
    X[labels == 2, 1] = 2e4 * X[labels == 2, 0]
    (found,) = degenerate("full", X, labels)
    assert (found.component, found.columns, found.combined) == (2, (), (0, 1))
    assert degenerate("diag", X, labels) == []


def test_a_component_of_fewer_rows_than_columns_lies_in_a_plane() -> None:
    X = np.random.default_rng(11).normal(size=(200, 8))
    labels = np.repeat([0, 1], [195, 5])
    assert [one.component for one in degenerate("full", X, labels)] == [1]


# -- fits ----------------------------------------------------------------------------------


def customers(rng: np.random.Generator) -> Array:
    """Orders, returns and complaints: counts, most of the last two zero."""
    orders = rng.poisson(np.where(rng.random(N) < 0.5, 2, 8))
    return np.column_stack([orders, rng.binomial(orders, 0.1), rng.poisson(0.4, N)]).astype(float)


def zero_inflated(rng: np.random.Generator) -> Array:
    amount = np.where(rng.random(N) < 0.6, 0.0, rng.lognormal(3, 1, N))
    return np.column_stack([amount, rng.normal(40, 10, N)])


def rain(rng: np.random.Generator) -> Array:
    """Zeros, and numbers that come as near to zero as one likes."""
    return np.column_stack([np.where(rng.random(N) < 0.5, 0, rng.exponential(1, N))])


def with_a_point_mass(rng: np.random.Generator) -> Array:
    X = rng.normal(size=(N, 2))
    X[: N // 4] = [5.0, 5.0]
    return X


DATA: dict[str, tuple[Callable[[np.random.Generator], Array], int, list[int]]] = {
    "counts": (lambda rng: rng.poisson(3, (N, 1)).astype(float), 6, [0]),
    "few-counts": (lambda rng: np.minimum(rng.poisson(3, (N, 1)), 5).astype(float), 6, [0]),
    "counts-3": (lambda rng: rng.poisson(3, (N, 3)).astype(float), 6, [0, 1, 2]),
    "customers": (customers, 4, [1, 2]),
    "zero-inflated": (zero_inflated, 3, [0]),
    "rain": (rain, 3, [0]),
    "rounded": (lambda rng: np.round(rng.normal(5, 0.2, (N, 1)), 1), 8, [0]),
    "point-mass": (with_a_point_mass, 2, [0, 1]),
}


def made(name: str) -> tuple[Array, int]:
    make, k, _ = DATA[name]
    return make(np.random.default_rng(0)), k


def quiet(X: Array, k: int, **options: Any) -> GaussianMixture:
    """Fit, and let no warning pass but that of a fit that is not done."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*out of iterations")
        return GaussianMixture(k, random_state=0, **options).fit(X)


def warned(X: Any, k: int, **options: Any) -> GaussianMixture:
    with pytest.warns(ConvergenceWarning, match="^degenerate components: "):
        return GaussianMixture(k, random_state=0, **options).fit(X)


# One covariance for all is narrow only where all components are; counts in three columns have
# honest optima, too.
HONEST = "counts-3"
FITS = [(name, kind) for kind in ("full", "diag") for name in DATA if name != HONEST]
FITS += [(name, kind) for name in ("few-counts",) for kind in ("tied", "spherical", "pooled")]


@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_no_spike_is_preferred_to_an_honest_optimum(covariance: str) -> None:
    X, k = made(HONEST)
    with use_tuning(tuning().with_changes(multistart={"share": 1e6})):
        honest = quiet(X, k, covariance_type=covariance)
    assert not honest.degenerate_
    # From the values of a column, plain EM ends in spikes, of a higher likelihood.
    values = X[:, 0].clip(max=k - 1).astype(int)
    means = [X[values == v].mean(axis=0) for v in range(k)]
    spiked = warned(X, k, covariance_type=covariance, algorithm="em", means_init=means,
                    weights_init=np.bincount(values) / len(X),
                    precisions_init=_narrow(covariance, k))  # fmt: skip
    assert spiked.degenerate_
    assert spiked.lower_bound_ > honest.lower_bound_


def _narrow(covariance: str, k: int) -> Array:
    """Precisions of components at single values of the first of three columns."""
    of_one = np.array([1e6, 0.3, 0.3])
    return np.array([of_one if covariance == "diag" else np.diag(of_one)] * k)


@pytest.mark.parametrize(("name", "covariance"), FITS)
def test_a_fit_warns_of_them_and_says_where(name: str, covariance: str) -> None:
    (X, k), may = made(name), DATA[name][2]
    # As large data are searched: a small start may end where clusters explain most.
    with use_tuning(tuning().with_changes(multistart={"share": 1e6})):
        model = warned(X, k, covariance_type=covariance)
    assert model.status_ is Status.CONVERGED
    for one in model.degenerate_:
        assert one.columns
        assert {*one.columns} <= {*may}
        for j, value in zip(one.columns, one.values, strict=True):
            # Many rows do hold the value that is named.
            there = np.abs(X[:, j] - value) < 3 * RIDGE**0.5
            assert there.mean() >= 0.5 * model.weights_[one.component]
    (message,) = model.warnings_
    assert f"column {model.degenerate_[0].columns[0]}" in message
    assert "reg_covar=1e-06" in message


def test_columns_are_called_by_their_names() -> None:
    pandas = pytest.importorskip("pandas")
    X, k = made("zero-inflated")
    model = warned(pandas.DataFrame(X, columns=["amount", "age"]), k)
    (one,) = model.degenerate_
    share = f"component {one.component} ({model.weights_[one.component]:.1%} of the rows)"
    assert f"{share} at 0 in column 'amount'" in model.warnings_[0]
    assert abs(model.weights_[one.component] - 0.6) < 0.03


def test_weighted_fits_warn_alike() -> None:
    X, k = made("zero-inflated")
    values, counts = np.unique(X, axis=0, return_counts=True)
    with pytest.warns(ConvergenceWarning, match="degenerate"):
        model = GaussianMixture(k, random_state=0).fit(values, sample_weight=counts.astype(float))
    assert [one.columns for one in model.degenerate_] == [(0,)]


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_nothing_is_said_of_clusters(covariance: str) -> None:
    rng = np.random.default_rng(1)
    centres = rng.uniform(-50, 50, (5, 2))
    X = np.concatenate([c + rng.normal(0, 0.005, (N // 5, 2)) for c in centres])
    for rows in (X, 1e3 * X, X + 1e8):
        assert quiet(rows, 5, covariance_type=covariance).degenerate_ == []


def test_nothing_is_said_of_a_family_that_counts() -> None:
    X, _ = made("counts-3")
    X[::2] += 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = NegativeBinomialMixture(2, random_state=0, tol=0.1).fit(X + 1.0)
    assert (model.degenerate_, model.warnings_) == ([], [])


# -- the remedies, to the letter -------------------------------------------------------------


@pytest.mark.parametrize("name", ["customers", "zero-inflated"])
@pytest.mark.parametrize("covariance", ["full", "diag"])
def test_columns_that_are_left_out_are_the_remedy(name: str, covariance: str) -> None:
    X, k = made(name)
    model = warned(X, k, covariance_type=covariance)
    while model.degenerate_:
        out = sorted({j for one in model.degenerate_ for j in one.columns})
        assert "leave column" in model.warnings_[0]
        X = np.delete(X, out, axis=1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = GaussianMixture(2, covariance_type=covariance, random_state=0).fit(X)
    assert X.shape[1] >= 1


@pytest.mark.parametrize(("name", "step"), [("counts", 1.0), ("customers", 1.0), ("rounded", 0.1)])
def test_noise_as_wide_as_the_step_is_the_remedy(name: str, step: float) -> None:
    X, k = made(name)
    model = warned(X, k)
    assert "uniform noise as wide as the step between its values" in model.warnings_[0]
    rng = np.random.default_rng(1)
    # All that are counts: without the narrowest, the next is found.
    columns = [*range(X.shape[1])]
    X[:, columns] += rng.uniform(0, step, (N, len(columns)))
    assert quiet(X, k).degenerate_ == []


@pytest.mark.parametrize("name", ["zero-inflated", "rain", "point-mass"])
def test_rows_of_the_value_fitted_apart_are_the_remedy(name: str) -> None:
    X, k = made(name)
    model = warned(X, k)
    (one,) = model.degenerate_
    apart = np.isclose(X[:, list(one.columns)], one.values, atol=RIDGE**0.5 / 10).all(axis=1)
    assert quiet(X[~apart], k - 1).degenerate_ == []


def test_where_values_differ_reg_covar_or_the_scale_is_the_remedy() -> None:
    rng = np.random.default_rng(2)
    X = np.column_stack([np.arange(N) % 3 + rng.normal(0, 1e-4, N), rng.normal(size=N)])
    model = warned(X, 3)
    assert "by less than 0.001, lower reg_covar or scale the column up" in model.warnings_[0]
    assert quiet(X, 3, reg_covar=1e-10).degenerate_ == []
    assert quiet(X * [1000.0, 1.0], 3).degenerate_ == []


def test_what_only_widens_or_moves_them_is_no_remedy() -> None:
    """And is not advised: a larger `reg_covar`, and logarithms."""
    X, k = made("counts")
    assert "raise reg_covar" not in warned(X, k, reg_covar=0.03).warnings_[0]
    assert "log" not in warned(np.log1p(X), k).warnings_[0]


# -- accelerated steps do not narrow what reg_covar bounds -----------------------------------


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
@pytest.mark.filterwarnings("ignore:degenerate", "ignore:.*out of iterations")
def test_no_variance_is_below_reg_covar_and_no_likelihood_falls(covariance: str) -> None:
    make, k, _ = DATA["rain"]
    for seed in range(2):
        X = make(np.random.default_rng(seed))
        model = GaussianMixture(k, covariance_type=covariance, random_state=seed).fit(X)
        assert model.status_ in (Status.CONVERGED, Status.OUT_OF_ITERATIONS)
        assert model.describe().variances.min() >= RIDGE * (1 - 1e-9)


@pytest.mark.parametrize("ridge", [0.0, RIDGE, 1.0])
def test_the_likelihood_gains_what_the_m_step_promises_at_least(kind: str, ridge: float) -> None:
    X = np.random.default_rng(3).normal(size=(N, 2)) + 3.0 * labels_of()[:, None]
    mixture = m_step(kind, X, np.random.default_rng(4).integers(0, 3, N), ridge)
    values, promised = [], []
    for _ in range(8):
        fold = mixture.fold()
        fold.update(0, X, None)
        sums = fold.result()
        values.append(sums.mean_log_likelihood)
        promised.append(mixture.m_step_gain(sums))
        mixture, _ = mixture.m_step(sums)
    assert (np.diff(values) >= np.array(promised[:-1]) - 1e-12).all()
    assert ridge == 1.0 or min(promised) > -1e-5


# -- where it is shown -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with start_cluster(1) as cluster:
        yield cluster.scheduler_address


def test_it_is_shown_wherever_the_status_is(tmp_path: Path) -> None:
    X, k = made("zero-inflated")
    model = warned(X, k)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert again.degenerate_ == model.degenerate_
    (message,) = again.warnings_
    for page in (report_html(again), summary_html(again)):
        assert "<b>Warning</b>: degenerate components: " in page
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.npz")])
    in_options = in_shell(message, main.commands["fit"])
    assert "--reg-covar" in in_options
    assert f"warning  {in_options}" in shown.stdout
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.npz"), "--json"])
    found = json.loads(shown.stdout)
    assert found["degenerate"] == [one.as_dict() for one in model.degenerate_]
    assert found["warnings"] == [in_options]
    assert shown.exit_code == 0


def test_the_command_warns_and_ends_with_zero(tmp_path: Path, address: str) -> None:
    X, k = made("zero-inflated")
    write_zarr(tmp_path / "x.zarr", X, 1000)
    options = ["--scheduler", address, "--seed", "0"]

    def run(output: str, *more: str) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            return CliRunner().invoke(
                main,
                ["fit", str(tmp_path / "x.zarr"), "-o", str(tmp_path / output), *options, *more],
            )

    one = run("one.npz", "-k", str(k))
    assert one.exit_code == 0, one.output
    assert "Warning: degenerate components: component" in one.stderr
    assert "1 degenerate of 3 components" in one.stdout
    many = run("many.npz", "-k", "2,3", "--json")
    assert many.exit_code == 0, many.output
    found = json.loads(many.stdout)
    assert found["range_end"] == "largest"
    assert found["degenerate"][0]["values"][0] == pytest.approx(0, abs=1e-6)
    assert len(found["warnings"]) == 1
    assert "-k 3 is best by bic and the largest that was tried" in many.stderr
    assert "bic cannot choose among such models" in many.stderr


def test_a_sweep_says_where_its_winner_stands(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(N, 2)) + 8.0 * labels_of()[:, None]
    for tried, end, said in (
        ([1, 2, 3], "largest", "n_components=3 is best by bic and the largest that was tried"),
        ([3, 4], "smallest", "n_components=3 is best by bic and the smallest that was tried"),
        ([2, 3, 4], None, ""),
        ([3], None, ""),
    ):
        caplog.clear()
        logger = logging.getLogger("dask_em")
        logger.addHandler(caplog.handler)
        try:
            found = select(X, tried, random_state=0)
        finally:
            logger.removeHandler(caplog.handler)
        assert (found.best.n_components, found.range_end) == (3, end)
        assert said in caplog.text
        assert bool(said) == ("was tried" in caplog.text)


def test_a_sweep_warns_of_its_winner() -> None:
    X, _ = made("customers")
    with pytest.warns(ConvergenceWarning, match=r"^degenerate .*; bic cannot choose among such"):
        found = select(X, [2, 3, 4], random_state=0)
    assert found.best.degenerate_
