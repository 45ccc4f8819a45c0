"""The job that writes tables and arrays of any kind to a Zarr store, ready to be fitted."""

from __future__ import annotations

import logging
import math
import os
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.columns import KINDS
from ..core.ranges import even_ranges
from ..core.tuning import tuning
from ..data.columns import listed
from ..data.ingest.opening import Choice, check_source, open_rows
from ..data.options import ReadOptions
from ..errors import DataError, UsageError
from ..estimators.html import facts, notebook_part, number, text
from ..fitting.observers import ObservedPass
from ..fitting.progress import reporter
from ..machine import usable_cpus
from ..runtime import as_job, current_job
from ..storage.outputs.staging import check_output
from ..storage.urls import describe_url, is_url
from ..version import __version__
from .arguments import check_apart

if TYPE_CHECKING:
    from ..core.protocols import Backend
    from ..data.ingest.rows import Aside, Rows
    from ..fitting.kept_survey import KeptSurvey
    from ..storage.outputs.resumable import UnfinishedGroup
    from ..storage.outputs.tables import ArrayPlan
    from ..storage.outputs.zarr_answers import ZarrAnswers

logger = logging.getLogger("dask_em")

DTYPES = ("float32", "float64")

# Names in the store that no column may have.
TAKEN = ("X", "feature", "row", "dask_em")


@dataclass(frozen=True)
class Ingested:
    """Say what was ingested.

    Attributes
    ----------
    destination : str
    n_rows : int
    columns : tuple of str
        Of the matrix `X`.
    dtype : str
        Of the matrix.
    others : mapping of str to str
        All other columns, each with the array that it became.
    chunk_rows, n_chunks : int
    bytes_read, bytes_written : int
        Of the inputs as they lie there, and of the matrix.
    seconds : float
    n_rows_kept : int
        Rows that an interrupted call had written.
    survey_kept : bool
        Whether fits of the store need no survey pass.

    Examples
    --------
    >>> done = Ingested("x.zarr", 4, ("a",), "float64", {}, 4, 1, 2 * 10**6, 32, 0.5, 0, True)
    >>> done.mb_per_second
    4.0
    """

    destination: str
    n_rows: int
    columns: tuple[str, ...]
    dtype: str
    others: Mapping[str, str]
    chunk_rows: int
    n_chunks: int
    bytes_read: int
    bytes_written: int
    seconds: float
    n_rows_kept: int
    survey_kept: bool

    @property
    def mb_per_second(self) -> float:
        """Megabytes of the inputs a second."""
        return self.bytes_read / 1e6 / self.seconds if self.seconds else 0.0

    def _repr_html_(self) -> str:
        """HTML for notebooks: what was written where, and how quickly."""
        pairs = [
            ("rows", f"{self.n_rows:,}"),
            ("columns", f"{text(listed(self.columns))} ({self.dtype})"),
            ("chunks", f"{self.n_chunks:,} of {self.chunk_rows:,} rows"),
            ("read", f"{number(self.bytes_read / 1e6)} MB, {number(self.mb_per_second)} MB/s"),
            ("survey", "kept for fits" if self.survey_kept else "not kept"),
        ]
        if self.others:
            pairs.insert(2, ("beside them", text(listed([*self.others]))))
        return notebook_part(f"<h4>{text(self.destination)}</h4>{facts(pairs)}")

    def as_dict(self) -> dict[str, Any]:
        """Return the record for JSON."""
        return {**asdict(self), "mb_per_second": self.mb_per_second}


def ingest(
    sources: Any,
    destination: str | os.PathLike[str],
    *,
    columns: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    dtype: str | None = None,
    delimiter: str | None = None,
    decimal: str = ".",
    header: bool = True,
    null: str | Sequence[str] | None = None,
    random_state: int = 0,
    threads: int | None = None,
    overwrite: bool = False,
    resume: bool = True,
) -> Ingested:
    """Write tables or arrays to a Zarr store that fits read quickly, and xarray opens.

    The columns of numbers become one matrix `X` of (row, feature) with a coordinate `feature` of
    their names, in chunks of about 8 MiB of whole rows with checksums. Every other column is an
    array of its own along `row`: text of few values as codes with CF's `flag_meanings`, dates as
    CF times, integers beyond 2**53 as they are. A hole is NaN in the matrix, which is of floats
    then, and the array's `_FillValue` elsewhere. The types of a CSV file are what all of its rows
    allow: the smallest integers that hold a column, float64 otherwise.

    Interrupted at any instant, the same call goes on with the regions that are not written, and
    ends with the same bytes, where the inputs are files that were not touched.

    While rows are written they are surveyed as a fit would do it, and the sums and a sample are
    kept beside them, in `dask_em/survey`. A fit of all columns without weights or held-out rows, of
    the same `random_state` and a sample that is not larger than fits draw unasked, takes them in
    place of its first pass, to the same bits, once it has compared the checksums at the ends of the
    chunk files; it says so in the log and in `history_`. So does a fit of random_state=None, which
    any sample serves. Any other fit makes the pass.

    Parameters
    ----------
    sources : path, array or table, or list of them
        Files .csv, .tsv (.gz too), .parquet, .arrow, .feather, .fcs, .npy, .h5
        (`file.h5::data/set`), folders and patterns of them, and URLs of all but HDF5; paths and
        URLs of Zarr; DataFrames of pandas, polars and Dask, tables of Arrow; whatever holds rows
        for `fit`. Several are one table: tables by the names of their columns, arrays by their
        order. Folders called `name=value` are columns. A Dask DataFrame is computed twice.
    destination : path, or URL of an object store
    columns, exclude : str or sequence of str, optional
        Names of the columns that are kept, in this order, and of those that are not, or patterns
        such as `"flux_*"`; by default all.
    dtype : {"float32", "float64"}, optional
        Of the matrix; by default the smallest that holds every number of the inputs exactly.
    delimiter : str, optional
        Between the columns of CSV files; a comma unless given, a tab in .tsv.
    decimal : str, default="."
        The decimal point of CSV files.
    header : bool, default=True
        Whether CSV files begin with the names of their columns.
    null : str or sequence of str, optional
        What stands for a hole in CSV files, beside nothing, NA, NaN, null and the like.
    random_state : int, default=0
        The `random_state` of the fits that the survey is kept for.
    threads : int, optional
        As many as there are usable processors, unless given.
    overwrite : bool, default=False
        Whether what is there may be replaced.
    resume : bool, default=True
        False throws away what an interrupted call left.

    Returns
    -------
    Ingested
        What was written, and how quickly.

    Raises
    ------
    DataError
        An input cannot be read, or a column cannot be kept: which file, line and column, and
        what to do.
    OutputExistsError
        The destination is there, or unfinished work of another kind is.
    UsageError
        An option is wrong, or a library is lacking.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from dask_em import GaussianMixture, ingest
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = ingest(X, f"{folder}/points.zarr")
    ...     model = GaussianMixture(2, random_state=0).fit(f"{folder}/points.zarr")
    >>> done.columns, model.history_[0]["phase"]
    (('x0', 'x1'), 'kept-survey')
    """
    began = time.monotonic()
    name = os.fspath(destination)
    _check_options(dtype, random_state, threads)
    check_output(name, overwrite)
    inputs = sources if isinstance(sources, list | tuple) else [sources]
    for source in inputs:
        check_source(source)
        if isinstance(source, str | os.PathLike):
            check_apart(name, os.fspath(source).partition("::")[0], "source")
    choice = Choice(ReadOptions.of(columns=columns, exclude=exclude))
    with as_job(current_job()):
        rows = _opened(inputs, choice, dtype, delimiter, decimal, header, _several(null))
        work = _Ingest(rows, name, random_state, threads or usable_cpus())
        n_kept, survey_kept = work.run(overwrite, resume)
    return Ingested(
        describe_url(name),
        rows.n_rows,
        tuple(column.name for column in rows.layout.columns),
        str(rows.layout.dtype),
        work.array_names,
        work.chunk_rows,
        work.n_chunks,
        rows.nbytes,
        rows.n_rows * rows.layout.row_bytes,
        time.monotonic() - began,
        n_kept,
        survey_kept,
    )


def _several(value: str | Sequence[str] | None) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value or ())


def _check_options(dtype: object, random_state: object, threads: object) -> None:
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    if not isinstance(random_state, int | np.integer) or not 0 <= random_state < 2**32:
        raise UsageError(f"random_state {random_state!r}: expected an integer from 0 to 2**32 - 1")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise UsageError(f"threads={threads!r}: expected a number of threads, at least 1")


def _opened(
    inputs: Sequence[Any],
    choice: Choice,
    dtype: str | None,
    delimiter: str | None,
    decimal: str,
    header: bool,
    null: Sequence[str],
) -> Rows:
    """Open the inputs; of tables all rows are looked at, whose types nobody knows before."""
    from ..data.ingest.options import CsvOptions

    csv = CsvOptions(delimiter, decimal, header, null)
    with ObservedPass([reporter()], "look", 1, None, 0) as running:
        rows = open_rows(inputs, csv, choice, dtype, running.advance)
        running.n_rows, running.nbytes = rows.n_rows, rows.nbytes
    return rows


class _Ingest:
    """One call: where the rows go, in which chunks, and what is kept beside them."""

    def __init__(self, rows: Rows, destination: str, random_state: int, threads: int) -> None:
        self.rows, self.layout, self.destination = rows, rows.layout, destination
        self.random_state, self.threads = random_state, threads
        most = tuning().reading.bytes // rows.layout.row_bytes
        self.chunk_rows = min(rows.n_rows, max(1, most))
        self.n_chunks = math.ceil(rows.n_rows / self.chunk_rows)
        self.ranges = even_ranges(self.n_chunks)
        self.array_names = _array_names(rows.layout.asides)

    def run(self, overwrite: bool, resume: bool) -> tuple[int, bool]:
        """Write what is not written; the rows that were, and whether a survey is kept."""
        from ..storage.outputs.resumable import resumable_group
        from ..storage.outputs.tables import TableFormat

        arrays = self._arrays()
        told = {"dask_em_matrix": "X", "Conventions": "CF-1.11"}
        form = TableFormat(self.rows.n_rows, self.chunk_rows, arrays, told)
        stamps = self._stamps()
        name = self.destination
        path: Path | str = name if is_url(name) else Path(name).absolute()
        identity = self._identity(arrays)
        with resumable_group(path, identity, stamps, form, overwrite, resume) as unfinished:
            whole = frozenset(chunk for chunks in unfinished.whole() for chunk in chunks)
            if whole:
                logger.info(
                    "resuming: %d of %d regions are whole", len(unfinished.whole()), len(stamps)
                )
            record = self._written(unfinished, whole)
            self._check_untouched(stamps)
            kept = self._keep(unfinished, record)
        return sum(self._rows_of(chunk) for chunk in whole), kept

    def _rows_of(self, chunk: int) -> int:
        return min(self.chunk_rows, self.rows.n_rows - chunk * self.chunk_rows)

    def _written(
        self, unfinished: UnfinishedGroup[ZarrAnswers], whole: frozenset[int]
    ) -> KeptSurvey | None:
        """Write all regions, some at a time, and survey them, unless that is not to be kept."""
        from ..backends.dask.config import survey_engine
        from ..data.ingest.written import Streams, WrittenSource
        from ..data.zarr.source import ZarrSource
        from ..fitting.kept_survey import KeptSurvey, SurveyLeaves, largest_sample, worth_keeping
        from ..fitting.survey import Survey, survey_seed
        from ..storage.outputs.tables import CountRows, MarkedPass

        outputs, rows, d = unfinished.answers.outputs, self.rows, len(self.layout.columns)
        target = ZarrSource(outputs["X"])
        assert target.ranges() == self.ranges, "regions are not the ranges of a pass"
        source = WrittenSource(target, Streams(rows, self.array_names), outputs, whole)
        nbytes = rows.n_rows * self.layout.row_bytes
        marks = unfinished.answers, unfinished.regions, whole
        with ObservedPass([reporter()], "ingest", 1, rows.n_rows, nbytes) as running:
            if is_url(self.destination) or not worth_keeping(len(self.ranges), d):
                self._backend().map_reduce(source, MarkedPass(CountRows(), *marks), running.advance)
                return None
            seed = survey_seed(np.random.RandomState(self.random_state))
            engine = survey_engine(rows.n_rows)
            survey = Survey(seed, largest_sample(d), d, rows.n_rows, engine=engine)
            work = MarkedPass(SurveyLeaves(survey), *marks)
            leaves = self._backend().map_reduce(source, work, running.advance)
        return KeptSurvey.of(survey, leaves)

    def _backend(self) -> Backend:
        """Return threads of this process, or one, where inputs are to be read in turn.

        Rows that are decoded together would else be decoded again for each region.
        """
        from ..backends.serial import SerialBackend
        from ..backends.threads import ThreadsBackend

        region_rows = self.chunk_rows * len(self.ranges[0])
        if self.threads == 1 or 2 * self.rows.unit_rows > region_rows:
            return SerialBackend()
        return ThreadsBackend(self.threads)

    def _keep(self, unfinished: UnfinishedGroup[ZarrAnswers], record: KeptSurvey | None) -> bool:
        """Keep the survey beside the rows; whether there is one."""
        from ..data.zarr.beside import keep_beside
        from ..storage.outputs.zarr_answers import consolidate

        group = unfinished.staging.group(unfinished.name)
        kept = record is not None and not isinstance(group, str)
        if record is not None and not isinstance(group, str):
            keep_beside(group, record)
        else:
            logger.info("no survey is kept beside the rows: a fit makes its own")
        consolidate(group)
        return kept

    # -- what is written ---------------------------------------------------------------

    def _arrays(self) -> list[ArrayPlan]:
        from ..storage.outputs.tables import ArrayPlan

        names = [column.name for column in self.layout.columns]
        kinds = [column.kind for column in self.layout.columns]
        matrix = ArrayPlan("X", self.layout.dtype, names, {KINDS: kinds})
        others = [
            ArrayPlan(
                self.array_names[aside.column.name],
                aside.dtype,
                None,
                {**aside.attributes, "long_name": aside.column.name},
            )
            for aside in self.layout.asides
        ]
        return [matrix, *others]

    def _identity(self, arrays: Sequence[ArrayPlan]) -> dict[str, Any]:
        """Collect all that the bytes depend on, but for the contents of the inputs."""
        layout = self.layout
        return {
            "dask_em": __version__,
            "shape": [self.rows.n_rows, len(layout.columns)],
            "chunk_rows": self.chunk_rows,
            "columns": [[column.name, column.kind] for column in layout.columns],
            "arrays": [
                [plan.name, str(plan.dtype), dict(plan.attributes or {})] for plan in arrays
            ],
        }

    def _stamps(self) -> dict[range, str]:
        """Compute the stamp of each region: that of the files that its rows come from."""
        most = self.rows.n_rows
        spans = [
            (chunks.start * self.chunk_rows, min(chunks.stop * self.chunk_rows, most))
            for chunks in self.ranges
        ]
        return dict(zip(self.ranges, self.rows.stamps(spans), strict=True))

    def _check_untouched(self, stamps: Mapping[range, str]) -> None:
        if self._stamps() != stamps:
            raise DataError(
                "a source was written to while it was read: run the same command again when "
                "nobody writes there"
            )


def _array_names(asides: Sequence[Aside]) -> dict[str, str]:
    """Return a name of an array of Zarr for each column: no slashes, and no name twice."""
    found: dict[str, str] = {}
    for aside in asides:
        plain = re.sub(r"[/\\\x00-\x1f]", "_", aside.column.name).lstrip("._") or "column"
        name, number = plain, 2
        while name in (*found.values(), *TAKEN):
            name, number = f"{plain}_{number}", number + 1
        found[aside.column.name] = name
    return found
