"""Advice on clusters: addresses, certificates, and a cluster of one's own."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from advice.following import Followed, Here, connected, fit, options, stored

STARTED = "no cluster started"
PLAIN = "plain TCP, which nobody asked to be TLS"


def planned(here: Here, *more: object) -> str:
    """What a plan says of a running cluster."""
    return connected("plan", stored(here), "-k", 2, "--no-probe", *more)


def scored(here: Here, *more: object) -> str:
    """What a score says, on a cluster only where it is told to."""
    if not here.path("m.npz").exists():
        fit(stored(here)).save(here.path("m.npz"))
    return connected("score", here.path("m.npz"), stored(here), *more, never=STARTED)


def looked_at(here: Here, *more: object) -> str:
    return connected("doctor", "--checkpoint", here.folder, *more, never=PLAIN)


def certificates(here: Here, names: str) -> list[str]:
    """The options that a message names, with the files that they want."""
    return [
        word for name in re.findall(r"--tls-([a-z-]+)", names)
        for word in (f"--tls-{name}", here.services.certificate[name])
    ]  # fmt: skip


def encrypted(here: Here) -> list[str]:
    """What a cluster that speaks TLS is told."""
    files = certificates(here, "--tls-ca-file --tls-cert --tls-key")
    return ["--scheduler", here.services.encrypted, *files]


def scheduler_file(here: Here) -> str:
    here.path("scheduler.json").write_text(json.dumps({"address": here.services.encrypted}))
    return str(here.path("scheduler.json"))


def address_like(here: Here, words: str) -> list[str]:
    """The options of an address as a message shows it."""
    there: Mapping[str, list[str]] = {
        "tcp": ["--scheduler", here.services.plain], "tls": encrypted(here)
    }  # fmt: skip
    return there[words.partition("://")[0]]


CLUSTERS = [
    Followed("%.1f MB: no cluster started", scored, {
        r"--workers 1": lambda here, words: scored(here, *options(words)),
    }),
    Followed(PLAIN, lambda here: looked_at(here, "--scheduler", here.services.plain), {
        "--require-tls": lambda here, words: looked_at(here, words, *encrypted(here)),
    }),
    Followed("does not begin with tls://", lambda here: planned(
        here, "--require-tls", "--scheduler", here.services.plain
    ), {
        "begin with (tls://)": lambda here, words: planned(
            here, "--require-tls", *address_like(here, words)
        ),
    }),
    Followed("--require-tls needs --scheduler", lambda here: scored(here, "--require-tls"), {
        "needs --scheduler (tls://HOST:PORT)": lambda here, words: scored(
            here, "--require-tls", *address_like(here, words)
        ),
        "or (--scheduler-file)": lambda here, words: scored(
            here, "--require-tls", words, scheduler_file(here), *encrypted(here)[2:]
        ),
    }),
    Followed("an address holds no user", lambda here: planned(
        here, "--scheduler", "tcp://user:word@127.0.0.1:8786"
    ), {
        "expected (tcp://HOST:PORT)": lambda here, words: planned(
            here, *address_like(here, words)
        ),
        "or (tls://HOST:PORT)": lambda here, words: planned(here, *address_like(here, words)),
    }),
    Followed("there is no certificate to show", lambda here: planned(
        here, "--scheduler", here.services.encrypted
    ), {
        "pass (--tls.*)": lambda here, words: planned(
            here, "--scheduler", here.services.encrypted, *certificates(here, words)
        ),
    }),
]  # fmt: skip
