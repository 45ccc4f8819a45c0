"""Several hosts on one machine: network namespaces on a bridge, one address each."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pytest
from helpers import HANG


@dataclass(frozen=True)
class Host:
    """A network namespace."""

    name: str
    address: str

    def command(self, *words: object) -> list[str]:
        """The command that runs `words` there."""
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def cut_off(self) -> None:
        """Drop what comes and goes; nobody is told."""
        rules = """
            table inet cut {
                chain in { type filter hook input priority 0; policy drop; iif lo accept; };
                chain out { type filter hook output priority 0; policy drop; oif lo accept; };
            }"""
        subprocess.run(self.command("nft", rules), check=True, timeout=HANG)

    def heal(self) -> None:
        """Let everything through again."""
        subprocess.run(self.command("nft", "delete table inet cut"), check=True, timeout=HANG)


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=HANG)


@contextmanager
def network(n: int) -> Iterator[list[Host]]:
    """`n` hosts that see each other and nothing else."""
    if os.geteuid():
        pytest.skip("network namespaces need root")
    if absent := [p for p in ("ip", "nft") if shutil.which(p) is None]:
        pytest.skip(f"this machine has no {', '.join(absent)}: apt-get install iproute2 nftables")
    own = f"em{os.getpid()}"
    with ExitStack() as stack:

        def namespace(name: str) -> str:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("-n", name, "link", "set", "lo", "up")
            return name

        switch = namespace(f"{own}s")
        ip("-n", switch, "link", "add", "bridge", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge", "up")
        hosts = []
        for i in range(1, n + 1):
            host = Host(namespace(f"{own}h{i}"), f"10.77.0.{i}")
            port = f"port{i}"
            ip("-n", switch, "link", "add", port, "type", "veth",
               "peer", "name", "net0", "netns", host.name)  # fmt: skip
            ip("-n", switch, "link", "set", port, "master", "bridge", "up")
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", "net0")
            ip("-n", host.name, "link", "set", "net0", "up")
            hosts.append(host)
        yield hosts
