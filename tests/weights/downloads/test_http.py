"""Fetching a file from a server that fails in every way that servers do."""

import errno
import socket
import ssl
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from perceiver_io.weights.downloads import DownloadError, Progress, fetch
from perceiver_io.weights.downloads.http import _Redirects, check_address
from tests.weights.downloads.site import Site, serve


class Seen(Progress):
    """Keeps what it is told; may raise when so many bytes are there."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[tuple[int, int | None]] = []
        self.notes: list[str] = []
        self.stop_at = stop_at

    def show(self, received: int, total: int | None) -> None:
        self.steps.append((received, total))
        if self.stop_at is not None and received >= self.stop_at:
            raise KeyboardInterrupt

    def note(self, line: str) -> None:
        self.notes.append(line)


def get(site: Site, folder: Path, progress: Progress | None = None, waits: list[float] | None = None) -> bytes:
    """What arrives; the seconds of the pauses are added to `waits`."""
    pauses = [] if waits is None else waits
    with fetch(site.address, folder / "file", progress=progress, wait=pauses.append, timeout=20.0) as path:
        return path.read_bytes()


def partial(folder: Path) -> Path:
    """The one file of a folder, which is a partial one."""
    (path,) = folder.iterdir()
    assert path.name.startswith("file.")
    assert path.name.endswith(".part")
    return path


def test_a_file_arrives_whole_and_nothing_else_stays(site: Site, tmp_path: Path) -> None:
    progress = Seen()
    assert get(site, tmp_path / "new", progress) == site.content
    assert not list((tmp_path / "new").iterdir())
    assert progress.steps[0] == (0, 1_000_003)
    assert progress.steps[-1] == (1_000_003, 1_000_003)
    assert not progress.notes
    assert site.asked[0]["User-Agent"].startswith("perceiver-io/")


def test_a_cut_connection_is_continued(site: Site, tmp_path: Path) -> None:
    site.faults = [-400_001, -300_000]
    progress, waits = Seen(), []
    assert get(site, tmp_path, progress, waits) == site.content
    assert [request.get("Range") for request in site.asked] == [None, "bytes=400001-", "bytes=700001-"]
    assert [request.get("If-Range") for request in site.asked] == [None, '"first"', '"first"']
    assert waits == [1, 1]
    assert f"{site.address} ended after 400,001 of 1,000,003 bytes; trying again in 1 s" in progress.notes


def test_the_next_call_continues(site: Site, tmp_path: Path) -> None:
    site.faults = [-400_001, 503, 503, 503, 503]
    waits: list[float] = []
    with pytest.raises(
        DownloadError,
        match=r"answers 503 .* \(5 attempts\); try again later; 400,001 bytes are kept, and the next download",
    ):
        get(site, tmp_path, waits=waits)
    assert waits == [1, 2, 4, 8]
    assert partial(tmp_path).read_bytes() == site.content[:400_001]
    assert get(site, tmp_path) == site.content
    assert site.asked[-1]["Range"] == "bytes=400001-"


@pytest.mark.parametrize("headers", [{}, {"Content-Length": None}], ids=["announced", "unannounced"])
def test_a_file_larger_than_any_model_is_left(site: Site, tmp_path: Path, headers: dict[str, str | None]) -> None:
    site.headers = headers
    progress = Seen()
    with (
        pytest.raises(DownloadError, match=r"has more than the 300,000 bytes of any model; give another address"),
        fetch(site.address, tmp_path / "file", progress=progress, largest=300_000),
    ):
        pass
    assert max(received for received, _ in progress.steps) <= (300_000 if headers else 0)
    assert not list(tmp_path.iterdir())


def test_without_an_etag_the_date_names_the_version(site: Site, tmp_path: Path) -> None:
    site.etag = "Wed, 21 Oct 2015 07:28:00 GMT"
    site.headers = {"ETag": 'W/"weak"', "Last-Modified": site.etag}
    site.faults = [-9]
    assert get(site, tmp_path) == site.content
    assert site.asked[1]["If-Range"] == site.etag
    assert site.asked[1]["Range"] == "bytes=9-"


def test_what_has_no_version_is_not_continued(site: Site, tmp_path: Path) -> None:
    site.headers = {"ETag": None}
    site.faults = [-400_001, -500_000]
    assert get(site, tmp_path) == site.content
    assert [request.get("Range") for request in site.asked] == [None] * 3
    site.headers = {"ETag": f'"{"x" * 200}"'}  # too long for a file's name
    site.faults = [-400_001]
    assert get(site, tmp_path) == site.content
    assert not list(tmp_path.iterdir())


def test_a_server_that_ignores_ranges_is_read_from_the_beginning(site: Site, tmp_path: Path) -> None:
    site.ranges = False
    site.faults = [-400_001]
    assert get(site, tmp_path) == site.content
    assert site.asked[1]["Range"] == "bytes=400001-"


@pytest.mark.parametrize("if_range", [True, False], ids=["the server compares", "the server does not"])
def test_a_file_that_changes_meanwhile_is_read_from_the_beginning(site: Site, tmp_path: Path, if_range: bool) -> None:
    site.if_range = if_range
    site.faults = [-400_001, 404]
    with pytest.raises(DownloadError, match="answers 404"):
        get(site, tmp_path)
    site.content, site.etag = site.content[::-1], '"second"'
    assert get(site, tmp_path) == site.content
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shorter", [0, 600_000])
def test_a_partial_file_with_nothing_after_it(site: Site, tmp_path: Path, shorter: int) -> None:
    """It is complete, or of a file that has shrunk under the same ETag."""
    with pytest.raises(OSError, match="disk full"), fetch(site.address, tmp_path / "file"):
        raise OSError("disk full")
    assert partial(tmp_path).read_bytes() == site.content
    site.content = site.content[shorter:]
    assert get(site, tmp_path) == site.content
    assert len(site.asked) == (3 if shorter else 2)


def test_a_file_that_its_user_finds_wrong_is_removed(site: Site, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a checkpoint"), fetch(site.address, tmp_path / "file"):
        raise ValueError("not a checkpoint")
    assert not list(tmp_path.iterdir())


def test_another_address_does_not_continue_the_file(site: Site, tmp_path: Path) -> None:
    """Two servers may use the same ETag for different files."""
    site.faults = [-400_001, 404]
    with pytest.raises(DownloadError):
        get(site, tmp_path)
    with serve(Site(content=b"other" * 200_000)) as other:
        assert get(other, tmp_path) == other.content
    assert other.asked[0].get("Range") is None
    assert not list(tmp_path.iterdir())


def test_a_size_that_never_comes_true(site: Site, tmp_path: Path) -> None:
    site.headers = {"Content-Length": "1000004"}
    site.ranges = False
    waits: list[float] = []
    with pytest.raises(DownloadError, match=r"ended after 1,000,003 of 1,000,004 bytes \(5 attempts\)"):
        get(site, tmp_path, waits=waits)
    assert waits == [1, 2, 4, 8]  # the first attempt brought something, and is the first failure all the same


def test_a_size_that_is_not_told(site: Site, tmp_path: Path) -> None:
    site.headers = {"Content-Length": None}
    progress = Seen()
    assert get(site, tmp_path, progress) == site.content
    assert progress.steps[-1] == (1_000_003, None)


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_passing_failures_are_tried_again(site: Site, tmp_path: Path, status: int) -> None:
    site.faults = [status, status]
    progress, waits = Seen(), []
    assert get(site, tmp_path, progress, waits) == site.content
    assert waits == [1, 2]
    assert progress.notes[1].startswith(f"{site.address} answers {status} (")
    assert progress.notes[1].endswith("; trying again in 2 s")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_lasting_failures_are_not(site: Site, tmp_path: Path, status: int) -> None:
    site.faults = [status]
    with pytest.raises(DownloadError, match=rf"answers {status} \(.+\); look the address up in a browser, or give"):
        get(site, tmp_path)
    assert len(site.asked) == 1
    assert not list(tmp_path.iterdir())


def test_an_answer_without_a_file(site: Site, tmp_path: Path) -> None:
    site.faults = [204]
    with pytest.raises(DownloadError, match="answers 204, which is not a file"):
        get(site, tmp_path)


def test_ctrl_c_leaves_what_was_received(site: Site, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        get(site, tmp_path, Seen(stop_at=500_000))
    kept = partial(tmp_path).read_bytes()
    assert 500_000 <= len(kept) < len(site.content)
    assert site.content.startswith(kept)
    assert get(site, tmp_path) == site.content
    assert site.asked[1]["Range"] == f"bytes={len(kept)}-"


def test_a_server_that_falls_silent(site: Site, tmp_path: Path) -> None:
    site.faults, site.ranges, site.stall = [-400_001] * 5, False, threading.Event()
    with (
        pytest.raises(DownloadError, match=r"broke off \(timed out\)"),
        fetch(site.address, tmp_path / "file", wait=lambda _: None, timeout=0.2),
    ):
        pass


def test_no_network(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
    waits: list[float] = []
    with (
        pytest.raises(
            DownloadError, match=r"cannot reach 127.0.0.1 \(.*refused\) \(5 attempts\); is this machine online"
        ),
        fetch(url, tmp_path / "file", wait=waits.append),
    ):
        pass
    assert waits == [1, 2, 4, 8]
    assert not list(tmp_path.iterdir())


def test_no_name_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with (
        pytest.raises(DownloadError, match=r"cannot reach example.org \(.*name resolution\).*https_proxy set"),
        fetch("https://example.org/file", tmp_path / "file", wait=lambda _: None),
    ):
        pass


def test_a_certificate_that_does_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise urllib.error.URLError(ssl.SSLCertVerificationError("self-signed certificate"))

    monkeypatch.setattr("urllib.request.HTTPSHandler.https_open", refuse)
    with (
        pytest.raises(
            DownloadError, match=r"self-signed certificate.*the connection is not safe, so nothing was fetched"
        ),
        fetch("https://example.org/file", tmp_path / "file", wait=pytest.fail),
    ):
        pass


def test_a_full_disk_is_not_tried_again(site: Site, tmp_path: Path) -> None:
    class FullDisk(Progress):
        def show(self, received: int, total: int | None) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        get(site, tmp_path, FullDisk())
    assert len(site.asked) == 1


def test_proxies_of_the_environment_are_used(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.address)
    monkeypatch.setenv("no_proxy", "")
    with fetch("http://example.invalid/file", tmp_path / "file") as path:
        assert path.read_bytes() == site.content
    assert site.paths == ["http://example.invalid/file"]


def test_redirects_are_followed_to_http(site: Site, tmp_path: Path) -> None:
    with serve(Site(content=b"", faults=[302], headers={"Location": site.address})) as elsewhere:
        assert get(Site(content=b"", address=elsewhere.address), tmp_path) == site.content


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "Redirection to url 'file:///etc/passwd' is not allowed"),
        ("ftp://127.0.0.1/file", "leads to ftp://127.0.0.1/file, which is not https; nothing was fetched"),
        ("data:text/plain,hello", "Redirection to url 'data:text/plain,hello' is not allowed"),
    ],
)
def test_redirects_elsewhere_are_not(site: Site, tmp_path: Path, target: str, message: str) -> None:
    site.faults, site.headers = [302], {"Location": target}
    with pytest.raises(DownloadError, match=message):
        get(site, tmp_path)
    assert not list(tmp_path.iterdir())


def test_redirects_from_https_to_http_are_not_followed() -> None:
    """There is no server with a certificate here; urllib would call this."""
    request = urllib.request.Request("https://example.org/a")
    with pytest.raises(DownloadError, match=r"leads to http://example.org/b, which is not https"):
        _Redirects().redirect_request(request, None, 302, "Found", None, "http://example.org/b")


def test_a_redirect_in_a_circle(site: Site, tmp_path: Path) -> None:
    site.faults, site.headers = [302] * 20, {"Location": site.address}
    with pytest.raises(DownloadError, match=r"answers 302 .*infinite loop"):
        get(site, tmp_path)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/file",
        "data:text/plain,hello",
        "/etc/passwd",
        "example.org/file",
        "https://",
        "http:///file",
        "http://[::1/file",
        "http://example.org:port/file",
        "http://example.org/a b",
        "http://example.org/a\r\nHost: other",
        "http://exämple.org/",
        "",
    ],
)
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an address to download from; it must start with https:// or http://"):
        check_address(url)
    with pytest.raises(ValueError, match="is not an address"), fetch(url, tmp_path / "new" / "file"):
        pass
    assert not list(tmp_path.iterdir())


def test_passwords_in_an_address_are_refused_and_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"^the address at example.org holds a user name; give one without"):
        check_address("https://me:secret@example.org/file")
