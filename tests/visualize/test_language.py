"""Text with predictions filled in."""

import pytest
import torch

from perceiver_io.processors import BytesTokenizer
from perceiver_io.visualize import draw_masked_text
from perceiver_io.visualize.language import split_characters
from tests.visualize.drawing import drawn


@pytest.mark.parametrize("text", ["short", "$x_1$ – 日本語 \\ \n\n" + "long " * 60, "x" * 200])
def test_masked_text_is_drawn(text: str) -> None:
    tokens = BytesTokenizer().encode(text)
    tokens[2:4] = BytesTokenizer.mask_token
    drawn(draw_masked_text(tokens, torch.rand(len(tokens), 262).softmax(-1)))


def test_filled_in_bytes_are_marked() -> None:
    tokens = BytesTokenizer().encode("a cat")
    predicted = torch.nn.functional.one_hot(BytesTokenizer().encode("a dog"), 262).float()
    tokens[2:] = BytesTokenizer.mask_token
    text, table = draw_masked_text(tokens, predicted).axes
    assert [cell.get_text() for cell in text.texts] == list("a dog")
    assert [cell.get_color() for cell in text.texts] == ["black"] * 2 + ["white"] * 3
    assert [cell.get_text() for cell in table.texts if "100%" in cell.get_text()] == [
        f"{character}\n100%" for character in "dog"
    ]


def test_text_without_masks_is_refused() -> None:
    with pytest.raises(ValueError, match=r"none of the 3 tokens is MASK \(3\)"):
        draw_masked_text(BytesTokenizer().encode("abc"), torch.rand(3, 262))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("aé日🙂b".encode(), [("a", 1), ("é", 2), ("日", 3), ("🙂", 4), ("b", 1)]),
        (b"\xe2\x82A\xff\xffB", [("�", 1), ("�", 1), ("A", 1), ("�", 1), ("�", 1), ("B", 1)]),
        (b"\xf0\x9f\xe2\x82\xac", [("�", 1), ("�", 1), ("€", 3)]),
        (b"x\xf0\x9f", [("x", 1), ("�", 1), ("�", 1)]),
        (b"\xed\xa0\x80", [("�", 1), ("�", 1), ("�", 1)]),
        ("�".encode(), [("�", 3)]),
        (b"", []),
    ],
)
def test_characters_and_their_bytes(data: bytes, expected: list[tuple[str, int]]) -> None:
    characters = split_characters(BytesTokenizer().encode(data))
    assert [(character, len(places)) for character, places in characters] == expected
    assert [place for _, places in characters for place in places] == list(range(len(data)))


def test_special_tokens_end_a_character() -> None:
    tokens = BytesTokenizer().encode(b"\xc3\xa9\xc3")
    assert split_characters(torch.cat([tokens, torch.tensor([3, 0]), tokens])) == [
        ("é", [0, 1]),
        ("�", [2]),
        ("", [3]),
        ("", [4]),
        ("é", [5, 6]),
        ("�", [7]),
    ]
