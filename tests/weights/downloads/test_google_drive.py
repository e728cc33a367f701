"""Converted checkpoints from a shared folder, with a stand-in for gdown."""

import json
import pickle
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.presets import PRESETS
from perceiver_io.weights.downloads import DownloadError, download_from_google_drive
from tests.golden import GOLDEN_DIR
from tests.parity.test_moving_over import load
from tests.small_models import SMALL

FOLDER = "https://drive.google.com/drive/folders/1AbC-d_E?usp=sharing"
# What gdown's own listing has.
Entry = namedtuple("Entry", ("id", "path", "local_path"))


class GdownError(Exception):
    """As gdown.exceptions.DownloadError, which is no OSError."""


class Drive:
    """As the module gdown, with a folder of files on this disk."""

    exceptions = SimpleNamespace(DownloadError=GdownError)

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.folder = "1AbC-d_E"
        self.error: Exception | None = None

    def download_folder(self, *, id: str, output: str, skip_download: bool, **_: Any) -> list[Entry]:
        assert skip_download
        assert id == self.folder
        return [Entry(f"id of {path}", path, f"{output}/{path}") for path in self.files]

    def download(self, *, id: str, output: str, **_: Any) -> str:
        if self.error is not None:
            raise self.error
        shutil.copy(self.files[id.removeprefix("id of ")], output)
        return output


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small classifier's state dict, and a preset of its size."""
    monkeypatch.setitem(PRESETS, "imagenet-conv", perceiver_io.create_config("imagenet-conv", **SMALL["imagenet-conv"]))
    torch.save(perceiver_io.create_model("imagenet-conv").state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.fixture
def drive(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Drive:
    """A folder with that file."""
    stand_in = Drive({"imagenet-conv.pth": weights, "language.pth": weights})
    monkeypatch.setitem(sys.modules, "gdown", stand_in)
    return stand_in


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


WHOLE = ["downloads/imagenet-conv/imagenet-conv.pth.sha256", "imagenet-conv/config.json"]
WHOLE.append("imagenet-conv/model.safetensors")


@pytest.mark.parametrize(
    "path",
    ["imagenet-conv.pth", "all/imagenet-conv/model.pth", "imagenet_conv_preprocessing.pth", "../imagenet-conv.pth"],
)
def test_a_model_of_the_folder_is_found_by_name(drive: Drive, weights: Path, tmp_path: Path, path: str) -> None:
    drive.files = {path: weights, "language/model.pth": weights, "readme.txt": weights}
    cache = tmp_path / "default_cache"
    downloaded = download_from_google_drive("imagenet-conv", FOLDER)
    assert files(cache) == WHOLE
    model = perceiver_io.load_model("imagenet-conv")
    torch.testing.assert_close(dict(model.state_dict()), torch.load(weights), rtol=0, atol=0)
    metadata = json.loads((cache / "imagenet-conv" / "config.json").read_text())["metadata"]
    assert metadata["source"] == path
    assert metadata["source_url"] == FOLDER
    assert metadata["source_sha256"] == downloaded.sha256
    assert download_from_google_drive("imagenet-conv", FOLDER).sha256 is None


def test_changed_content_is_refused(drive: Drive, weights: Path, tmp_path: Path) -> None:
    download_from_google_drive("imagenet-conv", FOLDER, cache=tmp_path / "here")
    torch.save(perceiver_io.create_model("imagenet-conv").state_dict(), weights)
    with pytest.raises(ValueError, match=r"imagenet-conv.pth has changed: its sha256 is"):
        download_from_google_drive("imagenet-conv", FOLDER, cache=tmp_path / "here", force=True)
    assert files(tmp_path / "here") == WHOLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"perceiver.latents": torch.zeros(3)},
            r"imagenet-conv.pth does not fit its config: missing \[.*\] and \d+ more",
        ),
        ([1, 2], r"imagenet-conv.pth holds a list, not named tensors"),
        ({"model": {"a": torch.zeros(3)}}, "it holds something other than named tensors"),
    ],
)
def test_weights_of_something_else(drive: Drive, weights: Path, tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, weights)
    with pytest.raises(ValueError, match=message):
        download_from_google_drive("imagenet-conv", FOLDER, cache=tmp_path / "here")
    assert not files(tmp_path / "here")


def test_nothing_in_a_hostile_file_runs(drive: Drive, weights: Path, tmp_path: Path) -> None:
    class Marker:
        def __reduce__(self) -> tuple[Any, ...]:
            return (tmp_path / "marker").touch, ()

    weights.write_bytes(pickle.dumps({"a": Marker()}, protocol=2))
    with pytest.raises(ValueError, match=r"imagenet-conv.pth asks for (builtins.)?getattr; weights need tensors"):
        download_from_google_drive("imagenet-conv", FOLDER, cache=tmp_path / "here")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("names", [[], ["other.pth"], ["imagenet-conv.pth", "imagenet-conv/model.pth"]])
def test_folders_without_one_such_file(drive: Drive, weights: Path, tmp_path: Path, names: list[str]) -> None:
    drive.files = dict.fromkeys(names, weights)
    with pytest.raises(
        DownloadError,
        match=r"must hold one of imagenet-conv.pth, imagenet-conv/model.pth and imagenet_conv_preprocessing.pth; "
        rf"it holds {', '.join(names) or 'nothing'}",
    ):
        download_from_google_drive("imagenet-conv", FOLDER, cache=tmp_path / "here")
    assert not files(tmp_path / "here")


@pytest.mark.parametrize("error", [GdownError("no permission"), OSError("no permission")])
def test_what_cannot_be_fetched(drive: Drive, tmp_path: Path, error: Exception) -> None:
    drive.error = error
    with pytest.raises(
        DownloadError, match=r"cannot fetch from https://drive.*\(no permission\); try again, or download"
    ):
        download_from_google_drive("imagenet-conv", FOLDER, cache=tmp_path / "here")
    assert not files(tmp_path / "here")


@pytest.mark.parametrize(
    "url",
    [
        "https://drive.google.com/file/d/1AbC/view",
        "http://drive.google.com/drive/folders/1AbC",
        "https://drive.google.com.example.org/drive/folders/1AbC",
        "file:///drive/folders/1AbC",
        "",
    ],
)
def test_other_addresses_are_refused(drive: Drive, tmp_path: Path, url: str) -> None:
    with pytest.raises(ValueError, match=r"is not a shared folder; one is https://drive.google.com/drive/folders/"):
        download_from_google_drive("imagenet-conv", url, cache=tmp_path / "here")
    assert not files(tmp_path)[1:]


def test_gdown_is_an_extra(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(ImportError, match=r"needs gdown; .*pip install 'perceiver-io-torch\[download\]'"):
        download_from_google_drive("imagenet-conv", FOLDER, cache=tmp_path / "here")


def test_jobr0s_folder_is_the_default(drive: Drive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, parts = load(GOLDEN_DIR / "moving_over" / "jobr0_imagenet_conv_preprocessing.npz")
    sizes = {"num_latents": 6, "num_latent_channels": 16, "num_self_attends_per_block": 2, "num_classes": 11}
    preset = perceiver_io.ImageClassificationConfig.from_dict(
        {"featurizer": "conv", "query_channels": 24, **sizes, **config["overrides"]}
    )
    monkeypatch.setitem(PRESETS, "imagenet-conv", preset)
    torch.save({"model_state_dict": parts["param"]}, path := tmp_path / "theirs.pth")
    drive.files = {"imagenet_conv_preprocessing.pth": path, "optical_flow_checkpoint.pth": path}
    drive.folder = "1ks00isq02LaACvE405dIwZqUfWxC0irV"
    assert main(["download", "imagenet-conv", "--google-drive"]) == 0
    with torch.inference_mode():
        given = perceiver_io.load_model("imagenet-conv")(parts["in"]["img"])
    torch.testing.assert_close(given, parts["out"]["out"], rtol=0, atol=1e-5)
    torch.save({"model_state_dict": {**parts["param"], "extra.weight": torch.ones(2)}}, path)
    with pytest.raises(ValueError, match="has changed"):
        download_from_google_drive("imagenet-conv", force=True)
    with pytest.raises(ValueError, match=r"imagenet_conv_preprocessing.pth does not fit: .* extra.weight"):
        download_from_google_drive("imagenet-conv", cache=tmp_path / "elsewhere")
