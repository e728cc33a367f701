"""Whole-word masking, the loss at the masked positions, and what a model is measured by."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import perceiver_io
from perceiver_io.processors import BytesTokenizer
from perceiver_io.training import Draw
from perceiver_io.training.data.text import TextWindows
from perceiver_io.training.language import (
    MaskedLanguageEvaluation,
    MaskedLanguageObjective,
    MaskedWords,
    hidden,
    mask_words,
    masked_cross_entropy,
    most_frequent_byte,
)
from tests.small_models import SMALL

TEXT = "All's well,\n\nthat  ends well. Ein Öl\tfür é; x"
TOKENIZER = BytesTokenizer()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Constant(nn.Module):
    """A model that knows one answer; remembers what it was given."""

    def __init__(self, answer: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(2.0 * F.one_hot(torch.tensor(answer), TOKENIZER.vocab_size))
        self.given: list[Tensor] = []

    def forward(self, tokens: Tensor, points: Tensor | None = None) -> Tensor:
        self.given.append(tokens)
        return self.logits.expand(*(tokens if points is None else points).shape, -1)


def test_words_are_masked_as_wholes() -> None:
    tokens = TOKENIZER.encode(TEXT)
    words = TEXT.split()
    seen = set()
    for seed in range(50):
        masked = mask_words(tokens, 0.4, generator(seed))
        marked = "".join("*" if is_hidden else chr(byte) for byte, is_hidden in zip(TEXT.encode(), masked, strict=True))
        for word, result in zip(words, marked.split(), strict=True):
            size = len(word.encode())
            assert result in ("*" * size, "".join(map(chr, word.encode())))
            seen.add((word, "*" in result))
    assert len(seen) == 2 * len(set(words))


def test_the_share_of_masked_words() -> None:
    tokens = TOKENIZER.encode("a bc def ghij " * 5000)
    masked = mask_words(tokens, 0.15, generator())
    assert masked[tokens != TOKENIZER.encode(" ")].float().mean() == pytest.approx(0.15, abs=0.01)
    words = masked.reshape(-1, 14)[:, [0, 2, 5, 9]].float()
    correlation = torch.corrcoef(words.T) - torch.eye(4)
    assert correlation.abs().max() < 0.05


@pytest.mark.parametrize("text", [" \n ", "x"])
def test_texts_without_whitespace_or_words(text: str) -> None:
    masked = mask_words(TOKENIZER.encode(text), 1.0, generator())
    assert masked.tolist() == [not letter.isspace() for letter in text]


def test_masks_depend_on_the_draw_alone() -> None:
    dataset = MaskedWords(TextWindows([TEXT.encode() * 9], 31), 0.5)
    first, again, other = (dataset[Draw(3, seed)] for seed in (5, 5, 6))
    assert len(dataset) == len(TEXT.encode()) * 9 // 31
    assert all(first[name].equal(again[name]) for name in ("tokens", "masked"))
    assert not first["masked"].equal(other["masked"])


def test_the_loss_counts_masked_positions_alone() -> None:
    logits = torch.randn(3, 7, 11, generator=generator())
    tokens = torch.randint(11, (3, 7), generator=generator(1))
    masked = torch.zeros(3, 7, dtype=torch.bool)
    masked[0, 2:6] = masked[2, 1] = True
    losses = F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").reshape(3, 7)
    expected = (losses[0, 2:6].mean() + losses[2, 1]) / 3
    torch.testing.assert_close(masked_cross_entropy(logits, tokens, masked), expected)


def test_the_loss_of_a_batch_is_the_mean_of_its_halves() -> None:
    logits, masked = torch.randn(6, 5, 13, generator=generator()), torch.rand(6, 5, generator=generator()) < 0.4
    tokens = torch.randint(13, (6, 5), generator=generator(1))
    halves = [masked_cross_entropy(logits[half], tokens[half], masked[half]) for half in (slice(3), slice(3, 6))]
    torch.testing.assert_close(masked_cross_entropy(logits, tokens, masked), sum(halves) / 2)


def test_nothing_masked_is_no_loss() -> None:
    logits = torch.randn(2, 3, 7, requires_grad=True)
    loss = masked_cross_entropy(logits, torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2, 3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None


def test_the_model_does_not_see_what_it_is_asked_for() -> None:
    model = Constant(9)
    tokens = TOKENIZER.encode("well, that ends").expand(2, -1)
    masked = torch.zeros(tokens.shape, dtype=torch.bool)
    masked[1, 6:10] = True
    figures = MaskedLanguageObjective()(model, {"tokens": tokens, "masked": masked}, generator())
    assert TOKENIZER.decode(model.given[0][0]) == "well, that ends"
    assert model.given[0][1, 6:10].tolist() == [TOKENIZER.mask_token] * 4
    assert set(figures) == {"loss"}


def test_decoding_masked_positions_alone_changes_no_loss() -> None:
    model = perceiver_io.create_model("language", **SMALL["language"]).eval()
    tokens = torch.randint(SMALL["language"]["vocab_size"], (4, 9), generator=generator())
    masked = torch.rand(4, 9, generator=generator(1)) < torch.tensor([[0.0], [0.3], [0.6], [1.0]])
    expected = masked_cross_entropy(model(hidden(tokens, masked)), tokens, masked)
    figures = MaskedLanguageObjective()(model, {"tokens": tokens, "masked": masked}, generator())
    torch.testing.assert_close(figures["loss"], expected)


def test_a_batch_without_masked_bytes_is_no_loss() -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    tokens = torch.ones(2, 9, dtype=torch.int64)
    batch = {"tokens": tokens, "masked": torch.zeros_like(tokens, dtype=torch.bool)}
    loss = MaskedLanguageObjective()(model, batch, generator())["loss"]
    loss.backward()
    assert loss.item() == 0


def test_a_small_model_learns() -> None:
    torch.manual_seed(0)
    model = perceiver_io.create_model("language", **{**SMALL["language"], "vocab_size": TOKENIZER.vocab_size})
    dataset = MaskedWords(TextWindows([b"one two three four five " * 20], 17), 0.3)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for step in range(30):
        examples = [dataset[Draw(index % len(dataset), step * 7 + index)] for index in range(7)]
        batch = {name: torch.stack([example[name] for example in examples]) for name in ("tokens", "masked")}
        loss = MaskedLanguageObjective()(model, batch, generator())["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_the_evaluation_counts_bytes() -> None:
    dataset = MaskedWords(TextWindows([b"ee e eat eex " * 8], 13, random_positions=False), 1.0)
    model = Constant(int(TOKENIZER.encode("e")))
    figures = MaskedLanguageEvaluation(dataset=dataset, most_frequent=int(TOKENIZER.encode("x")), batch_size=3)(model)
    assert figures["accuracy"] == pytest.approx(6 / 9)
    assert figures["baseline_accuracy"] == pytest.approx(1 / 9)
    log_sum = math.log(math.exp(2) + TOKENIZER.vocab_size - 1)
    assert figures["loss"] == pytest.approx(log_sum - 2 * 6 / 9, rel=1e-5)


def test_the_most_frequent_byte_is_that_of_masked_words() -> None:
    dataset = MaskedWords(TextWindows([b"a   e   be  a  e  "] * 3, 18, random_positions=False), 1.0)
    assert most_frequent_byte(dataset) == int(TOKENIZER.encode("e"))


def test_text_without_words_cannot_be_evaluated_on() -> None:
    windows = TextWindows([b" " * 64], 16, random_positions=False)
    evaluation = MaskedLanguageEvaluation(dataset=MaskedWords(windows), most_frequent=7)
    with pytest.raises(ValueError, match=r"no word of the 4 held-out windows was hidden; give more text"):
        evaluation(Constant(7))
