"""The job that writes predictions of a saved model for every row of the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ..backends import backend_in_force
from ..core.protocols import StoredSource
from ..core.scoring import Answer, RowAnswers
from ..core.tuning import tuning
from ..data.columns import check_columns
from ..data.open import noise_beside, stored_source
from ..errors import DataError, UsageError
from ..estimators.answers import log_unanswered
from ..fitting.observers import ObservedPass
from ..fitting.progress import reporter
from ..storage.arrow import require_pyarrow
from ..storage.outputs.grid_answers import GridFormat
from ..storage.outputs.parquet_answers import ParquetFormat
from ..storage.outputs.predictions import AnswerFormat, Answers, WritePredictions, Written
from ..storage.outputs.resumable import resumable_group
from ..storage.outputs.staging import check_output
from ..storage.outputs.zarr_answers import ZarrFormat
from ..storage.urls import describe_url, is_url
from ..version import __version__
from .arguments import check_apart, check_data, check_model, check_noise_path, check_not_within
from .cluster import ClusterOptions, workers_for
from .files import ModelChoices, file_sha256, load_to_read

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator

logger = logging.getLogger("dask_em")

# How the name of a folder of tables ends.
TABLE = ".parquet"

Kinds = dict[str, tuple[int | None, Any]]
"""Of each answer its columns, None for one number a row, and its type."""


def predict(
    model_path: str,
    data: str,
    destination: str,
    cluster: ClusterOptions,
    answers: Sequence[Answer] = ("labels",),
    overwrite: bool = False,
    resume: bool = True,
    keep: Sequence[str] = (),
    noise_covariance: str | None = None,
    pvalues: bool = False,
    mahalanobis: bool = False,
    label_type: str = "int64",
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Write predictions for every row of `data` to a new Zarr group, all in one pass.

    A destination that ends in .parquet becomes a folder of Parquet, a file for each range of
    chunks, in which the columns of `data` that are to be kept stand before the answers.

    What an interrupted call left is finished by the next one of the same model, data
    and answers, with the same bytes as if it had not been interrupted; `resume=False`
    throws it away. Beside `answers`, p-values of outliers and Mahalanobis distances are arrays
    of their names. Data are read as those of the fit, unless the options say otherwise; rows
    that are left out have the label -1, and NaN for all else. Chunks of arrays hold as many rows
    as those of the data, see `answer_rows`. `noise_covariance` is that of `predict` in Python, and
    `label_type` its `dtype`.
    """
    check_noise_path(noise_covariance)
    model, source = opened(model_path, data, destination, overwrite, keep, **reading)
    try:
        model.check_labels(label_type)
    except ValueError as e:
        # In the words of a shell, which alone calls this.
        raise UsageError("--" + str(e)) from None
    # scikit-learn, behind it, takes longer to import than all that was refused until here.
    from ..estimators.normal_questions import answers_of

    noisy = noise_covariance is not None
    if noisy:
        source = noise_beside(source, data, noise_covariance, model.read_options)
    rows = source.dtype, source.n_rows
    predictor = answers_of(model, answers, pvalues, mahalanobis, *rows, noisy, label_type)
    kinds: Kinds = {a: (predictor.width(a), predictor.dtype(a)) for a in predictor.answers}
    identity = identity_of(model_path, source, predictor, model)
    to = Destination(destination, kinds, keep, overwrite, resume)
    drop = model.read_options.nonfinite == "drop"
    return write_answers(source, predictor, to, identity, cluster, "predict", drop)


def opened(
    model_path: str,
    data: str,
    destination: str,
    overwrite: bool,
    keep: Sequence[str],
    **reading: Unpack[ModelChoices],
) -> tuple[MixtureEstimator, StoredSource]:
    """Check where answers are wanted; return the model, and the rows as it reads them."""
    order = "MODEL DATA DEST"
    check_output(destination, overwrite)
    check_model(model_path, order)
    check_data(data, order=order)
    check_apart(destination, model_path, "model")
    check_apart(destination, data, "data")
    check_not_within(destination, data)
    if keep and not is_table(destination):
        raise UsageError(
            f"--keep {','.join(keep)}: columns are kept in tables; give "
            f"{describe_url(destination)} a name that ends in {TABLE}"
        )
    if is_table(destination):
        require_pyarrow()
    model = load_to_read(model_path, **reading)
    source = stored_source(data, options=model.read_options)
    check_columns(source.description, source.n_features, model.n_features_in_)
    return model, source if is_table(destination) else source.even()


def is_table(destination: str) -> bool:
    """Tell whether answers become a folder of Parquet.

    Examples
    --------
    >>> is_table("answers.parquet/"), is_table("answers.zarr")
    (True, False)
    """
    return destination.rstrip("/").endswith(TABLE)


@dataclass(frozen=True)
class Destination:
    """Hold where answers go, and what they are.

    Attributes
    ----------
    path : str
    kinds : mapping of str to (columns or None, dtype)
    keep : sequence of str
        Columns of the data that stand beside them in a table.
    overwrite, resume : bool
        Whether what is there may be replaced, and what is unfinished is gone on with.
    """

    path: str
    kinds: Kinds
    keep: Sequence[str] = ()
    overwrite: bool = False
    resume: bool = True


def write_answers(
    source: StoredSource,
    answer: RowAnswers,
    to: Destination,
    identity: dict[str, Any],
    cluster: ClusterOptions,
    phase: str,
    drop: bool,
) -> dict[str, Any]:
    """Write answers for every row, all in one pass, or those that an earlier call left.

    Parameters
    ----------
    source : StoredSource
    answer : RowAnswers
    to : Destination
    identity : dict
        All that the bytes of the answers depend on, but for the data's contents.
    cluster : ClusterOptions
    phase : str
        The name of the pass, for whoever watches.
    drop : bool
        Whether rows may have no answer.
    """
    destination, keep = to.path, to.keep
    form = _format(source, to.kinds, destination, keep)
    identity = identity | ({"keep": list(keep)} if keep else {})
    stamps = source.stamps()
    if not all(stamps.values()):
        logger.info(
            "%s does not tell whether its chunks change: what an interrupted call leaves is "
            "computed again, and nobody sees who writes there meanwhile",
            source.description,
        )
    path = destination if is_url(destination) else Path(destination).absolute()
    made = Written(0, 0)
    with resumable_group(path, identity, stamps, form, to.overwrite, to.resume) as unfinished:
        # Where rows of NaN or infinity are an error now, those left out before are one, too.
        whole = {c: n for c, n in unfinished.whole().items() if drop or not n}
        if whole:
            logger.info("resuming: %d of %d regions are whole", len(whole), len(stamps))
        work = WritePredictions(
            answer, source.bounds, unfinished.answers, unfinished.regions, answer.no_label
        )
        if len(whole) < len(stamps):
            made = _write(source.skipping([*whole]), work, cluster, phase)
        _check_untouched_since(stamps, source)
    n_dropped = made.n_dropped + sum(whole.values())
    if n_dropped:
        log_unanswered(n_dropped, source.n_rows, answer.no_label)
    return {
        "destination": destination,
        "arrays": list(to.kinds),
        "written": (
            [destination] if is_table(destination) else [f"{destination}/{n}" for n in to.kinds]
        ),
        "n_rows": source.n_rows,
        "n_rows_kept": source.n_rows - made.n_rows,
        "n_dropped": n_dropped,
    }


def _format(
    source: StoredSource, kinds: Kinds, destination: str, keep: Sequence[str]
) -> AnswerFormat[Answers]:
    """Return how answers are written: as a table, in the shape of a grid, or as plain arrays."""
    as_table, grid = is_table(destination), source.grid
    if grid is not None and as_table:
        raise UsageError(
            f"{describe_url(destination)}: answers of a grid are written in its shape; give a "
            "name that ends in .zarr"
        )
    if grid is not None:
        return GridFormat(grid, kinds, source.coordinates())
    if as_table:
        return ParquetFormat(kinds, source.ranges(), source.carried(keep) if keep else None)
    rows = answer_rows(source)
    return ZarrFormat(source.n_rows, rows, kinds, source.chunk_rows // rows)


def answer_rows(source: StoredSource) -> int:
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
    rows = source.stored_rows
    read_together = source.chunk_rows // rows
    chunk_bytes = max(1, rows * source.n_features * source.dtype.itemsize)
    few, least = tuning().reading.few_chunks, tuning().reading.chunk_bytes
    wanted = min(-(-source.n_rows // (rows * few)), -(-least // chunk_bytes))
    fitting = (m for m in range(1, read_together + 1) if read_together % m == 0 and m >= wanted)
    return rows * next(fitting, read_together)


def _write(
    source: StoredSource, work: WritePredictions, cluster: ClusterOptions, phase: str
) -> Written:
    """Write what is left, on the cluster; return what that was."""
    with (
        workers_for(cluster, source.nbytes),
        ObservedPass([reporter()], phase, 1, source.n_rows, source.nbytes) as running,
    ):
        return backend_in_force().map_reduce(source, work, running.advance)


def identity_of(
    model_path: str, source: StoredSource, predictor: RowAnswers, model: MixtureEstimator
) -> dict[str, Any]:
    """Collect all that the bytes of the answers depend on, but for the data's contents."""
    return {
        "dask_em": __version__,
        "model_sha256": file_sha256(model_path),
        "data": source.description,
        "shape": [*(source.grid.shape if source.grid else (source.n_rows,)), source.n_features],
        "dtype": str(source.dtype),
        "decoding": source.decoding,
        "chunk_rows": source.chunk_rows,
        **source.beside.identity(),
        "answers": list(predictor.answers),
        **({"label_type": str(predictor.dtype("labels"))} if "labels" in predictor.answers else {}),
        "engine": predictor.mixture.engine.name,
        "missing_chunks": model.read_options.missing_chunks,
        "missing_values": any(predictor.mixture.components.support.missing),
    }


def _check_untouched_since(stamps: Mapping[range, str], source: StoredSource) -> None:
    """Raise where rows have other stamps than before they were read, so that data are not mixed."""
    now = source.stamps()
    changed = [chunks for chunks, stamp in stamps.items() if stamp != now[chunks]]
    if changed:
        first, rows = changed[0], source.bounds
        more = f", and {len(changed) - 1} more of {len(stamps)} regions," if changed[1:] else ""
        raise DataError(
            f"rows {rows[first.start]} to {rows[first.stop] - 1} of {source.description}{more} "
            "were written while their predictions were made, so some may be of the rows before: "
            "run the same command again when nobody writes there, and it computes these anew"
        )
