"""Answers of a fitted mixture for data that it opens: labels, densities, scores, draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from ..backends import backend_in_force
from ..backends.blas import one_blas_thread
from ..core.additive import Array
from ..core.engine import Engine
from ..core.mixture import Mixture
from ..core.protocols import Source
from ..core.scoring import Answer, Predict, Score, Scores
from ..data.checks import check_dimensions
from ..data.columns import check_columns
from ..data.memory import is_compact
from ..data.open import as_source, is_opened
from ..data.options import ReadOptions
from ..data.tables import column_names
from ..data.xarray import Labelled, unlabelled
from ..errors import DataError
from ..fitting.observers import ObservedPass, Observer
from .answers import answer_rows
from .describe import ComponentDescription, FamilyDescription, names_of_columns
from .fitted import FittedEstimator
from .html import summary_html
from .options import check_number


class Predictions(FittedEstimator):
    """The half of a mixture estimator that answers once it is fitted."""

    @property
    def read_options(self) -> ReadOptions:
        """How data are read."""
        raise NotImplementedError

    def engine(self, dtype: Any = np.float64) -> Engine:
        """Return what computes, here and on every worker, for data of this type."""
        raise NotImplementedError

    def observers(self) -> list[Observer]:
        """Return who is told of passes."""
        raise NotImplementedError

    def mixture(self, engine: Engine) -> Mixture:
        """Return the fitted mixture, to be computed by `engine`."""
        raise NotImplementedError

    def source(self, X: Any, sample_weight: Any = None, reset: bool = False) -> Source:
        """Open X for a fit (`reset`), or hold its columns to those of the fit.

        Raises
        ------
        DataError
            Its rows cannot be used; the message says what to do.
        """
        labelled = Labelled.of(X)
        if labelled is not None:
            X, sample_weight = labelled.data, labelled.weights(sample_weight)
        if not is_opened(X):
            check_dimensions("X", X)
            compact = is_compact(X)
            checks: dict[str, Any] = {
                # Blocks are converted, never the whole.
                "dtype": None if compact else [np.float64, np.float32],
                # The survey names the row and column of what is not finite.
                "ensure_all_finite": not (reset or compact),
                "ensure_min_samples": 2 if reset else 1,
            }
            if labelled is None:
                X = validate_data(self, X, reset=reset, **checks)
                return as_source(X, unlabelled(sample_weight), self.read_options)
            X = check_array(X, estimator=self, **checks)
        source = as_source(X, unlabelled(sample_weight), self.read_options)
        if reset:
            source.check()
        names = column_names(X) if labelled is None else labelled.feature_names
        self._take_columns(source, names, reset)
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

    def _answer(self, X: Any, answer: Answer) -> Any:
        check_is_fitted(self)
        source = self.source(X)
        found = answer_rows(source, self.predictor((answer,)))
        labelled = Labelled.of(X)
        return found if labelled is None else labelled.answer(found, answer)

    def predictor(self, answers: Sequence[Answer]) -> Predict:
        """Return a picklable function from rows (n, d) to a dict of answers."""
        check_is_fitted(self)
        return Predict(self.mixture(self.engine()), tuple(answers))

    def predict(self, X: Any) -> Any:
        """Return the most likely component of each row, (n,); lazy unless X is in memory."""
        return self._answer(X, "labels")

    def predict_proba(self, X: Any) -> Any:
        """Compute responsibilities r_nk of each row, (n, k); lazy unless X is in memory."""
        return self._answer(X, "proba")

    def score_samples(self, X: Any) -> Any:
        """Compute log p(x_n) of each row in nats, (n,); lazy unless X is in memory."""
        return self._answer(X, "log_density")

    def score(self, X: Any, y: None = None) -> float:
        """Compute the mean log-likelihood per row, in nats: one pass."""
        return self.criteria(X)["log_likelihood"]

    def aic(self, X: Any) -> float:
        """Compute the Akaike information criterion, -2 log L + 2 p: lower is better."""
        return self.criteria(X)["aic"]

    def bic(self, X: Any) -> float:
        """Compute the Bayesian information criterion, -2 log L + p log n: lower is better."""
        return self.criteria(X)["bic"]

    def icl(self, X: Any) -> float:
        """Compute the integrated completed likelihood, BIC + 2 x entropy.

        Biernacki, Celeux and Govaert (2000).
        """
        return self.criteria(X)["icl"]

    def criteria(self, X: Any) -> dict[str, float]:
        """Compute mean log-likelihood per row, AIC, BIC and ICL, all from one pass."""
        check_is_fitted(self)
        source = self.source(X)
        reading = ObservedPass(self.observers(), "score", 1, source.n_rows, source.nbytes)
        mixture = self.mixture(self.engine())
        with reading as running, one_blas_thread():
            scores: Scores = backend_in_force().map_reduce(source, Score(mixture), running.advance)
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
        check_is_fitted(self)
        check_number("n_samples", n_samples, int, 1)
        seed = self.random_state if isinstance(self.random_state, int) else None
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(n_samples, self.weights_)
        components = self.state_.result.components
        rows = [components.sample(k, int(n), rng) for k, n in enumerate(counts)]
        return np.concatenate(rows), np.repeat(np.arange(len(counts)), counts)

    def describe(self) -> ComponentDescription:
        """Describe the components in the units of the data, for tables and pictures."""
        check_is_fitted(self)
        components = self.state_.result.components
        names = getattr(self, "feature_names_in_", None)
        return FamilyDescription(components, names_of_columns(names, components.n_features))

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


def _shortened(names: Array) -> str:
    return ", ".join(map(str, names[:5])) + (", ..." if len(names) > 5 else "")
