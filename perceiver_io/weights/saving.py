"""Saved models: a directory with a configuration and its weights, written and read."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from perceiver_io.atomic import new_directory
from perceiver_io.models.config import ModelConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.presets import CONFIG_CLASSES, model_from_config
from perceiver_io.version import __version__
from perceiver_io.weights.locations import find_model

# What torch raises for files that are truncated or something else.
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError)

CONFIG_FILE = "config.json"
WEIGHT_FILES = {"safetensors": "model.safetensors", "pth": "model.pth"}
MODEL_FILES = {CONFIG_FILE, *WEIGHT_FILES.values()}
WeightFormat = Literal["safetensors", "pth"]


def save_model(
    model: PerceiverIO, directory: str | Path, *, metadata: Mapping[str, Any] | None = None, overwrite: bool = False
) -> None:
    """Writes a task model as `config.json` and `model.safetensors`; nothing appears under the name before all is there.

    Args:
        directory: new or empty, or with `overwrite` one that holds a model and nothing else.
        metadata: notes to keep with the model, anything that JSON can hold, e.g. where it comes from, or "class_names".

    Raises:
        ValueError: for a model that has no configuration.
        FileExistsError: if the directory has files already.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        raise ValueError(
            f"save_model needs a model with a config, one of {', '.join(sorted(CONFIG_CLASSES))}; "
            f"save the state_dict() of a {type(model).__name__} of your own instead"
        )
    save_checkpoint(config, model.state_dict(), directory, metadata=metadata, overwrite=overwrite)


def save_checkpoint(
    config: ModelConfig,
    state_dict: Mapping[str, Tensor],
    directory: str | Path,
    *,
    metadata: Mapping[str, Any] | None = None,
    weight_format: WeightFormat = "safetensors",
    overwrite: bool = False,
) -> None:
    """Writes a configuration and a state dict as `save_model` does, in either of two formats for the weights."""
    notes = {"library_version": __version__, **(metadata or {})}
    description = {"config_class": type(config).__name__, "config": config.to_dict(), "metadata": notes}
    with new_directory(Path(directory), replaceable=MODEL_FILES if overwrite else ()) as temporary:
        (temporary / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        weights = temporary / WEIGHT_FILES[weight_format]
        if weight_format == "safetensors":
            tensors = {name: tensor.contiguous() for name, tensor in state_dict.items()}
            texts = {name: value for name, value in notes.items() if isinstance(value, str)}
            safetensors.torch.save_file(tensors, weights, metadata={"format": "pt", **texts})
        else:
            torch.save(dict(state_dict), weights)


def load_model(directory: str | Path) -> PerceiverIO:
    """Reads a model that `save_model` or the converter wrote, in evaluation mode, on the CPU.

    Args:
        directory: of the model; or, where there is no directory of that name, the name of a bundled model such as
            "tiny-language", or of a downloaded one such as "imagenet-conv".

    Raises:
        FileNotFoundError: if a file is missing, or the model of a name; says which command fetches it.
        ValueError: if a file is damaged, or if weights are missing, left over or of another shape.
    """
    directory = find_model(directory)
    config = _read_config(directory)
    with torch.device("meta"):  # no time spent on initial values
        model = model_from_config(config)
    path = _find_weights(directory)
    check_state_dict(model.state_dict(), state := read_weights(path), path)
    model.load_state_dict(state, strict=True, assign=True)
    # Cached features are not saved; they take the weights' precision.
    return model.to(next(model.parameters()).dtype).eval()


def _read_config(directory: Path) -> ModelConfig:
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; a model's directory is written by perceiver_io.save_model or by "
            "`python conversion/convert_haiku_checkpoint.py SOURCE DESTINATION --model PRESET`"
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        config_class, values = CONFIG_CLASSES[description["config_class"]], dict(description["config"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not the configuration of a model of this library ({error!r})") from error
    return config_class.from_dict(values)


def _find_weights(directory: Path) -> Path:
    for name in WEIGHT_FILES.values():
        if (directory / name).is_file():
            return directory / name
    raise FileNotFoundError(f"{directory} has none of the files {', '.join(WEIGHT_FILES.values())}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Maps a file of weights, `.safetensors` or `.pth`, to the state dict in it, without running anything in it.

    Raises:
        ValueError: if it is damaged.
    """
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = dict(torch.load(path, map_location="cpu", weights_only=True))
        if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()):
            raise ValueError("it holds something other than named tensors")
        return state
    except (safetensors.SafetensorError, pickle.UnpicklingError, *_DAMAGE) as error:
        raise ValueError(f"{path} is damaged ({error}); convert or copy it again") from error


def check_state_dict(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str | Path) -> None:
    """Checks that two state dicts have the same names and shapes.

    Raises:
        ValueError: if they have not; says what is missing, left over or of another shape in `source`.
    """
    missing, left_over = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if missing or left_over:
        raise ValueError(f"{source} does not fit its config: missing {_some(missing)}, left over {_some(left_over)}")
    for name, tensor in expected.items():
        if tensor.shape != given[name].shape:
            raise ValueError(
                f"{source} does not fit its config: {name} has shape {tuple(given[name].shape)}, "
                f"not {tuple(tensor.shape)}"
            )


def _some(names: list[str], most: int = 10) -> str:
    return f"{names[:most]}" + (f" and {len(names) - most} more" if len(names) > most else "")
