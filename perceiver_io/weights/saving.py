"""Saved models: a directory with a configuration and its weights, written and read."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from perceiver_io.atomic import new_directory
from perceiver_io.models.config import ModelConfig
from perceiver_io.presets import CONFIG_CLASSES
from perceiver_io.version import __version__
from perceiver_io.weights.locations import find_model
from perceiver_io.weights.rebuilding import check_rebuilds, twin, uncompiled

CONFIG_FILE = "config.json"
WEIGHT_FILES = {"safetensors": "model.safetensors", "pth": "model.pth"}
MODEL_FILES = {CONFIG_FILE, *WEIGHT_FILES.values()}
WeightFormat = Literal["safetensors", "pth"]


def save_model(
    model: nn.Module, directory: str | Path, *, metadata: Mapping[str, Any] | None = None, overwrite: bool = False
) -> None:
    """Writes a task model as `config.json` and `model.safetensors`; nothing appears under the name before all is there.

    A model that `torch.compile` made, or with compiled parts, is saved as the one that it was made of. Tied weights are
    saved once for each name.

    Args:
        directory: new or empty, or with `overwrite` one that holds a model and nothing else.
        metadata: notes to keep with the model, anything that JSON can hold, e.g. where it comes from, or "class_names".

    Raises:
        ValueError: for a model that has no configuration, or that is another one than its configuration says: pruned,
            parametrised, with other layers or settings, with hooks, or in several precisions. Nothing is written then.
        FileExistsError: if the directory has files already.
        OSError: if there is no room, with the file's name.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, ModelConfig):
        raise ValueError(
            f"save_model needs a model with a config, one of {', '.join(sorted(CONFIG_CLASSES))}; "
            f"save the state_dict() of a {type(model).__name__} of your own instead"
        )
    check_rebuilds(model, config)
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
    """Writes a configuration and a state dict as `save_model` does, in either of two formats for the weights.

    `config.json` holds the SHA-256 of the file of weights, which `load_model` checks.
    """
    state = {uncompiled(name): tensor.detach() for name, tensor in state_dict.items()}
    check_state_dict(twin(config, "the config").state_dict(), state, "the state dict")
    # Copies: tensors that share memory cannot be told apart in a file.
    state = {name: tensor.cpu().contiguous().clone() for name, tensor in state.items()}
    notes = {"library_version": __version__, **(metadata or {})}
    with new_directory(Path(directory), replaceable=MODEL_FILES if overwrite else ()) as temporary:
        weights = temporary / WEIGHT_FILES[weight_format]
        try:
            if weight_format == "safetensors":
                texts = {name: value for name, value in notes.items() if isinstance(value, str)}
                safetensors.torch.save_file(state, weights, metadata={**texts, "format": "pt"})
            else:
                torch.save(state, weights)
        except Exception as error:  # of libraries that have their own for a full disk
            raise OSError(f"{Path(directory) / weights.name} cannot be written: {error}") from error
        description = {
            "config_class": type(config).__name__,
            "config": config.to_dict(),
            "sha256": _sha256(weights),
            "metadata": notes,
        }
        (temporary / CONFIG_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def load_model(directory: str | Path, *, dtype: torch.dtype | None = None, verify: bool = True) -> Any:
    """Reads a model that `save_model` or the converter wrote, in evaluation mode, on the CPU, accelerated.

    Args:
        directory: of the model; or, where there is no directory of that name, the name of a bundled model such as
            "tiny-language", or of a downloaded one such as "imagenet-conv".
        dtype: precision of the model, e.g. torch.bfloat16; None for that of the file.
        verify: whether the weights are compared with the SHA-256 that was written with them (0.7 s for 800 MB).

    Raises:
        FileNotFoundError: if a file is missing, or the model of a name; says which command fetches it.
        ValueError: if a file is damaged, or if weights are missing, left over or of another shape or kind.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ValueError(f"dtype ({dtype}) must be a floating one, such as torch.bfloat16")
    directory = find_model(directory)
    config = read_config(directory)
    path = _find_weights(directory)
    model = twin(config, directory / CONFIG_FILE)
    check_state_dict(model.state_dict(), state := read_weights(path, verify=verify), path)
    model.load_state_dict(state, strict=True, assign=True)
    # Cached features are not saved; they take the weights' precision.
    return model.to(dtype or model.dtype).eval()


def read_description(directory: Path) -> dict[str, Any]:
    """Reads a directory's `config.json`: "config_class", "config", and, since 0.2, "sha256" and "metadata".

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is something else.
    """
    path = directory / CONFIG_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; a model's directory is written by perceiver_io.save_model or by "
            "`python conversion/convert_haiku_checkpoint.py SOURCE DESTINATION --model PRESET`"
        )
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        is_ours = description["config_class"] in CONFIG_CLASSES and isinstance(description["config"], dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} is not the configuration of a model of this library ({error!r})") from error
    if not is_ours:
        raise ValueError(
            f"{path} is not the configuration of a model of this library: config_class must be one of "
            f"{', '.join(sorted(CONFIG_CLASSES))}, and config a mapping"
        )
    return description


def read_config(directory: Path) -> ModelConfig:
    """Reads the configuration of a directory's model; raises as `read_description`."""
    description = read_description(directory)
    return CONFIG_CLASSES[description["config_class"]].from_dict(description["config"])


def _find_weights(directory: Path) -> Path:
    for name in WEIGHT_FILES.values():
        if (directory / name).is_file():
            return directory / name
    raise FileNotFoundError(f"{directory} has none of the files {', '.join(WEIGHT_FILES.values())}")


def read_weights(path: Path, *, verify: bool = True) -> dict[str, Tensor]:
    """Maps a file of weights, `.safetensors` or `.pth`, to the state dict in it, without running anything in it.

    Args:
        verify: whether it is compared with the SHA-256 in the `config.json` beside it, if there is one.

    Raises:
        ValueError: if it is damaged.
    """
    if verify:
        _check_hash(path)
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:  # torch stores what it writes; what inflates was made to
                if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                    raise ValueError("it is compressed, which torch.save never does")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of its own old kinds of tensors
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
        if not all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()):
            raise ValueError("it holds something other than named tensors")
        return state
    except Exception as error:  # whatever a reader of files makes of damaged ones
        raise ValueError(f"{path} is damaged ({_cut(str(error))}); convert or copy it again") from error


def _check_hash(path: Path) -> None:
    try:
        recorded = read_description(path.parent).get("sha256")
    except (FileNotFoundError, ValueError):  # weights alone, or another library's
        return
    if recorded is not None and path.is_file() and _sha256(path) != recorded:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is not the one in {CONFIG_FILE}; convert or copy it again, or, if you "
            "changed it on purpose, load it with verify=False and save it anew"
        )


def weights_sha256(directory: Path) -> str:
    """Maps a model's directory to the SHA-256 of its file of weights.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    return _sha256(_find_weights(directory))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def check_state_dict(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str | Path) -> None:
    """Checks that two state dicts have the same names, shapes and kinds of tensors, and one precision.

    Raises:
        ValueError: if they have not; says what is missing, left over or of another shape or kind in `source`.
    """
    missing, left_over = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if missing or left_over:
        raise ValueError(f"{source} does not fit its config: missing {_some(missing)}, left over {_some(left_over)}")
    precisions: dict[torch.dtype, str] = {}
    for name, tensor in expected.items():
        found = given[name]
        if tensor.shape != found.shape:
            raise ValueError(
                f"{source} does not fit its config: {name} has shape {tuple(found.shape)}, not {tuple(tensor.shape)}"
            )
        if found.layout != torch.strided or found.is_meta or found.is_quantized:
            raise ValueError(f"{source} does not fit its config: {name} must be a dense tensor with values")
        if tensor.is_floating_point():
            precisions.setdefault(found.dtype, name)
        elif found.dtype != tensor.dtype:
            raise ValueError(f"{source} does not fit its config: {name} is of {found.dtype}, not {tensor.dtype}")
    odd = [dtype for dtype in precisions if dtype not in _PRECISIONS]
    if odd or len(precisions) > 1:
        raise ValueError(
            f"{source} does not fit its config: weights must all be of one kind (float32, bfloat16, float16, float64); "
            "found "
            f"{', '.join(f'{dtype} ({name})' for dtype, name in precisions.items())}"
        )


_PRECISIONS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def _some(names: list[str], most: int = 10) -> str:
    return _cut(f"{names[:most]}") + (f" and {len(names) - most} more" if len(names) > most else "")


def _cut(text: str, most: int = 1000) -> str:
    return text if len(text) <= most else f"{text[:most]}…"
