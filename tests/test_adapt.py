"""Adaptation of the means of a background model (Reynolds, Quatieri and Dunn 2000)."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
from click.testing import CliRunner
from distributed import Client
from helpers import blobs, digest, gaussian_of, start, write_zarr
from sklearn.exceptions import NotFittedError

from dask_em import (
    CategoricalMixture,
    GaussianMixture,
    KMeans,
    MixedMixture,
    StudentTMixture,
    adapt,
    load,
)
from dask_em.cli.main import main
from dask_em.core.em import EMState, Status
from dask_em.errors import DataError, UsageError
from dask_em.jobs import adapt as adapt_jobs
from dask_em.report.page import write_page

K, D = 4, 3
BACKGROUND = blobs(2000, D, K, apart=4.0)[0]
# Of some components of the background only, beside where it has them.
X = BACKGROUND[BACKGROUND[:, 0] > 0][:300] + 0.4
RELEVANCE = 16.0


@pytest.fixture(scope="module")
def background(kind: str) -> GaussianMixture:
    """A background model of every covariance structure."""
    return GaussianMixture(K, covariance_type=kind, random_state=0).fit(BACKGROUND)


@pytest.fixture(scope="module")
def full() -> GaussianMixture:
    return GaussianMixture(K, random_state=0).fit(BACKGROUND)


def expected_means(
    model: GaussianMixture, rows: np.ndarray, relevance: float, weight: Any = None
) -> np.ndarray:
    """Equations 12 and 14 as they stand, of the responsibilities of a fitted model."""
    resp = model.predict_proba(rows) * (1.0 if weight is None else np.asarray(weight)[:, None])
    counts = resp.sum(axis=0)
    alpha = counts / (counts + relevance)
    found = model.means_.copy()
    seen = counts > 1e-12
    of_rows = (resp.T @ rows)[seen] / counts[seen, None]
    found[seen] = alpha[seen, None] * of_rows + (1 - alpha[seen, None]) * model.means_[seen]
    return np.asarray(found)


# -- the formula ---------------------------------------------------------------------------


@pytest.mark.parametrize("relevance", [0.5, RELEVANCE, 1000.0])
def test_means_are_those_of_the_formula(background: GaussianMixture, relevance: float) -> None:
    before = digest(background)
    made = adapt(background, X, relevance)
    np.testing.assert_allclose(
        made.means_, expected_means(background, X, relevance), rtol=0, atol=1e-10
    )
    for name in ("weights_", "covariances_", "precisions_", "precisions_cholesky_"):
        np.testing.assert_array_equal(getattr(made, name), getattr(background, name))
    assert type(made) is GaussianMixture
    assert digest(background) == before
    assert made.status_ is Status.ADAPTED
    assert (made.n_iter_, made.n_reads_, made.n_passes_, made.n_sample_passes_) == (1, 1, 1.0, 0.0)
    assert made.lower_bound_ == pytest.approx(background.score(X), abs=1e-10)
    assert made.lower_bounds_ == [made.lower_bound_]
    assert made.score(X) > background.score(X)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_no_relevance_is_one_iteration_of_em(background: GaussianMixture, kind: str) -> None:
    made = adapt(background, X, 0.0)
    step = GaussianMixture(
        K, covariance_type=kind, reg_covar=0, algorithm="em", max_iter=1,
        weights_init=background.weights_, means_init=background.means_,
        precisions_init=background.precisions_,
    )  # fmt: skip
    step.fit(X)
    np.testing.assert_allclose(made.means_, step.means_, rtol=0, atol=1e-10)


def test_a_great_relevance_leaves_the_means(background: GaussianMixture) -> None:
    np.testing.assert_allclose(adapt(background, X, 1e30).means_, background.means_, rtol=1e-15)
    np.testing.assert_allclose(
        adapt(background, X, 1e300, n_iter=3).means_, background.means_, rtol=1e-15
    )


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_component_without_rows_keeps_its_mean() -> None:
    means = np.array([[0.0, 0.0], [500.0, 500.0]])
    aside = np.array([0.5, -0.5])
    rows = np.concatenate([means + 0.5, means - 0.5, means + aside, means - aside])
    model = GaussianMixture(2, max_iter=1, **start("full", means)).fit(rows)
    near = np.random.default_rng(0).normal(2.0, 1.0, (50, 2))
    for relevance in (0.0, RELEVANCE):
        made = adapt(model, near, relevance, n_iter=2)
        first, second = np.argsort(model.means_[:, 0])
        np.testing.assert_array_equal(made.means_[second], model.means_[second])
        assert (made.means_[first] > 1.0).all()


def test_weights_are_repetitions(background: GaussianMixture) -> None:
    weight = np.arange(len(X)) % 4
    made = adapt(background, X, sample_weight=weight)
    repeated = adapt(background, np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(made.means_, repeated.means_, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        made.means_, expected_means(background, X, RELEVANCE, weight), rtol=0, atol=1e-10
    )
    assert made.provenance_["weight"] == weight.sum()


def test_rows_far_from_zero_lose_nothing(kind: str) -> None:
    offset = 1e8
    # Whole sixty-fourths, so that the offset rounds nothing.
    near, rows = (np.round(a * 64) / 64 for a in (BACKGROUND, X))
    options: dict[str, Any] = {"covariance_type": kind, "random_state": 0}
    here = adapt(GaussianMixture(K, **options).fit(near), rows)
    far = adapt(GaussianMixture(K, **options).fit(near + offset), rows + offset)
    np.testing.assert_allclose(far.means_ - offset, here.means_, rtol=0, atol=1e-5)
    moved = gaussian_of(far.state_.result).means - gaussian_of(far.state_.mixture).means
    expected = gaussian_of(here.state_.result).means - gaussian_of(here.state_.mixture).means
    np.testing.assert_allclose(moved, expected, rtol=0, atol=1e-5)


def test_attributes_that_were_set_are_adapted(full: GaussianMixture, tmp_path: Path) -> None:
    full.save(tmp_path / "m.npz")
    model = load(tmp_path / "m.npz")
    assert isinstance(model, GaussianMixture)
    model.means_ = model.means_ + 0.25
    made = adapt(model, X)
    np.testing.assert_allclose(made.means_, expected_means(model, X, RELEVANCE), rtol=0, atol=1e-9)
    np.testing.assert_allclose(made.covariances_, full.covariances_, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("option", [{"prior": "conjugate"}, {"max_ratio": 4.0}])
def test_models_with_a_prior_or_a_bound_are_adapted(option: dict[str, Any]) -> None:
    model = GaussianMixture(K, random_state=0, **option).fit(BACKGROUND)
    made = adapt(model, X)
    np.testing.assert_allclose(made.means_, expected_means(model, X, RELEVANCE), rtol=0, atol=1e-10)
    np.testing.assert_array_equal(made.covariances_, model.covariances_)
    assert made.get_params() == model.get_params()


# -- several passes -----------------------------------------------------------------------


def posterior(state: EMState, background: GaussianMixture, means: np.ndarray) -> float:
    """The log-likelihood of all rows plus the logarithm of the prior, up to a constant."""
    gap = means - background.means_
    spreads = gaussian_of(background.state_.result).data_coordinates()[1].full(K, D)
    distances = np.einsum("kd,kde,ke->", gap, np.linalg.inv(spreads), gap)
    return float(state.statistics.log_likelihood - RELEVANCE / 2 * distances)


def test_passes_raise_the_posterior_density(background: GaussianMixture) -> None:
    seen: list[EMState] = []
    background.set_params(callbacks=[seen.append])
    try:
        made = adapt(background, X, RELEVANCE, n_iter=6)
    finally:
        background.set_params(callbacks=None)
    assert [state.status for state in seen] == 5 * [Status.RUNNING] + [Status.ADAPTED]
    values = [
        posterior(state, background, state.mixture.components.attributes()["means_"])
        for state in seen
    ]
    assert (np.diff(values) > -1e-9 * abs(values[0])).all()
    assert values[-1] > values[1]
    assert (made.n_iter_, made.n_reads_) == (6, 6)
    assert made.provenance_["adapted"]["n_passes"] == 6
    first = adapt(background, X, RELEVANCE)
    np.testing.assert_array_equal(seen[0].result.components.attributes()["means_"], first.means_)


def test_each_pass_weighs_the_rows_against_the_background(full: GaussianMixture) -> None:
    once, twice = adapt(full, X), adapt(full, X, n_iter=2)
    resp = once.predict_proba(X)
    counts = resp.sum(axis=0)[:, None]
    expected = (resp.T @ X + RELEVANCE * full.means_) / (counts + RELEVANCE)
    np.testing.assert_allclose(twice.means_, expected, rtol=0, atol=1e-10)


# -- any data, anywhere ---------------------------------------------------------------------


def test_any_chunks_give_the_same(
    background: GaussianMixture, synchronous: None, many_chunks: None, tmp_path: Path
) -> None:
    expected = adapt(background, X, n_iter=2)
    for rows in (7, 64, 300):
        stored = write_zarr(tmp_path / f"{rows}.zarr", X, rows)
        for data in (stored, str(tmp_path / f"{rows}.zarr"), da.from_array(X, chunks=(rows, D))):
            made = adapt(background, data, n_iter=2)
            np.testing.assert_allclose(made.means_, expected.means_, rtol=0, atol=1e-12)
            assert made.provenance_["n_rows"] == len(X)


def test_the_print_is_that_of_a_fit(full: GaussianMixture, tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", X, 50)
    path = str(tmp_path / "x.zarr")
    made, fitted = adapt(full, path), GaussianMixture(1, random_state=0).fit(path)
    told, theirs = ({**model.provenance_} for model in (made, fitted))
    assert told.pop("adapted") == {
        "fingerprint": full.provenance_["fingerprint"], "relevance": RELEVANCE, "n_passes": 1,
    }  # fmt: skip
    assert "fitted" in told
    # By which an update knows the rows: an adapted model has no sums that others may join.
    del theirs["stamp"]
    assert told | {"fitted": ""} == theirs | {"fitted": ""}


def test_workers_give_the_bits_of_threads(
    background: GaussianMixture, client: Client, tmp_path: Path
) -> None:
    write_zarr(tmp_path / "x.zarr", X, 20)
    path = str(tmp_path / "x.zarr")
    many = adapt(background, path, n_iter=2)
    for scheduler in ("synchronous", "threads"):
        with dask.config.set(scheduler=scheduler):
            assert digest(adapt(background, path, n_iter=2)) == digest(many)


@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
@pytest.mark.parametrize("names", [["a", "b", "c"], ["c", "more", "a", "b"]])
def test_columns_are_found_by_their_names(names: list[str], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(path: Path, rows: np.ndarray, order: list[str]) -> str:
        held = dict(zip("abc", rows.T, strict=True)) | {"more": rows[:, 0] * 5}
        parquet.write_table(pa.table({name: held[name] for name in order}), path, row_group_size=99)
        return str(path)

    model = GaussianMixture(K, columns=["a", "b", "c"], random_state=0)
    model.fit(write(tmp_path / "background.parquet", BACKGROUND, ["a", "b", "c"]))
    made = adapt(model, write(tmp_path / "x.parquet", X, names))
    np.testing.assert_allclose(made.means_, expected_means(model, X, RELEVANCE), rtol=0, atol=1e-10)
    assert [*made.feature_names_in_] == ["a", "b", "c"]


def test_names_of_the_model_stay_where_rows_have_none(full: GaussianMixture) -> None:
    pd = pytest.importorskip("pandas")
    model = GaussianMixture(K, random_state=0).fit(pd.DataFrame(BACKGROUND, columns=[*"abc"]))
    made = adapt(model, da.from_array(X, chunks=(50, D)))
    assert [*made.feature_names_in_] == ["a", "b", "c"]
    assert made.n_features_in_ == D


def test_rows_of_nan_are_left_out_as_the_model_says(full: GaussianMixture, tmp_path: Path) -> None:
    holes = np.concatenate([X, X[:20]])
    holes[-20:, 1] = np.nan
    with pytest.raises(DataError, match="X contains NaN at row 300, column 1; 20 rows hold NaN"):
        adapt(full, holes)
    model = GaussianMixture(K, random_state=0, nonfinite="drop").fit(BACKGROUND)
    write_zarr(tmp_path / "x.zarr", holes, 64)
    for data in (holes, str(tmp_path / "x.zarr")):
        with pytest.warns(UserWarning, match="20 rows that hold NaN or infinity were left out"):
            made = adapt(model, data, n_iter=2)
        expected = adapt(model, X, n_iter=2).means_
        np.testing.assert_allclose(made.means_, expected, rtol=0, atol=1e-12)
        assert (made.n_dropped_, made.provenance_["n_rows"]) == (20, 320)


def test_few_rows_are_enough(full: GaussianMixture) -> None:
    one = adapt(full, X[:1])
    np.testing.assert_allclose(one.means_, expected_means(full, X[:1], RELEVANCE), atol=1e-10)
    alike = adapt(full, np.zeros((2, D)))
    assert np.isfinite(alike.means_).all()
    # What is told of their widths is of the background's rows.
    assert (one.degenerate_, one.warnings_) == (full.degenerate_, full.warnings_)


def test_rows_in_float32(full: GaussianMixture) -> None:
    made = adapt(full, X.astype(np.float32))
    expected = expected_means(full, X.astype(np.float32).astype(float), RELEVANCE)
    np.testing.assert_allclose(made.means_, expected, rtol=1e-5)
    assert made.means_.dtype == np.float32


# -- the model that comes of it ---------------------------------------------------------------


def test_it_is_a_model_as_any(background: GaussianMixture, tmp_path: Path) -> None:
    made = adapt(background, X, n_iter=2)
    made.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert isinstance(again, GaussianMixture)
    assert digest(again) == digest(made)
    assert (again.status_, again.provenance_) == (Status.ADAPTED, made.provenance_)
    np.testing.assert_array_equal(again.predict(X), made.predict(X))
    assert made.sample(5)[0].shape == (5, D)
    assert "Adapted" in made._repr_mimebundle_()["text/html"]
    twice = adapt(again, X)
    assert twice.provenance_["adapted"]["fingerprint"] == made.provenance_["fingerprint"]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_may_start_from_it(full: GaussianMixture) -> None:
    made = adapt(full, X).set_params(warm_start=True, max_iter=3, tol=0)
    before = made.score(X)
    made.fit(X)
    assert made.score(X) > before
    assert "adapted" not in made.provenance_


def test_a_checkpoint_is_of_the_fit_alone(tmp_path: Path) -> None:
    model = GaussianMixture(2, random_state=0, checkpoint=tmp_path / "kept").fit(BACKGROUND)
    made = adapt(model, X)
    assert (model.checkpoint, made.checkpoint) == (tmp_path / "kept", None)


# -- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize("relevance", [-1.0, np.nan, np.inf, "16", None, True])
def test_a_relevance_that_is_none(full: GaussianMixture, relevance: Any) -> None:
    with pytest.raises(ValueError, match=r"^relevance=.*expected a number of at least 0"):
        adapt(full, X, relevance)


@pytest.mark.parametrize("n_iter", [0, -1, 1.5])
def test_a_number_of_passes_that_is_none(full: GaussianMixture, n_iter: Any) -> None:
    with pytest.raises(ValueError, match=r"^n_iter=.*expected an integer of at least 1"):
        adapt(full, X, n_iter=n_iter)


def test_what_is_no_fitted_model() -> None:
    with pytest.raises(NotFittedError, match=r"^model is a GaussianMixture that is not fitted"):
        adapt(GaussianMixture(2), X)
    nothing: Any = "model.npz"
    with pytest.raises(
        TypeError, match=r"^model is 'model.npz', expected a fitted GaussianMixture"
    ):
        adapt(nothing, X)


def test_other_families() -> None:
    codes = np.random.default_rng(0).integers(0, 3, (200, 2))
    models = [
        KMeans(2, random_state=0).fit(BACKGROUND),
        StudentTMixture(2, df=5.0, random_state=0, max_iter=0).fit(BACKGROUND),
        CategoricalMixture(1, random_state=0).fit(codes),
        MixedMixture(1, columns={"gaussian": [0, 1], "poisson": [2]}, random_state=0).fit(
            np.abs(np.round(BACKGROUND))
        ),
    ]
    for model in models:
        name = type(model).__name__
        with pytest.raises(UsageError, match=f"^model is a {name}, expected a GaussianMixture: "):
            adapt(model, X)


def test_data_that_cannot_be_used(full: GaussianMixture) -> None:
    with pytest.raises(ValueError, match=r"X has 2 (columns|features)"):
        adapt(full, X[:, :2])
    with pytest.raises(DataError, match="sample_weight is zero for every row"):
        adapt(full, X, sample_weight=np.zeros(len(X)))
    with pytest.raises(DataError, match="sample_weight has 1 entries that are negative"):
        adapt(full, X, sample_weight=np.where(np.arange(len(X)) == 3, -1.0, 1.0))
    with pytest.raises(DataError, match="beyond what can be squared"):
        adapt(full, X[:5] * 1e200)
    with pytest.raises(DataError, match="log-likelihood of X is not a finite number"):
        adapt(full, np.full((2, D), 1.3e154))


# -- in a shell -----------------------------------------------------------------------------


@pytest.fixture
def stored(
    full: GaussianMixture, synchronous: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Path:
    """A folder with a model and data, where commands need no cluster; this process is in it."""
    full.save(tmp_path / "m.npz")
    write_zarr(tmp_path / "x.zarr", X, 64)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(adapt_jobs, "workers_for", lambda where, nbytes: nullcontext())
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    found = CliRunner().invoke(main, [*words])
    return found.exit_code, found.stdout, found.stderr


def test_the_command_writes_the_model(full: GaussianMixture, stored: Path) -> None:
    code, out, err = run("adapt", "m.npz", "x.zarr", "-o", "new.npz", "--relevance", "8")
    assert code == 0, err
    assert out.startswith("new.npz: means adapted by 1 pass over 300 rows, relevance 8; ")
    assert "em pass 1" in err
    made = load("new.npz")
    assert digest(made) == digest(adapt(full, str(stored / "x.zarr"), 8.0))
    code, out, _ = run("inspect", "new.npz")
    print_ = full.provenance_["fingerprint"][:16]
    assert f"adapted  from the model of print {print_}, relevance 8, passes 1" in out
    assert "status   adapted: the means were adapted to other data" in out
    assert json.loads(run("inspect", "new.npz", "--json")[1])["provenance"] == made.provenance_


def test_the_command_for_machines(full: GaussianMixture, stored: Path) -> None:
    weight = np.arange(len(X)) % 3
    write_zarr(stored / "w.zarr", weight.astype(float), 64)
    code, out, err = run(
        "adapt",
        "m.npz",
        "x.zarr",
        "-o",
        "new.npz",
        "--weights",
        "w.zarr",
        "--n-iter",
        "2",
        "--json",
    )
    assert code == 0, err
    found = json.loads(out)
    made = adapt(full, X, n_iter=2, sample_weight=weight)
    assert (found["model"], found["n_rows"], found["weight"]) == ("new.npz", 300, weight.sum())
    assert (found["relevance"], found["n_iter"], found["n_dropped"]) == (16.0, 2, 0)
    assert found["log_likelihood"] == pytest.approx(made.lower_bound_, abs=1e-10)
    counts = made.state_.statistics.resp_sum
    np.testing.assert_allclose(found["alpha"], counts / (counts + 16.0), atol=1e-10)


def test_what_the_command_refuses(stored: Path) -> None:
    KMeans(2, random_state=0).fit(BACKGROUND).save("k.npz")
    write_zarr(stored / "two.zarr", X[:, :2], 64)
    before = sorted(stored.iterdir())
    for words, code, said in (
        ("k.npz x.zarr -o new.npz", 2, "model is a KMeans, expected a GaussianMixture"),
        ("m.npz x.zarr -o new.npz --relevance nan", 2, "--relevance nan: expected a number"),
        ("m.npz x.zarr -o new.npz --relevance -1", 2, "--relevance"),
        ("m.npz x.zarr -o m.npz", 73, "m.npz exists"),
        ("m.npz x.zarr -o m.npz --overwrite", 2, "m.npz would replace the model"),
        ("m.npz two.zarr -o new.npz", 65, "has 2 columns"),
        ("x.zarr m.npz -o new.npz", 2, "the order is MODEL DATA"),
    ):
        found, _, err = run("adapt", *words.split())
        assert (found, said in err) == (code, True), err
        assert sorted(stored.iterdir()) == before
    code, _, err = run("adapt", "m.npz", "x.zarr", "-o", "k.npz", "--overwrite")
    assert (code, load("k.npz").status_) == (0, Status.ADAPTED), err


def test_a_report_tells_of_it(stored: Path) -> None:
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    model = load("m.npz")
    write_page("r.html", adapt(model, X))
    page = (stored / "r.html").read_text()
    assert model.provenance_["fingerprint"] in page
    assert "adapted from" in page
    assert '<p class="status good"><b>Adapted</b>' in page
