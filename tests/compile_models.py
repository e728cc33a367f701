"""Compiles and exports the six models; run as a script, without the run-time checks that compilers cannot trace.

python -m tests.compile_models [BACKEND [DEVICE [PRESET ...]]]
"""

import copy
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import perceiver_io
from perceiver_io.fast.graphs import recordings_of
from perceiver_io.fast.products import attend_by_products
from perceiver_io.presets import PRESETS
from tests.small_models import SMALL, small_inputs


def main(backend: str = "aot_eager", device: str = "cpu", *presets: str) -> None:
    torch.backends.cudnn.allow_tf32 = False
    for preset in presets or PRESETS:
        torch.manual_seed(0)
        model = perceiver_io.create_model(preset, **SMALL[preset]).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.to(device)
        inputs, larger = (tuple(x.to(device) for x in small_inputs(model, batch)) for batch in (2, 5))
        torch._dynamo.reset()
        for no_grad in (True, False):
            with torch.set_grad_enabled(not no_grad):
                compiled = torch.compile(model, backend=backend, fullgraph=True)
                check(f"{preset} compiled, no_grad={no_grad}", compiled(*inputs), model(*inputs))
        batch = torch.export.Dim("batch", min=1, max=64)
        with torch.no_grad():
            exported = torch.export.export(model, inputs, dynamic_shapes=dynamic(inputs, batch))
            check(f"{preset} exported", exported.module()(*larger), model(*larger))
        if backend == "inductor":
            check_compiled_blocks(preset, model, inputs)
    if backend == "inductor":
        check_operator(device)


def check_compiled_blocks(preset: str, model: Any, inputs: tuple[Tensor, ...]) -> None:
    """Of a device that has graphs, with these: the first call records, the second replays."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    fast = perceiver_io.accelerate(copy.deepcopy(model), compile_blocks=True)
    with torch.no_grad():
        expected = perceiver_io.undo_accelerate(copy.deepcopy(model))(*inputs)
        fast(*inputs)
        check(f"{preset} with compiled blocks", fast(*inputs), expected)
    recordings = recordings_of(fast)
    assert recordings is not None and len(recordings) == int(inputs[0].is_cuda)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"]


def check_operator(device: str) -> None:
    """Attention by products is one operator in compiled programs, whose scores keep to a bound."""
    torch._dynamo.reset()
    shapes = (1, 7, 4), (3, 11, 4), (3, 11, 5), (3, 1, 11)
    given = [torch.randn(*shape, device=device, requires_grad=True) for shape in shapes]
    mask = torch.rand(3, 1, 11, device=device) > 0.4
    results = []
    for attend in (attend_by_products, torch.compile(attend_by_products, fullgraph=True)):
        output = attend(*given, mask, 3 * 11 * 4)
        results.append([output, *torch.autograd.grad(output.sin().sum(), given)])
    check("operator", *results)


def dynamic(inputs: tuple[Tensor, ...], batch: Any) -> Any:
    """The first dimension of every input varies."""
    return tuple({0: batch} for _ in inputs)


def check(name: str, actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3, msg=lambda m: f"{name}: {m}")
    print(name, "ok", flush=True)


def names(backend: str = "aot_eager", presets: Sequence[str] = tuple(PRESETS)) -> Iterator[str]:
    """What a successful run prints."""
    for preset in presets:
        yield f"{preset} compiled, no_grad=True ok"
        yield f"{preset} compiled, no_grad=False ok"
        yield f"{preset} exported ok"
        if backend == "inductor":
            yield f"{preset} with compiled blocks ok"
    if backend == "inductor":
        yield "operator ok"


if __name__ == "__main__":
    main(*sys.argv[1:])
