"""The job that writes a page about a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.columns import check_columns
from ..data.open import stored_source
from ..data.options import MissingChunks, NonFinite
from ..estimators.describe import FittedMixture
from ..fitting.observers import reporter
from ..report.drift import Evidence, chunk_densities, sample_rows
from ..report.page import check_can_draw, write_report
from ..storage.outputs.writer import check_output_file, output_file
from ..storage.urls import describe_url, is_url
from .arguments import check_apart, check_data, check_model
from .cluster import ClusterOptions, workers_for
from .files import file_sha256, load_to_read

if TYPE_CHECKING:
    from ..data.zarr.source import ZarrSource


def report(
    model_path: str,
    output: str,
    cluster: ClusterOptions,
    data: str | None = None,
    n_rows: int = 5000,
    drift: bool = True,
    overwrite: bool = False,
    missing_chunks: MissingChunks | None = None,
    nonfinite: NonFinite | None = None,
) -> dict[str, Any]:
    """Write one HTML page about a saved model and the data at `data`.

    Without `data` the model's own are used, if they are still where they were and have
    the same shape and type; else the page says what it lacks. `drift` takes one pass. Data are
    read as those of the fit, unless the options say otherwise.
    """
    check_output_file(output, overwrite)
    check_model(model_path, "MODEL REPORT.html")
    if data is not None:
        check_data(data, "--data")
    check_apart(output, model_path, "model")
    check_can_draw()
    model = load_to_read(model_path, missing_chunks, nonfinite)
    with output_file(output, overwrite):
        evidence = _evidence(model_path, model, cluster, data, n_rows, drift)
        write_report(output, model, evidence, overwrite)
    rows, densities = evidence.rows, evidence.densities
    return {
        "report": output,
        "n_rows_drawn": 0 if rows is None else len(rows),
        "n_chunks": 0 if densities is None else len(densities.means),
        "n_dropped": None if densities is None else int(densities.n_dropped.sum()),
        "missing": evidence.missing,
    }


def _evidence(
    model_path: str,
    model: FittedMixture,
    cluster: ClusterOptions,
    data: str | None,
    n_rows: int,
    drift: bool,
) -> Evidence:
    """Draw rows of the data, and compute the log-density of every chunk if `drift`."""
    source, reason = (
        _own_data(model) if data is None else (stored_source(data, options=model.read_options), "")
    )
    missing = [reason] if reason else []
    rows = densities = None
    place = describe_url(model_path) if is_url(model_path) else str(Path(model_path).absolute())
    origin = {"model file": place, "model sha256": file_sha256(model_path)}
    if source is not None:
        check_columns(source.description, source.n_features, model.n_features_in_)
        origin["rows from"] = source.description
        rows = sample_rows(source, n_rows)
        if drift:
            with workers_for(cluster, source.nbytes):
                densities = chunk_densities(model, source.array, [reporter()])
            if n := int(densities.n_dropped.sum()):
                missing.append(
                    f"{n:,} rows that hold NaN or infinity: no picture and no density has them."
                )
        else:
            missing.append("The drift over chunks: run the report without --no-drift.")
    return Evidence(rows, densities, origin, missing)


def _own_data(model: FittedMixture) -> tuple[ZarrSource | None, str]:
    """Open the data that a model was fitted to, or say why they cannot be opened."""
    known = model.provenance_
    fix = "Pass --data DATA for pictures of rows and the drift over chunks."
    try:
        source = stored_source(known["source"], options=model.read_options)
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
