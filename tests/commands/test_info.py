"""`perceiver-io info`: presets without weights, directories with them, and names that are neither."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

import perceiver_io
from perceiver_io.commands.info import describe


def test_a_preset(run_json: Callable[..., dict[str, Any]]) -> None:
    result = run_json("info", "language")
    assert result["model"] == "LanguagePerceiver"
    assert result["config"]["num_latents"] == 256
    assert result["parameters"] == 201_108_230
    assert result["weight_bytes"] == 4 * 201_108_230
    assert 118e9 < result["flops"] < 1.15 * 118e9
    assert result["input_shapes"] == [[1, 2048]]
    assert [stage["output_shapes"] for stage in result["stages"]] == [
        [[1, 2048, 768]],
        [[1, 256, 1280]],
        [[1, 256, 1280]],
        [[1, 2048, 768]],
        [[1, 2048, 768]],
        [[1, 2048, 262]],
    ]
    lines = describe(result).splitlines()
    assert lines[0] == "language: LanguagePerceiver, float32"
    assert ["max_seq_len", "2048"] in [line.split() for line in lines]
    title, *rows = lines[lines.index("", 2) + 1 : -4]
    assert title.split() == ["stage", "module", "output", "parameters", "work", "weights", "activation"]
    assert rows[2].split() == [
        *("latent", "self-attention", "26", "×", "SelfAttention", "1×256×1280"),
        *("187,712,512", "101.2", "GFLOP", "750.9", "MB", "2.1", "MB"),
    ]
    assert rows[-1].split()[:5] == ["in", "all", "201,108,230", "120.9", "GFLOP"]
    # Numbers end in the same column.
    assert len({len(row) for row in (title, *rows)}) == 1


def test_a_directory(
    run: Callable[..., str], run_json: Callable[..., dict[str, Any]], checkpoints: dict[str, Path]
) -> None:
    for name, directory in checkpoints.items():
        model = perceiver_io.load_model(directory)
        result = run_json("info", directory)
        assert result["config"] == model.config.to_dict(), name
        assert result["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    printed = run("info", checkpoints["video"])
    # A line for each further output.
    assert [line.split()[0] for line in printed.splitlines() if line.startswith(" ")] == [
        "1×3×3×8×12",
        "1×13",
    ]
    assert f"{checkpoints['video']}: VideoAutoencodingPerceiver, float32" in printed


def test_a_directory_may_be_called_like_a_preset(
    run_json: Callable[..., dict[str, Any]], checkpoints: dict[str, Path]
) -> None:
    Path("language").symlink_to(checkpoints["mlm"])
    assert run_json("info", "language")["config"]["num_latents"] == 7


def test_mistakes(error_of: Callable[..., str], checkpoints: dict[str, Path], inputs: Path) -> None:
    assert "required: DIRECTORY_OR_PRESET; see perceiver-io info --help" in error_of("info")
    for name in ("nowhere", "imagenet", "a\0b"):
        assert error_of("info", name).startswith("error: there is no directory ")
    assert "File name too long" in error_of("info", "x" * 5000)
    assert "config.json does not exist" in error_of("info", "")
    assert "config.json does not exist" in error_of("info", inputs)
    assert "no directory" in error_of("info", inputs / "text.txt")

    directory = inputs / "model"
    model = perceiver_io.load_model(checkpoints["classify"])
    perceiver_io.save_model(model, directory)
    config = json.loads((directory / "config.json").read_text())
    for change, message in (
        ({"num_latents": 0}, "num_latents (0) must be a positive integer"),
        ({"num_latents": 10**6}, "does not fit its config: encoder.latents.embeddings has shape (7, 24)"),
        ({"num_latents": 10**12}, "num_latents (1000000000000) must be at most 16,777,216"),
        ({"colour": 1}, "ImageClassificationConfig has no field colour"),
    ):
        changed = {**config, "config": {**config["config"], **change}}
        (directory / "config.json").write_text(json.dumps(changed))
        assert message in error_of("info", directory)
    (directory / "config.json").write_text("{")
    assert "is not the configuration of a model of this library" in error_of("info", directory)
    del config["sha256"]
    (directory / "config.json").write_text(json.dumps(config))
    weights = load_file(directory / "model.safetensors")
    save_file({name: weights[name] for name in list(weights)[1:]}, directory / "model.safetensors")
    assert "does not fit its config: missing [" in error_of("info", directory)
    (directory / "model.safetensors").write_bytes(b"\0" * 30)
    assert "model.safetensors is damaged" in error_of("info", directory)
    (directory / "model.safetensors").unlink()
    assert "has none of the files model.safetensors, model.pth" in error_of("info", directory)
