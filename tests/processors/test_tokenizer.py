"""The tokenizer is UTF-8 plus six special tokens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.processors import BytesTokenizer
from tests.unchecked import unchecked

TOKENIZER = BytesTokenizer()


@given(st.text())
def test_decoding_undoes_encoding(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_a_token_is_a_byte_plus_six() -> None:
    tokens = TOKENIZER.encode("aé")
    assert tokens.dtype == torch.int64
    assert tokens.tolist() == [0x61 + 6, 0xC3 + 6, 0xA9 + 6]
    assert TOKENIZER.encode(b"\x00\xff").tolist() == [6, 261]
    assert TOKENIZER.encode("").shape == (0,)
    assert TOKENIZER.vocab_size == 262


def test_decoding_drops_special_tokens_and_marks_broken_bytes() -> None:
    tokens = torch.tensor([1, 4, 0x68 + 6, 3, 0x69 + 6, 5, 2, 0, 0])
    assert TOKENIZER.decode(tokens) == "hi"
    assert TOKENIZER.decode(torch.tensor([0xC3 + 6])) == "\ufffd"


@pytest.mark.parametrize("token", [-1, 262])
def test_ids_outside_the_vocabulary_are_refused(token: int) -> None:
    with pytest.raises(ValueError, match=rf"token {token} is outside the vocabulary; ids are 0 to 261"):
        TOKENIZER.decode(torch.tensor([10, token]))
    with pytest.raises(ValueError, match="outside the vocabulary"):
        TOKENIZER.describe(token)


def test_only_one_text_is_decoded_at_a_time() -> None:
    with unchecked(), pytest.raises(ValueError, match=r"shape \(1, 2\) and type int64; decode one text \[length\]"):
        TOKENIZER.decode(torch.tensor([[10, 11]]))


@pytest.mark.parametrize(
    ("token", "expected"),
    [(0, "[PAD]"), (3, "[MASK]"), (ord("a") + 6, "a"), (ord(" ") + 6, "␣"), (ord("'") + 6, "'"), (261, "\\xff")],
)
def test_tokens_are_described(token: int, expected: str) -> None:
    assert TOKENIZER.describe(token) == expected


def test_padding_fills_up_with_pad_and_masks_it() -> None:
    tokens, mask = TOKENIZER.pad(TOKENIZER.encode("abc"), 5)
    assert tokens.tolist() == [[103, 104, 105, 0, 0]]
    assert mask.tolist() == [[True, True, True, False, False]]
    assert mask.dtype == torch.bool


def test_padding_refuses_longer_texts() -> None:
    with pytest.raises(ValueError, match=r"the text takes 3 tokens \(bytes\), more than 2"):
        TOKENIZER.pad(TOKENIZER.encode("abc"), 2)
