"""Compiles and exports the six models; run as a script, without the run-time checks that compilers cannot trace.

python -m tests.compile_models [BACKEND]
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import perceiver_io
from perceiver_io.presets import PRESETS
from tests.small_models import SMALL, small_inputs


def main() -> None:
    backend = sys.argv[1] if len(sys.argv) > 1 else "aot_eager"
    for preset in PRESETS:
        torch.manual_seed(0)
        model = perceiver_io.create_model(preset, **SMALL[preset]).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        inputs = small_inputs(model)
        torch._dynamo.reset()
        for no_grad in (True, False):
            with torch.set_grad_enabled(not no_grad):
                compiled = torch.compile(model, backend=backend, fullgraph=True)
                check(f"{preset} compiled, no_grad={no_grad}", compiled(*inputs), model(*inputs))
        batch = torch.export.Dim("batch", min=1, max=64)
        with torch.no_grad():
            exported = torch.export.export(model, inputs, dynamic_shapes=dynamic(inputs, batch))
            larger = small_inputs(model, batch=5)
            check(f"{preset} exported", exported.module()(*larger), model(*larger))


def dynamic(inputs: tuple[Tensor, ...], batch: Any) -> Any:
    """The first dimension of every input varies."""
    return tuple({0: batch} for _ in inputs)


def check(name: str, actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-3, msg=lambda m: f"{name}: {m}")
    print(name, "ok", flush=True)


def names() -> Iterator[str]:
    """What a successful run prints."""
    for preset in PRESETS:
        yield f"{preset} compiled, no_grad=True ok"
        yield f"{preset} compiled, no_grad=False ok"
        yield f"{preset} exported ok"


if __name__ == "__main__":
    main()
