"""A task model as a program of `torch.export`: a graph of operators that needs none of this library's code to run.

A program is made for one task's inputs, with a batch of any size, and for text of any length up to the model's longest.
Sizes of images, clips and sounds are those of the configuration.
"""

import importlib
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram

from perceiver_io.atomic import new_directory
from perceiver_io.inspection import example_inputs
from perceiver_io.models import LanguagePerceiver, OpticalFlowPerceiver, TextClassificationPerceiver
from perceiver_io.models.config import ModelConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.version import __version__
from perceiver_io.weights.saving import CONFIG_FILE

PROGRAM_FILE = "model.pt2"
# A batch that no program is meant to exceed; a bound is asked for.
MAX_BATCH = 65536
PROGRAM_FILES = {CONFIG_FILE, PROGRAM_FILE}


def input_names(model: PerceiverIO) -> list[str]:
    """The names of a task model's inputs, in order.

    Raises:
        ValueError: for another model.
    """
    match model:
        case LanguagePerceiver() | TextClassificationPerceiver():
            return ["tokens", "mask"]
        case OpticalFlowPerceiver():
            return ["frame1", "frame2"]
    return ["video", "audio"] if len(example_inputs(model)) == 2 else ["images"]


def sample_inputs(model: PerceiverIO, batch: int = 2, length: int | None = None) -> tuple[Tensor, ...]:
    """Random inputs of the size that a task model is made for, on the device and in the precision of its parameters.

    Args:
        length: of text, in tokens; by default the longest.
    """
    parameter = next(model.parameters())
    if isinstance(model, LanguagePerceiver | TextClassificationPerceiver):
        shape = (batch, length or model.config.max_seq_len)
        tokens = torch.randint(model.config.vocab_size, shape, device=parameter.device)
        return tokens, torch.ones(shape, dtype=torch.bool, device=parameter.device)
    return tuple(
        torch.rand(batch, *like.shape[1:], dtype=like.dtype, device=parameter.device) for like in example_inputs(model)
    )


def dynamic_shapes(model: PerceiverIO) -> tuple[dict[int, Any], ...]:
    """Axes of each input that may vary: the batch, and the length of text."""
    axes: dict[int, Any] = {0: Dim("batch", min=1, max=MAX_BATCH)}
    if isinstance(model, LanguagePerceiver | TextClassificationPerceiver):
        axes[1] = Dim("length", min=1, max=model.config.max_seq_len)
    return tuple(dict(axes) for _ in input_names(model))


def output_names(outputs: Any) -> list[str]:
    """The names of a model's outputs, in the order in which a program returns them; none is an input's too."""
    return [f"output_{name}" for name in outputs] if isinstance(outputs, dict) else ["output"]


def export_program(model: PerceiverIO) -> ExportedProgram:
    """Maps a task model to a program, in evaluation mode.

    Raises:
        ValueError: for a model that is none of the tasks'.
    """
    was_training = model.training
    model.eval()
    try:
        # Shapes that are 1, or the longest, would be taken for constants.
        length = max(getattr(model.config, "max_seq_len", 4) - 1, 2)
        with torch.no_grad():
            return torch.export.export(
                model, sample_inputs(model, batch=3, length=length), dynamic_shapes=dynamic_shapes(model)
            )
    finally:
        model.train(was_training)


def save_program(model: PerceiverIO, directory: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a task model as `model.pt2`, with its `config.json` beside it, and returns the path of the program.

    Args:
        directory: new or empty, or with `overwrite` one that holds a program and nothing else.

    Raises:
        ValueError: for a model that is none of the tasks'.
        FileExistsError: if the directory has files already.
    """
    directory = Path(directory)
    with new_directory(directory, replaceable=PROGRAM_FILES if overwrite else ()) as temporary:
        program = export_program(model)
        description = describe_model(model)
        (temporary / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        extra = {CONFIG_FILE: json.dumps(description)}
        torch.export.save(program, temporary / PROGRAM_FILE, extra_files=extra)
    return directory / PROGRAM_FILE


def load_program(directory: str | Path) -> torch.nn.Module:
    """Reads a program that `save_program` wrote; what it returns is called as the model was.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is damaged.
    """
    path = Path(directory)
    path = path / PROGRAM_FILE if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; `perceiver-io export MODEL {directory} --to torch-export`")
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is damaged (it is no zip archive); export the model again")
    try:
        return torch.export.load(path).module()
    except (RuntimeError, ValueError, KeyError, EOFError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({str(error).partition(chr(10))[0]}); export the model again") from error


def compile_program(model: PerceiverIO, directory: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a task model as `model.pt2` of machine code, by AOTInductor, and returns the path.

    It runs on the kind of device that the model is on, with torch but without Python; its C++ library reads it, and
    `torch._inductor.aoti_load_package`. Takes a minute or more, and a C++ compiler.

    Args:
        directory: as in `save_program`.

    Raises:
        ImportError: if there is no compiler, or no AOTInductor in this version of torch.
        ValueError: for a model that is none of the tasks'.
        FileExistsError: if the directory has files already.
    """
    inductor = _inductor()
    directory = Path(directory)
    with new_directory(directory, replaceable=PROGRAM_FILES if overwrite else ()) as temporary:
        program = export_program(model)
        (temporary / CONFIG_FILE).write_text(json.dumps(describe_model(model), indent=2) + "\n", encoding="utf-8")
        inductor.aoti_compile_and_package(program, package_path=str(temporary / PROGRAM_FILE))
    return directory / PROGRAM_FILE


def _inductor() -> Any:
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None and shutil.which("clang++") is None:
        raise ImportError(
            f"AOTInductor needs a C++ compiler, and there is no {compiler}; install one, or export to torch-export"
        )
    inductor = importlib.import_module("torch._inductor")
    if not hasattr(inductor, "aoti_compile_and_package"):
        raise ImportError(f"torch {torch.__version__} cannot write machine code; install torch 2.6 or newer")
    return inductor


def describe_model(model: PerceiverIO) -> dict[str, Any]:
    """Notes that are kept with an exported model."""
    config = model.config
    assert isinstance(config, ModelConfig)
    return {
        "config_class": type(config).__name__,
        "config": config.to_dict(),
        "metadata": {"library_version": __version__, "inputs": input_names(model)},
    }
