"""Rewrites a model of DeepMind, transformers, JOBR0 or krasserm as one that `perceiver_io.load_model` reads."""

import argparse
import json
from pathlib import Path
from typing import Any

from perceiver_io.presets import AUTOREGRESSIVE_PRESETS, PRESETS
from perceiver_io.weights.importing import KINDS, convert_source
from perceiver_io.weights.saving import WEIGHT_FILES

EXAMPLE = "perceiver-io convert optical_flow_checkpoint.pystate pytorch_checkpoints/optical-flow"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    parser.add_argument(
        "source",
        type=Path,
        help="a released .pystate or .pickle, a directory with config.json and weights, or a file of weights",
    )
    parser.add_argument("destination", type=Path, help="directory to write; must not exist or be empty")
    parser.add_argument(
        "--from",
        dest="kind",
        choices=KINDS,
        metavar="KIND",
        help=f"what the source is, if it cannot tell: {', '.join(KINDS)}",
    )
    parser.add_argument(
        "--model",
        choices=[*PRESETS, *AUTOREGRESSIVE_PRESETS],
        help="which of the presets a .pystate or .dill is like (default: the one of its names and shapes)",
    )
    parser.add_argument(
        "--config", type=Path, help="JSON file with config fields that the source does not tell, or that differ"
    )
    parser.add_argument("--format", choices=list(WEIGHT_FILES), default="safetensors", help="format of the weights")
    parser.add_argument("--force", action="store_true", help="replace a model that is already there (and nothing else)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Maps parsed arguments to what was converted.

    Raises:
        ValueError: if the source or the overrides cannot be read, or do not fit.
        OSError: if the destination exists or cannot be written.
    """
    imported = convert_source(
        arguments.source,
        arguments.destination,
        kind=arguments.kind,
        preset=arguments.model,
        config_overrides=_read_overrides(arguments.config) if arguments.config else {},
        weight_format=arguments.format,
        overwrite=arguments.force,
    )
    return {
        "source": str(arguments.source),
        "from": imported.kind,
        "sha256": imported.sha256,
        "directory": str(arguments.destination),
        "files": ["config.json", WEIGHT_FILES[arguments.format]],
        "tensors": len(imported.state_dict),
        "parameters": imported.num_parameters,
        "preset": imported.preset,
        "config": type(imported.config).__name__,
    }


def describe(result: dict[str, Any]) -> str:
    """Maps what was converted to what a person reads of it."""
    model = f"preset {result['preset']}" if result["preset"] else f"{result['from']} → {result['config']}"
    return (
        f"converted {Path(result['source']).name} (sha256 {result['sha256']})\n"
        f"  to {result['directory']}: {' and '.join(result['files'])}\n"
        f"  {result['tensors']} tensors, {result['parameters']:,} parameters, {model}"
    )


def _read_overrides(path: Path) -> dict[str, Any]:
    try:
        overrides = json.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows begin with a mark
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'{path} is not JSON ({error}); it must hold config fields, e.g. {{"num_latents": 64}}'
        ) from error
    if not isinstance(overrides, dict):
        raise ValueError(f"{path} must hold a JSON object of config fields, not {type(overrides).__name__}")
    return overrides
