"""Evaluation: every target once, whatever the blocks."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.autoregressive.evaluation import blocks, evaluate
from tests.autoregressive.small import random_tokens, small_model


@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    block_size=st.integers(1, 9),
    context=st.integers(9, 20),
)
def test_blocks_count_each_target_once(lengths: list[int], block_size: int, context: int) -> None:
    counted: list[list[int]] = [[] for _ in lengths]
    for block in blocks(lengths, block_size, context):
        assert block.counted <= block.inputs.stop - block.inputs.start <= context
        counted[block.document] += range(block.inputs.stop - block.counted, block.inputs.stop)
    assert counted == [list(range(length)) for length in lengths]


@pytest.mark.parametrize("block_size", [1, 4, None])
def test_evaluation_is_what_single_predictions_sum_to(block_size: int | None) -> None:
    model = small_model()
    documents = random_tokens(11, 21, 2)
    result = evaluate(model, documents, block_size, batch_size=3)
    nats = correct = 0.0
    for block in blocks([len(d) - 1 for d in documents], block_size or 6, 15):
        document = documents[block.document]
        with torch.inference_mode():
            logits = model(document[block.inputs][None])[0, -block.counted :]
        targets = document[block.inputs.stop - block.counted + 1 : block.inputs.stop + 1]
        nats += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        correct += int((logits.argmax(-1) == targets).sum())
    assert result.nats == pytest.approx(nats, rel=1e-5)
    assert (result.num_tokens, result.num_correct) == (31, correct)
    assert result.bits_per_token == pytest.approx(nats / 31 / math.log(2), rel=1e-5)
    assert result.accuracy == pytest.approx(correct / 31)


def test_refuses() -> None:
    model = small_model()
    with pytest.raises(ValueError, match=r"block_size \(7\) must lie in 1…6"):
        evaluate(model, random_tokens(9), 7)
    with pytest.raises(ValueError, match="document 1 has 1 tokens"):
        evaluate(model, [[1, 2], [3]])
    with pytest.raises(ValueError, match="there are no documents to evaluate on; give one at least"):
        evaluate(model, [])
    with pytest.raises(ValueError, match=r"call model\.eval"):
        evaluate(model.train(), random_tokens(9))
