"""Standard errors of latent classes, by the empirical information: one additive pass.

The scores of the rows, derivatives of log p(x_n) by the free logits, sum to zero at the maximum;
the sum of their outer products estimates the information (McLachlan and Peel, Finite Mixture
Models, 2000, section 2.15.3), and the delta method takes its inverse to the probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...core.additive import Array
from ...core.family import blocks
from ...core.information import InformationSums, inverse_information
from ...core.mixture import Mixture
from ...core.protocols import Fold, Pass
from ...core.scoring import joint_blocks
from ...core.tuning import tuning
from .binary import binarized
from .family import AnswerFamily
from .indicators import answered


@dataclass(frozen=True)
class Information(Pass[InformationSums]):
    """Describe the pass that sums the outer products of scores.

    They are by the logits of the weights, k, and of the probabilities of each component, k m.

    Attributes
    ----------
    mixture : Mixture
        Of a family of answers.
    components : AnswerFamily
        The same that the mixture has.
    """

    mixture: Mixture
    components: AnswerFamily

    @property
    def n_logits(self) -> int:
        """Logits, of which some are given by the others."""
        return len(self.mixture.log_weights) + self.components.log_probabilities.size

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums."""
        return 8 * self.n_logits**2

    def fold(self) -> InformationFold:
        """Return the fold of one range, before its first chunk."""
        return InformationFold(self)


class InformationFold(Fold[InformationSums]):
    """Sum the outer products of scores over chunks of rows."""

    def __init__(self, work: Information) -> None:
        self.work = work
        self._n_rows = 0
        self._products = np.zeros((work.n_logits, work.n_logits))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        k = len(self.work.mixture.log_weights)
        nothing, family = np.zeros(k), self.work.components
        if sample_weight is not None and not sample_weight.all():
            X, sample_weight = X[sample_weight > 0], sample_weight[sample_weight > 0]
        self._n_rows += len(X)
        for numbers, log_joint, arithmetic in joint_blocks(self.work.mixture, X):
            resp, _ = arithmetic.normalize(log_joint, nothing)
            block, R = X[numbers], arithmetic.fetch(resp).T
            weight = None if sample_weight is None else sample_weight[numbers]
            for rows in blocks(len(block), tuning().categorical.least_rows):
                S = _scores(self.work.mixture, family, block[rows], R[rows])
                self._products += S.T @ (S if weight is None else S * weight[rows, None])

    def result(self) -> InformationSums:
        """Return the sums over all chunks given so far."""
        return InformationSums(self._n_rows, self._products)


def _scores(mixture: Mixture, family: AnswerFamily, X: Array, resp: Array) -> Array:
    """Derivatives of log p(x_n) by all logits, (n, p)."""
    phi, there = answered(binarized(X, family.threshold), family.n_categories)
    apart = phi[:, None, :] - there[:, None, :] * family.probabilities
    by_answer = (resp[:, :, None] * apart).reshape(len(X), -1)
    return np.concatenate([resp - mixture.weights, by_answer], axis=1)


def standard_errors(mixture: Mixture, family: AnswerFamily, products: Array) -> tuple[Array, Array]:
    """Compute the standard errors of weights (k,) and of all probabilities (k, m).

    Those of probabilities at 0 or 1 are NaN: they are held fixed for the others. All are NaN where
    the parameters are not identified.
    """
    groups = _groups(mixture, family)
    k = len(mixture.log_weights)
    p = np.concatenate([mixture.weights, family.probabilities.ravel()])
    found = np.full(len(p), np.nan)
    if k == 1:
        found[0] = 0.0
    free = np.concatenate([group[1:] for group in groups])
    inverse = inverse_information(products[np.ix_(free, free)]) if len(free) else None
    first = 0
    for group in groups:
        n = len(group) - 1
        if n < 1 or inverse is None:
            continue
        own = inverse[first : first + n, first : first + n]
        first += n
        # d p_c / d logit_c' of those but the first, whose logit is zero.
        q = p[group]
        J = np.diag(q)[:, 1:] - np.outer(q, q[1:])
        found[group] = np.sqrt(np.maximum(np.einsum("ci,ij,cj->c", J, own, J), 0.0))
    return found[:k], found[k:].reshape(family.log_probabilities.shape)


def _groups(mixture: Mixture, family: AnswerFamily) -> list[Array]:
    """Numbers of the logits that one softmax has, but for those at the bounds: largest first."""
    k, m = family.log_probabilities.shape
    p = np.concatenate([mixture.weights, family.probabilities.ravel()])
    groups = [np.arange(k)]
    groups += [
        np.arange(k + i * m + place.start, k + i * m + place.stop)
        for i in range(k)
        for place in family.places
    ]
    inside = [group[p[group] >= tuning().categorical.at_bound] for group in groups]
    return [group[np.argsort(-p[group], kind="stable")] for group in inside]
