"""Mixtures of K components: the E-step and the M-step."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from .additive import Additive, Array
from .alike import Computed
from .codec import record
from .engine import NUMPY, Engine, check_engine
from .family import Family, blocks
from .labels import evidence
from .parts import MixtureStatistics, Parts
from .protocols import Fold, Pass
from .responsibilities import Arithmetic, Assignment


@record("mixture")
@dataclass(frozen=True)
class Mixture(Parts, Pass[MixtureStatistics]):
    """Hold the density p(x) = sum_k w_k p(x | component k).

    Attributes
    ----------
    log_weights : (k,) array
    components : Family
    engine : Engine
        What computes; it travels with the parameters.
    assignment : {"soft", "hard"}
        Whether the E-step shares a row among the components, or gives it to the likeliest
        (classification EM: Celeux and Govaert 1992).

    Examples
    --------
    >>> from dask_em.core.moments import Moments
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> mixture = Mixture(np.log([0.25, 0.75]), GaussianOptions().of_data(Moments.unit(1), 2))
    >>> fold = mixture.fold()
    >>> fold.update(0, np.array([[1.0], [3.0]]), None)
    >>> after, collapsed = mixture.m_step(fold.result())
    >>> after.weights.round(3).tolist(), after.components.means.round(3).tolist()
    ([0.25, 0.75], [[2.0], [2.0]])
    """

    log_weights: Array
    components: Family[Any]
    engine: Engine = NUMPY
    assignment: Assignment = "soft"

    @property
    def weights(self) -> Array:
        """Mixing weights (k,), which sum to one."""
        return np.exp(self.log_weights)

    @property
    def log_prior(self) -> Array:
        """Log weights as the E-step takes them, (k,): zero where all components weigh alike."""
        if self.components.equal_weights:
            return np.zeros_like(self.log_weights)
        return self.components.log_prior(self.log_weights)

    @property
    def n_parameters(self) -> int:
        """Free parameters: the family's, and the weights but one."""
        return int(self.components.n_parameters) + len(self.log_weights) - 1

    @property
    def n_own(self) -> Array:
        """Parameters that the rows of each component estimate, without its weight, (k,)."""
        return np.full(len(self.log_weights), self.components.n_own)

    @property
    def movable(self) -> bool:
        """Whether components may be split and merged."""
        return True

    def __sizeof__(self) -> int:
        # Schedulers ask this before they move the parameters of a pass.
        return int(object.__sizeof__(self) + self.log_weights.nbytes + self.components.nbytes)

    @property
    def rounding(self) -> float:
        """The share of itself by which the log-likelihood may fall from rounding alone."""
        return 1e-6 if self.engine.single else 1e-9

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return int(self.components.statistics_bytes + self.log_weights.nbytes)

    def fold(self) -> Fold[MixtureStatistics]:
        """Return the E-step of one range of chunks, before its first chunk."""
        return EStep(self)

    @property
    def join_key(self) -> Hashable:
        """Key of mixtures that can share a `JointEStep`; None if it stays alone."""
        here = self.engine.device == "cpu"
        key = self.components.join_key(self.engine) if here else None
        return None if key is None else (self.engine, self.assignment, key)

    @property
    def on_cpu(self) -> Self:
        """The mixture for rows of this process, which may have no GPU."""
        return replace(self, engine=replace(self.engine, device="cpu"))

    def divide(
        self, arithmetic: Arithmetic, log_prob: Array, log_prior: Array
    ) -> tuple[Array, Array]:
        """Return responsibilities (p, b) and log p(x) (b,), soft or hard, of log-densities (p, b).

        `log_prior` (p,) is added to `log_prob`, which may be overwritten.
        """
        divide = arithmetic.assign if self.assignment == "hard" else arithmetic.normalize
        return divide(log_prob, log_prior)

    def objective(self, statistics: MixtureStatistics) -> float:
        """Return what EM raises, per unit of weight: by the M-step it never falls.

        The log-likelihood; with a prior the logarithm of the posterior density, up to a constant;
        of variational families the bound on the log evidence.
        """
        return statistics.mean_log_likelihood + self.log_prior_density / statistics.weight

    def reported(self, statistics: MixtureStatistics) -> float:
        """Return what people are told of a pass, in nats per unit of weight.

        The log-likelihood of the data alone, whatever the prior; of variational families the bound.
        """
        if self.components.variational:
            return self.objective(statistics)
        return statistics.mean_log_likelihood

    @property
    def log_prior_density(self) -> float:
        """Logarithm of the prior density of the components, in nats, up to a constant.

        Of variational families minus the divergence of the posterior from the prior.
        """
        return self.components.log_prior_density()

    def compared(self, statistics: MixtureStatistics) -> float:
        """Return the log-likelihood by which models of several K are compared, per unit of weight.

        It is the objective's but where the family holds a parameter fixed while it is fitted.
        """
        found = self.components.profile_log_likelihood(statistics.resp_sum, statistics.components)
        return self.objective(statistics) if found is None else found / statistics.weight

    def m_step(self, statistics: MixtureStatistics) -> tuple[Self, tuple[int, ...]]:
        """Return the mixture that maximizes the expected log-likelihood, and what collapsed."""
        return self._maximized(statistics.resp_sum, statistics.components)

    def m_step_gain(self, statistics: MixtureStatistics, after: Mixture | None = None) -> float:
        """Compute the gain in the expected objective by the M-step, in nats per unit of weight.

        The objective gains this at least. It is negative where the M-step adds to variances
        more than the data ask for. `after` is what the M-step gave, where that is known.
        """
        after = self.m_step(statistics)[0] if after is None else after
        gained = self.components.gain(statistics.resp_sum, statistics.components, after.components)
        before = self.components.log_prior(self.log_weights)
        now = after.components.log_prior(after.log_weights)
        gained += float(statistics.resp_sum @ (now - before))
        return (gained + after.log_prior_density - self.log_prior_density) / statistics.weight

    def of_responsibilities(self, X: Array, resp: Array) -> Self:
        """Return the M-step of responsibilities times weights (n, k) given for the rows X.

        They may be any: what lies at bounds that EM would not leave is moved off them.
        """
        found, _ = self._maximized(resp.sum(axis=0), self.components.sufficient_statistics(X, resp))
        return found.holding(found.components.softened())

    def _maximized(self, resp_sum: Array, sums: Additive) -> tuple[Self, tuple[int, ...]]:
        components, collapsed = self.components.maximize(resp_sum, sums)
        return self.with_shares(resp_sum).holding(components), tuple(collapsed)

    def holding(self, components: Family[Any]) -> Self:
        """Return a mixture of other components, of these weights or of those that they have."""
        own = components.own_log_weights()
        log_weights = self.log_weights if own is None else own
        return replace(self, components=components, log_weights=log_weights)

    def with_shares(self, resp_sum: Array) -> Self:
        """Return the same components, of weights in proportion to these sums (k,)."""
        weights = np.maximum(resp_sum / resp_sum.sum(), np.finfo(np.float64).tiny)
        return replace(self, log_weights=np.log(weights))

    def moves_empty(self, statistics: MixtureStatistics) -> bool:
        """Return whether the M-step puts components without rows elsewhere, for a pass to judge."""
        return bool(self.components.relocated(statistics.resp_sum, statistics.components))

    # -- sums at other parameters ------------------------------------------------------

    def recentre(self, statistics: MixtureStatistics, to: Mixture) -> MixtureStatistics:
        """Return sums about the centres of this mixture as sums about those of another."""
        moved = self.components.recentre(statistics.resp_sum, statistics.components, to.components)
        return replace(statistics, components=moved)

    def with_merged(
        self, statistics: MixtureStatistics, pair: tuple[int, int]
    ) -> tuple[Self, MixtureStatistics]:
        """Return sums in which the second component of a pair is part of the first.

        Before them comes a mixture about whose centres they are.
        """
        moved, resp_sum, sums = self.components.with_merged(
            statistics.resp_sum, statistics.components, pair
        )
        return self.holding(moved), replace(statistics, resp_sum=resp_sum, components=sums)

    def expected_log_joint(self, statistics: MixtureStatistics) -> float:
        """Compute sum_nk r_nk log(w_k p(x_n | k)) from sums about the centres of this mixture."""
        return self.components.expected_log_joint(
            self.log_prior, statistics.resp_sum, statistics.components
        )

    def reordered(self, order: Sequence[int]) -> Self:
        """Return the same of all components in another order."""
        return replace(self.take(order), log_weights=self.log_weights[list(order)])

    def take(self, components: Sequence[int]) -> Self:
        """Return a mixture of some components in equal shares, without noise."""
        n = len(components)
        shares = replace(self, log_weights=np.full(n, -np.log(n)))
        return shares.holding(self.components.take(components))

    # -- as one vector -------------------------------------------------------------------

    def to_unconstrained(self) -> Array:
        """Return log-weights and parameters as one vector, every value of which is valid, (p,).

        Weights that have no part in the E-step, or follow from the components, are left out.
        """
        if self._without_weights:
            return self.components.to_unconstrained()
        return np.concatenate([self.log_weights, self.components.to_unconstrained()])

    def from_unconstrained(self, vector: Array) -> Self:
        """Return the mixture of such a vector, its weights made to sum to one."""
        if self._without_weights:
            return self.holding(self.components.from_unconstrained(vector.copy()))
        log_weights, rest = np.split(vector.copy(), [len(self.log_weights)])
        components = self.components.from_unconstrained(rest)
        log_weights = log_weights - np.logaddexp.reduce(log_weights)
        return replace(self, log_weights=log_weights, components=components)

    def information_scale(self) -> Array:
        """Return what multiplies each unconstrained parameter for it to count as it matters.

        About the square root of the complete data's information, (p,).
        """
        root = np.sqrt(self.weights)
        if self._without_weights:
            return self.components.information_scale(root)
        return np.concatenate([root, self.components.information_scale(root)])

    @property
    def _without_weights(self) -> bool:
        """Whether the weights are no parameters of their own."""
        return self.components.equal_weights or self.components.own_log_weights() is not None


class JointEStep:
    """Sum the sufficient statistics of mixtures over chunks of rows.

    The components of all mixtures are one to the kernel, which so makes what it needs of a
    row, and each product, once for all of them; only responsibilities are made apart.

    Parameters
    ----------
    mixtures : sequence of Mixture
        One, or some of one `join_key`.

    Attributes
    ----------
    kernel : Kernel
        Of all components but those for which one that is nearly equal stands.
    """

    def __init__(self, mixtures: Sequence[Mixture]) -> None:
        self.mixtures = mixtures
        check_engine(mixtures[0].engine)
        priors = [mixture.log_prior for mixture in mixtures]
        pairs = zip(mixtures, priors, strict=True)
        self._compute(priors, [Computed.of(one.components, prior) for one, prior in pairs])
        self._n_rows = 0
        self._weight = 0.0
        self._log_likelihoods, self._noise_sums, self._evidence = np.zeros((3, len(mixtures)))
        self._soft = False

    def _compute(self, priors: Sequence[Array], computed: Sequence[Computed | None]) -> None:
        """Make the kernel of all components, or of those that are computed."""
        self._computed = computed
        of_each = list(zip(self.mixtures, priors, computed, strict=True))
        self._log_priors = [prior if few is None else few.log_prior for _, prior, few in of_each]
        families = [m.components if few is None else few.components for m, _, few in of_each]
        first = self.mixtures[0]
        self._joined = None if len(families) == 1 else first.components.joined(families)
        self.kernel = (self._joined or families[0]).kernel(first.engine)
        sizes = [family.n_components for family in families]
        ends = np.cumsum(sizes)
        self._parts = [slice(end - k, end) for k, end in zip(sizes, ends, strict=True)]
        # Chunks may come in parts of whole blocks: the sums are the same to the bit.
        self.block_rows = self.kernel.part_rows
        self._arithmetic = [self.kernel.arithmetic(first.engine, m.n_parts) for m in self.mixtures]
        self._resp_sum = np.zeros(ends[-1])

    @property
    def nbytes(self) -> int:
        """Bytes of the kernel, of parameters that were copied to be joined, and of noise's rows."""
        noisy = [m.n_parts for m in self.mixtures if m.noise_box is not None]
        copies = 8 * max(noisy, default=0) * self.kernel.block_rows
        return self.kernel.nbytes + copies + (self._joined.held_bytes if self._joined else 0)

    def begin_labelled(self, width: int) -> None:
        """Make the kernel of all components: those that are nearly equal may have unequal labels.

        Before any row is added, for rows of a block may be fewer. What responsibilities of `width`
        components say is summed; of labels, of which 0 log 0 and log 1 are zero, it is nothing.
        """
        self._soft = width > 1
        if any(self._computed):
            priors = [mixture.log_prior for mixture in self.mixtures]
            self._compute(priors, [None] * len(priors))

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) with weights (n,)."""
        self._update(X, sample_weight, None)

    def update_labelled(
        self, index: int, X: Array, sample_weight: Array | None, labels: Array
    ) -> None:
        """Add rows X (n, d) whose labels (n,), or responsibilities (n, k), restrict the E-step."""
        self._update(X, sample_weight, labels)

    def _update(self, X: Array, sample_weight: Array | None, labels: Array | None) -> None:
        divides = labels is None and self._divides
        parts = blocks(len(X), self.kernel.part_rows) if divides else self.kernel.blocks(X)
        for rows in parts:
            block, weight = X[rows], None if sample_weight is None else sample_weight[rows]
            known = None if labels is None else labels[rows]
            self._n_rows += len(block)
            if weight is not None and not weight.all():
                # A row of weight zero is a row left out, whatever it holds.
                there = weight > 0
                block, weight = block[there], weight[there]
                known = None if known is None else known[there]
            if divides:
                self._divide_part(block, weight)
            elif len(block):
                self._add(block, weight, known)

    @property
    def _divides(self) -> bool:
        """Whether the kernel may divide rows itself: of one mixture alone, without noise."""
        mixture = self.mixtures[0]
        alone = len(self.mixtures) == 1 and mixture.noise_box is None
        return alone and mixture.assignment == "soft" and self.kernel.divides

    def _divide_part(self, part: Array, weight: Array | None) -> None:
        """Add rows of which the kernel leaves out what does not count, or else block by block."""
        if len(part) == 0:
            return
        added = self.kernel.add_divided(part, self._log_priors[0], weight)
        if added is None:
            for rows in self.kernel.blocks(part):
                self._add(part[rows], None if weight is None else weight[rows], None)
            return
        self._weight += len(part) if weight is None else float(weight.sum())
        self._log_likelihoods[0] += added[0]
        self._resp_sum += added[1]

    def _add(self, block: Array, weight: Array | None, labels: Array | None) -> None:
        arithmetic = self._arithmetic[0]
        self.kernel.load(block)
        if labels is None and self._assign(weight):
            self._weight += len(block) if weight is None else float(weight.sum())
            return
        # Nothing here keeps the log-densities while sums are made.
        resp = self._divided(self.kernel.log_prob(), weight, labels)
        if weight is None:
            self._weight += len(block)
        else:
            resp = arithmetic.weigh(resp, weight)
            self._weight += float(weight.sum())
        self.kernel.accumulate(resp)
        self._resp_sum += arithmetic.totals(resp)

    def _assign(self, weight: Array | None) -> bool:
        """Give rows to their likeliest components without responsibilities; False where none can.

        So the work is n d, not n k d.
        """
        mixture = self.mixtures[0]
        if mixture.assignment == "soft" or len(self.mixtures) > 1:
            return False
        added = self.kernel.add_assigned(self._log_priors[0], weight)
        if added is None:
            return False
        self._log_likelihoods[0] += added[0]
        self._resp_sum += added[1]
        return True

    def _divided(self, log_prob: Array, weight: Array | None, labels: Array | None) -> Array:
        """Return the responsibilities of the components of all mixtures, (k, b)."""
        if len(self.mixtures) == 1:
            # Nobody holds the log-densities while statistics are summed.
            return self._divide(0, log_prob, weight, labels)
        for i, part in enumerate(self._parts):
            resp = self._divide(i, log_prob[part], weight, labels)
            if self.mixtures[i].noise_box is not None:
                # With a row of noise they are of an array of their own.
                log_prob[part] = resp
        return log_prob

    def _divide(self, i: int, log_prob: Array, weight: Array | None, labels: Array | None) -> Array:
        """Return the responsibilities of one mixture's components, held to the labels of rows."""
        own, mixture = self._arithmetic[i], self.mixtures[i]
        k = self._parts[i].stop - self._parts[i].start
        log_prob = mixture.log_densities(own, log_prob)
        if labels is not None:
            own.restrict(log_prob, labels)
        resp, log_density = mixture.divide(own, log_prob, self._log_priors[i])
        self._log_likelihoods[i] += own.total(log_density, weight)
        if labels is not None and labels.ndim > 1:
            self._evidence[i] += evidence(own.fetch(resp), labels, weight)
        if mixture.noise_box is None:
            return resp
        # Nothing else is summed of the noise.
        self._noise_sums[i] += own.total(resp[k, :], weight)
        return resp[:k, :]

    def results(self) -> list[MixtureStatistics]:
        """Return the sums of each mixture over all chunks given so far."""
        sums = self.kernel.statistics()
        apart = [sums] if len(self._parts) == 1 else [sums.take(part) for part in self._parts]
        return [self._result(i, own) for i, own in enumerate(apart)]

    def _result(self, i: int, own: Additive) -> MixtureStatistics:
        value, resp_sum = float(self._log_likelihoods[i]), self._resp_sum[self._parts[i]].copy()
        if (computed := self._computed[i]) is not None:
            resp_sum, own = computed.spread(resp_sum, own)
        mixture, noise = self.mixtures[i], float(self._noise_sums[i])
        found = mixture.statistics(self._n_rows, self._weight, value, resp_sum, own, noise)
        return found.with_evidence(float(self._evidence[i])) if self._soft else found


class EStep(JointEStep, Fold[MixtureStatistics]):
    """Sum a mixture's sufficient statistics over chunks of rows."""

    takes_labels = True

    def __init__(self, mixture: Mixture) -> None:
        super().__init__((mixture,))

    def result(self) -> MixtureStatistics:
        """Return the sums over all chunks given so far."""
        (found,) = self.results()
        return found
