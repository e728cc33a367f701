"""Haiku parameters to a state dict, completely or not at all."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from perceiver_io.atomic import check_replaceable
from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.models.config import ModelConfig
from perceiver_io.presets import AUTOREGRESSIVE_PRESETS, PRESETS, create_config, model_from_config
from perceiver_io.weights import perceiver_ar
from perceiver_io.weights.haiku import Array, Row, Table, Transform, name_table
from perceiver_io.weights.pystate import HaikuCheckpoint, read_pystate
from perceiver_io.weights.saving import MODEL_FILES, WeightFormat, save_checkpoint


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Result of a conversion."""

    source: Path
    sha256: str
    destination: Path
    num_tensors: int
    num_parameters: int


def convert_file(
    source: Path,
    destination: Path,
    preset: str,
    *,
    config_overrides: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    weight_format: WeightFormat = "safetensors",
    overwrite: bool = False,
) -> Conversion:
    """Maps a `.pystate` file to a directory that `load_model` reads, which appears only once it is complete.

    Args:
        config_overrides: fields that differ from the preset's.
        metadata: notes to keep beside the source's name and hash.
        overwrite: replace a model, and nothing else, that is at the destination.

    Raises:
        ValueError: if the source cannot be read, or it or the overrides do not fit the preset.
        OSError: if the destination exists or cannot be written.
    """
    check_replaceable(destination, MODEL_FILES if overwrite else ())
    config = create_config(preset, **(config_overrides or {}))
    checkpoint = read_pystate(source)
    state_dict = convert_parameters(checkpoint, preset, config)
    sha256, num_tensors = checkpoint.sha256, len(checkpoint.params) + len(checkpoint.state)
    num_parameters = sum(array.size for array in checkpoint.params.values())
    del checkpoint  # its arrays have been copied, and memory is short with large models
    notes = {"source": source.name, "source_sha256": sha256, "preset": preset, **(metadata or {})}
    save_checkpoint(config, state_dict, destination, metadata=notes, weight_format=weight_format, overwrite=overwrite)
    return Conversion(
        source=source,
        sha256=sha256,
        destination=destination,
        num_tensors=num_tensors,
        num_parameters=num_parameters,
    )


def convert_parameters(checkpoint: HaikuCheckpoint, preset: str, config: ModelConfig) -> dict[str, Tensor]:
    """Maps a Haiku checkpoint to the state dict of the preset's model with this configuration.

    Raises:
        ValueError: unless every source tensor is used and every tensor of the model filled, with the right shape; the
            message names what is left on both sides, or the tensor with both shapes, and the preset that would fit.
    """
    twice = sorted(checkpoint.params.keys() & checkpoint.state.keys())
    if twice:
        raise ValueError(f"the checkpoint has both parameters and state of the names {_listed(twice)}")
    sources: dict[str, Array] = {**checkpoint.params, **checkpoint.state}
    with torch.device("meta"):
        expected = model_from_config(config).state_dict()
    if isinstance(config, PerceiverARConfig):
        sources = perceiver_ar.without_formulas(sources, config)
    return apply_table(_name_table(config), sources, expected, f"preset {preset!r}")


def apply_table(
    table: Table, sources: Mapping[str, Array], expected: Mapping[str, Tensor], wanted: str
) -> dict[str, Tensor]:
    """Maps Haiku arrays to a state dict with the names and shapes of `expected`.

    Raises:
        ValueError: as `convert_parameters`; `wanted` names what was to be filled.
    """
    without_source = sorted(row.source for row in table if row.source not in sources)
    not_used = sorted(sources.keys() - {row.source for row in table})
    if without_source or not_used:
        raise ValueError(
            f"the checkpoint does not fit {wanted}{_fitting_preset(sources)}\n"
            f"  missing in the checkpoint ({len(without_source)}): {_listed(without_source)}\n"
            f"  left over in the checkpoint ({len(not_used)}): {_listed(not_used)}"
        )
    not_filled = sorted(expected.keys() - {row.target for row in table})
    assert not not_filled, f"the table has no row for {not_filled}"
    state_dict = {}
    for target, source, transform in table:
        array = transform(sources[source]) if _has_rank(sources[source], transform) else sources[source]
        if array.shape != expected[target].shape:
            raise ValueError(
                f"{source} has shape {sources[source].shape}, which does not fit {wanted}: {target} must be "
                f"{tuple(expected[target].shape)} ({transform.value}){_fitting_preset(sources)}"
            )
        if (array.dtype.kind == "f") != expected[target].is_floating_point() or array.dtype.kind not in "fiu":
            raise ValueError(
                f"{source} has dtype {array.dtype}, which does not fit {target} ({expected[target].dtype})"
            )
        state_dict[target] = torch.from_numpy(np.array(array, order="C")).to(expected[target].dtype)
    return state_dict


def fitting_presets(shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Maps the names and shapes of a checkpoint to the presets that it fits."""
    released = PRESETS | AUTOREGRESSIVE_PRESETS
    return [preset for preset, config in released.items() if haiku_shapes(config) == dict(shapes)]


def haiku_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Maps a configuration to the names and shapes that its Haiku checkpoint has."""
    with torch.device("meta"):
        state = model_from_config(config).state_dict()
    shapes = {row.source: _untransformed(tuple(state[row.target].shape), row) for row in _name_table(config)}
    return shapes | (perceiver_ar.formula_shapes(config) if isinstance(config, PerceiverARConfig) else {})


def _name_table(config: ModelConfig) -> Table:
    return perceiver_ar.name_table(config) if isinstance(config, PerceiverARConfig) else name_table(config)


def _untransformed(shape: tuple[int, ...], row: Row) -> tuple[int, ...]:
    match row.transform:
        case Transform.NONE:
            return shape
        case Transform.TRANSPOSE:
            return shape[::-1]
        case Transform.FLATTEN:
            return (1, *shape) if row.source.endswith("/pos_embs") else (1, 1, 1, *shape)
        case Transform.CONVOLUTION | Transform.TRANSPOSED_CONVOLUTION:
            return (*shape[2:], shape[1], shape[0])
        case Transform.POINTWISE:
            return (1, 1, *shape[::-1])


def _fitting_preset(sources: Mapping[str, Array]) -> str:
    fitting = fitting_presets({name: array.shape for name, array in sources.items()})
    return (
        f"; it fits --model {fitting[0]}"
        if fitting
        else "; a model of other sizes than the released one needs --config"
    )


def _has_rank(array: Array, transform: Transform) -> bool:
    least = {Transform.TRANSPOSE: 2, Transform.CONVOLUTION: 3, Transform.POINTWISE: 4}
    return array.ndim >= least.get(transform, 0)


def _listed(names: list[str], most: int = 20) -> str:
    more = f", … and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
