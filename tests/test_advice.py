"""Every message that gives advice: what it names exists, and following it works.

The messages are found in the source. Each has a row in `advice/` that provokes it and does what it
says, in the words in which it is said; or it needs another machine than tests have.
"""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
from advice.answers import ANSWERS
from advice.clusters import CLUSTERS
from advice.counts import COUNTED
from advice.data import DATA
from advice.exports import EXPORTED
from advice.fits import CHECKPOINTS, ENDINGS, OPTIONS
from advice.following import Followed, Here, Services
from advice.ingest import INGESTED
from advice.labels import LABELLED
from advice.messages import ARGUMENT, INSTALL, MESSAGES, OPTION, Message
from advice.noise_covariance import NOISY
from advice.packages import PACKAGES
from advice.programs import PROGRAMS
from advice.tables import TABLES
from advice.updates import UPDATED

import dask_em
from dask_em import (
    Checkpointing,
    GaussianMixture,
    KMeans,
    adapt,
    compare,
    ingest,
    load,
    select,
    write_report,
)
from dask_em.cli.main import main

ROOT = Path(__file__).parent.parent

# -- what they name exists -----------------------------------------------------------

# Arguments of other libraries, as advice names them.
OTHERS = {
    "np.load": {"mmap_mode"},
    "pandas": {"index"},
    "zarr": {"mode", "write_empty_chunks"},
    "dask": {"dtype", "meta", "scheduler", "chunks"},
    "pyarrow": {"write_page_checksum"},
    "DataArray": {"axis", "name", "row"},
}
# What is done in Python alone is said so, and needs no option.
IN_PYTHON = re.compile(r"\b[Ii]n Python,.*", re.DOTALL)


def options_of(command: str) -> set[str]:
    found = main.commands[command]  # type: ignore[attr-defined]
    names = {name for p in found.params for name in (*p.opts, *p.secondary_opts)}
    return {name for name in names if name.startswith("--")} | {"--help"}


def ours() -> set[str]:
    """Every argument of the public functions and methods."""
    mixtures = [getattr(dask_em, name) for name in dask_em.__all__ if name.endswith("Mixture")]
    public: list[Any] = [*mixtures, KMeans, Checkpointing, adapt, compare, ingest, select, load]
    public.append(write_report)
    public += [m for _, m in inspect.getmembers(GaussianMixture, inspect.isfunction)]
    return {name for function in public for name in inspect.signature(function).parameters}


def named_options(text: str) -> list[str]:
    return OPTION.findall(text.replace("pip install --upgrade", ""))


INVENTED = Message("fitting/none.py:1", "pass --no-such-thing, or such_a_thing=3")


def test_what_does_not_exist_is_found() -> None:
    assert INVENTED.advises
    assert rows_of(INVENTED) == []
    for text in ("pass --no-such-thing", "pass such_a_thing=3", "pip install 'dask-em[nothing]'"):
        with pytest.raises(AssertionError):
            test_what_is_named_exists(Message("fitting/none.py:1", text))
    with pytest.raises(AssertionError, match="predict has no --holdout"):
        test_a_command_is_told_of_its_options(Message("data/zarr/none.py:1", "pass --holdout 0.1"))
    with pytest.raises(AssertionError, match="predict has no option for max_iter"):
        test_a_command_is_told_of_its_options(Message("data/zarr/none.py:1", "pass max_iter=3"))


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.place)
def test_what_is_named_exists(message: Message) -> None:
    assert isinstance(main, click.Group)
    everywhere = set().union(*(options_of(name) for name in main.commands))
    assert set(named_options(message.text)) <= everywhere, message.text
    assert set(ARGUMENT.findall(message.text)) <= ours().union(*OTHERS.values()), message.text
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for named in INSTALL.findall(message.text):
        assert set(named.split(",")) <= {*extras["optional-dependencies"], "{}"}, message.text


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.place)
def test_a_command_is_told_of_its_options(message: Message) -> None:
    for command in message.printed_by:
        # What `inspect` shows is to be done by a fit.
        known = options_of("fit" if command == "inspect" else command)
        text = IN_PYTHON.sub("", message.in_shell(command))
        for option in named_options(text):
            assert option in known, f"{command} has no {option}: {text}"
        for argument in set(ARGUMENT.findall(text)) & ours():
            raise AssertionError(f"{command} has no option for {argument}: {text}")


# -- and following it works ----------------------------------------------------------

FOLLOWED = [
    *ANSWERS, *ENDINGS, *OPTIONS, *CHECKPOINTS, *DATA, *TABLES, *INGESTED, *PROGRAMS, *PACKAGES,
    *CLUSTERS, *COUNTED, *LABELLED, *NOISY, *EXPORTED, *UPDATED,
]  # fmt: skip

# What cannot be followed here: part of the message, and the machine that it needs.
ELSEWHERE = {
    "has no array namespace": "a GPU: what is expected is 'cuda'",
    "this process ran out of memory": "a sample larger than its memory: tests/test_endings.py",
    "the Dask client in force does not answer": "a process that forks with a client",
    "open it in the children alone": "a process that forks with a bucket open",
    "a daemonic process starts no workers": "a process of a pool: tests/test_programs.py",
    "make room, or pass --checkpoint": "a full disk, and another: tests/faults/test_disk_full.py",
}


def rows_of(message: Message) -> list[str]:
    """The words by which the message is known in the tables, once each."""
    known = {row.words for row in FOLLOWED if row.is_of(message)}
    return sorted(known | {words for words in ELSEWHERE if words in message.text})


def test_every_message_has_a_row(record_property: Callable[[str, object], None]) -> None:
    rows = {message: rows_of(message) for message in MESSAGES}
    unknown = [f"{m.place}: {m.text}" for m, words in rows.items() if len(words) != 1]
    assert unknown == [], "give each one row: that follows it, or of ELSEWHERE with the reason"
    for row in FOLLOWED:
        assert sum(row.is_of(message) for message in MESSAGES) == 1, row.words
    for words in ELSEWHERE:
        assert sum(words in message.text for message in MESSAGES) == 1, words
    followed = sum(not {*words} & ELSEWHERE.keys() for words in rows.values())
    record_property("messages that give advice", len(MESSAGES))
    record_property("of which followed", followed)
    print(f"{len(MESSAGES)} messages give advice; that of {followed} is followed here")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    with ExitStack() as stack:
        yield Services(stack, tmp_path_factory.mktemp("services"))


@pytest.mark.parametrize("row", FOLLOWED, ids=lambda row: row.words)
def test_advice_works(row: Followed, tmp_path: Path, services: Services) -> None:
    (message,) = filter(row.is_of, MESSAGES)
    here = Here(tmp_path, services)
    text = row.provoke(here)
    assert message.is_in(text), text
    for advice, follow in row.follow.items():
        found = re.search(advice, text)
        assert found, f"nothing is said of {advice!r}: {text}"
        said = follow(here, found[found.lastindex or 0])
        assert said == "", f"{found[0]!r} does not help: {said}"
