"""Labels: the first of the largest joint log-densities, in any type of integers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import zarr
from click.testing import CliRunner
from helpers import blobs

from dask_em import (
    CategoricalMixture,
    FactorMixture,
    GaussianMixture,
    KMeans,
    PoissonMixture,
    StudentTMixture,
)
from dask_em.cli.main import main
from dask_em.core.engine import Engine
from dask_em.core.responsibilities import Arithmetic, CompiledArithmetic, NumpyArithmetic
from dask_em.core.scoring import Predict, joint_blocks
from dask_em.estimators.base import MixtureEstimator

X = blobs(1500, 3, 4, seed=2)[0]
COUNTS = np.random.default_rng(0).poisson(3.0, (1500, 3)).astype(float)
HOLES = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)
OPTIONS: dict[str, Any] = {"random_state": 0, "max_iter": 2, "algorithm": "em", "n_init": 1}
MODELS = [
    (GaussianMixture(4, **OPTIONS), X),
    (GaussianMixture(4, covariance_type="diag", **OPTIONS), X),
    (GaussianMixture(4, missing_values="mar", **OPTIONS), HOLES),
    (GaussianMixture(4, noise=True, **OPTIONS), np.vstack([X, 40 * X[:20]])),
    (FactorMixture(4, n_factors=1, **OPTIONS), X),
    (StudentTMixture(4, **OPTIONS), X),
    (PoissonMixture(4, **OPTIONS), COUNTS),
    (CategoricalMixture(4, **OPTIONS), np.minimum(COUNTS, 4)),
    (KMeans(4, random_state=0, max_iter=3), X),
]

pytestmark = pytest.mark.filterwarnings("ignore")


def engines() -> list[str]:
    try:
        import numba  # noqa: F401
    except ImportError:
        return ["numpy"]
    return ["numpy", "numba"]


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize(("model", "rows"), MODELS, ids=lambda v: getattr(v, "_name", None))
def test_labels_are_the_largest_joint_density(
    model: MixtureEstimator, rows: np.ndarray, single: bool
) -> None:
    rows = rows.astype(np.float32 if single else np.float64)
    model.fit(rows)
    for name in engines():
        mixture = model.mixture(Engine(name, single))  # type: ignore[arg-type]
        # Two equal components, and rows between others: ties, and what is nearly one.
        k = len(mixture.log_weights)
        for one in (mixture, mixture.take([0, 0, *range(1, k)])):
            if model.mixture(Engine()).n_parts > k and one is not mixture:
                continue
            labels = Predict(one, ("labels",), labels=np.dtype(np.int8))(rows)["labels"]
            found = np.empty(len(rows), np.int64)
            for numbers, log_joint, arithmetic in joint_blocks(one, rows):
                found[numbers] = arithmetic.fetch(log_joint).argmax(axis=0)
            found[found >= len(one.log_weights)] = -1
            if one.assignment == "soft":
                np.testing.assert_array_equal(labels, found)
            assert one is mixture or not (labels == 1).any()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_compiled_loop_is_numpy_s_argmax(dtype: Any) -> None:
    pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 4000)).round(1) * rng.choice([1.0, 1e6], 4000)
    values[:, :5] = np.array([[np.nan, 1, -np.inf, 0.0, np.inf]])
    values[3, 5:9], values[5, 7:12] = np.nan, np.nan
    values[2:, 20:30], values[:, 30:33] = -np.inf, -np.inf
    weights = rng.normal(size=7).round(1)
    ways: list[Arithmetic] = [NumpyArithmetic(7, 4000), CompiledArithmetic(7, 4000)]
    for log_weights in (weights, np.zeros(7), weights / 3):
        plain, compiled = (way.likeliest(values.astype(dtype), log_weights) for way in ways)
        np.testing.assert_array_equal(plain, compiled)


def test_labels_have_the_type_that_was_asked_for(tmp_path: Path) -> None:
    model = GaussianMixture(4, **OPTIONS).fit(X)
    expected = model.predict(X)
    assert expected.dtype == np.int64
    for dtype in ("uint8", "uint16", "int32"):
        for rows in (X, da.from_array(X, chunks=(1000, 3))):
            found = np.asarray(model.predict(rows, dtype=dtype))
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected)
    for wrong in ("float32", "colour"):
        with pytest.raises(ValueError, match="expected a type of integers that holds 0 to 3"):
            model.predict(X, dtype=wrong)
    left_out = model.set_params(nonfinite="drop")
    with pytest.raises(ValueError, match=r"holds -1 to 3, signed for rows that are noise or"):
        left_out.predict(X, dtype="uint8")
    rows = X.copy()
    rows[7, 0] = np.nan
    labels = left_out.predict(rows, dtype="int8")
    assert labels[7] == -1
    np.testing.assert_array_equal(np.delete(labels, 7), np.delete(expected, 7))


def test_the_program_writes_labels_of_a_type(tmp_path: Path) -> None:
    model = GaussianMixture(4, **OPTIONS).fit(X)
    model.save(tmp_path / "m.npz")
    zarr.create_array(tmp_path / "x.zarr", data=X, chunks=(500, 3))
    for name, words in (("a", []), ("b", ["--dtype", "uint8"])):
        done = CliRunner().invoke(
            main, ["predict", *(str(tmp_path / f) for f in ("m.npz", "x.zarr", name)), *words]
        )
        assert done.exit_code == 0, done.output
    wide, narrow = (zarr.open_array(tmp_path / name / "labels", mode="r") for name in ("a", "b"))
    assert (wide.dtype, narrow.dtype) == (np.int64, np.uint8)
    np.testing.assert_array_equal(narrow[:], wide[:])
    done = CliRunner().invoke(
        main,
        ["predict", *(str(tmp_path / f) for f in ("m.npz", "x.zarr", "c")), "--dtype", "float32"],
    )
    assert done.exit_code == 2
    assert "--dtype='float32': expected a type of integers" in done.output
