"""TODO jobs.report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..data.columns import check_columns
from ..data.open import stored_source
from ..data.zarr.source import ZarrSource
from ..errors import UsageError
from ..estimators.gaussian import GaussianMixture
from ..estimators.load import load
from ..fitting.observers import reporter
from ..storage.outputs.files import check_folder
from ..storage.urls import describe_url, is_url
from .cluster import ClusterOptions, cluster_client
from .files import _sha256


def report(
    model_path: str,
    output: str,
    cluster: ClusterOptions,
    data: str | None = None,
    n_rows: int = 5000,
    drift: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write one HTML page about a saved model and the data at `data`.

    Without `data` the model's own are used, if they are still where they were and have
    the same shape and type; else the page says what it lacks. `drift` takes one pass.
    """
    from ..report.drift import Evidence, chunk_densities, sample_rows
    from ..report.page import check_output
    from ..report.page import write_report as write

    check_output(output, overwrite)
    check_folder(output)
    model = load(model_path)
    stored = is_url(model_path)
    if not stored and os.path.exists(output) and Path(output).samefile(model_path):
        raise UsageError(f"{output} is the model itself; choose another name for the page")
    source, reason = (stored_source(data), "") if data is not None else _own_data(model)
    missing = [reason] if reason else []
    rows = densities = None
    origin = {
        "model file": describe_url(model_path) if stored else str(Path(model_path).absolute()),
        "model sha256": _sha256(model_path),
    }
    if source is not None:
        check_columns(source.description, source.n_features, model.n_features_in_)
        origin["rows from"] = source.description
        rows = sample_rows(source, n_rows)
        if drift:
            with cluster_client(cluster):
                densities = chunk_densities(model, source.array, [reporter()])
        else:
            missing.append("The drift over chunks: run the report without --no-drift.")
    write(output, model, Evidence(rows, densities, origin, missing), overwrite)
    return {
        "report": output,
        "n_rows_drawn": 0 if rows is None else len(rows),
        "n_chunks": 0 if densities is None else len(densities.means),
        "missing": missing,
    }


def _own_data(model: GaussianMixture) -> tuple[ZarrSource | None, str]:
    """The data that a model was fitted to, or why they cannot be had."""
    known: dict[str, Any] = model.provenance_
    fix = "Pass --data DATA for pictures of rows and the drift over chunks."
    try:
        source = stored_source(known["source"])
    except Exception as e:
        # Stores fail in ways of their own, and the page can do without.
        return None, f"The data that the model was fitted to cannot be opened: {e}. {fix}"
    found = (source.n_rows, source.n_features, str(source.dtype))
    fitted = (known["n_rows"], known["n_features"], known["dtype"])
    if found != fitted:
        return None, (
            f"{known['source']} has changed: it is {found[0]:,} x {found[1]} {found[2]}, and the "
            f"model was fitted to {fitted[0]:,} x {fitted[1]} {fitted[2]}. {fix}"
        )
    return source, ""
