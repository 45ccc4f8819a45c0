"""Tuning constants: one frozen record, each with its reason.

Whatever is here may be set without touching the code: `with use_tuning(...)` for the block, in
this process and in the tasks that it sends to workers. Results may depend on it to the bit, so
a checkpoint goes on with the tuning that it was begun with alone, and models keep what differs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace


@dataclass(frozen=True)
class Reading:
    """Sizes by which rows are cut, and read ahead."""

    # Small chunks are read together up to this size; one larger is read whole.
    bytes: int = 8 * 2**20
    # Chunks of the store that are read together: Zarr holds some 8 KiB for each of them.
    most_together: int = 2048
    # So many chunks, each below these bytes, are worth a word.
    many_chunks: int = 10_000
    small_chunk: int = 2**14
    # Chunks of a range, where there are enough for the fewest ranges: the first of them, unless
    # it is summed while it arrives, is read while nothing is computed.
    range_chunks: int = 8
    fewest_ranges: int = 16
    most_ranges: int = 1024
    # Read at once from a store on the network, for one task: what a line of 100 MB/s brings while
    # a chunk waits out a tenth of a second and is computed at once. A disk needs one chunk ahead.
    ahead_bytes: int = 32 * 2**20
    most_ahead: int = 4
    # Of an object store so many times what fills the line is on its way: requests that share a line
    # end in groups, and it would be empty until those asked for in their place begin. Bounded by
    # memory, which fills a line of 100 MB/s and 50 ms so, and by threads, which wait for one each;
    # and the fewest, of which some are on their way while others begin.
    line_bytes: int = 64 * 2**20
    line_gain: float = 10.0
    fewest_requests: int = 4
    most_requests: int = 64
    # They are asked for so many times as fast as the line brings them: with 1 it would hardly be
    # full, and those that begin at one instant end at one, with nothing behind them on its way.
    pace_gain: float = 4.0
    # Neighbouring inner chunks of a shard are read together up to this size: as many requests as
    # there may be are as many bytes as there may be on their way, so the most latency is filled
    # (measured: tests/benchmarks/links.py). Of a disk, what stays in cache until it is decoded.
    run_bytes: int = 2**20
    # Read and checked at a time: what stays in cache between the two, whole multiples of the lanes.
    piece_bytes: int = 2**20
    # A buffer up to this size is left to the next range.
    pooled_bytes: int = 2**26
    # Answers are written in chunks of as many rows as the data's, which are many and small only
    # above so many, of fewer bytes: a file each would take longer to write than the rows to read.
    few_chunks: int = 1024
    chunk_bytes: int = 2**20
    # Rows of a block of the first pass, whose sums are about its first row, in the compiled loop;
    # and of a piece of it, whose deviations the level-1 cache holds, the bytes and the rows.
    survey_rows: int = 2048
    survey_piece_bytes: int = 24 * 2**10
    survey_piece_rows: int = 64
    # Without the loop, numbers of a block, which the level-2 cache holds twice, and its most rows:
    # with more, calls cost less (45 to 90 us a block), but each column is a page of its own.
    survey_numbers: int = 2**17
    survey_most_rows: int = 8192
    # Columns from which a block keeps its layout by rows: with fewer, extremes and sums by columns
    # take a sixth of the time, with more they are nothing beside the products.
    survey_row_columns: int = 64
    # Numbers of a block where columns are summed one by one: a third of the time of 2048 rows of
    # 2000 columns.
    survey_single_numbers: int = 2**19
    # Rows of a chunk that share a generator of their random keys, in powers of two: it costs as
    # much to make as 30 to 60 keys, which are drawn at least.
    shortest_stretch: int = 2**12
    longest_stretch: int = 2**18
    fewest_keys: int = 64


@dataclass(frozen=True)
class Reduction:
    """The tree that adds the sums of ranges, and what is kept of an unfinished one."""

    # A node of the reduction adds as many sums as these bytes hold, within two limits.
    node_bytes: int = 64 * 2**20
    least_fan_in: int = 2
    fan_in: int = 8
    # Sums that are kept of an unfinished pass take at most these bytes, or are so few.
    partial_bytes: int = 64 * 2**20
    partial_few: int = 4


@dataclass(frozen=True)
class FleetTuning:
    """Sizes up to which mixtures share an E-step."""

    # Components of a mixture that shares an E-step, and of all that share one, at most: a block of
    # more is worked through as quickly alone (measured: tests/benchmarks/fleets.py).
    most_each: int = 16
    most_joined: int = 256


@dataclass(frozen=True)
class Numerics:
    """Bounds that choose among ways to compute, and guards of the Gaussian M-step."""

    # The features kernel loses about eps * amplification of a covariance's digits
    # (measured: tests/test_kernels.py). Above this share of a covariance the centred
    # kernel takes over.
    allowed_loss: float = 1e-10
    # The share of a component's width that float32 may lose of a deviation.
    single_loss: float = 1e-5
    # A component with less than this much data has no rows.
    empty: float = 1e-12
    # A row nearer to its centre than this share of its distance from the data's mean lies in it: an
    # empty cluster put there would be empty again.
    one_place: float = 1e-12
    # All data weigh between these: with less, components come near to having no rows; with more,
    # fourth powers of the rows overflow.
    least_weight: float = 1e-6
    most_weight: float = 1e100
    # Squares below lose digits, and those of half their numbers are zero.
    least_variance: float = 1e-304
    # Keeps the covariance of all data definite, where a component has to take it.
    pooled_ridge: float = 1e-6
    # Columns whose correlation matrix is worse conditioned than this are rotated
    # apart. Below it, scaled columns lose at most 4 of 16 digits to collinearity.
    collinear: float = 1e4
    # Added to the correlation matrix before it is factorised: any invertible map
    # is a valid whitening, and this keeps exactly collinear columns invertible.
    correlation_ridge: float = 1e-13
    # reg_covar that adds more than this share to a column's variance is worth a word.
    large_ridge: float = 0.1
    # A component of less variance of its own than this share of reg_covar owes its width to it:
    # then more than half of it is reg_covar's, as where rows of one value are joined by the few
    # that come near.
    own_variance: float = 1.0
    # Components are equal where no parameter differs by more than this share of what a row tells
    # of it: a million rows could not tell them apart.
    equal: float = 1e-3
    # A component whose own scatter is less than this share of its prior's owes its width to it.
    beside_prior: float = 0.1
    # Columns take part in a direction where they move along it by this share of the one that
    # moves the most, in widths of the data.
    takes_part: float = 0.1
    # Of what rounding may change of a log-likelihood, the share that a warm start does not move
    # for: some hundred last bits, which is what sums of rows far from their means lose.
    last_bits: float = 1e-3
    # Correlations of estimates have smaller eigenvalues, one by one, where parameters are not
    # identified.
    unidentified: float = 1e-12


@dataclass(frozen=True)
class StructuresTuning:
    """Limits of the iterations of M-steps of covariances that have no closed form."""

    # Steps end where another lowers minus twice the log-likelihood by less than this, per row: some
    # thousand last bits, so that an M-step never loses what EM would gain.
    gain: float = 1e-12
    # Turns of volumes and shape: each leaves a small share of what is missing.
    turns: int = 200
    # Steps of axes: the next M-step goes on from where they end.
    axes_steps: int = 50
    # Below this ratio of the least to the largest eigenvalue a matrix has no shape but rounding's.
    singular: float = 1e-13
    # The angle of one step in one plane, at most, in radians.
    most_turn: float = 0.5


@dataclass(frozen=True)
class StudentTTuning:
    """Bounds of the degrees of freedom of Student's t, and the steps by which they are found."""

    # Where a fit starts: tails that are told from the normal's, and have four moments.
    start_df: float = 10.0
    # Widths of all data up to which clusters of the start see distances as they are.
    start_reach: float = 3.0
    # Below, a row in ten lies beyond 1e4 widths: no data are so, but for spikes on single values.
    least_df: float = 0.2
    # Up to here they are searched: beyond, all moments that data of any size show are those of the
    # normal to six digits. What is as likely with more is taken for normal, with so many that every
    # density is the normal one to ten digits.
    most_df: float = 1e6
    normal_df: float = 1e10
    # How far one step goes, as a factor: a start whose scales are those of all data sees no tails
    # at all, and would go to the normal.
    longest_step: float = 4.0
    # Steps of the search within: each adds about half as many digits as there are.
    steps: int = 10
    # Those at which it is tried what more normal tails alone gain: fewer than from here are far
    # from where the bound is sharp.
    grid_from: float = 8.0
    grid: int = 32
    # What that must gain a row: rounding gains less.
    least_gain: float = 1e-12


@dataclass(frozen=True)
class FactorTuning:
    """Starts of factor analyzers, and the rows that they need."""

    # Steps between loadings and noise: these settle in two digits, and EM goes on from there.
    start_iterations: int = 10
    # How many times as many are made of few columns, where they are quick.
    more_iterations: int = 10
    # Share of a column's variance that is noise at least: EM is slow to leave where there is none.
    least_noise: float = 5e-3
    # Of the noise, what a factor explains at least: of nothing EM would make nothing.
    least_strength: float = 1e-2
    # Rows for each parameter of a column, of which its loadings and noise are no chance: the rule
    # of thumb of regressions.
    rows_each: int = 10
    # Columns up to which all eigenvalues cost no more than products with a subspace.
    few_columns: int = 256
    # Vectors of the subspace beyond the factors, and its products: factors that stand out of the
    # noise twofold are found in three digits.
    oversampled: int = 8
    subspace_iterations: int = 8
    # From one that was found at other noise, products that bring it up to date.
    near_iterations: int = 1
    # By what share of the largest variance noise still changes when it has settled.
    settled: float = 1e-6
    # Rows of all components by which a start describes very many columns, and of each at least:
    # EM sees all, and factors of so many are known in two digits.
    start_rows: int = 4096
    fewest_start_rows: int = 512
    # Noise, as a share of a column's variance, below which distances are summed of residuals:
    # above, what cancels in them leaves twelve digits.
    exact_below: float = 1e-3
    # Share of responsibilities that are not zero from which one product of all is quicker.
    dense: float = 0.4
    # Columns of a random subspace for each factor, where labels tell covariances in one pass.
    sketched: int = 10
    # Steps of EM that principal components are taken up before rows judge them.
    component_steps: int = 5


@dataclass(frozen=True)
class NumpyKernelTuning:
    """Blocks of the kernel on NumPy, and the times by which it chooses its way."""

    # Doubles in a block's features, which are made, multiplied by theta, and multiplied
    # by the responsibilities: within the level-3 cache. Smaller blocks, which would fit
    # level 2, lose more to the calls (100 us a block) than they gain.
    cached: int = 3 * 2**17
    least_rows: int = 128
    most_rows: int = 4096
    # Rows whose sums are put off until there are enough of each component.
    deferred_rows: int = 4096
    # Doubles of their responsibilities, half a GiB: of very many components they are fewer rows.
    deferred: int = 2**26
    # Doubles of the deferred rows that are gathered at a time.
    gathered: int = 2**15
    # Nanoseconds (Zen 3), for the choice between the dense and the sparse way: one
    # multiply-add of a product, to make one feature and copy it into both products, to
    # gather one number, and to call on one component.
    multiply: float = 0.045
    feature: float = 1.0
    gather: float = 8.0
    call: float = 40000.0
    # Rows of each triangle that are multiplied at a time: less cuts off more of the
    # zeros above the diagonal, more makes a quicker product.
    strip: int = 8


@dataclass(frozen=True)
class MissingTuning:
    """Blocks of rows with missing values, and how rows of one pattern are told from others."""

    # Rows that are grouped by their patterns together: the more, the more share a pattern, each of
    # which costs some hundred microseconds a block.
    most_rows: int = 2**16
    # So many in compiled loops, where a pattern costs less: within the level-3 cache.
    most_compiled: int = 2**15
    block_bytes: int = 64 * 2**20
    # Fewer rows of a pattern are computed one by one.
    least_rows: int = 24
    # So, too, in compiled loops, where less is made for a pattern.
    least_compiled: int = 8
    # Bytes of what rows of patterns share, which later blocks find again.
    pattern_bytes: int = 64 * 2**20
    # Doubles of the deviations of a piece of rows from all means: within the level-3 cache.
    piece: int = 2**17
    # Doubles of matrices that are factorized side by side: within the level-2 cache.
    side_by_side: int = 2**15
    # Rows and iterations of the one normal from which a start draws what is missing: clusters are
    # not found by its digits.
    start_rows: int = 4096
    start_iterations: int = 15


@dataclass(frozen=True)
class NoisyRowsTuning:
    """Rows of known noise, each with a factorization of its own."""

    # Doubles of matrices that are factorized side by side: within the level-2 cache.
    side_by_side: int = 2**15
    # Rows of a piece at least, however large their matrices are.
    least_rows: int = 32


@dataclass(frozen=True)
class CompiledKernelTuning:
    """Blocks of the compiled kernels, and where each is the quicker."""

    # Bytes of one block's rows in both layouts, their responsibilities and their deviations.
    block_bytes: int = 2**20
    least_rows: int = 480
    most_rows: int = 3840
    # Bytes of the deviations that one component gathers at a time.
    gathered_bytes: int = 24 * 2**10
    least_gathered: int = 64
    # Bytes of the columns and responsibilities whose moments are summed at a time.
    summed_bytes: int = 2**16
    least_count: float = 0.75
    # The compiled loops go by features up to this many columns, if there are components enough
    # to share what it takes to make the features (measured for d 1..24, k 1..64 where every
    # responsibility counts).
    few_columns: int = 16
    # The compiled loops have nothing to share between the components of full covariances beyond.
    shared_columns: int = 48
    # Responsibilities of a pass, rows times components, from which the loops repay what it takes
    # to load them: half a second in each process, and many times that where they are not compiled
    # yet. NumPy takes about 30 ns a responsibility and pass more, some milliseconds below this.
    worth_loading: int = 200_000


@dataclass(frozen=True)
class CandidatesTuning:
    """Sizes and costs by which components that do not count for a row are left out."""

    # Below, all are computed in the time that it takes to bound, list and gather.
    least_components: int = 64
    least_columns: int = 8
    # Bytes of a block's bounds, within level 3 of the cache, and its rows: the more, the more of
    # them share what is loaded of a component.
    bound_bytes: int = 2**23
    most_rows: int = 3840
    # Pairs that are listed at most, as a share of all: beyond, what computes all is quicker.
    most_listed: float = 0.5
    # What a pair takes beside its multiplications, in those of float32 (Zen 4): of all that are
    # computed, exponentials and sums of rows; of those that are listed, to gather them too.
    pair: float = 200.0
    listed_pair: float = 640.0
    listed_diagonal: float = 1500.0
    # Tiles of the rows that are listed for a component are not full.
    filling: float = 1.5
    # What must be saved at least, as a share: some rows of a block tell it.
    least_saving: float = 0.15
    # Components by which it is told whether directions are worth finding for all.
    few_components: int = 16
    # Blocks that are not tried after one in which too much counts: trying takes up to a twentieth
    # of a block of few components.
    blocks_untried: int = 7
    # Balls that bound nearly as well as ellipsoids with axes along the columns take half the work.
    ball_share: float = 0.8
    # Where nothing is summed (answers): `pair` where only the largest is asked; what a row takes to
    # be whitened, bounded and listed; and `blocks_untried`, for all that is computed takes less.
    labelled_pair: float = 30.0
    answered_row: float = 9000.0
    answers_untried: int = 31
    # Multiplications of all pairs of a chunk of which answers are asked, below which what it takes
    # to try is not repaid; and its rows, for each column, that repay bounds by full covariances,
    # which take as long to make as the densities of 5000 rows of 32 columns.
    answered_products: float = 8e8
    answered_rows: int = 300


@dataclass(frozen=True)
class CentersKernelTuning:
    """Blocks of the kernels of K-means."""

    # Bytes of a block's products with all centres, which the arg-max reads again: within level 2
    # of the cache, if there are rows enough for the product to be quick.
    score_bytes: int = 2**19
    least_rows: int = 128
    most_rows: int = 2048
    # Bytes of the rows of a block of the compiled loops, which store no products, and its rows.
    row_bytes: int = 2**18
    most_tiled: int = 3840


@dataclass(frozen=True)
class CenterCandidatesTuning:
    """Costs by which centres that are not the nearest are ruled out by a few coordinates."""

    # Below, all products take no longer.
    least_components: int = 128
    least_columns: int = 16
    # What a pair takes beside its multiplications, in those of float32 (Zen 4): to store a bound
    # and compare it, and to find one that is not ruled out and compute it; and a row.
    pair: float = 16.0
    listed_pair: float = 400.0
    row: float = 4000.0
    # What must be saved at least, as a share: some rows of a block tell it.
    least_saving: float = 0.15
    # Blocks that go the way of the one before: what it takes to try is then a hundredth.
    blocks_untried: int = 15


@dataclass(frozen=True)
class DeviceKernelTuning:
    """Blocks of the kernel on a device."""

    # Bytes of the device that one block and its temporaries take at most, in each thread.
    bytes: int = 256 * 2**20
    # Arrays of a group's (components, rows, columns) or of all (components, rows) that live at
    # once, with what a product copies (measured: tests/test_arrays.py).
    temporaries: int = 7
    # More rows would gain little speed, and their sums in float32 would lose digits.
    most_rows: int = 2**15


@dataclass(frozen=True)
class CategoricalTuning:
    """Blocks of the kernels of categorical components, and bounds on their probabilities."""

    # Doubles of a block's indicators on NumPy, which two products read.
    indicators: int = 2**17
    # Bytes of a block's combinations and responsibilities in the compiled kernel, and its rows.
    block_bytes: int = 2**18
    least_rows: int = 64
    most_rows: int = 1024
    # Combinations of answers that one lookup takes, where columns have few categories: of pairs of
    # five with missing ones, 36 lines of a table, so that 20 such columns lie in 24 KiB.
    most_combinations: int = 36
    # A code beyond is a number or an ID, and a table of it would be as long.
    most_categories: int = 10_000
    # No probability is below: what a sample lacks can still be learnt of all rows.
    least_probability: float = 1e-12
    # The share of the others' answers that a component has where a start or a move gave it none: EM
    # would take thousands of steps away from zero, and few towards it.
    softened: float = 0.02
    # Counts further below zero, as a share of the component's rows, are those of no data.
    negative: float = 1e-9
    # An answer is given always, or never, where no more than this is left to the others.
    at_bound: float = 1e-5
    # Coordinates of a row in a start and in a split: 64 MiB of sampled rows become so much more.
    most_coordinates: int = 128


@dataclass(frozen=True)
class SampleTuning:
    """The sample of the survey."""

    # The sample's optimum misses the data's by about p / (2 m) nats per row for p
    # parameters and m rows, so rows are drawn by the number of parameters.
    rows_per_parameter: int = 100
    fewest_sampled: int = 20000
    most_sampled: int = 100000
    bytes: int = 64 * 2**20
    # Rows a parameter of a sample that stays with a model, for it to say how old rows move: its
    # error is then a third of the step, where holding them still errs by all of it.
    kept_per_parameter: int = 10
    # Standard errors by which another optimum must be ahead on that sample for an update to go
    # there: half of what gives a start of a fit up, for the one that is left is not lost.
    renewal_errors: float = 2.0
    # Iterations of the start's EM on the sample, at most.
    iterations: int = 100
    # Numbers of a start that are held for all its rows and components at once; where they are more,
    # components come by groups.
    hard_numbers: int = 2**25
    # Iterations of k-means, at most (scikit-learn's own), and its multiply-adds, beyond which there
    # are fewer: some minutes. A distance costs as much as so many columns more.
    kmeans_iterations: int = 300
    kmeans_work: float = 1e12
    distance_work: int = 30
    # Where K-means is all that is fitted, to few rows: runs of which it is the best, at most, and
    # their multiply-adds in an iteration of all, which takes milliseconds.
    restarts: int = 200
    restarts_work: float = 4e6
    # Rounds of k-means||, and the rows that each draws for each component (its authors: 5 and 2).
    parallel_rounds: int = 5
    oversampling: float = 2.0
    # The sample's EM reads nothing, so it goes on until this share of `tol` is left.
    finer: float = 0.1
    # Who allows fewer iterations than these wants them one by one: so many are made on the
    # sample, or none where it is all of the data, for 1 + 1 of them to be the same as 2.
    fewest_iterations: int = 10


@dataclass(frozen=True)
class NoiseTuning:
    """The first guess of which rows are noise."""

    # Whose distance tells how densely rows lie: its logarithm errs by about 1 / sqrt(n d), and
    # clusters of fewer rows of the sample look like noise. Byers and Raftery take 5 to 20.
    neighbours: int = 12
    # Rows among which neighbours are looked for: in many columns a tree reads most of them.
    references: int = 5000
    # Iterations of the mixture of two gamma distributions, at most; they take microseconds.
    iterations: int = 100
    # The share that noise starts with at least, and at most: EM leaves neither end.
    least_share: float = 0.01
    most_share: float = 0.95


@dataclass(frozen=True)
class MultistartTuning:
    """Many starts on the sample, and the best of them."""

    # Starts at most.
    most_starts: int = 4
    # What plain EM from one start takes on all rows, so many times, is what other starts and moves
    # that gain nothing may take, in multiply-adds, and no more than some hundred seconds: beyond,
    # the start is what a fit waits for.
    share: float = 2.0
    # The same of K-means, whose iterations are cheap: ten times more took ten times longer for an
    # inertia 1e-4 lower, and rounds beyond it, whatever they gained, for one 1e-6 lower.
    hard_share: float = 0.05
    most_work: float = 1e12
    # Multiply-adds in the time that a call of an E-step takes for no rows.
    call_work: float = 3e6
    # Calls of an E-step in which it is found what the split of a component gains, and the least
    # number of components of which it is.
    split_calls: int = 16
    fewest_splits: int = 4
    # A round of moves that gains so many times `tol` is followed by another, whatever it takes.
    shown: float = 10.0
    # Starts are fitted, and moves made, on the first rows of the sample, and the best few starts
    # fitted to all of it.
    subsample_rows_per_parameter: int = 25
    fewest_subsampled: int = 5000
    subsample_iterations: int = 30
    # Where the data are hardly more than those, there is one start, on fewer rows: the best of so
    # many runs of k-means, for its inertia tells nearly as well as EM which is best.
    restarts: int = 3
    few_rows_per_parameter: int = 10
    fewest_of_few: int = 1000
    finalists: int = 4
    fewer_finalists: int = 2
    # One more start sees only the columns that show groups by themselves: rows by which that is
    # told, iterations of each column's K-means, the share of a normal column's deviation within
    # clusters below which it shows some (of 2 000 normal rows none is below 0.93), the least
    # deviation that counts, for values that repeat have none, and by how much columns that all
    # show some must differ for it to be another start.
    grouped_rows: int = 2000
    grouped_iterations: int = 30
    grouped_share: float = 0.9
    least_within: float = 0.02
    grouped_alike: float = 1.5
    # Moves tried at a time, how far each is fitted, how many times, and the nats per row that
    # one must gain.
    moves: int = 4
    move_iterations: int = 25
    rounds: int = 10
    least_gain: float = 0.0002
    # Nats per row between two fits to the first rows that led to one optimum, at most.
    alike: float = 1e-4
    # What is behind on the sample by so many standard errors is worse.
    standard_errors: float = 4.0
    # Starts that enter the full data at most, and the bytes of a model's sums beyond which
    # one does.
    most_contenders: int = 2
    contender_bytes: int = 2**23


@dataclass(frozen=True)
class SplitMergeTuning:
    """Moves by which a fit leaves a local optimum."""

    # EM of a split, with all that it leaves alone held, before it is judged.
    split_iterations: int = 8
    # Those after which the best of several ways to split goes on alone.
    first_iterations: int = 3
    # What is born, and what is left of its parent, have so many rows a parameter of a component,
    # or they fit noise.
    rows_per_parameter: float = 3.0
    # Variances below this share of the largest are none.
    flat: float = 1e-12
    # Weight of a component that is born beside all others, at first; and the share of the rows that
    # it needs below which, after the first iterations, it does not grow to them (those of 29 that
    # did had 0.31 of them by then).
    first_weight: float = 0.1
    stunted: float = 0.25
    # Rows of a component are those of which it has this share.
    least_resp: float = 1e-3
    # A move is tried where its split gains this share of what its merger loses: EM gains more.
    worth_a_try: float = 0.1
    # A component that is nearer to normal, in nats, than this share of that is not split, where
    # that is more than chance gains: about a nat a parameter (0.22 at least in the splits of six
    # kinds of data that were worth it).
    hopeless: float = 0.1
    # Components of one number before and after moves are one where they have this share of the rows
    # of either in common.
    same_component: float = 0.5
    # How often one merger, and one split, is tried at a time; mergers looked at, per component.
    repeats: int = 2
    mergers: int = 4


@dataclass(frozen=True)
class ExchangeTuning:
    """Starts from the clusters of other models of one K."""

    # Of the clusters of all others, so many of the likeliest are fitted where rows are few, up to
    # those of Ward's trees, of which all are: on three small tables with mclust's of fourteen
    # structures (373 cells) 3 ended below mclust's, and 28 without any exchange. One of the others'
    # and one tree's where rows are more, for each is as much work as another start.
    each: int = 2
    # Rows of Ward's trees, which take the square of them in memory and time.
    tree_rows: int = 2000
    # Clusters about seeds from which models of many optima start beside those of trees.
    seeds: int = 8
    # The likeliest starts from given clusters that are fitted, at most.
    seeded: int = 6
    # How often what gained is passed on, at most.
    rounds: int = 4


@dataclass(frozen=True)
class ScreeningTuning:
    """Rules by which some of many models go on from the sample, and from a slice."""

    # Every start is fitted to the first rows of the sample, so many a parameter of the largest
    # model; fewer than for one model, because bad models leave too.
    subsample_rows_per_parameter: int = 10
    fewest_subsampled: int = 5000
    subsample_iterations: int = 50
    # A slice of the data has so many times the rows of the sample, for steps on the sample to pay
    # there, and at least and at most this share of the data; fewer models read all rows at once.
    slice_samples: float = 10.5
    least_slice: float = 1 / 8
    most_slice: float = 1 / 3
    few_models: int = 3
    # Passes over the slice at most: what it has not told by then is for the full data to say.
    most_slices: int = 4


@dataclass(frozen=True)
class EliminationTuning:
    """Bounds on the gain that a model is still expected to make before it is given up."""

    # How quickly gains shrink: where nobody knows, and between which limits it is believed.
    unknown_rate: float = 0.9
    slowest_rate: float = 0.95
    quickest_rate: float = 0.5
    # What a fit is expected to gain yet is multiplied by this before it is given up.
    margin: float = 2.0


@dataclass(frozen=True)
class ControlVariateTuning:
    """EM on the surrogate: its trust region, and when the fit ends."""

    # EM on the sample pays where the data have so many times its rows.
    worth: int = 10
    # Iterations on the surrogate at most, and what each must gain as a share of `tol`. More
    # of both moved further from where the surrogate is right, and saved no pass.
    inner_iterations: int = 30
    inner_gain: float = 0.002
    # Where a plain M-step gains this share of what the surrogate promises, the sample is no use.
    enough: float = 0.95
    # Rejected steps on the surrogate after which it is given up.
    rejections: int = 2
    # How much a rejected step multiplies the damping; shares of the predicted gain below which
    # it is doubled and above which it is halved; and its least value.
    shrink: float = 4.0
    shrink_below: float = 0.5
    grow_above: float = 0.8
    least_damping: float = 0.25
    # The corrected weight of a component is at least this share of its weight in the data;
    # a proximal beyond `MOST_PULL` is a plain M-step.
    least_share: float = 0.05
    least_proximal: float = 0.1
    most_proximal: float = 256.0
    # How far the sample is asked what is left, when the gains say that it is little: iterations at
    # most, and where the data have as many rows as it (in proportion between), the share of `tol`
    # that so many of them gain together at the end, and the shares of the damping: a firm proximal
    # hides what lies beyond a plateau, a loose one lets the sample err.
    far_iterations: int = 200
    far_iterations_alike: int = 40
    far_gain: float = 0.005
    far_window: int = 8
    far_damping: tuple[float, ...] = (0.1, 1.0)
    # Gains shrink at least this slowly in the estimate of what is left: a likelihood has slow
    # directions that two gains do not show.
    slowest_seen: float = 0.75
    # How many times the predicted gain may be left, before and after there are two gains.
    alone: float = 4.0
    beside: float = 2.0


@dataclass(frozen=True)
class AndersonTuning:
    """Steps that mix earlier ones."""

    # Earlier steps that Anderson's mixing looks back on.
    memory: int = 3
    # The least angle between two steps that show curvature, and what is added to it, as a share of
    # that of the complete data.
    aligned: float = 0.0001
    curvature_ridge: float = 0.01


@dataclass(frozen=True)
class CanonicalTuning:
    """Bounds and tables of the exponential families: counts, times and amounts."""

    # Counts below have their log x! looked up; beyond, a series takes ten times as long.
    factorials: int = 2**16
    # Rates, probabilities and scales are at least this share of what all data have. A component
    # without counts in a column has its maximum at zero, where one count would make a row
    # impossible for good; this costs it less than 1e-10 of a count a row.
    least_share: float = 1e-10
    # Corrected sums of a surrogate that are below zero by no more than this share are rounding.
    rounding: float = 1e-6
    # Scales of exponential components are at least this share of all data's mean, which only rows
    # of zeros come near to.
    least_scale: float = 1e-9
    # Shapes of gamma components are at most this: a standard deviation of a ten-thousandth of the
    # mean, which rows of one value would pass without end.
    most_shape: float = 1e8
    # Means of spikes that differ by less than this share of them are one value.
    apart: float = 1e-3
    # Starts see logarithms of numbers of at least this share of the mean.
    least_number: float = 1e-6


@dataclass(frozen=True)
class BayesianTuning:
    """Bayesian mixtures."""

    # Rows that a component counts as at least where steps are mixed in logarithms: fewer are of no
    # account beside the prior's one.
    least_rows: float = 1e-6
    # Rows from which on a component is told of, and merged with another.
    used_rows: float = 1.0
    # Components of fewer rows than that are computed as one of them where their rows times their
    # distance from it, in its widths, are no more than this: about the nats by which the bound of
    # all rows, and each sum in widths, are then wrong.
    alike: float = 1e-12
    # Nats a parameter that a needless component gains on a sample by chance, at most: one for a
    # regular model (Akaike 1974), more for mixtures. With 1 nine of twelve stayed where there are
    # three clusters, with 2 eight where there are two, with 3 none.
    by_chance: float = 4.0
    # Mergers tried at a time, per component: of those that share rows most.
    mergers: int = 4
    # Mergers that lose at first and are judged by iterations after them, at a time, and how many of
    # these: of two components in one cluster the smaller one loses least.
    trials: int = 3
    trial_iterations: int = 50


@dataclass(frozen=True)
class PlanTuning:
    """Memory and times that a plan counts beside the data and the models."""

    # What a worker process holds of a fit of hardly any data: Python, NumPy, SciPy, Dask and Zarr,
    # and what the allocator does not give back: 105 to 119 MiB by the versions of these.
    process_bytes: int = 122 * 2**20
    # What Numba adds to it once it is imported, as workers do whatever computes: they compare its
    # version with that of whoever sends tasks.
    numba_bytes: int = 54 * 2**20
    # What LLVM adds to that, and the compiled loops of each kind of components: beside 55 MiB 52
    # measured where the loops of one kind lie in Numba's cache, and 92 where they are compiled
    # first; 95 for two kinds.
    compiler_bytes: int = 80 * 2**20
    loops_bytes: int = 4 * 2**20
    # The allocator does not give back what sums were added and sent in, up to so much (measured:
    # 4 MiB of a sample of 7, and less of one of 14).
    unreturned_bytes: int = 6 * 2**20
    # What Zarr adds to the buffers where it reads and decodes: its threads have heaps of their own
    # (measured: 8 to 11, and once 12).
    zarr_threads_bytes: int = 12 * 2**20
    # What `dask.array` adds where rows or weights are lazy: it imports pandas, pyarrow and xarray
    # where they are installed.
    dask_array_bytes: int = 90 * 2**20
    # What pyarrow adds where it reads: its library and its threads; and what its allocator keeps
    # for each task that reads (measured: a second one takes 65 to 90 MiB more, of which its buffers
    # are 40).
    arrow_bytes: int = 60 * 2**20
    arrow_heap_bytes: int = 36 * 2**20
    # Data up to this size are read and computed with by threads before a LocalCluster has started.
    small_bytes: int = 64 * 2**20
    # Dask pauses a worker at this share of its limit.
    pause: float = 0.8
    # The probe of a plan computes about this many products of a responsibility and a feature:
    # about a second of one core.
    probe_products: int = 10**10
    # The fit before it factorises matrices some tens of times: with more products of a parameter
    # and a column than these each of them takes seconds, and the probe minutes.
    probe_factors: int = 2 * 10**10
    # Numbers of factors that are proposed where full covariances do not fit, the most that fit.
    factors: tuple[int, ...] = (10, 5, 2, 1)


@dataclass(frozen=True)
class CallsTuning:
    """Bounds on what is sent to the workers with calls."""

    # Bytes up to which what calls want is sent to the workers, which have chunks to hold.
    most_sent: int = 2**25


@dataclass(frozen=True)
class IngestTuning:
    """Sizes by which inputs of any kind are read, and what is kept beside what is written."""

    # Bytes of a CSV file that a thread takes at a time: lines enough that calls cost nothing beside
    # them, and a few of them in each thread are little beside a chunk.
    text_bytes: int = 4 * 2**20
    # Rows of a table that are decoded at a time.
    batch_rows: int = 2**16
    # Text of more different values is no category, but names or free text.
    most_categories: int = 1000
    # Sums of the ranges of the survey are kept up to so many bytes: wide data of few rows would
    # have as much beside them as they are.
    kept_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class Tuning:
    """Hold every tuning constant, in groups.

    Examples
    --------
    >>> Tuning().with_changes(reading={"bytes": 2**20}).changes()
    {'reading.bytes': 1048576}
    """

    reading: Reading = field(default_factory=Reading)
    reduction: Reduction = field(default_factory=Reduction)
    fleet: FleetTuning = field(default_factory=FleetTuning)
    numerics: Numerics = field(default_factory=Numerics)
    structures: StructuresTuning = field(default_factory=StructuresTuning)
    student_t: StudentTTuning = field(default_factory=StudentTTuning)
    factor: FactorTuning = field(default_factory=FactorTuning)
    numpy_kernel: NumpyKernelTuning = field(default_factory=NumpyKernelTuning)
    missing: MissingTuning = field(default_factory=MissingTuning)
    noisy_rows: NoisyRowsTuning = field(default_factory=NoisyRowsTuning)
    compiled_kernel: CompiledKernelTuning = field(default_factory=CompiledKernelTuning)
    candidates: CandidatesTuning = field(default_factory=CandidatesTuning)
    centers_kernel: CentersKernelTuning = field(default_factory=CentersKernelTuning)
    center_candidates: CenterCandidatesTuning = field(default_factory=CenterCandidatesTuning)
    device_kernel: DeviceKernelTuning = field(default_factory=DeviceKernelTuning)
    categorical: CategoricalTuning = field(default_factory=CategoricalTuning)
    sample: SampleTuning = field(default_factory=SampleTuning)
    noise: NoiseTuning = field(default_factory=NoiseTuning)
    multistart: MultistartTuning = field(default_factory=MultistartTuning)
    split_merge: SplitMergeTuning = field(default_factory=SplitMergeTuning)
    exchange: ExchangeTuning = field(default_factory=ExchangeTuning)
    screening: ScreeningTuning = field(default_factory=ScreeningTuning)
    elimination: EliminationTuning = field(default_factory=EliminationTuning)
    control_variate: ControlVariateTuning = field(default_factory=ControlVariateTuning)
    anderson: AndersonTuning = field(default_factory=AndersonTuning)
    canonical: CanonicalTuning = field(default_factory=CanonicalTuning)
    bayesian: BayesianTuning = field(default_factory=BayesianTuning)
    plan: PlanTuning = field(default_factory=PlanTuning)
    calls: CallsTuning = field(default_factory=CallsTuning)
    ingest: IngestTuning = field(default_factory=IngestTuning)

    def with_changes(self, **groups: dict[str, object]) -> Tuning:
        """Return the tuning with some constants of some groups changed.

        Raises
        ------
        TypeError
            There is no such group, or no such constant in it.
        """
        return replace(
            self,
            **{name: replace(vars(self)[name], **changed) for name, changed in groups.items()},
        )

    def changes(self) -> dict[str, object]:
        """Return what differs from the defaults, as "group.constant": value."""
        found: dict[str, object] = {}
        for group, default in vars(Tuning()).items():
            mine = vars(self)[group]
            for f in fields(default):
                value = vars(mine)[f.name]
                if value != vars(default)[f.name]:
                    found[f"{group}.{f.name}"] = value
        return found


DEFAULTS = Tuning()
_current: ContextVar[Tuning | None] = ContextVar("dask_em_tuning", default=None)


def tuning() -> Tuning:
    """Return the tuning in force in this thread.

    Examples
    --------
    >>> tuning().reduction.fan_in
    8
    """
    return _current.get() or DEFAULTS


@contextmanager
def use_tuning(changed: Tuning) -> Iterator[None]:
    """Put a tuning in force for the block, and for the passes and calls that it makes.

    Examples
    --------
    >>> with use_tuning(tuning().with_changes(reduction={"node_bytes": 1})):
    ...     tuning().reduction.node_bytes
    1
    """
    token = _current.set(changed)
    try:
        yield
    finally:
        _current.reset(token)
