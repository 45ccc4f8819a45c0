"""A pass from an object store behind a line of known rate and latency, as a share of the line.

python tests/benchmarks/links.py [--save] [--small] [--folder FOLDER]

The server is this file in a process of its own: it answers GET as S3 does, after a wait, and all
its answers share a line. Beside it stands the way of before: whole chunks of up to 32 MiB, at most
four, by Zarr, and of shards larger than a read one inner chunk after the other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

from common import alternate, table
from stores import MIB, Count, Points, options, parse, publish, scratch

# isort: split
import zarr
from zarr.codecs import ZstdCodec

from dask_em.core.reading import fold_range
from dask_em.data.open import stored_source
from dask_em.data.zarr.fetching import line_to
from dask_em.data.zarr.source import ZarrSource
from dask_em.storage.url_store import UrlStore

sys.path.insert(0, str(Path(__file__).parents[1]))
from object_stores import environment

RATES, WAITS = (50 * MIB, 100 * MIB), (0.01, 0.05)
ROUNDS = 3
# Bytes of a chunk and of a shard (0 for none), and the codec.
LAYOUTS = (
    (MIB // 4, 0, None),
    (2 * MIB, 0, None),
    (8 * MIB, 0, None),
    (8 * MIB, 0, ZstdCodec()),
    (MIB // 4, 4 * MIB, None),
    (MIB // 4, 32 * MIB, None),
    (MIB // 4, 32 * MIB, ZstdCodec()),
)
PIECE = 2**18
NO_SUCH_KEY = b"<Error><Code>NoSuchKey</Code></Error>"


# -- the line --------------------------------------------------------------------------


class Shared:
    """A line that brings so many bytes a second, for all who send on it."""

    def __init__(self) -> None:
        self.rate, self.wait = 2.0**40, 0.0
        self._free, self._lock = 0.0, threading.Lock()

    def send(self, n: int) -> None:
        """Wait until n more bytes are through."""
        with self._lock:
            self._free = max(time.monotonic(), self._free) + n / self.rate
            until = self._free
        time.sleep(max(0.0, until - time.monotonic()))


def serve(folder: str) -> None:
    """Serve a folder as the buckets of S3 until standard input ends; a line sets rate and wait."""
    line = Shared()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            time.sleep(line.wait)
            path = Path(folder) / self.path.lstrip("/").partition("?")[0]
            if not path.is_file():
                self.answer(404, NO_SUCH_KEY)
                return
            size, wanted = path.stat().st_size, self.headers.get("Range", "")
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start = int(first) if first else max(0, size - int(last)) if last else 0
            stop = min(int(last) + 1, size) if first and last else size
            with path.open("rb") as file:
                file.seek(start)
                body = file.read(stop - start)
            part = f"bytes {start}-{stop - 1}/{size}" if wanted else ""
            self.answer(206 if wanted else 200, body, part)

        def answer(self, status: int, body: bytes, part: str = "") -> None:
            self.send_response_only(status)
            if part:
                self.send_header("Content-Range", part)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"x"')
            self.send_header("Last-Modified", "Mon, 02 Nov 2026 00:00:00 GMT")
            self.end_headers()
            view = memoryview(body)
            for start in range(0, len(body), PIECE):
                line.send(len(view[start : start + PIECE]))
                self.wfile.write(view[start : start + PIECE])

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    for said in sys.stdin:
        line.rate, line.wait = map(float, said.split())
        print("set", flush=True)


# -- measurement -----------------------------------------------------------------------


def a_pass(source: ZarrSource) -> None:
    """Read all rows as one range, and count them."""
    chunks = range(source.n_chunks)
    assert fold_range(source, Count().fold(), chunks, None) == source.n_rows


def by_zarr(source: ZarrSource) -> None:
    """The same as it was before."""
    with patch.object(UrlStore, "fetches", PropertyMock(return_value=False)):
        assert source.read_ahead > 1
        a_pass(source)


def stored_bytes(folder: Path) -> int:
    """Bytes of the chunks of an array."""
    return sum(file.stat().st_size for file in (folder / "c").rglob("*") if file.is_file())


def main() -> None:
    arguments = parse(options(__doc__))
    total, rounds = (64 * MIB, 1) if arguments.small else (192 * MIB, ROUNDS)
    found = []
    with scratch(arguments) as folder:
        (folder / "data").mkdir()
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert server.stdin is not None
        assert server.stdout is not None
        os.environ.update(environment(server.stdout.readline().strip()))
        try:
            for chunk, shard, codec in LAYOUTS:
                name = f"x{chunk}-{shard}{'z' if codec else ''}.zarr"
                points = Points.of_bytes(total, 8, chunk)
                local = points.write(folder / "data" / "plain")
                rows, columns = local.array.chunks
                array = zarr.create_array(
                    folder / "data" / name,
                    shape=local.array.shape,
                    chunks=(rows, columns),
                    shards=(rows * shard // chunk, columns) if shard else None,
                    dtype="f8",
                    compressors=codec,
                )
                array[:] = local.array[:]
                nbytes = stored_bytes(folder / "data" / name)
                source = stored_source(f"s3://data/{name}")
                assert isinstance(source, ZarrSource)
                ways: dict[str, Callable[[], object]] = {
                    "before": lambda source=source: by_zarr(source),
                    "ours": lambda source=source: a_pass(source),
                }
                for rate in RATES:
                    for wait in WAITS:
                        server.stdin.write(f"{rate} {wait}\n")
                        server.stdin.flush()
                        server.stdout.readline()
                        # What is known of another line; the pass that is not counted tells.
                        line_to.cache_clear()
                        took = alternate(ways, rounds)
                        # Nothing arrives before the first answer, and no part of a large shard
                        # before its index.
                        answers = 1 + (shard > source.read_bytes)
                        bound = nbytes / rate / (nbytes / rate + answers * wait)
                        shares = [*(nbytes / rate / took[way] for way in ways), bound]
                        row = [f"{chunk / MIB:g} MiB{', zstd' if codec else ''}"]
                        row += [f"{shard / MIB:g} MiB" if shard else "none"]
                        row += [f"{rate / MIB:.0f}", f"{1e3 * wait:.0f}"]
                        row += [f"{nbytes / took[way] / MIB:.1f}" for way in ways]
                        found.append([*row, *(f"{share:.2f}" for share in shares)])
                        print(*found[-1], flush=True)
                server.stdin.write(f"{2.0**40} 0\n")
                server.stdin.flush()
                server.stdout.readline()
                for old in (folder / "data").iterdir():
                    subprocess.run(["rm", "-r", str(old)], check=True)
        finally:
            server.stdin.close()
            server.wait(30)
    header = [
        "chunk",
        "shard",
        "the line, MiB/s",
        "ms before each answer",
        "before, MiB/s",
        "MiB/s",
    ]
    publish(
        arguments,
        "Far object stores",
        f"{total // MIB} MiB of float64 noise, one reader, a pass that only counts rows, as one "
        "range (of that size from some hundred GiB on; of smaller ones each begins with an empty "
        f"line), median of {rounds}, alternating with the way of before (at most four reads of up "
        "to 8 MiB by Zarr). The rate is that of the stored bytes (wanted: 0.9 of the line). No "
        "pass is above the bound: the line is empty until the first answer comes, and of shards "
        "larger than a read (8 MiB) until an index and then a part of it came.\n\n"
        + table([*header, "share of the line before", "share", "its bound"], found),
    )


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(sys.argv[-1])
    else:
        main()
