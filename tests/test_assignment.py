"""Hard assignment: the E-step of classification EM (Celeux and Govaert 1992)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers import KINDS, blobs

from dask_em import GaussianMixture
from dask_em.core.engine import Engine
from dask_em.core.mixture import Mixture
from dask_em.core.parts import MixtureStatistics

N, D, K = 1200, 3, 4
X = blobs(N, D, K, seed=5, apart=1.5)[0]

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class HardMixture(GaussianMixture):
    assignment = "hard"


def fit(kind: str) -> HardMixture:
    return HardMixture(
        K,
        covariance_type=kind,
        algorithm="em",
        init_params="random_from_data",
        max_iter=40,
        tol=0.0,
        random_state=0,
    ).fit(X)


def sums(mixture: Mixture, weight: np.ndarray | None = None) -> MixtureStatistics:
    fold = mixture.fold()
    fold.update(0, X, weight)
    return fold.result()


@pytest.mark.parametrize("kind", KINDS)
def test_the_classification_likelihood_never_falls(kind: str) -> None:
    bounds = fit(kind).lower_bounds_
    assert len(bounds) > 2
    assert (np.diff(bounds) >= -1e-9).all()


def test_it_ends_where_no_row_changes_its_component() -> None:
    model = fit("full")
    mixture = model.state_.mixture
    joint = mixture.components.log_prob(X) + mixture.log_weights
    labels = joint.argmax(axis=1)
    assert model.lower_bound_ == pytest.approx(joint.max(axis=1).mean(), rel=1e-12)
    for k in range(K):
        mine = X[labels == k]
        np.testing.assert_allclose(model.means_[k], mine.mean(axis=0), rtol=1e-9)
        covariance = np.cov(mine, rowvar=False, bias=True) + 1e-6 * np.eye(D)
        np.testing.assert_allclose(model.covariances_[k], covariance, rtol=1e-7)
        assert model.weights_[k] == pytest.approx(len(mine) / N)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("engine", [Engine("numpy"), Engine("numba")], ids=lambda e: e.name)
def test_sums_are_those_of_whole_rows(kind: str, engine: Engine) -> None:
    if engine.name == "numba":
        pytest.importorskip("numba")
    mixture = replace(fit(kind).state_.mixture, engine=engine)
    components = mixture.components
    joint = components.log_prob(X) + mixture.log_weights
    resp = np.eye(K)[joint.argmax(axis=1)]
    found, weights = sums(mixture), np.arange(N) % 3.0
    np.testing.assert_allclose(found.resp_sum, resp.sum(axis=0))
    expected = components.maximize(
        resp.sum(axis=0), components.sufficient_statistics(X, resp)
    )[0]  # fmt: skip
    np.testing.assert_allclose(
        mixture.m_step(found)[0].components.log_prob(X), expected.log_prob(X), rtol=1e-6
    )
    weighted = sums(mixture, weights)
    np.testing.assert_allclose(weighted.resp_sum, weights @ resp)
    assert weighted.mean_log_likelihood == pytest.approx(
        np.average(joint.max(axis=1), weights=weights), rel=1e-9
    )


def test_hard_and_soft_agree_where_components_are_far_apart() -> None:
    rows = blobs(N, D, K, seed=5, apart=30.0)[0]
    hard = HardMixture(K, random_state=0).fit(rows)
    soft = GaussianMixture(K, random_state=0).fit(rows)
    order = [int(np.abs(hard.means_ - mean).sum(axis=1).argmin()) for mean in soft.means_]
    np.testing.assert_allclose(hard.means_[order], soft.means_, rtol=1e-6)
    assert hard.lower_bound_ == pytest.approx(soft.lower_bound_, rel=1e-6)
