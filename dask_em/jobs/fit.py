"""The jobs that fit a mixture, or many and choose one, and leave a model."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.em import Status
from ..data.open import stored_source
from ..data.zarr.source import ZarrSource
from ..errors import DataError, ModelFileError, OutOfTimeError, StoppedError, UsageError
from ..estimators.gaussian import GaussianMixture
from ..estimators.load import load
from ..estimators.select import Selection, Sweeping
from ..fitting.observers import Totals, reporter
from ..runtime import current_job
from ..storage.checkpoint import Checkpoint, Checkpointing, is_kept, remove_checkpoint
from ..storage.folders import folder_at
from ..storage.locks import Lock, locked
from ..storage.outputs.files import check_folder, remove_unfinished
from ..storage.outputs.staging import check_free
from ..storage.urls import describe_url, is_url, split_url
from .cluster import Where
from .plan import Plan, checked, count, fleet_of, mebibytes


def fit(
    data: str,
    output: str,
    where: Where,
    options: dict[str, Any],
    weights: str | None = None,
    overwrite: bool = False,
    checkpoint: Checkpointing | None = None,
    metrics: str | None = None,
) -> GaussianMixture:
    """Fit a mixture to the Zarr array at `data` and save it to `output`.

    With a checkpoint, one that was killed goes on; when the model is written it is removed.

    Raises
    ------
    OutputExistsError
        `output` is there, and is not of this very fit.
    OutOfTimeError
        `max_time` seconds were over. The best so far is in `output`, if a pass was made.
    """
    check_folder(output)
    check_folder(metrics or output)
    totals = Totals(metrics)
    model = GaussianMixture(**options, checkpoint=checkpoint, callbacks=[reporter(), totals])
    with _wrong_usage():
        model._check_options()
    with _in_time(options), _alone(output, checkpoint) as lock:
        ending = Ending(lock, checkpoint, overwrite)
        if ending.reached([output], partial(model.unfinished, data, weights)):
            return load(output)
        source = _dropping(stored_source(data, weights), options)
        needed = partial(count, source, fleet_of(model.n_components, model.covariance_type))
        with _telling_what_is_kept(checkpoint):
            with _ending_in_words(output, needed(())), checked(where, needed):
                model.fit(data, sample_weight=weights)
            ending.save({output: model})
            totals.log(len(model.history_) - totals.passes)
            _check_time(model, output)
        ending.done({output: model})
    return model


@contextmanager
def _wrong_usage() -> Iterator[None]:
    """What options of no sense raise, as an error of whoever gave them."""
    try:
        yield
    except ValueError as e:
        raise UsageError(str(e)) from e


@contextmanager
def _alone(output: str, checkpoint: Checkpointing | None) -> Iterator[Lock]:
    """Lock the output and the checkpoint, until nothing is left of it."""
    with ExitStack() as stack:
        lock = stack.enter_context(locked(output))
        if checkpoint is not None:
            folder_at(checkpoint.path).check()
            stack.enter_context(locked(os.fspath(checkpoint.path)))
        yield lock


def _in_time(options: Mapping[str, Any]) -> AbstractContextManager[None]:
    """The time that a job is given, counted from here."""
    seconds = options.get("max_time")
    return current_job().until(np.inf if seconds is None else time.monotonic() + seconds)


@contextmanager
def _ending_in_words(output: str, planned: Plan) -> Iterator[None]:
    """Say why a fit ends without a model where its time is over, or the memory here."""
    try:
        yield
    except OutOfTimeError as e:
        raise OutOfTimeError(
            f"the time limit is reached before there is a model, so {output} is not written: it "
            "takes a longer --max-time, or several runs"
        ) from e
    except MemoryError as e:
        models = mebibytes(planned.parameter_bytes + planned.statistics_bytes)
        raise StoppedError(
            f"this process ran out of memory ({e or 'for what is not known'}); beside a sample "
            f"(--sample-size rows of {8 * planned.n_features} bytes) it holds parameters and sums "
            f"of the models ({models}), all of them several times: lower --sample-size or -k, or "
            "run it where there is more memory"
        ) from e


def _check_time(model: GaussianMixture, output: str) -> None:
    """Raise where a fit ended because its time was over: it is not done."""
    if model.status_ is Status.OUT_OF_TIME:
        raise OutOfTimeError(
            f"the time limit is reached; the best so far, {model.lower_bound_:.6f} nats/row, is in "
            f"{output}"
        )


@dataclass(frozen=True)
class Ending:
    """The end of a fit: its models are written, and what was kept of it goes.

    Every model says of which fit it is, and so does what is kept of an unfinished one. When all
    are written the lock notes it: so the end of a job that was killed on the way is known.

    Attributes
    ----------
    lock : Lock
        Of the first output.
    checkpoint : Checkpointing or None
    overwrite : bool
        Whether models of others may be replaced.
    """

    lock: Lock
    checkpoint: Checkpointing | None
    overwrite: bool

    def reached(self, outputs: Sequence[str], unfinished: Callable[[], Checkpoint]) -> list[str]:
        """Which outputs a job wrote that was killed when it had written all; none if no job did.

        Raises
        ------
        OutputExistsError
            One is there that is not of the unfinished fit, and may not be replaced.
        """
        there = {output: fit for output in outputs if (fit := _fit_of(output))}
        kept = None
        if there and self.checkpoint is not None and self.checkpoint.resume:
            with unfinished() as kept:
                told = _as_dict(self.lock.before.get("written"))
                done = {"id": told.get("fit"), "identity": kept.identity}
            written = [output for output in outputs if output in told.get("outputs", ())]
            if outputs[0] in written and all(there.get(output) == done for output in written):
                self.tidy(written)
                return written
        for output in outputs:
            ours = kept is not None and output in there and there[output].get("id") == kept.id
            check_free(output, self.overwrite or ours)
        return []

    def save(self, models: Mapping[str, GaussianMixture]) -> None:
        """Write each model to its output."""
        self.lock.check()
        for output, model in models.items():
            model.set_params(callbacks=None, checkpoint=None)
            fit = model.provenance_.get("fit")
            ours = fit is not None and _fit_of(output) == fit
            model.save(output, overwrite=self.overwrite or ours)

    def done(self, models: Mapping[str, GaussianMixture]) -> None:
        """Note that all models are written, and remove what was kept."""
        fits = [model.provenance_["fit"]["id"] for model in models.values()
                if "fit" in model.provenance_]  # fmt: skip
        if fits:
            self.lock.note(written={"fit": fits[0], "outputs": list(models)})
        self.tidy(list(models))

    def tidy(self, outputs: Sequence[str]) -> None:
        """Remove what is left of the fit beside its models."""
        for output in outputs:
            if not is_url(output):
                remove_unfinished(output)
        if self.checkpoint is not None:
            remove_checkpoint(self.checkpoint.path)


def _fit_of(output: str) -> dict[str, Any] | None:
    """Of which fit the model at `output` is; None where it says nothing, or is none."""
    try:
        return _as_dict(load(output).provenance_.get("fit")) or None
    except ModelFileError:
        return None


def _as_dict(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def checkpointing(
    output: str, folder: str | None, resume: bool, force: bool, interval: float
) -> Checkpointing:
    """Where the fit of `output` is kept while it is unfinished: beside it, unless told."""
    if folder is not None and Path(folder).absolute() == Path(output).absolute():
        raise UsageError(f"--checkpoint {folder} is the model itself; choose another folder")
    return Checkpointing(_beside(output) if folder is None else folder, resume, force, interval)


def _beside(output: str) -> str:
    if is_url(output):
        parent, name = split_url(output)
        return f"{parent}/.{name}.checkpoint"
    path = Path(output)
    return str(path.with_name(f".{path.name}.checkpoint"))


@contextmanager
def _telling_what_is_kept(checkpoint: Checkpointing | None) -> Iterator[None]:
    """Add to whatever ends a fit what becomes of the work that is done."""
    try:
        yield
    except BaseException as e:
        with suppress(Exception):
            if checkpoint is not None and is_kept(checkpoint.path):
                after = ""
                if isinstance(e, DataError):
                    after = ", or add --no-resume to throw it away"
                e.add_note(
                    f"what was done is kept in {describe_url(os.fspath(checkpoint.path))}: run the "
                    f"same command again to go on{after}"
                )
        raise


@dataclass(frozen=True)
class Sweep:
    """Which models a sweep fits, and how it chooses.

    Attributes
    ----------
    n_components : sequence of int
    covariance_types : sequence of str
    criterion : {"bic", "aic", "icl", "holdout"}
    holdout : float
        Share of the rows that no fit sees.
    exhaustive, keep_all : bool
        Give no model up; save every model that was not given up.
    """

    n_components: Sequence[int]
    covariance_types: Sequence[str]
    criterion: str = "bic"
    holdout: float = 0.0
    exhaustive: bool = False
    keep_all: bool = False

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose and nothing to hold out."""
        return len(self.n_components) * len(self.covariance_types) == 1 and not self.holdout

    def path(self, output: str, n_components: int, covariance_type: str) -> str:
        """Where a model that did not win goes: MODEL-k8-full.npz beside MODEL.npz."""
        path = Path(output)
        return str(path.with_name(f"{path.stem}-k{n_components}-{covariance_type}{path.suffix}"))


def sweep(
    data: str,
    output: str,
    where: Where,
    wanted: Sweep,
    options: dict[str, Any],
    weights: str | None = None,
    overwrite: bool = False,
    checkpoint: Checkpointing | None = None,
    metrics: str | None = None,
) -> tuple[Selection, list[str]]:
    """Fit every model of a sweep to the Zarr array at `data`; save the winner to `output`.

    With a checkpoint, one that was killed goes on, as `fit` does.

    Returns
    -------
    Selection
    list of str
        The files written, the winner's first.

    Raises
    ------
    OutputExistsError
        A model is there, and is not of this very sweep.
    OutOfTimeError
        `max_time` seconds were over. The best so far is in `output`, if a pass was made.
    """
    check_folder(output)
    check_folder(metrics or output)
    totals = Totals(metrics)
    given = {"n_init": 5, **options, "checkpoint": checkpoint, "callbacks": [reporter(), totals]}
    with _wrong_usage():
        sweeping = Sweeping(
            wanted.n_components,
            wanted.covariance_types,
            wanted.criterion,  # type: ignore[arg-type]
            wanted.holdout,
            wanted.exhaustive,
            given,
        )
    fleet = fleet_of(wanted.n_components, wanted.covariance_types)
    others = [wanted.path(output, *model) for model in fleet] if wanted.keep_all else []
    source = _dropping(stored_source(data, weights), options)
    needed = partial(count, source, fleet, holdout=bool(wanted.holdout), rivals=wanted.exhaustive)
    with _in_time(options), _alone(output, checkpoint) as lock:
        ending = Ending(lock, checkpoint, overwrite)
        written = ending.reached([output, *others], partial(sweeping.unfinished, data, weights))
        if written:
            return _selection_of([load(path) for path in written]), written
        with _telling_what_is_kept(checkpoint):
            with _ending_in_words(output, needed(())), checked(where, needed):
                selection = sweeping.run(data, weights, wanted.keep_all)
            models = {output: selection.best}
            for model in selection.models:
                models[wanted.path(output, model.n_components, model.covariance_type)] = model
            ending.save(models)
            totals.log(len(selection.history) - totals.passes)
            _check_time(selection.best, output)
        ending.done(models)
    return selection, list(models)


def _selection_of(models: list[GaussianMixture]) -> Selection:
    """What a sweep found, from the models that it wrote, the winner first."""
    best, *others = models
    known = best.provenance_["sweep"]
    return Selection(
        best, known["table"], others, known["criterion"], best.n_passes_, best.history_
    )


def _dropping(source: ZarrSource, options: dict[str, Any]) -> ZarrSource:
    """The source as far as memory goes: a chunk that rows are left out of is copied."""
    if options.get("nonfinite") != "drop":
        return source
    return replace(source, dropping=frozenset(range(source.n_chunks)))
