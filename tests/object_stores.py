"""An S3 server on this machine, and a proxy before it that fails as networks do."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from helpers import HANG

SECRET = "f4e2c0a8b6d4"
KEY = "AKIA5EXAMPLE"
Fault = Callable[[str, str], str | None]
"""Of a request's method and path: "500", "cut", "stall" or "slow", or None to serve it."""


def environment(endpoint: str) -> dict[str, str]:
    """What a process needs to reach the server."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
    }


class Proxy:
    """Forwards requests to a server, but for those that its `fault` names.

    Attributes
    ----------
    requests : list of (str, str)
        Method and path of every request so far.
    latency : float
        Seconds before each answer.
    """

    def __init__(self, server: str) -> None:
        self.fault: Fault = lambda method, path: None
        self.latency = 0.0
        self.requests: list[tuple[str, str]] = []
        self._server = urlsplit(server).netloc
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def fail(self, kind: str, times: int, method: str = "GET", part: str = "") -> None:
        """Let the next requests of this method, with `part` in their path, fail."""
        left = [kind] * times

        def fault(this: str, path: str) -> str | None:
            return left.pop() if left and this == method and part in path else None

        self.fault = fault

    def count(self, method: str = "GET", part: str = "") -> int:
        """Requests of this method with `part` in their path."""
        return sum(m == method and part in path for m, path in self.requests)

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # A small body goes out without waiting for the headers to be acknowledged.
            disable_nagle_algorithm = True

            def serve(self) -> None:
                proxy.requests.append((self.command, self.path))
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fault = proxy.fault(self.command, self.path)
                time.sleep(proxy.latency)
                if fault == "500":
                    self.send_error(500, "InternalError")
                    return
                status, headers, answer = proxy.forward(self, body)
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.send(answer, fault)

            def send(self, answer: bytes, fault: str | None) -> None:
                if fault in ("cut", "stall"):
                    self.wfile.write(answer[: len(answer) // 2])
                    self.wfile.flush()
                    if fault == "stall":
                        time.sleep(3)
                    self.close_connection = True
                    return
                self.wfile.write(answer)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = serve  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        return Handler

    def forward(
        self, request: BaseHTTPRequestHandler, body: bytes
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._server, timeout=HANG)
        try:
            connection.request(request.command, request.path, body, dict(request.headers))
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        hop = ("connection", "transfer-encoding")
        headers = [(k, v) for k, v in response.getheaders() if k.lower() not in hop]
        if not any(k.lower() == "content-length" for k, _ in headers):
            headers.append(("Content-Length", str(len(answer))))
        return response.status, headers, b"" if request.command == "HEAD" else answer

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join()


@contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """Where a real S3 server on this machine listens, with these buckets."""
    moto = pytest.importorskip("moto.server", reason="moto[s3], flask and flask-cors are missing")
    pytest.importorskip("obstore", reason="the extra `s3` is not installed")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        for bucket in buckets:
            put_bucket(endpoint, bucket)
        yield endpoint
    finally:
        server.stop()


def put_bucket(endpoint: str, name: str) -> None:
    """Make a bucket on the server, which asks nobody for credentials."""
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=HANG)
    connection.request("PUT", f"/{name}")
    assert connection.getresponse().status == 200
    connection.close()
