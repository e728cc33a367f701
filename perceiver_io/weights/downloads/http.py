"""Fetching one large file over HTTP: what was received is kept and continued, what is wrong is refused.

What was received lies in a file whose name ends in `.part` and holds the address (hashed) and the version that the
server named (its ETag, or the date of the last change), so that a later attempt can ask for the rest of that version,
and gets another version from its beginning.

Why not a library's: `torch.hub.download_url_to_file` has no timeout and tries once, `pooch.retrieve` tries once, and
neither has a bound for a file that does not end.
"""

from __future__ import annotations

import glob
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from perceiver_io.version import __version__
from perceiver_io.weights.downloads.progress import Progress

# Seconds before the second, third, … attempt; an attempt that brought more of the file starts the count again.
_PAUSES = (1, 2, 4, 8)
# What a server answers that may answer otherwise a moment later.
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_CHUNK = 1 << 18
_LARGEST = 4 << 30  # bytes; the largest released model has 0.8 GB
_LONGEST_VERSION = 120  # in a file's name, which may have 255 bytes


class DownloadError(OSError):
    """A file that cannot be fetched; says why, and what can be done."""


class _InterruptedError(Exception):
    """An attempt that failed and may succeed the next time."""

    def __init__(self, what: str, advice: str = "try again later") -> None:
        super().__init__(what)
        self.advice = advice


@contextmanager
def fetch(
    url: str,
    path: Path,
    *,
    progress: Progress | None = None,
    wait: Callable[[float], None] = time.sleep,
    timeout: float = 60.0,
    largest: int = _LARGEST,
) -> Iterator[Path]:
    """Fetches a file, and yields where it is until the end of the block; then it is removed.

    An interrupted transfer is continued, within the call and by the next one. A block that ends with a ValueError has
    found the file wrong; one that ends with anything else (a full disk, Ctrl-C) leaves it to the next call. Proxies are
    those of the environment (`https_proxy`, `no_proxy`).

    Args:
        url: http or https.
        path: beside which the file is received; it begins the file's name, which says more.
        progress: is told how far the transfer is.
        wait: pauses for some seconds before another attempt.
        timeout: seconds without an answer after which an attempt has failed.
        largest: bytes that the file may have.

    Raises:
        ValueError: for an address of another kind.
        DownloadError: if the file is not to be had, or larger than it may be.
        OSError: if it cannot be written.
    """
    check_address(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    partials = _Partials(url, path)
    try:
        complete = _persist(url, partials, progress or Progress(), wait, timeout, largest)
        try:
            yield complete
        except ValueError:
            complete.unlink()
            raise
        complete.unlink()
    finally:
        partials.nameless.unlink(missing_ok=True)  # cannot be continued


def check_address(url: str) -> None:
    """Checks that an address is one of http or https and holds no password.

    Raises:
        ValueError: if it is not.
    """
    try:
        parts = urlsplit(url)
        plain = url.isascii() and url.isprintable() and " " not in url
        fine = plain and parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        raise ValueError(f"{url!r} is not an address to download from; it must start with https:// or http://")
    if parts.username is not None:
        raise ValueError(f"the address at {parts.hostname} holds a user name; give one without, or download by hand")


def _persist(
    url: str,
    partials: _Partials,
    progress: Progress,
    wait: Callable[[float], None],
    timeout: float,
    largest: int,
) -> Path:
    """Attempts, with pauses, until there is the complete partial file."""
    failures, furthest = 0, _size(partials.find())
    while True:
        try:
            return _attempt(url, partials, progress, timeout, largest)
        except _InterruptedError as error:
            received = _size(partials.find())
            failures = 1 if received > furthest else failures + 1
            furthest = max(furthest, received)
            if failures > len(_PAUSES):
                kept = f"; {received:,} bytes are kept, and the next download continues there" if received else ""
                raise DownloadError(f"{error} ({failures} attempts); {error.advice}{kept}") from error
            pause = _PAUSES[failures - 1]
            progress.note(f"{error}; trying again in {pause} s")
            wait(pause)


def _attempt(url: str, partials: _Partials, progress: Progress, timeout: float, largest: int) -> Path:
    """Maps one request to the complete partial file."""
    partial = partials.find()
    received = _size(partial)
    headers = {"User-Agent": f"perceiver-io/{__version__}"}
    if partial is not None:
        headers |= {"Range": f"bytes={received}-", "If-Range": partials.version(partial)}
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and partial is not None:  # there is nothing after what was received
            if error.headers.get("Content-Range") == f"bytes */{received}":
                return partial
            partial.unlink()
            raise _InterruptedError(f"{url} has another size than before") from error
        answer = f"{url} answers {error.code} ({error.reason})"
        if error.code in _PASSING:
            raise _InterruptedError(answer) from error
        raise DownloadError(f"{answer}; look the address up in a browser, or give another") from error
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(url, error) from error
    with response:
        if response.status == 206 and partial is not None:
            if not _continues(response.headers, received, partials.version(partial)):
                partial.unlink()
                raise _InterruptedError(f"{url} sent another part than the one asked for; beginning again")
            total = _total(response.headers)
        elif response.status == 200:
            received, total = 0, _total(response.headers)
            partial = partials.new(_version(response.headers))
        else:
            raise DownloadError(f"{url} answers {response.status}, which is not a file; give another address")
        with partial.open("ab" if received else "wb") as file:
            progress.show(received, total)
            for chunk in _chunks(response, url):
                if max(received + len(chunk), total or 0) > largest:
                    partial.unlink()
                    raise DownloadError(f"{url} has more than the {largest:,} bytes of any model; give another address")
                try:
                    file.write(chunk)
                except OSError as error:  # no room: a part that cannot be continued is of no use
                    partial.unlink(missing_ok=True)
                    raise OSError(
                        f"{partial} cannot be written after {received:,} bytes ({error.strerror}); make room, or "
                        "choose another place with PERCEIVER_IO_CACHE"
                    ) from error
                received += len(chunk)
                progress.show(received, total)
    if total is not None and received != total:
        raise _InterruptedError(f"{url} ended after {received:,} of {total:,} bytes")
    return partial


def _unreachable(url: str, error: Exception) -> Exception:
    """Maps what opening an address raised to what to raise for it."""
    reason = getattr(error, "reason", None) or error
    what = f"cannot reach {urlsplit(url).hostname} ({reason})"
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(f"{what}; the connection is not safe, so nothing was fetched")
    return _InterruptedError(what, "is this machine online, and https_proxy set where a proxy is needed?")


def _chunks(response: Any, url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _InterruptedError(f"{url} broke off ({error})") from error
        if not chunk:
            return
        yield chunk


def _continues(headers: Message, received: int, version: str) -> bool:
    """Whether an answer is the rest of this version of a file."""
    range_ = headers.get("Content-Range", "")
    return range_.startswith(f"bytes {received}-") and _version(headers) in ("", version)


def _total(headers: Message) -> int | None:
    """Maps the headers of an answer to the size of the whole file, if they tell."""
    size = headers.get("Content-Range", headers.get("Content-Length", "")).rpartition("/")[2]
    return int(size) if size.isdecimal() else None


def _version(headers: Message) -> str:
    """Maps the headers of an answer to what names this version of the file to the server, or "" if nothing does."""
    etag = headers.get("ETag", "")
    # A weak one says that a version means the same, not that it has the same bytes.
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


class _Partials:
    """Part of a file that earlier attempts received."""

    def __init__(self, url: str, path: Path) -> None:
        self.path = path
        self.nameless = path.with_name(f"{path.name}.part")
        self.prefix = f"{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}."

    def find(self) -> Path | None:
        """A file that can be continued, if there is one."""
        found = self.path.parent.glob(f"{glob.escape(self.prefix)}*.part")
        return max((path for path in found if _size(path)), key=_size, default=None)

    def version(self, partial: Path) -> str:
        """Which version of the file a partial one is of."""
        return unquote(partial.name.removeprefix(self.prefix).removesuffix(".part"))

    def new(self, version: str) -> Path:
        """A path to receive a version from its beginning; what was received of others is removed."""
        for path in self.path.parent.glob(f"{glob.escape(self.path.name)}.*part"):
            path.unlink()
        if not version or len(quote(version, safe="")) > _LONGEST_VERSION:
            return self.nameless
        return self.path.with_name(f"{self.prefix}{quote(version, safe='')}.part")


def _size(path: Path | None) -> int:
    return path.stat().st_size if path is not None else 0


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https alone, and not from https to http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Refuses or follows."""
        if urlsplit(newurl).scheme not in ({"https"} if req.type == "https" else {"http", "https"}):
            raise DownloadError(f"{req.full_url} leads to {newurl}, which is not https; nothing was fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """An opener that knows http and https alone; urllib's own also opens local files."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
