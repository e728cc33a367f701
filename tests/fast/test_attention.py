"""Attention a head and a block of queries at a time."""

import torch

from perceiver_io.attention import attend
from perceiver_io.fast.attention import attend_in_blocks


def test_attention_in_blocks() -> None:
    query, key, value = torch.randn(1, 3, 600, 6), torch.randn(2, 3, 11, 6), torch.randn(2, 3, 11, 10)
    with torch.inference_mode():
        torch.testing.assert_close(attend_in_blocks(query, key, value), attend(query, key, value))
