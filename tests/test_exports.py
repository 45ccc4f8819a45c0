"""Models in other languages answer what they answer here: ONNX in onnxruntime, SQL in DuckDB."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.testing import assert_allclose, assert_array_equal
from strangers.negative_binomial_mixture import NegativeBinomialMixture

from dask_em import (
    BayesianGaussianMixture,
    BernoulliMixture,
    CategoricalMixture,
    ExponentialMixture,
    FactorMixture,
    GammaMixture,
    GaussianMixture,
    KMeans,
    MixedMixture,
    MultinomialMixture,
    PoissonMixture,
    StudentTMixture,
    from_json,
    to_json,
    to_onnx,
    to_sql,
)
from dask_em.cli.main import main
from dask_em.core.additive import Array
from dask_em.core.engine import NUMPY
from dask_em.core.formula import NumpyOperators
from dask_em.errors import ModelFileError, UsageError
from dask_em.estimators.base import MixtureEstimator
from dask_em.exports.document import json_schema

pytestmark = pytest.mark.filterwarnings("ignore:X does not have valid feature names")

N, K, D = 10_000, 3, 4
WEIGHTS = np.array([0.5, 0.3, 0.2])

# Names that a program which pastes them into SQL would trip over, or run.
HOSTILE = ['a "quoted"; DROP TABLE x; --', "label", "it's", "Größe %s {0}"]


def rng() -> np.random.Generator:
    return np.random.default_rng(21)


def means() -> Array:
    return np.asarray(rng().normal(0.0, 2.0, (K, D)))


def spreads(k: int = K) -> Array:
    roots = rng().normal(size=(k, D, D))
    return roots @ roots.swapaxes(1, 2) + 0.5 * np.eye(D)


def shares(*shape: int) -> Array:
    found = rng().random(shape) + 0.05
    return np.asarray(found / found.sum(axis=-1, keepdims=True))


@dataclass(frozen=True)
class Case:
    """A model of given parameters, and rows that suit it."""

    make: Callable[[], MixtureEstimator]
    rows: Callable[[MixtureEstimator], Array] = lambda model: np.asarray(model.sample(N)[0])

    @cached_property
    def model(self) -> MixtureEstimator:
        found = self.make()
        found.set_params(random_state=0)
        return found

    @cached_property
    def data(self) -> Array:
        """Rows, of which most components have some."""
        return np.asarray(self.rows(self.model), dtype=np.float64)


def with_holes(model: MixtureEstimator) -> Array:
    rows = np.asarray(model.sample(N)[0], dtype=np.float64)
    return np.where(rng().random(rows.shape) < 0.2, np.nan, rows)


def gaussian(kind: str, covariances: Any, **options: Any) -> Case:
    return Case(
        lambda: GaussianMixture.from_parameters(
            WEIGHTS, means(), covariances, covariance_type=kind, **options
        )
    )


def variances() -> Array:
    return np.asarray(rng().random((K, D)) + 0.5)


CASES: dict[str, Case] = {
    "full": gaussian("full", spreads()),
    "tied": gaussian("tied", spreads(1)[0]),
    "diag": gaussian("diag", variances()),
    "spherical": gaussian("spherical", np.array([0.5, 1.0, 2.0])),
    "EII": gaussian("EII", np.full(K, 0.7)),
    "VEI": gaussian("VEI", np.array([[1.0], [2.0], [0.5]]) * variances()[:1]),
    "EEE far away": Case(
        lambda: GaussianMixture.from_parameters(
            WEIGHTS, means() + 1e8, spreads(1)[0], covariance_type="EEE"
        )
    ),
    "missing": gaussian("full", spreads(), missing_values="mar"),
    "bayesian": Case(
        lambda: BayesianGaussianMixture.from_parameters(
            WEIGHTS,
            means=means(),
            covariances=spreads(),
            counts=1000 * WEIGHTS,
            weight_concentration_prior_type="dirichlet_distribution",
            weight_concentration_prior=1e-9,
        )
    ),
    "kmeans": Case(lambda: KMeans.from_parameters(means(), WEIGHTS, 1.5)),
    "spherical kmeans": Case(
        lambda: KMeans.from_parameters(means(), WEIGHTS, 0.1, spherical=True),
        lambda model: np.asarray(rng().normal(size=(N, D))),
    ),
    "student-t": Case(
        lambda: StudentTMixture.from_parameters(
            WEIGHTS, means=means(), scales=spreads(), degrees_of_freedom=[1.5, 4.0, 1e10]
        )
    ),
    "factor": Case(
        lambda: FactorMixture.from_parameters(
            WEIGHTS,
            means=means(),
            loadings=rng().normal(size=(K, D, 2)),
            noise_variances=variances(),
            n_factors=2,
        )
    ),
    "poisson": Case(
        lambda: PoissonMixture.from_parameters(WEIGHTS, rates=10 ** rng().uniform(-1, 2, (K, D)))
    ),
    "poisson by exposure": Case(
        lambda: PoissonMixture.from_parameters(
            WEIGHTS,
            rates=10 ** rng().uniform(-1, 2, (K, D - 1)),
            exposure_moments=[2.0, 0.5],
            exposure=1,
            fractions="round",
        ),
        lambda model: np.asarray(model.sample(N)[0] + rng().choice([0.0, 0.25, 0.5], (N, D))),
    ),
    "multinomial": Case(
        lambda: MultinomialMixture.from_parameters(
            WEIGHTS, probabilities=shares(K, D), total_moments=[12.0, 30.0]
        )
    ),
    "exponential": Case(
        lambda: ExponentialMixture.from_parameters(
            WEIGHTS, scales=10 ** rng().uniform(0, 2, (K, D))
        )
    ),
    "gamma": Case(
        lambda: GammaMixture.from_parameters(
            WEIGHTS,
            shapes=10 ** rng().uniform(-0.5, 2, (K, D)),
            scales=10 ** rng().uniform(0, 2, (K, D)),
            detection_limit=0.01,
        ),
        lambda model: np.asarray(np.maximum(model.sample(N)[0] - 0.5, 0.0)),
    ),
    "bernoulli": Case(
        lambda: BernoulliMixture.from_parameters(WEIGHTS, probabilities=rng().random((K, D)))
    ),
    "categorical": Case(
        lambda: CategoricalMixture.from_parameters(WEIGHTS, probabilities=shares(K, D, 3))
    ),
    "bernoulli with holes": Case(
        lambda: BernoulliMixture.from_parameters(
            WEIGHTS, probabilities=rng().random((K, D)), missing_values="mar", binarize=0.5
        ),
        with_holes,
    ),
    "categorical with holes": Case(
        lambda: CategoricalMixture.from_parameters(
            WEIGHTS, probabilities=shares(K, D, 3), missing_values="mar"
        ),
        with_holes,
    ),
    "mixed": Case(
        lambda: MixedMixture.from_parameters(
            WEIGHTS,
            means=means()[:, :2],
            covariances=spreads()[:, :2, :2],
            rates=10 ** rng().uniform(-1, 1, (K, 1)),
            probabilities=rng().random((K, 1)),
            columns={"gaussian": [3, 0], "poisson": [1], "bernoulli": [2]},
        )
    ),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def test_a_formula_is_the_density(case: Case) -> None:
    components = case.model.mixture(NUMPY).components
    formula = components.formula(NumpyOperators(), case.data)
    common = 0.0 if formula.common is None else formula.common()
    expected = components.log_prob(case.data)
    assert_allclose(formula.components + common, expected, rtol=1e-9, atol=1e-7)


@pytest.mark.parametrize("weights", [[1.0], [0.0, 1.0]])
def test_one_component_and_one_without_weight(weights: list[float]) -> None:
    k = len(weights)
    model = GaussianMixture.from_parameters(
        weights, np.arange(k)[:, None], np.ones((k, 1)), covariance_type="diag"
    )
    X = np.array([[0.0], [1.0], [7.0]])
    found = onnx_answers(model, X)
    assert_array_equal(found["label"], k - 1)
    assert_allclose(found["probabilities"], model.predict_proba(X), atol=1e-9)
    label, probability = sql_answers(model, X, ["x0"])
    assert label.tolist() == [k - 1] * 3
    assert_allclose(probability, 1.0)
    assert_array_equal(from_json(to_json(model)).predict(X), k - 1)


# -- ONNX ----------------------------------------------------------------------------------


def onnx_answers(model: MixtureEstimator, X: Array, dtype: Any = "float64") -> dict[str, Array]:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    written = to_onnx(model, dtype).SerializeToString()
    session = runtime.InferenceSession(written, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"X": X.astype(dtype)}), strict=True))


def test_onnx_answers_as_the_model_does(case: Case) -> None:
    model, X = case.model, case.data
    found = onnx_answers(model, X)
    assert_array_equal(found.pop("label"), model.predict(X))
    if isinstance(model, KMeans):
        assert_allclose(found.pop("distances"), model.transform(X), rtol=1e-6, atol=1e-6)
    else:
        assert_allclose(found.pop("probabilities"), model.predict_proba(X), atol=1e-6)
        assert_allclose(found.pop("log_density"), model.score_samples(X), rtol=1e-6, atol=1e-6)
    assert not found


def test_onnx_takes_float32_and_computes_in_float64(case: Case) -> None:
    X = case.data[:100].astype(np.float32).astype(np.float64)
    model = case.model
    if model.mixture(NUMPY).components.formula_support.outside(X).any():
        pytest.skip("rounded to float32 these rows are of other numbers than the family's")
    one, other = (onnx_answers(model, X, dtype) for dtype in ("float32", "float64"))
    for name, values in one.items():
        assert values.dtype == (np.int64 if name == "label" else np.float64)
        assert_array_equal(values, other[name])


def bad_rows(case: Case) -> tuple[Array, Array]:
    """Rows that hold what is no number, and what the family does not describe; which have none."""
    X = case.data[:60].copy()
    X[::3, 0], X[1, 1], X[2, 2] = np.nan, np.inf, -np.inf
    X[4, 1] = -1.0
    X[5, 2] = 0.5
    support = case.model.mixture(NUMPY).components.formula_support
    kept = support.kept(X)
    assert kept is not None
    return X, ~kept


def test_onnx_has_no_answer_where_the_model_has_none(case: Case) -> None:
    X, none = bad_rows(case)
    found = onnx_answers(case.model, X)
    assert_array_equal(found["label"] == -1, none)
    for name in found.keys() - {"label"}:
        assert_array_equal(np.isnan(found[name]).reshape(len(X), -1).any(axis=1), none)
    answered = X[~none]
    with_holes = np.isnan(answered).any()
    if not with_holes or case.model.get_params().get("missing_values") == "mar":
        assert_array_equal(found["label"][~none], case.model.predict(answered))


def test_onnx_names_the_columns() -> None:
    onnx = pytest.importorskip("onnx")
    model = named(CASES["diag"])
    told = {p.key: p.value for p in to_onnx(model).metadata_props}
    assert json.loads(told["columns"]) == HOSTILE
    assert onnx.__version__


# -- SQL -----------------------------------------------------------------------------------


def named(case: Case, names: list[str] | None = None) -> MixtureEstimator:
    """The model of a case with names for its columns."""
    model = case.make()
    model.feature_names_in_ = np.array(HOSTILE if names is None else names, dtype=object)
    return model


def in_duckdb(sql: str, table: Any, name: str = "data") -> list[tuple[Any, ...]]:
    duckdb = pytest.importorskip("duckdb")
    with duckdb.connect() as connection:
        connection.register("source", table)
        connection.execute(f'CREATE TABLE "{name}" AS SELECT * FROM source')
        return list(connection.execute(sql).fetchall())


def as_table(X: Array, names: list[str]) -> Any:
    pa = pytest.importorskip("pyarrow")
    columns = {name: pa.array(X[:, j]) for j, name in enumerate(names)}
    return pa.table({**columns, "key": pa.array(np.arange(len(X)))})


def sql_answers(model: MixtureEstimator, X: Array, names: list[str]) -> tuple[Array, Array]:
    found = in_duckdb(to_sql(model, keep=["key"]), as_table(X, names))
    key, label, second = (np.array(column, dtype=np.float64) for column in zip(*found, strict=True))
    assert_array_equal(np.sort(key), np.arange(len(X)))
    order = np.argsort(key)
    return label[order], second[order]


def test_sql_labels_rows_as_the_model_does(case: Case) -> None:
    model, X = named(case), case.data
    label, second = sql_answers(model, X, HOSTILE)
    assert_array_equal(label, case.model.predict(X))
    if isinstance(case.model, KMeans):
        expected = case.model.transform(X).min(axis=1)
    else:
        expected = case.model.predict_proba(X).max(axis=1)
    assert_allclose(second, expected, rtol=1e-6, atol=1e-6)


def test_sql_has_null_where_the_model_has_no_answer(case: Case) -> None:
    X, none = bad_rows(case)
    label, second = sql_answers(named(case), X, HOSTILE)
    assert_array_equal(np.isnan(label), none)
    assert_array_equal(np.isnan(second), none)


def test_sql_reads_words_and_leaves_missing_answers_out() -> None:
    words = [("red", "it's blue"), ()]
    model = CategoricalMixture.from_parameters(
        [0.5, 0.5],
        probabilities=[[[0.9, 0.1, 0.0], [0.2, 0.2, 0.6]], [[0.2, 0.8, 0.0], [0.6, 0.2, 0.2]]],
        feature_names=["colour", "n"],
        feature_categories=words,
        missing_values="mar",
    )
    pa = pytest.importorskip("pyarrow")
    colours = ["red", "it's blue", None, "it's blue", "green", None]
    codes = [2.0, 0.0, 2.0, np.nan, 1.0, None]
    table = pa.table({"colour": colours, "n": codes})
    found = in_duckdb(to_sql(model), table)
    coded = [[0, 2.0], [1, 0.0], [np.nan, 2.0], [1, np.nan], [np.nan, np.nan]]
    by_row = {row[:2]: row[2:] for row in found}
    expected = model.predict_proba(np.array(coded))
    keys = [("red", 2.0), ("it's blue", 0.0), (None, 2.0), None, (None, None)]
    for key, proba in zip(keys, expected, strict=True):
        if key is not None:
            assert by_row[key][0] == proba.argmax()
            assert_allclose(by_row[key][1], proba.max(), atol=1e-9)
    # NaN is not equal to itself, and a word that is no category has no code.
    (other,) = (row for row in found if row[1] is not None and np.isnan(row[1]))
    assert other[2] == expected[3].argmax()


def test_sql_takes_names_as_they_are() -> None:
    model = named(CASES["diag"])
    hostile = 'x"; DROP TABLE "data'
    X = CASES["diag"].data[:5]
    found = in_duckdb(to_sql(model, hostile), as_table(X, HOSTILE), hostile.replace('"', '""'))
    assert [row[-2] for row in found] == model.predict(X).tolist()
    sql = to_sql(model, ("main", "v0"), keep=["key", "V1", "step0"])
    assert 'FROM "main"."v0"' in sql
    assert sql.count(' AS "V1"') == 0
    assert ' AS "v1"' not in sql
    for bad in ("", "a\nb", "a\u202eb"):
        with pytest.raises(UsageError, match="empty, or has control characters"):
            to_sql(model, bad)


def test_sql_of_many_columns_is_not_nested_deeply() -> None:
    d = 1500
    names = [f"gene {j}" for j in range(d)]
    rates = rng().uniform(0.1, 2.0, (2, d))
    model = PoissonMixture.from_parameters([0.5, 0.5], rates=rates, feature_names=names)
    X = np.asarray(rng().poisson(rates[[0, 1, 1]]), dtype=np.float64)
    label, _ = sql_answers(model, X, names)
    assert label.tolist() == [0, 1, 1]


def test_a_family_without_a_formula_is_exported_as_a_document() -> None:
    model = NegativeBinomialMixture(1, random_state=0).fit(rng().poisson(3.0, (200, 2)))
    for export in (to_sql, to_onnx):
        with pytest.raises(UsageError, match="its family lacks one: export it as JSON"):
            export(model)
    again = from_json(json.loads(json.dumps(to_json(model))))
    X = np.arange(8.0).reshape(4, 2)
    assert_allclose(again.score_samples(X), model.score_samples(X), rtol=1e-9)


# -- JSON ----------------------------------------------------------------------------------


def test_json_goes_there_and_back(case: Case) -> None:
    model = named(case)
    document = json.loads(json.dumps(to_json(model), allow_nan=False))
    again = from_json(document)
    assert type(again) is type(model)
    X = case.data[:200]
    assert_array_equal(again.predict(X), case.model.predict(X))
    answer = "transform" if isinstance(model, KMeans) else "score_samples"
    found, expected = (getattr(one, answer)(X) for one in (again, case.model))
    assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
    assert [*again.feature_names_in_] == HOSTILE
    second = to_json(again)
    options = document["options"]
    # What a prior was given as is kept in other units.
    for name in second["options"].keys() & {"mean_prior", "covariance_prior"}:
        assert_allclose(second["options"].pop(name), options.pop(name), rtol=1e-12)
    assert second["options"] == options
    for name, values in document["parameters"].items():
        assert_allclose(second["parameters"][name], values, rtol=1e-12)


def test_json_holds_what_was_held() -> None:
    options: dict[str, Any] = {
        "means_init": means(), "precisions_init": 1 / variances(), "covariance_type": "diag",
        "fixed": {"means": [0]},
    }  # fmt: skip
    model = GaussianMixture.from_parameters(WEIGHTS, means(), variances(), **options)
    again = from_json(json.loads(json.dumps(to_json(model))))
    assert again.get_params()["fixed"] == {"means": [0]}
    assert_array_equal(again.get_params()["means_init"], means())


def test_json_is_as_its_schema_says(case: Case) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for model in (case.model, named(case)):
        jsonschema.validate(to_json(model), schema)


def spoilt(**changes: Any) -> dict[str, Any]:
    return {**to_json(CASES["diag"].model), **changes}


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (spoilt(format="other"), "format is 'other'"),
        (spoilt(version=2), "version is 2"),
        (spoilt(family="../x"), "family is '../x'"),
        (spoilt(family="no-such"), "no-such"),
        (spoilt(more=1), "more is unknown"),
        (spoilt(weights=[0.5, 0.6, 0.2]), "sum to 1"),
        (spoilt(weights=[0.5, "0.3", 0.2]), "weights"),
        (spoilt(weights=[]), "weights"),
        (spoilt(parameters={}), "has no parameter of 3 components"),
        (spoilt(parameters={"means": [[1.0]], "checkpoint": [1.0]}), "parameters is"),
        (spoilt(parameters={"means": [[0.0]] * 3, "covariances": [[-1.0]] * 3}), "definite"),
        (spoilt(parameters={"means": [[1e400]] * 3, "covariances": [[1.0]] * 3}), "means"),
        (spoilt(parameters={"means": [[0.0], [1.0, 2.0]]}), "parameters.means"),
        (spoilt(options={}), "is missing"),
        (spoilt(columns=[{"name": "x", "categories": []}]), "expected 4 names"),
    ],
)  # fmt: skip
def test_documents_of_strangers_are_refused_by_name(document: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelFileError, match=told):
        from_json(document)


def test_options_that_name_places_are_no_part_of_a_document() -> None:
    document = to_json(CASES["diag"].model)
    for name in ("checkpoint", "callbacks"):
        assert name not in document["options"]
        with pytest.raises(ModelFileError, match=f"{name} is unknown"):
            from_json({**document, "options": {**document["options"], name: "/tmp/x"}})


# -- other programs in Python --------------------------------------------------------------


@pytest.mark.parametrize("name", ["full", "tied", "diag", "spherical", "VEI", "kmeans"])
def test_skops_reads_what_scikit_learn_is_made_of(name: str) -> None:
    skops = pytest.importorskip("skops.io")
    case = CASES[name]
    model: Any = case.model
    written = skops.dumps(model.to_sklearn())
    assert skops.get_untrusted_types(data=written) == []
    assert_array_equal(skops.loads(written).predict(case.data), model.predict(case.data))


def test_directions_have_no_equivalent_in_scikit_learn() -> None:
    model: Any = CASES["spherical kmeans"].model
    with pytest.raises(UsageError, match="no K-means of directions"):
        model.to_sklearn()


# -- the command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("models") / "m.npz"
    named(CASES["diag"]).save(path)
    return path


def run(*words: object) -> tuple[int, str, str]:
    found = CliRunner().invoke(main, [*map(str, words)])
    return found.exit_code, found.stdout, found.stderr


def test_the_command_writes_what_python_does(model_file: Path, tmp_path: Path) -> None:
    model = named(CASES["diag"])
    code, out, _ = run("export", model_file, "--sql", "--table", "main,rows", "--keep", "key")
    assert (code, out) == (0, to_sql(model, ("main", "rows"), ["key"]) + ";\n")
    code, out, _ = run("export", model_file, "--json", "-o", tmp_path / "m.json")
    document = json.loads(out)
    assert (code, document) == (0, json.loads((tmp_path / "m.json").read_text()))
    assert document["parameters"] == to_json(model)["parameters"]
    pytest.importorskip("onnx")
    path = tmp_path / "m.onnx"
    code, out, _ = run("export", model_file, "--onnx", path, "--json")
    assert code == 0
    assert json.loads(out)["n_bytes"] == path.stat().st_size
    assert run("export", model_file, "--onnx", path)[0] == 73
    assert run("export", model_file, "--onnx", path, "--overwrite", "--input", "float32")[0] == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give one of --onnx FILE, --sql and --json"),
        (["--onnx", "x.onnx", "--sql"], "leave out --sql"),
    ],
)
def test_the_command_says_what_goes_together(model_file: Path, words: list[str], told: str) -> None:
    code, _, err = run("export", model_file, *words)
    assert code == 2
    assert told in err
