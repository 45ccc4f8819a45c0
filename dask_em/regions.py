"""Markers of what is done: one for each range of chunks, on a disk or in an object store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .folders import Folder


@dataclass(frozen=True)
class Regions:
    """Ranges of chunks, each with a marker once its answers are where they are not lost.

    Attributes
    ----------
    folder : Folder
        Of the markers.
    stamps : mapping of range to str
        Every region, with the `sinks.source_stamp` of its rows before the pass.
    """

    folder: Folder
    stamps: Mapping[range, str]

    def mark(self, chunks: range) -> None:
        """Say that the answers of `chunks` are stored."""
        self.folder.write(self._marker(chunks), b"")

    def marked(self) -> list[range]:
        """Regions that are stored and whose source has not been touched since."""
        found = set(self.folder.names())
        return [chunks for chunks in self.stamps if self._marker(chunks) in found]

    def _marker(self, chunks: range) -> str:
        return f"{chunks.start}-{chunks.stop}-{self.stamps[chunks] or 'unknown'}"
