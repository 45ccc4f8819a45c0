"""A family and a constraint of strangers: all that the package does, from what they wrote alone.

`strangers/negative_binomial_mixture.py` and `strangers/pooled_covariance.py` are what another
package would ship; nothing in dask_em knows of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import Client
from helpers import blobs, write_zarr
from scipy.stats import nbinom
from strangers.negative_binomial_mixture import SIZE, NegativeBinomial, NegativeBinomialMixture
from strangers.pooled_covariance import pooled

from dask_em import GaussianMixture, load, select
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.family import Family
from dask_em.estimators.base import MixtureEstimator
from dask_em.families.gaussian.constraints import CONSTRAINTS
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.matrices import Full
from dask_em.families.gaussian.whitening import Whitening
from dask_em.fitting.observers import Event, Observer, RowsDone
from dask_em.jobs.cluster import ClusterOptions
from dask_em.jobs.report import report
from dask_em.testing.families import FamilyTests

N, D, K = 3000, 4, 3
MEANS = np.array([[2.0, 9.0, 4.0, 1.0], [6.0, 3.0, 8.0, 2.0], [12.0, 12.0, 1.0, 5.0]])

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]


def counts(n: int = N, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    means = MEANS[rng.choice(K, n, p=[0.5, 0.3, 0.2])]
    return rng.negative_binomial(SIZE, SIZE / (SIZE + means)).astype(np.float64)


@dataclass(frozen=True)
class Stranger:
    """An estimator of a stranger, and data that suit it."""

    make: Callable[..., MixtureEstimator]
    rows: Array
    select: dict[str, Any]

    def fit(self, rows: Any = None, **options: Any) -> MixtureEstimator:
        options = {"random_state": 0, "sample_size": 500, "tol": 1e-6, **options}
        return self.make(**options).fit(self.rows if rows is None else rows)


STRANGERS = {
    "negative-binomial": Stranger(
        lambda k=K, **options: NegativeBinomialMixture(k, **options),
        counts(),
        {"estimator": NegativeBinomialMixture},
    ),
    "pooled": Stranger(
        lambda k=K, **options: GaussianMixture(k, covariance_type="pooled", **options),
        blobs(N, D, K, seed=3, apart=2.0)[0],
        {"covariance_type": ["pooled", "full"]},
    ),
}


@pytest.fixture(params=STRANGERS)
def stranger(request: pytest.FixtureRequest) -> Stranger:
    return STRANGERS[request.param]


class TestNegativeBinomialFamily(FamilyTests):
    def family(self) -> Family[Any]:
        return NegativeBinomial(np.log(MEANS))

    def rows(self) -> Array:
        return counts(400)


class TestPooledFamily(FamilyTests):
    def family(self) -> Family[Any]:
        shape = np.tril(np.random.default_rng(0).normal(size=(2, 2))) + 2 * np.eye(2)
        means = np.array([[0.0, 1.0], [2.0, -1.0]])
        unit = Whitening(np.zeros(2), np.ones(2))
        return Gaussian(means, Full(np.stack([shape, shape])), unit, 0.0, "pooled")

    def rows(self) -> Array:
        return np.random.default_rng(1).normal(0.5, 2.0, (400, 2))

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        # The others' covariances are in the pool, and they have no rows here.
        pass


def test_the_density_is_that_of_scipy() -> None:
    rows = counts(50)
    chances = SIZE / (SIZE + MEANS)
    expected = np.stack([nbinom(SIZE, p).logpmf(rows).sum(axis=1) for p in chances], axis=1)
    np.testing.assert_allclose(NegativeBinomial(np.log(MEANS)).log_prob(rows), expected, rtol=1e-12)


def test_the_means_are_found() -> None:
    model = STRANGERS["negative-binomial"].fit()
    found = np.exp(model.log_means_)
    order = [int(np.abs(found - means).sum(axis=1).argmin()) for means in MEANS]
    np.testing.assert_allclose(found[order], MEANS, rtol=0.15)
    np.testing.assert_allclose(model.weights_[order], [0.5, 0.3, 0.2], atol=0.05)


def test_pooled_covariances_are_those_of_tied_ones() -> None:
    rows = STRANGERS["pooled"].rows
    model = STRANGERS["pooled"].fit(tol=1e-10)
    tied = GaussianMixture(
        K, covariance_type="tied", tol=1e-10, random_state=0, means_init=model.means_
    ).fit(rows)
    assert model.lower_bound_ == pytest.approx(tied.lower_bound_, abs=1e-7)
    for covariance in model.covariances_:
        np.testing.assert_allclose(covariance, tied.covariances_, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(pooled(np.ones(2), np.ones((2, 1, 1))), np.ones((2, 1, 1)))


def test_plain_em_never_gets_worse(stranger: Stranger) -> None:
    bounds = stranger.fit(algorithm="em", init_params="random", max_iter=20).lower_bounds_
    assert len(bounds) >= 3
    assert (np.diff(bounds) >= -1e-9).all()


def test_the_accelerated_fit_needs_fewer_passes(stranger: Stranger) -> None:
    limits = {"tol": 1e-9, "max_iter": 200}
    plain = {"algorithm": "em", "init_params": "random_from_data"}
    # Any one random start may be a lucky one.
    seeds = [{**limits, "random_state": seed} for seed in range(3)]
    quick = [stranger.fit(**options) for options in seeds]
    slow = [stranger.fit(**options, **plain) for options in seeds]
    assert sum(fit.n_iter_ for fit in quick) < sum(fit.n_iter_ for fit in slow)
    for one, other in zip(quick, slow, strict=True):
        assert one.lower_bound_ > other.lower_bound_ - 1e-4


def test_any_chunking_and_any_workers_give_the_same(
    stranger: Stranger, client: Client, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", stranger.rows, 200)
    here = stranger.fit(stored)
    with client.as_current():
        there = stranger.fit(stored)
    assert digest(here.state_) == digest(there.state_)
    other = stranger.fit(write_zarr(tmp_path / "y.zarr", stranger.rows, 700))
    assert other.lower_bound_ == pytest.approx(here.lower_bound_, rel=1e-9)


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


def test_a_resumed_fit_has_the_bits_of_a_straight_one(
    stranger: Stranger, synchronous: None, tmp_path: Path
) -> None:
    stored = write_zarr(tmp_path / "x.zarr", stranger.rows, 200)
    straight = stranger.fit(stored)
    for parts in (3, 20, 40):
        kept = tmp_path / f"kept{parts}"
        with pytest.raises(StoppedError):
            stranger.fit(stored, checkpoint=kept, callbacks=[StopAfter(parts)])
        resumed = stranger.fit(stored, checkpoint=kept)
        assert digest(resumed.state_) == digest(straight.state_)
        assert resumed.lower_bounds_ == straight.lower_bounds_


def test_a_sweep_finds_the_number_of_components(stranger: Stranger, tmp_path: Path) -> None:
    options = {"random_state": 0, "sample_size": 1000, **stranger.select}
    found = select(stranger.rows, range(1, 6), checkpoint=tmp_path / "kept", **options)
    assert len(found.best.weights_) == K
    assert {row["n_components"] for row in found.table} == set(range(1, 6))
    again = select(stranger.rows, range(1, 6), checkpoint=tmp_path / "kept", **options)
    assert digest(again.best.state_) == digest(found.best.state_)


def test_a_model_file_holds_the_model(stranger: Stranger, tmp_path: Path) -> None:
    model = stranger.fit()
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert type(again) is type(model)
    assert digest(again.state_) == digest(model.state_)
    np.testing.assert_array_equal(again.predict(stranger.rows), model.predict(stranger.rows))
    again.set_params(warm_start=True, max_iter=2).fit(stranger.rows)
    assert again.lower_bound_ >= model.lower_bound_ - 1e-6


def test_answers_belong_together(stranger: Stranger) -> None:
    model, rows = stranger.fit(), stranger.rows
    proba = model.predict_proba(rows)
    np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    np.testing.assert_array_equal(model.predict(rows), proba.argmax(axis=1))
    assert model.score(rows) == pytest.approx(model.score_samples(rows).mean(), rel=1e-9)
    assert model.score(rows) == pytest.approx(model.lower_bound_, rel=1e-3)
    drawn, components = model.sample(500)
    assert drawn.shape == (500, D)
    assert set(components) <= set(range(K))
    described = model.describe()
    assert described.means.shape == described.variances.shape == (K, D)
    assert model.weights_ @ described.means == pytest.approx(rows.mean(axis=0), rel=0.1, abs=0.2)
    assert described.covariance(0, [1, 3]).shape == (2, 2)
    assert (described.marginal(2, np.linspace(0, 9, 7)) >= 0).all()
    assert "components in 4 columns" in model._repr_mimebundle_()["text/html"]


def test_a_report_draws_it(stranger: Stranger, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    stored = write_zarr(tmp_path / "x.zarr", stranger.rows, 500)
    stranger.fit(stored).save(tmp_path / "m.npz")
    page = tmp_path / "page.html"
    data = str(tmp_path / "x.zarr")
    made = report(str(tmp_path / "m.npz"), str(page), ClusterOptions(), data)
    assert made["n_rows_drawn"] > 0
    assert page.read_text().count("<svg") > 3


def entry_point(folder: Path) -> dict[str, str]:
    """Return the environment of a process in which a package of the stranger is installed."""
    info = folder / "negative_binomial_mixture-1.0.dist-info"
    info.mkdir(parents=True)
    metadata = "Metadata-Version: 2.1\nName: negative-binomial-mixture\nVersion: 1.0\n"
    (info / "METADATA").write_text(metadata)
    (info / "entry_points.txt").write_text(
        "[dask_em.estimators]\nnegative-binomial-mixture = "
        "strangers.negative_binomial_mixture:NegativeBinomialMixture\n"
        "[dask_em.constraints]\npooled = strangers.pooled_covariance\n"
    )
    here = str(Path(__file__).parent)
    path = os.pathsep.join([str(folder), here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path}


# Runs each line of words as a command, and prints its exit code and what it says.
COMMANDS = """
import json, sys
from click.testing import CliRunner
from dask_em.cli.main import main
if __name__ == "__main__":
    for line in sys.stdin:
        done = CliRunner().invoke(main, json.loads(line))
        print(json.dumps([done.exit_code, done.stdout, done.stderr]), flush=True)
"""


@contextmanager
def commands(environment: dict[str, str], folder: Path) -> Iterator[Callable[..., str]]:
    """Run commands in one process of this environment, for it takes seconds to begin."""
    (folder / "commands.py").write_text(COMMANDS)
    with subprocess.Popen(
        [sys.executable, folder / "commands.py"], env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        given, told = process.stdin, process.stdout

        def run(*words: str, code: int = 0) -> str:
            print(json.dumps(words), file=given, flush=True)
            found, said, warned = json.loads(told.readline())
            assert found == code, said + warned
            return str(said if code == 0 else warned)

        yield run


def test_the_command_line_knows_an_installed_family(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", counts(), 500)
    with commands(entry_point(tmp_path / "site"), tmp_path) as run:
        use_an_installed_family(run, tmp_path)


def use_an_installed_family(run: Callable[..., str], tmp_path: Path) -> None:
    data, model = str(tmp_path / "x.zarr"), str(tmp_path / "m.npz")
    # Its workers, too, must find the family.
    local = ("--workers", "1")
    family = ("--family", "negative-binomial-mixture")
    plan = run("plan", data, "-k", "3", *family, "--json")
    assert json.loads(plan)["statistics_bytes"] > 0
    fitted = run("fit", data, "-k", "1:4", "-o", model, *family, *local, "--json", "--keep-all")
    assert json.loads(fitted)["n_components"] == K
    assert (tmp_path / "m-k4.npz").exists() or len(json.loads(fitted)["files"]) > 1
    assert "3 components, NegativeBinomial" in run("inspect", model)
    assert json.loads(run("score", model, data, "--json"))["n_rows"] == N
    run("predict", model, data, str(tmp_path / "answers.zarr"), *local)
    other = str(tmp_path / "other.npz")
    wrong = run("fit", data, "-k", "3", "-o", other, *family, "--reg-covar", "1", code=2)
    assert "--family negative-binomial-mixture has no --reg-covar" in wrong
    kinds = run("fit", data, "-k", "3", "-o", other, *family, "--covariance", "diag", code=2)
    assert "--family negative-binomial-mixture has no --covariance" in kinds
    unknown = run("fit", data, "-k", "3", "-o", other, "--family", "zipf", code=2)
    assert "expected one of bayesian-gaussian, bernoulli, " in unknown
    assert " negative-binomial," in unknown


@pytest.mark.slow
def test_the_command_line_knows_an_installed_constraint(tmp_path: Path) -> None:
    data, model = str(tmp_path / "x.zarr"), str(tmp_path / "m.npz")
    write_zarr(tmp_path / "x.zarr", STRANGERS["pooled"].rows, 500)
    environment = entry_point(tmp_path / "site")
    command = [sys.executable, "-m", "dask_em.cli", "fit", data, "-k", "3", "-o", model, "--json"]
    more = ["--covariance", "pooled,full", "--workers", "1"]
    done = subprocess.run(command + more, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["covariance_type"] == "pooled"
    assert isinstance(load(model), GaussianMixture)


def test_the_constraint_is_one_of_those_that_there_are() -> None:
    assert {"full", "tied", "diag", "spherical", "pooled"} <= set(CONSTRAINTS)
