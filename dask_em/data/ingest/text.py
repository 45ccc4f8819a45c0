"""Files of text in blocks of whole lines, of which any is read again: plain, or packed by gzip."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...errors import DataError, naming
from ...storage.stored_files import StoredFile, open_file
from ...storage.urls import is_url
from .rows import changed, gone

# Bytes that are read, or unpacked, at a time, and that are asked of a store on the network.
PIECE, FAR_PIECE = 2**20, 2**23

# No line is longer: a quote that is not closed makes one of all that follows.
LONGEST_LINE = 2**28

# Places in a packed file from which it can be unpacked, each of which holds 40 KiB.
MOST_PLACES = 1024


class EndlessLineError(Exception):
    """A line has no end, or is within quotes that have none.

    Parameters
    ----------
    text : bytes
        From the first line on that no block holds.
    """

    def __init__(self, text: bytes | bytearray) -> None:
        lines = bytes(text).split(b"\n")
        odd = (i for i, line in enumerate(lines) if line.count(b'"') % 2)
        self.n_lines_before = next(odd, 0)
        super().__init__(lines[self.n_lines_before][:40].decode(errors="replace"))


@dataclass
class Place:
    """A place in a packed file: how much text lies before it, and how unpacking goes on."""

    text: int
    file: int
    unpacker: Any


@dataclass
class TextFile:
    """Read a file of text.

    Attributes
    ----------
    file : StoredFile
    packed : bool
        Whether gzip packed it.

    Examples
    --------
    >>> import gzip, tempfile
    >>> from pathlib import Path
    >>> from dask_em.storage.stored_files import find_files
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.csv.gz")
    ...     _ = path.write_bytes(gzip.compress(b"1,2" + bytes([10]) + b"3,4"))
    ...     (file,) = find_files(str(path), [])
    ...     [bytes(block) for block in TextFile(file, True).blocks(0, 2)]
    [b'1,2\\n', b'3,4']
    """

    file: StoredFile
    packed: bool
    _places: list[Place] = field(default_factory=list, repr=False)
    _apart: int = 0

    @property
    def path(self) -> str:
        """Name of the file, for people."""
        return str(self.file)

    @property
    def _piece(self) -> int:
        return FAR_PIECE if is_url(self.file.name) else PIECE

    def pieces(self, start: int, learn: bool = False) -> Iterator[bytes]:
        """Yield the text from byte `start` on; `learn` notes places to begin at later."""
        try:
            with naming(self.path), open_file(self.file) as file:
                if self.packed:
                    yield from self._unpacked(file, start, learn)
                    return
                file.seek(start)
                while piece := file.read(self._piece):
                    yield piece
        except FileNotFoundError:
            raise gone(self.path) from None

    def _unpacked(self, file: Any, start: int, learn: bool) -> Iterator[bytes]:
        before = [place for place in self._places if place.text <= start]
        place = before[-1] if before else Place(0, 0, None)
        unpacker = None if place.unpacker is None else place.unpacker.copy()
        text = place.text
        file.seek(place.file)
        while raw := file.read(self._piece):
            while raw:
                unpacker = unpacker or zlib.decompressobj(31)
                try:
                    found = unpacker.decompress(raw, PIECE)
                except zlib.error as e:
                    raise DataError(
                        f"{self.path} cannot be unpacked ({e}): it is damaged; restore it from a "
                        "copy"
                    ) from e
                if text + len(found) > start:
                    yield found[max(0, start - text) :]
                text += len(found)
                raw = unpacker.unconsumed_tail
                if unpacker.eof:
                    # Another member, or zeros that fill a block.
                    raw, unpacker = unpacker.unused_data.lstrip(b"\0"), None
            if learn:
                self._learn(Place(text, file.tell(), unpacker))
        if unpacker is not None:
            raise DataError(f"{self.path} ends too early: it was cut; restore it from a copy")

    def _learn(self, place: Place) -> None:
        """Note a place, with some way between it and the last one."""
        if self._places and place.text < self._places[-1].text + self._apart:
            return
        copy = None if place.unpacker is None else place.unpacker.copy()
        self._places.append(Place(place.text, place.file, copy))
        if len(self._places) > MOST_PLACES:
            self._places = self._places[::2]
            self._apart = 2 * max(self._apart, place.text // MOST_PLACES // 2)

    def blocks(self, start: int, nbytes: int) -> Iterator[bytes]:
        """Yield the text from byte `start` on, in blocks of whole lines of about `nbytes`.

        Raises
        ------
        EndlessLineError
            A line does not end.
        """
        rest = bytearray()
        for piece in self.pieces(start, learn=True):
            rest += piece
            if len(rest) < nbytes:
                continue
            end = last_line_end(rest)
            if end:
                yield bytes(rest[:end])
                del rest[:end]
            elif len(rest) > LONGEST_LINE:
                raise EndlessLineError(rest)
        if rest.count(b'"') % 2:
            raise EndlessLineError(rest)
        if rest:
            yield bytes(rest)

    def again(self, start: int, lengths: Sequence[int]) -> Iterator[bytes]:
        """Yield blocks of known lengths, the first of which begins at byte `start`.

        Raises
        ------
        DataError
            The file is shorter now.
        """
        pieces, rest = self.pieces(start), bytearray()
        for length in lengths:
            while len(rest) < length:
                piece = next(pieces, b"")
                if not piece:
                    raise changed(self.path)
                rest += piece
            yield bytes(rest[:length])
            del rest[:length]


def last_line_end(text: bytearray | bytes) -> int:
    """Return where the last whole line of a text ends, of which quotes may hold several lines.

    Examples
    --------
    >>> last_line_end(b"1,2\\n3"), last_line_end(b'1,"a\\nb'), last_line_end(b'1\\n2,"a\\nb')
    (4, 0, 2)
    """
    end = text.rfind(b"\n") + 1
    while end and text.count(b'"', 0, end) % 2:
        # Within a quoted field: before its first quote.
        end = text.rfind(b"\n", 0, text.rfind(b'"', 0, end)) + 1
    return end
