"""How much is multiplied: the released models at full size, on the meta device, against the least that is needed.

The least is counted by hand in docs/performance.md's table, in multiplications and additions (2 per product).
"""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import perceiver_io
from tests.small_models import SMALL, small_inputs

# 10⁹ operations.
LEAST = {
    "language": 118,
    "imagenet-conv": 365,
    "imagenet-fourier": 390,
    "imagenet-learned": 420,
    "optical-flow": 1400,
    "video-autoencoding": 3750,
}


@pytest.mark.filterwarnings("ignore:TF32 acceleration")  # what reading the flags says on any machine
@pytest.mark.parametrize("preset", SMALL)
def test_the_work_of_onednn_is_counted_as_any(preset: str) -> None:
    model = perceiver_io.create_model(preset, **SMALL[preset]).eval().requires_grad_(False)
    counts = []
    for enabled in (True, False):
        with torch.backends.mkldnn.flags(enabled=enabled), torch.no_grad(), FlopCounterMode(display=False) as counter:
            torch.manual_seed(1)
            model(*small_inputs(model))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("preset", LEAST)
def test_work_of_the_released_models(preset: str) -> None:
    with torch.device("meta"):
        model = perceiver_io.create_model(preset).eval().requires_grad_(False)
        inputs: Any = small_inputs(model, batch=1)
        if preset == "language":
            inputs = (torch.zeros(1, 2048, dtype=torch.long),)
        for buffers in list(model.modules()):
            for name, buffer in buffers.named_buffers(recurse=False):
                setattr(buffers, name, buffer.to("meta"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(*inputs)
    assert counter.get_total_flops() <= 1.15 * LEAST[preset] * 1e9
