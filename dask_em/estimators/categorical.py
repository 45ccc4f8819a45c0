"""Mixtures of Bernoulli and of categorical distributions: latent class analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.additive import Array
from ..core.em import EMState
from ..core.validation import LARGEST
from ..data.options import MissingChunks, Names, NonFinite
from ..families.categorical.information import Information, standard_errors
from ..families.categorical.options import BernoulliOptions, CategoricalOptions
from ..fitting.observers import Observer
from .base import MixtureEstimator
from .options import MissingValues, check_choice, check_number
from .registry import register_estimator


class AnswerMixture(MixtureEstimator):
    """The half of a latent class model that knows no number of categories."""

    alpha: float
    missing_values: MissingValues

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        check_number("alpha", self.alpha, float, 0)
        check_choice("missing_values", self.missing_values, ("error", "mar"))

    def standard_errors(self, X: Any, sample_weight: Any = None) -> dict[str, Array]:
        """Compute standard errors of `weights_` and `probabilities_`, in one pass over X.

        They are of the empirical information, the sum of the outer products of the rows' scores
        (McLachlan and Peel, Finite Mixture Models, 2000, section 2.15.3).

        Parameters
        ----------
        X : as in `fit`
            The data of the fit: at other parameters than their maximum the errors are none.
        sample_weight : the same kinds, (n,), or the name of a column of X, optional
            A row of weight w counts as w rows.

        Returns
        -------
        dict
            Arrays of the shapes of the attributes. NaN for probabilities at 0 or 1, which are held
            fixed for the others, and for all where the parameters are not identified.
        """
        check_is_fitted(self)
        source = self.source(X, sample_weight)
        mixture = self.mixture(self._answering_engine(source.n_rows))
        components: Any = mixture.components
        found = self.sums(source, Information(mixture, components), "information").sums
        weights, probabilities = standard_errors(mixture, components, found.products)
        return {"weights_": weights, "probabilities_": components.shaped(probabilities)}

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.missing_values == "mar"
        return tags


@register_estimator("categorical")
class CategoricalMixture(AnswerMixture):
    """Mixture of categorical distributions: latent classes of answers to several questions.

    Given its component, a row's answers are independent: p(x) = sum_k w_k prod_j p_kj(x_j)
    (Lazarsfeld and Henry, Latent Structure Analysis, 1968; fitted by Expectation-Maximization:
    Goodman, Biometrika 61, 1974).

    Parameters
    ----------
    n_components : int, default=1
    alpha : float, default=0.0
        Added to each count of an answer: the mode under a Dirichlet prior of exponents 1 + alpha.
        0 gives the maximum-likelihood estimates of poLCA and StepMix, of which some may be 0 or 1.
    missing_values : {"error", "mar"}, default="error"
        What becomes of NaN: "mar" leaves a missing answer out of the product, which is exact
        where answers are missing at random.
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init, init_params, weights_init, algorithm, sample_size, max_passes, max_time
        As in `GaussianMixture`; k-means sees indicators of the categories.
    fixed : {"weights"}, or mapping of str to sequence of int, optional
        Weights that stay as they start, as in `GaussianMixture`.
    nonfinite : {"error", "drop"}, default="error"
        What becomes of rows that hold NaN or infinity: "drop" leaves them out of the fit. Of
        whatever is later done with the model it leaves out those of codes that the fit did not
        see, too: their label is -1.
    missing_chunks, columns, exclude, features, raw, random_state, warm_start, callbacks
        As in `GaussianMixture`.
    checkpoint, device, verbose
        As in `GaussianMixture`; components are computed on the CPU whatever the device.

    Attributes
    ----------
    weights_ : (k,) array
        Sizes of the classes.
    probabilities_ : (k, d, c) array
        Probability that class k answers c to question j: `probabilities_[k, j, c]`, zero from the
        number of the column's categories on.
    n_categories_ : (d,) array of int
        Of each column: its largest code in the data, and one.
    converged_, status_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    state_ : EMState
        Parameters of the best pass paired with their statistics.

    Notes
    -----
    Columns hold codes from 0: 0, 1, ..., c - 1, of any type of numbers; integers and booleans are
    read and counted in their own type. Fractions are taken at their whole part, as scikit-learn's
    `CategoricalNB` does, and a warning says where there are some.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> low = rng.choice(3, (2000, 4), p=[0.8, 0.1, 0.1])
    >>> high = rng.choice(3, (1000, 4), p=[0.1, 0.1, 0.8])
    >>> X = np.concatenate([low, high]).astype(np.uint8)
    >>> model = CategoricalMixture(2, random_state=0).fit(X)
    >>> model.probabilities_.shape, np.sort(model.weights_).round(1).tolist()
    ((2, 4, 3), [0.3, 0.7])
    """

    takes_codes = True

    def __init__(
        self,
        n_components: int = 1,
        *,
        alpha: float = 0.0,
        missing_values: MissingValues = "error",
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
        super().__init__(
            n_components, tol=tol, max_iter=max_iter, n_init=n_init, init_params=init_params,
            weights_init=weights_init, fixed=fixed, algorithm=algorithm, sample_size=sample_size,
            max_passes=max_passes, max_time=max_time, nonfinite=nonfinite,
            missing_chunks=missing_chunks, columns=columns, exclude=exclude, features=features,
            raw=raw, random_state=random_state, warm_start=warm_start, callbacks=callbacks,
            checkpoint=checkpoint, device=device, verbose=verbose,
        )  # fmt: skip
        self.alpha = alpha
        self.missing_values = missing_values

    def family_options(self) -> CategoricalOptions:
        """Return what the options say of the components."""
        named = vars(self).get("feature_categories_", ())
        declared = tuple(len(categories) for categories in named)
        return CategoricalOptions(float(self.alpha), self.missing_values == "mar", declared)

    @property
    def n_categories_(self) -> Any:
        """Categories of each column, (d,)."""
        components: Any = self.state_.result.components
        return np.array(components.n_categories)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.categorical = True
        tags.input_tags.positive_only = True
        return tags


@register_estimator("bernoulli")
class BernoulliMixture(AnswerMixture):
    """Mixture of Bernoulli distributions: latent classes of answers that are yes or no.

    Given its component, a row's answers are independent: p(x) = sum_k w_k prod_j
    p_kj^x_j (1 - p_kj)^(1 - x_j) (Bishop, Pattern Recognition and Machine Learning, 2006,
    section 9.3.3).

    Parameters
    ----------
    n_components : int, default=1
    alpha : float, default=0.0
        Added to the counts of both answers: the mode under a Beta prior of exponents 1 + alpha.
        0 gives the maximum-likelihood estimates of poLCA and StepMix, of which some may be 0 or 1.
    binarize : float or None, default=0.0
        Numbers above it are a one, the others a zero, as in scikit-learn's `BernoulliNB`; a warning
        says where there are others than 0 and 1. None refuses those.
    missing_values : {"error", "mar"}, default="error"
        What becomes of NaN: "mar" leaves a missing answer out of the product, which is exact
        where answers are missing at random.
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init, init_params, weights_init, algorithm, sample_size, max_passes, max_time
        As in `GaussianMixture`.
    fixed : {"weights"}, or mapping of str to sequence of int, optional
        Weights that stay as they start, as in `GaussianMixture`.
    nonfinite, missing_chunks, columns, exclude, features, raw, random_state, warm_start, callbacks
        As in `GaussianMixture`.
    checkpoint, device, verbose
        As in `GaussianMixture`; components are computed on the CPU whatever the device.

    Attributes
    ----------
    weights_ : (k,) array
        Sizes of the classes.
    probabilities_ : (k, d) array
        Probability of a one.
    converged_, status_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    state_ : EMState
        Parameters of the best pass paired with their statistics.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.random((200, 5)) < 0.2, rng.random((100, 5)) < 0.9])
    >>> model = BernoulliMixture(2, random_state=0).fit(X)
    >>> np.sort(model.probabilities_.mean(axis=1)).round(1).tolist()
    [0.2, 0.9]
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        alpha: float = 0.0,
        binarize: float | None = 0.0,
        missing_values: MissingValues = "error",
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
        super().__init__(
            n_components, tol=tol, max_iter=max_iter, n_init=n_init, init_params=init_params,
            weights_init=weights_init, fixed=fixed, algorithm=algorithm, sample_size=sample_size,
            max_passes=max_passes, max_time=max_time, nonfinite=nonfinite,
            missing_chunks=missing_chunks, columns=columns, exclude=exclude, features=features,
            raw=raw, random_state=random_state, warm_start=warm_start, callbacks=callbacks,
            checkpoint=checkpoint, device=device, verbose=verbose,
        )  # fmt: skip
        self.alpha = alpha
        self.binarize = binarize
        self.missing_values = missing_values

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        if self.binarize is not None:
            check_number("binarize", self.binarize, float, -LARGEST)

    def family_options(self) -> BernoulliOptions:
        """Return what the options say of the components."""
        binarize = None if self.binarize is None else float(self.binarize)
        return BernoulliOptions(float(self.alpha), self.missing_values == "mar", binarize=binarize)
