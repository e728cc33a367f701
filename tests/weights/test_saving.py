"""Saving and loading of models."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io import PerceiverDecoder, PerceiverEncoder, PerceiverIO
from perceiver_io.position_encoding import LearnedPositionEncoding
from perceiver_io.presets import PRESETS
from perceiver_io.weights.saving import save_checkpoint
from tests.small_models import SMALL, small_inputs


@pytest.mark.parametrize("preset", PRESETS)
def test_save_and_load(preset: str, tmp_path: Path) -> None:
    model = perceiver_io.create_model(preset, **SMALL[preset])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = small_inputs(model)
    with torch.inference_mode():
        model.train()(*inputs)  # moves the averages of batch norm
        perceiver_io.save_model(model, tmp_path / "model")
        loaded = perceiver_io.load_model(tmp_path / "model")
        torch.testing.assert_close(loaded(*inputs), model.eval()(*inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert not loaded.training
    assert loaded.config == model.config
    assert type(loaded) is type(model)
    assert all(p.requires_grad for p in loaded.parameters())
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_other_precisions_survive(preset: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = perceiver_io.create_model(preset, **SMALL[preset]).to(dtype).eval()
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in small_inputs(model)]
    perceiver_io.save_model(model, tmp_path / "model")
    with torch.inference_mode():
        torch.testing.assert_close(perceiver_io.load_model(tmp_path / "model")(*inputs), model(*inputs))


def test_pth_format(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"]).eval()
    save_checkpoint(model.config, model.state_dict(), tmp_path / "m", weight_format="pth")
    inputs = small_inputs(model)
    torch.testing.assert_close(perceiver_io.load_model(tmp_path / "m")(*inputs), model(*inputs), rtol=0, atol=0)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    perceiver_io.save_model(model, tmp_path)  # an empty directory is fine
    before = (tmp_path / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.output_postprocessor.bias.fill_(1.0)
    with pytest.raises(
        FileExistsError,
        match=r"config.json, model.safetensors would be lost; choose another name or ask to overwrite it",
    ):
        perceiver_io.save_model(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    perceiver_io.save_model(model, tmp_path, overwrite=True)
    assert perceiver_io.load_model(tmp_path).output_postprocessor.bias.eq(1).all()
    (tmp_path / "precious.txt").touch()
    with pytest.raises(FileExistsError, match=r"precious.txt would be lost; choose another name or remove it"):
        perceiver_io.save_model(model, tmp_path, overwrite=True)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    model = perceiver_io.create_model("language", **SMALL["language"])
    with pytest.raises(OSError, match="No space left"):
        perceiver_io.save_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda d: (d / "config.json").unlink(), FileNotFoundError, "convert_haiku_checkpoint.py SOURCE DESTINATION"),
        (lambda d: (d / "model.safetensors").unlink(), FileNotFoundError, "has none of the files model.safetensors"),
        (lambda d: (d / "config.json").write_text("{"), ValueError, "is not the configuration of a model"),
        (lambda d: (d / "config.json").write_text("[]"), ValueError, "is not the configuration of a model"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\0" * 40), ValueError, "is damaged"),
        (lambda d: (d / "model.pth").write_bytes(b"garbage"), ValueError, "model.pth is damaged"),
        (lambda d: os.truncate(d / "model.pth", 5000), ValueError, "model.pth is damaged"),
        (lambda d: (d / "model.pth").write_bytes(pickle.dumps(Path, protocol=2)), ValueError, "model.pth is damaged"),
        (
            lambda d: (d / "config.json").write_text(
                (d / "config.json").read_text().replace('"num_blocks"', '"blocks"')
            ),
            ValueError,
            "LanguageConfig has no field blocks; its fields are activation",
        ),
    ],
)
def test_damaged_directories(damage: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    weight_format = "pth" if "pth" in message else "safetensors"
    save_checkpoint(model.config, model.state_dict(), tmp_path, weight_format=weight_format)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        perceiver_io.load_model(tmp_path)


def test_weights_must_fit_exactly(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    state = dict(model.state_dict())
    bias = state.pop("output_postprocessor.bias")
    save_checkpoint(model.config, {**state, "extra": bias}, tmp_path / "names")
    with pytest.raises(ValueError, match=r"missing \['output_postprocessor.bias'\], left over \['extra'\]"):
        perceiver_io.load_model(tmp_path / "names")
    save_checkpoint(model.config, {**state, "output_postprocessor.bias": bias[:-1]}, tmp_path / "shapes")
    with pytest.raises(ValueError, match=rf"output_postprocessor.bias has shape \({len(bias) - 1},\)"):
        perceiver_io.load_model(tmp_path / "shapes")


def test_metadata_is_kept(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    perceiver_io.save_model(model, tmp_path, metadata={"source": "here"})
    notes = json.loads((tmp_path / "config.json").read_text())["metadata"]
    assert notes == {"library_version": perceiver_io.__version__, "source": "here"}


def test_custom_compositions_have_no_config(tmp_path: Path) -> None:
    query = LearnedPositionEncoding(3, 4)
    encoder, decoder = PerceiverEncoder(4, num_self_attends_per_block=1), PerceiverDecoder(4, 1024, output_channels=2)
    model = PerceiverIO(encoder, decoder, output_query=query)
    with pytest.raises(ValueError, match="save the state_dict\\(\\) of a PerceiverIO of your own instead"):
        perceiver_io.save_model(model, tmp_path)
