"""The job that writes predictions of a saved model for every row of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ..backends import backend_in_force
from ..core.scoring import Answer, Predict
from ..core.tuning import tuning
from ..data.columns import check_columns
from ..data.open import stored_source
from ..data.options import ReadChoices
from ..errors import DataError
from ..estimators.answers import log_unanswered
from ..fitting.observers import ObservedPass, reporter
from ..storage.outputs.predictions import (
    WritePredictions,
    Written,
    create_outputs,
)
from ..storage.outputs.resumable import resumable_group
from ..storage.outputs.staging import check_output
from ..storage.outputs.stamps import source_stamps
from ..storage.urls import is_url
from ..version import __version__
from .arguments import check_apart, check_data, check_model
from .cluster import ClusterOptions, workers_for
from .files import file_sha256, load_to_read

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
    **reading: Unpack[ReadChoices],
) -> dict[str, Any]:
    """Write predictions for every row of `data` to a new Zarr group, all in one pass.

    What an interrupted call left is finished by the next one of the same model, data
    and answers, with the same bytes as if it had not been interrupted; `resume=False`
    throws it away. Data are read as those of the fit, unless the options say otherwise; rows
    that are left out have the label -1, and NaN for all else. Chunks hold as many rows as those
    of the data, see `answer_rows`.
    """
    order = "MODEL DATA DEST"
    check_output(destination, overwrite)
    check_model(model_path, order)
    check_data(data, order=order)
    check_apart(destination, model_path, "model")
    check_apart(destination, data, "data")
    model = load_to_read(model_path, **reading)
    source = stored_source(data, options=model.read_options)
    check_columns(source.description, source.n_features, model.n_features_in_)
    predictor = model.predictor(answers, source.dtype, source.n_rows)
    kinds: dict[str, tuple[int | None, Any]] = {
        a: (model.n_components if a == "proba" else None, predictor.dtype(a)) for a in answers
    }
    rows = answer_rows(source)
    create = partial(create_outputs, n_rows=source.n_rows, chunk_rows=rows, kinds=kinds)
    identity, stamps = _identity(model_path, source, predictor), _stamps(source)
    if not all(stamps.values()):
        logger.info(
            "%s does not tell whether its chunks change: what an interrupted call leaves is "
            "computed again, and nobody sees who writes there meanwhile",
            source.description,
        )
    path = destination if is_url(destination) else Path(destination).absolute()
    made = Written(0, 0)
    each = source.chunk_rows // rows
    with resumable_group(path, identity, stamps, create, overwrite, resume, each) as unfinished:
        # Where rows of NaN or infinity are an error now, those left out before are one, too.
        whole = {c: n for c, n in unfinished.whole().items() if predictor.drop or not n}
        if whole:
            logger.info("resuming: %d of %d regions are whole", len(whole), len(stamps))
        work = WritePredictions(predictor, source.bounds, unfinished.outputs, unfinished.regions)
        if len(whole) < len(stamps):
            made = _write(source.skipping([*whole]), work, cluster)
        _check_untouched_since(stamps, source)
    n_dropped = made.n_dropped + sum(whole.values())
    if n_dropped:
        log_unanswered(n_dropped, source.n_rows)
    return {
        "destination": destination,
        "arrays": list(kinds),
        "n_rows": source.n_rows,
        "n_rows_kept": source.n_rows - made.n_rows,
        "n_dropped": n_dropped,
    }


def answer_rows(source: ZarrSource) -> int:
    """Return the rows of a chunk of the answers: those of a chunk of the data.

    Where these are many and small, whole multiples, which divide what is read at once: a file
    takes longer to write than its rows to be read.

    Examples
    --------
    >>> import zarr
    >>> from dask_em.data.zarr.source import ZarrSource
    >>> answer_rows(ZarrSource(zarr.zeros((10**6, 4), chunks=(10**4, 4))))
    10000
    >>> answer_rows(ZarrSource(zarr.zeros((10**7, 4), chunks=(1024, 4))))
    16384
    """
    rows = int(source.array.chunks[0])
    read_together = source.chunk_rows // rows
    chunk_bytes = max(1, rows * source.n_features * source.dtype.itemsize)
    few, least = tuning().reading.few_chunks, tuning().reading.chunk_bytes
    wanted = min(-(-source.n_rows // (rows * few)), -(-least // chunk_bytes))
    fitting = (m for m in range(1, read_together + 1) if read_together % m == 0 and m >= wanted)
    return rows * next(fitting, read_together)


def _write(source: ZarrSource, work: WritePredictions, cluster: ClusterOptions) -> Written:
    """Write what is left, on the cluster; return what that was."""
    with (
        workers_for(cluster, source.nbytes),
        ObservedPass([reporter()], "predict", 1, source.n_rows, source.nbytes) as running,
    ):
        return backend_in_force().map_reduce(source, work, running.advance)


def _identity(model_path: str, source: ZarrSource, predictor: Predict) -> dict[str, Any]:
    """Collect all that the bytes of the predictions depend on, but for the data's contents."""
    return {
        "dask_em": __version__,
        "model_sha256": file_sha256(model_path),
        "data": source.description,
        "shape": [source.n_rows, source.n_features],
        "dtype": str(source.dtype),
        "decoding": source.decoding,
        "chunk_rows": source.chunk_rows,
        "answers": list(predictor.answers),
        "engine": predictor.mixture.engine.name,
        "missing_chunks": source.options.missing_chunks,
    }


def _stamps(source: ZarrSource) -> dict[range, str]:
    """Compute the stamp of each range of chunks."""
    return source_stamps(source.array, source.bounds, source.ranges())


def _check_untouched_since(stamps: Mapping[range, str], source: ZarrSource) -> None:
    """Raise where rows have other stamps than before they were read, so that data are not mixed."""
    now = _stamps(source)
    changed = [chunks for chunks, stamp in stamps.items() if stamp != now[chunks]]
    if changed:
        first, rows = changed[0], source.bounds
        more = f", and {len(changed) - 1} more of {len(stamps)} regions," if changed[1:] else ""
        raise DataError(
            f"rows {rows[first.start]} to {rows[first.stop] - 1} of {source.description}{more} "
            "were written while their predictions were made, so some may be of the rows before: "
            "run the same command again when nobody writes there, and it computes these anew"
        )
