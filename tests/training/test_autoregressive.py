"""Training of Perceiver AR: windows, loss, evaluation, and the command."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import perceiver_io
from perceiver_io.autoregressive import PerceiverAR, PerceiverARConfig
from perceiver_io.commands.cli import main
from perceiver_io.processors.sequences import ByteSequences
from perceiver_io.training.autoregressive import (
    NextTokenEvaluation,
    NextTokenObjective,
    SequenceWindows,
    sequence_part,
)
from perceiver_io.training.clipped_adam import ClippedAdam
from perceiver_io.training.recipes import AUTOREGRESSIVE_RECIPES, FlatThenCosineRecipe, Recipe
from perceiver_io.training.sampling import Draw

SMALL = PerceiverARConfig(
    max_context_length=24,
    num_latents=8,
    embed_channels=16,
    num_latent_channels=16,
    num_self_attends=1,
    num_cross_attend_heads=2,
    num_self_attend_heads=2,
    max_wavelength=24,
)


@given(content=st.binary(min_size=1, max_size=60), data=st.data())
def test_parts_of_a_sequence(content: bytes, data: st.DataObject) -> None:
    whole = ByteSequences().encode(content, ends=True)
    start = data.draw(st.integers(0, len(whole)))
    end = data.draw(st.integers(start, len(whole)))
    for document in (content, np.frombuffer(content, np.uint8)):
        assert torch.equal(sequence_part(document, start, end), whole[start:end])


@given(
    contents=st.lists(st.binary(max_size=70), min_size=1, max_size=4).filter(any),
    least=st.integers(2, 12),
    seed=st.integers(0, 2**40),
)
def test_windows_are_parts_of_their_documents(contents: list[bytes], least: int, seed: int) -> None:
    windows = SequenceWindows(contents, 13, least)
    sequences = [ByteSequences().encode(content, ends=True) for content in contents if content]
    assert len(windows) == sum(math.ceil(len(sequence) / 13) for sequence in sequences)
    for index in range(len(windows)):
        tokens = windows[Draw(index, seed)]["tokens"]
        assert tokens.shape == (13,)
        own = tokens[tokens != 0]
        assert not tokens[len(own) :].any()
        assert len(own) >= min(least, min(map(len, sequences)))
        assert any(own.tolist() in [s[i : i + len(own)].tolist() for i in range(len(s))] for s in sequences)
        # A short window is one from the start of its document.
        assert len(own) == 13 or own[0] == ByteSequences.start_token


def test_windows_end_everywhere() -> None:
    windows = SequenceWindows([bytes(range(30, 60))], 9, 5)
    ends = {int(windows[Draw(0, seed)]["tokens"].max()) for seed in range(400)}
    assert ends == set(range(30 + 3 + 5 - 2, 60 + 3))


def test_loss_is_summed_over_predictions_and_averaged_over_examples() -> None:
    model = PerceiverAR(SMALL).eval()
    windows = SequenceWindows([b"some words, " * 9, b"brief"], 25, 9)
    batch = {"tokens": torch.stack([windows[Draw(index, 3)]["tokens"] for index in range(len(windows))])}
    figures = NextTokenObjective(z_loss=0.0)(model, batch, torch.Generator())
    # Untrained logits are zeros.
    predictions = sum(min(8, int((tokens != 0).sum()) - 1) for tokens in batch["tokens"])
    assert figures["nats_per_token"].item() == pytest.approx(math.log(259), rel=1e-5)
    assert figures["loss"].item() == pytest.approx(predictions * math.log(259) / len(windows), rel=1e-5)
    regularised = NextTokenObjective(z_loss=1e-2)(model, batch, torch.Generator())
    expected = figures["loss"].item() + 1e-2 * math.log(259) ** 2 * predictions / len(windows)
    assert regularised["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_evaluation_counts_every_byte_and_the_end() -> None:
    result = NextTokenEvaluation(documents=[b"abc" * 20, b"x"])(PerceiverAR(SMALL).eval())
    assert result["bits_per_token"] == pytest.approx(math.log2(259), rel=1e-5)


def test_clipped_adam_moves_by_clipped_gradients() -> None:
    first, second = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
    clipped, plain = ClippedAdam([first], lr=0.1, eps=1e-2), torch.optim.Adam([second], lr=0.1, eps=1e-2)
    gradient = torch.tensor([3.0, 4.0, 0.0])
    first.grad, second.grad = gradient.clone(), gradient / 5
    clipped.step()
    plain.step()
    assert torch.allclose(first, second)
    first.grad, second.grad = gradient / 50, gradient / 50  # short enough
    clipped.step()
    plain.step()
    assert torch.allclose(first, second)


def test_recipes() -> None:
    recipe = AUTOREGRESSIVE_RECIPES["ar-imagenet64"]
    schedule = recipe.schedule()
    assert [schedule(step) for step in (0, 5000, 10_000, 400_000, 750_000)] == [0, 0.5, 1, 1, 0]
    assert schedule(725_000) == pytest.approx(0.5)
    short = recipe.with_steps(750)
    assert isinstance(short, FlatThenCosineRecipe) and (short.lead_steps, short.flat_until) == (10, 700)
    assert isinstance(recipe.make_optimizer(PerceiverAR(SMALL)), ClippedAdam)
    with pytest.raises(ValueError, match=r"weight_decay \(0.1\) must be 0 with optimizer 'adam'"):
        Recipe(num_steps=1, batch_size=1, learning_rate=1.0, weight_decay=0.1, optimizer="adam")


def test_the_command_learns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    perceiver_io.save_model(PerceiverAR(SMALL), tmp_path / "start")
    text = tmp_path / "text.txt"
    text.write_text("To be, or not to be: that is the question. " * 60)
    arguments = [
        *("train", "autoregressive", "--from", str(tmp_path / "start"), "--data", str(text), "--steps", "60"),
        *("--learning-rate", "1e-2", "--batch-size", "8", "--output", str(tmp_path / "out"), "--log-every", "60"),
    ]
    assert main(arguments) == 0
    assert "bits_per_token" in capsys.readouterr().out
    model = perceiver_io.load_model(tmp_path / "out" / "model")
    result = NextTokenEvaluation(documents=[text.read_bytes()[:300]])(model)
    assert result["bits_per_token"] < 4


def test_the_command_refuses_other_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("a few words")
    perceiver_io.save_model(PerceiverAR(SMALL), tmp_path / "bytes")
    frozen = ["train", "autoregressive", "--from", str(tmp_path / "bytes"), "--data", str(text), "--freeze-encoder"]
    assert main([*frozen, "--output", str(tmp_path / "out")]) == 2
    assert "no encoder to freeze" in capsys.readouterr().err
    other = PerceiverARConfig.from_dict({**SMALL.to_dict(), "vocab_size": 300})
    perceiver_io.save_model(PerceiverAR(other), tmp_path / "other")
    arguments = ["train", "autoregressive", "--from", str(tmp_path / "other"), "--data", str(text)]
    assert main([*arguments, "--output", str(tmp_path / "out")]) == 2
    assert "vocab_size (300) and pad_token (0) must be 259 and 0" in capsys.readouterr().err
