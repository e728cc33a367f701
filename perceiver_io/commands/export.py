"""Writes a model for other programs: transformers' classes, ONNX, a program of `torch.export`, or machine code."""

import argparse
from pathlib import Path
from typing import Any

from perceiver_io.export import compile_program, export_onnx, export_transformers, save_program
from perceiver_io.export.program import PROGRAM_FILE
from perceiver_io.processors import read_class_names
from perceiver_io.weights.locations import find_model
from perceiver_io.weights.saving import load_model

EXAMPLE = "perceiver-io export tiny-image-classification outputs/onnx --to onnx"
_ULP_OFF = ("PerceiverForImageClassificationFourier", "PerceiverForOpticalFlow")
_TARGETS = ("transformers", "onnx", "torch-export", "aot-inductor")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("model", metavar="DIRECTORY", help="a model's directory, or the name of a model")
    parser.add_argument("destination", type=Path, help="directory to write; must not exist or be empty")
    parser.add_argument("--to", required=True, choices=_TARGETS, help="what to write")
    parser.add_argument("--force", action="store_true", help="replace what this command wrote there (nothing else)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Maps parsed arguments to what was written.

    Raises:
        ValueError: if the target cannot compute what the model does; says why.
        ImportError: if what writes it is missing: onnxscript, or a compiler.
        OSError: if there is no such model, or the destination exists or cannot be written.
    """
    model = load_model(arguments.model)
    result: dict[str, Any] = {"model": arguments.model, "to": arguments.to, "directory": str(arguments.destination)}
    match arguments.to:
        case "transformers":
            names = read_class_names(find_model(arguments.model))
            labels = None if names is None else list(names)
            result["class"] = export_transformers(
                model, arguments.destination, class_names=labels, overwrite=arguments.force
            )
        case "onnx":
            exported = export_onnx(model, arguments.destination, overwrite=arguments.force)
            result |= {"inputs": exported.inputs, "outputs": exported.outputs, "error": exported.error}
        case "torch-export":
            save_program(model, arguments.destination, overwrite=arguments.force)
        case "aot-inductor":
            compile_program(model, arguments.destination, overwrite=arguments.force)
    result["files"] = sorted(path.name for path in arguments.destination.iterdir())
    result["bytes"] = sum(path.stat().st_size for path in arguments.destination.iterdir())
    return result


def describe(result: dict[str, Any]) -> str:
    """Maps what was written to what a person reads of it."""
    lines = [
        f"wrote {result['model']} to {result['directory']}: {', '.join(result['files'])} "
        f"({result['bytes'] / 1e6:,.1f} MB)"
    ]
    match result["to"]:
        case "transformers":
            lines.append(f"transformers.{result['class']}.from_pretrained({result['directory']!r}) reads it")
            if result["class"] in _ULP_OFF:
                lines.append("its frequencies are an ulp off: outputs differ by up to 4e-5 of their deviation")
        case "onnx" if result["error"] is None:
            lines.append("it was not run: onnxruntime is not installed (pip install 'perceiver-io-torch[onnx]')")
        case "onnx":
            lines.append(f"onnxruntime's outputs differ by {result['error']:.0e} of their deviation from ours")
        case "torch-export":
            lines.append(f"perceiver_io.export.load_program({result['directory']!r}) reads it")
        case "aot-inductor":
            program = str(Path(result["directory"]) / PROGRAM_FILE)
            lines.append(f"torch._inductor.aoti_load_package({program!r}) reads it, on this kind of machine")
    return "\n".join(lines)
