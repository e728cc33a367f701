"""Rewrites a released Haiku checkpoint (`.pystate`) as a PyTorch model that `perceiver_io.load_model` reads."""

import argparse
import json
from pathlib import Path
from typing import Any

from perceiver_io.presets import PRESETS
from perceiver_io.weights.haiku_conversion import convert_file
from perceiver_io.weights.saving import WEIGHT_FILES

EXAMPLE = "perceiver-io convert optical_flow_checkpoint.pystate pytorch_checkpoints/optical-flow --model optical-flow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.add_argument("source", type=Path, help="the released file, or one of the same kind")
    parser.add_argument("destination", type=Path, help="directory to write; must not exist or be empty")
    parser.add_argument("--model", required=True, choices=list(PRESETS), help="which of the released models it is")
    parser.add_argument("--config", type=Path, help="JSON file with config fields that differ from the preset's")
    parser.add_argument("--format", choices=list(WEIGHT_FILES), default="safetensors", help="format of the weights")
    parser.add_argument("--force", action="store_true", help="replace a model that is already there (and nothing else)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Parsed arguments → what was converted.

    Raises:
        ValueError: if the source or the overrides cannot be read, or do not fit the preset.
        OSError: if the destination exists or cannot be written.
    """
    conversion = convert_file(
        arguments.source,
        arguments.destination,
        arguments.model,
        config_overrides=_read_overrides(arguments.config) if arguments.config else {},
        weight_format=arguments.format,
        overwrite=arguments.force,
    )
    return {
        "source": str(conversion.source),
        "sha256": conversion.sha256,
        "directory": str(conversion.destination),
        "files": ["config.json", WEIGHT_FILES[arguments.format]],
        "tensors": conversion.num_tensors,
        "parameters": conversion.num_parameters,
        "preset": arguments.model,
    }


def describe(result: dict[str, Any]) -> str:
    """What was converted → what a person reads of it."""
    return (
        f"converted {Path(result['source']).name} (sha256 {result['sha256']})\n"
        f"  to {result['directory']}: {' and '.join(result['files'])}\n"
        f"  {result['tensors']} tensors, {result['parameters']:,} parameters, preset {result['preset']}"
    )


def _read_overrides(path: Path) -> dict[str, Any]:
    try:
        overrides = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f'{path} is not JSON ({error}); it must hold config fields, e.g. {{"num_latents": 64}}'
        ) from error
    if not isinstance(overrides, dict):
        raise ValueError(f"{path} must hold a JSON object of config fields, not {type(overrides).__name__}")
    return overrides
