"""The commit of a fit: its models are written, the lock notes it, the checkpoint goes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, ModelFileError, UsageError
from ..estimators.load import load
from ..storage.checkpoint import Checkpoint, Checkpointing, checkpoint_exists, remove_checkpoint
from ..storage.folders import folder_at
from ..storage.locks import Lock, locked
from ..storage.outputs.files import remove_unfinished
from ..storage.outputs.staging import check_free
from ..storage.outputs.writer import check_output_file, output_file, output_locked
from ..storage.urls import describe_url, is_url, split_url

if TYPE_CHECKING:
    from ..estimators.base import MixtureEstimator


@dataclass(frozen=True)
class CommitProtocol:
    """Commit the models of one fit, and recognize a fit that was committed and then killed.

    Every model file says of which fit it is, and so does the checkpoint of an unfinished one.
    When all models are written, the lock notes it; then the checkpoint goes. A job that finds
    the note, and models that are of the kept fit, has nothing left to do but to clean up.

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

    def already_committed(
        self, outputs: Sequence[str], unfinished: Callable[[], Checkpoint[Any, Any]]
    ) -> list[str]:
        """Return the outputs of an earlier job of this fit that had written all its models.

        Empty if there was no such job; where there was, what it left is cleaned up.

        Raises
        ------
        OutputExistsError
            One is there that is not of the unfinished fit, and may not be replaced.
        """
        there = {output: fit for output in outputs if (fit := _fit_of(output))}
        kept = None
        if there and self.checkpoint is not None and self.checkpoint.resume:
            with unfinished() as kept:
                noted = _as_dict(self.lock.before.get("written"))
                fit = {"id": noted.get("fit"), "identity": kept.identity}
            written = [output for output in outputs if output in noted.get("outputs", ())]
            if outputs[0] in written and all(there.get(output) == fit for output in written):
                self.clean_up(written)
                return written
        for output in outputs:
            ours = kept is not None and output in there and there[output].get("id") == kept.id
            check_free(output, self.overwrite or ours)
        return []

    def write(self, models: Mapping[str, MixtureEstimator]) -> None:
        """Write each model to its output."""
        self.lock.check()
        for output, model in models.items():
            model.set_params(callbacks=None, checkpoint=None)
            fit = model.provenance_.get("fit")
            ours = fit is not None and _fit_of(output) == fit
            model.save(output, overwrite=self.overwrite or ours)

    def commit(self, models: Mapping[str, MixtureEstimator]) -> None:
        """Note that all models are written, and remove what was kept."""
        fits = [
            model.provenance_["fit"]["id"]
            for model in models.values()
            if "fit" in model.provenance_
        ]
        if fits:
            self.lock.note(written={"fit": fits[0], "outputs": list(models)})
        self.clean_up(list(models))

    def clean_up(self, outputs: Sequence[str]) -> None:
        """Remove what is left of the fit beside its models."""
        for output in outputs:
            if not is_url(output):
                remove_unfinished(output)
        if self.checkpoint is not None:
            remove_checkpoint(self.checkpoint.path)


def _fit_of(output: str) -> dict[str, Any] | None:
    """Return the identity of the fit that a model file is of; None where there is none."""
    try:
        return _as_dict(load(output).provenance_.get("fit")) or None
    except ModelFileError:
        return None


def _as_dict(found: object) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def check_untaken(output: str, checkpoint: Checkpointing | None, overwrite: bool) -> None:
    """Refuse an output that is there and cannot be of an unfinished fit: nothing is left of one."""
    kept = checkpoint is not None and checkpoint.resume and checkpoint_exists(checkpoint.path)
    check_output_file(output, overwrite or kept)


@contextmanager
def outputs_locked(
    output: str, metrics: str | None, checkpoint: Checkpointing | None
) -> Iterator[Lock]:
    """Lock an output, its file of metrics and its checkpoint while the block runs."""
    with ExitStack() as stack:
        lock = stack.enter_context(output_locked(output))
        if metrics is not None:
            stack.enter_context(output_file(metrics, overwrite=True))
        if checkpoint is not None:
            folder_at(checkpoint.path).check()
            stack.enter_context(locked(os.fspath(checkpoint.path)))
        yield lock


def checkpointing(
    output: str,
    folder: str | None,
    resume: bool,
    force: bool,
    interval: float,
    suffix: str = "checkpoint",
) -> Checkpointing:
    """Choose the checkpoint of the fit that writes `output`: beside it, unless a folder is given.

    Examples
    --------
    >>> checkpointing("/data/model.npz", None, True, False, 300.0).path
    '/data/.model.npz.checkpoint'

    Raises
    ------
    UsageError
        The folder is the model itself.
    """
    if folder is not None and Path(folder).absolute() == Path(output).absolute():
        raise UsageError(f"--checkpoint {folder} is the model itself; choose another folder")
    path = beside(output, suffix) if folder is None else folder
    return Checkpointing(path, resume, force, interval)


def beside(output: str, suffix: str) -> str:
    """Return the hidden folder beside an output, in which its unfinished work is kept.

    Examples
    --------
    >>> beside("s3://models/nightly.npz", "checkpoint")
    's3://models/.nightly.npz.checkpoint'
    """
    if is_url(output):
        parent, name = split_url(output)
        return f"{parent}/.{name}.{suffix}"
    path = Path(output)
    return str(path.with_name(f".{path.name}.{suffix}"))


@contextmanager
def noting_what_is_kept(checkpoint: Checkpointing | None) -> Iterator[None]:
    """Add to whatever exception ends a fit a note that says where its work is kept."""
    try:
        yield
    except UsageError:
        # The same command would be as wrong again.
        raise
    except BaseException as e:
        with suppress(Exception):
            if checkpoint is not None and checkpoint_exists(checkpoint.path):
                after = ""
                if isinstance(e, DataError):
                    after = ", or add --no-resume --overwrite to throw it away"
                e.add_note(
                    f"what was done is kept in {describe_url(os.fspath(checkpoint.path))}: run the "
                    f"same command again to go on{after}"
                )
        raise
