"""Other people's files of weights, read without running anything in them."""

import hashlib
import json
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

# What torch and safetensors raise for files that are truncated or something else.
_DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# The beginnings of torch's files: a zip archive, and the older format.
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
# Entries of a training script's file that hold the weights.
_NESTED = ("model_state_dict", "state_dict", "model", "module")


@dataclass(frozen=True, kw_only=True)
class StateDictSource:
    """Contents of a file, or of a directory with a `config.json`.

    Attributes:
        path: as it was given.
        sha256: of the file of weights; of all of them one after the other, in the order of their names.
        tensors: by their names, without the prefixes of wrappers.
        config: `config.json`, if there is one.
        extras: what the file holds beside the weights.
        nested_in: the entry that held the weights, if they did not lie bare.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    config: dict[str, Any] | None = None
    extras: Mapping[str, Any]
    nested_in: str | None = None


def is_state_dict_source(path: Path) -> bool:
    """Whether a path is something for `read_source`: a directory, a safetensors file or one of torch's."""
    if path.is_dir() or path.suffix == ".safetensors" or path.name.endswith(".index.json"):
        return True
    with path.open("rb") as file:
        head = file.read(32)
    return head.startswith(_TORCH_MAGIC) or path.suffix in (".bin", ".pth", ".pt", ".ckpt")


def read_source(path: Path, stand_ins: Sequence[tuple[type, str]] = ()) -> StateDictSource:
    """Reads a directory with `config.json` and weights (sharded ones too), or a file of weights.

    Args:
        stand_ins: classes that a pickle may ask for, with the names that it calls them by; they only hold what is
            written into them.

    Raises:
        FileNotFoundError: if a file is missing, a shard for instance.
        ValueError: if one is damaged, asks for more than data, or holds something other than named tensors.
    """
    config = None
    if path.is_dir():
        config = _read_json(path / "config.json", "a model's directory holds its sizes there; give a file of weights")
        files = weight_files(path)
    else:
        files = [path]
        beside = path.parent / "config.json"
        # Their own directories hold nothing else; any other file may lie beside something unrelated.
        if path.name in WEIGHTS and beside.is_file():
            config = _read_json(beside, "")
    parts = [_read_file(file, stand_ins) for file in files]
    tensors: dict[str, Tensor] = {}
    extras: dict[str, Any] = {}
    nested_in = None
    for file, part in zip(files, parts, strict=True):
        state, nested_in, others = _state_dict_of(file, part)
        extras |= others
        if twice := sorted(tensors.keys() & state.keys()):
            raise ValueError(f"{file} holds {twice[0]}, which another shard holds too; download the directory again")
        tensors |= state
    return StateDictSource(
        path=path,
        sha256=_sha256(files),
        tensors=without_wrappers(tensors, path),
        config=config,
        extras=extras,
        nested_in=nested_in,
    )


def without_wrappers(tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Removes what `DataParallel` and `torch.compile` put before names.

    Raises:
        ValueError: if two names become the same.
    """
    renamed: dict[str, Tensor] = {}
    whole = all(re.match(r"(_orig_mod\.)*module\.", name) for name in tensors)
    for name, tensor in tensors.items():
        plain = name.replace("_orig_mod.", "")
        plain = plain.removeprefix("module.") if whole else plain
        if plain in renamed:
            raise ValueError(f"{path} holds {plain} twice, with and without the prefix of a wrapper; keep one of them")
        renamed[plain] = tensor
    return renamed


def weight_files(directory: Path) -> list[Path]:
    """Maps a directory of transformers' to its files of weights, several if they are sharded.

    Raises:
        FileNotFoundError: if there are none, or a shard is missing.
        ValueError: if the index of shards is damaged.
    """
    for name in WEIGHTS:
        if (directory / name).is_file():
            return [directory / name]
        index = directory / f"{name}.index.json"
        if index.is_file():
            shards = _read_json(index, "").get("weight_map")
            if not isinstance(shards, dict) or not shards or not all(isinstance(x, str) for x in shards.values()):
                raise ValueError(f"{index} has no weight_map of names to files; download the directory again")
            files = [directory / file for file in sorted(set(shards.values()))]
            for file in files:
                if file.parent != directory or not file.is_file():
                    raise FileNotFoundError(
                        f"{file} does not exist, though {index.name} names it; download all shards of the model"
                    )
            return files
    raise FileNotFoundError(f"{directory} has neither {' nor '.join(WEIGHTS)} (nor an index of shards)")


def _read_json(path: Path, otherwise: str) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; {otherwise}")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}); download it again") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__}, not an object; download it again")
    return value


def _read_file(path: Path, stand_ins: Sequence[tuple[type, str]]) -> Any:
    if not path.stat().st_size:
        raise ValueError(f"{path} is empty; download it again")
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer; `git lfs pull` fetches the file that it stands for")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        with torch.serialization.safe_globals(list(stand_ins)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        if wanted:
            raise ValueError(
                f"{path} asks for {wanted[1]}; weights need tensors and plain data alone, so it is refused and nothing "
                "in it was run. If you trust its source, load it there and save the state dict alone"
            ) from error
        what = _first_line(error)
        raise ValueError(f"{path} is damaged, or no file of weights ({what}); download it again") from error
    except (safetensors.SafetensorError, *_DAMAGE) as error:
        raise ValueError(f"{path} is damaged or cut short ({_first_line(error)}); download it again") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:160] or type(error).__name__


def _state_dict_of(path: Path, content: Any) -> tuple[dict[str, Tensor], str | None, dict[str, Any]]:
    """Finds the named tensors in what a file holds."""
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, not named tensors; save a model's state dict")
    for entry in _NESTED:
        if isinstance(content.get(entry), Mapping):
            others = {key: value for key, value in content.items() if key != entry}
            return _tensors_of(path, content[entry]), entry, others
    return _tensors_of(path, content), None, {}


def _tensors_of(path: Path, state: Mapping[Any, Any]) -> dict[str, Tensor]:
    for name, tensor in state.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise ValueError(
                f"{path} holds a {type(tensor).__name__} at {name!r}, where a tensor belongs; save a model's state dict"
            )
    if not state:
        raise ValueError(f"{path} holds no tensors; save a model's state dict")
    return dict(state)


def _sha256(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
