"""`perceiver-io generate`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import perceiver_io
from perceiver_io.autoregressive import PerceiverARConfig
from perceiver_io.media import Note, read_midi, write_midi
from tests.autoregressive.small import SIZES

Run = Callable[..., str]
RunJson = Callable[..., dict[str, Any]]


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """Untrained models, which continue with what is likeliest of equals, or with anything."""
    folder = tmp_path / "models"
    for name, sizes in {
        "bytes": {"vocab_size": 259},
        "other bytes": {"vocab_size": 262},
        "music": {"vocab_size": 389, "pad_token": 388},
        "tokens": {"vocab_size": 40},
    }.items():
        config = PerceiverARConfig(**{**SIZES, "max_context_length": 40, **sizes})
        perceiver_io.save_model(perceiver_io.PerceiverAR(config), folder / name)
    return {path.name: path for path in folder.iterdir()}


def test_a_text_is_continued(run: Run, models: dict[str, Path]) -> None:
    words = ("generate", "--checkpoint", models["bytes"], "--prompt", "Täglich", "--max-new-tokens", 9, "--seed", 3)
    printed = run(*words)
    assert printed.startswith(f"model: {models['bytes']}\nprompt: Täglich\ncontinuation: ")
    assert printed.endswith("wrote outputs/generate.txt\n")
    assert Path("outputs/generate.txt").read_text(encoding="utf-8").startswith("Täglich")
    assert run(*words) == printed


def test_several_samples(run_json: RunJson, models: dict[str, Path], inputs: Path) -> None:
    result = run_json(
        *("generate", "--checkpoint", models["other bytes"], "--file", inputs / "text.txt", "--samples", 3),
        *("--seed", 1, "--max-new-tokens", 5, "--output", "here.txt", "--num-latents", "official", "--top-k", 50),
    )
    assert result["prompt"] == "Täglich [MASK][MASK]ot"
    assert len(set(result["continuations"])) == 3 and result["new_tokens"] == [5, 5, 5]
    assert result["files"] == ["here.txt", "here_2.txt", "here_3.txt"]
    assert all(Path(file).is_file() for file in result["files"])


def test_tokens(run_json: RunJson, models: dict[str, Path]) -> None:
    result = run_json(
        *("generate", "--checkpoint", models["tokens"], "--tokens", "2 17, 4", "--temperature", 0),
        *("--max-new-tokens", 4, "--num-latents", 2),
    )
    # Of equal logits the first that is not padding.
    assert result["prompt"] == "2 17, 4" and result["continuations"] == ["1 1 1 1"]


def test_music(run_json: RunJson, models: dict[str, Path], inputs: Path) -> None:
    write_midi(inputs / "music.mid", [Note(0.0, 60, 0.5), Note(0.5, 64, 1.0)])
    result = run_json(
        *("generate", "--checkpoint", models["music"], "--midi", inputs / "music.mid", "--seed", 2),
        *("--max-new-tokens", 20, "--output", "more.mid"),
    )
    assert result["files"] == ["more.mid"]
    notes = read_midi("more.mid")
    assert [note.pitch for note in notes][:2] == [60, 64] or len(notes) > 2


def test_the_bundled_model_continues_a_text(run_json: RunJson) -> None:
    result = run_json("generate", "--prompt", "Return the name of the ", "--temperature", 0, "--max-new-tokens", 30)
    assert result["continuations"][0].startswith("string") and result["new_tokens"] == [30]
    assert result["knows"].startswith("continues the English")


def test_mistakes(error_of: Run, models: dict[str, Path], checkpoints: dict[str, Path], inputs: Path) -> None:
    generate = ("generate", "--checkpoint")
    assert "holds a LanguagePerceiver; this needs a PerceiverAR" in error_of(*generate, checkpoints["mlm"])
    assert "which are not bytes; give ids of its own tokenizer with --tokens" in error_of(*generate, models["tokens"])
    assert "must be numbers with spaces between" in error_of(*generate, models["bytes"], "--tokens", "2 x")
    assert "--samples 0 must be at least 1" in error_of(*generate, models["bytes"], "--samples", 0)
    assert "temperature (-1.0) must be 0" in error_of(*generate, models["bytes"], "--temperature", -1)
    assert "num_latents ('all') must be a number, 'full' or 'official'" in error_of(
        *generate, models["bytes"], "--num-latents", "all"
    )
    assert "has no start of a text; give some with --prompt" in error_of(*generate, models["other bytes"])
    write_midi(inputs / "music.mid", [Note(0.0, 60, 0.5)])
    assert "music has 389; give a model of music" in error_of(
        *generate, models["bytes"], "--midi", inputs / "music.mid"
    )
    assert "is not a Standard MIDI File" in error_of(*generate, models["music"], "--midi", inputs / "text.txt")
    assert "must be a directory or end in .txt" in error_of(*generate, models["bytes"], "--output", "x.png")
