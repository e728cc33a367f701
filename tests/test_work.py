"""How much is multiplied: the released models at full size, on the meta device, against the least that is needed.

The least is benchmarks/rows.py's and docs/performance.md's, in multiplications and additions (2 per product).
"""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import perceiver_io
from benchmarks.rows import ROWS, make_case, make_inputs
from benchmarks.sides import run_ours
from tests.small_models import SMALL, small_inputs


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


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.gflop is not None])
def test_work_of_the_released_models(name: str) -> None:
    row = ROWS[name]
    case = make_case(row, tiny=False)
    with torch.device("meta"):
        model = perceiver_io.create_model(row.preset).eval().requires_grad_(False)
        for buffers in list(model.modules()):
            for key, buffer in buffers.named_buffers(recurse=False):
                setattr(buffers, key, buffer.to("meta"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run_ours(model, case, {key: torch.from_numpy(array).to("meta") for key, array in make_inputs(case).items()})
    assert row.gflop is not None
    assert 0.999 <= counter.get_total_flops() / (row.gflop * 1e9) <= 1.03
