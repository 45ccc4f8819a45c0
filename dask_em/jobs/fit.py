"""The job that fits one mixture, or many of which it chooses one, and writes model files."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..core.em import Status
from ..data.open import (
    labels_beside,
    names_column,
    noise_beside,
    stored_source,
    with_columns_beside,
)
from ..data.options import ReadChoices, ReadOptions
from ..errors import OutOfTimeError, StoppedError, UsageError
from ..estimators.describe import FamilyDescription
from ..estimators.load import load
from ..fitting.criteria import (
    Criterion,
    RangeEnd,
    check_criterion,
    kind_in,
    kind_option_in,
    range_end,
)
from ..fitting.observers import Totals
from ..fitting.progress import reporter
from ..runtime import current_job
from ..storage.checkpoint import Checkpointing
from ..storage.outputs.writer import check_output_file
from .arguments import check_apart, check_data, check_noise_path
from .cluster import ClusterOptions
from .commit import CommitProtocol, check_untaken, noting_what_is_kept, outputs_locked
from .components import components_told
from .files import FleetChoices
from .plan import (
    Plan,
    checked,
    class_named,
    count,
    fleet_of,
    kinds_of,
    mebibytes,
    reading_of,
)  # fmt: skip

if TYPE_CHECKING:
    from ..core.protocols import StoredSource
    from ..estimators.base import MixtureEstimator
    from ..estimators.fits import Fit
    from ..estimators.known import KnownLabels


@dataclass(frozen=True)
class FitRequest:
    """The models to fit, and how to choose among them.

    Attributes
    ----------
    n_components : sequence of int
    covariance_types : sequence of str
        Kinds of components, where the family has several.
    options : mapping
        Parameters of the estimator that all models share.
    criterion : {"bic", "aic", "icl", "holdout"}
    holdout : float
        Share of the rows that no fit sees.
    exhaustive, keep_all : bool
        Give no model up; save every model that was not given up.
    family : str or sequence of str
        Names of registered classes of mixtures.

    Examples
    --------
    >>> request = FitRequest([2, 3], ["full", "diag"], keep_all=True)
    >>> request.single
    False
    >>> request.outputs("m.npz")[:3]
    ['m.npz', 'm-k2-full.npz', 'm-k3-full.npz']
    """

    n_components: Sequence[int]
    covariance_types: Sequence[str] = ("full",)
    options: Mapping[str, Any] = field(default_factory=dict)
    criterion: Criterion = "bic"
    holdout: float = 0.0
    exhaustive: bool = False
    keep_all: bool = False
    family: str | Sequence[str] = "gaussian"

    @property
    def fleet(self) -> Sequence[MixtureEstimator]:
        """The models, not fitted."""
        return fleet_of(self.n_components, self.covariance_types, self.family, **self._reading)

    @property
    def families(self) -> Sequence[str]:
        """The names of the families."""
        return [self.family] if isinstance(self.family, str) else self.family

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose and nothing to hold out."""
        return len(self.fleet) == 1 and not self.holdout

    def outputs(self, output: str) -> list[str]:
        """Return the files that may be written, the winner's first."""
        others = self.fleet if self.keep_all and not self.single else []
        return [output, *(self.path(output, model) for model in others)]

    def path(self, output: str, model: MixtureEstimator) -> str:
        """Return the file of a model that did not win: MODEL-k8-full.npz beside MODEL.npz."""
        path, kind = Path(output), model.family_options().kind
        which = f"-{model.family}" * (len(self.families) > 1)
        which += f"-k{model.n_components}" + (f"-{kind}" if kind else "")
        swept = {one.family_options().n_factors for one in self.fleet} - {None}
        if len(swept) > 1 and (q := model.family_options().n_factors) is not None:
            which += f"-q{q}"
        return str(path.with_name(f"{path.stem}{which}{path.suffix}"))

    @property
    def read_options(self) -> ReadOptions:
        """How the data are read."""
        return reading_of(self.fleet)

    @property
    def _reading(self) -> FleetChoices:
        names = {*ReadChoices.__annotations__, "n_factors", "noise"} & self.options.keys()
        found: Any = {name: self.options[name] for name in names}
        return cast("FleetChoices", found)


@dataclass(frozen=True)
class FitResult:
    """The models that a fit wrote.

    Attributes
    ----------
    models : mapping of str to MixtureEstimator
        Each file with its model, the winner first.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> result = FitResult({"m.npz": GaussianMixture(3), "m-k2-full.npz": GaussianMixture(2)})
    >>> result.files, result.best.n_components, result.kind
    (['m.npz', 'm-k2-full.npz'], 3, 'full')
    """

    models: Mapping[str, MixtureEstimator]

    @property
    def files(self) -> list[str]:
        """The files written, the winner's first."""
        return list(self.models)

    @property
    def best(self) -> MixtureEstimator:
        """The winner."""
        return next(iter(self.models.values()))

    @property
    def components(self) -> dict[str, Any]:
        """Weights, sizes and profiles of the winner's components, as JSON holds them."""
        best, family = self.best, self.best.state_.result.components
        columns = best.describe().columns
        described = FamilyDescription(family, columns)
        return components_told(best.fitted_array("weights_"), best.state_, described)

    @property
    def kind(self) -> str:
        """The kind of components that the winner has."""
        return self.best.family_options().kind

    @property
    def kind_option(self) -> str:
        """The name that the table has for the kind of components."""
        return kind_option_in(self.table[0]) if self.table else "kind"

    @staticmethod
    def kind_in(row: Mapping[str, Any]) -> str:
        """Return the kind of components in a row of the table."""
        return kind_in(row)

    @property
    def criterion(self) -> str:
        """The criterion of the choice; empty where there was none."""
        return str(self.best.provenance_.get("sweep", {}).get("criterion", ""))

    @property
    def table(self) -> list[dict[str, Any]]:
        """One row a candidate, see `Selection.table`; empty where one model was fitted alone."""
        return list(self.best.provenance_.get("sweep", {}).get("table", ()))

    @property
    def range_end(self) -> RangeEnd | None:
        """Whether the winner stands at an end of the numbers of components that were tried."""
        return range_end(self.best.n_components, [row["n_components"] for row in self.table])


def fit(
    data: str,
    output: str,
    cluster: ClusterOptions,
    request: FitRequest,
    weights: str | None = None,
    overwrite: bool = False,
    checkpoint: Checkpointing | None = None,
    metrics: str | None = None,
    labels: str | None = None,
    labels_fixed: bool = False,
    noise_covariance: str | None = None,
    keep_sample: int = 0,
) -> FitResult:
    """Fit the models of a request to the rows at `data`; save the best to `output`.

    With a checkpoint, a job that was killed goes on; when the models are written it is removed.
    `labels`, `labels_fixed`, `noise_covariance` and `keep_sample` are those of
    `GaussianMixture.fit`.

    Raises
    ------
    UsageError
        An option is not one of those allowed, or a worker cannot hold a task.
    OutputExistsError
        A model is there, and is not of this very fit.
    OutOfTimeError
        `max_time` seconds were over. The best so far is in `output`, if a pass was made.
    """
    check_untaken(output, checkpoint, overwrite)
    if metrics is not None:
        check_output_file(metrics, overwrite=True)
        check_apart(metrics, output, "model")
    check_data(data)
    check_apart(output, data, "data")
    for path, option in ((weights, "--weights"), (labels, "--labels")):
        if path is not None and not names_column(path):
            check_data(path, option)
    check_noise_path(noise_covariance)
    # scikit-learn, behind it, takes longer to import than all that was refused until here.
    from ..estimators.known import KnownLabels
    from ..estimators.select import Selection

    totals = Totals(metrics)
    fitted = fit_of(request, {"checkpoint": checkpoint, "callbacks": [reporter(), totals]})
    try:
        known = KnownLabels.of(labels, labels_fixed)
        fitted.check_beside(known, noise_covariance)
        fitted = replace(fitted, keep_sample=keep_sample)
    except ValueError as e:
        raise UsageError(str(e)) from e
    with _time_limit(request.options), outputs_locked(output, metrics, checkpoint) as lock:
        protocol = CommitProtocol(lock, checkpoint, overwrite)
        given = data, weights, known, noise_covariance
        written = protocol.already_committed(
            request.outputs(output), partial(fitted.unfinished, *given)
        )
        if written:
            return FitResult({path: load(path) for path in written})
        source = _opened(request, fitted, *given)
        needed = partial(
            count, source, fitted.estimators, holdout=request.holdout,
            exhaustive=request.exhaustive, kept=checkpoint is not None,
        )  # fmt: skip
        with noting_what_is_kept(checkpoint):
            with _explained_endings(output, needed(())), checked(cluster, needed):
                driver = fitted.run(*given)
            selection = Selection.of(fitted, driver, request.keep_all and not request.single)
            models = {output: selection.best}
            for model in selection.models:
                models[request.path(output, model)] = model
            protocol.write(models)
            totals.log(selection.n_reads - totals.passes)
            _check_time(selection.best, output)
        protocol.commit(models)
    return FitResult(models)


def _opened(
    request: FitRequest,
    fitted: Fit[MixtureEstimator],
    data: str,
    weights: str | None,
    labels: KnownLabels | None,
    noise: str | None,
) -> StoredSource:
    """Open the rows, with what stands beside them."""
    values = None if labels is None else labels.values
    options = with_columns_beside(request.read_options, values, noise)
    source = stored_source(data, weights, options)
    if values is not None:
        source = labels_beside(source, data, values, fitted.lead.n_labels, options)
    return source if noise is None else noise_beside(source, data, noise, options)


def fit_of(request: FitRequest, shared: Mapping[str, Any]) -> Fit[MixtureEstimator]:
    """Return the fit of a request, whose estimators have the `shared` options too.

    Raises
    ------
    UsageError
        An option is not one of those allowed.
    """
    from ..estimators.fits import Fit
    from ..estimators.select import sweep

    options = {**request.options, **shared}
    classes = [class_named(family) for family in request.families]
    try:
        check_criterion(request.criterion, request.holdout, [one.assignment for one in classes])
    except ValueError as e:
        raise UsageError(str(e)) from e
    known = set().union(*(one().get_params() for one in classes))
    if unknown := options.keys() - known:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(unknown))
        named = ",".join(request.families)
        raise UsageError(f"--family {named} has no {flags}: leave it out")
    try:
        if request.single:
            (model,) = request.fleet
            # Of what sweeps take several values it has its own.
            own = {n: value for n, value in options.items() if n not in model.swept_options}
            model.set_params(**own).check_options()
            return Fit([model])
        told = any(kinds_of(one, request.covariance_types) is not None for one in classes)
        return sweep(
            request.n_components,
            request.covariance_types if told else None,
            request.criterion,
            request.holdout,
            request.exhaustive,
            classes,
            {"n_init": 5, **options},
        )
    except ValueError as e:
        raise UsageError(str(e)) from e


def _time_limit(options: Mapping[str, Any]) -> AbstractContextManager[None]:
    """Limit the job to `max_time` seconds, counted from here."""
    seconds = options.get("max_time")
    return current_job().until(np.inf if seconds is None else time.monotonic() + seconds)


@contextmanager
def _explained_endings(output: str, planned: Plan) -> Iterator[None]:
    """Explain why a fit ends without a model: its time is over, or the memory of this process."""
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


def _check_time(model: MixtureEstimator, output: str) -> None:
    """Raise where a fit ended because its time was over: it is not done."""
    if model.status_ is Status.OUT_OF_TIME:
        raise OutOfTimeError(
            f"the time limit is reached; the best so far, {model.objective_.line}, is in {output}"
        )
