"""Components that an E-step computes once for several that are nearly equal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from .additive import Additive, Array
from .family import Family


@dataclass(frozen=True)
class Computed:
    """Components of which one stands for all that are nearly equal to it, and their sums.

    Of variational families those without rows are all the prior's: they cost a pass what one costs,
    and have their share of what it sums.

    Attributes
    ----------
    all : Family
        Of k components.
    kept : (c,) array of int
        Those that are computed.
    places : (k,) array of int
        By which of these each component is.
    log_prior : (c,) array
        Of those computed, what the E-step adds to their log-densities: for all that they stand for.
    shares : (k,) array
        Of each component in the responsibilities of the one that stands for it.

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.bayesian_gaussian.options import BayesianGaussianOptions
    >>> three = BayesianGaussianOptions().of_data(Moments.unit(1), 3)
    >>> nothing, sums = np.zeros(3), three.kernel().statistics()
    >>> prior = three.maximize(nothing, sums)[0]
    >>> found = Computed.of(prior, prior.log_prior(nothing))
    >>> found.kept.tolist(), found.shares.sum().round(12).item()
    ([0], 1.0)
    """

    all: Family[Any]
    kept: Array
    places: Array
    log_prior: Array
    shares: Array

    @classmethod
    def of(cls, components: Family[Any], log_prior: Array) -> Self | None:
        """Return what is computed of components with such log priors (k,); None where all are."""
        like = components.alike()
        if like is None:
            return None
        kept, places = np.unique(like, return_inverse=True)
        together = np.full(len(kept), -np.inf)
        np.logaddexp.at(together, places, log_prior)
        shares = np.exp(log_prior - np.maximum(together, -np.finfo(np.float64).max)[places])
        return cls(components, kept, places, together, shares)

    @property
    def components(self) -> Family[Any]:
        """The family of those that are computed."""
        found: Family[Any] = self.all.take(self.kept.tolist())
        return found

    def spread(self, resp_sum: Array, sums: Additive) -> tuple[Array, Additive]:
        """Return the sums (k,) of all components, about their own centres, of those computed."""
        total = resp_sum[self.places] * self.shares
        of_each = self.all.shared_out(sums, self.places, self.shares)
        about: Family[Any] = self.all.take(self.kept[self.places].tolist())
        return total, about.recentre(total, of_each, self.all)
