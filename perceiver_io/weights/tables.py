"""State dicts of other libraries to ours: tables of names, applied completely or not at all.

A table is a list of rows (our name, theirs, transform), composed module by module; `haiku` has its own, since Haiku's
arrays are laid out differently. Each library that people come from is a module beside this one.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor

from perceiver_io.models.config import EncoderConfig, ModelConfig
from perceiver_io.presets import model_from_config


class Transform(Enum):
    """Change of a tensor of theirs on its way; `inverse` takes ours back."""

    NONE = "as it is"
    ROW = "[1, channels] to [channels]"
    FIRST_ROW = "the first of its rows, which alone counts"
    POINTWISE = "1×1 convolution: [out, in, 1, 1] to [out, in]"

    def __call__(self, tensor: Tensor) -> Tensor:
        """Applies the transform, as a view; a tensor that it does not fit is returned as it is."""
        match self:
            case Transform.ROW if tensor.ndim == 2 and tensor.shape[0] == 1:
                return tensor[0]
            case Transform.FIRST_ROW if tensor.ndim == 2:
                return tensor[:1]
            case Transform.POINTWISE if tensor.ndim == 4 and tensor.shape[2:] == (1, 1):
                return tensor[:, :, 0, 0]
        return tensor

    def inverse(self, tensor: Tensor) -> Tensor:
        """Maps a tensor of ours to theirs."""
        match self:
            case Transform.ROW:
                return tensor[None]
            case Transform.POINTWISE:
                return tensor[:, :, None, None]
        return tensor


class Row(NamedTuple):
    """One tensor: our name, theirs, and what happens on the way."""

    target: str
    source: str
    transform: Transform = Transform.NONE


Rows = list[Row]


@dataclass(frozen=True)
class Table:
    """Rules by which one of their models becomes one of ours.

    Attributes:
        rows: the tensors. One of theirs may be named twice, where we keep two of it.
        made: tensors of ours that they have none of, by name: the value of all entries.
        ignored: tensors of theirs that carry nothing of their own, which may be there or not.
        copies: tensors of theirs that must equal another one of theirs, if they are there.
    """

    rows: Rows
    made: Mapping[str, float] = field(default_factory=dict)
    ignored: Collection[str] = ()
    copies: Mapping[str, str] = field(default_factory=dict)


class BlockNames(NamedTuple):
    """Maps our names of the layers of a block to theirs within it."""

    cross_attention: Mapping[str, str]
    self_attention: Mapping[str, str]


def layer(target: str, source: str, bias: bool = True) -> Rows:
    """A linear layer, convolution or norm with the same names in both."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return [Row(f"{target}.{kind}", f"{source}.{kind}") for kind in kinds]


def layers(target: str, source: str, names: Mapping[str, str]) -> Rows:
    """Several layers of a module."""
    return [row for ours, theirs in names.items() for row in layer(f"{target}.{ours}", f"{source}.{theirs}")]


def encoder(
    config: EncoderConfig, names: BlockNames, latents: str, cross_attends: list[str], blocks: list[str]
) -> Rows:
    """An encoder.

    Args:
        names: within their blocks.
        latents: their name of the latents.
        cross_attends: theirs, in the order of our indices.
        blocks: theirs, likewise; layers are numbered within.
    """
    rows = [Row("encoder.latents.embeddings", latents)]
    for index, source in enumerate(cross_attends):
        target = f"further_cross_attends.{index - 1}" if index else "cross_attend"
        rows += layers(f"encoder.{target}", source, names.cross_attention)
    for index, source in enumerate(blocks):
        target = f"further_self_attends.{index - 1}" if index else "self_attends"
        for number in range(config.num_self_attends_per_block):
            rows += layers(f"encoder.{target}.{number}", f"{source}.{number}", names.self_attention)
    return rows


def batch_norm(target: str, source: str) -> Table:
    """PyTorch's batch norm. Its averages have no bias to remove: they are those of a model that has seen much data."""
    rows = layer(target, source)
    for ours, theirs in (("mean", "running_mean"), ("variance", "running_var")):
        rows += [Row(f"{target}.{ours}.{part}", f"{source}.{theirs}") for part in ("average", "hidden")]
    # 1 - 0.9**1000 is 1.
    made = {f"{target}.{ours}.counter": 1000.0 for ours in ("mean", "variance")}
    return Table(rows, made, [f"{source}.num_batches_tracked"])


def apply_table(table: Table, sources: Mapping[str, Tensor], config: ModelConfig, origin: str) -> dict[str, Tensor]:
    """Maps their state dict to that of our model with this configuration, in float32.

    Args:
        origin: the beginning of an error's sentence: the file, and what it seems to hold.

    Raises:
        ValueError: unless every tensor of theirs is used and every one of ours filled, with the right shape.
    """
    with torch.device("meta"):
        expected = model_from_config(config).state_dict()
    named = {row.source for row in table.rows}
    missing = sorted(named - sources.keys())
    left_over = sorted(sources.keys() - named - set(table.ignored) - table.copies.keys())
    if missing or left_over:
        raise ValueError(f"{origin}: missing in it are {some(missing)}; left over are {some(left_over)}")
    for copy, original in table.copies.items():
        if copy in sources and not torch.equal(sources[copy], sources[original]):
            raise ValueError(f"{origin}: {copy} must be the same as {original}, to which it is tied")
    not_filled = sorted(expected.keys() - {row.target for row in table.rows} - table.made.keys())
    assert not not_filled, f"the table has no row for {not_filled}"
    state_dict = {name: torch.full_like(expected[name], value, device="cpu") for name, value in table.made.items()}
    for target, source, transform in table.rows:
        tensor, wanted = transform(sources[source]), expected[target]
        if tensor.shape != wanted.shape:
            raise ValueError(
                f"{origin}: {source} has shape {tuple(sources[source].shape)}, where {target} must be "
                f"{tuple(wanted.shape)} ({transform.value}); sizes that the file does not tell are given by --config"
            )
        if tensor.is_floating_point() != wanted.is_floating_point() or tensor.is_complex():
            raise ValueError(f"{origin}: {source} has dtype {tensor.dtype}, which does not fit {target}")
        # A copy, so that no two tensors share memory, nor any with the file.
        state_dict[target] = tensor.to(wanted.dtype, copy=True).contiguous()
    return state_dict


def invert_table(table: Table, state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Maps our state dict to theirs."""
    inverted: dict[str, Tensor] = {}
    for target, source, transform in table.rows:
        inverted.setdefault(source, transform.inverse(state_dict[target]).contiguous())
    return inverted


def some(names: list[str], most: int = 6) -> str:
    """The first of some names, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return (", ".join(names[:most]) or "none") + more
