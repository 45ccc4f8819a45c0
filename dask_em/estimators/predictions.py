"""Answers of a fitted mixture for data that it opens: labels, densities, scores, draws."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, get_args

import numpy as np
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..backends import backend_in_force
from ..backends.blas import one_blas_thread
from ..core.additive import Array, S
from ..core.beside import LABELS, NOISE
from ..core.chunk_log import Logged
from ..core.columns import Column
from ..core.draws import draw
from ..core.engine import NUMPY, Engine
from ..core.mixture import Mixture
from ..core.passes import LoggingPass
from ..core.protocols import Pass, Source
from ..core.scoring import (
    NO_LABEL,
    NO_LABEL_BESIDE_NOISE,
    NOISE_LABEL,
    Answer,
    Predict,
    RowAnswers,
    Score,
    Scores,
)
from ..core.support import REAL
from ..data.checks import check_dimensions, tell_once
from ..data.columns import check_columns, listed
from ..data.labels import check_as_frame, row_map, with_labels
from ..data.lazy import gridded
from ..data.memory import is_compact
from ..data.open import (
    as_source,
    is_opened,
    labels_beside,
    noise_beside,
    with_columns_beside,
)
from ..data.xarray import Labelled, unlabelled
from ..errors import DataError
from ..fitting.checks import check_scores, check_weights
from ..fitting.criteria import Criteria, criteria
from ..fitting.observers import ObservedPass, Observer
from .answers import answer_rows
from .describe import ComponentDescription, FamilyDescription, names_of_columns
from .fitted import FittedEstimator, real_type
from .html import summary_html
from .known import check_noise_covariance
from .names import checked_names
from .options import check_choice, check_label_type, check_n_samples
from .tables import OfModel, components_frame, records_frame

logger = logging.getLogger("dask_em")


class Predictions(FittedEstimator):
    """The half of a mixture estimator that answers once it is fitted."""

    n_components: int
    device: Any

    def engine(self, dtype: Any = np.float64, n_rows: int | None = None) -> Engine:
        """Return what computes, here and on every worker, for data of this type and size."""
        raise NotImplementedError

    def _answering_engine(self, n_rows: int | None) -> Engine:
        """Return what computes answers: what the fit was made by, unless many are asked for.

        So some of the rows, or rows that nobody has counted, have the digits that all have.
        """
        # One whose parameters were set by hand has no fit.
        if hasattr(self, "state_") and self.state_.mixture.engine.name != "numpy":
            return self.engine()
        return self.engine(n_rows=n_rows or 0)

    @property
    def n_labels(self) -> int:
        """How many numbers labels of rows may have."""
        return self.n_components

    def observers(self) -> list[Observer]:
        """Return who is told of passes."""
        raise NotImplementedError

    def source(
        self,
        X: Any,
        sample_weight: Any = None,
        reset: bool = False,
        labels: Any = None,
        noise: Any = None,
    ) -> Source:
        """Open X for a fit (`reset`), or hold its columns to those of the fit.

        Raises
        ------
        DataError
            Its rows cannot be used; the message says what to do.
        """
        # A fit chooses anew.
        options = replace(self.read_options, fitted=()) if reset else self.read_options
        options = with_columns_beside(options, labels, noise)
        labelled = Labelled.of(X, options)
        if labelled is not None:
            X, sample_weight = labelled.data, labelled.weights(sample_weight)
            labels = labelled.beside(labels, LABELS)
            noise = labelled.beside(noise, NOISE)
        if not is_opened(X):
            X = self._checked(X, reset, labelled is None)
        with checked_names(self, X, options, reset):
            source = as_source(X, unlabelled(sample_weight), options)
            if labels is not None:
                source = labels_beside(source, X, labels, self.n_labels, options)
            if noise is not None:
                source = noise_beside(source, X, unlabelled(noise), options)
        if reset:
            source.check()
            if source.decoding:
                tell_once(
                    f"{source.description}: packed or masked numbers are decoded by "
                    f"{source.decoding}; the option raw takes them as they are stored"
                )
        self._take_columns(source, source.columns, reset)
        return source

    def _checked(self, X: Any, reset: bool, plain: bool) -> Any:
        """Check what nothing opens as scikit-learn does; it is converted later, block by block."""
        check_dimensions("X", X)
        checks: dict[str, Any] = {
            "dtype": None if is_compact(X) else [np.float64, np.float32],
            # Whoever reads the rows names row and column of what is not finite.
            "ensure_all_finite": False,
            "ensure_min_samples": 2 if reset else 1,
        }
        if plain:
            return validate_data(self, X, reset=reset, **checks)
        return check_array(X, estimator=self, **checks)

    def take_columns(self, source: Source) -> None:
        """Take number, names and kinds of the columns of data that are to be fitted."""
        self._take_columns(source, source.columns, True)

    def _take_columns(self, source: Source, columns: Sequence[Column] | None, reset: bool) -> None:
        """Keep number and names of the columns, or hold them to those of the fit."""
        names = None if columns is None else [column.name for column in columns]
        if reset:
            self.n_features_in_ = source.n_features
            self.__dict__.pop("feature_names_in_", None)
            self.__dict__.pop("feature_categories_", None)
            if names is not None:
                self.feature_names_in_ = np.asarray(names, dtype=object)
            if self.takes_codes and columns is not None:
                self.feature_categories_ = tuple(tuple(c.categories) for c in columns)
            return
        check_columns("X", source.n_features, self.n_features_in_)
        fitted = vars(self).get("feature_names_in_")
        if names is not None and fitted is not None and names != [*fitted]:
            raise DataError(
                f"X has the columns {listed(names)}, but this {type(self).__name__} was fitted to "
                f"{listed(fitted)}: give the same in the same order"
            )

    def _answer(
        self, X: Any, answer: Answer, as_frame: bool, labels: Any = np.int64, noise: Any = None
    ) -> Any:
        def make(source: Source) -> RowAnswers:
            found = self.predictor((answer,), source.dtype, source.n_rows, noise is not None)
            return replace(found, labels=np.dtype(labels))

        return self._answered(X, make, answer, as_frame, noise)

    def _answered(
        self,
        X: Any,
        make: Callable[[Source], RowAnswers],
        name: str,
        as_frame: bool = False,
        noise: Any = None,
    ) -> Any:
        """Return the answers of a function that is made for the source, as X has its rows."""
        check_is_fitted(self)
        if as_frame:
            check_as_frame(X)
        source = self.source(X, noise=noise)
        rows = source if noise is not None else row_map(X, source, self.read_options, name)
        found = answer_rows(source, make(source), rows)
        if source.grid is not None:
            found = gridded(found, source.grid)
        return with_labels(X, found, name, as_frame, self.read_options)

    def predictor(
        self,
        answers: Sequence[Answer],
        dtype: Any = np.float64,
        n_rows: int | None = None,
        noisy: bool = False,
    ) -> Predict:
        """Return a picklable function from rows (n, d) of this type to a dict of answers.

        Answers are float32 where both the rows and the data of the fit are. Behind the columns of
        `noisy` rows stands their noise.
        """
        check_is_fitted(self)
        drop = self.read_options.nonfinite == "drop"
        reals = np.result_type(self.parameters_dtype, real_type(dtype))
        mixture = self._answering(n_rows, noisy)
        return Predict(mixture, tuple(answers), drop, reals=reals)

    def _answering(self, n_rows: int | None, noisy: bool) -> Mixture:
        """Return the mixture that answers for so many rows, beside which their noise may stand."""
        mixture = self.mixture(self._answering_engine(n_rows))
        if not noisy:
            return mixture
        options = self.family_options()
        check_noise_covariance(options, self.device)
        return mixture.holding(options.noisy(mixture.components)).on_cpu

    def predict(
        self,
        X: Any,
        dtype: Any = np.int64,
        as_frame: bool = False,
        noise_covariance: Any = None,
    ) -> Any:
        """Return the most likely component of each row, (n,); lazy unless X is in memory.

        X is read as the data of the fit were (`missing_chunks`, `nonfinite`), unless
        `set_params` said otherwise since. With nonfinite="drop" a row that holds NaN or
        infinity has the label -1, and the log says how many there are. A row that is noise has
        the label -1, and one without an answer then has -2.

        Parameters
        ----------
        X : the same kinds as in `fit`, (n, d)
        dtype : type of integers, default=int64
            That of the labels: int8 holds those of up to 128 components in an eighth.
        as_frame : bool, default=False
            Return those of a table in memory as a Series of its library, with the index of X;
            scikit-learn's answers, and these by default, are NumPy arrays.
        noise_covariance : as in `fit`, optional
            The known noise of these rows, of Gaussian mixtures, however they were fitted. Without
            it rows have none.

        Returns
        -------
        array, (n,) of integers
            NumPy where X is in memory, else a lazy Dask array. That of a Dask array has the
            chunks of its rows; that of a Zarr array, of a path or a URL the chunks of
            `dask.array.from_zarr(X)`, or, of a table in files, what is decoded at once. So
            `da.map_blocks(f, X, labels)` gives f rows and their labels. Of a DataArray it is one,
            with the coordinates of the rows; of a Dask DataFrame a Series of its divisions and
            index.

        Raises
        ------
        ValueError
            The labels do not fit into `dtype`.
        """
        self.check_labels(dtype)
        return self._answer(X, "labels", as_frame, dtype, noise_covariance)

    def check_labels(self, dtype: Any) -> None:
        """Raise `ValueError` unless a type holds all labels of rows."""
        check_is_fitted(self)
        noisy, least = self.fitted_box is not None, 0
        if self.read_options.nonfinite == "drop":
            least = NO_LABEL_BESIDE_NOISE if noisy else NO_LABEL
        elif noisy:
            least = NOISE_LABEL
        check_label_type(dtype, least, len(self.weights_))

    def predict_proba(self, X: Any, as_frame: bool = False, noise_covariance: Any = None) -> Any:
        """Compute responsibilities r_nk of each row, (n, k); lazy unless X is in memory.

        Where there is noise they are (n, k + 1), and its own are in the last column. Chunks are
        those of `predict` along rows, and one along components; `as_frame` and `noise_covariance`
        as there. A row without an answer holds NaN.
        """
        return self._answer(X, "proba", as_frame, noise=noise_covariance)

    def score_samples(self, X: Any, as_frame: bool = False, noise_covariance: Any = None) -> Any:
        """Compute log p(x_n) of each row in nats, (n,); lazy unless X is in memory.

        Chunks are those of `predict`; `as_frame` and `noise_covariance` as there: the density is
        that of rows with their noise. A row without an answer holds NaN.
        """
        return self._answer(X, "log_density", as_frame, noise=noise_covariance)

    def score(
        self, X: Any, y: None = None, sample_weight: Any = None, noise_covariance: Any = None
    ) -> float:
        """Compute the mean log-likelihood per row, in nats: one pass.

        Here and in `criteria` a row of weight w counts as w rows.
        """
        return self.criteria(X, sample_weight, noise_covariance)["log_likelihood"]

    def aic(self, X: Any, sample_weight: Any = None, noise_covariance: Any = None) -> float:
        """Compute the Akaike information criterion, -2 log L + 2 p: lower is better."""
        return self.criteria(X, sample_weight, noise_covariance)["aic"]

    def bic(self, X: Any, sample_weight: Any = None, noise_covariance: Any = None) -> float:
        """Compute the Bayesian information criterion, -2 log L + p log n: lower is better.

        n is the sum of the weights.
        """
        return self.criteria(X, sample_weight, noise_covariance)["bic"]

    def icl(self, X: Any, sample_weight: Any = None, noise_covariance: Any = None) -> float:
        """Compute the integrated completed likelihood, BIC + 2 x entropy.

        Biernacki, Celeux and Govaert (2000).
        """
        return self.criteria(X, sample_weight, noise_covariance)["icl"]

    def entropy_r2(self, X: Any, sample_weight: Any = None, noise_covariance: Any = None) -> float:
        """Compute how clearly rows belong to components: 1 - entropy / (n log K), one pass.

        1 where each row belongs to one component alone, 0 where to all of them alike (Ramaswamy,
        DeSarbo, Reibstein and Robinson, Marketing Science 12, 1993).
        """
        found, k = self.criteria(X, sample_weight, noise_covariance), self.state_.result.n_parts
        entropy = (found["icl"] - found["bic"]) / 2
        return 1.0 if k == 1 else 1.0 - entropy / (found["weight"] * float(np.log(k)))

    def criteria(self, X: Any, sample_weight: Any = None, noise_covariance: Any = None) -> Criteria:
        """Compute mean log-likelihood per row, AIC, BIC and ICL, all from one pass.

        X is read as the data of the fit were, unless `set_params` said otherwise since: with
        nonfinite="drop" rows that hold NaN or infinity are left out and counted.

        Parameters
        ----------
        X : as in `fit`
        sample_weight : the same kinds, (n,), or the name of a column of X, optional
            A row of weight w counts as w rows. Weights of the fit are not remembered: criteria
            of a weighted fit need them again.
        noise_covariance : as in `fit`, optional
            The known noise of these rows. That of the fit is not remembered, either.

        Returns
        -------
        dict
            Beside the criteria how many rows they are of (`n_rows`), the sum of their weights
            (`weight`), and how many rows were left out (`n_dropped`).

        Raises
        ------
        DataError
            Rows or weights that are no finite numbers, or no row is left.
        """
        check_is_fitted(self)
        source = self.source(X, sample_weight, noise=noise_covariance)
        mixture = self._answering(source.n_rows, noise_covariance is not None)
        if sample_weight is None and self._fitted_to_weights:
            logger.info(
                "the model was fitted to rows with weights, and here each row counts once: pass "
                "sample_weight to count them by their weights"
            )
        if noise_covariance is None and "noise_covariance" in self.provenance_:
            logger.info(
                "the model was fitted to rows of known noise, and here rows have none: pass "
                "noise_covariance to score rows with their noise"
            )
        found = self.sums(source, self.score_pass(mixture), "score")
        check_scores(found.sums, found.log.n_dropped)
        return self.criteria_of(found.sums, found.log.n_dropped, mixture)

    def score_pass(self, mixture: Mixture) -> Pass[Any]:
        """Return the pass that `criteria` makes."""
        return Score(mixture)

    def criteria_of(self, sums: Scores, n_dropped: int, mixture: Mixture) -> Criteria:
        """Return what `criteria` tells of the sums of its pass."""
        return criteria(sums, n_dropped, mixture.n_parameters)

    def sums(self, source: Source, work: Pass[S], phase: str) -> Logged[S]:
        """Make a pass over rows that have an answer, or whose lack of one is an error."""
        reading = ObservedPass(self.observers(), phase, 1, source.n_rows, source.nbytes)
        drop = self.read_options.nonfinite == "drop"
        # Which rows have an answer may have been set since the fit.
        support = self.mixture(NUMPY).components.support if drop else REAL
        logging_pass = LoggingPass(work, drop, support)
        with reading as running, one_blas_thread():
            found = backend_in_force().map_reduce(source, logging_pass, running.advance)
        check_weights(source, found.log)
        return found

    @property
    def _fitted_to_weights(self) -> bool:
        known = self.provenance_
        n_rows = known["n_rows"] - known["n_dropped"]
        return bool(known.get("weight", n_rows) != n_rows)

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Draw rows (n, d) and their components (n,) from the fitted mixture."""
        check_is_fitted(self)
        check_n_samples(n_samples)
        seed = self.random_state if isinstance(self.random_state, int) else None
        rng = np.random.default_rng(seed)
        components, weights = self.state_.result.components, self.fitted_array("weights_")
        return draw(components, weights, n_samples, rng)

    def describe(self) -> ComponentDescription:
        """Describe the components in the units of the data, for tables and pictures."""
        check_is_fitted(self)
        components = self.state_.result.components
        names = getattr(self, "feature_names_in_", None)
        return FamilyDescription(components, names_of_columns(names, components.n_features))

    def exact_overlap(self) -> Array | None:
        """Return how often a row of component i is taken for one of j, (k, k), at [i, j].

        None where it is not known in closed form, or where that takes longer than seconds.
        """
        return None

    def to_frame(self, of: OfModel = "components") -> Any:
        """Return a result of the fit as a pandas.DataFrame.

        Parameters
        ----------
        of : {"components", "history"}, default="components"
            The components, a row each: columns of two levels, `frame["weight"]`, `frame["size"]`
            (the sum of responsibilities) and what the family is described by, as
            `frame["Means"]`. Or the records of `history_`, a row a pass.

        Returns
        -------
        pandas.DataFrame

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        check_is_fitted(self)
        check_choice("of", of, get_args(OfModel))
        return components_frame(self) if of == "components" else records_frame(self.history_)

    # -- in notebooks -------------------------------------------------------------

    @property
    def _repr_html_(self) -> Callable[[], str]:
        """HTML for notebooks: after `fit` a summary, and scikit-learn's diagram below it."""
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
