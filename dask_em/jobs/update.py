"""The job that lets new rows join a saved model, and replaces it."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any, Unpack

from ..data.open import names_column, stored_source
from ..errors import UsageError
from ..fitting.half_life import HalfLife
from ..fitting.observers import Totals
from ..fitting.progress import reporter
from ..storage.checkpoint import Checkpointing, checkpoint_exists, remove_checkpoint
from ..storage.outputs.files import remove_unfinished
from ..storage.outputs.writer import check_output_file
from ..storage.urls import is_url
from .arguments import check_apart, check_data, check_model
from .cluster import ClusterOptions, workers_for
from .commit import beside, noting_what_is_kept, outputs_locked
from .components import sample_told
from .files import ModelChoices, load_to_read

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator

logger = logging.getLogger("dask_em")

# Of the hidden folder beside a model in which an unfinished update is kept.
SUFFIX = "update.checkpoint"


def update(
    model_path: str,
    data: str,
    cluster: ClusterOptions,
    output: str | None = None,
    forget: str | None = None,
    max_iter: int = 10,
    exact: bool = False,
    weights: str | None = None,
    overwrite: bool = False,
    checkpoint: Checkpointing | None = None,
    metrics: str | None = None,
    keep_sample: int | None = None,
    **reading: Unpack[ModelChoices],
) -> dict[str, Any]:
    """Let the new rows at `data` join a saved model; replace it, or write `output`.

    Data are read as those of the fit, unless the options say otherwise. With a checkpoint, a job
    that was killed goes on; when the model is written it is removed.

    Raises
    ------
    UsageError
        The model has no sums that others may join, or an option is not one of those allowed.
    DataError
        The rows cannot be used, or those that the model has read are others now.
    OutputExistsError
        Something is at `output` that may not be replaced.
    """
    written = model_path if output is None else output
    overwrite = overwrite or output is None
    _check_paths(model_path, data, written, overwrite, weights, metrics)
    try:
        HalfLife.of(forget, exact)
    except ValueError as e:
        raise UsageError(str(e)) from e
    # scikit-learn, behind it, takes longer to import than all that was refused until here.
    from ..estimators.update import bytes_to_read, check_updatable, size_to_keep
    from ..estimators.update import update as join

    totals = Totals(metrics)
    with outputs_locked(written, metrics, checkpoint):
        # Nobody else writes it from here on.
        model = load_to_read(model_path, **reading)
        check_updatable(model, exact)
        size_to_keep(model, keep_sample, exact)
        if not is_url(written):
            remove_unfinished(written)
        source = stored_source(data, weights, model.read_options)
        nbytes = source.nbytes if exact else bytes_to_read(model, source)
        model.set_params(callbacks=[reporter(), totals])
        joined = False
        if nbytes:
            if not exact:
                _throw_outgrown_away(
                    model, data, weights, forget, max_iter, checkpoint, keep_sample
                )
            with noting_what_is_kept(checkpoint), workers_for(cluster, nbytes):
                joined = join(
                    model, data, weights, forget, max_iter, exact, checkpoint, keep_sample
                )
        if joined:
            model.set_params(callbacks=None)
            model.save(written, overwrite)
        _clean_up(written, checkpoint, joined)
    return _told(model, written if joined else model_path, joined)


def _told(model: MixtureEstimator, path: str, joined: bool) -> dict[str, Any]:
    """Return what is told of an updated model, or of one that nothing new has joined."""
    generations = model.provenance_.get("generations", ())
    return {
        "model": path,
        "new": joined,
        "generation": generations[-1] if generations else None,
        "status": model.status_.name,
        "n_iter": model.n_iter_,
        "n_rows": model.provenance_["n_rows"] - model.n_dropped_,
        "kept_sample": sample_told(model.kept_sample_),
        "weights": model.fitted_array("weights_").tolist(),
        "warnings": model.warnings_,
    }


def _check_paths(
    model_path: str,
    data: str,
    written: str,
    overwrite: bool,
    weights: str | None,
    metrics: str | None,
) -> None:
    """Check all that is named before anything is imported that takes long."""
    if written != model_path:
        check_output_file(written, overwrite)
    check_model(model_path, "MODEL DATA")
    check_output_file(written, overwrite)
    check_data(data, order="MODEL DATA")
    check_apart(written, data, "data")
    if weights is not None and not names_column(weights):
        check_data(weights, "--weights")
    if metrics is not None:
        check_output_file(metrics, overwrite=True)
        check_apart(metrics, written, "model")


def _throw_outgrown_away(
    model: MixtureEstimator,
    data: str,
    weights: str | None,
    forget: str | None,
    max_iter: int,
    checkpoint: Checkpointing | None,
    keep_sample: int | None,
) -> None:
    """Remove an unfinished update of a store that has grown since: nobody need be asked."""
    if checkpoint is None or not checkpoint.resume or not checkpoint_exists(checkpoint.path):
        return
    from ..estimators.update import is_outgrown

    if is_outgrown(model, data, weights, forget, max_iter, checkpoint, keep_sample):
        logger.info("an unfinished update of other rows is thrown away: there are more by now")
        remove_checkpoint(checkpoint.path)


def _clean_up(written: str, checkpoint: Checkpointing | None, joined: bool) -> None:
    """Remove what was kept of this update, or of one that was killed when all was written."""
    if checkpoint is None or not checkpoint_exists(checkpoint.path):
        return
    if joined or os.fspath(checkpoint.path) == beside(written, SUFFIX):
        remove_checkpoint(checkpoint.path)
