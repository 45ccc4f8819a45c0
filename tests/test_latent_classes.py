"""Latent class models: published likelihoods, scikit-learn's contract, files, commands, pages."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import write_zarr
from numpy.testing import assert_allclose
from sklearn.utils.estimator_checks import check_estimator

from dask_em import BernoulliMixture, CategoricalMixture, load, select
from dask_em.backends.serial import SerialBackend
from dask_em.cli import main
from dask_em.core.additive import Array
from dask_em.core.codec import digest
from dask_em.core.em import Status
from dask_em.core.scoring import Predict
from dask_em.data.open import as_source
from dask_em.errors import DataError
from dask_em.estimators.base import MixtureEstimator
from dask_em.fitting.control_variate import ControlVariateEM
from dask_em.jobs.cluster import ClusterOptions
from dask_em.jobs.inspect import inspect
from dask_em.jobs.report import report

pd = pytest.importorskip("pandas", reason="pandas is not installed")

REFERENCES = Path(__file__).resolve().parents[2] / "shared" / "references" / "data"

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

SIZES = np.array([0.5, 0.3, 0.2])


def draws(n: int, numbers: tuple[int, ...], seed: int = 0, holes: float = 0.0) -> Array:
    """Answers of three classes that overlap."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=SIZES)
    X = np.empty((n, len(numbers)))
    for j, c in enumerate(numbers):
        p = np.random.default_rng(j).dirichlet(np.full(c, 0.7), 3)
        X[:, j] = (rng.random(n)[:, None] > np.cumsum(p, axis=1)[labels]).sum(axis=1)
    X = np.minimum(X, np.array(numbers) - 1)
    X[rng.random(X.shape) < holes] = np.nan
    return X


NUMBERS = (3, 2, 4, 3, 2, 5)
X = draws(4000, NUMBERS).astype(np.uint8)
HOLES = draws(4000, NUMBERS, holes=0.2)


# -- published values --------------------------------------------------------------------


def published(name: str, columns: slice) -> Array:
    """Read a table of answers, codes from 1 or words that begin with them, as codes from 0."""
    path = REFERENCES / f"poLCA_{name}.csv"
    if not path.is_file():
        pytest.skip("the reference data are not beside the repository")
    with path.open() as file:
        rows = [row[columns] for row in list(csv.reader(file))[1:]]
    return np.array([[float(cell[0]) - 1 if cell else np.nan for cell in row] for row in rows])


def fitted(make: Any, rows: Array, k: int, **options: Any) -> MixtureEstimator:
    options = {"tol": 1e-9, "max_iter": 2000, "n_init": 10, "random_state": 0, **options}
    return make(k, **options).fit(rows)


def best_total(make: Any, rows: Array, k: int, seeds: int, **options: Any) -> float:
    models = [fitted(make, rows, k, random_state=seed, **options) for seed in range(seeds)]
    return max(total(model, rows) for model in models)


def total(model: MixtureEstimator, rows: Array) -> float:
    return float(np.asarray(model.score_samples(rows)).sum())


CARCINOMA = {1: -524.46481794, 2: -317.25683730, 3: -293.70497878, 4: -289.28584881}

CHEATING = {1: -467.43819494, 2: -440.02711241, 3: -436.23557781}


@pytest.mark.parametrize("make", [BernoulliMixture, CategoricalMixture])
@pytest.mark.parametrize("k", CARCINOMA)
def test_carcinoma(make: Any, k: int) -> None:
    rows = published("carcinoma", slice(0, 7))
    assert rows.shape == (118, 7)
    model = fitted(make, rows, k)
    assert total(model, rows) == pytest.approx(CARCINOMA[k], abs=1e-4)
    assert model.state_.result.n_parameters == {1: 7, 2: 15, 3: 23, 4: 31}[k]
    if k == 3:
        sizes = [0.18170783, 0.37356459, 0.44472758]
        assert_allclose(np.sort(model.weights_), sizes, atol=1e-4)


@pytest.mark.parametrize("k", CHEATING)
def test_cheating(k: int) -> None:
    rows = published("cheating", slice(0, 4))
    assert rows.shape == (319, 4)
    model = fitted(BernoulliMixture, rows, k)
    assert total(model, rows) == pytest.approx(CHEATING[k], abs=1e-4)
    if k == 2:
        assert_allclose(np.sort(model.weights_), [0.16057113, 0.83942887], atol=1e-4)


def test_a_model_of_more_parameters_than_cells_is_told() -> None:
    rows = published("cheating", slice(0, 4))
    said = " ".join(fitted(BernoulliMixture, rows, 4).warnings_)
    assert "not identified: 19 parameters" in said
    assert "15" in said
    assert not any("not identified" in w for w in fitted(BernoulliMixture, rows, 3).warnings_)


ELECTION = {1: -18647.312355, 2: -17344.922533, 3: -16714.659143}

ELECTION_ALL = {1: -23782.306004, 2: -22127.913291, 3: -21311.535671}


@pytest.mark.parametrize("k", ELECTION)
def test_election(k: int) -> None:
    rows = published("election", slice(0, 12))
    complete = rows[~np.isnan(rows).any(axis=1)]
    assert (len(rows), len(complete)) == (1785, 1311)
    codes = complete.astype(np.int8)
    whole = best_total(CategoricalMixture, codes, k, 3)
    assert whole >= ELECTION[k] - 1e-4
    some = best_total(CategoricalMixture, rows, k, 3, missing_values="mar")
    assert some >= ELECTION_ALL[k] - 1e-4
    if k == 1:
        assert whole == pytest.approx(ELECTION[1], abs=1e-4)
        assert some == pytest.approx(ELECTION_ALL[1], abs=1e-4)


# -- scikit-learn's contract -----------------------------------------------------------------


@pytest.mark.parametrize(
    "estimator",
    [
        BernoulliMixture(),
        pytest.param(BernoulliMixture(alpha=1.0, missing_values="mar"), marks=pytest.mark.slow),
        pytest.param(CategoricalMixture(), marks=pytest.mark.slow),
        CategoricalMixture(missing_values="mar"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:X holds other", "ignore:X does not vary", "ignore:X contains")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_estimators_pass_scikit_learn_s_checks(estimator: MixtureEstimator) -> None:
    check_estimator(estimator)


# -- laws of the fit -----------------------------------------------------------------------


def model_of(rows: Any, k: int = 3, make: Any = CategoricalMixture, **options: Any) -> Any:
    options = {"random_state": 0, "sample_size": 1000, "tol": 1e-7, "max_iter": 300, **options}
    return make(k, **options).fit(rows)


@pytest.fixture(params=["whole", "holes"])
def case(request: pytest.FixtureRequest) -> tuple[Array, dict[str, Any]]:
    return (X, {}) if request.param == "whole" else (HOLES, {"missing_values": "mar"})


def test_classes_are_found() -> None:
    rows = draws(40_000, NUMBERS, seed=5).astype(np.uint8)
    assert_allclose(np.sort(model_of(rows).weights_), np.sort(SIZES), atol=0.03)


@pytest.mark.slow  # A law that the table of families has, too.
def test_chunks_do_not_matter(case: tuple[Array, dict[str, Any]], tmp_path: Path) -> None:
    rows, options = case
    whole = model_of(rows, **options)
    for size in (97, 1111):
        model = model_of(write_zarr(tmp_path / f"{size}.zarr", rows, size), **options)
        assert model.lower_bound_ == pytest.approx(whole.lower_bound_, abs=1e-6)


@pytest.mark.usefixtures("many_chunks")
def test_the_same_bits_whoever_computes(
    case: tuple[Array, dict[str, Any]], tmp_path: Path, client: Client
) -> None:
    rows, options = case
    path = write_zarr(tmp_path / "x.zarr", rows, 500)
    here = model_of(path, **options)
    with client.as_current():
        there = model_of(path, **options)
    assert digest(here.state_) == digest(there.state_)


@pytest.mark.slow  # A law that the table of families has, too.
def test_weights_count_as_repetition(case: tuple[Array, dict[str, Any]]) -> None:
    rows, options = case
    rows = rows[:600]
    weights = np.random.default_rng(1).integers(0, 4, len(rows)).astype(float)
    start = model_of(rows, max_iter=0, init_params="kmeans", **options)
    weighted, repeated = (
        plain_em(start, some, w)
        for some, w in ((rows, weights), (np.repeat(rows, weights.astype(int), axis=0), None))
    )
    assert_allclose(weighted[1].probabilities, repeated[1].probabilities, rtol=1e-9)
    assert weighted[0] == pytest.approx(repeated[0], rel=1e-12)


def plain_em(start: MixtureEstimator, rows: Array, weights: Array | None, n: int = 5) -> Any:
    mixture = start.state_.result
    for _ in range(n):
        sums = SerialBackend().map_reduce(as_source(rows, weights), mixture)
        value = sums.mean_log_likelihood
        mixture, _ = mixture.m_step(sums)
    return value, mixture.components


def test_plain_em_never_falls(case: tuple[Array, dict[str, Any]]) -> None:
    rows, options = case
    found = model_of(rows, algorithm="em", init_params="random", max_iter=30, **options)
    assert (np.diff(found.lower_bounds_) >= -1e-9).all()


def test_the_accelerated_fit_is_no_worse(case: tuple[Array, dict[str, Any]]) -> None:
    rows, options = case
    options = {"init_params": "k-means++", **options, "max_iter": 2000, "tol": 1e-8}
    plain, quick = (model_of(rows, algorithm=name, **options) for name in ("em", "auto"))
    assert quick.lower_bound_ >= plain.lower_bound_ - 1e-6
    assert quick.n_reads_ < plain.n_reads_


def test_a_fit_goes_on_to_the_same_bits(case: tuple[Array, dict[str, Any]], tmp_path: Path) -> None:
    rows, options = case
    options = {"tol": 1e-9, "init_params": "k-means++", **options}
    straight = model_of(rows, **options)

    class Enough(Exception):  # noqa: N818
        pass

    def stop(state: Any) -> None:
        if state.n_iter == 2:
            raise Enough

    with pytest.raises(Enough):
        model_of(rows, checkpoint=tmp_path / "kept", callbacks=[stop], **options)
    resumed = model_of(rows, checkpoint=tmp_path / "kept", **options)
    assert digest(resumed.state_) == digest(straight.state_)
    assert straight.n_iter_ > 2


@pytest.mark.slow  # A law that the table of families has, too.
def test_a_sweep_is_the_fits_apart(case: tuple[Array, dict[str, Any]]) -> None:
    rows, options = case
    options = {"random_state": 0, "n_init": 1, **options}
    found = select(rows, [1, 2, 3, 4], estimator=CategoricalMixture, exhaustive=True, **options)
    assert len(found.best.weights_) == 3
    for row, k in zip(found.table, [1, 2, 3, 4], strict=True):
        alone = CategoricalMixture(k, **options).fit(rows)
        assert row["n_parameters"] == k - 1 + k * (sum(NUMBERS) - len(NUMBERS))
        assert row["log_likelihood"] == pytest.approx(alone.lower_bound_, abs=1e-12)
        bic = -2 * row["log_likelihood"] * len(rows) + row["n_parameters"] * np.log(len(rows))
        assert row["bic"] == pytest.approx(bic)


def test_a_nested_model_is_never_better() -> None:
    values = [fitted(CategoricalMixture, X[:500], k, n_init=3).lower_bound_ for k in (1, 2, 3)]
    assert (np.diff(values) >= -1e-9).all()


@pytest.mark.slow  # A law that the table of families has, too.
def test_the_order_of_rows_does_not_matter(case: tuple[Array, dict[str, Any]]) -> None:
    rows, options = case
    turned = rows[np.random.default_rng(0).permutation(len(rows))]
    options = {"sample_size": len(rows), "n_init": 3, "tol": 1e-9, "max_iter": 1000, **options}
    one, other = model_of(rows, **options), model_of(turned, **options)
    assert one.lower_bound_ == pytest.approx(other.lower_bound_, abs=1e-5)


def test_a_warm_start_goes_on() -> None:
    model = model_of(X, max_iter=3, algorithm="em")
    reached = model.lower_bound_
    model.set_params(warm_start=True, max_iter=50).fit(X)
    assert model.lower_bound_ >= reached
    assert len(model.lower_bounds_) <= 50


def test_compact_chunks_reach_the_kernel_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dask_em.families.categorical.compiled_kernel import LookupKernel
    from dask_em.families.categorical.numpy_kernel import IndicatorKernel

    seen: set[Any] = set()
    for kernel in (LookupKernel, IndicatorKernel):
        load_of = kernel.load

        def load_noted(self: Any, rows: Array, load_of: Any = load_of) -> None:
            seen.add(rows.dtype)
            load_of(self, rows)

        monkeypatch.setattr(kernel, "load", load_noted)
    path = tmp_path / "x.npy"
    np.save(path, X)
    stored = write_zarr(tmp_path / "x.zarr", X, 500)
    frame = pd.DataFrame(X).rename(columns=str)
    frame.to_parquet(tmp_path / "x.parquet")
    mixture = model_of(X).state_.result
    seen.clear()
    for rows in (X, str(path), stored, da.from_array(X), frame, str(tmp_path / "x.parquet")):
        SerialBackend().map_reduce(as_source(rows), mixture)
        assert seen == {np.dtype(np.uint8)}, rows
        seen.clear()
    SerialBackend().map_reduce(as_source(write_zarr(tmp_path / "b.zarr", X > 0, 500)), mixture)
    assert seen == {np.dtype(bool)}


# -- answers, holes, and what is none ----------------------------------------------------------


def test_answers_are_those_of_the_rows() -> None:
    model = model_of(HOLES, missing_values="mar")
    proba = model.predict_proba(HOLES)
    assert_allclose(proba.sum(axis=1), 1.0)
    assert (proba.argmax(axis=1) == model.predict(HOLES)).all()
    assert model.score(HOLES) == pytest.approx(model.score_samples(HOLES).mean())
    nothing = np.full((1, len(NUMBERS)), np.nan)
    assert_allclose(model.predict_proba(nothing)[0], model.weights_, rtol=1e-9)
    assert model.score_samples(nothing) == pytest.approx(0.0, abs=1e-12)


def test_missing_answers_are_refused_by_default() -> None:
    with pytest.raises(DataError, match=r"X contains NaN at row .*missing_values=\"mar\""):
        CategoricalMixture(2).fit(HOLES)


@pytest.mark.parametrize("lazy", [False, True])
def test_rows_of_infinity_alone_are_dropped(lazy: bool, tmp_path: Path) -> None:
    rows = HOLES.copy()
    rows[[5, 1200], 2] = np.inf, -np.inf
    options: dict[str, Any] = {"missing_values": "mar", "nonfinite": "drop"}
    data = write_zarr(tmp_path / "x.zarr", rows, 300) if lazy else rows
    with pytest.warns(UserWarning, match="2 rows"):
        model = model_of(data, **options)
    assert model.n_dropped_ == 2
    clean = np.delete(rows, [5, 1200], axis=0)
    assert model.state_.statistics.n_rows == len(clean)
    other = model_of(clean, missing_values="mar", sample_size=len(rows))
    assert model.lower_bound_ == pytest.approx(other.lower_bound_, abs=1e-3)
    labels = np.asarray(model.predict(data))
    assert np.flatnonzero(labels == -1).tolist() == [5, 1200]
    assert model.criteria(data)["n_dropped"] == 2


def test_dropped_rows_of_a_dask_array_keep_their_holes() -> None:
    rows = HOLES.copy()
    rows[7, 0] = np.inf
    options: dict[str, Any] = {"missing_values": "mar", "nonfinite": "drop"}
    with pytest.warns(UserWarning, match="1 rows"):
        model = model_of(da.from_array(rows, chunks=(500, -1)), **options)
    assert model.state_.statistics.n_rows == len(rows) - 1


def test_what_is_no_code_is_named() -> None:
    for bad, word in ((-1.0, "-1"), (1e6, "1000000")):
        rows = X[:100].astype(float)
        rows[3, 1] = bad
        with pytest.raises(DataError, match=rf"X contains {word} at row 3, column 1, where codes"):
            CategoricalMixture(2).fit(rows)


def test_fractions_are_taken_at_their_whole_part_and_told() -> None:
    rows = X[:500].astype(float)
    whole = model_of(rows)
    rows[3, 1] += 0.5
    with pytest.warns(UserWarning, match=r"X contains \d.5 at row 3, column 1, and 1 rows"):
        model = model_of(rows)
    assert_allclose(model.probabilities_, whole.probabilities_, rtol=1e-6)
    np.testing.assert_array_equal(model.predict(rows), whole.predict(X[:500]))
    rows[7, 0] = -1
    with pytest.raises(DataError, match="codes of categories"):
        model_of(rows)


def test_a_code_that_the_fit_did_not_see_is_named_or_counted() -> None:
    model = model_of(X)
    rows = X[:10].copy()
    rows[4, 1] = 2
    with pytest.raises(DataError, match=r"X contains 2 at row 4, column 1.*from 0 to 1"):
        model.predict(rows)
    model.set_params(nonfinite="drop")
    assert np.flatnonzero(model.predict(rows) == -1).tolist() == [4]
    assert model.criteria(rows)["n_dropped"] == 1


def test_numbers_that_are_no_answers_are_told() -> None:
    rows = np.random.default_rng(0).normal(size=(300, 3))
    with pytest.warns(UserWarning, match="other numbers than 0 and 1 in column 0, column 1"):
        BernoulliMixture(2, random_state=0).fit(rows)
    with pytest.raises(DataError, match="whole numbers from 0 to 1"):
        BernoulliMixture(2, binarize=None).fit(rows)


@pytest.mark.parametrize("option", [{"alpha": -1}, {"missing_values": "yes"}, {"alpha": "a"}])
def test_options_are_checked(option: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(option))):
        CategoricalMixture(2, **option).fit(X)


def test_binarize_is_checked() -> None:
    with pytest.raises(ValueError, match="binarize"):
        BernoulliMixture(2, binarize="x").fit(X)  # type: ignore[arg-type]


# -- smoothing -------------------------------------------------------------------------------


def posterior(model: Any, rows: Array) -> float:
    return total(model, rows) + model.state_.result.components.log_prior_density()


def test_smoothing_keeps_probabilities_from_the_bounds() -> None:
    rows = draws(60, NUMBERS).astype(np.uint8)
    plain, smooth = (fitted(CategoricalMixture, rows, 3, alpha=a) for a in (0.0, 1.0))
    assert "probabilities at 0 or 1" in " ".join(plain.warnings_)
    assert not any("0 or 1" in warning for warning in smooth.warnings_)
    inside = smooth.probabilities_[smooth.probabilities_ > 0]
    assert inside.min() > 1e-3


def test_the_smoothed_fit_raises_the_posterior() -> None:
    rows = draws(300, NUMBERS).astype(np.uint8)
    options: dict[str, Any] = {"init_params": "random", "algorithm": "em", "alpha": 2.0}
    values = []
    for n in (1, 3, 9, 27, 81):
        model = model_of(rows, max_iter=n, tol=0, **options)
        values.append(posterior(model, rows))
    assert (np.diff(values) >= -1e-9).all()
    assert model_of(rows, alpha=2.0, tol=1e-9, max_iter=1000).status_ is Status.CONVERGED


# -- after the fit -----------------------------------------------------------------------------


P = np.array([[0.2, 0.7, 0.4, 0.3, 0.6], [0.8, 0.35, 0.6, 0.75, 0.3]])


def interior(rows: Array, p: Array = P, w: float = 0.4) -> BernoulliMixture:
    """A model of two classes whose parameters are given, none of them at its bounds."""
    model = BernoulliMixture(2, random_state=0).fit(rows)
    logs = np.log(np.stack([1 - p, p], axis=2).reshape(2, -1))
    mixture = model.state_.result
    components = mixture.components.with_arrays({"log_probabilities": logs})
    log_weights = np.log([w, 1 - w])
    model.state_ = replace(
        model.state_, result=replace(mixture, components=components, log_weights=log_weights)
    )
    return model


def binary_rows(n: int = 800) -> Array:
    rng = np.random.default_rng(0)
    return (rng.random((n, 5)) < P[(rng.random(n) > 0.4).astype(int)]).astype(np.uint8)


def test_standard_errors_are_those_of_numeric_scores() -> None:
    rows = binary_rows()
    found = interior(rows).standard_errors(rows)

    def log_density(theta: Array) -> Array:
        w = 1 / (1 + np.exp(-theta[0]))
        p = 1 / (1 + np.exp(-theta[1:].reshape(2, 5)))
        joint = [np.prod(np.where(rows == 1, q, 1 - q), axis=1) for q in p]
        return np.log(w * joint[0] + (1 - w) * joint[1])

    theta = np.concatenate([[np.log(0.4 / 0.6)], np.log(P / (1 - P)).ravel()])
    step = 1e-5
    scores = np.stack(
        [
            (log_density(theta + step * e) - log_density(theta - step * e)) / (2 * step)
            for e in np.eye(len(theta))
        ]
    )
    errors = np.sqrt(np.diagonal(np.linalg.inv(scores @ scores.T)))
    expected = errors * np.concatenate([[0.4 * 0.6], (P * (1 - P)).ravel()])
    assert_allclose(found["weights_"], expected[0], rtol=1e-5)
    assert_allclose(found["probabilities_"].ravel(), expected[1:], rtol=1e-5)


def test_standard_errors_shrink_with_the_root_of_the_weights() -> None:
    rows = HOLES[:1500]
    model = fitted(CategoricalMixture, rows, 2, missing_values="mar", n_init=2)
    one = model.standard_errors(rows)
    four = model.standard_errors(rows, sample_weight=np.full(len(rows), 4.0))
    for name in ("weights_", "probabilities_"):
        assert one[name].shape == getattr(model, name).shape
        assert_allclose(2 * four[name], one[name], rtol=1e-9)


def test_errors_of_a_model_that_is_not_identified_are_none() -> None:
    rows = binary_rows()
    found = interior(rows, np.stack([P[0], P[0]])).standard_errors(rows)
    assert np.isnan(found["weights_"]).all()
    assert np.isnan(found["probabilities_"]).all()


def test_a_probability_at_its_bound_has_no_standard_error() -> None:
    rows = binary_rows()
    p = P.copy()
    p[0, 2] = 1 - 1e-9
    found = interior(rows, p).standard_errors(rows)["probabilities_"]
    assert np.isnan(found[0, 2])
    assert np.isfinite(np.delete(found[0], 2)).all()


def test_entropy_r2_is_that_of_the_responsibilities() -> None:
    model = model_of(X)
    proba = model.predict_proba(X)
    entropy = -np.sum(proba * np.log(np.maximum(proba, 1e-300)))
    expected = 1 - entropy / (len(X) * np.log(3))
    assert model.entropy_r2(X) == pytest.approx(expected, rel=1e-9)
    assert model_of(X, 1).entropy_r2(X) == 1.0


def test_the_draws_fit_again() -> None:
    model = model_of(X)
    rows, labels = model.sample(5000)
    assert rows.dtype.kind == "i"
    assert set(labels) == {0, 1, 2}
    assert model_of(rows).score(X) == pytest.approx(model.score(X), abs=0.02)


@pytest.mark.parametrize("make", [CategoricalMixture, BernoulliMixture])
def test_models_come_back_from_files(make: Any, tmp_path: Path) -> None:
    rows = HOLES if make is CategoricalMixture else draws(1000, (2, 2, 2), holes=0.1)
    model = model_of(rows, make=make, missing_values="mar", alpha=0.5)
    model.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert type(again) is make
    assert digest(again.state_) == digest(model.state_)
    np.testing.assert_array_equal(again.predict(rows), model.predict(rows))
    told = inspect(str(tmp_path / "m.npz"))
    assert json.loads(json.dumps(told))["family"] == make.__name__.removesuffix("Mixture")
    (profile,) = told["profiles"]
    for j, place in enumerate(model.state_.result.components.places):
        expected = np.exp(model.state_.result.components.log_probabilities)[:, place]
        names = [f"column {j} = {code}" for code in range(expected.shape[1])]
        at = profile["of"].index(names[0])
        assert profile["of"][at : at + len(names)] == names
        assert_allclose(np.array(profile["values"])[:, at : at + len(names)], expected)


def test_a_page_has_bars_of_the_answers(tmp_path: Path) -> None:
    rows = write_zarr(tmp_path / "x.zarr", HOLES, 1000)
    model_of(rows, missing_values="mar").save(tmp_path / "m.npz")
    report(
        str(tmp_path / "m.npz"), str(tmp_path / "r.html"), ClusterOptions(), str(rows.store.root)
    )
    page = (tmp_path / "r.html").read_text()
    assert "Answers in column" in page
    assert page.count("<td>column 0 = 1</td>") == 1
    assert "Density of" not in page


def test_the_command_line_fits_and_answers(tmp_path: Path) -> None:
    write_zarr(tmp_path / "x.zarr", HOLES, 1000)
    data, model = str(tmp_path / "x.zarr"), str(tmp_path / "m.npz")
    run = CliRunner()
    words = ["-k", "3", "--family", "categorical", "--missing-values", "mar", "--alpha", "0.5"]
    for command in (
        ["fit", data, *words, "-o", model],
        ["predict", model, data, str(tmp_path / "labels.zarr")],
        ["score", model, data],
        ["inspect", model],
    ):
        done = run.invoke(main, command)
        assert done.exit_code == 0, done.output
    assert "Probabilities of answers, in each component" in done.output
    fitted_model = load(model)
    assert (fitted_model.alpha, fitted_model.missing_values) == (0.5, "mar")
    labels = zarr.open_group(tmp_path / "labels.zarr", mode="r")
    found = next(array for _, array in labels.arrays())
    np.testing.assert_array_equal(found[:], fitted_model.predict(HOLES))


def test_predictions_know_which_rows_have_an_answer() -> None:
    predict: Predict = model_of(X).predictor(("labels",))
    assert predict(X[:5])["labels"].shape == (5,)
    assert isinstance(ControlVariateEM(predict.mixture, None).proposal, type(predict.mixture))  # type: ignore[arg-type]


def test_zarr_arrays_of_bool_are_answers(tmp_path: Path) -> None:
    rows = draws(1000, (2, 2, 2, 2)).astype(bool)
    stored = zarr.open_array(tmp_path / "x.zarr", mode="w", shape=rows.shape, dtype=bool,
                             chunks=(100, 4))  # fmt: skip
    stored[:] = rows
    model = model_of(stored, 2, BernoulliMixture)
    assert model.lower_bound_ == pytest.approx(model_of(rows, 2, BernoulliMixture).lower_bound_)
