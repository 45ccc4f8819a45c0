"""Mixtures for counts: Poisson and multinomial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from ..core.additive import Array
from ..core.em import EMState
from ..core.protocols import Source
from ..data.columns import with_names
from ..data.options import MissingChunks, Names, NonFinite, ReadOptions
from ..errors import DataError
from ..families.multinomial import MultinomialOptions
from ..families.poisson import PoissonOptions
from ..fitting.observers import Observer
from .canonical import CanonicalMixture
from .options import check_choice, check_number
from .registry import register_estimator

FRACTIONS = ("error", "round")


@register_estimator("poisson-mixture")
class PoissonMixture(CanonicalMixture):
    """Poisson mixture fitted by Expectation-Maximization to counts of any size.

    Each row is of one of K components, in which its counts are independent and Poisson: column j
    has the rate lambda_kj, times the row's exposure where there is one (hours watched, area
    searched, people at risk). Each pass sums sum_n r x and sum_n r e, whose ratio is the next rate.
    Chunks of integers are read in their own type.

    Parameters
    ----------
    n_components : int, default=1
    exposure : str or int, optional
        The column of X that holds the exposure of each row, by its name, or by its number among
        the columns that are read. It is no feature; its numbers are positive. By default all are 1.
    fractions : {"error", "round"}, default="error"
        What becomes of numbers that are not whole, such as estimated counts: refuse them, or take
        them for the nearest count.
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init, init_params, weights_init, algorithm, sample_size
        As in `GaussianMixture`. Starts are made in the space of root counts.
    rates_init : (k, d) array, optional
        Rates to start from, of the columns of counts, per unit of exposure.
    fixed : {"weights", "rates"}, or mapping of str to sequence of int, optional
        Weights and rates that stay as they start, as in `GaussianMixture`.
    max_passes, max_time, nonfinite, missing_chunks, columns, exclude, features, raw
        As in `GaussianMixture`.
    random_state, warm_start, callbacks, checkpoint, verbose
        As in `GaussianMixture`.
    device : {"cpu", "auto"}, default="cpu"

    Attributes
    ----------
    weights_ : (k,) array
    rates_ : (k, d) array
        Expected counts of each column but the exposure's, per unit of exposure.
    degenerate_ : list of Degenerate
        The components that have no counts in some columns: a rate of zero, at the bound of what is
        allowed (a share of 1e-10 of the rate of all data).
    converged_, status_, warnings_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, state_, provenance_
        As in `GaussianMixture`.
    n_features_in_ : int
        Columns that are read, the exposure's among them.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import PoissonMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate([rng.poisson([1, 9], (300, 2)), rng.poisson([6, 2], (100, 2))])
    >>> model = PoissonMixture(2, random_state=0).fit(X.astype(np.uint8))
    >>> order = np.argsort(model.weights_)
    >>> model.rates_[order].round().tolist()
    [[6.0, 2.0], [1.0, 9.0]]
    """

    array_options = ("weights_init", "rates_init")
    fixable = MappingProxyType({"weights": "weights_init", "rates": "rates_init"})

    def __init__(
        self,
        n_components: int = 1,
        *,
        exposure: str | int | None = None,
        fractions: str = "error",
        tol: float = 1e-3,
        max_iter: int = 100,
        n_init: int = 1,
        init_params: str = "auto",
        weights_init: Any = None,
        rates_init: Any = None,
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
        self.exposure = exposure
        self.fractions = fractions
        self.rates_init = rates_init

    def family_options(self) -> PoissonOptions:
        """Return what the options say of the components, once the columns are known."""
        n_columns = vars(self).get("n_features_in_")
        rounded = self.fractions == "round"
        return PoissonOptions(self._exposure_number, n_columns, rounded, self.rates_init)

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        check_choice("fractions", self.fractions, FRACTIONS)
        if not (self.exposure is None or (isinstance(self.exposure, str) and self.exposure)):
            check_number("exposure", self.exposure, int, 0)

    @property
    def read_options(self) -> ReadOptions:
        """How data are read: the exposure too, where the columns are chosen."""
        options = super().read_options
        if not (options.columns and isinstance(self.exposure, str)):
            return options
        columns = dict.fromkeys([*options.columns, self.exposure])
        return replace(options, columns=tuple(columns))

    def n_columns_given(self, arrays: Mapping[str, Array]) -> int:
        """Return how many columns the rows have: those of the rates, and the exposure."""
        return super().n_columns_given(arrays) + (self.exposure is not None)

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
            Its rows cannot be used, or there is no such exposure.
        """
        found = super().source(X, sample_weight, reset, labels, noise)
        if reset:
            self._check_exposure(found.n_features)
        return found

    @property
    def _exposure_number(self) -> int | None:
        """The number of the column of exposures; None where there is none, or no data yet."""
        if not isinstance(self.exposure, str):
            return None if self.exposure is None else int(self.exposure)
        names = [*vars(self).get("feature_names_in_", ())]
        return names.index(self.exposure) if self.exposure in names else None

    def _check_exposure(self, n_columns: int) -> None:
        if self.exposure is None:
            return
        names = [str(name) for name in vars(self).get("feature_names_in_", ())]
        if isinstance(self.exposure, str) and not names:
            raise DataError(
                f"exposure={self.exposure!r}: the columns of X have no names; give the number of "
                "the column, from 0"
            )
        number = self._exposure_number
        if isinstance(self.exposure, str) and number is None:
            what = f"exposure={self.exposure!r} is no column of X that is read"
            raise DataError(with_names(what, self.exposure, names))
        if number is not None and number >= n_columns:
            raise DataError(f"exposure={number}: X has {n_columns} columns, numbered from 0")
        if n_columns < 2:
            raise DataError("X has one column, which is the exposure: there is nothing to fit")


@register_estimator("multinomial-mixture")
class MultinomialMixture(CanonicalMixture):
    """Multinomial mixture fitted by Expectation-Maximization to rows of counts of any size.

    Each row is of one of K components, in which its total is shared among the columns by
    probabilities p_kj; the totals themselves tell components nothing apart. The density has the
    coefficient n! / prod_j x_j!. Each pass sums sum_n r x, whose shares are the next
    probabilities. Chunks of integers are read in their own type.

    Parameters
    ----------
    n_components : int, default=1
    fractions : {"error", "round"}, default="error"
        What becomes of numbers that are not whole, such as estimated counts: refuse them, or take
        them for the nearest count.
    tol : float, default=1e-3
        The fit has converged when less than this is estimated to be still gained, in nats
        per row; with algorithm="em", when a pass gains less.
    max_iter : int, default=100
        Passes over the full data, the survey not counted; 0 gives the start.
    n_init, init_params, weights_init, algorithm, sample_size
        As in `GaussianMixture`. Starts are made in the space of roots of each row's shares.
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
    probabilities_ : (k, d) array
        Shares of the columns in the counts of each component; rows sum to one.
    degenerate_ : list of Degenerate
        The components that have no counts in some columns: a probability of zero, at the bound of
        what is allowed (a share of 1e-10 of that of all data).
    converged_, status_, warnings_, n_iter_, lower_bound_, lower_bounds_, n_dropped_, history_
        As in `GaussianMixture`.
    n_reads_, n_sample_passes_, n_passes_, state_, provenance_
        As in `GaussianMixture`.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import MultinomialMixture
    >>> rng = np.random.default_rng(0)
    >>> X = np.concatenate(
    ...     [rng.multinomial(30, [0.6, 0.3, 0.1], 300), rng.multinomial(10, [0.1, 0.2, 0.7], 100)]
    ... )
    >>> model = MultinomialMixture(2, random_state=0).fit(X)
    >>> order = np.argsort(model.weights_)
    >>> model.probabilities_[order].round(1).tolist()
    [[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]
    """

    def __init__(
        self,
        n_components: int = 1,
        *,
        fractions: str = "error",
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
        self.fractions = fractions

    def family_options(self) -> MultinomialOptions:
        """Return what the options say of the components."""
        return MultinomialOptions(self.fractions == "round")

    def check_options(self) -> None:
        """Raise `ValueError` where an option is not one of those allowed."""
        super().check_options()
        check_choice("fractions", self.fractions, FRACTIONS)
