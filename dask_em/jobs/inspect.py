"""The job that reads what a model file tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.additive import Array
from ..estimators.describe import FamilyDescription, names_of_columns
from ..estimators.model_file import read_as
from ..estimators.saved import SavedModel
from ..fitting.checks import Columns
from .arguments import check_model
from .components import components_told, sample_told


def inspect(model_path: str) -> dict[str, Any]:
    """Read options, status, parameters and provenance of a model file, as JSON holds them.

    No estimator is made of it, so scikit-learn is not imported.
    """
    check_model(model_path, "MODEL")
    return read_as(model_path, _told)


def _told(saved: SavedModel) -> dict[str, Any]:
    state, found = saved.state, saved.attributes
    family = state.result.components
    names = found.get("feature_names_in_")
    components = FamilyDescription(family, names_of_columns(names, family.n_features))
    objective = state.mixture.components.reported_objective
    told = objective(state.reported, state.statistics.weight)
    reached = {"log_likelihood": state.log_likelihood, told.key: told.value}
    # As in `degenerate_` and `warnings_` of the estimator.
    degenerate = state.degenerate
    warnings = state.warnings(Columns(names).first)
    return {
        "options": saved.options,
        "status": state.status.name,
        "what": state.status.reason(told.name, told.rises),
        "degenerate": [one.as_dict() for one in degenerate],
        "warnings": warnings,
        "n_iter": state.n_iter,
        "n_reads": saved.n_reads,
        "n_sample_passes": saved.n_sample_passes,
        "n_passes": saved.n_passes,
        # JSON has no infinity.
        **{name: value if state.measured else None for name, value in reached.items()},
        "objective": told.key,
        "provenance": saved.provenance,
        "kept_sample": sample_told(saved.sample),
        "columns": None if names is None else [str(name) for name in names],
        "family": components.family,
        "structure": components.structure,
        "means": _means(found, components).tolist(),
        **components_told(found["weights_"], state, components),
        "history": saved.history,
    }


def _means(found: Mapping[str, Array], components: FamilyDescription) -> Array:
    """Return the means of all columns, (k, d): as the file has them, where it has all."""
    means = found.get("means_")
    d = len(components.columns)
    return components.means if means is None or means.shape[1] != d else means
