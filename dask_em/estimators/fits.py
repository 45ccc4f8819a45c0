"""One fit of one estimator or of many: where options, data, checkpoint and driver meet."""

from __future__ import annotations

import datetime
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state

from ..backends import backend_in_force
from ..core.codec import digest
from ..core.em import Convergence, EMState, Status
from ..core.engine import Engine
from ..core.family import FamilyOptions
from ..core.protocols import Source
from ..core.tuning import tuning
from ..data.options import ReadOptions
from ..errors import DataError, warn_user
from ..fitting.checks import check_survey
from ..fitting.comparable import check_comparable
from ..fitting.criteria import Criterion, range_end
from ..fitting.driver import Driver, FitProgress, FittedModel
from ..fitting.fit_options import FitOptions
from ..fitting.kept_sample import KeptSample
from ..fitting.noise import check_noise
from ..fitting.noisy_rows import of_noisy_rows
from ..fitting.observers import Observer
from ..fitting.recorded_passes import SurveyPass
from ..fitting.starts import StartOptions
from ..fitting.survey import Surveyed, fingerprint_of, survey_seed
from ..runtime import as_job, current_job
from ..storage.checkpoint import Checkpoint
from ..version import __version__
from .generations import stamp_of
from .known import KnownLabels, check_keep_sample, check_noise_covariance

logger = logging.getLogger("dask_em")

# Attributes of an estimator that opening its data leaves.
SEEN = ("n_features_in_", "feature_names_in_", "feature_categories_")


class Fittable(Protocol):
    """Describe what a fit needs of an estimator: options, data, and to take what was found."""

    kind_option: ClassVar[str | None]
    size_option: ClassVar[str]
    max_time: float | None
    sample_size: int | None
    max_passes: int | None
    warm_start: bool
    random_state: Any
    checkpoint: Any
    device: Any
    kept_sample_: KeptSample | None

    @property
    def family(self) -> str:
        """The name of the class."""

    @property
    def read_options(self) -> ReadOptions:
        """How data are read."""

    @property
    def n_components(self) -> int:
        """Number of components."""

    @property
    def n_labels(self) -> int:
        """How many numbers labels of rows may have."""

    def convergence(self) -> Convergence:
        """Return the limits at which a fit stops."""

    def remedy(self, status: Status) -> str:
        """Return why a fit ended so, and what to try."""

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""

    def family_options(self) -> FamilyOptions:
        """Return what the options say of the components."""

    def start_options(self) -> StartOptions:
        """Return how the mixture is to start."""

    def identity(self, engine: Engine) -> dict[str, Any]:
        """Return all that the bits of a fit depend on beside the data, for JSON."""

    def engine(self, dtype: Any, n_rows: int | None) -> Engine:
        """Return what computes."""

    def observers(self) -> list[Observer]:
        """Return who is told what the fit does."""

    def source(self, X: Any, sample_weight: Any, reset: bool, labels: Any, noise: Any) -> Source:
        """Open X for a fit, with labels and noise of its rows where there are some."""

    def take_columns(self, source: Source) -> None:
        """Take number, names and kinds of the columns that are to be fitted."""

    def set_fit(self, fitted: FittedModel, provenance: dict[str, Any]) -> None:
        """Take what a fit found, and where its data came from."""

    @property
    def warnings_(self) -> list[str]:
        """The warnings of the fit about its components."""


M = TypeVar("M", bound=Fittable)


@dataclass(frozen=True)
class Fit(Generic[M]):
    """Fit estimators by the same passes; several differ in K, kind and family, and share all else.

    Attributes
    ----------
    estimators : sequence of Fittable
    criterion : {"bic", "aic", "icl", "holdout"}
    holdout : float
    exhaustive : bool
        Give no model up.
    chooses : bool
        Whether the best by `criterion` is wanted, which checkpoint and provenance then say.
    keep_sample : int
        Rows of the first pass's sample that stay with each model, at most.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> models = [GaussianMixture(k, random_state=0) for k in (1, 2)]
    >>> driver = Fit(models).run(np.random.default_rng(0).normal(size=(200, 2)))
    >>> [model.weights_.shape for model in models], len(driver.candidates)
    ([(1,), (2,)], 2)
    """

    estimators: Sequence[M]
    criterion: Criterion = "bic"
    holdout: float = 0.0
    exhaustive: bool = True
    chooses: bool = False
    keep_sample: int = 0

    @property
    def lead(self) -> M:
        """The estimator of most components: whatever all share is asked of it."""
        return max(self.estimators, key=lambda m: m.n_components)

    @property
    def kind_option(self) -> str:
        """The name that the table has for the kind of components."""
        named = {m.kind_option for m in self.estimators} - {None}
        return str(named.pop()) if len(named) == 1 else "kind"

    @property
    def families(self) -> dict[str, M]:
        """The first estimator of each family, by its name."""
        found: dict[str, M] = {}
        for estimator in self.estimators:
            found.setdefault(estimator.family, estimator)
        return found

    def unfinished(
        self,
        X: Any,
        sample_weight: Any = None,
        labels: KnownLabels | None = None,
        noise: Any = None,
    ) -> Checkpoint[SurveyPass, FitProgress]:
        """Return this very fit of these data as it is kept, or a new one."""
        self._check_options(labels, noise)
        return self._unfinished(self._opened(X, sample_weight, labels, noise), labels)

    def _check_options(self, labels: KnownLabels | None, noise: Any) -> None:
        for estimator in self.estimators:
            estimator.check_options()
        assignment = self.lead.start_options().assignment
        check_keep_sample(self.keep_sample, labels, noise, assignment)
        self.check_beside(labels, noise)

    def check_beside(self, labels: KnownLabels | None, noise: Any) -> None:
        """Check that the estimators take what is to stand beside rows.

        Raises
        ------
        ValueError
            Options of theirs do not go with it.
        UsageError
            Their components know of no noise.
        """
        if labels is not None:
            labels.check(self.estimators)
        if noise is not None:
            for estimator in self.estimators:
                check_noise_covariance(estimator.family_options(), estimator.device)

    def _opened(self, X: Any, sample_weight: Any, labels: KnownLabels | None, noise: Any) -> Source:
        """Open X by the lead; the others are told of its columns.

        Their criteria must be comparable where one is chosen.
        """
        source = self.lead.source(X, sample_weight, True, labels and labels.values, noise)
        for estimator in self.estimators:
            estimator.take_columns(source)
        if self.chooses:
            self.check_comparable(source.n_features)
        return source

    def check_comparable(self, d: int) -> None:
        """Raise `UsageError` where no criterion can choose among the models of d columns."""
        names = vars(self.lead).get("feature_names_in_")
        starts = [estimator.start_options() for estimator in self.families.values()]
        check_comparable(starts, names, d)

    @property
    def _checkpoint(self) -> Any:
        """Where the fit is kept while it is not finished; None where nothing is."""
        return self.lead.checkpoint

    def _unfinished(
        self, source: Source, labels: KnownLabels | None
    ) -> Checkpoint[SurveyPass, FitProgress]:
        engine = self._engine(source)
        identity, data = {}, {}
        if self._checkpoint is not None:
            identity, data = self._identity(engine), source.identity()
            if labels is not None:
                identity["labels_fixed"] = labels.fixed
        return Checkpoint(self._checkpoint, identity, data, engine, SurveyPass, FitProgress)

    def _engine(self, source: Source, surveyed_rows: int | None = None) -> Engine:
        """Return what computes; a checkpoint is of one engine, and opened before the survey."""
        n_rows = source.n_rows
        if n_rows is None and self._checkpoint is None:
            n_rows = surveyed_rows
        found = self.lead.engine(source.dtype, n_rows)
        return found if source.beside.noise is None else replace(found, device="cpu")

    def _identity(self, engine: Engine) -> dict[str, Any]:
        identity = self.lead.identity(engine)
        if not self.chooses:
            return identity
        starts = [estimator.start_options() for estimator in self.estimators]
        identity[self.lead.size_option] = list(dict.fromkeys(s.n_components for s in starts))
        if any(estimator.kind_option for estimator in self.estimators):
            kinds = dict.fromkeys(s.components.kind for s in starts)
            identity[self.kind_option] = list(kinds)
        factors = dict.fromkeys(s.components.n_factors for s in starts)
        if any(factors):
            identity["n_factors"] = list(factors)
        if len(self.families) > 1:
            identity["families"] = {f: m.identity(engine) for f, m in self.families.items()}
        choice = {"criterion": self.criterion, "holdout": self.holdout}
        return identity | choice | {"exhaustive": self.exhaustive}

    def run(
        self,
        X: Any,
        sample_weight: Any = None,
        labels: KnownLabels | None = None,
        noise: Any = None,
    ) -> Driver:
        """Fit, from where it was left; every estimator that went to its end is then fitted.

        Returns
        -------
        Driver
            With the candidate of each estimator.

        Raises
        ------
        DataError
            Not one component could be estimated.
        """
        self._check_options(labels, noise)
        began, job, lead = time.monotonic(), current_job(), self.lead
        source = self._opened(X, sample_weight, labels, noise)
        # Before any row is read: what is written from here on is told by the next update.
        stamp = stamp_of(source, source.n_rows or 0)
        with as_job(job), self._unfinished(source, labels) as checkpoint:
            checkpoint.log_resumed()
            driver = Driver(
                self._options(began, labels is not None and labels.fixed, noise is not None),
                source,
                backend_in_force(),
                partial(self._engine, source),
                checkpoint,
                lead.observers(),
                self._check_survey,
            )
            driver.run()
            _refuse_void(driver.best.last_state())
            self._keep(driver, stamp)
        return driver

    def _options(self, began: float, labels_fixed: bool, noisy: bool) -> FitOptions:
        lead = self.lead
        starts = [estimator.start_options() for estimator in self.estimators]
        return FitOptions(
            tuple(of_noisy_rows(start) if noisy else start for start in starts),
            lead.convergence(),
            survey_seed(check_random_state(lead.random_state)),
            lead.random_state is None,
            lead.sample_size,
            lead.read_options.nonfinite == "drop",
            self.criterion,
            float(self.holdout),
            # The evidence of a sample says little of that of all rows.
            self.exhaustive or any(m.family_options().variational for m in self.estimators),
            began + (np.inf if lead.max_time is None else lead.max_time),
            labels_fixed,
        )

    def _check_survey(self, source: Source, surveyed: Surveyed) -> None:
        names = vars(self.lead).get("feature_names_in_")
        components = [m.start_options().components for m in self.families.values()]
        noise = [m.start_options().noise for m in self.estimators]
        check_noise([one for one in noise if one is not None], surveyed, names)
        check_survey(
            source, surveyed, self.lead.n_components, components, names, self.lead.size_option
        )

    def _keep(self, driver: Driver, stamp: str) -> None:
        """Make of each estimator what a fit of its own would have, but for the shared passes."""
        provenance = self._provenance(driver, stamp)
        driver.checkpoint.sign(provenance)
        if driver.n_labelled:
            fixed = driver.options.labels_fixed
            provenance["labels"] = {"rows": driver.n_labelled, "fixed": fixed}
        if self.chooses:
            choice = {"criterion": self.criterion, "holdout": float(self.holdout)}
            table = [row.as_dict(self.kind_option) for row in driver.rows]
            provenance["sweep"] = {**choice, "table": table}
        sample = self._kept_sample(driver)
        for estimator, candidate in zip(self.estimators, driver.candidates, strict=True):
            if candidate is not None and candidate.state is not None:
                estimator.set_fit(driver.fitted(candidate), provenance)
                estimator.kept_sample_ = sample
        self._warn(driver)

    def _kept_sample(self, driver: Driver) -> KeptSample | None:
        """Return the sample that stays with each model."""
        if not self.keep_sample:
            return None
        return KeptSample.of(driver.sample, self.keep_sample, driver.surveyed.moments.weight)

    def _provenance(self, driver: Driver, stamp: str) -> dict[str, Any]:
        """Return what is told of the data."""
        found = provenance_of(driver.passes.source, driver.surveyed)
        return found | ({"stamp": stamp} if stamp else {})

    def _warn(self, driver: Driver) -> None:
        """Warn of what is odd about the best, and log where more should be tried."""
        best = self.estimators[driver.candidates.index(driver.best)]
        unlike = ""
        if self.chooses and driver.best.degenerate:
            unlike = (
                f"; {self.criterion} cannot choose among such models, and every one that was "
                "fitted to its end is such"
            )
        for message in best.warnings_:
            warn_user(message + unlike, ConvergenceWarning)
        self._log_left_out(driver)
        state = driver.best.last_state()
        _warn_unless_converged(state, best.remedy(state.status))
        tried = [m.n_components for m in self.estimators if m.family == best.family]
        end = range_end(best.n_components, tried)
        if end and self.chooses:
            logger.warning(
                "%s=%d is best by %s and the %s that was tried: try %s",
                best.size_option,
                best.n_components,
                self.criterion,
                end,
                "more" if end == "largest" else "fewer",
            )

    def _log_left_out(self, driver: Driver) -> None:
        """Log which models are no choice because the data do not determine their components."""
        left_out = [
            " ".join(filter(None, (f"n_components={c.model.n_components}", c.model.kind)))
            for c in driver.candidates
            if c is not None and c.state is not None and not c.dropped and c.degenerate
        ]
        if self.chooses and left_out and not driver.best.degenerate:
            logger.warning(
                "left out of the choice, because some of their components are degenerate: %s",
                "; ".join(left_out),
            )


def provenance_of(source: Source, surveyed: Surveyed) -> dict[str, Any]:
    """Return what is told of the data of a fit, and of when and by what it was made.

    Parameters
    ----------
    source : Source
        Held to the log of its first pass.
    surveyed : Surveyed
        What that pass summed.
    """
    # Constants as they ship need no mention.
    changes = tuning().changes()
    d, width, fingerprint = source.n_features, source.beside.width, fingerprint_of(surveyed)
    if width:
        # Other noise makes other data of the same rows.
        fingerprint = digest([fingerprint, source.beside.identity()])
    return {
        "source": source.description,
        "n_rows": surveyed.n_rows + source.n_dropped,
        "n_dropped": source.n_dropped,
        "weight": surveyed.moments.weight,
        "n_features": source.n_features,
        "dtype": str(source.dtype),
        **({"decoding": source.decoding} if source.decoding else {}),
        "fingerprint": fingerprint,
        "fitted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "dask_em": __version__,
        **({"noise_covariance": "variances" if width == d else "covariances"} if width else {}),
        **({"tuning": changes} if changes else {}),
    }


def _refuse_void(state: EMState) -> None:
    """Raise `DataError`, with scikit-learn's words, where not one component could be estimated."""
    if state.status is Status.COLLAPSED and len(state.collapsed) == len(state.result.log_weights):
        raise DataError(
            f"not one of n_components={len(state.collapsed)} components has a covariance of its "
            "own: the rows of each lie in one point, line or plane. Fitting the mixture model "
            "failed because some components have ill-defined empirical covariance (for instance "
            "caused by singleton or collapsed samples). Try to decrease the number of "
            "components, increase reg_covar, or scale the input data."
        )


def _warn_unless_converged(state: EMState, remedy: str) -> None:
    """Warn of a fit that ended otherwise, and say what to try."""
    status = state.status
    if status is Status.CONVERGED or (status is Status.OUT_OF_ITERATIONS and state.n_iter == 0):
        return
    # Filters look for the first words of scikit-learn's warning.
    theirs = "Best performing initialization did not converge."
    if status is Status.OUT_OF_ITERATIONS:
        theirs += (
            " Try different init parameters, or increase max_iter, tol, or check for degenerate "
            "data."
        )
    collapsed = f" (components {list(state.collapsed)})" if state.collapsed else ""
    reason = f"{status.name.lower().replace('_', ' ')}{collapsed}: {remedy}"
    warn_user(f"{theirs} Status: {reason}", ConvergenceWarning)
