"""Laws of fits over every exponential family: one iteration, chunks, workers, resume, files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
from distributed import Client
from helpers import write_zarr
from scipy import optimize, special, stats
from sklearn.utils.estimator_checks import check_estimator

from dask_em import (
    ExponentialMixture,
    GammaMixture,
    MultinomialMixture,
    PoissonMixture,
    load,
    select,
)
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.estimators.registry import estimator_tag, stored_of
from dask_em.fitting.observers import Event, Observer, RowsDone
from dask_em.jobs.cluster import ClusterOptions
from dask_em.jobs.report import report

N, K = 3000, 3
LABELS = np.random.default_rng(7).choice(K, N, p=[0.5, 0.3, 0.2])
RATES = np.array([[2.0, 9.0, 4.0, 1.0], [6.0, 3.0, 8.0, 2.0], [12.0, 12.0, 1.0, 5.0]])
SHARES = RATES / RATES.sum(axis=1, keepdims=True)
SCALES = 10.0 ** np.array([[0, 1, 1, 0], [1, 0, 3, 2], [3, 2, 0, 1]])
SHAPES = np.array([[3.0, 9.0, 2.0, 20.0], [20.0, 3.0, 5.0, 2.0], [8.0, 8.0, 8.0, 8.0]])

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


@dataclass(frozen=True)
class Fitted:
    """An estimator, data that suit it, and its density by SciPy.

    `step` is the M-step of responsibilities for one component: parameters by their names.
    """

    kind: Any
    rows: Array
    truth: dict[str, Array]
    log_density: Callable[[Array, dict[str, Array]], Array]
    step: Callable[[Array, Array], dict[str, Array]]

    def fit(self, rows: Any = None, k: int = K, **options: Any) -> Any:
        options = {"random_state": 0, "sample_size": 500, "tol": 1e-6, **options}
        return self.kind(k, **options).fit(self.rows if rows is None else rows)


def gamma_step(X: Array, r: Array) -> dict[str, Array]:
    means = r @ X / r.sum()
    gaps = np.log(means) - r @ np.log(X) / r.sum()
    shapes = np.array(
        [
            optimize.brentq(
                lambda a, gap=gap: np.log(a) - special.digamma(a) - gap, 1e-6, 1e6, xtol=1e-14
            )
            for gap in gaps
        ]
    )
    return {"shapes_": shapes, "scales_": means / shapes}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


FAMILIES = {
    "poisson": Fitted(
        PoissonMixture,
        rng().poisson(RATES[LABELS]).astype(np.uint16),
        {"rates_": RATES},
        lambda X, p: np.sum(stats.poisson.logpmf(X, p["rates_"]), axis=1),
        lambda X, r: {"rates_": r @ X / r.sum()},
    ),
    "multinomial": Fitted(
        MultinomialMixture,
        rng().multinomial(rng(1).poisson(25.0, N), SHARES[LABELS]).astype(np.uint8),
        {"probabilities_": SHARES},
        lambda X, p: stats.multinomial.logpmf(X, X.sum(axis=1), p["probabilities_"]),
        lambda X, r: {"probabilities_": r @ X / (r @ X).sum()},
    ),
    "exponential": Fitted(
        ExponentialMixture,
        rng().exponential(SCALES[LABELS]),
        {"scales_": SCALES},
        lambda X, p: np.sum(stats.expon.logpdf(X, scale=p["scales_"]), axis=1),
        lambda X, r: {"scales_": r @ X / r.sum()},
    ),
    "gamma": Fitted(
        GammaMixture,
        rng().gamma(SHAPES[LABELS], SCALES[LABELS]),
        {"shapes_": SHAPES, "scales_": SCALES},
        lambda X, p: np.sum(stats.gamma.logpdf(X, p["shapes_"], scale=p["scales_"]), axis=1),
        gamma_step,
    ),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Fitted:
    return FAMILIES[request.param]


# -- what a fit finds ----------------------------------------------------------------------


def test_the_components_are_found(family: Fitted) -> None:
    model = family.fit()
    logs = {name: np.log(values) for name, values in family.truth.items()}
    apart = sum(
        np.abs(np.log(getattr(model, name)) - values[:, None]).sum(axis=2)
        for name, values in logs.items()
    )
    order = np.argmin(apart, axis=1)
    np.testing.assert_allclose(model.weights_[order], [0.5, 0.3, 0.2], atol=0.04)
    for name, values in family.truth.items():
        np.testing.assert_allclose(getattr(model, name)[order], values, rtol=0.25, atol=0.01)
    assert model.degenerate_ == []


def test_one_iteration_is_that_of_plain_numpy(family: Fitted) -> None:
    begin = family.fit(algorithm="em", init_params="kmeans", max_iter=0)
    after = family.fit(algorithm="em", init_params="kmeans", max_iter=1)
    X = family.rows.astype(np.float64)

    def parameters(model: Any, k: int) -> dict[str, Array]:
        return {name: getattr(model, name)[k] for name in family.truth}

    joint = np.log(begin.weights_) + np.stack(
        [family.log_density(X, parameters(begin, k)) for k in range(K)], axis=1
    )
    total = special.logsumexp(joint, axis=1)
    resp = np.exp(joint - total[:, None])
    assert after.lower_bound_ == pytest.approx(total.mean(), rel=1e-12)
    np.testing.assert_allclose(after.weights_, resp.mean(axis=0), rtol=1e-10)
    for k in range(K):
        for name, expected in family.step(X, resp[:, k]).items():
            np.testing.assert_allclose(getattr(after, name)[k], expected, rtol=1e-7, err_msg=name)
    found = after.score_samples(family.rows)
    joint = np.log(after.weights_) + np.stack(
        [family.log_density(X, parameters(after, k)) for k in range(K)], axis=1
    )
    np.testing.assert_allclose(found, special.logsumexp(joint, axis=1), rtol=1e-10)


@pytest.mark.slow  # A law that the table of families has, too.
def test_plain_em_never_gets_worse(family: Fitted) -> None:
    bounds = family.fit(k=4, algorithm="em", init_params="random", max_iter=25, tol=0).lower_bounds_
    assert len(bounds) == 25
    assert (np.diff(bounds) >= -1e-11 * np.abs(bounds[0])).all()


@pytest.mark.slow  # A law that the table of families has, too.
def test_accelerated_fits_end_where_plain_em_does_or_above(family: Fitted) -> None:
    limits: dict[str, Any] = {"tol": 1e-9, "max_iter": 300}
    quick = family.fit(**limits)
    plain = family.fit(algorithm="em", init_params="random_from_data", **limits)
    assert quick.lower_bound_ > plain.lower_bound_ - 1e-6


def test_a_nested_model_is_never_better(family: Fitted) -> None:
    found = select(
        family.rows, range(1, 5), estimator=family.kind, random_state=0, exhaustive=True, tol=1e-6
    )
    values = [row["log_likelihood"] for row in found.table]
    assert (np.diff(values) >= -1e-6).all()
    assert found.best.n_components == K


# -- the same, however it is computed ------------------------------------------------------


@pytest.mark.slow  # A law that the table of families has, too.
def test_weights_are_repetitions(family: Fitted) -> None:
    weights = rng(2).integers(0, 3, N)
    options: dict[str, Any] = {
        "algorithm": "em",
        "init_params": "kmeans",
        "max_iter": 0,
        "sample_size": N,
    }
    start = family.fit(**options)
    again = {"algorithm": "em", "max_iter": 5, "tol": 0, "warm_start": True}
    one, other = load_copy(start), load_copy(start)
    one.set_params(**again).fit(family.rows, sample_weight=weights)
    other.set_params(**again).fit(np.repeat(family.rows, weights, axis=0))
    for name in family.truth:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)
    assert one.lower_bound_ == pytest.approx(other.lower_bound_, rel=1e-12)


def load_copy(model: Any) -> Any:
    return type(model).from_saved(model.to_saved())


@pytest.mark.parametrize("name", ["poisson", "multinomial"])
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "i8", "f4"])
def test_integers_are_read_in_their_own_type(name: str, dtype: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    stored = write_zarr(tmp_path / "x.zarr", family.rows.astype(dtype), 200)
    model = family.fit(stored)
    assert model.provenance_["dtype"] == str(np.dtype(dtype))
    same = family.fit(write_zarr(tmp_path / "y.zarr", family.rows.astype("f8"), 200))
    assert model.lower_bound_ == pytest.approx(
        same.lower_bound_, rel=1e-6 if dtype == "f4" else 1e-12
    )


@pytest.mark.slow  # A law that the table of families has, too.
def test_any_chunks_and_any_workers_give_the_same(
    family: Fitted, client: Client, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", family.rows.astype("f8"), 200)
    here = family.fit(stored)
    with client.as_current():
        there = family.fit(stored)
        labels = there.predict(stored)
    assert digest(here.state_) == digest(there.state_)
    np.testing.assert_array_equal(labels.compute(), here.predict(family.rows))
    for other in (
        write_zarr(tmp_path / "y.zarr", family.rows, 700),
        da.from_array(family.rows, chunks=(431, 2)),
    ):
        assert family.fit(other).lower_bound_ == pytest.approx(here.lower_bound_, rel=1e-9)


class StoppedError(Exception):
    """What ends a fit that is to be resumed."""


class StopAfter(Observer):
    """Stop after so many parts of passes."""

    def __init__(self, parts: int) -> None:
        self.left = parts

    def notify(self, event: Event) -> None:
        self.left -= isinstance(event, RowsDone)
        if self.left == 0:
            raise StoppedError


@pytest.mark.slow  # A law that the table of families has, too.
def test_a_resumed_fit_has_the_bits_of_a_straight_one(
    family: Fitted, synchronous: None, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", family.rows.astype("f8"), 200)
    straight = family.fit(stored)
    for parts in (3, 18):
        kept = tmp_path / f"kept{parts}"
        with pytest.raises(StoppedError):
            family.fit(stored, checkpoint=kept, callbacks=[StopAfter(parts)])
        resumed = family.fit(stored, checkpoint=kept)
        assert digest(resumed.state_) == digest(straight.state_)


@pytest.mark.slow  # A law that the table of families has, too.
def test_a_sweep_is_fits_apart(family: Fitted) -> None:
    options: dict[str, Any] = {"random_state": 0, "n_init": 2, "sample_size": 500}
    found = select(
        family.rows, [2, 3], estimator=family.kind, exhaustive=True, keep_all=True, **options
    )
    for model in found.models:
        alone = family.kind(model.n_components, **options).fit(family.rows)
        assert model.lower_bound_ == pytest.approx(alone.lower_bound_, abs=2e-3)
    assert [row["n_components"] for row in found.table] == [2, 3]


# -- files, pages, the command line --------------------------------------------------------


@pytest.mark.slow  # A law that the table of families has, too.
def test_a_saved_model_is_the_model(family: Fitted, tmp_path: Path) -> None:
    model = family.fit()
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert type(again) is family.kind
    assert digest(again.state_) == digest(model.state_)
    assert again.get_params() == model.get_params()
    np.testing.assert_array_equal(
        again.score_samples(family.rows), model.score_samples(family.rows)
    )
    assert stored_of(estimator_tag(family.kind)) == family.kind.stored()


def test_a_warm_start_goes_on(family: Fitted) -> None:
    straight = family.fit(max_iter=6, tol=0, algorithm="em", init_params="random")
    model = family.fit(max_iter=3, tol=0, algorithm="em", init_params="random")
    model.set_params(warm_start=True).fit(family.rows)
    for name in family.truth:
        np.testing.assert_allclose(getattr(model, name), getattr(straight, name), rtol=1e-9)


def test_draws_are_like_the_data(family: Fitted) -> None:
    model = family.fit()
    drawn, components = model.sample(20_000)
    assert set(components) == set(range(K))
    np.testing.assert_allclose(drawn.mean(axis=0), family.rows.mean(axis=0), rtol=0.1)
    described = model.describe()
    means = model.weights_ @ described.means
    np.testing.assert_allclose(means, family.rows.mean(axis=0), rtol=0.05)
    text = model._repr_mimebundle_()["text/html"]
    assert "3 components in 4 columns" in text


def test_a_report_draws_it(tmp_path: Path) -> None:
    family = FAMILIES["poisson"]
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    stored = write_zarr(tmp_path / "x.zarr", family.rows, 500)
    family.fit(stored).save(tmp_path / "m.npz")
    page = tmp_path / "page.html"
    report(str(tmp_path / "m.npz"), str(page), ClusterOptions(), str(tmp_path / "x.zarr"))
    text = page.read_text()
    assert text.count("<svg") > 3
    assert "3 Poisson components" in text


def test_the_command_line_knows_the_families(tmp_path: Path) -> None:
    name = "gamma"
    family = FAMILIES[name]
    data, model = str(tmp_path / "x.zarr"), str(tmp_path / "m.npz")
    write_zarr(tmp_path / "x.zarr", family.rows, 1000)

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "dask_em.cli", *words]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    tag = f"{name}-mixture"
    fitted = run("fit", data, "-k", "2:4", "-o", model, "--family", tag, "--json")
    assert json.loads(fitted)["n_components"] == K
    found = json.loads(run("inspect", model, "--json"))
    assert found["family"] == name.title()
    np.testing.assert_allclose(
        np.array(found["weights"]) @ found["means"], family.rows.mean(axis=0), rtol=0.05
    )
    assert f"3 components, {name.title()}" in run("inspect", model)


def test_inspect_of_each_family_imports_nothing_heavy(family: Fitted, tmp_path: Path) -> None:
    family.fit().save(tmp_path / "m.npz")
    code = (
        "import sys\nfrom dask_em.cli import main\n"
        f"try: main(['inspect', {str(tmp_path / 'm.npz')!r}])\nexcept SystemExit: pass\n"
        "print(sorted({'scipy', 'sklearn', 'dask', 'numba', 'zarr'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# -- scikit-learn's contract ---------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:X does not", "ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize(
    "model",
    [
        PoissonMixture(fractions="round"),
        MultinomialMixture(fractions="round"),
        ExponentialMixture(),
        # scikit-learn's positive numbers begin with zero.
        GammaMixture(detection_limit=0.01),
    ],
    ids=lambda model: type(model).__name__,
)
def test_scikit_learn_s_checks_pass(model: Any) -> None:
    check_estimator(model)


@pytest.mark.parametrize("kind", [PoissonMixture, MultinomialMixture])
def test_fractions_are_rounded_where_that_is_wanted(kind: Any) -> None:
    rows = FAMILIES["poisson"].rows
    near = np.maximum(rows + rng(3).uniform(-0.4, 0.4, rows.shape), 0.0)
    options = {"random_state": 0, "tol": 1e-9}
    with pytest.raises(ValueError, match="where counts"):
        kind(2).fit(near)
    one = kind(3, **options).fit(rows)
    other = kind(3, fractions="round", **options).fit(near)
    assert one.lower_bound_ == pytest.approx(other.lower_bound_, abs=1e-6)
    np.testing.assert_array_equal(other.predict(near), other.predict(rows))
    with pytest.raises(ValueError, match="fractions='up': expected one of error, round"):
        kind(2, fractions="up").fit(rows)


def test_a_device_is_refused() -> None:
    with pytest.raises(ValueError, match="device='cuda': PoissonMixture computes on the CPU"):
        PoissonMixture(device="cuda").fit(FAMILIES["poisson"].rows)
    assert PoissonMixture(device="auto").fit(FAMILIES["poisson"].rows).converged_
