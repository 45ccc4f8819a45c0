"""The job that reads what a model file tells of itself."""

from __future__ import annotations

from typing import Any

from ..estimators.load import load


def inspect(model_path: str) -> dict[str, Any]:
    """Read options, status, parameters and provenance of a model file, as JSON holds them."""
    model = load(model_path)
    components = model.describe()
    return {
        "options": {
            name: value
            for name, value in model.get_params().items()
            if isinstance(value, str | int | float | bool | None)
        },
        "status": model.status_.name,
        "what": model.status_.value,
        "degenerate": [one.as_dict() for one in model.degenerate_],
        "warnings": model.warnings_,
        "n_iter": model.n_iter_,
        "n_passes": model.n_passes_,
        "log_likelihood": model.lower_bound_,
        "provenance": model.provenance_,
        "weights": model.weights_.tolist(),
        "family": components.family,
        "structure": components.structure,
        "means": components.means.tolist(),
        "history": model.history_,
    }
