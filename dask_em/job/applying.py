"""The jobs that apply a saved model to data: labels, scores, a report; and what is in it."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..backends.dask import DaskBackend
from ..callbacks import Pass, reporter
from ..datachecks import check_columns
from ..errors import UsageError
from ..estimators import GaussianMixture, load
from ..mixture import Answer, Predict, answer_dtype
from ..opening import stored_source
from ..sinks import WriteAnswers, create_outputs, source_stamp
from ..sources import ZarrSource, ranges
from ..statistics import Array
from ..stores import LARGEST_MODEL, describe_url, is_url, read_bytes
from ..unfinished import check_folder, resumable
from .cluster import Where, connected

logger = logging.getLogger("dask_em")


@dataclass(frozen=True)
class UnansweredChunks(ZarrSource):
    """A Zarr array of which the chunks that are answered already read as no rows.

    Chunks keep their numbers and their ranges, so what is left is computed as if
    nobody had stopped.
    """

    answered: Sequence[range] = ()

    def reader(self) -> Callable[[int], tuple[Array, Array | None]]:
        read = super().reader()
        nothing = np.empty((0, self.n_features), dtype=self.dtype)

        def read_unanswered(chunk: int) -> tuple[Array, Array | None]:
            if any(chunk in chunks for chunks in self.answered):
                return nothing, None
            return read(chunk)

        return read_unanswered


def predict(
    model_path: str,
    data: str,
    destination: str,
    where: Where,
    answers: Sequence[Answer] = ("labels",),
    overwrite: bool = False,
    resume: bool = True,
) -> dict[str, Any]:
    """Write answers for every row of `data` to a new Zarr group, one pass for all of them.

    What an interrupted call left is finished by the next one of the same model, data
    and answers, with the same bytes as if it had not been interrupted; `resume=False`
    throws it away.
    """
    check_folder(destination)
    model = load(model_path)
    source = stored_source(data, missing=model.missing)
    check_columns(source.description, source.n_features, model.n_features_in_)
    kinds: dict[str, tuple[int | None, Any]] = {
        a: (model.n_components if a == "proba" else None, answer_dtype(a)) for a in answers
    }
    create = partial(
        create_outputs, n_rows=source.n_rows, chunk_rows=source.chunk_rows, kinds=kinds
    )
    predictor = model.predictor(answers)
    identity = _identity(model_path, source, predictor)
    stamps = _stamps(source)
    path = destination if is_url(destination) else Path(destination).absolute()
    n_rows = 0
    with resumable(path, identity, stamps, create, overwrite, resume) as unfinished:
        whole = unfinished.whole()
        if whole:
            logger.info("resuming: %d of %d regions are whole", len(whole), len(stamps))
        work = WriteAnswers(predictor, source.bounds, unfinished.outputs, unfinished.regions)
        if len(whole) < len(stamps):
            known = {f.name: getattr(source, f.name) for f in fields(source)}
            left = UnansweredChunks(**known, answered=whole)
            n_rows = _write(left, work, where)
    return {
        "destination": destination,
        "arrays": list(kinds),
        "n_rows": source.n_rows,
        "n_rows_kept": source.n_rows - n_rows,
    }


def _write(source: ZarrSource, work: WriteAnswers, where: Where) -> int:
    """Answer what is left on the cluster; return how many rows that was."""
    with (
        connected(where),
        Pass([reporter()], "predict", 1, source.n_rows, source.nbytes) as running,
    ):
        return DaskBackend().map_reduce(source, work, running.advance).n_rows


def _identity(model_path: str, source: ZarrSource, predictor: Predict) -> dict[str, Any]:
    """Everything that the bytes of the answers depend on, but for the data's contents."""
    return {
        "dask_em": __version__,
        "model_sha256": _sha256(model_path),
        "data": source.description,
        "shape": [source.n_rows, source.n_features],
        "dtype": str(source.dtype),
        "chunk_rows": source.chunk_rows,
        "answers": list(predictor.answers),
        "engine": predictor.mixture.engine.name,
    }


def _sha256(path: str) -> str:
    data = read_bytes(path, LARGEST_MODEL) if is_url(path) else Path(path).read_bytes()
    return hashlib.sha256(data).hexdigest()


def _stamps(source: ZarrSource) -> dict[range, str]:
    """Each range of chunks and what its files look like."""
    bounds = source.bounds
    return {
        chunks: source_stamp(source.array, int(bounds[chunks.start]), int(bounds[chunks.stop]))
        for chunks in ranges(source)
    }


def score(model_path: str, data: str, where: Where) -> dict[str, float]:
    """Mean log-likelihood per row, AIC, BIC and ICL of a saved model, in one pass."""
    model = load(model_path)
    model.set_params(callbacks=[reporter()])
    stored_source(data)
    with connected(where):
        return model.criteria(data)


def inspect(model_path: str) -> dict[str, Any]:
    """What is in a model file and where it came from."""
    model = load(model_path)
    return {
        "options": {
            name: value
            for name, value in model.get_params().items()
            if isinstance(value, str | int | float | bool | None)
        },
        "status": model.status_.name,
        "what": model.status_.value,
        "n_iter": model.n_iter_,
        "n_passes": model.n_passes_,
        "log_likelihood": model.lower_bound_,
        "provenance": model.provenance_,
        "weights": model.weights_.tolist(),
        "means": model.means_.tolist(),
        "history": model.history_,
    }


def report(
    model_path: str,
    output: str,
    where: Where,
    data: str | None = None,
    n_rows: int = 5000,
    drift: bool = True,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write one HTML page about a saved model and the data at `data`.

    Without `data` the model's own are used, if they are still where they were and have
    the same shape and type; else the page says what it lacks. `drift` takes one pass.
    """
    from ..evidence import Evidence, chunk_densities, sample_rows
    from ..report import check_output
    from ..report import write_report as write

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
            with connected(where):
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
