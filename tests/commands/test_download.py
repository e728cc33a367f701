"""`perceiver-io download`, from servers on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.presets import PRESETS
from perceiver_io.weights.downloads import RELEASED, DownloadError
from tests.golden import GOLDEN_DIR, Case
from tests.parity.test_models import preset_of
from tests.weights.downloads.site import Site, serve

MODELS = GOLDEN_DIR / "models"


def no_hub(repository: str, **_: Any) -> Path:
    raise DownloadError(f"cannot fetch {repository}")


@pytest.fixture(autouse=True)
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    """A server of a small flow model, which is as large as the preset for the test."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PERCEIVER_IO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("perceiver_io.weights.downloads.hub.fetch_snapshot", no_hub)
    monkeypatch.setattr("perceiver_io.weights.downloads.http._PAUSES", (0, 0, 0, 0))
    preset, overrides = preset_of(Case.load(MODELS / "optical_flow.npz"))
    monkeypatch.setitem(PRESETS, preset, perceiver_io.create_config(preset, **overrides))
    with serve(Site(content=(MODELS / "optical_flow.pystate").read_bytes())) as running:
        monkeypatch.setitem(RELEASED, preset, running.address)
        yield running


def test_download(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "optical-flow"]) == 0
    output = capsys.readouterr()
    directory = tmp_path / "cache" / "optical-flow"
    assert re.fullmatch(
        rf"optical-flow is in {directory} \(the file's sha256 is [0-9a-f]{{64}}\)\n"
        r"perceiver_io.load_model\('optical-flow'\) reads it\n",
        output.out,
    )
    assert output.err.splitlines()[-1] == f"optical-flow: 100 % of {len(site.content) / 1e6:.1f} MB"
    perceiver_io.load_model("optical-flow")
    assert main(["download", "optical-flow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "preset": "optical-flow",
        "directory": str(directory),
        "load": "optical-flow",
        "fetched": False,
        "sha256": None,
    }
    assert main(["download", "optical-flow"]) == 0
    assert f"optical-flow was already in {directory}; --force fetches it again\n" in capsys.readouterr().out
    assert len(site.asked) == 1
    assert main(["download", "optical-flow", "--force"]) == 0
    assert len(site.asked) == 2


def test_another_cache(run_json: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    result = run_json("download", "optical-flow", "--cache-dir", "elsewhere")
    assert result["load"] == result["directory"] == "elsewhere/optical-flow"
    perceiver_io.load_model(result["load"])
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: PRESET"),
        (["../etc"], "invalid choice: '../etc'"),
        (["tiny-language"], "invalid choice: 'tiny-language'"),
        (["optical-flow", "--url", "file:///etc/passwd"], "'file:///etc/passwd' is not an address to download from"),
        (["optical-flow", "--url", ""], "'' is not an address to download from"),
        (["optical-flow", "--google-drive", "https://example.org"], "is not a shared folder"),
        (["optical-flow", "--google-drive", "x", "--url", "y"], "not allowed with argument --google-drive"),
        (["optical-flow", "--cache-dir", "taken"], "taken"),
    ],
)
def test_mistaken_arguments(arguments: list[str], message: str, error_of: Callable[..., str]) -> None:
    Path("taken").write_text("a file where the directory should be")
    assert message in error_of("download", *arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"faults": [404]}, r"answers 404 \(Not Found\); look the address up in a browser, or give another"),
        ({"faults": [500] * 5}, r"answers 500 \(Internal Server Error\) \(5 attempts\); try again later"),
        ({"headers": {"Content-Length": "9", "ETag": None}}, r"is not the checkpoint of optical-flow and was not kept"),
        ({"headers": {"Content-Length": "99999999", "ETag": None}}, r"ended after [\d,]+ of 99,999,999 bytes"),
        ({"content": b"<html>Sign in</html>"}, "it is an HTML or XML page"),
        ({"content": (MODELS / "language.pystate").read_bytes()}, "the checkpoint does not fit preset 'optical-flow'"),
        ({"faults": [302], "headers": {"Location": "file:///etc/passwd"}}, "'file:///etc/passwd' is not allowed"),
    ],
)
def test_what_servers_do(site: Site, change: dict[str, Any], message: str, error_of: Callable[..., str]) -> None:
    for name, value in change.items():
        setattr(site, name, value)
    assert re.search(message, error_of("download", "optical-flow", "--cache-dir", "cache"))


def test_changed_content(site: Site, run: Callable[..., str], error_of: Callable[..., str]) -> None:
    run("download", "optical-flow", "--cache-dir", "cache")
    site.content += b"\0"
    message = error_of("download", "optical-flow", "--cache-dir", "cache", "--force")
    assert "file.pystate has changed: its sha256 is" in message


def test_no_network(error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RELEASED, "optical-flow", "http://127.0.0.1:9/file.pystate")
    message = error_of("download", "optical-flow", "--cache-dir", "cache")
    assert re.search(r"cannot reach 127\.0\.0\.1 \(.*refused\) \(5 attempts\); is this machine online, and", message)


def test_without_gdown(error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    folder = "https://drive.google.com/drive/folders/1AbC"
    message = error_of("download", "optical-flow", "--google-drive", folder)
    assert "needs gdown; install it with: pip install 'perceiver-io-torch[download]'" in message


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send to another process")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_process_leaves_the_part(site: Site, tmp_path: Path, sent: signal.Signals) -> None:
    site.faults, site.stall = [-5000], threading.Event()
    process = subprocess.Popen(
        [sys.executable, "-m", "perceiver_io", "download", "optical-flow", "--url", site.address],
        env={**os.environ, "no_proxy": "*"},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # ignored where tests run in the background
    )
    folder = tmp_path / "cache" / "downloads" / "optical-flow"
    pause = threading.Event()
    while process.poll() is None and not any(path.stat().st_size for path in folder.glob("*.part")):
        pause.wait(0.05)
    process.send_signal(sent)
    errors = process.communicate()[1]
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted"
    (part,) = (path for path in (tmp_path / "cache").rglob("*") if path.is_file())
    assert part.read_bytes() == site.content[:5000]
