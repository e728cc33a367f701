"""Shows what a model is made of: its configuration, and each stage's shapes, parameters, work and memory."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from perceiver_io.inspection import example_inputs, inspect_stages, total_work
from perceiver_io.models.config import ModelConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.presets import PRESETS, UNRELEASED_PRESETS, create_model
from perceiver_io.weights.saving import load_model

EXAMPLE = "perceiver-io info imagenet-fourier"

_PRESETS = PRESETS | UNRELEASED_PRESETS
_COLUMNS = ("stage", "module", "output", "parameters", "work", "weights", "activation")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "model",
        metavar="DIRECTORY_OR_PRESET",
        help=f"a model's directory, a bundled model's name, or a preset, which needs no weights: {', '.join(_PRESETS)}",
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Maps parsed arguments to the model's configuration and its stages.

    Raises:
        ValueError, OSError: there is no such model, or it is damaged.
    """
    model = _find(arguments.model)
    stages = [report._asdict() for report in inspect_stages(model)]
    assert isinstance(model.config, ModelConfig)
    return {
        "name": arguments.model,
        "model": type(model).__name__,
        "config": model.config.to_dict(),
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "input_shapes": [list(tensor.shape) for tensor in example_inputs(model)],
        "parameters": sum(stage["parameters"] for stage in stages),
        "flops": sum(stage["flops"] for stage in stages),
        "accelerated_flops": total_work(model),
        "weight_bytes": sum(stage["weight_bytes"] for stage in stages),
        "largest_activation_bytes": max(stage["largest_activation_bytes"] for stage in stages),
        "stages": stages,
    }


def describe(result: dict[str, Any]) -> str:
    """Maps the configuration and the stages to two tables."""
    config = [(name, _value(value)) for name, value in result["config"].items()]
    total = {"stage": "in all", "module": "", "output_shapes": [], **result}
    stages = [row for stage in (*result["stages"], total) for row in _rows(stage)]
    inputs = " and ".join(map(_shape, result["input_shapes"]))
    return "\n".join(
        [
            f"{result['name']}: {result['model']}, {result['dtype']}",
            "",
            *_table(config, num_text_columns=2),
            "",
            *_table([_COLUMNS, *stages], num_text_columns=3),
            "",
            f"Accelerated, as models by name are, it takes {_quantity(result['accelerated_flops'], 'FLOP')} in all.",
            f"Input: {inputs}. Work: multiplications and additions, each counted, in the plain formulation.",
            "Activation: the largest tensor that is computed.",
        ]
    )


def _find(name: str) -> PerceiverIO:
    """The model of a directory or a bundled one, or a preset's without values.

    Raises:
        ValueError, OSError: there is no such model, or it is damaged.
    """
    if name in _PRESETS and not Path(name).is_dir():
        with torch.device("meta"):
            return create_model(name)
    return load_model(name)


def _rows(stage: dict[str, Any]) -> list[Sequence[str]]:
    """Maps a stage to its line of the table, and one for each further shape of output."""
    first, *others = [*map(_shape, stage["output_shapes"])] or [""]
    figures = (
        f"{stage['parameters']:,}",
        _quantity(stage["flops"], "FLOP"),
        _quantity(stage["weight_bytes"], "B"),
        _quantity(stage["largest_activation_bytes"], "B"),
    )
    return [(stage["stage"], stage["module"], first, *figures), *(("", "", other, *[""] * 4) for other in others)]


def _table(rows: Sequence[Sequence[str]], num_text_columns: int) -> list[str]:
    """Maps rows of cells to lines with aligned columns: the first ones to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if column < num_text_columns else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _value(value: Any) -> str:
    return _shape(value) if isinstance(value, list) else str(value)


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _quantity(number: int, unit: str) -> str:
    """Maps a number to itself with its unit, in thousands, millions …"""
    for exponent, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 10**exponent:
            return f"{number / 10**exponent:,.1f} {prefix}{unit}"
    return f"{number} {unit}"
