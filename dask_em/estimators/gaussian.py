"""scikit-learn's skin: where source, backend, family and callbacks meet."""

from __future__ import annotations

import datetime
import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture as SklearnGaussianMixture
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..backends import backend_in_force
from ..backends.blas import one_blas_thread
from ..backends.dask.config import engine_for
from ..core.additive import Array, S
from ..core.chunk_log import Logged
from ..core.codec import digest
from ..core.device import resolve_device
from ..core.em import Algorithm, Convergence, EMState, Status
from ..core.engine import Engine
from ..core.fleet import Fleet, FleetStatistics
from ..core.mixture import Mixture, MixtureStatistics
from ..core.passes import LoggingPass
from ..core.protocols import (
    Advance,
    Backend,
    ExecutorFactory,
    PartialSumsStore,
    Pass,
    Source,
)
from ..core.scoring import Answer, Predict, Score
from ..core.validation import require, require_array
from ..data.columns import check_columns
from ..data.open import as_source
from ..data.options import MissingChunks, NonFinite, ReadOptions
from ..data.xarray import Labelled, unlabelled
from ..errors import DataError, OutOfTimeError
from ..families.gaussian.constraints import CONSTRAINTS, Constraint
from ..families.gaussian.family import Gaussian
from ..families.gaussian.options import GaussianOptions
from ..families.gaussian.whitening import Whitening
from ..fitting.checks import check_survey
from ..fitting.control_variate import algorithm_of
from ..fitting.driver import Progress, SurveyPass
from ..fitting.observers import ObservedPass, PassRecord, reporter
from ..fitting.sample import Sampled, Start, default_sample_size
from ..fitting.starts import LABELLERS, StartOptions
from ..fitting.survey import Survey, Surveyed, fingerprint_of
from ..runtime import as_job, current_job
from ..storage.checkpoint import Checkpoint, Checkpointing
from ..storage.outputs.files import check_folder
from ..version import __version__
from .answers import answer_rows
from .describe import ComponentDescription, GaussianDescription, names_of_columns
from .html import summary_html
from .model_file import SavedModel, estimator_tag, plain, register_estimator, write_model

PUBLIC_ARRAYS = ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")

INIT_ARRAYS = ("weights_init", "means_init", "precisions_init")

# Options on which no bit of a fit depends; `max_time` counts anew whenever one goes on.
UNIMPORTANT = ("callbacks", "checkpoint", "max_time", "verbose")


def _in_memory(X: Any) -> bool:
    """Whether X is something that scikit-learn would take."""
    if isinstance(X, str | os.PathLike):
        return False
    return type(X).__module__.partition(".")[0] not in ("dask", "zarr", "dask_expr")


@register_estimator("gaussian-mixture")
class GaussianMixture(DensityMixin, BaseEstimator):  # type: ignore[misc]
    """Gaussian mixture fitted by Expectation-Maximization to data of any size.

    Each pass reads every chunk once, computes the responsibilities
    r_nk = w_k N(x_n; mu_k, Sigma_k) / sum_j w_j N(x_n; mu_j, Sigma_j) and sums them
    into sum_n r, sum_n r x and sum_n r x x^T, from which the M-step takes the new
    parameters (Bishop, Pattern Recognition and Machine Learning, 2006, section 9.2).

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    reg_covar : float, default=1e-6
        Added to every variance, in squared units of the data. Pass 0 where columns
        are small: a warning says so.
    max_iter : int, default=100
        Passes over the full data, the survey not counted.
    n_init : int, default=1
        Starts tried on the sample; the best goes on to the full data. Where the algorithm
        and `init_params` are "auto" there are 2 to 4, by what they cost, or `n_init` if that
        is more; they are fitted by the workers, unless the sample is above 32 MiB.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}
        How responsibilities of the sample are made. "auto", the default, is k-means in
        scaled space followed by EM on the sample; the others are scikit-learn's, on
        scaled rows of the sample, and enter the full data without it.
    weights_init, means_init, precisions_init : array, optional
        The user's own start, of scikit-learn's shapes. With all three given the
        sample is not used.
    algorithm : {"auto", "em"}, default="auto"
        "auto" makes steps on the sample, corrected by every pass, or mixes earlier steps
        (Anderson); what a pass shows to be worse is rejected. "em" is plain EM, iteration
        for iteration.
    sample_size : int, optional
        Rows of the uniform sample that the start is made from; by default 20 000 to
        100 000 by the number of free parameters, at most 64 MiB.
    nonfinite : {"error", "drop"}, default="error"
        What becomes of rows that hold NaN or infinity: "drop" leaves them out of the fit,
        with a warning that counts them.
    missing_chunks : {"error", "fill"}, default="error"
        What becomes of Zarr chunks that are not there: "fill" reads them as the array's fill
        value, as Zarr does. Zarr does not write chunks of nothing but that value unless it
        is told to, so nobody can tell such a chunk from a lost one.
    random_state : int, RandomState or None
    warm_start : bool, default=False
        Start from the last result.
    max_passes : int, optional
        Full passes at most, the survey counted: at least 2.
    max_time : float, optional
        Seconds after which the fit ends with the best that it has, counted from the call of
        `fit`: a pass under way is given up, but for the survey and the first after it.
    callbacks : sequence of callable, optional
        Each is called with the `EMState` after every pass, when it is in the checkpoint.
        What one raises ends the fit.
    checkpoint : path, URL or Checkpointing, optional
        A folder in which the fit keeps what it needs, after every pass and every five minutes
        within one. A fit that was killed goes on there when `fit` is called again with the
        same options and data, and ends with the same bits. The folder stays until it is
        removed. `dask_em.Checkpointing` says more than where.
    device : {"cpu", "cuda", "auto"}, default="cpu"
        Where full passes and predictions compute: "cuda" moves each block of a chunk to
        the worker's GPU through CuPy (the extra `gpu`), "auto" does so if this process has
        one. A namespace module of the array API standard works too.
    verbose : int, default=0
        Above zero, a progress bar for each pass (log lines where there is no terminal).

    Attributes
    ----------
    weights_ : (k,) array
    means_ : (k, d) array
    covariances_, precisions_, precisions_cholesky_ : array
        (k, d, d) full, (d, d) tied, (k, d) diag, (k,) spherical.
    converged_ : bool
    status_ : Status
        Why the fit ended; `status_.value` says what to try.
    n_iter_ : int
        Passes of EM, and M-steps; those that were rejected among them.
    lower_bound_ : float
        Mean log-likelihood per row at the best pass, in nats; `lower_bounds_` after every
        pass, which never falls by a rejected one.
    n_passes_ : float
        Full passes over the data: the survey, the EM passes, and the sample's share.
    n_dropped_ : int
        Rows that `nonfinite="drop"` left out.
    history_ : list of dict
        One record a pass: phase, number, seconds, rows, bytes, log_likelihood, and of
        passes of EM whether they were accepted.
    n_features_in_ : int
    feature_names_in_ : array of str
        Only where X has names: a table's columns, or a DataArray's coordinate of strings.
    state_ : EMState
        Parameters of the best pass paired with their statistics.
    provenance_ : dict
        What was fitted: source, shape, dtype, and a fingerprint of the survey's sums; with a
        checkpoint, the ID of the fit.
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "auto",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        algorithm: str = "auto",
        sample_size: int | None = None,
        max_passes: int | None = None,
        max_time: float | None = None,
        nonfinite: NonFinite = "error",
        missing_chunks: MissingChunks = "error",
        random_state: Any = None,
        warm_start: bool = False,
        callbacks: Sequence[Callable[[EMState], None]] | None = None,
        checkpoint: Any = None,
        device: Any = "cpu",
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.algorithm = algorithm
        self.sample_size = sample_size
        self.max_passes = max_passes
        self.max_time = max_time
        self.nonfinite = nonfinite
        self.missing_chunks = missing_chunks
        self.random_state = random_state
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.device = device
        self.verbose = verbose

    # -- fitting -----------------------------------------------------------------

    def fit(self, X: Any, y: None = None, sample_weight: Any = None) -> Self:
        """Estimate the parameters with one survey pass and one pass an iteration.

        Parameters
        ----------
        X : NumPy array, Dask array, xarray.DataArray, zarr.Array, or path or URL of a Zarr array
            (n, d). Never loaded whole, never persisted. Of a DataArray the first dimension is
            rows, and answers come back with their coordinates.
        y : ignored
        sample_weight : the same kinds, (n,), optional
            A row of weight w counts as w rows.

        Raises
        ------
        DataError
            The data cannot be clustered: shape, dtype, NaN or infinity, too few rows, or a
            chunk that is missing, damaged, or changes between passes. Or they are others than
            those of the unfinished fit in `checkpoint`.
        UsageError
            The unfinished fit in `checkpoint` is of other options.
        ModelFileError
            It is damaged.
        LockedError
            Another job fits there.
        """
        self._check_options()
        began, run, backend = time.monotonic(), current_job(), backend_in_force()
        convergence = Convergence(self.tol, self.max_iter, self.max_passes)
        source = self._source(X, sample_weight, reset=True)
        callbacks = self._callbacks()
        with one_blas_thread(), as_job(run), self._unfinished(source) as unfinished:
            unfinished.log_resumed()
            source, surveyed, record = self._survey(backend, source, callbacks, unfinished)
            engine = self._engine(source.dtype)
            sample = Sampled.of(surveyed)
            if unfinished.progress is None:
                # The sample is small and in this process, which may have no GPU.
                here = replace(engine, device="cpu")
                start = self._start(surveyed, here, callbacks, executor_factory(backend, source))
                mixture, *contenders = start.mixtures(engine)
                climbing = algorithm_of(self.algorithm, mixture, convergence, sample, contenders)
                print_ = fingerprint_of(surveyed)
                begun = climbing.state_dict()
                progress = Progress(begun, None, start.n_passes, print_, [record])
                unfinished.commit(progress, 0)
            else:
                progress = unfinished.progress
                unfinished.check_survey(progress.fingerprint, fingerprint_of(surveyed))
                last = progress.algorithm
                climbing = algorithm_of(self.algorithm, last.proposal, convergence, sample)
                climbing.load_state_dict(last)
            deadline = began + (np.inf if self.max_time is None else self.max_time)
            with run.until(deadline if progress.state else np.inf):
                try:
                    state = self._iterate(
                        backend, source, climbing, callbacks, progress, unfinished, deadline
                    )
                except OutOfTimeError:
                    state = _out_of_time(progress.state, climbing.proposal, sample)
        warn_unless_converged(state, 3)
        share = getattr(climbing, "rows_read", 0) / max(1, surveyed.n_weighted)
        cost = Start(state.result, progress.start_passes + share, state.log_likelihood)
        self._keep(source, surveyed, cost, state, progress.records, progress.rejected)
        unfinished.sign(self.provenance_)
        return self

    def unfinished(self, X: Any, sample_weight: Any = None) -> Checkpoint[SurveyPass, Progress]:
        """The fit of these options to these data that `checkpoint` keeps, or a new one."""
        self._check_options()
        return self._unfinished(self._source(X, sample_weight, reset=True))

    def _unfinished(self, source: Source) -> Checkpoint[SurveyPass, Progress]:
        engine = self._engine(source.dtype)
        options: dict[str, Any] = {}
        data: dict[str, Any] = {}
        if self.checkpoint is not None:
            options, data = self._identity(engine), source.identity()
        return Checkpoint(self.checkpoint, options, data, engine, SurveyPass, Progress)

    def _identity(self, engine: Engine) -> dict[str, Any]:
        """All that the bits of a fit depend on beside the data."""
        options = {n: v for n, v in self.get_params().items() if n not in UNIMPORTANT}
        for name in INIT_ARRAYS:
            given = options[name]
            options[name] = None if given is None else digest(np.asarray(given, dtype=np.float64))
        if not isinstance(self.random_state, int | np.integer | None):
            options["random_state"] = "a generator"
        if self.warm_start and hasattr(self, "state_"):
            options["warm_start"] = digest([getattr(self, name) for name in PUBLIC_ARRAYS])
        options["device"] = getattr(self.device, "__name__", self.device)
        options |= {"engine": engine.name, "float32": engine.single, "dask_em": __version__}
        return {name: plain(value) for name, value in options.items()}

    def fit_predict(self, X: Any, y: None = None, sample_weight: Any = None) -> Any:
        """Fit, then label every row; equal to `fit(X).predict(X)`."""
        return self.fit(X, y, sample_weight).predict(X)

    def _source(self, X: Any, sample_weight: Any = None, reset: bool = False) -> Source:
        labelled = Labelled.of(X)
        if labelled is not None:
            X, sample_weight = labelled.data, labelled.weights(sample_weight)
        if isinstance(X, np.ma.MaskedArray) and np.ma.is_masked(X):
            raise DataError(
                f"X is a masked array in which {int(X.mask.sum())} entries are masked, and "
                'masks are not looked at: pass X.filled(np.nan), with nonfinite="drop" to leave '
                "those rows out of the fit"
            )
        if _in_memory(X):
            checks: dict[str, Any] = {
                "dtype": [np.float64, np.float32],
                # The survey names the row and column of what is not finite.
                "ensure_all_finite": not reset,
                "ensure_min_samples": 2 if reset else 1,
            }
            if labelled is None:
                X = validate_data(self, X, reset=reset, **checks)
                return as_source(X, unlabelled(sample_weight), self.read_options)
            X = check_array(X, estimator=self, **checks)
        source = as_source(X, unlabelled(sample_weight), self.read_options)
        if reset:
            source.check()
        self._take_columns(source, None if labelled is None else labelled.feature_names, reset)
        return source

    def _take_columns(self, source: Source, names: Array | None, reset: bool) -> None:
        """Keep number and names of the columns, or hold them to those of the fit."""
        if reset:
            self.n_features_in_ = source.n_features
            self.__dict__.pop("feature_names_in_", None)
            if names is not None:
                self.feature_names_in_ = names
            return
        check_columns("X", source.n_features, self.n_features_in_)
        fitted = getattr(self, "feature_names_in_", None)
        if names is not None and fitted is not None and not np.array_equal(fitted, names):
            raise DataError(
                f"X has the columns {_shortened(names)}, but this {type(self).__name__} was fitted "
                f"to {_shortened(fitted)}: give the same in the same order"
            )

    def _callbacks(self) -> list[Any]:
        callbacks = list(self.callbacks or ())
        return [*callbacks, reporter()] if self.verbose > 0 else callbacks

    def _survey(
        self,
        backend: Backend,
        source: Source,
        callbacks: list[Any],
        unfinished: Checkpoint[SurveyPass, Progress],
    ) -> tuple[Source, Surveyed, PassRecord]:
        """The source that later passes read, what the survey found, and the record of it."""
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        seed = self._seed = unfinished.begin(seed)
        if unfinished.survey is not None:
            found, record = unfinished.survey.found, unfinished.survey.record
            source = source.held_to(found.log, unfinished.forced)
            self._check_survey(source, found.sums)
            return source, found.sums, record
        d = source.n_features
        size = self.sample_size or default_sample_size(self._n_parameters(d), d)
        survey = Survey(seed, max(size, self.n_components), d, source.n_rows)
        with ObservedPass(callbacks, "survey", 1, source.n_rows, source.nbytes) as running:
            partial_sums = unfinished.partial_sums("survey", 1)
            found = self._first_pass(backend, source, survey, running.advance, partial_sums)
            running.n_rows = found.sums.n_rows
        assert running.record is not None
        source = source.held_to(found.log)
        self._check_survey(source, found.sums)
        unfinished.keep_survey(SurveyPass(found, running.record))
        return source, found.sums, running.record

    def _first_pass(
        self,
        backend: Backend,
        source: Source,
        pass_: Pass[S],
        advance: Advance | None,
        partial_sums: PartialSumsStore[Logged[S]] | None,
    ) -> Logged[S]:
        """The sums of a pass, and the log that holds later passes to what this one read."""
        logging_pass = LoggingPass(pass_, self.read_options.nonfinite == "drop")
        return backend.map_reduce(source, logging_pass, advance, partial_sums)

    @property
    def read_options(self) -> ReadOptions:
        """How data are read: whatever is done with the model reads as its fit did."""
        return ReadOptions(self.missing_chunks, self.nonfinite)

    def _n_parameters(self, d: int) -> int:
        return self._start_options().n_parameters(d)

    def _check_survey(self, source: Source, surveyed: Surveyed) -> None:
        names = getattr(self, "feature_names_in_", None)
        check_survey(source, surveyed, self.n_components, self.reg_covar, names, 4)

    # -- the start ---------------------------------------------------------------

    def _engine(self, dtype: Any = np.float64) -> Engine:
        """What computes, here and on every worker, for data of this type."""
        return replace(engine_for(dtype), device=resolve_device(self.device))

    def _family_options(self) -> GaussianOptions:
        return GaussianOptions(
            self.covariance_type, self.reg_covar, self.means_init, self.precisions_init
        )

    def _start_options(self) -> StartOptions:
        names = ("n_components", "tol", "max_iter", "n_init", "init_params", "weights_init")
        options = {name: getattr(self, name) for name in names}
        return StartOptions(self._family_options(), **options, algorithm=self.algorithm)

    def _start(
        self, surveyed: Surveyed, engine: Engine, callbacks: list[Any], executor: ExecutorFactory
    ) -> Start:
        if self.warm_start and hasattr(self, "means_"):
            last = (self._fitted_constraint.name, self.means_.shape)
            now = (self.covariance_type, (self.n_components, self.n_features_in_))
            if last != now:
                raise ValueError(
                    f"warm_start=True, but the last fit was of {last[0]} covariances and means_ of "
                    f"shape {last[1]}, and this one is of {now[0]} and {now[1]}: set "
                    "warm_start=False"
                )
            whitening = self._family_options().whitening(surveyed.moments)
            return Start(self._mixture(engine, whitening), 0.0, 0.0)
        return self._start_options().start(surveyed, engine, self._seed, callbacks, executor)

    def _maker(self, surveyed: Surveyed, engine: Engine) -> Callable[[Sampled, int], Mixture]:
        """A function from the sample and a seed to a mixture to start from."""
        return self._start_options().maker(surveyed, engine)

    # -- the loop ----------------------------------------------------------------

    def _iterate(
        self,
        backend: Backend,
        source: Source,
        climbing: Algorithm,
        callbacks: list[Any],
        progress: Progress,
        unfinished: Checkpoint[SurveyPass, Progress],
        deadline: float,
    ) -> EMState:
        """The last state; every state is kept, with all that led to it."""
        records, run = progress.records, current_job()

        def advanced() -> EMState:
            number, wanted = len(records), climbing.proposals
            partial_sums = unfinished.partial_sums("em", number, list(wanted))
            with ObservedPass(callbacks, "em", number, source.n_rows, source.nbytes) as running:
                found = _summed(backend, source, wanted, running.advance, partial_sums)
                statistics = found[climbing.choose(found)]
                running.log_likelihood = statistics.mean_log_likelihood
                running.n_rows = statistics.n_rows
            assert running.record is not None
            records.append(running.record)
            return climbing.tell(statistics)

        while progress.state is None or not progress.state.ended:
            state = advanced()
            if not state.accepted:
                progress.rejected.append(state.n_iter)
            progress.state, progress.algorithm = state, climbing.state_dict()
            unfinished.commit(progress, len(records) - 1)
            for callback in callbacks:
                callback(state)
            # There is a model from here on.
            run.deadline = min(run.deadline, deadline)
        return progress.state

    def _keep(
        self,
        source: Source,
        surveyed: Surveyed,
        start: Start,
        state: EMState,
        records: list[PassRecord],
        rejected: Sequence[int] | None = None,
    ) -> None:
        self.history_ = [_history(record, rejected) for record in records]
        self.lower_bounds_ = _lower_bounds(self.history_)
        self.n_passes_ = len(records) + start.n_passes
        self.n_dropped_ = source.n_dropped
        self.provenance_: dict[str, Any] = {
            "source": source.description,
            "n_rows": surveyed.n_rows + source.n_dropped,
            "n_dropped": source.n_dropped,
            "n_features": source.n_features,
            "dtype": str(source.dtype),
            "fingerprint": fingerprint_of(surveyed),
            "fitted": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "dask_em": __version__,
        }
        self._set_state(state)

    def _set_state(self, state: EMState) -> None:
        self.state_ = state
        self.status_ = state.status
        self.converged_ = state.status.converged
        self.n_iter_ = state.n_iter
        self.lower_bound_ = state.log_likelihood
        self.weights_ = state.result.weights / state.result.weights.sum()
        for name, value in state.result.components.attributes().items():
            setattr(self, name, value)

    # -- predictions -------------------------------------------------------------

    @property
    def _fitted_constraint(self) -> Constraint:
        """That of the fitted attributes, whatever the options have been set to since."""
        if not hasattr(self, "state_"):
            return CONSTRAINTS[self.covariance_type]
        fitted: Any = self.state_.result.components
        return CONSTRAINTS[fitted.covariance_type]

    def _mixture(self, engine: Engine, whitening: Whitening | None = None) -> Mixture:
        """Return the fitted attributes as a mixture, whitened by its own moments."""
        constraint = self._fitted_constraint
        means = np.asarray(self.means_)
        covariance = constraint.storage.from_precisions_cholesky(
            np.asarray(self.precisions_cholesky_)
        )
        if whitening is None:
            k, d = means.shape
            center = self.weights_ @ means
            spread = np.einsum("k,kij->ij", self.weights_, covariance.full(k, d))
            spread = spread + ((means - center).T * self.weights_) @ (means - center)
            whitening = Whitening.of_moments(center, spread, constraint.whitening_kind)
        components = Gaussian.from_data_coordinates(
            means, covariance, whitening, self.reg_covar, constraint.name
        )
        return Mixture(np.log(self.weights_), components, engine)

    def _answer(self, X: Any, answer: Answer) -> Any:
        check_is_fitted(self)
        source = self._source(X)
        predict = Predict(self._mixture(self._engine()), (answer,))
        found = answer_rows(source, predict)
        labelled = Labelled.of(X)
        return found if labelled is None else labelled.answer(found, answer)

    def predictor(self, answers: Sequence[Answer]) -> Predict:
        """A picklable function from rows (n, d) to a dict of answers, for workers to call."""
        check_is_fitted(self)
        return Predict(self._mixture(self._engine()), tuple(answers))

    def predict(self, X: Any) -> Any:
        """Most likely component of each row, (n,); lazy unless X is in memory."""
        return self._answer(X, "labels")

    def predict_proba(self, X: Any) -> Any:
        """Responsibilities r_nk of each row, (n, k); lazy unless X is in memory."""
        return self._answer(X, "proba")

    def score_samples(self, X: Any) -> Any:
        """log p(x_n) of each row in nats, (n,); lazy unless X is in memory."""
        return self._answer(X, "log_density")

    def score(self, X: Any, y: None = None) -> float:
        """Mean log-likelihood per row, in nats: one pass."""
        return self.criteria(X)["log_likelihood"]

    def aic(self, X: Any) -> float:
        """Akaike information criterion, -2 log L + 2 p: lower is better."""
        return self.criteria(X)["aic"]

    def bic(self, X: Any) -> float:
        """Bayesian information criterion, -2 log L + p log n: lower is better."""
        return self.criteria(X)["bic"]

    def icl(self, X: Any) -> float:
        """Integrated completed likelihood, BIC + 2 x entropy (Biernacki et al. 2000)."""
        return self.criteria(X)["icl"]

    def criteria(self, X: Any) -> dict[str, float]:
        """Mean log-likelihood per row, AIC, BIC and ICL, all from one pass."""
        check_is_fitted(self)
        source = self._source(X)
        reading = ObservedPass(self._callbacks(), "score", 1, source.n_rows, source.nbytes)
        mixture = self._mixture(self._engine())
        with reading as running, one_blas_thread():
            scores = backend_in_force().map_reduce(source, Score(mixture), running.advance)
        parameters = mixture.n_parameters
        deviance = -2 * scores.log_likelihood
        bic = float(deviance + parameters * np.log(scores.n_rows))
        return {
            "n_rows": scores.n_rows,
            "log_likelihood": scores.log_likelihood / scores.n_rows,
            "aic": deviance + 2 * parameters,
            "bic": bic,
            "icl": bic + 2 * scores.entropy,
        }

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Draw rows (n, d) and their components (n,) from the fitted mixture."""
        _check_number("n_samples", n_samples, int, 1)
        drawn: tuple[Array, Array] = self.to_sklearn().sample(n_samples)
        return drawn

    def describe(self) -> ComponentDescription:
        """Describe the components in the units of the data, for tables and pictures."""
        check_is_fitted(self)
        names = names_of_columns(getattr(self, "feature_names_in_", None), self.means_.shape[1])
        kind = self._fitted_structure.kind
        return GaussianDescription(kind, names, self.means_, self.covariances_)

    # -- in notebooks --------------------------------------------------------------

    @property
    def _repr_html_(self) -> Callable[[], str]:
        """What notebooks show: after `fit` a summary, and scikit-learn's diagram below it."""
        diagram: Callable[[], str] = super()._repr_html_
        return lambda: self._with_summary(diagram())

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, str]:
        """The same for those notebooks that ask for every form at once."""
        bundle: dict[str, str] = super()._repr_mimebundle_(**kwargs)
        if "text/html" in bundle:
            bundle["text/html"] = self._with_summary(bundle["text/html"])
        return bundle

    def _with_summary(self, diagram: str) -> str:
        return summary_html(self) + diagram if hasattr(self, "state_") else diagram

    # -- in and out ----------------------------------------------------------------

    def to_sklearn(self) -> SklearnGaussianMixture:
        """The same mixture as a fitted `sklearn.mixture.GaussianMixture`."""
        check_is_fitted(self)
        shared = SklearnGaussianMixture().get_params().keys() & self.get_params().keys()
        options = {name: getattr(self, name) for name in shared}
        options["n_components"] = len(self.means_)
        options["covariance_type"] = self._fitted_constraint.name
        if options["init_params"] == "auto":
            options["init_params"] = "kmeans"
        model = SklearnGaussianMixture(**options)
        for name in SKLEARN_ATTRIBUTES:
            if hasattr(self, name):
                setattr(model, name, getattr(self, name))
        return model

    def save(self, path: str | os.PathLike[str], overwrite: bool = True) -> None:
        """Write the fitted model to one checksummed `.npz` file, whole or not at all.

        Raises
        ------
        OutputExistsError
            The file is there and `overwrite` is False.
        UsageError
            There is no such folder.
        """
        check_is_fitted(self)
        check_folder(os.fspath(path))
        write_model(path, self, overwrite)

    def to_saved(self) -> SavedModel:
        """Return what a model file holds of the fit."""
        apart = (*INIT_ARRAYS, "callbacks", "checkpoint")
        options = {n: plain(value) for n, value in self.get_params().items() if n not in apart}
        # The file is of the fit, whatever was set since; no generator or module goes into it.
        options["n_components"] = len(self.weights_)
        options["covariance_type"] = self._fitted_structure.kind
        options |= {"warm_start": bool(self.warm_start), "verbose": int(self.verbose)}
        if not isinstance(options["random_state"], int | None):
            options["random_state"] = None
        if not isinstance(self.device, str):
            options["device"] = "cpu"
        arrays = {name: np.asarray(getattr(self, name)) for name in PUBLIC_ARRAYS}
        for name in INIT_ARRAYS:
            if getattr(self, name) is not None:
                arrays[name] = np.asarray(getattr(self, name), dtype=np.float64)
        if hasattr(self, "feature_names_in_"):
            arrays["feature_names_in_"] = np.asarray(self.feature_names_in_, dtype=str)
        tag = estimator_tag(type(self))
        made = self.history_, self.n_passes_, self.provenance_
        return SavedModel(tag, options, self.state_, *made, arrays)

    @classmethod
    def from_saved(cls, saved: SavedModel) -> Self:
        """Return the fitted estimator that a model file held.

        Raises
        ------
        KeyError, TypeError, ValueError
            A part is missing, or does not go with the others.
        """
        found, state = saved.attributes, saved.state
        inits = {name: found[name] for name in INIT_ARRAYS if name in found}
        model = cls(**{**saved.options, **inits})
        model._check_options()
        for mixture in (state.mixture, state.result):
            components: Any = mixture.components
            kind = components.covariance_type
            require("covariance_type", kind, kind == model.covariance_type)
        require("n_components", model.n_components, model.n_components == len(state.result.weights))
        model._set_state(state)
        for name in PUBLIC_ARRAYS:
            require_array(name, found[name], getattr(model, name).shape)
            setattr(model, name, found[name])
        require("weights_", model.weights_, bool((model.weights_ >= 0).all()))
        for name, array in inits.items():
            require_array(name, array, found[f"{name.removesuffix('init')}"].shape)
        model.n_features_in_ = d = model.means_.shape[1]
        if "feature_names_in_" in found:
            names = found["feature_names_in_"]
            wrong = f"{names.dtype} {names.shape}"
            require("feature_names_in_", wrong, names.shape == (d,) and names.dtype.kind == "U")
            model.feature_names_in_ = names.astype(object)
        model.history_ = saved.history
        model.lower_bounds_ = _lower_bounds(saved.history)
        model.n_passes_, model.provenance_ = saved.n_passes, saved.provenance
        model.n_dropped_ = int(saved.provenance["n_dropped"])
        return model

    def _check_options(self) -> None:
        _check_number("n_components", self.n_components, int, 1)
        _check_number("max_iter", self.max_iter, int, 1)
        _check_number("n_init", self.n_init, int, 1)
        _check_number("tol", self.tol, float, 0)
        _check_number("reg_covar", self.reg_covar, float, 0)
        if self.sample_size is not None:
            _check_number("sample_size", self.sample_size, int, 1)
        if self.max_passes is not None:
            # One for the survey, and one for a log-likelihood.
            _check_number("max_passes", self.max_passes, int, 2)
        if self.max_time is not None:
            _check_number("max_time", self.max_time, float, 0)
        if not isinstance(self.checkpoint, str | os.PathLike | Checkpointing | None):
            raise ValueError(
                f"checkpoint={self.checkpoint!r}: expected the path of a folder or a Checkpointing"
            )
        _check_choice("covariance_type", self.covariance_type, CONSTRAINTS)
        _check_choice("init_params", self.init_params, LABELLERS)
        _ = self.read_options
        _check_choice("algorithm", self.algorithm, ("auto", "em"))
        callbacks = self.callbacks
        if callbacks is not None and not (
            isinstance(callbacks, Iterable) and all(callable(one) for one in callbacks)
        ):
            raise ValueError(f"callbacks={callbacks!r}: expected a list of callables, or None")
        try:
            check_random_state(self.random_state)
        except ValueError as e:
            raise ValueError(
                f"random_state={self.random_state!r}: expected an integer from 0 to 2**32 - 1, a "
                "numpy.random.RandomState, or None"
            ) from e


def _summed(
    backend: Backend,
    source: Source,
    mixtures: tuple[Mixture, ...],
    advance: Advance | None,
    partial_sums: PartialSumsStore[Any] | None,
) -> tuple[MixtureStatistics, ...]:
    """The sums of one pass at each of some mixtures."""
    if len(mixtures) == 1:
        # The sums of one are added in place.
        return (backend.map_reduce(source, mixtures[0], advance, partial_sums),)
    found: FleetStatistics = backend.map_reduce(source, Fleet(mixtures), advance, partial_sums)
    return found.members


def executor_factory(backend: Backend, source: Source) -> ExecutorFactory:
    """Return what makes the fits to the sample of a source."""
    return partial(backend.executor, in_process=source.in_process)


def _out_of_time(state: EMState | None, proposal: Mixture, sample: Sampled) -> EMState:
    """What a fit ends with whose time is over: before the first pass, the start on the sample."""
    if state is None:
        here = replace(proposal, engine=replace(proposal.engine, device="cpu"))
        state = EMState(proposal, sample.accumulate(here), 0, (), Status.RUNNING, proposal)
    return replace(state, status=Status.OUT_OF_TIME)


def warn_unless_converged(state: EMState, stacklevel: int) -> None:
    """Warn of a fit that ended otherwise, and say what to try."""
    if state.status is not Status.CONVERGED:
        collapsed = f" (components {list(state.collapsed)})" if state.collapsed else ""
        warnings.warn(
            f"{state.status.name.lower().replace('_', ' ')}{collapsed}: {state.status.value}",
            ConvergenceWarning,
            stacklevel=stacklevel,
        )


SKLEARN_ATTRIBUTES = (
    "weights_",
    "means_",
    "covariances_",
    "precisions_",
    "precisions_cholesky_",
    "converged_",
    "n_iter_",
    "lower_bound_",
    "lower_bounds_",
    "n_features_in_",
    "feature_names_in_",
)


def _check_number(name: str, value: Any, kind: type, least: float) -> None:
    allowed = (int, np.integer) if kind is int else (int, float, np.integer, np.floating)
    right = isinstance(value, allowed) and not isinstance(value, bool) and value >= least
    if not right or not np.isfinite(value):
        noun = "an integer" if kind is int else "a number"
        raise ValueError(f"{name}={value!r}: expected {noun} of at least {least}")


def _check_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(choices)}")


def _shortened(names: Array) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")


def _history(record: PassRecord, rejected: Sequence[int] | None) -> dict[str, Any]:
    """A pass for `history_`; of a pass that served one model, whether it was accepted."""
    if record.phase != "em" or rejected is None:
        return record.as_dict()
    return {**record.as_dict(), "accepted": record.number not in rejected}


def _lower_bounds(history: Sequence[dict[str, Any]]) -> list[float]:
    """The log-likelihood after each pass of EM: that of the best where one was rejected."""
    bounds: list[float] = []
    for record in history:
        if record["phase"] == "em":
            accepted = not bounds or record.get("accepted", True)
            bounds.append(record["log_likelihood"] if accepted else bounds[-1])
    return bounds
