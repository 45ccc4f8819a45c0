"""The memory of a worker during a fit, counted before it starts: every term with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.dask.config import engine_for
from ..core.fleet import Fleet
from ..core.mixture import Mixture
from ..core.moments import Moments
from ..core.partial_sums import partial_depth
from ..core.protocols import Pass, Source
from ..core.reduction import fan_in, tree_levels
from ..core.tuning import tuning

if TYPE_CHECKING:
    from ..core.engine import Engine
    from ..estimators.base import MixtureEstimator


@dataclass(frozen=True)
class Held:
    """Bytes that a worker holds in one phase of a fit.

    Attributes
    ----------
    phase : {"survey", "sample", "start", "em"}
    n_tasks : int
        More threads than tasks have nothing to do.
    rows : int
        By each task: chunks, with what reading and decoding them takes, and weights.
    computing : int
        By each task: kernels and their blocks, and sums in the making.
    parameters : int
        Whatever the number of tasks: what tasks are given, with what is derived from it.
    sums : int
        Whatever the number of tasks: results that wait to be added.
    compiler : int
        LLVM with the compiled loops, where they compute in this phase.

    Examples
    --------
    >>> held = Held("em", n_tasks=3, rows=100, computing=20, parameters=3, sums=4)
    >>> held.task, held.of_threads(2), held.of_threads(4)
    (120, 247, 367)
    """

    phase: str
    n_tasks: int
    rows: int = 0
    computing: int = 0
    parameters: int = 0
    sums: int = 0
    compiler: int = 0

    @property
    def task(self) -> int:
        """Bytes that each task holds."""
        return self.rows + self.computing

    def of_threads(self, n: int) -> int:
        """Return the bytes where so many tasks run at a time."""
        return self.parameters + self.sums + self.compiler + min(n, self.n_tasks) * self.task


@dataclass(frozen=True)
class WorkerMemory:
    """Bytes that a worker holds during a fit, at most.

    Attributes
    ----------
    process : int
        Python and its libraries, see `PlanTuning`.
    shipped : int
        Weights, or arrays of a graph, from the memory of the process that started the fit.
    phases : sequence of Held
        They follow one another, so the largest counts.

    Examples
    --------
    >>> phases = Held("survey", 8, rows=10, sums=30), Held("em", 8, rows=10, computing=15)
    >>> memory = WorkerMemory(100, 0, phases)
    >>> memory.of_threads(1), memory.of_threads(2), memory.largest(2).phase
    (140, 150, 'survey')
    """

    process: int
    shipped: int
    phases: Sequence[Held]

    def largest(self, threads: int) -> Held:
        """Return the phase that takes the most."""
        return max(self.phases, key=lambda held: held.of_threads(threads))

    def of_threads(self, threads: int) -> int:
        """Return the bytes of a worker of so many threads."""
        return self.process + self.shipped + self.largest(threads).of_threads(threads)


@dataclass(frozen=True)
class FitMemory:
    """Count the memory of a fit.

    Attributes
    ----------
    source : Source
    models : sequence of MixtureEstimator
        Those that share its passes.
    holdout : float
        Share of the rows that no fit sees.
    screened : bool
        Whether models are compared on the sample, and given up.
    kept : bool
        Whether a checkpoint keeps sums of unfinished passes.

    Examples
    --------
    >>> import zarr
    >>> from dask_em import GaussianMixture
    >>> from dask_em.data.zarr.source import ZarrSource
    >>> source = ZarrSource(zarr.ones((7, 2), chunks=(3, 2)))
    >>> memory = FitMemory(source, [GaussianMixture(2)]).worker
    >>> [held.phase for held in memory.phases], memory.of_threads(2) >= memory.of_threads(1)
    (['survey', 'sample', 'start', 'em'], True)
    """

    source: Source
    models: Sequence[MixtureEstimator]
    holdout: float = 0.0
    screened: bool = False
    kept: bool = False

    @property
    def worker(self) -> WorkerMemory:
        """The memory of a worker."""
        known = tuning().plan
        process = known.process_bytes + self.source.library_bytes
        if engine_for(np.float64).name == "numba":
            # Whatever computes, workers are asked for the version of Numba.
            process += known.numba_bytes
        process += min(self._sample_bytes, known.unreturned_bytes)
        phases = *self._survey(), self._start(), self._em()
        return WorkerMemory(process, self.source.shipped_bytes, phases)

    @property
    def engine(self) -> Engine:
        """The engine of the fits: NumPy where there is little to do."""
        n_rows = np.inf if self.source.n_rows is None else self.source.n_rows
        most = max(model.n_components for model in self.models)
        return engine_for(self.source.dtype, n_responsibilities=n_rows * most)

    @cached_property
    def mixtures(self) -> Sequence[Mixture]:
        """A mixture of the size of each model."""
        d, engine = self.source.n_features, self.engine
        noisy = self.source.beside.noise is not None
        found = []
        for model in self.models:
            k, options = model.n_components, model.family_options()
            options = options.of_noisy_rows() if noisy else options
            unit = Moments.unit(d, options.joint_moments(d))
            weights, noise = np.full(k, -np.log(k)), model.start_options().noise
            one = Mixture(weights, options.of_data(unit, k), engine, model.assignment)
            found.append(one if noise is None else noise.beside(one, unit))
        return found

    @property
    def compiler_bytes(self) -> int:
        """Bytes of LLVM and the compiled loops, 0 where NumPy computes."""
        if self.engine.name != "numba":
            return 0
        kinds = {mixture.components.kind for mixture in self.mixtures}
        return tuning().plan.compiler_bytes + len(kinds) * tuning().plan.loops_bytes

    @property
    def n_ranges(self) -> int:
        """Tasks of a pass."""
        return len(self.source.ranges())

    @property
    def sample_rows(self) -> int:
        """Rows of the sample, at most."""
        from ..fitting.sample import default_sample_size

        d, n_rows = self.source.n_features, self.source.n_rows
        width = d + self.source.beside.width
        sizes = [
            m.sample_size or default_sample_size(m.start_options().n_parameters(d), width)
            for m in self.models
        ]
        return max(sizes) if n_rows is None else min(max(sizes), n_rows)

    # -- the phases ----------------------------------------------------------------------

    def _survey(self) -> list[Held]:
        """The pass that counts rows, sums their moments and draws the sample; and its last sum."""
        from ..fitting.survey import Survey

        source, d, rows = self.source, self.source.n_features, self.sample_rows
        joint = any(m.start_options().components.joint_moments(d) for m in self.models)
        pass_ = Survey(0, rows, d, source.n_rows, joint=joint)
        moments, sample = 8 * (d * d if joint else d), self._sample_bytes
        # A range draws its share, or as many as it has and there can be where rows have weights.
        most = min(rows, -(-(source.n_rows or rows * self.n_ranges) // self.n_ranges))
        drawn = self._drawn_row * most if source.weighted else -(-sample // self.n_ranges)
        waiting = self._waiting(pass_)
        parts = waiting * drawn if source.weighted else sample
        surveying = Held(
            "survey",
            self.n_ranges,
            # A random number for each row, and whether it is drawn.
            source.held_bytes + (8 + 4) * source.chunk_rows,
            # Blocks; the moments of one, of all and of both in the making; rows that are drawn.
            2 * 8 * pass_.block_rows * d + 5 * moments + 2 * drawn,
            sums=waiting * moments + parts,
        )
        # The parts, those of which they were made until the scheduler says that nobody wants
        # them, and their sum. Of rows with weights each part is a sample, if there are so many.
        both = sample
        if source.weighted:
            every = np.inf if source.n_rows is None else self._drawn_row * source.n_rows
            both = int(min(2 * sample, every))
        # A checkpoint keeps parts to the end, and is sent a list of sums, of which there are
        # copies (measured: 1 to 2.3 samples more).
        last = 2 * both + sample + int(2.4 * sample) * self.kept
        return [
            surveying,
            Held("sample", self.n_ranges, source.kept_bytes, sums=last + 3 * moments),
        ]

    @property
    def _sample_bytes(self) -> int:
        """Bytes of the sample, with the keys and weights of its rows."""
        return self._drawn_row * self.sample_rows

    @property
    def _drawn_row(self) -> int:
        """Bytes of a row of the sample, with its key, its weight, and its noise."""
        return 8 * (self.source.n_features + self.source.beside.width + 2)

    def _start(self) -> Held:
        """Fits to the sample, and split-and-merge moves on its first rows."""
        from ..fitting.split_merge import fewest_rows

        source, d, rows = self.source, self.source.n_features, self.sample_rows
        sample = (self._drawn_row - 8) * rows
        if not (self.screened or self._multistart) or sample > tuning().calls.most_sent:
            # They are made in the process that started the fit.
            return Held("start", self.n_ranges, source.kept_bytes)
        computing = 0
        for model, mixture in zip(self.models, self.mixtures, strict=True):
            start = model.start_options()
            p, k = start.n_parameters(d), model.n_components
            # A fit holds its state, the one before, and steps to be mixed.
            states = 4 * (mixture.result_bytes + mixture.components.nbytes)
            moved = self._moved_rows(p, rows)
            moves = 0
            if k > 2 and moved >= 2 * fewest_rows(p):
                # Responsibilities before, after, and times weights; rows by component.
                moves = 8 * moved * (4 * k + 3 * d)
            computing = max(computing, mixture.fold().nbytes + states + moves)
        n_starts = tuning().multistart.most_starts * len(self.models)
        return Held("start", n_starts, source.kept_bytes, computing, sample, 0, self.compiler_bytes)

    @property
    def _multistart(self) -> bool:
        """Whether each model has many starts, of which some may enter the first pass."""
        lead, n_rows = self.models[0].start_options(), self.source.n_rows
        fitted = lead.is_fitted(self.sample_rows, n_rows or self.sample_rows + 1)
        return lead.algorithm == "auto" and fitted and not self.screened

    def _moved_rows(self, n_parameters: int, rows: int) -> int:
        screening, multistart = tuning().screening, tuning().multistart
        per_parameter = multistart.subsample_rows_per_parameter
        fewest = multistart.fewest_subsampled
        if self.screened:
            per_parameter = screening.subsample_rows_per_parameter
            fewest = screening.fewest_subsampled
        wanted = max(per_parameter * n_parameters, fewest)
        return wanted if 2 * wanted <= rows else rows

    def _em(self) -> Held:
        """A pass of EM: the first, which serves all models and their starts."""
        from ..fitting.multistart import most_contenders

        source = self.source
        mixtures = []
        for mixture in self.mixtures:
            n = most_contenders(mixture.result_bytes) if self._multistart else 1
            mixtures += [mixture] * n
        alone = len(mixtures) == 1 and not self.holdout
        pass_: Pass[Any] = mixtures[0] if alone else Fleet(tuple(mixtures))
        fold, sums = pass_.fold(), pass_.result_bytes
        waiting = self._waiting(pass_, self.kept)
        return Held(
            "em",
            self.n_ranges,
            source.held_bytes + self._drawn_bytes(),
            # While sums are made of a kernel's, or added to others: those of a fleet not in place.
            max(fold.nbytes + sums, (2 if alone else 3) * sums),
            sum(mixture.components.held_bytes for mixture in mixtures),
            (waiting - 1) * sums,
            self.compiler_bytes,
        )

    def _drawn_bytes(self) -> int:
        """Bytes of the rows of a chunk that are held out, or in a slice, and of their drawing."""
        source, screening, held = self.source, tuning().screening, 0.0
        row = source.n_features * source.dtype.itemsize + 8 * source.beside.width
        if self.holdout:
            # Random numbers, weights, numbers of rows and the mask; the rows themselves, twice.
            held += 3 * 8 + 2 + 2 * self.holdout * row
        share = screening.slice_samples * self.sample_rows / (source.n_rows or np.inf)
        several = len(self.models) > screening.few_models
        if self.screened and several and share <= screening.most_slice:
            held += 8 + 2 + max(screening.least_slice, share) * row
        return int(held * source.chunk_rows)

    def _waiting(self, pass_: Pass[Any], kept: bool = False) -> int:
        """Return how many sums wait in a worker, at most, as tasks come in order."""
        nbytes, width = pass_.result_bytes, fan_in(pass_.result_bytes)
        counts = [self.n_ranges, *map(len, tree_levels(self.n_ranges, width))]
        # Those that are about to be added, and above them, with which one of theirs will be.
        waiting = [min(counts[0], width), *(min(n, width) - 1 for n in counts[1:-1])]
        depth = partial_depth(self.n_ranges, width, nbytes)
        if kept and counts[depth] > 1:
            # They wait for the checkpoint, wherever they are added meanwhile.
            waiting[depth] = counts[depth]
        return sum(waiting)
