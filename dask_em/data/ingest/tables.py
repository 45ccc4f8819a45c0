"""Tables in parts, each a file or a frame in memory: looked at once, then read in order."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate

import numpy as np
import pyarrow as pa

from ...core.protocols import Advance
from ...errors import DataError
from ...runtime import current_job
from .parts import TablePart
from .rows import Layout, Part, joint_stamp
from .schema import Seen, aside_column, is_broken, layout_of, matrix_column


class TableRows:
    """The rows of several parts, one after the other; columns by their names.

    Parameters
    ----------
    parts : sequence of TablePart
    choose : callable
        Names of all columns -> those that are kept.
    dtype : str or None
        Of the matrix.
    advance : callable or None
        Told of rows that were looked at.

    Raises
    ------
    DataError
        A part lacks a column, or a column cannot be kept.
    """

    def __init__(
        self,
        parts: Sequence[TablePart],
        choose: Callable[[Sequence[str]], list[str]],
        dtype: str | None,
        advance: Advance | None = None,
    ) -> None:
        self._parts = parts
        names = choose([*dict.fromkeys(name for part in parts for name in part.names)])
        self._check_names(names)
        found = self._look(names, frozenset(), advance)
        torn = [n for n, s in zip(names, found, strict=True) if s.partly and s.kind == "text"]
        torn = [n for n in torn if not is_broken(found[names.index(n)])]
        if torn:
            # Some blocks looked like numbers or times, and all of them are words.
            again = self._look(torn, frozenset(torn), advance)
            found = [
                again[torn.index(n)] if n in torn else s for n, s in zip(names, found, strict=True)
            ]
        self._refuse_broken(names, found)
        self.n_rows = sum(sum(part.unit_rows) for part in parts)
        if not self.n_rows:
            raise DataError(f"{parts[0].name} holds no rows: there is nothing to ingest")
        self.layout = layout_of(names, found, dtype)
        self._names = names
        self._types = _csv_types(self.layout, names, found)
        # First row of each part, and of each unit of it.
        self._starts = [0, *accumulate(sum(part.unit_rows) for part in parts)]
        self._units = [[0, *accumulate(part.unit_rows)] for part in parts]
        self.nbytes = sum(part.nbytes for part in parts)
        self.unit_rows = max(max(part.unit_rows, default=0) for part in parts)

    def _check_names(self, names: Sequence[str]) -> None:
        for part in self._parts:
            theirs = set(part.names)
            lacking = next((name for name in names if name not in theirs), None)
            if lacking is not None:
                has = next(other for other in self._parts if lacking in other.names)
                raise DataError(
                    f"{part.name} lacks the column {lacking!r} that {has.name} has: several files "
                    "are one table; add it there, or leave it out of all, "
                    f"exclude={lacking!r}"
                )

    def _look(
        self, names: Sequence[str], as_text: frozenset[str], advance: Advance | None
    ) -> list[Seen]:
        found = [Seen() for _ in names]
        for part in self._parts:
            for seen in part.look(names, as_text):
                current_job().check()
                found = [a + b for a, b in zip(found, seen, strict=True)]
                if advance is not None and found:
                    advance(max(s.count + s.n_missing for s in seen))
        return found

    def _refuse_broken(self, names: Sequence[str], found: Sequence[Seen]) -> None:
        for name, seen in zip(names, found, strict=True):
            if seen.word is not None and is_broken(seen):
                part = self._parts[seen.word.part]
                others = f", and numbers in {seen.n_numbers:,} other rows" * (seen.n_numbers > 0)
                raise DataError(
                    f"{part.place_of(seen.word)}: column {name!r} holds {seen.word.value!r}"
                    f"{others}: {part.advice(seen.word, name)}"
                )

    def read(self, start: int) -> Iterator[Part]:
        """Yield all rows from number `start` on, some at a time."""
        first = bisect_right(self._starts, start) - 1
        for number in range(first, len(self._parts)):
            skip = max(0, start - self._starts[number])
            unit = max(0, bisect_right(self._units[number], skip) - 1)
            skip -= self._units[number][unit]
            part = self._parts[number]
            if unit >= len(part.unit_rows):
                continue
            for batch in part.stream(unit, self._names, self._types):
                if skip >= batch.num_rows:
                    skip -= batch.num_rows
                    continue
                yield self._decoded(batch.slice(skip))
                skip = 0

    def _decoded(self, batch: pa.RecordBatch) -> Part:
        layout = self.layout
        X = np.empty((batch.num_rows, len(layout.columns)), dtype=layout.dtype)
        for j, column in enumerate(layout.columns):
            X[:, j] = matrix_column(batch.column(column.name))
        return X, {
            aside.column.name: aside_column(batch.column(aside.column.name), aside)
            for aside in layout.asides
        }

    def stamps(self, spans: Sequence[tuple[int, int]]) -> list[str]:
        """Return what tells whether the parts were written to that hold these spans of rows."""
        now = [part.stamp() for part in self._parts]
        found = []
        for start, stop in spans:
            first = bisect_right(self._starts, start) - 1
            found.append(joint_stamp(now[first : bisect_right(self._starts, stop - 1)]))
        return found


def _csv_types(
    layout: Layout, names: Sequence[str], found: Sequence[Seen]
) -> dict[str, pa.DataType]:
    """The types as which a CSV file is read, now that all of it was looked at."""
    arrow: dict[str, pa.DataType] = {
        "boolean": pa.bool_(),
        "integer": pa.int64(),
        "float": pa.float64(),
        "day": pa.date32(),
        "text": pa.string(),
    }
    types = {}
    for name, seen in zip(names, found, strict=True):
        types[name] = arrow.get(seen.kind) or pa.timestamp(seen.unit)
    return types
