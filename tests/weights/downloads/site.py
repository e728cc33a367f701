"""A web server of one file on this machine, which fails as it is told."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass(kw_only=True)
class Site:
    """What the server holds, does and was asked.

    Attributes:
        faults: one for each of the next requests: a status to answer, or a number of bytes after which to hang up
            (negative to tell it from a status), or None.
        headers: that replace those of an answer; None leaves one out.
    """

    content: bytes
    address: str = ""
    etag: str | None = '"first"'
    faults: list[int | None] = field(default_factory=list)
    headers: dict[str, str | None] = field(default_factory=dict)
    ranges: bool = True
    if_range: bool = True
    asked: list[Message] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    stall: threading.Event | None = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        self.asked.append(request.headers)
        self.paths.append(request.path)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and fault > 0:
            request.send_response(fault)
            self._send_headers(request, {"Content-Length": "0"})
            return
        size, start = len(self.content), 0
        asked = request.headers.get("Range")
        if asked and self.ranges and (not self.if_range or request.headers.get("If-Range") == self.etag):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start and start >= size:
            request.send_response(416)
            self._send_headers(request, {"Content-Range": f"bytes */{size}"})
            return
        request.send_response(206 if start else 200)
        headers: dict[str, str | None] = {"Content-Length": f"{size - start}", "ETag": self.etag}
        if start:
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
        self._send_headers(request, headers)
        end = size if fault is None else start - fault
        request.wfile.write(self.content[start:end])
        if self.stall is not None:
            self.stall.wait()

    def _send_headers(self, request: BaseHTTPRequestHandler, headers: dict[str, str | None]) -> None:
        for name, value in {**headers, **self.headers}.items():
            if value is not None:
                request.send_header(name, value)
        request.end_headers()


@contextmanager
def serve(site: Site) -> Iterator[Site]:
    """Serves a site within the block; sets its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name that http.server calls
            site.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing is printed."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site.address = f"http://127.0.0.1:{server.server_port}/perceiver_io/file.pystate"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield site
        finally:
            if site.stall is not None:
                site.stall.set()
            server.shutdown()
            thread.join()
