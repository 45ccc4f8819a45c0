"""Mixture estimators: all of scikit-learn's contract that knows no family."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar, Self

import numpy as np

from ..backends.dask.config import engine_for
from ..core.codec import digest
from ..core.device import resolve_device
from ..core.em import Convergence, EMState, Status
from ..core.engine import Engine
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.tuning import tuning
from ..data.options import MissingChunks, Names, NonFinite, ReadOptions
from ..fitting.driver import FitProgress
from ..fitting.observers import Observer, observers_of
from ..fitting.progress import reporter
from ..fitting.recorded_passes import SurveyPass
from ..fitting.starts import LABELLERS, StartOptions
from ..fitting.survey import Surveyed, fingerprint_of
from ..storage.checkpoint import Checkpoint
from ..version import __version__
from .fits import Fit
from .fitted import UNIMPORTANT
from .fixed import check_given, fixed_parts
from .given import GivenParameters
from .known import KnownLabels
from .options import (
    check_callbacks,
    check_checkpoint,
    check_choice,
    check_number,
    check_seed,
    plain,
)
from .update import update

logger = logging.getLogger("dask_em")


class MixtureEstimator(GivenParameters):
    """Fit a mixture of K components of some family by Expectation-Maximization.

    A subclass writes `family_options`, and is registered by `register_estimator` under the tag
    that names it in files and on the command line.

    Parameters
    ----------
    n_components : int, default=1
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init : int, default=1
        Starts tried on the sample; the best goes on to the full data.
    init_params : {"auto", "kmeans", "k-means++", "random", "random_from_data"}
        How responsibilities of the sample are made.
    weights_init : (k,) array, optional
    fixed : str, set of str, or mapping of str to sequence of int, optional
        Names of parameters that stay as they start, of those in `fixable`, or the components of
        each: {"weights"}, {"weights": [0]}. Weights are equal where `weights_init` are not given.
        What is held is no free parameter, in BIC too, and components are neither split nor merged.
    algorithm : {"auto", "em"}, default="auto"
        Accelerated, or plain EM, iteration for iteration.
    sample_size : int, optional
        Rows of the uniform sample that the start is made from.
    max_passes : int, optional
        Full passes at most, the survey counted: at least 2.
    max_time : float, optional
        Seconds after which the fit ends with the best that it has.
    nonfinite : {"error", "drop"}, default="error"
        What becomes of rows that hold NaN or infinity.
    missing_chunks : {"error", "fill"}, default="error"
        What becomes of Zarr chunks that are not there.
    columns, exclude : str or sequence of str, optional
        Names of the columns that are fitted, in this order, and of those that are not; or
        patterns of names: "flux_*". All by default. Later reads find them by name.
    features : str, optional
        The dimension of a grid that holds the variables: each cell of the others is a row.
    raw : bool, default=False
        Take packed numbers (`scale_factor`, `_FillValue`, ...) as they are stored.
    random_state : int, RandomState or None
    warm_start : bool, default=False
        Start from the last result; on the same data, go on from where the last fit ended.
    callbacks : sequence of callable or Observer, optional
        Each is called with the `EMState` after every pass, when it is in the checkpoint.
    checkpoint : path, URL or Checkpointing, optional
        A folder in which the fit keeps what it needs to go on after it was killed.
    device : {"cpu", "cuda", "auto"} or array namespace, default="cpu"
    verbose : int, default=0
        Above zero, a progress bar for each pass; where there is no terminal, a line in the log,
        or on standard error where nobody reads the log, as in a notebook.

    Attributes
    ----------
    weights_ : (k,) array
        Beside it the components' own attributes, see `Family.attributes`.
    converged_, status_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_
        As in `GaussianMixture`.
    state_ : EMState
        Parameters of the best pass paired with their statistics.
    provenance_ : dict

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> class Balls(MixtureEstimator):
    ...     def family_options(self):
    ...         return GaussianOptions("spherical")
    >>> X = np.repeat([[0.0, 0.0], [8.0, 8.0]], 100, axis=0)
    >>> X += np.random.default_rng(0).normal(size=X.shape)
    >>> Balls(2, random_state=0).fit(X).weights_.round(3).tolist()
    [0.5, 0.5]
    """

    # By the names of parameters that `fixed` may hold, the options that give them.
    fixable: ClassVar[Mapping[str, str]] = MappingProxyType({"weights": "weights_init"})

    fixed: Any = None

    def __init__(
        self,
        n_components: int = 1,
        *,
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "auto",
        weights_init: Any = None,
        fixed: Any = None,
        algorithm: str = "auto",
        sample_size: int | None = None,
        max_passes: int | None = None,
        max_time: float | None = None,
        nonfinite: NonFinite = "error",
        missing_chunks: MissingChunks = "error",
        columns: Names = None,
        exclude: Names = None,
        features: str | None = None,
        raw: bool = False,
        random_state: Any = None,
        warm_start: bool = False,
        callbacks: Sequence[Callable[[EMState], object] | Observer] | None = None,
        checkpoint: Any = None,
        device: Any = "cpu",
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.fixed = fixed
        self.algorithm = algorithm
        self.sample_size = sample_size
        self.max_passes = max_passes
        self.max_time = max_time
        self.nonfinite = nonfinite
        self.missing_chunks = missing_chunks
        self.columns = columns
        self.exclude = exclude
        self.features = features
        self.raw = raw
        self.random_state = random_state
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.device = device
        self.verbose = verbose

    # -- what a family's estimator says -------------------------------------------------

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        check_number("n_components", self.n_components, int, 1)
        check_number("n_init", self.n_init, int, 1)
        check_choice("init_params", self.init_params, LABELLERS)
        check_choice("algorithm", self.algorithm, ("auto", "em"))
        self.check_limits()
        self.check_fixed()

    def check_limits(self) -> None:
        """Raise `ValueError` where an option that all families have is not one of those allowed."""
        check_number("max_iter", self.max_iter, int, 0)
        check_number("tol", self.tol, float, 0)
        if self.sample_size is not None:
            check_number("sample_size", self.sample_size, int, 1)
        if self.max_passes is not None:
            # One for the survey, and one for a log-likelihood.
            check_number("max_passes", self.max_passes, int, 2)
        if self.max_time is not None:
            check_number("max_time", self.max_time, float, 0)
        check_checkpoint(self.checkpoint)
        _ = self.read_options
        check_callbacks(self.callbacks)
        check_seed(self.random_state)

    def check_fixed(self) -> None:
        """Raise `ValueError` where what is held was not given, or cannot be held."""
        given = [o for o in self.fixable.values() if getattr(self, o, None) is not None]
        check_given(self.fixed, self.n_components, self.fixable, given)

    def held_parts(self, k: int) -> dict[str, Sequence[int] | None] | None:
        """Return the components of each parameter that is held of k, None for all."""
        return fixed_parts(self.fixed, k, self.fixable.keys())

    def mixture(self, engine: Engine) -> Mixture:
        """Return the fitted mixture, to be computed by `engine`."""
        return replace(self.state_.result, engine=engine)

    def earlier_mixture(self, moments: Moments) -> Mixture:
        """Return the last result as the start of a fit to data of these moments.

        Raises
        ------
        ValueError
            It is of other options than this fit.
        """
        k = len(self.weights_)
        if k != self.n_components:
            raise ValueError(
                f"warm_start=True, but the last fit was of n_components={k}, and this one is of "
                f"{self.n_components}: set warm_start=False"
            )
        return self.state_.result

    def earlier(self, surveyed: Surveyed) -> Mixture | EMState:
        """Return where a warm start begins: of the same data and options, with all that is known.

        Then two fits are one with a pause, and the second compares what it finds with the end of
        the first.
        """
        mixture = self.earlier_mixture(surveyed.moments)
        same_data = self.provenance_["fingerprint"] == fingerprint_of(surveyed)
        if not same_data or not self.may_go_on:
            return mixture
        return replace(self.state_, n_iter=0, status=Status.RUNNING)

    # -- fitting ------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: None = None,
        sample_weight: Any = None,
        labels_init: Any = None,
        labels_fixed: bool = False,
        noise_covariance: Any = None,
        keep_sample: int = 0,
    ) -> Self:
        """Estimate the parameters with one survey pass and one pass an iteration.

        Parameters
        ----------
        X : NumPy array, Dask array, xarray.DataArray, zarr.Array, or path or URL of a Zarr array
            (n, d). Never loaded whole, never persisted. Of a DataArray the first dimension is
            rows, and answers come back with their coordinates. Or a table: of pandas, polars,
            pyarrow or Dask. Or anything with a shape, a dtype and slices by rows, such as an
            `h5py.Dataset`. Packed numbers of Zarr and HDF5 are decoded, and masked ones are NaN.
        y : ignored
        sample_weight : the same kinds, (n,), or the name of a column of X, optional
            A row of weight w counts as w rows. A column of weights is no feature.
        labels_init : the same kinds, (n,) or (n, k), or the name of a column of X, optional
            Components of the rows, from 0 to k - 1, k of noise, and -1 where they are unknown; or
            their responsibilities, each row -1 where nothing is known, with noise in the last of
            k + 1 columns. The fit starts with the M-step of
            these, over all rows that have some, in place of a start on the sample. Components are
            numbered by them. A column of labels is no feature; one of categories counts them.
        labels_fixed : bool, default=False
            Keep what `labels_init` says in every E-step: a label excludes all other components,
            and responsibilities multiply the density of each. The fit then raises
            sum log w_l p_l(x) of the rows that have a label l, and log p(x) of the others
            (semi-supervised; Come, Oukhellou, Denoeux and Aknin 2009).
        noise_covariance : the same kinds, (n, d) or (n, d, d), or names of columns of X, optional
            The known noise of each row, of Gaussian mixtures: variances of its columns, or
            covariances, in squared units of the data; in memory (d,) or (d, d) too, for all rows.
            A row is then x = v + e with e ~ N(0, S), S its own, and the mixture is that of v, whose
            covariances are without the noise (extreme deconvolution: Bovy, Hogg and Roweis, Annals
            of Applied Statistics 5, 2011). Log-likelihoods are those of the rows with their noise.
            Columns of noise are no features. On the CPU, and without missing values.
        keep_sample : int, default=0
            Rows of the first pass's uniform sample that stay with the model, at most, as
            `kept_sample_`, and go into its file. `update` joins new rows to them; they tell it how
            the rows that it does not read move with the parameters, and of optima that the first
            rows did not show. Ten rows a parameter are the fewest that are used.

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
        known = KnownLabels.of(labels_init, labels_fixed)
        Fit([self], keep_sample=keep_sample).run(X, sample_weight, known, noise_covariance)
        return self

    def fit_predict(
        self,
        X: Any,
        y: None = None,
        sample_weight: Any = None,
        labels_init: Any = None,
        labels_fixed: bool = False,
        noise_covariance: Any = None,
    ) -> Any:
        """Fit, then label every row; equal to `fit(X).predict(X)`."""
        fitted = self.fit(X, y, sample_weight, labels_init, labels_fixed, noise_covariance)
        return fitted.predict(X, noise_covariance=noise_covariance)

    def unfinished(
        self,
        X: Any,
        sample_weight: Any = None,
        labels_init: Any = None,
        labels_fixed: bool = False,
        noise_covariance: Any = None,
    ) -> Checkpoint[SurveyPass, FitProgress]:
        """Return the fit of these options to these data that is kept, or a new one."""
        known = KnownLabels.of(labels_init, labels_fixed)
        return Fit([self]).unfinished(X, sample_weight, known, noise_covariance)

    def update(
        self,
        X: Any,
        sample_weight: Any = None,
        *,
        forget: str | float | None = None,
        max_iter: int = 10,
        exact: bool = False,
        checkpoint: Any = None,
        keep_sample: int | None = None,
    ) -> Self:
        """Let new rows join the sums that the model keeps, by a few passes over them alone.

        The E-step is of the new rows, at the parameters as they are by then; the responsibilities
        of the others stay as their last pass found them, and the M-step is of the sums of all. So
        a bound of the log-likelihood of all rows never falls (incremental EM: Neal and Hinton
        1998). Where X is a store that the model has read and that has grown, only what was
        appended is read; rows that are in the model already change nothing.

        Parameters
        ----------
        X : the same kinds as in `fit`, (n, d)
            Its columns are found by their names, as in `predict`. There may be few rows.
        sample_weight : the same kinds, (n,), or the name of a column of X, optional
        forget : str or float, optional
            Half-life of rows: after so much of new weight ("1e6rows", or a number), or so long
            ("36h", "30d", since the last update), what was read before counts as half.
        max_iter : int, default=10
            Passes over the new rows at most, the survey not counted; `tol` ends them.
        exact : bool, default=False
            Read all rows of X and nothing else, as a fit that starts from the model.
        checkpoint : path, URL or Checkpointing, optional
            A folder in which an update keeps what it needs to go on after it was killed.
        keep_sample : int, optional
            Rows that stay with the model, of which the new ones have their share: as many as there
            are, by default. Where `fit` kept none, none can be kept without `exact`.

        Returns
        -------
        self
            `provenance_["generations"]` tells of the fit and of each update the rows, and their
            mean log-likelihood as the model saw them before it learned from them.

        Raises
        ------
        DataError
            The rows cannot be used; or the store was written where the model has read it.
        UsageError
            The model has no sums that others may join: it was adapted, has no pass or was changed
            by hand, or its family has none (Student's t).

        Examples
        --------
        >>> import numpy as np
        >>> from dask_em import GaussianMixture
        >>> rng = np.random.default_rng(0)
        >>> gm = GaussianMixture(1).fit(rng.normal(0.0, 1.0, (1000, 1)))
        >>> gm.update(rng.normal(3.0, 1.0, (1000, 1))).means_.round(1).tolist()
        [[1.5]]
        """
        joined = update(self, X, sample_weight, forget, max_iter, exact, checkpoint, keep_sample)
        if not joined:
            logger.info("nothing new: all rows of X are in the model already")
        return self

    def start_options(self) -> StartOptions:
        """Return how the mixture is to start."""
        again = self.warm_start and hasattr(self, "state_")
        return StartOptions(
            self.family_options(),
            self.n_components,
            self.tol,
            self.max_iter,
            self.n_init,
            self.init_params,
            self.weights_init,
            self.algorithm,
            self.assignment,
            self.earlier if again else None,
            family=self.family,
            held=self.held_parts(self.n_components),
        )

    def convergence(self) -> Convergence:
        """Return the limits at which a fit stops."""
        return Convergence(self.tol, self.max_iter, self.max_passes)

    def remedy(self, status: Status) -> str:
        """Return why a fit ended so, and what to try."""
        return status.reason(self.objective_.name, self.objective_.rises)

    def quick(self) -> Self:
        """Return an estimator of such a mixture that needs two iterations from k-means++."""
        few = {"init_params": "k-means++", "max_iter": 2, "random_state": 0}
        return type(self)(**{**self.get_params(), **self.params_of_rows(), **few})

    def engine(self, dtype: Any = np.float64, n_rows: int | None = None) -> Engine:
        """Return what computes, here and on every worker, for data of this type and size."""
        n_responsibilities = np.inf if n_rows is None else n_rows * self.n_components
        return engine_for(dtype, resolve_device(self.device), n_responsibilities)

    def identity(self, engine: Engine) -> dict[str, Any]:
        """Return all that the bits of a fit depend on beside the data, for JSON."""
        options = {n: v for n, v in self.get_params().items() if n not in UNIMPORTANT}
        for name in self.array_options:
            given = options[name]
            if not isinstance(given, str | None):
                options[name] = digest(np.asarray(given, dtype=np.float64))
        if not isinstance(self.random_state, int | np.integer | None):
            options["random_state"] = "a generator"
        if self.warm_start and hasattr(self, "state_"):
            reached = self.state_.mixture.to_unconstrained()
            options["warm_start"] = digest([*map(self.fitted_array, self.public_arrays), reached])
        options |= self.told_names()
        options["device"] = getattr(self.device, "__name__", self.device)
        options |= {"engine": engine.name, "float32": engine.single, "dask_em": __version__}
        options |= {"tuning": tuning().changes()}
        return {name: plain(value) for name, value in options.items()}

    @property
    def read_options(self) -> ReadOptions:
        """How data are read: whatever is done with the model reads as its fit did."""
        return self._reading(self.columns)

    def _reading(self, columns: Names) -> ReadOptions:
        """Return how data are read, of which these columns are wanted."""
        return ReadOptions.of(
            missing_chunks=self.missing_chunks,
            nonfinite=self.nonfinite,
            columns=columns,
            exclude=self.exclude,
            features=self.features,
            raw=self.raw,
            fitted=vars(self).get("feature_names_in_"),
            codes=self.takes_codes,
            categories=vars(self).get("feature_categories_"),
        )

    def params_of_rows(self) -> dict[str, Any]:
        """Return the parameters that differ for rows without names, of the columns taken."""
        return {"columns": None, "exclude": None, "features": None}

    def observers(self) -> list[Observer]:
        """Return who is told what the fit does."""
        callbacks = list(self.callbacks or ())
        return observers_of([*callbacks, reporter(verbose=True)] if self.verbose > 0 else callbacks)
