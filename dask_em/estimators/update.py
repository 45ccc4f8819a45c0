"""Update a fitted mixture by new rows: their sums join those that the model keeps."""

from __future__ import annotations

import datetime
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from sklearn.exceptions import ConvergenceWarning, NotFittedError

from ..core.codec import digest
from ..core.em import EMState, Status
from ..core.engine import Engine
from ..core.mixture import Mixture
from ..core.protocols import Source
from ..data.appended import AppendedRows
from ..errors import DataError, UsageError, warn_user
from ..fitting.checks import check_update
from ..fitting.criteria import Criterion
from ..fitting.driver import Driver
from ..fitting.fit_options import FitOptions
from ..fitting.half_life import HalfLife
from ..fitting.kept_sample import KeptSample
from ..fitting.observers import PassRecord
from ..fitting.renewal import Earlier
from ..fitting.survey import Surveyed, fingerprint_of
from .fits import Fit, Fittable
from .fitted import history
from .generations import Generation, generations_of, in_sums, rows_seen
from .known import KnownLabels
from .options import check_checkpoint, check_number

logger = logging.getLogger("dask_em")

# Of a generation's provenance what stays with a model whose rows are of several.
KEPT = ("decoding", "labels")


class Updatable(Fittable, Protocol):
    """Describe what an update needs of an estimator: a fit, and what it was of."""

    state_: EMState
    provenance_: dict[str, Any]
    history_: list[dict[str, Any]]
    kept_sample_: KeptSample | None

    def earlier(self, surveyed: Surveyed) -> Mixture | EMState:
        """Return where a warm start begins."""

    def fitted_state(self) -> tuple[EMState, dict[str, Any]]:
        """Return the state of the fitted attributes, which a user may have set, and them."""


class NothingNewError(Exception):
    """All rows are in the model already."""


@dataclass(frozen=True)
class Renewal(Fit[Updatable]):
    """Fit one estimator again, whose generations are told of.

    Attributes
    ----------
    estimators : sequence of Updatable
        The one.
    criterion : {"bic", "aic", "icl", "holdout"}
        As in `Fit`: nothing is chosen.
    checkpoint : Checkpointing, path or None
    """

    # The API reference looks for inherited annotations here.
    estimators: Sequence[Updatable]
    criterion: Criterion = "bic"
    checkpoint: Any = None

    @property
    def generations(self) -> list[Generation]:
        """The fit and the updates whose rows the model has read."""
        model = self.lead
        reached = model.state_.log_likelihood
        told = reached if np.isfinite(reached) else None
        shares = model.state_.result.shares
        return generations_of(model.provenance_, model.history_, told, shares)

    @property
    def _checkpoint(self) -> Any:
        return self.checkpoint

    def _opened(self, X: Any, sample_weight: Any, labels: KnownLabels | None, noise: Any) -> Source:
        """Open X as for predictions: its columns are those of the model."""
        source = self.lead.source(X, sample_weight, False, None, None)
        source.check()
        return source

    def _identity(self, engine: Engine) -> dict[str, Any]:
        return {**self.lead.identity(engine), "model": digest(self.lead.state_)}

    def _generation(self, driver: Driver, new: Mapping[str, Any], kept: float) -> Generation:
        """Return the generation of rows of which provenance is new."""
        records = driver.passes.records
        started = driver.progress.starts[0].mixture
        return Generation.of(
            len(self.generations) + 1,
            new,
            [history(record, ()) for record in records],
            _before(records, started, new["weight"]),
            kept,
            first=driver.passes.source.first_row,
            weights=driver.best.last_state().result.shares,
        )


@dataclass(frozen=True)
class Refit(Renewal):
    """Fit all rows, from the model as it is.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> gm = GaussianMixture(1).fit([[0.0], [2.0]])
    >>> _ = Refit([gm]).run([[4.0], [6.0]])
    >>> gm.means_.tolist(), [one["kept"] for one in gm.provenance_["generations"]]
    ([[5.0]], [1.0, 0.0])
    """

    def _options(self, began: float, labels_fixed: bool, noisy: bool) -> FitOptions:
        model = self.lead
        start = replace(model.start_options(), start_from=model.earlier)
        return replace(super()._options(began, labels_fixed, noisy), models=(start,))

    def _provenance(self, driver: Driver, stamp: str) -> dict[str, Any]:
        made = super()._provenance(driver, stamp)
        last = self._generation(driver, made, 0.0)
        return _with_generations(made, [*self.generations, last])


@dataclass(frozen=True)
class Update(Renewal):
    """Fit one estimator to new rows beside the sums that it has.

    Attributes
    ----------
    half_life : HalfLife or None
        Of the rows that are in its sums.
    max_iter : int
        Passes over the new rows at most.
    keep_sample : int
        Rows that stay with the model, where it has kept some.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> gm = GaussianMixture(1).fit([[0.0], [2.0]])
    >>> _ = Update([gm]).run([[4.0], [6.0]])
    >>> gm.means_.tolist(), gm.provenance_["n_rows"]
    ([[3.0]], 4)
    """

    half_life: HalfLife | None = None
    max_iter: int = 10

    def _opened(self, X: Any, sample_weight: Any, labels: KnownLabels | None, noise: Any) -> Source:
        """Open X as for predictions, and take what of it is new.

        Raises
        ------
        NothingNewError
            All of it is in the model.
        """
        source = super()._opened(X, sample_weight, labels, noise)
        seen = rows_seen(source, self.generations)
        if not seen:
            return source
        if seen == source.n_rows:
            raise NothingNewError
        logger.info(
            "%s rows of %s are in the model: those from row %d on are read",
            f"{seen:,}",
            source.description,
            seen,
        )
        return AppendedRows(source, seen)

    def _identity(self, engine: Engine) -> dict[str, Any]:
        wanted: dict[str, Any] = {"forget": str(self.half_life), "update_iter": self.max_iter}
        sample = "" if self._sample is None else digest(self._sample)
        wanted |= {"keep_sample": self.keep_sample, "sample": sample}
        return super()._identity(engine) | wanted

    @property
    def _sample(self) -> KeptSample | None:
        """The sample that the model has, where it is to keep one."""
        return self.lead.kept_sample_ if self.keep_sample else None

    def _options(self, began: float, labels_fixed: bool, noisy: bool) -> FitOptions:
        model = self.lead
        state = model.state_

        # What is held is held by the mixture itself, and so is noise.
        options = replace(
            model.start_options(),
            n_components=len(state.result.log_weights),
            held=None,
            noise=None,
        )
        limits = replace(model.convergence(), max_iter=self.max_iter, max_passes=None)
        return replace(
            super()._options(began, labels_fixed, noisy),
            models=(options,),
            convergence=limits,
            any_sample=True,
            # No start is made of it.
            sample_size=max(1, self.keep_sample if self._sample is not None else 1),
            earlier=Earlier(
                state,
                self._kept,
                self._sample,
                self.keep_sample,
                in_sums(self.generations)[0].weight,
            ),
        )

    def _kept_sample(self, driver: Driver) -> KeptSample | None:
        earlier = driver.options.earlier
        assert earlier is not None, "an update goes on from a fit"
        assert driver.carried is not None, "an update carries sums"
        return earlier.joined(driver.surveyed, driver.carried)

    def _kept(self, weight: float) -> float:
        """Return what a row that is in the sums counts as beside new ones of this weight."""
        if self.half_life is None:
            return 1.0
        if self.half_life.unit == "rows":
            return self.half_life.kept(weight, 0.0)
        now = datetime.datetime.now(datetime.UTC)
        try:
            passed = self.generations[-1].seconds_until(now)
        except (TypeError, ValueError) as e:
            raise UsageError(
                "the model does not say when it was fitted: give a half-life in rows, as "
                "forget='1e6rows'"
            ) from e
        return self.half_life.kept(weight, passed)

    def _check_survey(self, source: Source, surveyed: Surveyed) -> None:
        """Check the new rows; those of a generation are not counted twice."""
        model = self.lead
        components, fitted = model.start_options().components, model.state_.result.components
        names = vars(model).get("feature_names_in_")
        check_update(source, surveyed, components, fitted.support, names)
        if fingerprint_of(surveyed) in {one.fingerprint for one in in_sums(self.generations)}:
            raise NothingNewError

    def _provenance(self, driver: Driver, stamp: str) -> dict[str, Any]:
        """Return the provenance of all rows.

        Raises
        ------
        DataError
            The log-likelihood of the new ones is no finite number.
        """
        if not np.isfinite(driver.best.last_state().statistics.log_likelihood):
            raise DataError(
                "the log-likelihood of X is not a finite number under the model that is updated: "
                "look for huge values in X"
            )
        new, carried = super()._provenance(driver, stamp), driver.carried
        assert carried is not None, "an update carries sums"
        kept = carried.statistics.weight / self.lead.state_.statistics.weight
        last = self._generation(driver, new, min(1.0, kept))
        joined = _joined(self.lead.provenance_, new)
        return _with_generations(joined, [*self.generations, last])

    def _warn(self, driver: Driver) -> None:
        """Warn of what is odd, and log where more passes would gain: the next update goes on."""
        for message in self.lead.warnings_:
            warn_user(message, ConvergenceWarning)
        state = driver.best.last_state()
        name = state.status.name.lower().replace("_", " ")
        if state.status is Status.LIKELIHOOD_FELL and driver.carried and not driver.carried.exact:
            logger.info(
                "the sample that is kept told no better parameters after %d passes over the new "
                "rows: the next update goes on from the best",
                state.n_iter,
            )
        elif state.status in (Status.LIKELIHOOD_FELL, Status.COLLAPSED):
            warn_user(f"{name}: {self.lead.remedy(state.status)}", ConvergenceWarning)
        elif not state.status.converged:
            told = "%s after %d passes over the new rows: the next update goes on from there"
            logger.info(told, name, state.n_iter)


def _before(records: Sequence[PassRecord], model: Mixture, weight: float) -> float | None:
    """Return the log-likelihood per row of new rows, by the first pass: before any M-step."""
    told = next((one.log_likelihood for one in records if one.phase == "em"), None)
    if told is None or not np.isfinite(told):
        return None
    # What is told of variational families is the bound.
    of_prior = model.log_prior_density / weight if model.components.variational else 0.0
    return float(told - of_prior)


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance of rows of an earlier and of a new generation."""
    both = old["fingerprint"] + new["fingerprint"]
    return {
        **{name: old[name] for name in KEPT if name in old},
        **new,
        "n_rows": old["n_rows"] + new["n_rows"],
        "n_dropped": old["n_dropped"] + new["n_dropped"],
        "weight": old.get("weight", old["n_rows"] - old["n_dropped"]) + new["weight"],
        "dtype": str(np.result_type(old["dtype"], new["dtype"])),
        "fingerprint": hashlib.sha256(both.encode()).hexdigest(),
    }


def _with_generations(
    provenance: Mapping[str, Any], generations: Sequence[Generation]
) -> dict[str, Any]:
    """Return provenance with the generations, each of which has the stamp of its rows."""
    told = {name: value for name, value in provenance.items() if name != "stamp"}
    return {**told, "generations": [one.as_dict() for one in generations]}


def update(
    model: Updatable,
    X: Any,
    sample_weight: Any = None,
    forget: str | float | None = None,
    max_iter: int = 10,
    exact: bool = False,
    checkpoint: Any = None,
    keep_sample: int | None = None,
) -> bool:
    """Update a model as `MixtureEstimator.update` says; return False where nothing is new.

    Raises
    ------
    UsageError, DataError, ValueError
        As there; `NotFittedError` where the model is not fitted.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> gm = GaussianMixture(1).fit([[0.0], [2.0]])
    >>> update(gm, [[4.0], [6.0]]), update(gm, [[4.0], [6.0]])
    (True, False)
    """
    half_life = HalfLife.of(forget, exact)
    check_number("max_iter", max_iter, int, 1)
    check_checkpoint(checkpoint)
    check_updatable(model, exact)
    size = size_to_keep(model, keep_sample, exact)
    if exact:
        Refit([model], checkpoint=checkpoint, keep_sample=size).run(X, sample_weight)
        return True
    made = Update(
        [model], checkpoint=checkpoint, half_life=half_life, max_iter=max_iter, keep_sample=size
    )
    try:
        made.run(X, sample_weight)
    except NothingNewError:
        return False
    return True


def is_outgrown(
    model: Updatable,
    X: Any,
    sample_weight: Any,
    forget: str | float | None,
    max_iter: int,
    checkpoint: Any,
    keep_sample: int | None = None,
) -> bool:
    """Return whether the unfinished update that is kept is of other rows than X has now.

    So it is where a store has grown since: nobody can go on with it.

    Raises
    ------
    UsageError
        It is of other options, or of another model.
    """
    half_life = HalfLife.of(forget)
    size = size_to_keep(model, keep_sample)
    made = Update(
        [model], checkpoint=checkpoint, half_life=half_life, max_iter=max_iter, keep_sample=size
    )
    try:
        source = made._opened(X, sample_weight, None, None)
    except NothingNewError:
        return False
    try:
        with made._unfinished(source, None):
            return False
    except DataError:
        return True


def size_to_keep(model: Updatable, keep_sample: int | None, exact: bool = False) -> int:
    """Return how many rows stay with an updated model: as many as before, if nothing is said.

    Raises
    ------
    UsageError
        Nobody knows which rows the model has read.
    ValueError
        `keep_sample` is no number of rows.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> X = [[0.0], [2.0], [4.0]]
    >>> size_to_keep(GaussianMixture(1).fit(X, keep_sample=2), None)
    2
    >>> size_to_keep(GaussianMixture(1).fit(X), 2)
    Traceback (most recent call last):
    dask_em.errors.UsageError: keep_sample=2, but this GaussianMixture keeps no sample of the ...
    """
    kept = model.kept_sample_
    if keep_sample is None:
        return 0 if kept is None else kept.size
    check_number("keep_sample", keep_sample, int, 0)
    if keep_sample and kept is None and not exact:
        raise UsageError(
            f"keep_sample={keep_sample}, but this {type(model).__name__} keeps no sample of the "
            "rows that it has read, which new ones could join: pass keep_sample to fit, or "
            "exact=True to read all rows again"
        )
    return int(keep_sample)


def bytes_to_read(model: Updatable, source: Source) -> int:
    """Return the bytes of one pass over the rows of a source that are new to a model.

    Raises
    ------
    DataError
        It was written where the model has read it.
    """
    seen = rows_seen(source, Renewal([model]).generations)
    return source.nbytes * ((source.n_rows or seen) - seen) // max(1, source.n_rows or 0)


def check_updatable(model: Updatable, exact: bool = False) -> None:
    """Raise where the sums of a model cannot be joined by others.

    Parameters
    ----------
    model : estimator
    exact : bool
        Whether all rows are read again, for which any model is a start.

    Raises
    ------
    UsageError
        It was adapted, is of no pass, or was changed since; or its family has no such sums.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import StudentTMixture
    >>> X = np.random.default_rng(0).normal(size=(100, 1))
    >>> check_updatable(StudentTMixture(1).fit(X))
    Traceback (most recent call last):
    dask_em.errors.UsageError: a StudentTMixture keeps sums that hold at its own parameters alone...
    """
    name = type(model).__name__
    if "state_" not in vars(model):
        raise NotFittedError(f"this {name} is not fitted: call fit first, and update it after")
    if exact:
        return
    anew = "pass exact=True to read all rows again and start from it"
    if not model.state_.result.components.carries:
        raise UsageError(
            f"a {name} keeps sums that hold at its own parameters alone, which those of new rows "
            f"cannot join: {anew}"
        )
    state, _ = model.fitted_state()
    if state.status is Status.ADAPTED:
        raise UsageError(
            f"this {name} was adapted, and keeps no sums of the rows of its background: update "
            f"that, or {anew}"
        )
    if state.n_iter == 0 or not np.isfinite(state.statistics.log_likelihood):
        raise UsageError(
            f"this {name} keeps no sums of rows, as it is of no pass, or its attributes were set "
            f"by hand: {anew}"
        )
