"""What files hold of records: tags, versions and names of fields, never a class of Python.

Whoever renames a class changes nothing here. Whoever renames, adds or drops a field, or gives one
another meaning, raises the version of the record and writes both into `PINNED`: files of before
are then refused by name, and not read as something that they are not.
"""

from __future__ import annotations

import json
import pkgutil
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from enum import Enum
from importlib import import_module
from typing import Any

import numpy as np
import pytest

import dask_em
from dask_em import GaussianMixture, KMeans
from dask_em.core import codec
from dask_em.core.codec import Packer, unpack
from dask_em.core.em import Convergence, EMState, PlainEM
from dask_em.estimators.registry import estimator_tag
from dask_em.fitting.control_variate import ControlVariateEM

PINNED = {
    "gaussian-bayesian": "1: means covariance whitening ridge constraint weights_prior prior "
    "counts",
    "weight-prior": "1: kind concentration",
    "normal-wishart-prior": "1: mean mean_precision df scatter",
    "conjugate-prior": "1: mean scatter shrinkage df",
    "gaussian-regularized": "1: means covariance whitening ridge constraint prior max_ratio",
    "gaussian-noisy": "1: means covariance whitening ridge constraint",
    "gaussian-regularized-noisy": "1: means covariance whitening ridge constraint prior max_ratio",
    "factor": "1: means loadings log_noise whitening ridge constraint",
    "factor-statistics": "1: first squares cross latent products entropy",
    "student-t": "1: scales log_df fixed shared",
    "student-t-scales": "1: means covariance whitening ridge constraint",
    "student-t-statistics": "1: weighted excess logs powers values",
    "carried-sums": "1: mixture statistics",
    "carried-sample": "1: mixture statistics sample",
    "kept-sample": "1: size rows weights",
    "candidate-row": "3: n_components kind n_parameters log_likelihood aic bic icl holdout "
    "n_passes status inertia family n_factors",
    "candidate-state": "1: algorithm state held_out n_passes dropped measured rejected fitted "
    "scored",
    "bad-weights": "1: n first",
    "bernoulli": "1: log_probabilities n_categories alpha missing binarize",
    "categorical": "1: log_probabilities n_categories alpha missing",
    "categorical-statistics": "1: counts",
    "center-statistics": "1: first squares far far_squares",
    "centers": "1: centers origin unit spherical",
    "chunk-log": "3: chunks fingerprints dropped bad_weights missing",
    "control-variate-state": "1: proposal contenders best n_iter kind predicted damping "
    "rejections rows_read gains steps heights",
    "covariance-diag": "1: factor",
    "covariance-full": "1: factor",
    "covariance-spherical": "1: factor",
    "covariance-tied": "1: factor",
    "em-state": "1: mixture statistics n_iter collapsed status result accepted",
    "em-step": "1: begin end",
    "fit-progress": "2: phase starts n_passes fingerprint records candidates carried",
    "fleet-statistics": "1: members held_weight held_log_likelihood",
    "gamma": "1: log_means log_shapes reference detection_limit",
    "gaussian": "1: means covariance whitening ridge constraint",
    "gaussian-mar": "1: means covariance whitening ridge constraint",
    "gaussian-mar-statistics": "1: first scatter entropy",
    "gaussian-regularized-mar": "1: means covariance whitening ridge constraint prior max_ratio",
    "gaussian-statistics": "1: first scatter",
    "kept-survey": (
        "2: seed made_by tuning compiled n_rows weight mean scatter low high sample log"
    ),
    "held": "1: parts",
    "held-mixture": "1: log_weights components engine assignment held",
    "logged": "1: sums log",
    "mixture": "1: log_weights components engine assignment",
    "mixture-statistics": "1: n_rows weight log_likelihood resp_sum components",
    "moments": "3: weight mean scatter low high observed",
    "multinomial": "1: logits reference size rounded",
    "non-finite": "1: n_rows first",
    "partial-sums": "1: phase number parameters sums",
    "objective": "1: name value unit short change",
    "pass": "2: phase number seconds rows bytes log_likelihood retries lost_workers objective",
    "plain-em-state": "1: proposal contenders previous",
    "product": "1: names columns parts variant",
    "product-statistics": "1: parts",
    "sample": "1: size keys rows weights",
    "start": "2: mixture n_passes log_likelihood contenders row eliminated state",
    # It grew: files that hold one of the others are what they were.
    "status": "1: RUNNING CONVERGED OUT_OF_ITERATIONS OUT_OF_PASSES OUT_OF_TIME "
    "LIKELIHOOD_FELL COLLAPSED NON_FINITE ADAPTED GIVEN",
    "survey": "3: n_rows n_weighted moments non_finite outside sample",
    "box": "1: low high log_volume",
    "noisy-mixture": "1: log_weights components engine assignment held box log_share",
    "noisy-statistics": "1: n_rows weight log_likelihood resp_sum components noise",
    "evident-statistics": "1: n_rows weight log_likelihood resp_sum components noise evidence",
    "canonical-statistics": "1: sums",
    "exponential": "1: log_scales reference",
    "poisson": "1: log_rates reference exposure size rounded",
    "reference": "1: values",
    "row-size": "1: mean variance",
    "survey-pass": "1: found record",
    "whitening": "1: shift scale",
}


def names_of(kind: Any) -> list[str]:
    return [one.name for one in (kind if issubclass(kind, Enum) else fields(kind))]


def registered() -> Iterator[tuple[str, int, type[Any]]]:
    """Tag, version and class of every record of the package, all of it imported."""
    for module in pkgutil.walk_packages(dask_em.__path__, "dask_em."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    for tag, entry in sorted(codec._by_tag.items()):
        if entry.kind.__module__.startswith("dask_em."):
            yield tag, entry.version, entry.kind


def test_no_tag_and_no_field_changes_unnoticed() -> None:
    found = {tag: f"{version}: {' '.join(names_of(kind))}" for tag, version, kind in registered()}
    for tag in found.keys() & PINNED.keys():
        assert found[tag] == PINNED[tag], f"raise the version of {tag!r}, and pin both"
    # Those of examples in docstrings, if they ran, are no records of files.
    assert {tag for tag in found if not tag.startswith("doc-")} == PINNED.keys()


def test_the_estimators_tag_stays() -> None:
    assert estimator_tag(GaussianMixture) == "gaussian-mixture"
    assert estimator_tag(KMeans) == "kmeans"


@pytest.fixture(scope="module")
def kept() -> list[Any]:
    """What files hold of a fit: the state, and those of both algorithms."""
    X = np.random.default_rng(0).normal(size=(200, 2))
    state = GaussianMixture(2, random_state=0, tol=0.1).fit(X).state_
    algorithms = PlainEM(state, Convergence()), ControlVariateEM(state, Convergence())
    return [state, *(algorithm.state_dict() for algorithm in algorithms)]


def words(packed: object) -> Iterator[str]:
    if isinstance(packed, str):
        yield packed
    elif isinstance(packed, dict):
        for value in packed.values():
            yield from words(value)
    elif isinstance(packed, list):
        for value in packed:
            yield from words(value)


def test_files_hold_tags_and_no_classes(kept: list[Any]) -> None:
    classes = {kind.__name__ for _, _, kind in registered()}
    for value in kept:
        found = {*words(Packer().pack(value))}
        assert not found & classes
        assert not [word for word in found if "dask_em" in word]


def test_a_renamed_class_reads_what_the_old_one_wrote(
    kept: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    packers = [Packer() for _ in kept]
    texts = [json.dumps(packer.pack(value)) for packer, value in zip(packers, kept, strict=True)]
    for tag, version, kind in registered():
        if is_dataclass(kind):
            renamed = type(f"Renamed{kind.__name__}", (kind,), {"__module__": "elsewhere"})
            monkeypatch.setitem(codec._by_tag, tag, codec._Entry(renamed, tag, version))
            monkeypatch.setitem(codec._by_class, renamed, codec._Entry(renamed, tag, version))
    for packer, text in zip(packers, texts, strict=True):
        again = unpack(json.loads(text), packer.arrays)
        assert type(again).__name__.startswith("Renamed")
        assert json.dumps(Packer().pack(again)) == text


def test_a_renamed_field_is_refused_by_its_names() -> None:
    for tag, version, kind in registered():
        if issubclass(kind, Enum):
            continue
        first, *others = names_of(kind)
        values = dict.fromkeys([f"old_{first}", *others])
        both = f"'{tag}' lacks, .*, {', '.join(sorted([first, f'old_{first}']))}$"
        with pytest.raises(ValueError, match=both):
            unpack({"record": tag, "version": version, "fields": values}, {})


def test_another_version_is_refused_by_name() -> None:
    for tag, version, kind in registered():
        if not issubclass(kind, Enum):
            values = dict.fromkeys(names_of(kind))
            with pytest.raises(ValueError, match=f"'{tag}' of version {version + 1}, .* {version}"):
                unpack({"record": tag, "version": version + 1, "fields": values}, {})


def test_a_state_is_read_back_as_it_was(kept: list[Any]) -> None:
    packer = Packer()
    again = unpack(json.loads(json.dumps(packer.pack(kept[0]))), packer.arrays)
    assert isinstance(again, EMState)
    np.testing.assert_array_equal(again.result.weights, kept[0].result.weights)
