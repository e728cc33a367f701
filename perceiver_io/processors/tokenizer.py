"""Text as the language model reads it: its UTF-8 bytes."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int, Int64
from torch import Tensor

from perceiver_io.media.arrays import as_array

_SPECIAL_NAMES = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")


class BytesTokenizer:
    """The mapping between text and token ids: each UTF-8 byte plus 6, after six special tokens.

    The reference's `BytesTokenizer`.

    There is no vocabulary to load: the model reads any language and any bytes. One character may take several
    tokens, so masking a non-ASCII character masks all of its bytes.
    """

    pad_token = 0
    bos_token = 1
    eos_token = 2
    mask_token = 3
    cls_token = 4
    sep_token = 5
    num_special_tokens = len(_SPECIAL_NAMES)
    vocab_size = 256 + num_special_tokens

    def encode(self, text: str | bytes) -> Int64[Tensor, " length"]:
        """Maps text, or bytes as they are, to token ids. Nothing is added at either end.

        Raises:
            ValueError: neither text nor bytes, or text with half of a surrogate pair, which UTF-8 cannot hold.
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
        return torch.tensor(list(data), dtype=torch.int64) + self.num_special_tokens

    def decode(self, tokens: Int[Tensor, " length"]) -> str:
        """Maps token ids to text, without the special tokens; bytes that are not UTF-8 become U+FFFD.

        Raises:
            ValueError: an id outside the vocabulary, or ids of more than one text.
        """
        array, _ = as_array(tokens)
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ValueError(
                f"tokens have shape {array.shape} and type {array.dtype}; decode one text [length] of integers"
            )
        ids: list[int] = array.tolist()
        outside = [token for token in ids if not 0 <= token < self.vocab_size]
        if outside:
            raise ValueError(f"token {outside[0]} is outside the vocabulary; ids are 0 to {self.vocab_size - 1}")
        data = bytes(token - self.num_special_tokens for token in ids if token >= self.num_special_tokens)
        return data.decode("utf-8", errors="replace")

    def describe(self, token: int) -> str:
        """Maps a token id to how it is printed: the ASCII character, a visible space, `\\xc3` or `[MASK]`.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(f"token {token} is outside the vocabulary; ids are 0 to {self.vocab_size - 1}")
        if token < self.num_special_tokens:
            return _SPECIAL_NAMES[token]
        byte = token - self.num_special_tokens
        if byte == ord(" "):
            return "␣"
        return ascii(chr(byte))[1:-1] if byte != ord("'") else "'"

    def pad(
        self, tokens: Int64[Tensor, " length"], length: int
    ) -> tuple[Int64[Tensor, "1 padded"], Bool[Tensor, "1 padded"]]:
        """Maps token ids of one text to a batch of one, filled up with PAD, and the mask that is True on the text.

        The colab pads to the model's `max_seq_len`. Ours reads shorter sequences too; padding is for batches.

        Args:
            tokens: at most `length` ids.
            length: of the result, in tokens.

        Raises:
            ValueError: the text is longer than `length`.
        """
        if len(tokens) > length:
            raise ValueError(f"the text takes {len(tokens)} tokens (bytes), more than {length}; shorten or split it")
        padded = torch.full((1, length), self.pad_token, dtype=torch.int64)
        padded[0, : len(tokens)] = tokens
        mask = (torch.arange(length) < len(tokens))[None]
        return padded, mask
