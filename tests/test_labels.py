"""Fits that start from labels, and those that keep them: mclust's values, laws, any data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from distributed import Client
from helpers import write_zarr
from numpy.testing import assert_allclose
from scipy import stats
from scipy.special import softmax, xlogy
from sklearn.datasets import load_iris
from test_family_table import FAMILIES, K, N, Row, StopAfter, StoppedError

from dask_em import GaussianMixture, KMeans, load, select
from dask_em.backends.serial import SerialBackend
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.beside import NOTHING
from dask_em.core.codec import digest
from dask_em.core.mixture import Mixture
from dask_em.core.scoring import Predict
from dask_em.data.open import as_source, labels_beside
from dask_em.data.options import ReadOptions
from dask_em.errors import DataError, UsageError
from dask_em.estimators.base import MixtureEstimator
from dask_em.fitting.criteria import entropy

pytestmark = [
    pytest.mark.usefixtures("many_chunks"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X does not", "ignore:reg_covar=", "ignore:.*left out"),
]

D = 3


def rows() -> tuple[Array, Array, Array]:
    """Rows of overlapping clusters, all labels, and those of which only some are known."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, K, N)
    X = rng.normal(size=(N, D)) * [1.0, 2.0, 0.5] + 1.7 * y[:, None]
    return X, y, np.where(rng.random(N) < 0.4, y, -1)


X, EVERY, SOME = rows()


def fit(data: Any = X, z: Any = SOME, fixed: bool = True, **options: Any) -> GaussianMixture:
    weights = options.pop("sample_weight", None)
    options = {"reg_covar": 0, "tol": 1e-8, "random_state": 0, **options}
    return GaussianMixture(K, **options).fit(
        data, sample_weight=weights, labels_init=z, labels_fixed=fixed
    )


def soft(z: Array) -> Array:
    """Labels as responsibilities: -1 where nothing is known."""
    return np.where(z[:, None] < 0, -1.0, np.eye(K)[z])


# -- beside other programs and plain formulas ------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "first", "last"),
    [
        ("full", -182.9208486053, -180.1854771313),
        ("tied", -256.6461842549, -256.3540431256),
        ("diag", -309.3627578939, -306.8604605064),
        ("spherical", -392.4984144985, -384.3140950608),
    ],
)
def test_iris_is_mclust_s(kind: str, first: float, last: float) -> None:
    iris, species = load_iris(return_X_y=True)
    model = GaussianMixture(
        3, covariance_type=kind, reg_covar=0, algorithm="em", tol=1e-13, max_iter=2000
    ).fit(iris, labels_init=species)
    assert 150 * model.lower_bounds_[0] == pytest.approx(first, rel=1e-9)
    assert 150 * model.lower_bound_ == pytest.approx(last, rel=1e-9)
    assert [record["phase"] for record in model.history_][:3] == ["survey", "labels", "em"]
    quick = GaussianMixture(3, covariance_type=kind, reg_covar=0, tol=1e-9)
    quick.fit(iris, labels_init=species)
    assert 150 * quick.lower_bound_ == pytest.approx(last, rel=1e-7)
    assert quick.n_reads_ < model.n_reads_


def m_step(resp: Array, weight: Array) -> tuple[Array, Array, Array]:
    r = resp * weight[:, None]
    total = r.sum(axis=0)
    means = r.T @ X / total[:, None]
    apart = X[:, None] - means
    return (
        total / total.sum(),
        means,
        np.einsum("nk,nki,nkj->kij", r, apart, apart) / total[:, None, None],
    )


def joint(parameters: tuple[Array, Array, Array]) -> Array:
    parts = zip(*parameters, strict=True)
    return np.column_stack([w * stats.multivariate_normal(m, c).pdf(X) for w, m, c in parts])


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("kind", ["labels", "responsibilities"])
def test_one_iteration_is_that_of_the_formulas(kind: str, fixed: bool) -> None:
    rng = np.random.default_rng(3)
    weight, z = rng.integers(1, 4, N).astype(float), soft(SOME)
    if kind == "responsibilities":
        z[SOME >= 0] = rng.dirichlet(np.ones(K), (SOME >= 0).sum())
    known = np.where(z < 0, 0.0, z)
    start = m_step(known, weight)
    # Where nothing is known all components are allowed.
    p = joint(start) * (np.where(z < 0, 1.0, z) if fixed else 1.0)
    log_likelihood = (weight * np.log(p.sum(axis=1))).sum() / weight.sum()
    expected = m_step(p / p.sum(axis=1, keepdims=True), weight)
    given = SOME if kind == "labels" else z
    model = fit(z=given, fixed=fixed, algorithm="em", max_iter=1, sample_weight=weight)
    assert model.lower_bound_ == pytest.approx(log_likelihood, rel=1e-10)
    for found, right in zip(
        (model.weights_, model.means_, model.covariances_), expected, strict=True
    ):
        assert_allclose(found, right, rtol=1e-8)


def unclear(mixture: Mixture, z: Array, weight: Array) -> float:
    """The entropy of rows' responsibilities under those that are kept, z (n, k)."""
    joint = Predict(mixture, ("log_prob",))(X)["log_prob"]
    with np.errstate(divide="ignore"):
        r = softmax(joint + np.log(np.where(z < 0, 1.0, z)), axis=1)
    return -float(weight @ xlogy(r, r).sum(axis=1))


@pytest.mark.parametrize("noise", [False, True])
@pytest.mark.parametrize("kind", ["labels", "responsibilities"])
def test_the_entropy_counts_what_kept_responsibilities_say(kind: str, noise: bool) -> None:
    rng, parts = np.random.default_rng(3), K + noise
    weight = rng.integers(0, 4, N).astype(float)
    z = np.where(SOME[:, None] < 0, -1.0, np.eye(parts)[SOME])
    if kind == "responsibilities":
        z[SOME >= 0] = rng.dirichlet(np.full(parts, 0.5), (SOME >= 0).sum())
        z[np.flatnonzero(SOME >= 0)[::4]] = np.eye(parts)[0]
    given = SOME if kind == "labels" else z
    options: dict[str, Any] = {"noise": noise, "reg_covar": 0, "tol": 1e-7, "random_state": 0}
    # The sums of weighted rows, at parameters that are no maximum.
    mixture = GaussianMixture(K, max_iter=3, **options).fit(X).state_.result
    source = labels_beside(as_source(X, sample_weight=weight), X, given, parts, ReadOptions())
    sums = SerialBackend().map_reduce(source, mixture)
    assert entropy(mixture, sums) == pytest.approx(unclear(mixture, z, weight), rel=1e-9)
    # Of all models of a sweep.
    found = select(
        X, K, sample_weight=weight, labels_init=given, labels_fixed=True, keep_all=True, **options
    )
    (row,), mixture = found.table, found.best.state_.result
    assert (row["icl"] - row["bic"]) / 2 == pytest.approx(unclear(mixture, z, weight), rel=1e-3)


def test_where_all_labels_are_kept_the_fit_is_supervised() -> None:
    model = fit(z=EVERY)
    expected = m_step(np.eye(K)[EVERY], np.ones(N))
    for found, right in zip(
        (model.weights_, model.means_, model.covariances_), expected, strict=True
    ):
        assert_allclose(found, right, rtol=1e-9, atol=1e-12)
    p = joint(expected)[np.arange(N), EVERY]
    assert model.lower_bound_ == pytest.approx(np.log(p).mean(), rel=1e-10)


# -- laws, whatever the family ----------------------------------------------------------------


OTHERS = [pytest.param(n, marks=pytest.mark.slow) for n in ("student-t", "categorical", "mixed")]


@pytest.fixture(params=["gaussian-tied", "kmeans", "poisson", *OTHERS])
def family(request: pytest.FixtureRequest) -> Row:
    return FAMILIES[request.param]


def known(row: Row) -> Array:
    """Components of some rows: what a fit says of them, and now and then another."""
    found = np.asarray(row.fitted.predict(row.rows()))
    rng = np.random.default_rng(4)
    found = np.where(rng.random(N) < 0.1, rng.integers(0, K, N), found)
    return np.where(rng.random(N) < 0.3, found, -1)


def fit_row(row: Row, data: Any, z: Any, plain: bool = False, **options: Any) -> MixtureEstimator:
    if plain:
        options["algorithm"] = "lloyd" if row.hard else "em"
    return row.make(**options).fit(data, labels_init=z, labels_fixed=True)


def test_kept_labels_never_let_plain_em_fall_and_acceleration_ends_no_lower(family: Row) -> None:
    z = known(family)
    plain = fit_row(family, family.rows(), z, plain=True, max_iter=200, tol=1e-9)
    bounds = plain.lower_bounds_
    assert (np.diff(bounds) >= -1e-9 * np.abs(bounds[0])).all()
    quick = fit_row(family, family.rows(), z, tol=1e-9)
    assert quick.lower_bound_ > plain.lower_bound_ - 1e-6
    assert quick.provenance_["labels"] == {"rows": int((z >= 0).sum()), "fixed": True}


def test_a_weight_is_a_row_repeated(family: Row) -> None:
    z, weight = known(family), np.random.default_rng(2).integers(0, 4, N)
    data = family.rows()
    model = family.make(algorithm="lloyd" if family.hard else "em", max_iter=3)
    one = model.fit(data, sample_weight=weight, labels_init=z, labels_fixed=True)
    repeated, z = np.repeat(data, weight, axis=0), np.repeat(z, weight)
    other = fit_row(family, repeated, z, plain=True, max_iter=3)
    assert one.lower_bound_ == pytest.approx(other.lower_bound_, rel=1e-7)
    assert_allclose(one.weights_, other.weights_, rtol=1e-6)


def test_a_resumed_fit_has_the_bits_of_a_straight_one(
    family: Row, synchronous: None, tmp_path: Path
) -> None:
    stored, z = write_zarr(tmp_path / "x.zarr", family.rows(), 200), known(family)
    write_zarr(tmp_path / "z.zarr", z, 333)
    straight = fit_row(family, stored, z)
    from_store = fit_row(family, stored, tmp_path / "z.zarr")
    assert digest(from_store.state_) == digest(straight.state_)
    # Within the pass of the labels, and within a pass that keeps them.
    for parts in (9, 15):
        kept = tmp_path / f"kept{parts}"
        with pytest.raises(StoppedError):
            fit_row(family, stored, z, checkpoint=kept, callbacks=[StopAfter(parts)])
        resumed = fit_row(family, stored, z, checkpoint=kept)
        assert digest(resumed.state_) == digest(straight.state_)


def test_workers_give_the_bits_of_threads(two_workers: Client, tmp_path: Path) -> None:
    stored, of_rows = write_zarr(tmp_path / "x.zarr", X, 150), write_zarr(tmp_path / "z", SOME, 99)
    blocks = da.from_array(X, chunks=(150, D)) + 0
    here = fit(stored, SOME, max_iter=4)
    with two_workers.as_current():
        there = [fit(stored, z, max_iter=4) for z in (of_rows, SOME)]
        lazy = fit(blocks, da.from_array(SOME), max_iter=4)
    assert [digest(model.state_) for model in there] == [digest(here.state_)] * 2
    assert_allclose(lazy.means_, here.means_, rtol=1e-9)


# -- laws of Gaussian mixtures -----------------------------------------------------------------


def test_the_order_of_rows_and_units_do_not_matter() -> None:
    model, order = fit(), np.random.default_rng(1).permutation(N)
    turned = fit(X[order], SOME[order])
    assert_allclose(turned.means_, model.means_, rtol=1e-6)
    moved = fit(100 * ((X + 1e8) - 1e8) + 1e8)
    assert_allclose((moved.means_ - 1e8) / 100, model.means_, atol=1e-5)
    assert moved.lower_bound_ + D * np.log(100) == pytest.approx(model.lower_bound_, abs=1e-6)


def test_components_are_numbered_by_their_labels() -> None:
    other = np.array([2, 0, 1, -1])
    assert_allclose(fit(z=other[SOME]).means_[other[:K]], fit().means_, rtol=1e-5)
    kept = KMeans(K, random_state=0).fit(X, labels_init=other[SOME])
    assert (kept.labels_ == other[EVERY]).mean() > 0.6


def test_labels_follow_rows_that_are_left_out(tmp_path: Path) -> None:
    holes = X.copy()
    holes[::7, 1] = np.nan
    whole = np.isfinite(holes).all(axis=1)
    expected = fit(holes[whole], SOME[whole])
    stored = write_zarr(tmp_path / "x.zarr", holes, 170)
    for data in (holes, stored, da.from_array(holes, chunks=(123, D))):
        found = fit(data, nonfinite="drop")
        assert_allclose(found.means_, expected.means_, rtol=1e-7)


@pytest.mark.parametrize("z", [SOME, soft(SOME)], ids=["labels", "responsibilities"])
def test_any_kind_of_labels_goes_with_any_kind_of_rows(z: Array, tmp_path: Path) -> None:
    model = fit(algorithm="em", max_iter=2)
    stored, of_rows = str(tmp_path / "x.zarr"), str(tmp_path / "z.zarr")
    write_zarr(stored, X, 170)
    write_zarr(of_rows, z, 333)
    np.save(tmp_path / "z.npy", z)
    np.save(tmp_path / "x.npy", X)
    lazy = da.from_array(z, chunks=(77, 2)[: z.ndim])
    blocks = da.from_array(X, chunks=(123, D)) + 0
    in_memory = zarr.array(z)
    for data in (X, stored, blocks, str(tmp_path / "x.npy")):
        for given in (z, of_rows, str(tmp_path / "z.npy"), lazy, in_memory):
            found = fit(data, given, algorithm="em", max_iter=2)
            assert_allclose(found.means_, model.means_, rtol=1e-9)


def test_labels_may_be_a_column(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    model = fit(algorithm="em", max_iter=2)
    table = pandas.DataFrame(X, columns=["a", "b", "c"])
    table["z"] = SOME
    table["name"] = pandas.Categorical.from_codes(SOME, ["one", "other", "third"])
    table.to_parquet(tmp_path / "t.parquet", row_group_size=170)
    for data in (table, str(tmp_path / "t.parquet")):
        for column, other in (("z", "name"), ("name", "z")):
            found = fit(data, column, algorithm="em", max_iter=2, exclude=other)
            assert_allclose(found.means_, model.means_, rtol=1e-9)
            assert [*found.feature_names_in_] == ["a", "b", "c"]
    found = fit(X, table["name"], algorithm="em", max_iter=2)
    assert_allclose(found.means_, model.means_, rtol=1e-9)
    dask_table = pytest.importorskip("dask.dataframe").from_pandas(table, npartitions=3)
    found = fit(dask_table, "z", algorithm="em", max_iter=2, exclude="name")
    assert_allclose(found.means_, model.means_, rtol=1e-9)


def test_blocks_one_by_one_are_those_of_a_graph() -> None:
    source = as_source(da.from_array(X, chunks=(123, D)) + 0)
    source = labels_beside(source, X, SOME, K, ReadOptions())
    start: Mixture = fit().state_.mixture
    found = SerialBackend().map_reduce(source, start)
    assert found.mean_log_likelihood == pytest.approx(fit().lower_bound_, rel=1e-9)
    assert source.with_beside(NOTHING).beside.labels is None


def test_devices_and_engines_agree() -> None:
    xp = pytest.importorskip("array_api_strict")
    for z in (SOME, soft(SOME)):
        model = fit(z=z, algorithm="em", max_iter=4)
        there = fit(z=z, algorithm="em", max_iter=4, device=xp)
        assert_allclose(there.means_, model.means_, rtol=1e-9)
        for fast in (False, True):
            with dask.config.set({"dask_em.fast": fast}):
                other = fit(z=z, algorithm="em", max_iter=4)
            assert_allclose(other.means_, model.means_, rtol=1e-9)


def test_memory_that_labels_take_is_planned(tmp_path: Path) -> None:
    source = as_source(write_zarr(tmp_path / "x.zarr", X, 100))
    for z in (SOME, soft(SOME)):
        known = labels_beside(source, X, z, K, ReadOptions())
        assert known.shipped_bytes == z.nbytes
        assert known.held_bytes >= source.held_bytes + 8 * source.chunk_rows


def test_plans_count_labels(tmp_path: Path) -> None:
    stored = str(tmp_path / "x.zarr")
    write_zarr(stored, np.repeat(X, 100, axis=0), 30_000)
    needed = []
    for z in (None, np.repeat(SOME, 100), soft(np.repeat(SOME, 100))):
        words = ["plan", stored, "-k", str(K), "--json", "--workers", "1"]
        if z is not None:
            path = str(tmp_path / f"z{z.ndim}.zarr")
            write_zarr(path, z, 30_000)
            words += ["--labels", path]
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
        needed.append(json.loads(done.stdout)["task_bytes"])
    assert needed[1] >= needed[0] + 24 * 30_000
    assert needed[2] >= needed[0] + 24 * K * 30_000


def test_models_of_one_k_are_compared_from_the_same_labels() -> None:
    found = select(
        X, K, ["full", "diag"], labels_init=SOME, labels_fixed=True, keep_all=True,
        exhaustive=True, random_state=0, reg_covar=0, tol=1e-8, holdout=0.1,
    )  # fmt: skip
    assert len(found.models) == 2
    held = select(X, K, labels_init=SOME, random_state=0, criterion="holdout", holdout=0.2)
    assert held.best.provenance_["labels"]["fixed"] is False
    with pytest.raises(ValueError, match="one n_components"):
        select(X, [2, K], labels_init=SOME)


def test_a_start_that_the_user_gave_stays() -> None:
    given = fit(max_iter=0, fixed=False, means_init=np.eye(3), weights_init=[0.2, 0.3, 0.5])
    assert_allclose(given.means_, np.eye(3), atol=1e-12)
    assert_allclose(given.weights_, [0.2, 0.3, 0.5])


def test_the_fit_of_other_labels_is_not_gone_on_with(tmp_path: Path) -> None:
    stored = write_zarr(tmp_path / "x.zarr", X, 100)
    of_rows = write_zarr(tmp_path / "z.zarr", SOME, 100)
    with pytest.raises(StoppedError):
        fit(stored, of_rows, checkpoint=tmp_path / "kept", callbacks=[StopAfter(20)])
    with pytest.raises(UsageError, match="labels_fixed"):
        fit(stored, of_rows, fixed=False, checkpoint=tmp_path / "kept")
    of_rows[0] = 1
    with pytest.raises(DataError, match="labels"):
        fit(stored, of_rows, checkpoint=tmp_path / "kept")


def test_a_model_file_says_what_it_was_told(tmp_path: Path) -> None:
    fit().save(tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").provenance_["labels"] == {
        "rows": int((SOME >= 0).sum()),
        "fixed": True,
    }


Made = Callable[[], object]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: fit(z=SOME[:-1]), "labels_init has 1199 entries and X has 1200 rows"),
        (lambda: fit(z=SOME + 1), "labels_init is 3 at row "),
        (lambda: fit(z=SOME + 0.5), "expected a component from 0 to 2, or -1"),
        (lambda: fit(z=soft(SOME)[:, :2]), "labels_init has 2 columns"),
        (lambda: fit(z=np.full((N, K), 0.5)), "expected numbers from 0 on that sum to 1"),
        (lambda: fit(z=np.where(SOME == 1, -1, SOME)), "gives no row to component 1 of 3"),
        (lambda: fit(z="species"), "the labels or noise 'species' are no path"),
        (lambda: fit(z=None), "labels_fixed=True keeps the labels of labels_init"),
        (lambda: fit(max_passes=2), "three times at least"),
        (lambda: fit(warm_start=True), "warm_start=True starts from the last result"),
        (lambda: fit(fixed=1), "labels_fixed=1: expected True or False"),  # type: ignore[arg-type]
        (lambda: fit(da.from_array(X, chunks=(99, D)) + 0, SOME + 1), r"at row \d+ of block \d"),
    ],
)
def test_what_cannot_be_used_is_refused(wrong: Made, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


# -- in a shell ----------------------------------------------------------------------------------


def test_a_shell_names_a_path_or_a_column(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame(X, columns=["a", "b", "c"]).assign(z=SOME)
    data = str(tmp_path / "t.parquet")
    table.to_parquet(data)
    write_zarr(tmp_path / "z.zarr", SOME, 400)
    told = [
        "--labels-fixed",
        "--reg-covar",
        "0",
        "--tol",
        "1e-8",
        "--json",
    ]
    for name, labels_of in (("column", "z"), ("path", str(tmp_path / "z.zarr"))):
        out = str(tmp_path / f"{name}.npz")
        left_out = ["--exclude", "z"] if name == "path" else []
        found = CliRunner().invoke(
            main, ["fit", data, "-k", "3", "-o", out, "--labels", labels_of, *told, *left_out]
        )
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)["labels"]["fixed"] is True
        assert_allclose(load(out).fitted_array("means_"), fit().means_, rtol=1e-6)
    told_of = CliRunner().invoke(main, ["inspect", out]).output
    assert f"labels   of {(SOME >= 0).sum():,} rows, kept in every E-step" in told_of
    none = str(tmp_path / "none.npz")
    wrong = CliRunner().invoke(main, ["fit", data, "-k", "2", "-o", none, "--labels", "z"])
    assert wrong.exit_code == 65, wrong.output
    assert "--labels is 2 at row" in wrong.output
