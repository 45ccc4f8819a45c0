"""The job that writes a page about a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from ..data.columns import check_columns
from ..data.open import stored_source
from ..estimators.describe import FittedMixture
from ..fitting.progress import reporter
from ..foreign import LONGEST, shell_words, shown
from ..report.drift import sample_rows
from ..report.evidence import Evidence, evidence_of
from ..report.page import check_can_draw, write_page
from ..storage.outputs.writer import check_output_file, output_file
from ..storage.urls import describe_url, is_url
from .arguments import check_apart, check_data, check_model
from .cluster import ClusterOptions, workers_for
from .files import ModelChoices, file_sha256, load_to_read


def report(
    model_path: str,
    output: str,
    cluster: ClusterOptions,
    data: str | None = None,
    n_rows: int = 5000,
    drift: bool = True,
    overwrite: bool = False,
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Write one HTML page about a saved model and the data at `data`.

    Without `data` no data are opened, and the page says what it lacks and which data the model's
    file names. `drift` takes one pass. Data are read as those of the fit, unless the options say
    otherwise.
    """
    check_output_file(output, overwrite)
    check_model(model_path, "MODEL REPORT.html")
    if data is not None:
        check_data(data, "--data")
    check_apart(output, model_path, "model")
    check_can_draw()
    model = load_to_read(model_path, **reading)
    with output_file(output, overwrite):
        evidence = _evidence(model_path, output, model, cluster, data, n_rows, drift)
        write_page(output, model, evidence, overwrite)
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
    output: str,
    model: FittedMixture,
    cluster: ClusterOptions,
    data: str | None,
    n_rows: int,
    drift: bool,
) -> Evidence:
    """Draw rows of the data, and compute the log-density of every chunk if `drift`."""
    place = describe_url(model_path) if is_url(model_path) else str(Path(model_path).absolute())
    origin = {"model file": place, "model sha256": file_sha256(model_path)}
    if data is None:
        return Evidence(origin=origin, missing=[_data_to_name(model_path, output, model)])
    source = stored_source(data, options=model.read_options)
    check_columns(source.description, source.n_features, model.n_features_in_)
    origin["rows from"] = source.description
    support = model.state_.result.components.support
    rows = sample_rows(source, n_rows, support=support)
    without = "The drift over chunks: run the report without --no-drift."
    workers = workers_for(cluster, source.nbytes)
    return evidence_of(model, source, rows, drift, without, origin, [reporter()], workers)


def _data_to_name(model_path: str, output: str, model: FittedMixture) -> str:
    """Say what a page without data lacks, and which data the model's file names.

    They are not opened: whoever wrote the file may have named any, on any machine.
    """
    known = model.provenance_
    named = str(known["source"])
    lacks = "Pictures of rows and the drift over chunks, for which no data were given."
    if not (named.startswith("/") or is_url(named)) or len(named) > LONGEST:
        return f"{lacks} Pass --data DATA."
    again = ["dask-em", "report", model_path, output, "--overwrite", "--data", named]
    return (
        f"{lacks} The file of the model names {shown(named)}: {known['n_rows']:,} x "
        f"{known['n_features']} {known['dtype']}. To read these: {shell_words(again)}"
    )
