"""The parameters of a fitted Gaussian mixture: scikit-learn's attributes, to and from mixtures."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.utils.validation import check_array, check_is_fitted

from ..core.additive import Array
from ..core.engine import NUMPY, Engine
from ..core.held import mixture_holding
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.noise import beside_noise
from ..families.gaussian.constraints import Constraint, constraint_of
from ..families.gaussian.covariance import Covariance
from ..families.gaussian.family import Gaussian
from ..families.gaussian.missing import with_missing
from ..families.gaussian.options import GaussianOptions
from ..families.gaussian.whitening import Whitening
from .describe import ComponentDescription, GaussianDescription, names_of_columns
from .imputation import ImputingMixture
from .options import check_n_samples

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

PARAMETERS = ("weights_", "means_", "covariances_", "precisions_cholesky_")
SKLEARN_ATTRIBUTES = (
    *PARAMETERS,
    "precisions_",
    "converged_",
    "n_iter_",
    "lower_bound_",
    "lower_bounds_",
    "n_features_in_",
    "feature_names_in_",
)


class GaussianParameters(ImputingMixture):
    """The half of `GaussianMixture` that knows what its attributes mean.

    Its private methods are those of scikit-learn's class that other libraries call.
    """

    covariance_type: str
    reg_covar: float
    means_init: Any
    precisions_init: Any
    prior: str | None
    max_ratio: float | None

    fixable = MappingProxyType(
        {"weights": "weights_init", "means": "means_init", "covariances": "precisions_init"}
    )

    def family_options(self) -> GaussianOptions:
        """Return what the options say of the components."""
        return GaussianOptions(
            self.covariance_type,
            self.reg_covar,
            self.means_init,
            self.precisions_init,
            self.prior,
            None if self.max_ratio is None else float(self.max_ratio),
            self.missing_values == "mar",
        )

    def check_fixed(self) -> None:
        """Raise `ValueError` where what is held was not given, or cannot be held."""
        super().check_fixed()
        if self.fixed is None:
            return
        held = self.held_parts(self.n_components) or {}
        some = {n for n, of in held.items() if of is not None and len(of) < self.n_components}
        rule = constraint_of(self.covariance_type)
        if "covariances" in some and (rule.joins or rule.storage.shared_scatter):
            raise ValueError(
                f"fixed={self.fixed!r} holds the covariances of some components, and those of "
                f"covariance_type={self.covariance_type!r} are estimated together: hold all of "
                "them, or take full, diag or spherical ones"
            )
        option = "prior" if self.prior is not None else "max_ratio"
        if held.keys() & {"means", "covariances"} and getattr(self, option) is not None:
            raise ValueError(
                f"fixed={self.fixed!r} and {option}={getattr(self, option)!r}: means and "
                "covariances that are held go with neither prior nor max_ratio; leave one out"
            )

    @property
    def public_arrays(self) -> tuple[str, ...]:
        """Names of the fitted attributes that are parameters."""
        return ("weights_", "means_", "covariances_", "precisions_", "precisions_cholesky_")

    @property
    def _fitted_constraint(self) -> Constraint:
        """That of the fitted attributes, whatever the options have been set to since."""
        return constraint_of(self._fitted_kind)

    @property
    def _fitted_kind(self) -> str:
        """Name of that constraint, by which it was asked for."""
        if not hasattr(self, "state_"):
            return self.covariance_type
        return self.state_.result.components.kind

    # -- attributes to mixtures ----------------------------------------------------------

    def mixture(self, engine: Engine) -> Mixture:
        """Return the fitted attributes as a mixture, whitened by its own moments."""
        constraint, means = self._fitted_constraint, self.fitted_array("means_")
        weights = self.fitted_array("weights_")
        center = weights @ means
        covariance = self._covariance()
        spread = np.einsum("k,kij->ij", weights, covariance.full(*means.shape))
        spread = spread + ((means - center).T * weights) @ (means - center)
        whitening = Whitening.of_moments(center, spread, constraint.whitening_kind)
        return self._whitened(whitening, engine)

    def _covariance(self) -> Covariance:
        storage = self._fitted_constraint.storage
        return storage.from_precisions_cholesky(self.fitted_array("precisions_cholesky_"))

    def _whitened(self, whitening: Whitening, engine: Engine = NUMPY) -> Mixture:
        """Return the fitted attributes, which a user may have set, in some coordinates."""
        components = Gaussian.from_data_coordinates(
            self.fitted_array("means_"),
            self._covariance(),
            whitening,
            self.reg_covar,
            self._fitted_kind,
        )
        if self.missing_values == "mar":
            components = with_missing(components)
        log_weights = np.log(self.fitted_array("weights_"))
        parts = self.held_parts(len(log_weights))
        if self.fitted_box is None:
            return mixture_holding(parts, log_weights, components, engine)
        share = self.state_.result.noise_weight
        return beside_noise(self.fitted_box, share, log_weights, components, engine, held=parts)

    def earlier_mixture(self, moments: Moments) -> Mixture:
        """Return the last result as the start of a fit to data of these moments.

        Raises
        ------
        ValueError
            It is of other options than this fit.
        """
        last = (self._fitted_constraint.name, self.means_.shape)
        now = (constraint_of(self.covariance_type).name, (self.n_components, self.n_features_in_))
        if last != now:
            raise ValueError(
                f"warm_start=True, but the last fit was of {last[0]} covariances and means_ of "
                f"shape {last[1]}, and this one is of {now[0]} and {now[1]}: set "
                "warm_start=False"
            )
        options = self.family_options()
        found = self._whitened(options.whitening(moments))
        assert isinstance(found.components, Gaussian)
        return replace(found, components=options.regularized(found.components, moments))

    # -- what is told of them ---------------------------------------------------------------

    def describe(self) -> ComponentDescription:
        """Describe the components in the units of the data, for tables and pictures."""
        check_is_fitted(self)
        means, covariances = map(self.fitted_array, ("means_", "covariances_"))
        names = names_of_columns(getattr(self, "feature_names_in_", None), means.shape[1])
        constraint = self._fitted_constraint
        return GaussianDescription(
            self._fitted_kind,
            constraint.storage.kind,
            names,
            means,
            covariances,
            self.missing_values == "mar",
        )

    def sample(self, n_samples: int = 1) -> tuple[Array, Array]:
        """Draw rows (n, d) and their components (n,) from the fitted mixture."""
        check_is_fitted(self)
        check_n_samples(n_samples)
        model = self.to_sklearn()
        # Weights in float32 may sum to more than one.
        for name in self.public_arrays:
            setattr(model, name, self.fitted_array(name))
        drawn: tuple[Array, Array] = model.sample(n_samples)
        return drawn

    # -- as scikit-learn's ------------------------------------------------------------------

    def to_sklearn(self) -> SklearnGaussianMixture:
        """Return the same mixture as a fitted `sklearn.mixture.GaussianMixture`."""
        # Importing it takes longer than small fits, which need none.
        from sklearn.mixture import GaussianMixture as SklearnGaussianMixture

        check_is_fitted(self)
        if self.fitted_box is not None:
            raise ValueError("the mixture has noise, and scikit-learn's has none")
        shared = SklearnGaussianMixture().get_params().keys() & self.get_params().keys()
        options = {name: getattr(self, name) for name in shared}
        options["n_components"] = len(self.means_)
        options["covariance_type"] = self._fitted_constraint.storage.kind
        if options["init_params"] == "auto":
            options["init_params"] = "kmeans"
        model = SklearnGaussianMixture(**options)
        for name in SKLEARN_ATTRIBUTES:
            if hasattr(self, name):
                setattr(model, name, getattr(self, name))
        return model

    def _n_parameters(self) -> int:
        """Count the free parameters of the fitted mixture."""
        check_is_fitted(self)
        if self.fixed is not None or self.fitted_box is not None:
            return self.mixture(NUMPY).n_parameters
        k, d = self.means_.shape
        return int(k - 1 + k * d + self._fitted_constraint.n_parameters(k, d))

    def _get_parameters(self) -> tuple[Array, ...]:
        """Return weights, means, covariances and the factors of their inverses."""
        return tuple(getattr(self, name) for name in PARAMETERS)

    def _set_parameters(self, params: tuple[Array, ...]) -> None:
        """Set what `_get_parameters` returned, of whatever mixture of this `covariance_type`."""
        for name, value in zip(PARAMETERS, params, strict=True):
            setattr(self, name, value)
        factors = np.asarray(self.precisions_cholesky_)
        if factors.ndim == 1 or self._fitted_constraint.storage.kind == "diag":
            self.precisions_ = factors**2
        else:
            self.precisions_ = factors @ np.swapaxes(factors, -1, -2)
        self.n_features_in_ = int(np.asarray(self.means_).shape[1])

    def _initialize(self, X: Any, resp: Array | None) -> None:
        """Set the parameters to those of responsibilities (n, k), or to the user's own."""
        rows = check_array(X, dtype=[np.float64, np.float32], estimator=self)
        moments = Moments.of(rows)
        k = len(self.weights_init) if resp is None else np.asarray(resp).shape[1]
        options = replace(self.start_options(), n_components=k)
        found = options.of_responsibilities(moments, rows, resp)
        arrays = {"weights_": found.weights, **found.components.attributes()}
        self.set_arrays(arrays, rows.dtype)
        self.n_features_in_ = rows.shape[1]
