"""Adaptation of the means of a background model to other rows, by a prior about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..backends.blas import one_blas_thread
from ..core.additive import Additive, Array
from ..core.em import EMState, Status, failure_of
from ..core.mixture import Mixture
from ..core.parts import MixtureStatistics
from ..core.passes import LoggingPass
from ..core.protocols import Backend, Fold, Pass, Source
from ..errors import DataError
from .checks import check_adaptation, check_weights
from .observers import ObservedPass, Observer, PassRecord, StateReached, tell_observers
from .survey import Survey, Surveyed


@dataclass(frozen=True)
class FirstSums(Additive):
    """Hold what the first pass of an adaptation sums: a survey of the rows, and the E-step.

    Attributes
    ----------
    surveyed : Surveyed
        Without a sample.
    statistics : MixtureStatistics
        Worth nothing where the survey found rows that are not finite.
    """

    surveyed: Surveyed
    statistics: MixtureStatistics


@dataclass(frozen=True)
class FirstPass(Pass[FirstSums]):
    """Describe the first pass of an adaptation, which reads the data once for both.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> background = GaussianMixture(1).fit([[0.0], [2.0]]).state_.result
    >>> fold = FirstPass(background).fold()
    >>> fold.update(0, np.array([[3.0], [5.0]]), None)
    >>> found = fold.result()
    >>> found.surveyed.moments.mean.tolist(), found.statistics.resp_sum.tolist()
    ([4.0], [2.0])
    """

    mixture: Mixture

    @property
    def survey(self) -> Survey:
        """The survey, which draws no sample."""
        components = self.mixture.components
        return Survey(
            0, 0, components.n_features, None, components.support, engine=self.mixture.engine
        )

    @property
    def result_bytes(self) -> int:
        """Bytes of the sums of a pass."""
        return self.survey.result_bytes + self.mixture.result_bytes

    def fold(self) -> FirstFold:
        """Return the fold of one range, before its first chunk."""
        return FirstFold(self.survey.fold(), self.mixture.fold())


class FirstFold(Fold[FirstSums]):
    """Feed chunks to a survey and to an E-step."""

    def __init__(self, survey: Fold[Surveyed], e_step: Fold[MixtureStatistics]) -> None:
        self._survey, self._e_step = survey, e_step

    @property
    def nbytes(self) -> int:
        """Bytes that both hold."""
        return self._survey.nbytes + self._e_step.nbytes

    def update(self, index: int, X: Array, sample_weight: Array | None) -> None:
        """Add the rows X (n, d) of a chunk with weights (n,)."""
        self._survey.update(index, X, sample_weight)
        # What is not finite, or overflows, is named when the survey is checked.
        with np.errstate(all="ignore"):
            self._e_step.update(index, X, sample_weight)

    def result(self) -> FirstSums:
        """Return the sums over the chunks given so far."""
        return FirstSums(self._survey.result(), self._e_step.result())


class AdaptationPasses:
    """Make and record the passes of an adaptation.

    Parameters
    ----------
    source : Source
    backend : Backend
    observers : sequence of Observer

    Attributes
    ----------
    source : Source
        After the first pass held to what it read, without the rows that were dropped.
    records : list of PassRecord
    """

    def __init__(self, source: Source, backend: Backend, observers: Sequence[Observer]) -> None:
        self.source, self.backend, self.observers = source, backend, observers
        self.records: list[PassRecord] = []

    def first(
        self, mixture: Mixture, drop_nonfinite: bool, names: Sequence[str] | Array | None
    ) -> FirstSums:
        """Make the first pass, which later ones are held to, and check what it read.

        `names` are those of the columns, for messages.
        """
        work = LoggingPass(FirstPass(mixture), drop_nonfinite, mixture.components.support)
        with self._observed() as running:
            found = self.backend.map_reduce(self.source, work, running.advance)
            running.n_rows = found.sums.surveyed.n_rows
            running.log_likelihood = _measured(found.sums.statistics)
        check_weights(self.source, found.log)
        self.records.append(running.finished)
        self.source = self.source.held_to(found.log)
        check_adaptation(self.source, found.sums.surveyed, names)
        return found.sums

    def later(self, mixture: Mixture, n_rows: int) -> MixtureStatistics:
        """Make another pass, at other means, over `n_rows` finite rows."""
        with self._observed() as running:
            found = self.backend.map_reduce(self.source, mixture, running.advance)
            running.n_rows, running.log_likelihood = n_rows, _measured(found)
        self.records.append(running.finished)
        return found

    def _observed(self) -> ObservedPass:
        number, source = len(self.records) + 1, self.source
        return ObservedPass(self.observers, "em", number, source.n_rows, source.nbytes)


def _measured(statistics: MixtureStatistics) -> float | None:
    """Return the log-likelihood per row; None where it is no number, which is refused later."""
    if not statistics.weight or not np.isfinite(statistics.log_likelihood):
        return None
    return statistics.mean_log_likelihood


def adaptation_states(
    first: MixtureStatistics,
    accumulate: Callable[[Mixture], MixtureStatistics],
    background: Mixture,
    relevance: float,
    n_iter: int,
) -> Iterator[EMState]:
    """Yield the state after each pass of an adaptation of the means of a background model.

    Each E-step is at the means of the last pass, and weighs the rows against the means of the
    background (Gauvain and Lee, IEEE Transactions on Speech and Audio Processing 2, 1994): the
    log-likelihood plus the logarithm of the prior never falls.

    Parameters
    ----------
    first : MixtureStatistics
        Of the rows, at the background.
    accumulate : callable
        Makes another pass at the given parameters.
    background : Mixture
        Of an `adaptable` family.
    relevance : float
        Rows that each of its means counts as.
    n_iter : int
        Passes, the first among them.

    Raises
    ------
    DataError
        The log-likelihood of the rows is not a finite number.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> def accumulate(mixture):
    ...     fold = mixture.fold()
    ...     fold.update(0, np.array([[3.0], [5.0]]), None)
    ...     return fold.result()
    >>> background = GaussianMixture(1).fit([[0.0], [2.0]]).state_.result
    >>> states = adaptation_states(accumulate(background), accumulate, background, 2.0, 2)
    >>> [(s.status.name, s.result.components.moments()[0].item()) for s in states]
    [('RUNNING', 2.5), ('ADAPTED', 2.5)]
    """
    mixture, statistics = background, first
    for number in range(1, n_iter + 1):
        if number > 1:
            statistics = accumulate(mixture)
        if failure_of(None, statistics, tol=0.0):
            raise DataError(
                "the log-likelihood of X is not a finite number under the model that is adapted: "
                "look for huge values in X"
            )
        components = mixture.components.adapted(
            background.components, statistics.resp_sum, statistics.components, relevance
        )
        status = Status.ADAPTED if number == n_iter else Status.RUNNING
        result = replace(mixture, components=components)
        yield EMState(mixture, statistics, number, (), status, result)
        mixture = result


def adapt_means(
    passes: AdaptationPasses,
    background: Mixture,
    relevance: float,
    n_iter: int,
    drop_nonfinite: bool,
    names: Sequence[str] | Array | None,
) -> tuple[EMState, Surveyed]:
    """Make the passes of an adaptation, and tell the observers of the state after each.

    Returns
    -------
    EMState
        The last.
    Surveyed
        The rows, as the first pass found them.

    Raises
    ------
    DataError
        The rows, or their weights, cannot be used.

    Examples
    --------
    >>> from dask_em import GaussianMixture
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> background = GaussianMixture(1).fit([[0.0], [2.0]]).state_.result
    >>> passes = AdaptationPasses(ArraySource(np.array([[3.0], [5.0]])), SerialBackend(), [])
    >>> state, surveyed = adapt_means(passes, background, 2.0, 1, False, None)
    >>> state.result.components.moments()[0].tolist(), surveyed.n_rows, len(passes.records)
    ([[2.5]], 2, 1)
    """
    with one_blas_thread():
        found = passes.first(background, drop_nonfinite, names)
        later = partial(passes.later, n_rows=found.surveyed.n_rows)
        for state in adaptation_states(found.statistics, later, background, relevance, n_iter):
            tell_observers(passes.observers, StateReached(state))
    return state, found.surveyed


def adaptation_coefficients(resp_sum: Array, relevance: float) -> Array:
    """Compute alpha_k = n_k / (n_k + relevance), the share that the rows have in each mean.

    Zero of a component without rows. Reynolds, Quatieri and Dunn (2000), equation 14.

    Examples
    --------
    >>> adaptation_coefficients(np.array([48.0, 0.0]), relevance=16.0).tolist()
    [0.75, 0.0]
    """
    total = resp_sum + relevance
    return np.asarray(resp_sum / np.where(total > 0, total, 1.0))
