"""Masked language modelling's protocol, with figures that are known by construction."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from perceiver_io.evaluation.running import Measured, draw, example_of, measured
from perceiver_io.evaluation.text import TextProtocol
from perceiver_io.processors import BytesTokenizer
from perceiver_io.training.data.text import TextWindows

WORDS = ["aaaa", "bb", "aaa", "ba", "aaab"]


class AlwaysA(nn.Module):
    """Answers "a" everywhere, of which it is as sure as 1/2; the other half is spread over four other bytes."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits = torch.full((*tokens.shape, BytesTokenizer.vocab_size), -1e4)
        a, *others = BytesTokenizer().encode("abcde").tolist()
        logits[..., a] = math.log(1 / 2)
        logits[..., others] = math.log(1 / 8)
        return logits


def protocol(seed: int = 0, masked: float = 0.4, length: int = 20) -> TextProtocol:
    text = " ".join(WORDS * 40).encode()
    return TextProtocol(TextWindows([text], length, random_positions=False), masked, seed, "made")


def outcomes(folder: Path, made: TextProtocol) -> Measured:
    return measured(made, AlwaysA(), folder, {}, batch_size=7)


def test_figures_are_those_of_the_bytes_that_are_hidden(tmp_path: Path) -> None:
    made = protocol()
    samples = [made.collate([made.dataset[draw(made, index)]]) for index in range(len(made.dataset))]
    hidden = "".join(BytesTokenizer().decode(sample["tokens"][sample["masked"]]) for sample in samples)
    assert set(hidden) == {"a", "b"}
    share = hidden.count("a") / len(hidden)
    found = made.figures(outcomes(tmp_path, made).outcomes)
    assert found == {
        "bits_per_masked_byte": pytest.approx(share * 1 + (1 - share) * 3),
        "accuracy": pytest.approx(100 * share),
        "masked_bytes": len(hidden),
    }


def test_words_are_hidden_whole_and_by_the_seed(tmp_path: Path) -> None:
    everything = protocol(masked=1.0)
    text = " ".join(WORDS * 40)[: len(everything.dataset) * 20]
    found = everything.figures(outcomes(tmp_path / "all", everything).outcomes)
    assert found["masked_bytes"] == len(text.replace(" ", ""))
    one, same, other = (outcomes(tmp_path / str(run), protocol(run // 2)).outcomes for run in (0, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_an_example_shows_what_was_hidden(tmp_path: Path) -> None:
    made = protocol(masked=1.0)
    example = example_of(made, AlwaysA(), 0)
    assert [text for _, text in example.texts] == ["⟦aaaa⟧ ⟦bb⟧ ⟦aaa⟧ ⟦ba⟧ ⟦aaab⟧ ", "⟦aaaa⟧ ⟦aa⟧ ⟦aaa⟧ ⟦aa⟧ ⟦aaaa⟧ "]
    # Four of fifteen are b.
    assert example.title == f"Window 0: {(11 * 1 + 4 * 3) / 15:.2f} bits a hidden byte"
