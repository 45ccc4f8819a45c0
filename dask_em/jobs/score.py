"""TODO jobs.score."""

from __future__ import annotations

from ..data.open import stored_source
from ..estimators.load import load
from ..fitting.observers import reporter
from .cluster import Where, connected


def score(model_path: str, data: str, where: Where) -> dict[str, float]:
    """Mean log-likelihood per row, AIC, BIC and ICL of a saved model, in one pass."""
    model = load(model_path)
    model.set_params(callbacks=[reporter()])
    stored_source(data, options=model.read_options)
    with connected(where):
        return model.criteria(data)
