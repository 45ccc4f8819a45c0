"""Expectation-Maximization for mixtures on data that do not fit in memory, on Dask."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .foreign import OneLine
from .version import __version__

__all__ = [
    "BayesianGaussianMixture",
    "BernoulliMixture",
    "CategoricalMixture",
    "Checkpointing",
    "ExponentialMixture",
    "FactorMixture",
    "GammaMixture",
    "GaussianMixture",
    "KMeans",
    "MixedMixture",
    "MixtureDisplay",
    "MultinomialMixture",
    "PoissonMixture",
    "StudentTMixture",
    "__version__",
    "adapt",
    "compare",
    "from_json",
    "from_sklearn",
    "ingest",
    "kl_divergence",
    "load",
    "plots",
    "select",
    "to_json",
    "to_onnx",
    "to_sql",
    "write_report",
]

if TYPE_CHECKING:
    from . import plots
    from .estimators.adapt import adapt
    from .estimators.amounts import ExponentialMixture, GammaMixture
    from .estimators.bayesian_gaussian import BayesianGaussianMixture
    from .estimators.categorical import BernoulliMixture, CategoricalMixture
    from .estimators.compare import compare
    from .estimators.counts import MultinomialMixture, PoissonMixture
    from .estimators.factor import FactorMixture
    from .estimators.from_sklearn import from_sklearn
    from .estimators.gaussian import GaussianMixture
    from .estimators.kmeans import KMeans
    from .estimators.load import load
    from .estimators.mixed import MixedMixture
    from .estimators.questions import kl_divergence
    from .estimators.select import select
    from .estimators.student_t import StudentTMixture
    from .exports.document import from_json, to_json
    from .exports.onnx import to_onnx
    from .exports.sql import to_sql
    from .jobs.ingest import ingest
    from .report.display import MixtureDisplay
    from .report.write import write_report
    from .storage.checkpoint import Checkpointing

# Once, and before anybody logs: also where a worker imports a part of the package alone.
logging.getLogger("dask_em").addFilter(OneLine())

_HOMES = {
    "BayesianGaussianMixture": "estimators.bayesian_gaussian",
    "BernoulliMixture": "estimators.categorical",
    "CategoricalMixture": "estimators.categorical",
    "Checkpointing": "storage.checkpoint",
    "ExponentialMixture": "estimators.amounts",
    "FactorMixture": "estimators.factor",
    "GammaMixture": "estimators.amounts",
    "GaussianMixture": "estimators.gaussian",
    "KMeans": "estimators.kmeans",
    "MixedMixture": "estimators.mixed",
    "MixtureDisplay": "report.display",
    "MultinomialMixture": "estimators.counts",
    "PoissonMixture": "estimators.counts",
    "StudentTMixture": "estimators.student_t",
    "adapt": "estimators.adapt",
    "compare": "estimators.compare",
    "from_json": "exports.document",
    "from_sklearn": "estimators.from_sklearn",
    "ingest": "jobs.ingest",
    "kl_divergence": "estimators.questions",
    "load": "estimators.load",
    "select": "estimators.select",
    "to_json": "exports.document",
    "to_onnx": "exports.onnx",
    "to_sql": "exports.sql",
    "write_report": "report.write",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    # scikit-learn and dask.array take seconds to import; workers and `dask-em --help`
    # need neither.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    if name == "plots":
        return import_module(".plots", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
