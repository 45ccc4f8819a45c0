"""Scale matrices of Student's t: a Gaussian's parameters, each component's scatter its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.additive import Array
from ...core.family import register_family
from ..gaussian.constraints import Constraint, constraint_of
from ..gaussian.family import Gaussian
from ..gaussian.matrices import Full


@register_family("student-t-scales")
@dataclass(frozen=True)
class Scales(Gaussian):
    """Hold locations and scale matrices; one that all components share is stored K times.

    Examples
    --------
    >>> from dask_em.families.gaussian.whitening import Whitening
    >>> unit = Whitening(np.zeros(2), np.ones(2))
    >>> shared = Scales(np.zeros((3, 2)), Full(np.stack([np.eye(2)] * 3)), unit, 0.0, "tied")
    >>> shared.kind, shared.shares_statistics, shared.n_parameters
    ('tied', False, 9)
    """

    @property
    def one_matrix(self) -> bool:
        """Whether all components share one matrix, which is stored K times."""
        return self.rule.estimate is pooled

    @property
    def rule(self) -> Constraint:
        """The constraint of the scale matrices, as these are stored."""
        return rule_of(self.kind)


def rule_of(name: str) -> Constraint:
    """Return a constraint of the Gaussian's; of one matrix for all, one that is stored K times.

    The degrees of freedom of a component are estimated from its own scatter.

    Examples
    --------
    >>> rule_of("tied").storage.__name__, rule_of("diag").storage.__name__
    ('Full', 'Diagonal')
    """
    known = constraint_of(name)
    if not known.storage.shared_scatter:
        return known
    return Constraint(name, Full, known.n_parameters, pooled, known.whitening_kind)


def pooled(weights: Array, covariances: Array) -> Array:
    """Return the mean of matrices (k, d, d) for each of them."""
    mean = np.einsum("k,kij->ij", weights, covariances) / weights.sum()
    return np.repeat(mean[None], len(covariances), axis=0)
