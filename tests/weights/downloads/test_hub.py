"""The hub as a second source of the released models, from a server on this machine that speaks its interface."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.presets import PRESETS
from perceiver_io.weights import transformers
from perceiver_io.weights.downloads import RELEASED, DownloadError, download_from_hub, fetch_snapshot
from perceiver_io.weights.tables import invert_table
from tests.small_models import SMALL
from tests.weights.downloads.hub_server import Hub, serve_hub

huggingface_hub = pytest.importorskip("huggingface_hub")
REPOSITORY = "deepmind/vision-perceiver-conv"


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small classifier, and a preset of its size."""
    monkeypatch.setitem(PRESETS, "imagenet-conv", perceiver_io.create_config("imagenet-conv", **SMALL["imagenet-conv"]))
    model = perceiver_io.create_model("imagenet-conv").train()
    model(torch.randn(2, 3, 19, 25))  # batch norm's averages become what they are after some training
    return model.eval()


@pytest.fixture
def hub(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that has transformers' conversion of it."""
    tensors = invert_table(transformers.name_table(model.config), model.state_dict())
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    config = {"model_type": "perceiver", "architectures": ["PerceiverForImageClassificationConvProcessing"]}
    files = {
        "config.json": json.dumps(config).encode(),
        "pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes(),
        "README.md": b"not asked for",
    }
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    monkeypatch.setenv("PERCEIVER_IO_CACHE", str(tmp_path / "cache"))
    with serve_hub(Hub(files={REPOSITORY: files})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


def test_a_released_model(hub: Hub, model: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "imagenet-conv", "--from", "hub"]) == 0
    assert "imagenet-conv is in" in capsys.readouterr().out
    loaded = perceiver_io.load_model("imagenet-conv")
    images = torch.randn(2, 3, 19, 25)
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), model(images), rtol=0, atol=0)
    metadata = json.loads((tmp_path / "cache" / "imagenet-conv" / "config.json").read_text())["metadata"]
    assert metadata["source_url"] == f"{hub.address}/{REPOSITORY}"
    assert (tmp_path / "cache" / "downloads" / "imagenet-conv" / "pytorch_model.bin.sha256").is_file()
    assert not any("README" in asked for asked in hub.asked)
    hub.asked.clear()
    assert main(["download", "imagenet-conv", "--from", "hub"]) == 0
    assert "was already in" in capsys.readouterr().out
    assert not hub.asked


def test_changed_weights_are_refused(hub: Hub, tmp_path: Path) -> None:
    download_from_hub("imagenet-conv")
    other = perceiver_io.create_model("imagenet-conv")
    torch.save(invert_table(transformers.name_table(other.config), other.state_dict()), tmp_path / "other.bin")
    hub.files[REPOSITORY]["pytorch_model.bin"] = (tmp_path / "other.bin").read_bytes()
    hub.commit = hub.commit[::-1]
    with pytest.raises(ValueError, match=r"pytorch_model.bin has changed: its sha256 is"):
        download_from_hub("imagenet-conv", force=True)


def test_weights_of_something_else(hub: Hub, tmp_path: Path) -> None:
    torch.save({"perceiver.embeddings.latents": torch.ones(3, 4)}, tmp_path / "other.bin")
    hub.files[REPOSITORY]["pytorch_model.bin"] = (tmp_path / "other.bin").read_bytes()
    with pytest.raises(ValueError, match=rf"{REPOSITORY} is not the model of imagenet-conv .*missing"):
        download_from_hub("imagenet-conv")
    assert not (tmp_path / "cache" / "imagenet-conv").exists()


def test_when_the_bucket_does_not_answer(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("perceiver_io.weights.downloads.http._PAUSES", ())
    monkeypatch.setitem(RELEASED, "imagenet-conv", f"{hub.address}/gone/resolve/main/gone.pystate")
    assert main(["download", "imagenet-conv"]) == 0, capsys.readouterr().err
    assert "; trying the hub" in capsys.readouterr().err
    perceiver_io.load_model("imagenet-conv")


def test_shards(hub: Hub, model: Any, tmp_path: Path) -> None:
    files = hub.files[REPOSITORY]
    tensors = sorted(torch.load(tmp_path / "pytorch_model.bin").items())
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for index, name in enumerate(names):
        torch.save(dict(tensors[index::2]), tmp_path / name)
        files[name] = (tmp_path / name).read_bytes()
    weight_map = {key: names[index % 2] for index, (key, _) in enumerate(tensors)}
    files["pytorch_model.bin.index.json"] = json.dumps({"weight_map": weight_map}).encode()
    del files["pytorch_model.bin"]
    download_from_hub("imagenet-conv")
    assert torch.equal(perceiver_io.load_model("imagenet-conv").encoder.latents(), model.encoder.latents())


def test_what_is_not_there(hub: Hub) -> None:
    with pytest.raises(DownloadError, match=r"cannot fetch nobody/nothing from http://127"):
        fetch_snapshot("nobody/nothing")
    hub.files["someone/empty"] = {"config.json": b"{}"}
    with pytest.raises(DownloadError, match=r"someone/empty has neither model.safetensors nor pytorch_model.bin"):
        fetch_snapshot("someone/empty")


def test_what_was_fetched_works_offline(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = fetch_snapshot(REPOSITORY)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert fetch_snapshot(REPOSITORY) == snapshot
    assert not hub.asked
