"""From a server to a model that `load_model` finds by name."""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.presets import PRESETS
from perceiver_io.weights.downloads import RELEASED, DownloadError, Progress, download_checkpoint
from tests.golden import GOLDEN_DIR, Case
from tests.parity.test_models import preset_of
from tests.weights.downloads.site import Site, serve

MODELS = GOLDEN_DIR / "models"
NAME = "optical_flow_checkpoint.pystate"


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A server of a small flow model, which is as large as the preset for the test."""
    preset, overrides = preset_of(Case.load(MODELS / "optical_flow.npz"))
    monkeypatch.setitem(PRESETS, preset, perceiver_io.create_config(preset, **overrides))
    with serve(Site(content=(MODELS / "optical_flow.pystate").read_bytes())) as running:
        monkeypatch.setitem(RELEASED, preset, running.address.replace("file.pystate", NAME))
        yield running


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


WHOLE = [f"downloads/optical-flow/{NAME}.sha256", "optical-flow/config.json", "optical-flow/model.safetensors"]


def test_addresses_of_the_released_files() -> None:
    assert set(RELEASED) == set(PRESETS)
    document = (Path(__file__).parents[3] / "conversion" / "README.md").read_text(encoding="utf-8")
    for preset, url in RELEASED.items():
        bucket, name = url.rsplit("/", 1)
        assert bucket == "https://storage.googleapis.com/perceiver_io"
        assert f"| `{preset}` | `{name}` |" in document


def test_a_download_is_found_by_name(released: Site, tmp_path: Path) -> None:
    cache = tmp_path / "default_cache"
    with pytest.raises(
        FileNotFoundError,
        match=re.escape(
            f"optical-flow is neither a directory nor downloaded (there is no {cache / 'optical-flow'}); "
            "fetch it with: perceiver-io download optical-flow"
        ),
    ):
        perceiver_io.load_model("optical-flow")
    downloaded = download_checkpoint("optical-flow")
    sha256 = hashlib.sha256(released.content).hexdigest()
    assert (downloaded.preset, downloaded.directory, downloaded.sha256) == (
        "optical-flow",
        cache / "optical-flow",
        sha256,
    )
    assert released.paths == [f"/perceiver_io/{NAME}"]
    assert files(cache) == WHOLE
    model = perceiver_io.load_model("optical-flow")
    assert model.config == PRESETS["optical-flow"]
    metadata = json.loads((cache / "optical-flow" / "config.json").read_text())["metadata"]
    assert metadata["source"] == NAME
    assert metadata["source_sha256"] == sha256
    assert metadata["source_url"] == RELEASED["optical-flow"]
    assert (cache / WHOLE[0]).read_text() == f"{sha256}  {NAME}\n"


def test_what_is_there_is_not_fetched_again(released: Site, tmp_path: Path) -> None:
    download_checkpoint("optical-flow", cache=tmp_path / "here")
    again = download_checkpoint("optical-flow", cache=tmp_path / "here")
    assert again.sha256 is None
    assert again.directory == tmp_path / "here" / "optical-flow"
    assert len(released.asked) == 1
    assert download_checkpoint("optical-flow", cache=tmp_path / "here", force=True).sha256 is not None
    assert len(released.asked) == 2
    assert files(tmp_path / "here") == WHOLE


def test_an_interrupted_download_continues_to_the_same_model(released: Site, tmp_path: Path) -> None:
    released.faults = [-5000, 403]
    with pytest.raises(DownloadError, match="answers 403"):
        download_checkpoint("optical-flow", cache=tmp_path, wait=lambda _: None)
    (part,) = files(tmp_path)
    assert part.startswith(f"downloads/optical-flow/{NAME}.")
    assert part.endswith(".part")
    download_checkpoint("optical-flow", cache=tmp_path)
    assert released.asked[2]["Range"] == "bytes=5000-"
    assert files(tmp_path) == WHOLE


def test_changed_content_is_refused(released: Site, tmp_path: Path) -> None:
    download_checkpoint("optical-flow", cache=tmp_path)
    before = (tmp_path / WHOLE[2]).read_bytes()
    first = hashlib.sha256(released.content).hexdigest()
    released.content += b"\0"
    changed = hashlib.sha256(released.content).hexdigest()
    with pytest.raises(
        ValueError,
        match=rf"{NAME} has changed: its sha256 is {changed}, and was {first} at the first download; it was not kept",
    ) as raised:
        download_checkpoint("optical-flow", cache=tmp_path, force=True)
    assert str(tmp_path / WHOLE[0]) in str(raised.value)
    assert files(tmp_path) == WHOLE
    assert (tmp_path / WHOLE[2]).read_bytes() == before
    (tmp_path / WHOLE[0]).unlink()  # the way out that the message names
    download_checkpoint("optical-flow", cache=tmp_path, force=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>Sign in to the network</html>", "it is an HTML or XML page"),
        (b"", "it is empty"),
        ((MODELS / "optical_flow.pystate").read_bytes()[:9000], "it is truncated"),
        ((MODELS / "language.pystate").read_bytes(), "the checkpoint does not fit preset 'optical-flow'"),
        (b"cos\nsystem\n(S'true'\ntR.", "it asks for os.system"),
    ],
)
def test_files_that_are_no_checkpoint(released: Site, tmp_path: Path, content: bytes, message: str) -> None:
    released.content = content
    released.headers = {"Content-Length": None}
    url = f"{released.address}?token=secret"
    with pytest.raises(ValueError, match=r"is not the checkpoint of optical-flow and was not kept: ") as raised:
        download_checkpoint("optical-flow", url=url, cache=tmp_path)
    assert message in str(raised.value)
    assert str(tmp_path) not in str(raised.value)
    assert not files(tmp_path)  # and no hash of it: the right file can come the next time


def test_another_address(released: Site, tmp_path: Path) -> None:
    """Its last part is not what the file is called here, and what may be secret in it is not written down."""
    host = released.address.removesuffix("/perceiver_io/file.pystate")
    url = f"{host}/x/..%2f..%2fetc/passwd?token=secret"
    download_checkpoint("optical-flow", url=url, cache=tmp_path)
    assert files(tmp_path) == WHOLE
    config = (tmp_path / "optical-flow" / "config.json").read_text()
    assert json.loads(config)["metadata"]["source_url"] == f"{host}/x/..%2f..%2fetc/passwd"
    assert "secret" not in config


@pytest.mark.parametrize("preset", ["../optical-flow", "tiny-language", "", "/etc"])
def test_other_names_are_refused(preset: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no released checkpoint '.*'; there are language, imagenet-fourier"):
        download_checkpoint(preset, cache=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "", "optical_flow_checkpoint.pystate"])
def test_other_addresses_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not an address to download from"):
        download_checkpoint("optical-flow", url=url, cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_that_are_no_model_are_kept(released: Site, tmp_path: Path) -> None:
    (tmp_path / "optical-flow").mkdir()
    (tmp_path / "optical-flow" / "precious.txt").write_text("mine")
    for force in (False, True):
        with pytest.raises(FileExistsError, match=r"precious.txt would be lost"):
            download_checkpoint("optical-flow", cache=tmp_path, force=force)
    assert files(tmp_path) == ["optical-flow/precious.txt"]
    assert not released.asked


def test_a_full_disk_keeps_the_download(released: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full, pytest.raises(OSError, match="No space left"):
        full.setattr("safetensors.torch.save_file", full_disk)
        download_checkpoint("optical-flow", cache=tmp_path)
    (part,) = files(tmp_path)
    assert (tmp_path / part).read_bytes() == released.content
    download_checkpoint("optical-flow", cache=tmp_path)
    assert released.asked[1]["Range"] == f"bytes={len(released.content)}-"
    assert files(tmp_path) == WHOLE


def test_two_downloads_at_once(released: Site, tmp_path: Path) -> None:
    errors = set()

    class Another(Progress):
        def show(self, received: int, total: int | None) -> None:
            with pytest.raises(DownloadError) as raised:
                download_checkpoint("optical-flow", cache=tmp_path)
            errors.add(str(raised.value))

    download_checkpoint("optical-flow", cache=tmp_path, progress=Another())
    folder = tmp_path / "downloads" / "optical-flow"
    assert errors == {f"another process is downloading to {folder}; wait until it has ended"}
    assert files(tmp_path) == WHOLE


def test_a_directory_of_the_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, bias in (("default_cache/language", 1.0), ("language", 2.0)):
        model = perceiver_io.create_model("language", num_latents=3, num_self_attends_per_block=1, vocab_size=7)
        torch.nn.init.constant_(model.output_postprocessor.bias, bias)
        perceiver_io.save_model(model, tmp_path / place)
    monkeypatch.chdir(tmp_path)
    assert perceiver_io.load_model("language").output_postprocessor.bias.eq(2).all()
    monkeypatch.chdir("/")
    assert perceiver_io.load_model("language").output_postprocessor.bias.eq(1).all()
