"""The job that scores data under a saved model."""

from __future__ import annotations

from typing import Any, Unpack

from ..data.open import stored_source
from ..fitting.progress import reporter
from .arguments import check_data, check_model
from .cluster import ClusterOptions, workers_for
from .files import ModelChoices, load_to_read


def score(
    model_path: str,
    data: str,
    cluster: ClusterOptions,
    weights: str | None = None,
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Compute mean log-likelihood per row, AIC, BIC and ICL of a saved model, in one pass."""
    order = "MODEL DATA"
    check_model(model_path, order)
    check_data(data, order=order)
    model = load_to_read(model_path, **reading)
    model.set_params(callbacks=[reporter()])
    source = stored_source(data, weights, model.read_options)
    with workers_for(cluster, source.nbytes):
        return {"weights": weights, **model.criteria(data, weights)}
