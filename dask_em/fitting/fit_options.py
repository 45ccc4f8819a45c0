"""Options of a fit: its models, and when it ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.em import Convergence
from .criteria import Criterion
from .renewal import Earlier
from .starts import StartOptions


@dataclass(frozen=True)
class FitOptions:
    """Hold the options of a fit: its models, and when it ends.

    Attributes
    ----------
    models : tuple of StartOptions
        One for each model; several share every read of the data.
    convergence : Convergence
    seed : int
    any_sample : bool
        Whether a sample that was drawn before, by another seed, will do: nobody gave one.
    sample_size : int or None
    drop_nonfinite : bool
        Leave out rows that hold NaN or infinity.
    criterion : {"bic", "aic", "icl", "holdout"}
        What the best model is best by.
    holdout : float
        Share of the rows that no fit sees.
    exhaustive : bool
        Give no model up, and make the start that each would have alone.
    deadline : float
        `time.monotonic()` at which the fit ends with what it has.
    labels_fixed : bool
        Whether rows that have labels keep them in every E-step, and not in the first M-step alone.
    earlier : Earlier or None
        The fit that an update goes on from; the sums that it carries are those of its beginning.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> models = tuple(GaussianMixture(k).start_options() for k in (2, 5))
    >>> options = FitOptions(models, Convergence(tol=1e-3), seed=0)
    >>> options.lead.n_components, options.criterion
    (5, 'bic')
    """

    models: tuple[StartOptions, ...]
    convergence: Convergence
    seed: int
    any_sample: bool = False
    sample_size: int | None = None
    drop_nonfinite: bool = False
    criterion: Criterion = "bic"
    holdout: float = 0.0
    exhaustive: bool = True
    deadline: float = np.inf
    labels_fixed: bool = False
    earlier: Earlier | None = None

    @property
    def lead(self) -> StartOptions:
        """The model of most components: what all share is asked of it."""
        return max(self.models, key=lambda m: m.n_components)
