"""The job that compares two saved models, and what they say of data."""

from __future__ import annotations

from typing import Any, Unpack

from ..data.open import names_column, stored_source
from ..errors import UsageError
from ..estimators.describe import FittedMixture
from ..fitting.progress import reporter
from .arguments import check_data, check_model
from .cluster import ClusterOptions, workers_for
from .files import ModelChoices, load_to_read


def compare(
    first: str,
    second: str,
    cluster: ClusterOptions,
    data: str | None = None,
    weights: str | None = None,
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Compare two saved models; the rows at `data`, if they are given, take one pass.

    Data are read as those of the first model's fit, unless the options say otherwise.

    Raises
    ------
    UsageError
        There are weights without data, or the columns of the models differ and rows were given.
    """
    for path in (first, second):
        check_model(path, "A B")
    if data is not None:
        check_data(data, "--data")
    elif weights is not None:
        raise UsageError("--weights are of rows: pass --data DATA too")
    if weights is not None and not names_column(weights):
        check_data(weights, "--weights")
    # scikit-learn, behind it, takes longer to import than all that was refused until here.
    from ..estimators.compare import compare as compared

    a, b = (load_to_read(path, **reading) for path in (first, second))
    if data is None:
        found = compared(a, b)
    else:
        a.set_params(callbacks=[reporter()])
        source = stored_source(data, weights, a.read_options)
        with workers_for(cluster, source.nbytes):
            found = compared(a, b, data, sample_weight=weights)
    return {"models": [_model_told(first, a), _model_told(second, b)], **found.as_dict()}


def _model_told(path: str, model: FittedMixture) -> dict[str, Any]:
    components, known = model.describe(), model.provenance_
    return {
        "model": path,
        "family": components.family,
        "structure": components.structure,
        "n_components": model.n_components,
        "columns": list(components.columns),
        "data": {name: known[name] for name in ("source", "n_rows", "n_features", "fingerprint")},
    }
