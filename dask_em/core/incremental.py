"""Incremental EM: sums of rows that were read before join those of each pass over new rows.

Both the E-step of the new rows and the M-step of all sums raise F(q, theta) =
E_q[log p(x, z | theta)] + H(q), which is no more than the log-likelihood of all rows: it is the
objective of the states of an update, and never falls (Neal and Hinton, "A view of the EM algorithm
that justifies incremental, sparse, and other variants", Learning in Graphical Models, 1998). So
whoever tells an algorithm the sums of new rows adds those that are carried, and any algorithm will
do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

from .codec import record
from .em import EMState
from .mixture import Mixture
from .parts import MixtureStatistics


@record("carried-sums")
@dataclass(frozen=True)
class Carried:
    """Hold the sums of rows that are not read again, at the parameters of their last E-step.

    Attributes
    ----------
    mixture : Mixture
        The parameters about whose centres the sums are.
    statistics : MixtureStatistics
        Their `log_likelihood` is a bound of that of the rows, where E-steps were at several
        parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from dask_em import GaussianMixture
    >>> carried = Carried.of(GaussianMixture(1).fit([[0.0], [2.0]]).state_, factor=0.5)
    >>> carried.statistics.resp_sum.tolist(), carried.statistics.n_rows
    ([1.0], 1)
    """

    mixture: Mixture
    statistics: MixtureStatistics

    @classmethod
    def of(cls, state: EMState, factor: float = 1.0) -> Self:
        """Return the sums of a fit, each times `factor`: a row then counts as so much of one."""
        sums = state.statistics
        if factor != 1.0:
            sums = replace(sums.times(factor), n_rows=round(sums.n_rows * factor))
        return cls(state.mixture, sums)

    @property
    def exact(self) -> bool:
        """Whether the objective that they join never falls: the E-step of their rows is theirs."""
        return True

    def at(self, mixture: Mixture) -> MixtureStatistics:
        """Return the sums about the centres of other parameters.

        Their log-likelihood becomes the bound of Neal and Hinton (1998) there: responsibilities
        stay, so that it changes by what the expected log joint density changes.
        """
        moved = self.mixture.recentre(self.statistics, mixture)
        gained = mixture.expected_log_joint(moved)
        gained -= self.mixture.expected_log_joint(self.statistics)
        return replace(moved, log_likelihood=moved.log_likelihood + gained)
