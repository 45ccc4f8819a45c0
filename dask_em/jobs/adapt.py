"""The job that adapts the means of a saved model to other data, and writes the new model."""

from __future__ import annotations

from typing import Any, Unpack

from ..data.open import names_column, stored_source
from ..errors import UsageError
from ..fitting.progress import reporter
from ..storage.outputs.writer import check_output_file, output_file
from .arguments import check_apart, check_data, check_model
from .cluster import ClusterOptions, workers_for
from .files import ModelChoices, load_to_read


def adapt(
    model_path: str,
    data: str,
    output: str,
    cluster: ClusterOptions,
    relevance: float = 16.0,
    n_iter: int = 1,
    weights: str | None = None,
    overwrite: bool = False,
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Adapt the means of a saved model to the rows at `data`; save the new model to `output`.

    Data are read as those of the fit, unless the options say otherwise.

    Raises
    ------
    UsageError
        The model is of another family, or an option is not one of those allowed.
    OutputExistsError
        Something is there that may not be replaced.
    """
    check_output_file(output, overwrite)
    check_model(model_path, "MODEL DATA")
    check_data(data, order="MODEL DATA")
    check_apart(output, model_path, "model")
    check_apart(output, data, "data")
    if weights is not None and not names_column(weights):
        check_data(weights, "--weights")
    # scikit-learn, behind it, takes longer to import than all that was refused until here.
    from ..estimators.adapt import adapt as adapted
    from ..estimators.adapt import check_adaptable
    from ..fitting.adaptation import adaptation_coefficients

    model = load_to_read(model_path, **reading)
    try:
        check_adaptable(model, relevance, n_iter)
    except ValueError as e:
        raise UsageError(str(e)) from e
    model.set_params(callbacks=[reporter()])
    with output_file(output, overwrite):
        source = stored_source(data, weights, model.read_options)
        with workers_for(cluster, source.nbytes):
            made = adapted(model, data, relevance, n_iter=n_iter, sample_weight=weights)
        made.set_params(callbacks=None)
        made.save(output, overwrite)
    known = made.provenance_
    resp_sum = made.state_.statistics.resp_sum
    return {
        "model": output,
        "n_rows": known["n_rows"] - known["n_dropped"],
        "n_dropped": known["n_dropped"],
        "weight": known["weight"],
        "relevance": relevance,
        "n_iter": n_iter,
        "log_likelihood": made.lower_bound_,
        "alpha": adaptation_coefficients(resp_sum, relevance).tolist(),
    }
