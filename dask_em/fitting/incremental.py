"""Accelerated incremental EM: steps over new rows beside the sums of others."""

from __future__ import annotations

from ..core.em import Algorithm, Convergence, EMState
from ..core.incremental import Carried, IncrementalEM
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from .control_variate import ControlVariateEM


class AcceleratedIncrementalEM(ControlVariateEM):
    """Incremental EM whose steps are mixed with earlier ones (Anderson), judged by its bound.

    A sample of the new rows says nothing of those that are not read, so there is no surrogate.

    Parameters
    ----------
    start : Mixture
    carried : Carried
    convergence : Convergence
        `tol` bounds the gain still to come.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> def accumulate(mixture):
    ...     fold = mixture.fold()
    ...     fold.update(0, np.array([[4.0], [6.0]]), None)
    ...     return fold.result()
    >>> state = GaussianMixture(1).fit([[0.0], [2.0]]).state_
    >>> algorithm = AcceleratedIncrementalEM(state.result, Carried.of(state), Convergence())
    >>> algorithm.tell(accumulate(algorithm.proposal)).result.components.moments()[0].tolist()
    [[3.0]]
    """

    def __init__(self, start: Mixture, carried: Carried, convergence: Convergence) -> None:
        super().__init__(start, convergence)
        self.carried = carried

    def joined(self, statistics: MixtureStatistics) -> MixtureStatistics:
        """Return the sums of all rows, of what a pass at `proposal` summed of the new ones."""
        return self.carried.at(self.proposal) + statistics

    def tell(self, statistics: MixtureStatistics) -> EMState:
        """Return the state at `proposal`, or the best one before if its bound is no higher."""
        return super().tell(self.joined(statistics))


def incremental_of(
    algorithm: str, start: Mixture, carried: Carried, convergence: Convergence
) -> Algorithm:
    """Return the algorithm of an update: accelerated, or of plain EM where that is "em".

    Parameters
    ----------
    algorithm : {"auto", "em"}
    start : Mixture
    carried : Carried
    convergence : Convergence
    """
    if algorithm == "em":
        return IncrementalEM(start, carried, convergence)
    return AcceleratedIncrementalEM(start, carried, convergence)
