"""FCS files of flow cytometers: events are rows, channels columns."""

from __future__ import annotations

import struct
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ...core.tuning import tuning
from ...errors import DataError, UsageError
from ...storage.stored_files import StoredFile, open_file
from .parts import ArrowPart, reading

if TYPE_CHECKING:
    from flowio import FlowData

# What FlowIO raises, beside its own errors, of keywords that are lacking, no numbers, or too few.
ODD = (KeyError, ValueError, TypeError, IndexError, EOFError, struct.error)


class FcsPart(ArrowPart):
    """An FCS file, which FlowIO reads as a whole: numbers on linear scales, as its keywords say.

    A channel is called by its marker ($PnS); where it has none, or two have the same, by its own
    name ($PnN).
    """

    def __init__(self, file: StoredFile, number: int) -> None:
        data = parsed(file, only_text=True)
        self._n_rows = int(data.event_count)
        names = channel_names(data.pnn_labels, data.pns_labels)
        if not names:
            raise _damaged(file, "it names no channels")
        dtypes = [pa.float32() if plain else pa.float64() for plain in _plain_channels(data)]
        super().__init__(str(file), number, pa.schema(list(zip(names, dtypes, strict=True))), file)

    @property
    def unit_rows(self) -> list[int]:
        """Rows of the file, which are decoded together."""
        return [self._n_rows]

    def batches(self, unit: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the file."""
        if unit:
            return
        events = events_of(self.file)
        if events.shape != (self._n_rows, len(self.names)):
            raise _damaged(
                self.file,
                f"it holds {events.size} numbers, and $TOT x $PAR is {self._n_rows} x "
                f"{len(self.names)}",
            )
        schema = pa.schema([self.schema.field(name) for name in columns])
        numbers, step = [self.names.index(name) for name in columns], tuning().ingest.batch_rows
        for start in range(0, len(events), step):
            rows = events[start : start + step]
            arrays = [
                pa.array(np.ascontiguousarray(rows[:, j]), pa.float64()).cast(field.type)
                for j, field in zip(numbers, schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def parsed(file: StoredFile, only_text: bool = False) -> FlowData:
    """Read an FCS file, or nothing of it but its keywords.

    Raises
    ------
    DataError
        It is none, or its keywords are wrong: what to do.
    UsageError
        FlowIO is not installed.
    """
    try:
        import flowio
        from flowio.exceptions import FlowIOException, MultipleDataSetsError
    except ModuleNotFoundError as e:
        raise UsageError(f"{file} is read by FlowIO: pip install 'dask-em[fcs]'") from e
    with reading(str(file)), open_file(file) as opened, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return flowio.FlowData(opened, only_text=only_text)
        except MultipleDataSetsError as e:
            raise DataError(
                f"{file} holds several data sets, and a file of one is read: write each of them "
                "to a file of its own (flowio.read_multiple_data_sets finds them)"
            ) from e
        except FlowIOException as e:
            raise _damaged(file, str(e)) from e
        except KeyError as e:
            raise _damaged(
                file, f"its text segment lacks the keyword ${str(e.args[0]).upper()}"
            ) from e
        except ODD as e:
            raise _damaged(file, f"its text segment is wrong: {e}") from e


def events_of(file: StoredFile) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Read the events (n, d) of an FCS file, on linear scales, in units of their gains."""
    data = parsed(file)
    try:
        return np.asarray(data.as_array(preprocess=True), dtype=np.float64)
    except ODD as e:
        raise _damaged(file, f"its data are of a kind that FlowIO cannot read: {e}") from e


def _damaged(file: StoredFile, why: str) -> DataError:
    return DataError(
        f"{file} cannot be read as FCS ({why}): it is damaged, was cut, or is no FCS file; export "
        "it again from the program that it came from"
    )


def channel_names(names: Sequence[str], markers: Sequence[str]) -> list[str]:
    """Return what the channels are called: by their markers, where these tell them apart.

    Examples
    --------
    >>> channel_names(["FSC-A", "FL1-A", "FL2-A", "FL3-A"], ["", "CD4 ", "dump", "dump"])
    ['FSC-A', 'CD4', 'FL2-A', 'FL3-A']
    """
    called = [m.strip() or n.strip() for n, m in zip(names, markers, strict=True)]
    count = Counter(called)
    return [one if count[one] == 1 else n.strip() for one, n in zip(called, names, strict=True)]


def _plain_channels(data: FlowData) -> list[bool]:
    """Which channels hold single precision, as they are stored."""
    timed = data.time_index if data.text.get("timestep", "").strip() else None
    return [
        data.data_type.upper() == "F" and channel["png"] in (0, 1) and number - 1 != timed
        for number, channel in sorted(data.channels.items())
    ]
