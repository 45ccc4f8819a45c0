"""Show strings that others wrote, out of files, stores, paths and workers.

A terminal obeys what it is sent: a name may retitle its window, and a line break in one forges a
line of ours. All that goes to a terminal, a log, a page or a picture goes through `shown`.
"""

from __future__ import annotations

import logging
import shlex
import unicodedata
from collections.abc import Iterable

# Control characters, those that reorder or hide others, halves of a pair, and what no font has.
HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}

# Persian, Indic scripts and emoji are misspelt without them.
JOINERS = "\u200c\u200d"

# Of one name or path, and of a whole message.
LONGEST, LONGEST_MESSAGE = 1000, 10_000


def shown(value: object, longest: int | None = LONGEST) -> str:
    r"""Return a value as one line of visible characters, the middle left out where it is long.

    Parameters
    ----------
    value : object
        What `str` makes of it is shown.
    longest : int or None
        Characters at most, before those that are hidden are written as \x1b, \n or \u202e.

    Examples
    --------
    >>> print(shown("points\x1b]0;title\x07\nok"))
    points\x1b]0;title\x07\nok
    >>> shown("température 温度"), shown("a" * 12, longest=8)
    ('température 温度', 'aaaaaa...aa')
    """
    text = str(value)
    if longest is not None and len(text) > longest:
        tail = longest // 4
        text = f"{text[: longest - tail]}...{text[-tail:]}"
    # Most are, and this is quick.
    return text if text.isprintable() else "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) not in HIDDEN or character in JOINERS:
        return character
    return character.encode("unicode_escape").decode()


def shell_words(words: Iterable[str]) -> str:
    r"""Return words as a shell takes them, to be shown and to be copied.

    Examples
    --------
    >>> print(shell_words(["dask-em", "inspect", "my model.npz", "new\nline.npz"]))
    dask-em inspect 'my model.npz' $'new\nline.npz'
    """
    return " ".join(map(_shell_word, words))


def _shell_word(word: str) -> str:
    if shown(word, None) == word:
        return shlex.quote(word)
    # Bytes that are no text, as in names of files, come as halves of a pair.
    shaped = "".join(
        f"\\x{ord(c) - 0xDC00:02x}"
        if "\udc80" <= c <= "\udcff"
        else f"\\{c}"
        if c in "\\'"
        else _visible(c)
        for c in word
    )
    return f"$'{shaped}'"


class OneLine(logging.Filter):
    """Make every record of a logger one visible line, whatever was put into its message."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Replace the message by what may be shown of it."""
        record.msg, record.args = shown(record.getMessage(), LONGEST_MESSAGE), ()
        return True
