"""Mixtures of columns of several types: products of families, and what they make honest."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from helpers import blobs
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal, poisson
from sklearn.exceptions import ConvergenceWarning

from dask_em import GaussianMixture, MixedMixture, load, select
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.codec import Packer, digest, unpack
from dask_em.core.family import Family
from dask_em.core.moments import Moments
from dask_em.errors import DataError, UsageError
from dask_em.estimators.groups import groups_of, listed_groups
from dask_em.families.canonical import Reference
from dask_em.families.gaussian.family import Gaussian
from dask_em.families.gaussian.matrices import Full
from dask_em.families.gaussian.options import GaussianOptions
from dask_em.families.gaussian.whitening import Whitening
from dask_em.families.poisson import Poisson
from dask_em.families.product.family import Product
from dask_em.families.product.options import Group, ProductOptions
from dask_em.testing.families import FamilyTests

pd = pytest.importorskip("pandas", reason="pandas is not installed")

pytestmark = pytest.mark.usefixtures("many_chunks")

N, K = 2000, 2
GROUPS = {"gaussian": ["size", "age"], "poisson": ["visits", "calls"]}
RATES = np.array([[2.0, 9.0], [11.0, 3.0]])
MEANS = np.array([[0.0, 50.0], [2.0, 30.0]])


def table(n: int = N, seed: int = 0) -> Any:
    """Two kinds of customers; the second column of the two counts comes first in the table."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(K, n, p=[0.6, 0.4])
    counts = rng.poisson(RATES[kind])
    return pd.DataFrame({
        "calls": counts[:, 1], "size": rng.normal(MEANS[kind, 0], 1.0), "visits": counts[:, 0],
        "age": rng.normal(MEANS[kind, 1], 5.0),
    })  # fmt: skip


TABLE = table()


def mixed(n_components: int = K, **options: Any) -> MixedMixture:
    return MixedMixture(n_components, **{"columns": GROUPS, "random_state": 0, **options})


def gaussian(d: int = 2) -> Gaussian:
    shapes = np.stack([np.tril(np.full((d, d), 0.3)) + np.eye(d), 1.5 * np.eye(d)])
    means = np.stack([np.zeros(d), np.full(d, 2.0)])
    return Gaussian(means, Full(shapes), Whitening(np.full(d, 0.5), np.full(d, 2.0)))


def counted(rates: Array) -> Poisson:
    return Poisson(np.log(rates), Reference(np.array([5.0, 6.0])))


# -- the family ------------------------------------------------------------------------


class TestProduct(FamilyTests):
    """A Gaussian and counts, whose columns are mingled."""

    def family(self) -> Family[Any]:
        parts = gaussian(), counted(RATES)
        return Product(("gaussian", "poisson"), ((3, 0), (1, 2)), parts, "full")

    def rows(self) -> Array:
        rng = np.random.default_rng(1)
        half = rng.integers(2, size=300)
        return np.column_stack([
            rng.normal(1.0, 2.0, 300), rng.poisson(RATES[half]), rng.normal(2.0, 3.0, 300)
        ])  # fmt: skip


class TestProductOfTied(TestProduct):
    """One group whose components share their scatter."""

    def family(self) -> Family[Any]:
        options = GaussianOptions("tied").of_data(Moments.of(self.rows()[:, [3, 0]]), 2)
        tied = options.with_arrays({"means": np.array([[0.0, -0.5], [0.3, 0.8]])})
        parts = tied, counted(RATES)
        return Product(("gaussian", "poisson"), ((3, 0), (1, 2)), parts, "tied")

    def test_the_m_step_of_draws_finds_the_component(self) -> None:
        # The others' covariances are in the pool, and they have no rows here.
        pass


class TestProductOfOne(FamilyTests):
    def family(self) -> Family[Any]:
        return Product(("gaussian",), ((0, 1),), (gaussian(),), "full")

    def rows(self) -> Array:
        return np.random.default_rng(1).normal(1.0, 2.0, (400, 2))


def test_log_densities_are_the_sum_of_scipy_s() -> None:
    family, rows = TestProduct().family(), TestProduct().rows()
    means, covariance = family.parts[0].data_coordinates()  # type: ignore[attr-defined]
    for k in range(2):
        normal = multivariate_normal(means[k], covariance.full(2, 2)[k]).logpdf(rows[:, [3, 0]])
        counts = poisson(RATES[k]).logpmf(rows[:, 1:3]).sum(axis=1)
        assert_allclose(family.log_prob(rows)[:, k], normal + counts, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["u1", "i4", "f4", "f8", ">f8"])
def test_groups_of_any_type_have_the_sums_of_their_columns(dtype: str) -> None:
    family = TestProduct().family()
    rows = np.abs(TestProduct().rows()).astype(dtype)
    resp = np.random.default_rng(0).dirichlet([1, 1], len(rows))
    both = family.sufficient_statistics(rows, resp).parts
    for part, columns, sums in zip(family.parts, family.columns, both, strict=True):  # type: ignore[attr-defined]
        alone = part.sufficient_statistics(rows[:, columns].astype("f8"), resp)
        for name, array in vars(sums).items():
            assert_allclose(array, vars(alone)[name], rtol=1e-9, atol=1e-9)


def test_a_name_that_two_groups_have_begins_with_the_group_s() -> None:
    family = Product(("one", "an-other"), ((0, 1), (2, 3)), (gaussian(), gaussian()))
    assert "one_means_" in family.attributes()
    assert "an_other_means_" in family.attribute_shapes()
    family.check_attributes(family.attributes())
    wrong = {**family.attributes(), "an_other_means_": np.zeros((2, 2))}
    with pytest.raises(ValueError, match="means_ is not that of the state"):
        family.check_attributes(wrong)


WRONG: dict[str, dict[str, Any]] = {
    "columns of the groups": {"columns": ((3, 0), (1, 1))},
    "columns of 'gaussian'": {"columns": ((3, 0, 1), (2,))},
    "names of the groups": {"names": ("poisson", "poisson")},
    "groups": {"names": ("gaussian",)},
    "n_components of 'poisson'": {"parts": (gaussian(), counted(RATES[:1]))},
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_file_s_product_that_is_none_is_refused(fault: str) -> None:
    family: Any = TestProduct().family()
    sums = family.kernel().statistics()
    packer = Packer()
    changed = type(family)(**{**vars(family), **WRONG[fault]})
    if fault.startswith("n_components"):
        sums = changed.kernel().statistics()
    again = unpack(packer.pack(changed, "family"), packer.arrays)
    with pytest.raises(ValueError, match=f"^{fault} is "):
        again.validate(sums)


def test_no_group_outweighs_another_by_its_columns() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 6)) * [1, 1, 1, 1, 1, 50]
    wide = Group("wide", (0, 1, 2, 3, 4), GaussianOptions())
    options = ProductOptions((wide, Group("one", (5,), GaussianOptions())))
    found = options.start_coordinates(rows, Moments.of(rows))
    assert_allclose(found[:, :5].var(axis=0).sum(), found[:, 5].var(), rtol=1e-9)


# -- the estimator -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def fitted() -> MixedMixture:
    return mixed(tol=1e-6).fit(TABLE)


def test_both_kinds_are_found(fitted: MixedMixture) -> None:
    order = np.argsort(fitted.means_[:, 0])
    assert_allclose(fitted.means_[order], MEANS, atol=0.7)
    assert_allclose(fitted.rates_[order], RATES, rtol=0.1)
    assert_allclose(fitted.weights_[order], [0.6, 0.4], atol=0.03)
    assert fitted.covariances_.shape == (K, 2, 2)
    assert [*fitted.feature_names_in_] == ["size", "age", "visits", "calls"]
    assert fitted.column_groups_ == GROUPS


def test_columns_are_found_by_name_wherever_they_are(fitted: MixedMixture) -> None:
    assert_array_equal(
        fitted.predict(TABLE), fitted.predict(TABLE[[*GROUPS["poisson"], "age", "size"]])
    )
    with pytest.raises(DataError, match="lacks"):
        fitted.predict(TABLE.drop(columns="age"))


def test_one_group_has_the_bits_of_its_family() -> None:
    X = blobs(1500, 3, 3, apart=2.0)[0]
    for dtype in ("f8", "f4"):
        one = MixedMixture(3, columns={"gaussian": [0, 1, 2]}, random_state=0).fit(X.astype(dtype))
        other = GaussianMixture(3, random_state=0).fit(X.astype(dtype))
        assert_array_equal(one.means_, other.means_)
        assert_array_equal(one.covariances_, other.covariances_)
        assert one.lower_bounds_ == other.lower_bounds_


def test_structures_are_those_of_the_gaussian_group() -> None:
    found = select(TABLE, [1, 2], ["full", "tied", "diag", "spherical"], estimator=MixedMixture,
                   columns=GROUPS, random_state=0)  # fmt: skip
    assert {row["covariance_type"] for row in found.table} == {"full", "tied", "diag", "spherical"}
    assert found.best.n_components == K


def test_a_model_file_holds_it(fitted: MixedMixture, tmp_path: Path) -> None:
    fitted.save(tmp_path / "m.npz")
    again = load(tmp_path / "m.npz")
    assert digest(again.state_) == digest(fitted.state_)
    assert again.get_params() == fitted.get_params()
    assert again.column_groups_ == GROUPS
    assert_array_equal(again.predict(TABLE), fitted.predict(TABLE))
    more = again.set_params(warm_start=True).fit(TABLE)
    assert more.lower_bound_ >= fitted.lower_bound_ - 1e-9


def test_other_groups_are_no_start(fitted: MixedMixture) -> None:
    other = {"poisson": ["visits", "calls"], "gaussian": ["size", "age"]}
    again = mixed(warm_start=True).fit(TABLE).set_params(columns=other)
    with pytest.raises(ValueError, match="other groups of columns"):
        again.fit(TABLE)


def test_a_page_shows_every_group(fitted: MixedMixture) -> None:
    assert fitted.describe().structure == (
        "gaussian (2 columns, full covariance) x poisson (2 columns)"
    )
    titles = [profile.title for profile in fitted.describe().profiles]
    assert titles == ["Means, gaussian", "Means, poisson"]
    assert_allclose(fitted.describe().means[:, 2:], fitted.rates_, rtol=0.1)
    assert "size" in fitted._repr_html_()


# -- which columns, of which family --------------------------------------------------------


def test_types_say_the_family_of_a_column() -> None:
    frame = pd.DataFrame({
        "x": np.zeros(3), "n": np.arange(3), "m": np.arange(3, dtype="u1"), "y": np.ones(3, "f4")
    })  # fmt: skip
    source = GaussianMixture().source(frame, reset=True)
    assert groups_of(None, source) == {"gaussian": (0, 3), "poisson": (1, 2)}
    model = MixedMixture(2, random_state=0).fit(TABLE)
    assert model.column_groups_ == {"poisson": ["calls", "visits"], "gaussian": ["size", "age"]}
    some = MixedMixture(2, columns=["s*", "visits"], random_state=0).fit(TABLE)
    assert some.column_groups_ == {"gaussian": ["size"], "poisson": ["visits"]}
    assert mixed(columns="auto", exclude="calls").fit(TABLE).n_features_in_ == 3


def test_patterns_and_numbers_name_columns() -> None:
    assert listed_groups({"gaussian": "x", "poisson": 3}) == {"gaussian": ["x"], "poisson": [3]}
    model = mixed(columns={"gaussian": ["[as]*e"], "poisson": ["visits", "c*"]}).fit(TABLE)
    assert model.column_groups_ == {"gaussian": ["size", "age"], "poisson": ["visits", "calls"]}
    rows = TABLE.to_numpy()
    numbered = MixedMixture(2, columns={"gaussian": [1, 3], "poisson": [2, 0]}, random_state=0)
    assert numbered.fit(rows).column_groups_ == {"gaussian": [1, 3], "poisson": [2, 0]}


MISTAKES: dict[str, tuple[Any, type[Exception], str]] = {
    "two families": (
        {"gaussian": ["size", "age"], "poisson": ["a*"]}, DataError, "'gaussian', 'poisson'"
    ),
    "no such family": ({"zipf": ["size"]}, UsageError, "expected one of .*gaussian"),
    "no such column": ({"gaussian": ["wide"]}, DataError, "no column of X"),
    "itself": ({"mixed": ["size"]}, UsageError, "describes no group"),
    "empty": ({"gaussian": []}, UsageError, "names of columns, or their numbers"),
    "nothing": ({}, UsageError, "no group"),
    "twice": ({"gaussian": ["size"], "poisson": ["size"]}, UsageError, "a name twice"),
    "left over": ({"gaussian": [0, 1]}, DataError, "in no group"),
    "beyond": ({"gaussian": [0, 1, 2, 3, 4]}, DataError, "numbered from 0"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake: str) -> None:
    columns, kind, words = MISTAKES[mistake]
    with pytest.raises(kind, match=words):
        mixed(columns=columns).fit(TABLE)


def test_names_need_columns_that_have_some() -> None:
    with pytest.raises(DataError, match="have no names"):
        mixed().fit(TABLE.to_numpy())
    with pytest.raises(UsageError, match="groups of columns are those of a mixed mixture"):
        GaussianMixture(columns=GROUPS).fit(TABLE)  # type: ignore[arg-type]


def test_what_a_group_does_not_describe_is_named() -> None:
    frame = TABLE.copy()
    frame["visits"] = frame["visits"].astype(float)
    frame.loc[7, "size"] = np.nan
    with pytest.raises(DataError, match="NaN at row 7, column 'size'"):
        mixed().fit(frame)


# -- counts that break a Gaussian ------------------------------------------------------------


def customers(n: int = 20_000) -> tuple[Any, Array]:
    """Three kinds of customers, with three counts and two amounts of money."""
    rng = np.random.default_rng(4)
    kind = rng.choice(3, n, p=[0.5, 0.3, 0.2])
    rates = np.array([[0.2, 1.0, 3.0], [2.0, 0.3, 6.0], [5.0, 4.0, 0.5]])
    counts = rng.poisson(rates[kind])
    amounts = rng.normal(np.array([[2.0, 0.0], [3.0, 1.0], [4.0, -1.0]])[kind], 0.6)
    columns = {name: counts[:, j] for j, name in enumerate(("returns", "calls", "orders"))}
    return pd.DataFrame({**columns, "log_spent": amounts[:, 0], "margin": amounts[:, 1]}), kind


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_counts_have_an_honest_optimum(seed: int) -> None:
    frame, kind = customers()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        spiked = GaussianMixture(6, random_state=seed).fit(frame)
    assert spiked.degenerate_
    found = select(frame, range(1, 6), estimator=MixedMixture, random_state=seed)
    assert found.best.n_components == 3
    assert not found.best.degenerate_
    assert not found.best.warnings_
    labels = found.best.predict(frame)
    agreement = np.zeros((3, 3))
    np.add.at(agreement, (labels, kind), 1)
    assert agreement.max(axis=1).sum() / len(frame) > 0.9
    assert_allclose(sorted(found.best.weights_), [0.2, 0.3, 0.5], atol=0.02)


# -- on the command line ---------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path: Path) -> str:
    TABLE.to_parquet(tmp_path / "x.parquet", row_group_size=500)
    return str(tmp_path / "x.parquet")


def run(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, [*words], prog_name="dask-em")
    assert done.exit_code == code, done.output
    return done.stdout if code == 0 else done.output


GROUPED = ("--family", "mixed", "--group", "gaussian=size,age", "--group", "poisson=visits,calls")


def test_a_shell_names_the_groups(stored: str, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    model = str(tmp_path / "m.npz")
    planned = json.loads(run("plan", stored, "-k", "2", *GROUPED, "--json"))
    assert planned["probe"] is not None
    run("fit", stored, "-k", "2", "-o", model, *GROUPED)
    assert load(model).column_groups_ == GROUPS  # type: ignore[attr-defined]
    assert "gaussian (2 columns, full covariance) x poisson" in run("inspect", model)
    assert json.loads(run("score", model, stored, "--json"))["n_rows"] == N
    other = str(tmp_path / "other.npz")
    run("fit", stored, "-k", "2", "-o", other, "--family", "mixed")
    assert load(other).column_groups_["poisson"] == ["calls", "visits"]  # type: ignore[attr-defined]
    for wrong, words in {
        "gaussian": "expected FAMILY=NAMES",
        "zipf=size": "expected one of",
    }.items():
        said = run("fit", stored, "-k", "2", "-o", f"{tmp_path}/no.npz", "--family", "mixed",
                   "--group", wrong, code=2)  # fmt: skip
        assert words in said
    both = ("--columns", "size", *GROUPED)
    assert "leave --columns out" in run("fit", stored, "-k", "2", "-o", other, *both, code=2)


# -- answers, some of them missing ---------------------------------------------------------


def answers(n: int = 3000, lacking: float = 0.2) -> tuple[Any, Array]:
    """An amount, a yes or no, and an answer of three, of which some are missing."""
    rng = np.random.default_rng(8)
    kind = rng.choice(K, n, p=[0.7, 0.3])
    said = np.array([rng.choice(3, p=[[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]][k]) for k in kind])
    frame = pd.DataFrame({
        "amount": rng.normal(3.0 * kind), "yes": rng.random(n) < np.array([0.2, 0.8])[kind],
        "answer": np.where(rng.random(n) < lacking, np.nan, said),
    })  # fmt: skip
    return frame, kind


def test_categories_of_words_are_read_as_codes() -> None:
    frame, kind = answers(lacking=0.0)
    words = np.array(["no", "maybe", "sure"])[frame["answer"].astype(int)]
    frame["answer"] = pd.Categorical(words, ["no", "maybe", "sure"])
    model = mixed(columns="auto").fit(frame)
    assert model.column_groups_["categorical"] == ["answer"]
    assert model.feature_categories_[2] == ("no", "maybe", "sure")
    order = np.argsort(model.means_[:, 0])
    found = model.categorical_probabilities_[order, 0]
    assert_allclose(found, [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], atol=0.05)
    # Whoever has the categories in another order means the same words.
    frame["answer"] = pd.Categorical(words, ["sure", "no", "maybe"])
    assert (np.argsort(order)[model.predict(frame)] == kind).mean() > 0.9
    groups = {"gaussian": ["amount", "answer"], "bernoulli": ["yes"]}
    with pytest.raises(DataError, match="'answer' holds words"):
        mixed(columns=groups).fit(frame)


ANSWERED = {"gaussian": ["amount"], "bernoulli": ["yes"], "categorical": ["answer"]}


def test_missing_answers_are_left_out_of_the_product() -> None:
    frame, kind = answers()
    with pytest.raises(DataError, match="column 'answer'"):
        mixed(columns=ANSWERED).fit(frame)
    model = mixed(columns=ANSWERED, missing_values="mar").fit(frame)
    order = np.argsort(model.means_[:, 0])
    found = model.categorical_probabilities_[order, 0]
    assert_allclose(found, [[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]], atol=0.05)
    assert_allclose(model.bernoulli_probabilities_[order, 0], [0.2, 0.8], atol=0.05)
    product: Any = model.state_.result.components
    holes = frame["answer"].isna().to_numpy()
    rows = frame[[*model.feature_names_in_]].to_numpy(dtype=float)
    without = product.parts[0].log_prob(rows[:, [0]]) + product.parts[1].log_prob(rows[:, [1]])
    assert_allclose(product.log_prob(rows)[holes], without[holes], rtol=1e-12)
    assert (np.argsort(order)[model.predict(frame)] == kind).mean() > 0.9
    assert [*product.answer_probabilities()] == [1, 2]
    frame.loc[3, "amount"] = np.nan
    rows[3, 0] = np.nan
    refitted: Any = model.fit(frame).state_.result.components
    others = sum(refitted.parts[i].log_prob(rows[3:4, [i]]) for i in (1, 2))
    assert_allclose(refitted.log_prob(rows[3:4]), others, rtol=1e-12)
    frame["count"] = 1.0
    frame.loc[3, "count"] = np.nan
    with pytest.raises(DataError, match="NaN at row 3, column 'count'"):
        mixed(columns={**ANSWERED, "poisson": ["count"]}, missing_values="mar").fit(frame)
