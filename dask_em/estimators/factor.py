"""Mixtures of factor analyzers, for many columns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.additive import Array
from ..core.em import EMState
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..data.options import MissingChunks, Names, NonFinite
from ..families.factor.constraints import NAMES
from ..families.factor.family import FactorAnalyzers
from ..families.factor.options import FactorOptions
from ..fitting.observers import Observer
from .cpu import CpuMixture
from .noise import NoisyEstimator
from .options import check_choice, check_number
from .questions import QuestionedMixture
from .registry import register_estimator

# Numbers of matrices above which nobody has memory to look at them.
MOST_NUMBERS = 2**27


@register_estimator("factor")
class FactorMixture(NoisyEstimator, CpuMixture, QuestionedMixture):
    """Mixture of factor analyzers fitted by Expectation-Maximization: Gaussians of many columns.

    A row of component k is mu_k + Lambda_k f + e, with q factors f ~ N(0, I) and noise
    e ~ N(0, Psi_k) of diagonal Psi_k, so that its covariance is Lambda_k Lambda_k^T + Psi_k
    (Ghahramani and Hinton 1996; McLachlan and Peel, Finite Mixture Models, 2000, chapter 8). A pass
    sums about d (q + 2) numbers a component, and takes as many products a row, where full
    covariances take d^2.

    Parameters
    ----------
    n_components : int, default=1
    n_factors : int, default=1
        q, less than the number of columns. `select(..., n_factors=[1, 2, 5])` chooses among some.
    factor_constraint : {"UUU", "UUC", "UCU", "UCC", "CUU", "CUC", "CCU", "CCC"}, default="UUU"
        What is constrained (C) or not (U), by the names of McNicholas and Murphy (Statistics and
        Computing 18, 2008): loadings equal in all components, noise equal in all components, noise
        equal in all columns. "UUC" is the mixture of probabilistic principal components of Tipping
        and Bishop (Neural Computation 11, 1999); its columns should be of like units.
    reg_covar : float, default=1e-6
        Added to every variance of the noise, in squared units of the data. Pass 0 where columns
        are small: a warning says so.
    means_init : (k, d) array, optional
        Means to start from.
    noise, noise_volume
        As in `GaussianMixture`.
    tol, max_iter, n_init, init_params, weights_init, algorithm, sample_size, max_passes
        As in `GaussianMixture`.
    fixed : {"weights"}, or mapping of str to sequence of int, optional
        Weights that stay as they start, as in `GaussianMixture`.
    max_time, nonfinite, missing_chunks, columns, exclude, features, raw, random_state
        As in `GaussianMixture`.
    warm_start, callbacks, checkpoint, verbose
        As in `GaussianMixture`.
    device : {"cpu", "auto"}, default="cpu"

    Attributes
    ----------
    weights_ : (k,) array
    noise_weight_, noise_volume_ : float
        As in `GaussianMixture`.
    means_ : (k, d) array
    loadings_ : (k, d, q) array
        Lambda_k, which are known up to a rotation of the factors.
    noise_variances_ : (k, d) array, or (k,) where the noise is equal in all columns
        Diagonals of Psi_k.
    covariances_ : (k, d, d) array
        Lambda_k Lambda_k^T + Psi_k, computed when asked for.
    converged_, status_, warnings_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, state_, provenance_
        As in `GaussianMixture`.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = rng.normal(size=(400, 1)) @ rng.normal(size=(1, 6)) + 0.3 * rng.normal(size=(400, 6))
    >>> X[200:] += 9
    >>> model = FactorMixture(2, n_factors=1, random_state=0).fit(X)
    >>> model.loadings_.shape, np.bincount(model.predict(X)).tolist()
    ((2, 6, 1), [200, 200])
    """

    kind_option = "factor_constraint"
    swept_options = ("n_factors",)
    array_options = ("weights_init", "means_init")

    def __init__(
        self,
        n_components: int = 1,
        *,
        n_factors: int = 1,
        factor_constraint: str = "UUU",
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
        self.n_factors = n_factors
        self.factor_constraint = factor_constraint
        self.reg_covar = reg_covar
        self.means_init = means_init
        self.noise = noise
        self.noise_volume = noise_volume

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        self.check_noise()
        check_number("n_factors", self.n_factors, int, 1)
        check_number("reg_covar", self.reg_covar, float, 0)
        check_choice("factor_constraint", self.factor_constraint, NAMES)

    def family_options(self) -> FactorOptions:
        """Return what the options say of the components."""
        return FactorOptions(
            self.n_factors, self.factor_constraint, self.reg_covar, self.means_init
        )

    @property
    def covariances_(self) -> Array:
        """Covariances of the components, (k, d, d).

        Raises
        ------
        ValueError
            They are of more than 1 GiB.
        """
        loadings, noise = self.fitted_array("loadings_"), self.fitted_array("noise_variances_")
        k, d, _ = loadings.shape
        if k * d * d > MOST_NUMBERS:
            raise ValueError(
                f"covariances_ of {k} components in {d} columns take {8 * k * d * d / 2**30:.1f} "
                "GiB: use loadings_ and noise_variances_, of which they are the products"
            )
        found = loadings @ np.swapaxes(loadings, 1, 2)
        found[:, range(d), range(d)] += noise if noise.ndim == 2 else noise[:, None]
        return np.asarray(found)

    def earlier_mixture(self, moments: Moments) -> Mixture:
        """Return the last result as the start of a fit to data of these moments.

        Raises
        ------
        ValueError
            It is of other options than this fit.
        """
        found = super().earlier_mixture(moments)
        last = found.components
        assert isinstance(last, FactorAnalyzers)
        d = len(moments.mean)
        now = (self.factor_constraint, self.n_factors, d)
        before = (last.constraint, last.n_factors, last.n_features)
        if before != now:
            raise ValueError(
                f"warm_start=True, but the last fit was of factor_constraint={before[0]!r}, "
                f"n_factors={before[1]} and {before[2]} columns, and this one is of {now[0]!r}, "
                f"{now[1]} and {now[2]}: set warm_start=False"
            )
        return replace(found, components=replace(last, ridge=self.reg_covar))
