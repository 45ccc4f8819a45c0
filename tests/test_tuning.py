"""Constants that tune: named in models and checkpoints, the same on every worker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from distributed import Client
from helpers import blobs

from dask_em import GaussianMixture, load
from dask_em.core.codec import digest
from dask_em.core.tuning import DEFAULTS, tuning, use_tuning
from dask_em.errors import UsageError

X = blobs(1500, 3, 3, seed=1, apart=2.0)[0]
SHORT = DEFAULTS.with_changes(sample={"iterations": 3})

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def fit(**options: object) -> GaussianMixture:
    return GaussianMixture(3, random_state=0, sample_size=300).set_params(**options).fit(X)


def test_changes_are_named() -> None:
    assert DEFAULTS.changes() == {}
    assert SHORT.changes() == {"sample.iterations": 3}
    with use_tuning(SHORT):
        assert tuning() is SHORT
    assert tuning().changes() == {}


def test_what_is_no_constant_is_refused() -> None:
    with pytest.raises((TypeError, ValueError), match="colour"):
        DEFAULTS.with_changes(sample={"colour": 3})


def test_a_model_says_which_were_changed(tmp_path: Path) -> None:
    assert "tuning" not in fit().provenance_
    with use_tuning(SHORT):
        model = fit()
    model.save(tmp_path / "m.npz")
    for one in (model, load(tmp_path / "m.npz")):
        assert one.provenance_["tuning"] == {"sample.iterations": 3}


def test_an_unfinished_fit_goes_on_with_its_own_alone(tmp_path: Path) -> None:
    fit(checkpoint=tmp_path / "kept")
    with use_tuning(SHORT), pytest.raises(UsageError, match=r"tuning=\{\}.*sample.iterations"):
        fit(checkpoint=tmp_path / "kept")


def test_workers_have_them_too(client: Client) -> None:
    with use_tuning(DEFAULTS.with_changes(numpy_kernel={"least_rows": 7})):
        here = fit()
        with client.as_current():
            there = fit()
    assert digest(here.state_) == digest(there.state_)
    assert np.isfinite(here.lower_bound_)
