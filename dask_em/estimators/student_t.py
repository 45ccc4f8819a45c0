"""Mixtures of Student's t."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from ..core.additive import Array
from ..core.em import EMState
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..data.options import MissingChunks, Names, NonFinite
from ..families.gaussian.constraints import CONSTRAINTS, known_constraints
from ..families.gaussian.options import GaussianOptions
from ..families.student_t.family import StudentT
from ..families.student_t.options import StudentTOptions
from ..families.student_t.scales import Scales
from ..fitting.observers import Observer
from .describe import ComponentDescription, FamilyDescription, names_of_columns
from .noise import NoisyEstimator
from .options import check_choice, check_flag, check_number
from .questions import QuestionedMixture
from .registry import register_estimator

# Fewer degrees of freedom give densities of no width.
LEAST_DF = 0.01


@register_estimator("student-t")
class StudentTMixture(NoisyEstimator, QuestionedMixture):
    """Mixture of multivariate Student's t distributions fitted by Expectation-Maximization.

    Tails that fall by a power of the distance take what lies far from every cluster, so that a
    few outliers move nothing. A row counts in a component by its responsibility times
    u = (df + d) / (df + delta), delta its squared Mahalanobis distance: one pass sums what
    locations, scale matrices and degrees of freedom follow from (Peel and McLachlan, Robust
    mixture modelling using the t distribution, 2000). Degrees of freedom are those of the ECME
    algorithm (Liu and Rubin 1995) with the weights u of the pass, and scale matrices those of
    Kent, Tyler and Vardi (1994): together they never lower the likelihood.

    Parameters
    ----------
    n_components : int, default=1
    covariance_type : {"full", "tied", "diag", "spherical", "EII", ..., "VVV"}, default="full"
        What the scale matrices have in common.
    df : float, optional
        Degrees of freedom of all components, 0.01 at least; by default they are estimated, and
        infinite where a component's tails are no heavier than the normal's.
    shared_df : bool, default=False
        Estimate one number for all components, not one for each.
    reg_covar : float, default=1e-6
        Added to the diagonal of the scale matrices, in squared units of the data. Pass 0 where
        columns are small: a warning says so.
    means_init : (k, d) array, optional
        Locations to start from.
    noise, noise_volume
        As in `GaussianMixture`.
    tol, max_iter, n_init, init_params, weights_init, algorithm, sample_size, max_passes
        As in `GaussianMixture`.
    fixed : {"weights", "means"}, or mapping of str to sequence of int, optional
        Weights and locations that stay as they start, as in `GaussianMixture`. Degrees of freedom
        are held by `df`.
    max_time, nonfinite, missing_chunks, columns, exclude, features, raw, random_state
        As in `GaussianMixture`.
    warm_start, callbacks, checkpoint, device, verbose
        As in `GaussianMixture`.

    Attributes
    ----------
    weights_ : (k,) array
    noise_weight_, noise_volume_ : float
        As in `GaussianMixture`.
    means_ : (k, d) array
        Locations; means where there are more than one degree of freedom.
    scales_ : array
        Scale matrices (`shape` of `scipy.stats.multivariate_t`): (k, d, d) full, (d, d) tied,
        (k, d) diag, (k,) spherical. They are not covariances.
    covariances_ : array
        df / (df - 2) times the scale matrices: (k, d, d), (k, d) or (k,); infinite for up to two
        degrees of freedom.
    df_ : (k,) array
        Degrees of freedom, infinite for a normal component.
    converged_, status_, warnings_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, state_, provenance_
        As in `GaussianMixture`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.standard_t(3, (300, 2)), 9 + rng.standard_t(3, (200, 2))])
    >>> model = StudentTMixture(2, random_state=0).fit(X)
    >>> np.abs(np.sort(model.means_, axis=0)).round().tolist()
    [[0.0, 0.0], [9.0, 9.0]]
    >>> bool(model.df_.max() < 10)
    True
    """

    kind_option = "covariance_type"
    array_options = ("weights_init", "means_init")
    fixable = MappingProxyType({"weights": "weights_init", "means": "means_init"})

    def __init__(
        self,
        n_components: int = 1,
        *,
        covariance_type: str = "full",
        df: float | None = None,
        shared_df: bool = False,
        tol: float = 1e-3,
        reg_covar: float = 1e-6,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "auto",
        weights_init: Any = None,
        means_init: Any = None,
        fixed: Any = None,
        noise: bool | float = False,
        noise_volume: float | None = None,
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
        self.covariance_type = covariance_type
        self.df = df
        self.shared_df = shared_df
        self.reg_covar = reg_covar
        self.means_init = means_init
        self.noise = noise
        self.noise_volume = noise_volume

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        self.check_noise()
        check_number("reg_covar", self.reg_covar, float, 0)
        if self.df is not None:
            check_number("df", self.df, float, LEAST_DF)
        check_flag("shared_df", self.shared_df)
        if self.covariance_type not in CONSTRAINTS:
            check_choice("covariance_type", self.covariance_type, known_constraints())

    def family_options(self) -> StudentTOptions:
        """Return what the options say of the components."""
        normal = GaussianOptions(self.covariance_type, self.reg_covar, self.means_init)
        df = None if self.df is None else float(self.df)
        return StudentTOptions(normal, df, bool(self.shared_df))

    @property
    def _components(self) -> StudentT:
        found = self.state_.result.components
        assert isinstance(found, StudentT)
        return found

    @property
    def df_(self) -> Array:
        """Degrees of freedom, (k,), infinite for a normal component."""
        return self._components.shown_df

    @property
    def covariances_(self) -> Array:
        """Covariances of the components: df / (df - 2) times their scales."""
        means, variances = self._components.moments()
        scales = self._components.scales.data_coordinates()[1]
        factor = variances[:, 0] / scales.variances(means.shape[1])[:, 0]
        found = scales.covariances
        return np.asarray(found * factor.reshape(-1, *[1] * (found.ndim - 1)))

    def earlier_mixture(self, moments: Moments) -> Mixture:
        """Return the last result as the start of a fit to data of these moments.

        Raises
        ------
        ValueError
            It is of other options than this fit.
        """
        found = super().earlier_mixture(moments)
        last = self._components
        now = self.family_options().of_data(moments, self.n_components)
        shape = now.scales.means.shape
        if (last.kind, last.scales.means.shape) != (now.kind, shape):
            raise ValueError(
                f"warm_start=True, but the last fit was of {last.kind} scales and means_ of shape "
                f"{last.scales.means.shape}, and this one is of {now.kind} and {shape}: set "
                "warm_start=False"
            )
        means, covariance = last.scales.data_coordinates()
        scales = Scales.from_data_coordinates(
            means, covariance, now.scales.whitening, self.reg_covar, now.kind
        )
        log_df = now.log_df if now.fixed else last.log_df
        if now.shared:
            log_df = np.full_like(log_df, log_df.mean())
        return replace(found, components=replace(now, scales=scales, log_df=log_df))

    def describe(self) -> ComponentDescription:
        """Describe the components in the units of the data, for tables and pictures."""
        check_is_fitted(self)
        names = names_of_columns(getattr(self, "feature_names_in_", None), self.n_features_in_)
        return StudentTDescription(self._components, names)


@dataclass(frozen=True)
class StudentTDescription(FamilyDescription):
    """Describe components of Student's t; of those without a variance, their quartiles' width."""

    components: StudentT

    @property
    def variances(self) -> Array:
        """Variances, (k, d); where they are infinite, those of normals of the same quartiles."""
        return self.components.widths() ** 2
