"""Bayesian mixtures of Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ..core.additive import Array
from ..core.codec import digest
from ..core.em import Convergence, EMState
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.objective import Objective
from ..core.scoring import Scores
from ..data.options import MissingChunks, Names, NonFinite
from ..families.bayesian_gaussian.family import BayesianGaussian
from ..families.bayesian_gaussian.options import BayesianGaussianOptions
from ..families.bayesian_gaussian.prior import WEIGHT_PRIORS, NormalWishart, WeightPrior
from ..families.gaussian.options import GaussianOptions
from ..fitting.criteria import Criteria, criteria
from ..fitting.observers import Observer
from ..fitting.starts import StartOptions
from .normal_questions import NormalMixture
from .options import check_above, check_choice, check_number
from .registry import register_estimator

STRUCTURES = ("full", "tied", "diag", "spherical")


@register_estimator("bayesian-gaussian-mixture")
class BayesianGaussianMixture(NormalMixture):
    """Mixture of Gaussians whose parameters have a posterior, by variational Bayes.

    `n_components` is the most there may be: components that the data do not ask for lose their
    rows, and their weights go to those of the prior. A pass sums what one of `GaussianMixture`
    sums; the posterior follows from the sums and the prior (Bishop, Pattern Recognition and Machine
    Learning, 2006, section 10.2; of the Dirichlet process Blei and Jordan 2006). With
    algorithm="em" it is scikit-learn's, iteration for iteration.

    Each component has a precision matrix of its own under one Wishart prior, whatever the
    structure: `covariance_type` restricts the posterior's scales, as scikit-learn's formulas do. So
    bounds of several structures are of one evidence, if their priors are the same.

    Parameters
    ----------
    n_components : int, default=1
        Components at most.
    covariance_type : {"full", "tied", "diag", "spherical"}, default="full"
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained of the bound, in
        nats of all rows together, as scikit-learn has it; with algorithm="em", when a pass gains
        less. What rounding hides is not waited for.
    reg_covar : float, default=1e-6
        Added to the variances of each component's rows, in squared units of the data. The bound
        may fall by as much as that takes; of 0 it never falls.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    weight_concentration_prior_type : {"dirichlet_process", "dirichlet_distribution"}
        The prior of the weights: pieces of a stick, the first the largest, or all alike.
    weight_concentration_prior : float, optional
        The smaller, the fewer components have rows; by default 1 / n_components.
    mean_precision_prior : float, optional
        Rows that `mean_prior` counts as; by default 1.
    mean_prior : (d,) array, optional
        By default the mean of the data.
    degrees_of_freedom_prior : float, optional
        Of the Wishart distribution, more than d - 1; by default d.
    covariance_prior : array or float, optional
        (d, d) full and tied, (d,) diag, a number spherical: the inverse of the Wishart's scale. By
        default the unbiased covariance of the data, their variances, or the mean of those.
    n_init, init_params, algorithm, sample_size, max_passes, max_time, nonfinite
        As in `GaussianMixture`; starts are judged by the bound on the sample.
    missing_chunks, columns, exclude, features, raw, random_state
        As in `GaussianMixture`.
    warm_start, callbacks, checkpoint, device, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    weights_ : (k,) array
        Means of the weights.
    means_ : (k, d) array
    covariances_, precisions_, precisions_cholesky_ : array
        The mean precision, its root and its inverse: (k, d, d) full, (d, d) tied, (k, d) diag, (k,)
        spherical.
    weight_concentration_ : (k,) array or tuple of two
        Parameters of the Dirichlet distribution, or both of the Beta distributions of the process.
    mean_precision_ : (k,) array
    degrees_of_freedom_ : (k,) array, or a float of tied covariances
    weight_concentration_prior_, mean_precision_prior_, degrees_of_freedom_prior_ : float
    mean_prior_ : (d,) array
    covariance_prior_ : array or float
    n_components_used_ : int
        Components that have as much as one row.
    lower_bound_ : float
        The variational bound on the log evidence of all rows, in nats, with all its constants:
        scikit-learn leaves some out, which depend on the prior and the number of components, and
        its bound is right for reg_covar=0 alone. Ours is of the parameters at which the best pass
        was made, before its M-step. `lower_bounds_` after every pass.
    converged_, status_, warnings_, n_iter_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, state_, provenance_
        As in `GaussianMixture`.

    Notes
    -----
    `predict`, `predict_proba` and `score_samples` are scikit-learn's: of means of log-densities
    under the posterior. `bic`, `aic` and `icl` count the parameters of components with rows alone.
    `select` compares numbers of components by the bound, whichever criterion but hold-out is
    named; one fit of many components chooses by itself.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.normal(0.0, 1.0, (300, 2)), rng.normal(9.0, 1.0, (200, 2))])
    >>> model = BayesianGaussianMixture(6, max_iter=300, random_state=0).fit(X)
    >>> model.n_components_used_, np.sort(model.weights_)[-2:].round(2).tolist()
    (2, [0.4, 0.6])
    """

    kind_option = "covariance_type"
    array_options = ("mean_prior", "covariance_prior")
    prior_options: ClassVar[tuple[str, ...]] = array_options

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
        weight_concentration_prior_type: WeightPrior = "dirichlet_process",
        weight_concentration_prior: float | None = None,
        mean_precision_prior: float | None = None,
        mean_prior: Any = None,
        degrees_of_freedom_prior: float | None = None,
        covariance_prior: Any = None,
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
            algorithm=algorithm, sample_size=sample_size, max_passes=max_passes,
            max_time=max_time, nonfinite=nonfinite, missing_chunks=missing_chunks,
            columns=columns, exclude=exclude, features=features, raw=raw,
            random_state=random_state, warm_start=warm_start, callbacks=callbacks,
            checkpoint=checkpoint, device=device, verbose=verbose,
        )  # fmt: skip
        self.covariance_type = covariance_type
        self.reg_covar = reg_covar
        self.weight_concentration_prior_type = weight_concentration_prior_type
        self.weight_concentration_prior = weight_concentration_prior
        self.mean_precision_prior = mean_precision_prior
        self.mean_prior = mean_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior

    # -- options ---------------------------------------------------------------------

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        check_number("reg_covar", self.reg_covar, float, 0)
        check_choice("covariance_type", self.covariance_type, STRUCTURES)
        name = "weight_concentration_prior_type"
        check_choice(name, self.weight_concentration_prior_type, WEIGHT_PRIORS)
        for name in (
            "weight_concentration_prior",
            "mean_precision_prior",
            "degrees_of_freedom_prior",
        ):
            if (value := self.get_params(deep=False)[name]) is not None:
                check_above(name, value, 0)

    def family_options(self) -> BayesianGaussianOptions:
        """Return what the options say of the components."""
        return BayesianGaussianOptions(
            GaussianOptions(self.covariance_type, self.reg_covar),
            self.weight_concentration_prior_type,
            self.weight_concentration_prior,
            self.mean_precision_prior,
            self.mean_prior,
            self.degrees_of_freedom_prior,
            self.covariance_prior,
        )

    def start_options(self) -> StartOptions:
        """Return how the mixture is to start."""
        return replace(super().start_options(), tol_of_all=True)

    def convergence(self) -> Convergence:
        """Return the limits at which a fit stops: `tol` is of all rows."""
        return replace(super().convergence(), of_all=True)

    def step_options(self) -> dict[str, Any]:
        """Return the options that an iteration depends on, the arrays of the prior among them."""
        arrays = {name: self.get_params(deep=False)[name] for name in self.prior_options}
        given = {
            name: None if value is None else digest(np.asarray(value, dtype=np.float64))
            for name, value in arrays.items()
        }
        return super().step_options() | given

    # -- attributes ------------------------------------------------------------------

    @property
    def _components(self) -> BayesianGaussian:
        found = self.state_.result.components
        assert isinstance(found, BayesianGaussian)
        return found

    @property
    def n_components_used_(self) -> int:
        """Components that have as much as one row."""
        return int(self._components.used.sum())

    @property
    def weight_concentration_(self) -> Array | tuple[Array, Array]:
        """Parameters of the weights' posterior: of Dirichlet, or both of the Beta distributions."""
        prior, counts = self._components.weights_prior, self._components.counts
        return prior.sticks(counts) if prior.is_process else prior.concentrations(counts)

    @property
    def mean_precision_(self) -> Array:
        """The factor from the precision of each component to that of its mean, (k,)."""
        return self._components.mean_precision

    @property
    def degrees_of_freedom_(self) -> Array | float:
        """Degrees of freedom of the posterior Wishart distributions, (k,), or one of all."""
        found = self._components.df
        return float(found[0]) if self._components.shares_statistics else found

    @property
    def _prior(self) -> NormalWishart:
        return self._components.prior.unwhitened(self._components.whitening)

    @property
    def weight_concentration_prior_(self) -> float:
        """Concentration of the weights' prior."""
        return self._components.weights_prior.concentration

    @property
    def mean_precision_prior_(self) -> float:
        """Rows that the prior counts as for a mean."""
        return self._components.prior.mean_precision

    @property
    def degrees_of_freedom_prior_(self) -> float:
        """Degrees of freedom of the prior Wishart distribution."""
        return self._components.prior.df

    @property
    def mean_prior_(self) -> Array:
        """Mean of the prior of the means, (d,)."""
        return self._prior.mean

    @property
    def covariance_prior_(self) -> Array | float:
        """Inverse of the scale of the prior Wishart distribution."""
        found = self._prior.scatter
        return float(found[0]) if self._components.covariance.kind == "spherical" else found

    @property
    def objective_(self) -> Objective:
        """The bound that the fit raised, and the value that it reached."""
        return Objective("variational bound", self.lower_bound_, "nats")

    def bound_told(self, value: float, state: EMState) -> float:
        """Return the bound of all rows, of that of one."""
        return value * state.statistics.weight

    def criteria_of(self, sums: Scores, n_dropped: int, mixture: Mixture) -> Criteria:
        """Return what `criteria` tells of its pass: components without rows cost nothing."""
        used = np.flatnonzero(self._components.used).tolist()
        return criteria(sums, n_dropped, mixture.take(used or [0]).n_parameters)

    def given_options(self) -> dict[str, Any]:
        """Return the options of `from_parameters`, all of the prior among them."""
        names = ("weight_concentration_prior", "mean_precision_prior", "degrees_of_freedom_prior")
        prior = {name: getattr(self, f"{name}_") for name in (*names, *self.prior_options)}
        return {**super().given_options(), **prior}

    # -- fitting ---------------------------------------------------------------------

    def earlier_mixture(self, moments: Moments) -> Mixture:
        """Return the last posterior as the start of a fit to data of these moments.

        Raises
        ------
        ValueError
            It is of other options than this fit.
        """
        found, last = super().earlier_mixture(moments), self._components
        now = self.family_options().of_data(moments, self.n_components)
        if (last.kind, last.means.shape) != (now.kind, now.means.shape):
            raise ValueError(
                f"warm_start=True, but the last fit was of {last.kind} covariances and means_ of "
                f"shape {last.means.shape}, and this one is of {now.kind} and {now.means.shape}: "
                "set warm_start=False"
            )
        means, covariance = last.data_coordinates()
        covariance = covariance.scaled(now.whitening.inverse_scale)
        moved = replace(
            now, means=now.whitening.whiten(means), covariance=covariance, counts=last.counts
        )
        return found.holding(moved)
