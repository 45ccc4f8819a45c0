"""Objects of a store on the network, fetched ahead of whoever decodes them.

How many bytes are asked for at once follows the line, as in BBR (Cardwell et al., "BBR:
congestion-based congestion control", 2016): a multiple of its bandwidth times its latency, the
largest and the least of those last measured. Nor are many asked for at one instant: those that
share a line would end at one instant too, and then it is empty for a latency. Only when an object
is asked for depends on that, never the order in which they are read.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from functools import lru_cache

from ...core.executor import ThreadPool
from ...core.tuning import tuning
from ...storage.url_store import Fetched

# Measurements of a line that are remembered, of which the best counts.
REMEMBERED = 64


class Line:
    """Measure the latency and the bandwidth of the way to a store, for all readers of a process.

    Examples
    --------
    >>> line = Line()
    >>> line.wanted_bytes(1000) == 4 * 1000  # nothing is known yet
    True
    >>> line.tell(latency=0.05, rate=100e6)
    >>> line.wanted_bytes(1000)
    50000000
    """

    def __init__(self) -> None:
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)
        self._rates: deque[float] = deque(maxlen=REMEMBERED)

    def tell(self, latency: float, rate: float) -> None:
        """Take the seconds until an answer began, and bytes a second while it was awaited."""
        self._latencies.append(latency)
        self._rates.append(rate)

    def wanted_bytes(self, size: int) -> int:
        """Return how many bytes should be on their way, where an object has about this size."""
        reading, rates = tuning().reading, list(self._rates)
        fewest = reading.fewest_requests * size
        if not rates:
            return fewest
        return max(fewest, int(reading.line_gain * max(rates) * min(list(self._latencies))))

    def seconds_between(self, size: int) -> float:
        """Return for how long nothing else is asked for after an object of this size."""
        rates = list(self._rates)
        return size / (tuning().reading.pace_gain * max(rates)) if rates else 0.0


@lru_cache(maxsize=32)
def line_to(url: str) -> Line:
    """Return what is known of the line to a store."""
    _ = url
    return Line()


os.register_at_fork(after_in_child=line_to.cache_clear)


class FetchAhead:
    """Fetch numbered objects in order, some ahead of the one that is taken.

    Parameters
    ----------
    fetch : callable
        Of a number, in any thread.
    line : Line
    size : int
        Bytes of an object, at most, before one is known.
    sizes : callable, optional
        Of a number: the bytes of its object, where these are known.
    """

    def __init__(
        self,
        fetch: Callable[[int], Fetched | None],
        line: Line,
        size: int,
        sizes: Callable[[int], int] | None = None,
    ) -> None:
        self._fetch, self._line, self._size, self._sizes = fetch, line, size, sizes
        self._pool = ThreadPool(tuning().reading.most_requests, thread_name_prefix="fetch-ahead")
        self._pending: deque[tuple[int, Future[Fetched | None]]] = deque()
        self._delivered, self._lock = 0, threading.Lock()
        self._next, self._closed = 0.0, threading.Event()

    def ask(self, number: int, stop: int) -> None:
        """Ask for an object, and for those that follow up to `stop` as far as there is room."""
        while self._pending and self._pending[0][0] != number:
            self._pending.popleft()[1].cancel()
        following = self._pending[-1][0] + 1 if self._pending else number
        while following < stop and (not self._pending or self._room(following)):
            now = time.monotonic()
            begin = max(now, self._next)
            self._next = begin + self._line.seconds_between(self._expected(following))
            self._pending.append(
                (following, self._pool.submit(self._timed, following, begin - now))
            )
            following += 1

    def take(self, number: int, stop: int) -> Fetched | None:
        """Return an object, None where there is none; those up to `stop` may be asked for.

        What was returned before must be given up by now: it counts no more.
        """
        self.ask(number, stop)
        found = self._pending[0][1].result()
        self._pending.popleft()
        return found

    def close(self) -> None:
        """Give up what is on its way."""
        self._closed.set()
        self._pending.clear()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _expected(self, number: int) -> int:
        return self._size if self._sizes is None else self._sizes(number)

    def _room(self, number: int) -> bool:
        """Whether this one may be asked for, too."""
        reading = tuning().reading
        size = self._expected(number)
        held = sum(self._expected(one) for one, _ in self._pending) + size
        most = min(self._line.wanted_bytes(size), reading.line_bytes)
        return len(self._pending) < reading.most_requests and held <= most

    def _timed(self, number: int, pause: float) -> Fetched | None:
        if pause and self._closed.wait(pause):
            return None
        began, before = time.monotonic(), self._delivered
        found = self._fetch(number)
        if found is None:
            return None
        with self._lock:
            self._delivered += len(found.data)
            # The sizes of chunks that a codec made are much alike.
            self._size = max(1, len(found.data))
            brought = self._delivered - before
        self._line.tell(found.latency, brought / max(time.monotonic() - began, 1e-6))
        return found
