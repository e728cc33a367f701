"""Publishing on the hub and loading from there, with a server on this machine; torch.hub's entries."""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.presets import PRESETS, create_config
from perceiver_io.weights import from_pretrained, model_card, push_to_hub
from perceiver_io.weights.downloads import DownloadError
from tests.autoregressive.small import small_model
from tests.small_models import SMALL
from tests.weights.downloads.hub_server import Hub, serve_hub

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """An empty hub."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    with serve_hub(Hub()) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.address)
        yield running


@pytest.fixture
def model() -> Any:
    """A small language model."""
    return perceiver_io.create_model("language", **SMALL["language"]).eval()


def test_a_model_goes_out_and_comes_back(hub: Hub, model: Any) -> None:
    assert push_to_hub(model, "me/small", token="secret").endswith("/me/small")
    assert hub.repositories == ["me/small"]
    assert sorted(hub.files["me/small"]) == ["README.md", "config.json", "model.safetensors"]
    back = from_pretrained("me/small")
    assert back.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[name])
    with pytest.raises(ValueError, match="is a model of this library, and "):
        from_pretrained("me/small", num_latents=3)


def test_a_perceiver_ar_goes_out_and_comes_back(hub: Hub) -> None:
    push_to_hub(model := small_model(), "me/writer", token="secret")
    assert "pipeline_tag: text-generation" in hub.files["me/writer"]["README.md"].decode()
    assert from_pretrained("me/writer").config == model.config


def test_a_directory_goes_out_with_its_notes(hub: Hub) -> None:
    push_to_hub("tiny-image-classification", "me/digits", token="secret")
    assert "training.json" in hub.files["me/digits"]
    card = hub.files["me/digits"]["README.md"].decode()
    assert card.startswith("---\nlibrary_name: perceiver-io\nlicense: apache-2.0\npipeline_tag: image-classification")
    assert "| data | scikit-learn's digits, 1437 of them; 360 others are held out |" in card
    assert "| accuracy | 0.99" in card
    assert '"learning_rate": 0.002' in card


def test_a_card_says_no_more_than_the_files(tmp_path: Path, model: Any) -> None:
    perceiver_io.save_model(model, tmp_path / "model", metadata={"source": "a|b"})
    card = model_card(tmp_path / "model", licence="mit")
    assert "license: mit" in card
    assert "| source | a\\|b |" in card
    assert "## Training" not in card
    assert "## Measured" not in card


def test_what_the_hub_refuses(hub: Hub, model: Any) -> None:
    with pytest.raises(DownloadError, match=r"cannot publish not/a/name \("):
        push_to_hub(model, "not/a/name", token="secret")
    with pytest.raises(DownloadError, match=r"cannot fetch me/nothing"):
        from_pretrained("me/nothing")


def test_names_and_directories_are_found_without_the_hub(tmp_path: Path, model: Any) -> None:
    perceiver_io.save_model(model, tmp_path / "model")
    assert from_pretrained(tmp_path / "model").config == model.config
    assert isinstance(from_pretrained("tiny-language"), perceiver_io.LanguagePerceiver)
    with pytest.raises(FileNotFoundError, match="there is no directory nothing"):
        from_pretrained("nothing")


def test_torch_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def load(entry: str, **options: Any) -> Any:
        return torch.hub.load(str(ROOT), entry, source="local", **options)

    assert isinstance(load("tiny_language"), perceiver_io.LanguagePerceiver)
    assert (
        load("language", pretrained=False, **SMALL["language"]).config.num_latents == SMALL["language"]["num_latents"]
    )
    monkeypatch.setenv("PERCEIVER_IO_CACHE", str(tmp_path))
    monkeypatch.setitem(PRESETS, "language", create_config("language", **SMALL["language"]))
    perceiver_io.save_model(perceiver_io.create_model("language"), tmp_path / "language")
    assert isinstance(load("language"), perceiver_io.LanguagePerceiver)
    with pytest.raises(ValueError, match="the released weights fit language as it is; leave out num_latents"):
        load("language", num_latents=3)
    entries = runpy.run_path(str(ROOT / "hubconf.py")).keys()
    assert {name.replace("-", "_") for name in PRESETS} <= entries
