"""The job that reads what a model file tells of itself."""

from __future__ import annotations

from math import isfinite
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
        # Of a start that saw no pass there is none, and JSON has no infinity.
        "log_likelihood": model.lower_bound_ if isfinite(model.lower_bound_) else None,
        "provenance": model.provenance_,
        "weights": model.fitted_array("weights_").tolist(),
        "family": components.family,
        "structure": components.structure,
        "means": components.means.tolist(),
        "history": model.history_,
    }
