"""Mixtures for times and amounts: exponential and gamma."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.em import EMState
from ..data.options import MissingChunks, Names, NonFinite
from ..families.exponential import ExponentialOptions
from ..families.gamma import GammaOptions
from ..fitting.observers import Observer
from .canonical import CanonicalMixture
from .options import check_number
from .registry import register_estimator


@register_estimator("exponential-mixture")
class ExponentialMixture(CanonicalMixture):
    """Exponential mixture fitted by Expectation-Maximization to times or amounts of any size.

    Each row is of one of K components, in which its numbers are independent and exponential: of
    scale (mean) theta_kj in column j. Each pass sums sum_n r x, whose ratio to sum_n r is the next
    scale.

    Parameters
    ----------
    n_components : int, default=1
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init, init_params, weights_init, algorithm, sample_size
        As in `GaussianMixture`. Starts are made in the space of logarithms.
    fixed : {"weights"}, or mapping of str to sequence of int, optional
        Weights that stay as they start, as in `GaussianMixture`.
    max_passes, max_time, nonfinite, missing_chunks, columns, exclude, features, raw
        As in `GaussianMixture`.
    random_state, warm_start, callbacks, checkpoint, verbose
        As in `GaussianMixture`.
    device : {"cpu", "auto"}, default="cpu"

    Attributes
    ----------
    weights_ : (k,) array
    scales_ : (k, d) array
        Means of each column, as in `scipy.stats.expon`.
    degenerate_ : list of Degenerate
        The components of nothing but zeros: a scale at the bound of what is allowed.
    converged_, status_, warnings_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, state_, provenance_
        As in `GaussianMixture`.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import ExponentialMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.exponential([1, 50], (600, 2)), rng.exponential([40, 2], (200, 2))])
    >>> model = ExponentialMixture(2, random_state=0).fit(X)
    >>> order = np.argsort(model.weights_)
    >>> (model.scales_[order] > 10).tolist()
    [[True, False], [False, True]]
    """

    def family_options(self) -> ExponentialOptions:
        """Return what the options say of the components."""
        return ExponentialOptions()


@register_estimator("gamma-mixture")
class GammaMixture(CanonicalMixture):
    """Gamma mixture fitted by Expectation-Maximization to times or amounts of any size.

    Each row is of one of K components, in which its numbers are independent and gamma: of shape
    a_kj and scale theta_kj in column j. Each pass sums sum_n r, sum_n r x and sum_n r log x; the
    next shape solves log a - psi(a) = log(mean x) - mean(log x), by Newton's method.

    Parameters
    ----------
    n_components : int, default=1
    detection_limit : float, optional
        Smaller numbers, zeros among them, are taken for this one: what was below the limit of
        detection, or the step of a clock. By default all numbers must be positive.
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init, init_params, weights_init, algorithm, sample_size
        As in `GaussianMixture`. Starts are made in the space of logarithms.
    fixed : {"weights"}, or mapping of str to sequence of int, optional
        Weights that stay as they start, as in `GaussianMixture`.
    max_passes, max_time, nonfinite, missing_chunks, columns, exclude, features, raw
        As in `GaussianMixture`.
    random_state, warm_start, callbacks, checkpoint, verbose
        As in `GaussianMixture`.
    device : {"cpu", "auto"}, default="cpu"

    Attributes
    ----------
    weights_ : (k,) array
    shapes_, scales_ : (k, d) array
        Of each column, as in `scipy.stats.gamma`; means are their products.
    degenerate_ : list of Degenerate
        The components at single values of a column: a shape at the bound of what is allowed (1e8).
    converged_, status_, warnings_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, state_, provenance_
        As in `GaussianMixture`.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GammaMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.gamma(9, 1, (600, 1)), rng.gamma(4, 20, (200, 1))])
    >>> model = GammaMixture(2, random_state=0).fit(X)
    >>> order = np.argsort(model.weights_)
    >>> (model.shapes_[order, 0] > 6).tolist()
    [False, True]
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        detection_limit: float | None = None,
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
        self.detection_limit = detection_limit

    def family_options(self) -> GammaOptions:
        """Return what the options say of the components."""
        return GammaOptions(float(self.detection_limit or 0.0))

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        if self.detection_limit is not None:
            check_number("detection_limit", self.detection_limit, float, 0)
