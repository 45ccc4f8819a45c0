"""The job that scores data under a saved model."""

from __future__ import annotations

from ..data.open import stored_source
from ..estimators.load import load
from ..fitting.observers import reporter
from .arguments import check_data, check_model
from .cluster import ClusterOptions, cluster_client


def score(model_path: str, data: str, cluster: ClusterOptions) -> dict[str, float]:
    """Compute mean log-likelihood per row, AIC, BIC and ICL of a saved model, in one pass."""
    order = "MODEL DATA"
    check_model(model_path, order)
    check_data(data, order=order)
    model = load(model_path)
    model.set_params(callbacks=[reporter()])
    stored_source(data, options=model.read_options)
    with cluster_client(cluster):
        return model.criteria(data)
