"""Rightly sealed model files that mean harm: refused, or used without harm.

Thousands of them: tests/faults/test_malformed_models.py.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import KINDS, blobs
from hostile_models import (
    BAIT,
    CPU_SECONDS,
    Contents,
    Examination,
    Made,
    hostile_models,
    packed,
    sealed,
    whole_models,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strangers.negative_binomial_mixture import NegativeBinomialMixture

from dask_em import GaussianMixture, load
from dask_em.core.codec import unpack
from dask_em.errors import ModelFileError, UsageError
from dask_em.estimators.registry import OWN, stored_of
from dask_em.jobs.inspect import inspect
from dask_em.storage import npz

pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLES = 300
X = blobs(300, 2, 2)[0]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Contents]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return whole_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def examination(tmp_path_factory: pytest.TempPathFactory) -> Examination:
    return Examination(tmp_path_factory.mktemp("examined"))


def test_models_that_mean_no_harm_are_taken(
    models: dict[str, Contents], examination: Examination
) -> None:
    for name, contents in models.items():
        assert examination.look(Made(name, sealed(packed(*contents)))), name


def test_a_hostile_model_is_refused_or_does_no_harm(
    models: dict[str, Contents], examination: Examination
) -> None:
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def examined(data: st.DataObject) -> None:
        examination.look(data.draw(hostile_models(models)))

    examined()
    assert examination.counts["refused"] > EXAMPLES / 3
    assert examination.counts["taken for a model"] > EXAMPLES / 20


# -- what a file says ------------------------------------------------------------------


def assert_refused(contents: Contents, path: Path, message: str) -> None:
    """Neither `load` nor `inspect` takes it."""
    path.write_bytes(sealed(packed(*contents)))
    for read in (load, lambda p: inspect(str(p))):
        with pytest.raises(ModelFileError, match=message):
            read(path)


@pytest.mark.parametrize(
    "options",
    [
        {"checkpoint": f"/{BAIT}"},
        {"checkpoint": None},
        {"callbacks": []},
        {"weights_init": [0.5, 0.5]},
        {"max_passes": 1},
        {"init_params": f"s3://{BAIT}/x"},
        {"device": f"../{BAIT}"},
        {"covariance_type": "~"},
        {"random_state": -1},
        {"n_components": 10**30},
        {"tol": float("nan")},
        {"of_a_later_version": 1},
    ],
    ids=str,
)
def test_options_are_those_that_save_writes(
    options: dict[str, Any], models: dict[str, Contents], tmp_path: Path
) -> None:
    header, arrays = models["full"]
    changed = {**header, "options": {**header["options"], **options}}
    (name,) = options
    assert_refused((changed, arrays), tmp_path / "m.npz", rf"options\.{name} is ")


def test_no_file_says_where_a_fit_writes(tmp_path: Path) -> None:
    for kind in (GaussianMixture, NegativeBinomialMixture):
        assert not {"checkpoint", "callbacks"} & kind.stored().options
    assert GaussianMixture.stored() == OWN["gaussian-mixture"].stored
    assert stored_of("negative-binomial-mixture") == NegativeBinomialMixture.stored()
    model = GaussianMixture(2, random_state=0, checkpoint=tmp_path / "kept").fit(X)
    model.save(tmp_path / "m.npz")
    assert load(tmp_path / "m.npz").checkpoint is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "a" * 10**6), ("source", 5), ("n_rows", -1), ("dtype", "O"), ("weight", -1.0),
        ("fitted", None), ("sweep", {"table": [5]}), ("evil", 1), ("n_features", 3),
        ("fit", {"id": f"/{BAIT}", "identity": "x"}),
        ("adapted", {"fingerprint": f"/{BAIT}", "relevance": 16.0, "n_passes": 1}),
        ("adapted", {"fingerprint": "0a", "relevance": -1.0, "n_passes": 1}),
    ],
)  # fmt: skip
def test_provenance_has_types_and_bounds(
    name: str, value: Any, models: dict[str, Contents], tmp_path: Path
) -> None:
    header, arrays = models["diag"]
    changed = {**header, "provenance": {**header["provenance"], name: value}}
    assert_refused((changed, arrays), tmp_path / "m.npz", "a part of the model is missing or wrong")


PUBLIC = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")


@pytest.mark.parametrize("name", PUBLIC)
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_that_contradict_the_state_are_refused(
    kind: str, name: str, models: dict[str, Contents], tmp_path: Path
) -> None:
    header, arrays = models[kind]
    changed = arrays[name][::-1].copy() if name == "weights_" else 1.01 * arrays[name]
    assert_refused((header, {**arrays, name: changed}), tmp_path / "m.npz", f"{name} is not that")


def named(arrays: dict[str, np.ndarray], end: str) -> str:
    (name,) = (name for name in arrays if name.endswith(end))
    return name


@pytest.mark.parametrize(
    ("end", "value"),
    [
        ("result.log_weights", 700.0), ("result.log_weights", 1e300),
        ("mixture.log_weights", np.inf), ("statistics.resp_sum", -5.0),
        ("statistics.resp_sum", np.nan), ("result.components.means", 1e200),
        ("result.components.covariance.factor", -1.0),
        ("result.components.covariance.factor", 1e-200), ("shift", 1e200), ("scale", -1.0),
        ("statistics.components.first", np.inf), ("weights_", 1e300),
    ],
)  # fmt: skip
def test_numbers_have_bounds(
    end: str, value: float, models: dict[str, Contents], tmp_path: Path
) -> None:
    header, arrays = models["full"]
    name = named(arrays, end)
    changed = arrays[name].copy()
    changed.flat[0] = value
    wrong = "a part of the model is missing or wrong"
    assert_refused((header, {**arrays, name: changed}), tmp_path / "m.npz", wrong)


@pytest.mark.parametrize("code", [0x110000, 2**32 - 1])
def test_names_are_characters(code: int, models: dict[str, Contents], tmp_path: Path) -> None:
    header, arrays = models["named"]
    names = arrays["feature_names_in_"].copy()
    names.view(np.uint32)[0] = code
    changed = {**arrays, "feature_names_in_": names}
    assert_refused((header, changed), tmp_path / "m.npz", "feature_names_in_ is ")


# -- how much it holds -------------------------------------------------------------------


def test_many_members_are_refused_at_once(models: dict[str, Contents], tmp_path: Path) -> None:
    members, path = packed(*models["full"]), tmp_path / "m.npz"
    tiny = members["weights_.npy"]
    for n in (1001, 20_000):
        more = {f"{i}.npy": tiny for i in range(n - len(members))}
        path.write_bytes(sealed({**members, **more}))
        began = time.process_time()
        with pytest.raises(ModelFileError, match=r"parts"):
            load(path)
        assert time.process_time() - began < CPU_SECONDS
    header, arrays = models["full"]
    assert_refused((header, {**arrays, "more": arrays["means_"]}), path, "there is an array 'more'")


def test_a_header_has_a_size(
    models: dict[str, Contents], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = GaussianMixture(2, random_state=0).fit(X)
    monkeypatch.setitem(npz.LIMITS, npz.KIND, npz.Limits(1000, 1000))
    assert_refused(models["full"], tmp_path / "m.npz", "its header takes more than 1000 bytes")
    with pytest.raises(UsageError, match="no file of more than 1000"):
        model.save(tmp_path / "new.npz")
    assert not (tmp_path / "new.npz").exists()


def test_diagonals_take_no_squares_of_memory(tmp_path: Path) -> None:
    """A file of a few MB whose square is more than a machine has."""
    d = 100_000
    rows = np.random.default_rng(0).normal(size=(8, 3))
    GaussianMixture(2, covariance_type="diag", random_state=0).fit(rows).save(tmp_path / "m.npz")
    header, arrays = npz.read_arrays(tmp_path / "m.npz")
    header["provenance"]["n_features"] = d
    wide = {
        name: np.repeat(a[..., :1], d, axis=-1) if a.shape[-1:] == (3,) else a
        for name, a in arrays.items()
    }
    wide |= unpack(header["state"], wide).result.components.attributes()
    path = tmp_path / "wide.npz"
    path.write_bytes(sealed(packed(header, wide)))
    began = time.process_time()
    assert len(inspect(str(path))["means"][0]) == d
    assert time.process_time() - began < CPU_SECONDS


# -- what a user has set since the fit ---------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_that_were_set_go_into_the_file(kind: str, tmp_path: Path) -> None:
    model = GaussianMixture(2, covariance_type=kind, random_state=0).fit(X)
    model.means_ = model.means_[::-1] + 1.0
    model.weights_ = np.array([0.25, 0.75])
    model.save(tmp_path / "m.npz")
    read = load(tmp_path / "m.npz")
    np.testing.assert_allclose(read.means_, model.means_, rtol=1e-12)
    np.testing.assert_allclose(read.score_samples(X), model.score_samples(X), rtol=1e-9)
    assert not read.may_go_on
    assert np.ravel(inspect(str(tmp_path / "m.npz"))["weights"]).tolist() == [0.25, 0.75]
    model.covariances_ = 2 * model.covariances_
    with pytest.raises(ValueError, match="cannot be saved: covariances_ is not that of"):
        model.save(tmp_path / "other.npz")
    assert not (tmp_path / "other.npz").exists()
