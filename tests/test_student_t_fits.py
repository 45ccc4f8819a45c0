"""Laws of the estimator of mixtures of Student's t."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import KINDS, start_cluster, write_zarr
from scipy import stats
from sklearn.utils.estimator_checks import check_estimator
from student_t_data import D, fit, normal_rows, t_rows

from dask_em import StudentTMixture, load, select
from dask_em.cli.main import main
from dask_em.core.codec import digest
from dask_em.fitting.observers import Event, Observer, RowsDone

pytestmark = pytest.mark.usefixtures("many_chunks")

# scikit-learn's checks are hundreds of fits, which are the same whatever the structure.
CHECKED = [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:])]


# -- laws of the estimator --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning", "ignore:X does not")
@pytest.mark.filterwarnings("ignore:reg_covar=", "ignore::sklearn.exceptions.SkipTestWarning")
@pytest.mark.parametrize("kind", CHECKED)
def test_scikit_learn_s_checks_pass(kind: str) -> None:
    check_estimator(StudentTMixture(covariance_type=kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("offset", "scale"), [(1e8, 1.0), (0.0, 1e-6), (0.0, 1e6)])
def test_units_do_not_matter(kind: str, offset: float, scale: float) -> None:
    X = t_rows()
    X = (X + offset) - offset
    options: dict[str, Any] = {
        "covariance_type": kind,
        "algorithm": "em",
        "tol": 1e-6,
        "max_iter": 30,
    }
    one, other = fit(X, **options), fit(scale * X + offset, **options)
    rtol = 1e-6 if offset else 1e-7
    np.testing.assert_allclose(other.df_, one.df_, rtol=1e-4)
    np.testing.assert_allclose(
        other.scales_, scale**2 * one.scales_, rtol=100 * rtol, atol=1e-5 * scale**2
    )
    np.testing.assert_allclose((other.means_ - offset) / scale, one.means_, atol=1e-5)
    moved = other.lower_bound_ + D * np.log(scale)
    np.testing.assert_allclose(moved, one.lower_bound_, atol=1e-6)


def test_collinear_columns_cost_no_digits() -> None:
    X = t_rows()
    mixed = np.array([[1.0, 1.0], [0.0, 1e-5]])
    options: dict[str, Any] = {"algorithm": "em", "tol": 1e-6, "max_iter": 30}
    one, other = fit(X, **options), fit(X @ mixed, **options)
    np.testing.assert_allclose(other.df_, one.df_, rtol=1e-3)
    moved = other.lower_bound_ + np.linalg.slogdet(mixed)[1]
    np.testing.assert_allclose(moved, one.lower_bound_, atol=1e-5)


def test_weights_are_rows_repeated() -> None:
    X = t_rows(300)
    weights = np.random.default_rng(0).integers(0, 4, len(X))
    options: dict[str, Any] = {
        "algorithm": "em",
        "tol": 1e-8,
        "means_init": [[0.0, 0.0], [5.0, 5.0]],
    }
    one = fit(np.repeat(X, weights, axis=0), **options)
    other = StudentTMixture(2, reg_covar=0, max_iter=500, **options).fit(
        X, sample_weight=weights.astype(float)
    )
    assert other.lower_bound_ == pytest.approx(one.lower_bound_, rel=1e-6)
    np.testing.assert_allclose(other.df_, one.df_, rtol=1e-2)


@pytest.mark.slow  # A law that the table of families has, too.
def test_any_workers_give_the_same_bits(client: Client, synchronous: None, tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", t_rows(3000), 200)
    options: dict[str, Any] = {"sample_size": 500, "tol": 1e-6}
    here = fit(stored, **options)
    with dask.config.set(scheduler="threads"):
        assert digest(fit(stored, **options).state_) == digest(here.state_)
    with client.as_current():
        assert digest(fit(stored, **options).state_) == digest(here.state_)


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
def test_a_resumed_fit_has_the_bits_of_a_straight_one(synchronous: None, tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", t_rows(3000), 200)
    options: dict[str, Any] = {"sample_size": 500, "tol": 1e-7}
    straight = fit(stored, **options)
    for parts in (3, 20, 40):
        kept = tmp_path / f"kept{parts}"
        with pytest.raises(StoppedError):
            fit(stored, checkpoint=kept, callbacks=[StopAfter(parts)], **options)
        resumed = fit(stored, checkpoint=kept, **options)
        assert digest(resumed.state_) == digest(straight.state_)


@pytest.mark.slow  # A law that the table of families has, too.
@pytest.mark.filterwarnings("ignore:.*out of iterations")
def test_a_sweep_ends_no_lower_than_the_fits_apart() -> None:
    """Structures of one K start from each other's clusters, too."""
    X = t_rows(2000)
    options: dict[str, Any] = {"random_state": 0, "n_init": 1, "tol": 1e-6, "reg_covar": 0}
    found = select(
        X, [1, 2, 3], ["full", "spherical"], estimator=StudentTMixture, exhaustive=True,
        keep_all=True, **options,
    )  # fmt: skip
    assert (found.best.n_components, len(found.models)) == (2, 6)
    for model in found.models:
        alone = StudentTMixture(
            model.n_components, covariance_type=model.covariance_type, **options
        ).fit(X)
        assert model.lower_bound_ >= alone.lower_bound_ - 1e-9


@pytest.mark.slow  # A law that the table of families has, too.
def test_a_model_file_holds_the_model(tmp_path: Path) -> None:
    for kind in KINDS:
        model = fit(t_rows(), covariance_type=kind, tol=1e-4)
        model.save(tmp_path / "m.npz", overwrite=True)
        again = load(tmp_path / "m.npz")
        assert isinstance(again, StudentTMixture)
        assert digest(again.state_) == digest(model.state_)
        np.testing.assert_array_equal(again.df_, model.df_)
        np.testing.assert_array_equal(again.predict(t_rows()), model.predict(t_rows()))
        again.set_params(warm_start=True).fit(t_rows())
        assert again.lower_bound_ >= model.lower_bound_ - 1e-9


def test_the_accelerated_fit_needs_few_reads() -> None:
    X = t_rows(100_000, df=(3.0, 5.0))
    quick = fit(X, tol=1e-5, reg_covar=1e-6)
    plain = fit(X, tol=1e-8, algorithm="em", init_params="kmeans")
    assert quick.n_reads_ <= 6
    assert quick.n_reads_ < plain.n_reads_
    assert quick.lower_bound_ >= plain.lower_bound_ - 1e-5


def test_a_few_outliers_move_nothing() -> None:
    X = normal_rows(1000)
    X[:20] = np.random.default_rng(0).uniform(-100, 100, (20, D))
    model = fit(X, tol=1e-6)
    nearest = np.abs(model.means_[:, None] - np.array([[0.0, 0.0], [4.0, 4.0]])).max(axis=2)
    assert nearest.min(axis=0).max() < 0.3
    assert model.df_.min() < 10


@pytest.mark.slow  # A law that the table of families has, too.
def test_answers_belong_together() -> None:
    X = t_rows(2000)
    model = fit(X, tol=1e-6)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    assert model.score(X) == pytest.approx(model.lower_bound_, abs=1e-5)
    drawn, labels = model.sample(500)
    assert (drawn.shape, {*labels}) == ((500, D), {0, 1})
    assert model.bic(X) == pytest.approx(-2 * model.score(X) * 2000 + 13 * np.log(2000))
    described = model.describe()
    expected = model.df_ / (model.df_ - 2) * model.scales_[:, 0, 0]
    np.testing.assert_allclose(described.variances[:, 0], expected)
    np.testing.assert_allclose(model.covariances_[:, 0, 0], expected)
    assert "2 components in 2 columns" in model._repr_mimebundle_()["text/html"]


def test_what_has_no_variance_has_a_width() -> None:
    X = t_rows(2000, df=(1.0, 1.2)) + 45.0 * (np.arange(2000) % 2)[:, None]
    model = fit(X, tol=1e-6)
    assert model.df_.max() < 2
    assert np.isinf(model.covariances_[:, 0, 0]).all()
    quartiles = stats.t(model.df_, scale=np.sqrt(model.scales_[:, 0, 0])).ppf(0.75)
    widths = np.sqrt(model.describe().variances[:, 0])
    np.testing.assert_allclose(widths, quartiles / stats.norm.ppf(0.75))


def test_options_that_are_none_are_named() -> None:
    X = t_rows()
    for options, said in (
        ({"df": 0.0}, "df=0.0: expected a number of at least"),
        ({"df": np.inf}, "df=inf"),
        ({"shared_df": "yes"}, "shared_df='yes': expected True or False"),
        ({"covariance_type": "round"}, "covariance_type='round'"),
    ):
        with pytest.raises(ValueError, match=said.replace("(", r"\(")):
            StudentTMixture(2, **options).fit(X)


def test_the_command_line_fits_them(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", t_rows(2000), 500)
    with start_cluster(1) as cluster:
        words = [
            "fit", str(tmp_path / "x.zarr"), "-k", "2", "-o", str(tmp_path / "m.npz"), "--json",
            "--family", "student-t", "--shared-df", "--covariance", "diag", "--scheduler",
            cluster.scheduler_address,
        ]  # fmt: skip
        done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    model = load(tmp_path / "m.npz")
    assert isinstance(model, StudentTMixture)
    assert model.df_[0] == model.df_[1]
    shown = CliRunner().invoke(main, ["inspect", str(tmp_path / "m.npz"), "--json"])
    assert json.loads(shown.stdout)["family"] == "StudentT"
