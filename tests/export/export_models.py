"""Exports small models and runs the results; as a script, without the run-time checks that exporters cannot trace.

python -m tests.export.export_models onnx|program|machine-code PRESET DIRECTORY
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

import perceiver_io
from perceiver_io.export import compile_program, export_onnx, load_program, save_program
from perceiver_io.export.program import sample_inputs
from perceiver_io.presets import model_from_config
from tests.small_models import SMALL


def small_model(name: str) -> Any:
    """A preset at its small size, or "text", with weights of which each matters."""
    torch.manual_seed(0)
    if name == "text":
        sizes = {key: value for key, value in SMALL["language"].items() if key != "num_decoder_heads"}
        model = model_from_config(perceiver_io.TextClassificationConfig(**sizes))
    else:
        model = perceiver_io.create_model(name, **SMALL[name])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def lengths(name: str) -> list[int | None]:
    """Those to try: from one token to the longest."""
    return [1, 5, 16, 17] if name in ("language", "text") else [None]


def check_program(name: str, directory: Path) -> None:
    model = small_model(name)
    save_program(model, directory)
    program = load_program(directory)
    for batch in (1, 2, 5):
        for length in lengths(name):
            inputs = sample_inputs(model, batch, length)
            torch.testing.assert_close(program(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)


def check_machine_code(name: str, directory: Path) -> None:
    model = small_model(name)
    program = torch._inductor.aoti_load_package(str(compile_program(model, directory)))
    for batch in (1, 3):
        for length in lengths(name):
            inputs = sample_inputs(model, batch, length)
            torch.testing.assert_close(program(*inputs), model(*inputs), rtol=1e-4, atol=1e-4)


def check_onnx(name: str, directory: Path) -> None:
    import onnxruntime

    model = small_model(name)
    exported = export_onnx(model, directory)
    assert exported.error is not None and exported.error < 1e-5, exported
    session = onnxruntime.InferenceSession(exported.path)
    assert [entry.name for entry in session.get_outputs()] == exported.outputs
    assert "config_class" in session.get_modelmeta().custom_metadata_map
    for batch in (1, 4):
        for length in lengths(name):
            inputs = sample_inputs(model, batch, length)
            feed = {key: tensor.numpy() for key, tensor in zip(exported.inputs, inputs, strict=True)}
            given = session.run(None, feed)
            for theirs, ours in zip(given, tree_leaves(model(*inputs)), strict=True):
                torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-4, atol=1e-4)
    print(f"error {exported.error:.1e}")


CHECKS = {"onnx": check_onnx, "program": check_program, "machine-code": check_machine_code}

if __name__ == "__main__":
    with torch.no_grad():
        CHECKS[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
