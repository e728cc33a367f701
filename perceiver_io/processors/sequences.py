"""Text as Perceiver AR reads it: a start, the bytes, an end."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int, Int64
from torch import Tensor


class ByteSequences:
    """The mapping between text and sequences of ids: each UTF-8 byte plus 3, after padding, end and start.

    The reference's `dataset.py`.
    """

    pad_token = 0
    end_token = 1
    start_token = 2
    num_special_tokens = 3
    vocab_size = 256 + num_special_tokens

    def encode(self, text: str | bytes, *, ends: bool = False) -> Int64[Tensor, " length"]:
        """Maps text, or bytes as they are, to ids after the start.

        Args:
            ends: whether the end follows; not in a prompt.

        Raises:
            ValueError: neither text nor bytes, or text that UTF-8 cannot hold.
        """
        if not isinstance(text, str | bytes):
            raise ValueError(f"a text must be str or bytes, not {type(text).__name__}")
        try:
            data = text.encode("utf-8") if isinstance(text, str) else text
        except UnicodeEncodeError as error:
            raise ValueError(
                f"character {error.start} of the text, {text[error.start]!a}, is not valid in UTF-8: surrogates not "
                "allowed; give bytes, or replace it"
            ) from error
        ids = [byte + self.num_special_tokens for byte in data]
        return torch.tensor([self.start_token, *ids, *([self.end_token] if ends else [])], dtype=torch.int64)

    def decode_bytes(self, tokens: Int[Tensor, " length"] | Sequence[int]) -> bytes:
        """Maps ids to their bytes, without the special ones.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        ids = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        outside = [token for token in ids if not 0 <= token < self.vocab_size]
        if outside:
            raise ValueError(f"token {outside[0]} is outside the vocabulary; ids are 0 to {self.vocab_size - 1}")
        return bytes(token - self.num_special_tokens for token in ids if token >= self.num_special_tokens)

    def decode(self, tokens: Int[Tensor, " length"] | Sequence[int]) -> str:
        """Maps ids to text, without the special ones; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(tokens).decode("utf-8", errors="replace")
