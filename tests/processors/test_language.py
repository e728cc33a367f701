"""Texts to tokens as the language colab makes them, and logits to texts."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import perceiver_io
from perceiver_io.processors import TextProcessor
from tests.small_models import SMALL
from tests.unchecked import unchecked

COLAB_TEXT = "This is an incomplete sentence where some words are missing."


def one_hot(text: bytes) -> torch.Tensor:
    """Logits that are sure of a text."""
    return torch.nn.functional.one_hot(torch.tensor(list(text)) + 6, 262).float()[None] * 20


def test_tokens_are_the_colabs() -> None:
    # The colab encodes bytes as value + 6, masks bytes 51 to 59 with MASK (3), and pads with 0 up to a length.
    expected = torch.tensor(list(COLAB_TEXT.encode())) + 6
    expected[51:60] = 3
    tokens, mask = TextProcessor(2048)(COLAB_TEXT, mask=" missing.")
    assert torch.equal(tokens, expected[None])
    assert mask.all()


def test_texts_of_a_batch_are_padded_to_the_longest() -> None:
    tokens, mask = TextProcessor(99)(["ab[MASK]", "abcde"])
    assert tokens.tolist() == [[103, 104, 3, 0, 0], [103, 104, 105, 106, 107]]
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]


def test_masking_a_phrase_covers_all_its_bytes_wherever_it_occurs() -> None:
    tokens = TextProcessor(99)("ein schöner Tag[MASK], ein schöner", [" schöner"]).tokens[0]
    assert (tokens == 3).tolist() == [False] * 3 + [True] * 9 + [False] * 4 + [True] + [False] * 5 + [True] * 9


def shown(tokens: torch.Tensor) -> str:
    return bytes(ord("_") if token == 3 else token - 6 for token in tokens.tolist()).decode(errors="replace")


@pytest.mark.parametrize(
    ("text", "phrases", "expected"),
    [
        ("A CAT SAT", ["CAT", "A"], "_ ___ S_T"),
        ("ONE MASK, TWO", ["TWO", "MASK"], "ONE ____, ___"),
        ("It IS [MASK] SMALL", ["S"], "It I_ _ _MALL"),
        ("ab[MASK]", ["b[MASK]"], "a__"),
        ("aaa", ["aa"], "___"),
        ("abcd", ["abc", "bcd"], "____"),
        ("[MASK][MASK]x", ["[MASK]x"], "___"),
        ("é[MASK]é", ["é"], "_____"),
        ("[MASK", ["MASK"], "[____"),
    ],
)
def test_each_phrase_masks_its_own_bytes(text: str, phrases: list[str], expected: str) -> None:
    assert shown(TextProcessor(99).encode(text, phrases)) == expected
    assert shown(TextProcessor(99).encode(text, phrases[::-1])) == expected


@given(st.text("abM[]é", max_size=12), st.lists(st.text("abM[]é", min_size=1, max_size=3), max_size=4))
def test_masking_is_the_union_of_the_phrases_bytes(text: str, phrases: list[str]) -> None:
    data = text.encode()
    masked = {
        place + offset
        for phrase in phrases
        for place in range(len(data))
        if data[place:].startswith(phrase.encode())
        for offset in range(len(phrase.encode()))
    }
    tokens = TextProcessor(99).encode(text, phrases)
    assert tokens.tolist() == [3 if place in masked else byte + 6 for place, byte in enumerate(data)]


def test_texts_of_other_kinds_are_refused() -> None:
    processor = TextProcessor(99)
    for texts, mask, message in (
        ([b"bytes"], (), "every text must be a str"),
        (torch.zeros(3), (), "every text must be a str"),
        ("text", [b"t"], "every phrase must be a str"),
        ("[MASK]", "MASK", "'MASK' is not in the text"),
        ("half \udcff", (), "is not valid in UTF-8: surrogates not allowed"),
    ):
        with unchecked(), pytest.raises(ValueError, match=message):
            processor(texts, mask)  # type: ignore[arg-type]


def test_a_phrase_may_be_in_one_text_of_several() -> None:
    assert (TextProcessor(9)(["cat", "dog"], "dog").tokens == 3).sum() == 3


@pytest.mark.parametrize(("masked", "start"), [((0, 3), 0), ((20, 24), 16), ((38, 40), 28)])
def test_long_text_is_cut_around_the_mask(masked: tuple[int, int], start: int) -> None:
    tokens = torch.arange(10, 50)
    tokens[slice(*masked)] = 3
    assert torch.equal(TextProcessor(12).cut(tokens), tokens[start : start + 12])


def test_texts_that_cannot_be_read_are_refused() -> None:
    processor = TextProcessor(12)
    for texts, mask, message in (
        ("no mask", "cat", "'cat' is not in the text"),
        ("no mask", "", "'' is not in the text"),
        ("x" * 13, (), "the text takes 13 bytes, more than the 12 that the model reads"),
        ("[MASK]" + "x" * 20 + "[MASK]", (), "the masked bytes span 22 bytes of text, more than the 12"),
        ("", (), "a text is empty"),
        ([], (), "there are no texts"),
    ):
        with pytest.raises(ValueError, match=message):
            processor(texts, mask)


def test_a_model_of_another_vocabulary_is_refused() -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    with pytest.raises(ValueError, match="a vocabulary of 31 tokens; text as bytes takes 262"):
        TextProcessor.for_model(model)


def test_masks_are_filled_with_the_likeliest_bytes() -> None:
    processor = TextProcessor(99)
    batch = processor(["a [MASK][MASK][MASK]!", "no"])
    logits = torch.cat([one_hot(b"? dog."), one_hot(b"??????")])
    first, second = processor.fill(batch, logits, top=2)
    assert first.masked == "a [MASK][MASK][MASK]!"
    assert first.filled == "a dog!"
    assert [byte.position for byte in first.masked_bytes] == [2, 3, 4]
    assert [byte.candidates[0].name for byte in first.masked_bytes] == ["d", "o", "g"]
    assert all(len(byte.candidates) == 2 for byte in first.masked_bytes)
    assert first.masked_bytes[0].candidates[0].probability == pytest.approx(1, abs=1e-6)
    assert second == ("no", "no", [])


def test_the_model_reads_what_the_processor_makes() -> None:
    model = perceiver_io.create_model("language", **{**SMALL["language"], "vocab_size": 262}).eval()
    processor = TextProcessor.for_model(model)
    batch = processor(["[MASK]", "a text of [MASK] bytes"])
    assert batch.tokens.shape == (2, 17)
    filled = processor.fill(batch, model(*batch))
    assert [len(text.masked_bytes) for text in filled] == [1, 1]
