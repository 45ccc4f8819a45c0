"""The job that writes predictions of a saved model for every row of the data."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends import backend_in_force
from ..core.scoring import Answer, Predict, answer_dtype
from ..data.columns import check_columns
from ..data.open import stored_source
from ..estimators.load import load
from ..fitting.observers import ObservedPass, reporter
from ..storage.outputs.files import check_folder
from ..storage.outputs.predictions import WritePredictions, create_outputs, source_stamp
from ..storage.outputs.resumable import resumable_group
from ..storage.outputs.staging import check_untouched
from ..storage.urls import is_url
from ..version import __version__
from .arguments import check_data, check_model
from .cluster import ClusterOptions, cluster_client
from .files import file_sha256

if TYPE_CHECKING:
    from ..data.zarr.source import ZarrSource

logger = logging.getLogger("dask_em")


def predict(
    model_path: str,
    data: str,
    destination: str,
    cluster: ClusterOptions,
    answers: Sequence[Answer] = ("labels",),
    overwrite: bool = False,
    resume: bool = True,
) -> dict[str, Any]:
    """Write predictions for every row of `data` to a new Zarr group, all in one pass.

    What an interrupted call left is finished by the next one of the same model, data
    and answers, with the same bytes as if it had not been interrupted; `resume=False`
    throws it away.
    """
    order = "MODEL DATA DEST"
    check_folder(destination)
    check_model(model_path, order)
    check_data(data, order=order)
    check_untouched(destination, overwrite)
    model = load(model_path)
    source = stored_source(data, options=model.read_options)
    check_columns(source.description, source.n_features, model.n_features_in_)
    predictor = model.predictor(answers)
    kinds: dict[str, tuple[int | None, Any]] = {
        a: (model.n_components if a == "proba" else None, answer_dtype(a)) for a in answers
    }
    create = partial(
        create_outputs, n_rows=source.n_rows, chunk_rows=source.chunk_rows, kinds=kinds
    )
    identity, stamps = _identity(model_path, source, predictor), _stamps(source)
    path = destination if is_url(destination) else Path(destination).absolute()
    n_rows = 0
    with resumable_group(path, identity, stamps, create, overwrite, resume) as unfinished:
        whole = unfinished.whole()
        if whole:
            logger.info("resuming: %d of %d regions are whole", len(whole), len(stamps))
        work = WritePredictions(predictor, source.bounds, unfinished.outputs, unfinished.regions)
        if len(whole) < len(stamps):
            n_rows = _write(source.skipping(whole), work, cluster)
    return {
        "destination": destination,
        "arrays": list(kinds),
        "n_rows": source.n_rows,
        "n_rows_kept": source.n_rows - n_rows,
    }


def _write(source: ZarrSource, work: WritePredictions, cluster: ClusterOptions) -> int:
    """Write what is left, on the cluster; return the number of its rows."""
    with (
        cluster_client(cluster),
        ObservedPass([reporter()], "predict", 1, source.n_rows, source.nbytes) as running,
    ):
        return backend_in_force().map_reduce(source, work, running.advance).n_rows


def _identity(model_path: str, source: ZarrSource, predictor: Predict) -> dict[str, Any]:
    """Collect all that the bytes of the predictions depend on, but for the data's contents."""
    return {
        "dask_em": __version__,
        "model_sha256": file_sha256(model_path),
        "data": source.description,
        "shape": [source.n_rows, source.n_features],
        "dtype": str(source.dtype),
        "chunk_rows": source.chunk_rows,
        "answers": list(predictor.answers),
        "engine": predictor.mixture.engine.name,
    }


def _stamps(source: ZarrSource) -> dict[range, str]:
    """Compute the stamp of each range of chunks."""
    bounds = source.bounds
    return {
        chunks: source_stamp(source.array, int(bounds[chunks.start]), int(bounds[chunks.stop]))
        for chunks in source.ranges()
    }
