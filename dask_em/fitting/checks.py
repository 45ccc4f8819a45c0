"""Checks of a survey: data that cannot be fitted are refused, odd data are warned of."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np

from ..core.additive import Array
from ..core.chunk_log import ChunkLog
from ..core.family import LEAVE_OUT, FamilyOptions
from ..core.protocols import Source
from ..core.scoring import Scores
from ..core.support import Support, common_support
from ..core.tuning import tuning
from ..errors import DataError, warn_user
from ..foreign import shown
from .survey import Surveyed

logger = logging.getLogger("dask_em")

# Of a column in a message, which may name ten, and columns that an option is written out for.
LONGEST_NAME, MOST_LEFT_OUT = 100, 30


def check_survey(
    source: Source,
    surveyed: Surveyed,
    n_components: int,
    components: Sequence[FamilyOptions],
    names: Sequence[str] | Array | None,
    size_option: str = "n_components",
) -> None:
    """Refuse data that cannot be fitted, and warn of odd ones.

    Parameters
    ----------
    source : Source
        What was surveyed, held to the log of the survey.
    surveyed : Surveyed
    n_components : int
    components : sequence of FamilyOptions
        One of each family that is fitted.
    names : (d,) sequence of str or None
        Of the columns.
    size_option : str
        The option that is the number of components.

    Raises
    ------
    DataError
        Rows that are no finite numbers, too few rows, or numbers beyond squaring.

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> from dask_em.fitting.survey import Survey
    >>> source = ArraySource(np.eye(3, 2))
    >>> surveyed = SerialBackend().map_reduce(source, Survey(0, 3, 2, 3))
    >>> check_survey(source, surveyed, 4, [GaussianOptions()], None)
    Traceback (most recent call last):
    dask_em.errors.DataError: X has 3 rows (of positive weight) and n_components=4: ...
    """
    columns = Columns(names)
    _refuse_non_finite(source, surveyed, components, columns)
    _refuse_outside(source, surveyed, components, columns)
    _tell_dropped(source.n_dropped, surveyed.n_rows)
    _refuse_few(surveyed, n_components, size_option)
    _refuse_total(surveyed.moments.weight)
    _refuse_beyond_squaring(surveyed, columns)
    _refuse_below_squaring(surveyed, columns)
    _refuse_moments(surveyed, components, columns)
    constant = surveyed.constant_columns
    odd = (surveyed.moments, constant, columns.first)
    for message in dict.fromkeys(message for one in components for message in one.warnings(*odd)):
        how = columns.leaving_out(constant) if message.endswith(LEAVE_OUT) else ""
        warn_user(f"{message}{how}")


def check_adaptation(
    source: Source, surveyed: Surveyed, names: Sequence[str] | Array | None
) -> None:
    """Refuse rows that no model can be adapted to, and warn of those that were left out.

    There may be few of them, in columns that do not vary: covariances are not estimated.

    Parameters
    ----------
    source : Source
        What was surveyed, held to the log of the survey.
    surveyed : Surveyed
    names : (d,) sequence of str or None
        Of the columns.

    Raises
    ------
    DataError
        Rows that are no finite numbers, no row of positive weight, or numbers beyond squaring.

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.fitting.survey import Survey
    >>> source = ArraySource(np.array([[0.0, np.nan]]))
    >>> surveyed = SerialBackend().map_reduce(source, Survey(0, 0, 2, 1))
    >>> check_adaptation(source, surveyed, ["x", "y"])
    Traceback (most recent call last):
    dask_em.errors.DataError: X contains NaN at row 0, column 'y'; 1 rows hold NaN or infinity: ...
    """
    columns = Columns(names)
    _refuse_non_finite(source, surveyed, (), columns)
    _tell_dropped(source.n_dropped, surveyed.n_rows)
    _refuse_weightless(surveyed)
    _refuse_total(surveyed.moments.weight)
    _refuse_beyond_squaring(surveyed, columns)


def check_weights_init(weights: Array) -> None:
    """Raise `ValueError` unless weights lie in [0, 1] and sum to 1; with scikit-learn's words.

    Examples
    --------
    >>> check_weights_init(np.array([0.5, 0.75]))
    Traceback (most recent call last):
    ValueError: weights_init must lie between 0 and 1 and sum to 1, got ...
    """
    least, most, total = weights.min(), weights.max(), weights.sum()
    if least < 0 or most > 1:
        fault = f"in the range [0, 1], but got max value {most:.5f}, min value {least:.5f}"
    elif not np.isclose(total, 1):
        fault = f"normalized, but got sum(weights) = {total:.5f}"
    else:
        return
    raise ValueError(
        "weights_init must lie between 0 and 1 and sum to 1, got numbers from "
        f"{least:.5g} to {most:.5g} that sum to {total:.5g}. The parameter 'weights' should be "
        f"{fault}"
    )


def check_update(
    source: Source,
    surveyed: Surveyed,
    components: FamilyOptions,
    support: Support,
    names: Sequence[str] | Array | None,
) -> None:
    """Refuse rows that cannot join those of a fit, and warn of those that were left out.

    There may be few of them, in columns that do not vary in these rows.

    Parameters
    ----------
    source : Source
        What was surveyed, held to the log of the survey.
    surveyed : Surveyed
    components : FamilyOptions
    support : Support
        Of the components that were fitted.
    names : (d,) sequence of str or None
        Of the columns.

    Raises
    ------
    DataError
        Rows that are no finite numbers, or none of the family's, no row of positive weight, or
        numbers beyond squaring.

    Examples
    --------
    >>> from dask_em.backends.serial import SerialBackend
    >>> from dask_em.core.support import REAL
    >>> from dask_em.data.memory import ArraySource
    >>> from dask_em.families.gaussian.options import GaussianOptions
    >>> from dask_em.fitting.survey import Survey
    >>> source = ArraySource(np.array([[0.0, np.inf]]))
    >>> surveyed = SerialBackend().map_reduce(source, Survey(0, 1, 2, 1))
    >>> check_update(source, surveyed, GaussianOptions(), REAL, ["x", "y"])
    Traceback (most recent call last):
    dask_em.errors.DataError: X contains infinity at row 0, column 'y'; ...
    """
    columns = Columns(names)
    _refuse_non_finite(source, surveyed, [components], columns)
    _refuse_outside(source, surveyed, [components], columns, [support])
    _tell_dropped(source.n_dropped, surveyed.n_rows)
    _refuse_weightless(surveyed)
    _refuse_total(surveyed.moments.weight)
    _refuse_beyond_squaring(surveyed, columns)


def check_scores(scores: Scores, n_dropped: int) -> None:
    """Refuse criteria of no row, and log how many rows were left out.

    Raises
    ------
    DataError
        There is no row of positive weight.

    Examples
    --------
    >>> check_scores(Scores(0, 0.0, 0.0, 0.0), n_dropped=3)
    Traceback (most recent call last):
    dask_em.errors.DataError: X holds NaN or infinity in every row: there is nothing to score
    """
    if scores.n_rows == 0:
        raise DataError("X holds NaN or infinity in every row: there is nothing to score")
    if scores.weight == 0:
        raise DataError("sample_weight is zero for every row: there is nothing to score")
    if n_dropped:
        logger.info(
            "%d rows that hold NaN or infinity were left out of the criteria, which are of %d rows",
            n_dropped,
            scores.n_rows,
        )


def check_weights(source: Source, log: ChunkLog) -> None:
    """Refuse weights that are none, as a first pass has logged them.

    Raises
    ------
    DataError
        Some are negative, NaN or infinite: how many, and where the first is.
    """
    bad = log.bad_weights
    if bad.first is None:
        return
    chunk, row, weight = bad.first
    raise DataError(
        f"sample_weight has {bad.n} entries that are negative, NaN or infinite, the first "
        f"{weight:g} at {source.locate(chunk, row)}; weights must be zero or positive numbers"
    )


class Columns:
    """Name columns in messages."""

    def __init__(self, names: Sequence[str] | Array | None) -> None:
        self._names = names

    def name(self, j: int) -> str:
        """Return the name of a column, or its number where it has none."""
        if self._names is None:
            return f"column {j}"
        return f"column '{shown(self._names[j], LONGEST_NAME)}'"

    def first(self, columns: Sequence[int]) -> str:
        """Return the names of the first ten of some columns."""
        return ", ".join(self.name(j) for j in columns[:10])

    def leaving_out(self, columns: Sequence[int]) -> str:
        """Say how some columns are left out, where names tell them and others are left."""
        if self._names is None or not 0 < len(columns) < min(len(self._names), MOST_LEFT_OUT):
            return ""
        return f" by exclude={[shown(self._names[j], LONGEST_NAME) for j in columns]!r}"


def _refuse_non_finite(
    source: Source, surveyed: Surveyed, components: Sequence[FamilyOptions], columns: Columns
) -> None:
    first = surveyed.non_finite.first
    if first is None:
        return
    chunk, row, column, value = first
    what = "NaN" if np.isnan(value) else "infinity"
    more = [one.of_missing for one in components if one.of_missing and np.isnan(value)]
    of_missing = more[0] if more else ""
    masked = f" (masked numbers are NaN: {source.decoding})" if source.decoding else ""
    raise DataError(
        f"X contains {what} at {source.locate(chunk, row)}, {columns.name(column)}; "
        f"{surveyed.non_finite.n_rows} rows hold NaN or infinity{masked}: drop or fill them first, "
        f'or pass nonfinite="drop" to leave them out{of_missing}'
    )


def _refuse_outside(
    source: Source,
    surveyed: Surveyed,
    components: Sequence[FamilyOptions],
    columns: Columns,
    fitted: Sequence[Support] = (),
) -> None:
    first = surveyed.outside.first
    if first is None:
        return
    chunk, row, column, value = first
    support = common_support([*(one.support for one in components), *fitted])
    moments = surveyed.moments
    truncates = any(one.truncates for one in components)
    if truncates and support.holds_between(moments.low, moments.high, whole=True):
        warn_user(
            f"X contains {value:.15g} at {source.locate(chunk, row)}, {columns.name(column)}, and "
            f"{surveyed.outside.n_rows} rows hold such fractions: they are taken at their whole "
            "part. Numbers that are no codes of categories are for another family"
        )
        return
    negative = ((moments.low < 0) & (np.asarray(support.least) >= 0)).any()
    theirs = ". Negative values in data passed to fit" if negative else ""
    raise DataError(
        f"X contains {value:.15g} at {source.locate(chunk, row)}, {columns.name(column)}, where "
        f"{support.word(column)} are expected; {surveyed.outside.n_rows} rows hold such "
        f"numbers: correct or remove them first, or fit another family{theirs}"
    )


def _refuse_moments(
    surveyed: Surveyed, components: Sequence[FamilyOptions], columns: Columns
) -> None:
    moments = surveyed.moments
    for one in components:
        message = one.refusal(moments, columns.first)
        if message:
            empty = np.flatnonzero(moments.weights <= 0).tolist()
            how = columns.leaving_out(empty) if message.endswith(LEAVE_OUT) else ""
            raise DataError(f"{message}{how}")


def _tell_dropped(n_dropped: int, n_left: int) -> None:
    """Warn of rows that were left out, and refuse to go on without any."""
    if n_left == 0:
        raise DataError("X holds NaN or infinity in every row: there is nothing to fit")
    if n_dropped:
        warn_user(
            f"{n_dropped} rows that hold NaN or infinity were left out of the fit, which goes on "
            f"with {n_left} rows"
        )


def _refuse_few(surveyed: Surveyed, n_components: int, size_option: str) -> None:
    n = surveyed.n_weighted
    if surveyed.n_rows < 2:
        raise DataError("X has 1 row that can be used: a fit needs at least 2")
    _refuse_weightless(surveyed)
    if n < n_components:
        message = (
            f"X has {n} rows (of positive weight) and n_components={n_components}: "
            "lower it. Expected n_samples >= n_components"
        )
        raise DataError(message.replace("n_components", size_option))


def _refuse_weightless(surveyed: Surveyed) -> None:
    if surveyed.n_weighted == 0:
        raise DataError("sample_weight is zero for every row: there is nothing to fit")


def _refuse_total(weight: float) -> None:
    """Refuse weights whose sum says nothing about shares any more."""
    least, most = tuning().numerics.least_weight, tuning().numerics.most_weight
    if not least <= weight <= most:
        fault, cure = ("little", "multiply") if weight < least else ("much", "divide")
        raise DataError(
            f"sample_weight sums to {weight:.3g}, which is too {fault} to compute with (expected "
            f"{least:g} to {most:g}): {cure} sample_weight by a constant, for example to sum to "
            f"the number of rows"
        )


def _refuse_beyond_squaring(surveyed: Surveyed, columns: Columns) -> None:
    low, high = surveyed.moments.low, surveyed.moments.high
    # Of a column without a value the extremes are none.
    largest = np.where(low <= high, np.maximum(np.abs(low), np.abs(high)), 0.0)
    with np.errstate(over="ignore"):
        squares = largest**2
    # Of one value in all rows the variance is zero, however large it is.
    if not np.isfinite([surveyed.variances, squares]).all():
        raise DataError(
            f"{columns.name(int(largest.argmax()))} holds numbers (up to {largest.max():.3g}) "
            "beyond what can be squared: divide X by a constant"
        )


def _refuse_below_squaring(surveyed: Surveyed, columns: Columns) -> None:
    low, high = surveyed.moments.low, surveyed.moments.high
    flat = surveyed.variances < tuning().numerics.least_variance
    # Beside its offset, a column may vary by nothing that rounding leaves.
    lost = np.flatnonzero(flat & (low < high) & (high - low < 1)).tolist()
    if lost:
        j = lost[0]
        raise DataError(
            f"{columns.first(lost)} varies by too little to be squared ({columns.name(j)} from "
            f"{low[j]:.3g} to {high[j]:.3g}): multiply X by a constant, or leave the column out"
        )
