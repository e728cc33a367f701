"""ONNX: a file that onnxruntime and others run, without PyTorch."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from perceiver_io.atomic import new_directory
from perceiver_io.export.program import (
    describe_model,
    export_program,
    input_names,
    output_names,
    sample_inputs,
)
from perceiver_io.models import LanguagePerceiver, TextClassificationPerceiver
from perceiver_io.optional import needs_extra
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.weights.saving import CONFIG_FILE

ONNX_FILE = "model.onnx"
# Weights that do not fit in one file of protobuf lie in the second.
ONNX_FILES = {CONFIG_FILE, ONNX_FILE, f"{ONNX_FILE}.data"}
# Largest difference from our outputs, relative to their deviation, that an exported file may have.
TOLERANCE = 1e-4


class OnnxExport(NamedTuple):
    """An exported file.

    Attributes:
        path: of the file.
        inputs: names, in order.
        outputs: names, in order.
        error: the largest difference from our outputs that onnxruntime gives, relative to their deviation; None if
            onnxruntime is not installed.
    """

    path: Path
    inputs: list[str]
    outputs: list[str]
    error: float | None


def export_onnx(model: PerceiverIO, directory: str | Path, *, overwrite: bool = False) -> OnnxExport:
    """Writes a task model as `model.onnx`, for batches of any size and text of any length up to the longest.

    The file holds the model's configuration as metadata. Where onnxruntime is installed, its outputs are compared with
    ours before the directory gets its name, at sizes other than those that the file was made with.

    Args:
        directory: new or empty, or with `overwrite` one that holds such a file and nothing else.

    Raises:
        ValueError: for a model that is none of the tasks' or not in float32, or whose file computes something else.
        ImportError: onnxscript is missing; it comes with the `onnx` extra.
        FileExistsError: if the directory has files already.
    """
    with needs_extra("exporting to ONNX", "onnx"):
        import onnxscript  # noqa: F401  # torch's exporter needs it, and says so less clearly
    directory, names = Path(directory), input_names(model)
    dtype = next(model.parameters()).dtype
    if dtype != torch.float32:
        raise ValueError(f"a model in {dtype} has no file that is checked here; make it model.float() first")
    with new_directory(directory, replaceable=ONNX_FILES if overwrite else ()) as temporary:
        with torch.no_grad():
            outputs = output_names(model(*sample_inputs(model, batch=1)))
        description = describe_model(model)
        with _silence():
            exported = torch.onnx.export(
                export_program(model), dynamo=True, input_names=names, output_names=outputs, verbose=False
            )
        assert exported is not None
        exported.model.metadata_props.update(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in description.items()}
        )
        exported.save(temporary / ONNX_FILE)
        (temporary / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        error = _check(model, temporary / ONNX_FILE)
    return OnnxExport(directory / ONNX_FILE, names, outputs, error)


@contextmanager
def _silence() -> Iterator[None]:
    """Keeps back what the exporter has to say about itself."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check(model: PerceiverIO, path: Path) -> float | None:
    """Compares a file's outputs in onnxruntime with ours; None where that is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    worst = 0.0
    for inputs in _inputs_to_check(model):
        given = session.run(
            None,
            {entry.name: tensor.numpy(force=True) for entry, tensor in zip(session.get_inputs(), inputs, strict=True)},
        )
        with torch.no_grad():
            expected: list[Any] = tree_leaves(model(*inputs))
        for theirs, ours in zip(given, expected, strict=True):
            if theirs.shape != tuple(ours.shape):
                raise ValueError(f"the file gives outputs {theirs.shape} where the model gives {tuple(ours.shape)}")
            difference = (torch.from_numpy(theirs) - ours.cpu()).abs().max() / ours.std().clamp_min(1e-12).cpu()
            worst = max(worst, difference.item())
    if not worst <= TOLERANCE:
        raise ValueError(
            f"the file's outputs in onnxruntime differ by {worst:.1e} of their deviation from the model's, more than "
            f"{TOLERANCE:.0e}; it was not kept"
        )
    return worst


def _inputs_to_check(model: PerceiverIO) -> list[tuple[Tensor, ...]]:
    torch_state = torch.get_rng_state()
    torch.manual_seed(0)
    try:
        checked = [sample_inputs(model, batch=2)]
        if isinstance(model, LanguagePerceiver | TextClassificationPerceiver):
            tokens, mask = sample_inputs(model, batch=1, length=max(model.config.max_seq_len // 3, 1))
            mask[:, tokens.shape[1] // 2 + 1 :] = False
            checked.append((tokens, mask))
        return checked
    finally:
        torch.set_rng_state(torch_state)
