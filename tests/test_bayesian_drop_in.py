"""scikit-learn's own tests of its Bayesian mixtures, with the class replaced by ours.

The functions are those of the installed scikit-learn; nothing of them is copied.
"""

from __future__ import annotations

import importlib.util
from types import ModuleType
from typing import Any
from unittest.mock import patch

import pytest
import sklearn.mixture

from dask_em import BayesianGaussianMixture

NOT_OURS = {
    "test_compare_covar_type": "it calls private methods that prepare a fit, and ours are others: "
    "tests/test_bayesian.py compares every iteration of all structures with scikit-learn's",
}
"""The tests that cannot pass, each with its reason."""

# Of private functions of scikit-learn, which are not replaced.
THEIRS = ("test_log_dirichlet_norm", "test_log_wishart_norm")

pytestmark = [
    # As in scikit-learn's own run.
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore:X does not vary", "ignore:reg_covar="),
]


def with_ours() -> ModuleType:
    """The test module of scikit-learn that knows our class by its own's name."""
    spec = importlib.util.find_spec("sklearn.mixture.tests.test_bayesian_mixture")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with patch.object(sklearn.mixture, "BayesianGaussianMixture", BayesianGaussianMixture):
        spec.loader.exec_module(module)
    return module


SLOW = ("test_monotonic_likelihood",)


def functions_of(module: ModuleType) -> dict[str, Any]:
    """Its test functions as they are, those that cannot pass marked."""
    found = {name: test for name, test in vars(module).items() if name.startswith("test_")}
    for name in THEIRS:
        del found[name]
    for name, reason in NOT_OURS.items():
        found[name] = pytest.mark.xfail(reason=reason, strict=True)(found[name])
    for name in SLOW:
        found[name] = pytest.mark.slow(found[name])
    return found


globals().update(functions_of(with_ours()))
