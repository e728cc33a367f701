"""Rewrites a released Haiku checkpoint (`.pystate`) as a PyTorch model that `perceiver_io.load_model` reads.

    python conversion/convert_haiku_checkpoint.py language_perceiver_io_bytes.pickle pytorch_checkpoints/language \\
        --model language
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from perceiver_io.atomic import check_replaceable
from perceiver_io.checkpoints.convert import convert_parameters
from perceiver_io.checkpoints.pystate import read_pystate
from perceiver_io.registry import MODEL_FILES, PRESETS, WEIGHT_FILES, create_config, save_checkpoint


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns its exit code (2 for anything that the user can put right)."""
    args = _parse(argv)
    try:
        convert(args.source, args.destination, args.model, args.config, args.format, args.force)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def convert(
    source: Path, destination: Path, preset: str, config_file: Path | None, weight_format: Any, force: bool
) -> None:
    """Converts one file and prints what was converted.

    Raises:
        ValueError: if the source or the overrides cannot be read, or do not fit the preset.
        OSError: if the destination exists or cannot be written.
    """
    check_replaceable(destination, MODEL_FILES if force else ())
    config = create_config(preset, **(_read_overrides(config_file) if config_file else {}))
    checkpoint = read_pystate(source)
    state_dict = convert_parameters(checkpoint, preset, config)
    metadata = {"source": source.name, "source_sha256": checkpoint.sha256, "preset": preset}
    num_parameters = sum(array.size for array in checkpoint.params.values())
    num_tensors, sha256 = len(checkpoint.params) + len(checkpoint.state), checkpoint.sha256
    del checkpoint  # its arrays have been copied, and memory is short with large models
    save_checkpoint(config, state_dict, destination, metadata=metadata, weight_format=weight_format, overwrite=force)
    print(f"converted {source.name} (sha256 {sha256})")
    print(f"  to {destination}: config.json and {WEIGHT_FILES[weight_format]}")
    print(f"  {num_tensors} tensors, {num_parameters:,} parameters, preset {preset}")


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


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the released file, or one of the same kind")
    parser.add_argument("destination", type=Path, help="directory to write; must not exist or be empty")
    parser.add_argument("--model", required=True, choices=list(PRESETS), help="which of the released models it is")
    parser.add_argument("--config", type=Path, help="JSON file with config fields that differ from the preset's")
    parser.add_argument("--format", choices=list(WEIGHT_FILES), default="safetensors", help="format of the weights")
    parser.add_argument("--force", action="store_true", help="replace a model that is already there (and nothing else)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
