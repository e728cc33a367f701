"""The names of perceiver-pytorch's tensors, of 0.11 and of before, as ours; see `compat.perceiver_pytorch`."""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from perceiver_io.encoder import PerceiverEncoder

# Names of versions before 0.11, and those of 0.11 for the same. With and without cross-attentions in the layers.
_OLDER = (
    (r"cross_attend_blocks\.0\.", "cross_attend_block.cross_attn."),
    (r"cross_attend_blocks\.1\.", "cross_attend_block.cross_ff."),
)
_OLDER_LAYERS = {
    True: (
        (r"layers\.(\d+)\.0\.", r"layers.\1.cross_attn."),
        (r"layers\.(\d+)\.1\.", r"layers.\1.cross_ff."),
        (r"layers\.(\d+)\.2\.", r"layers.\1.self_attns."),
    ),
    False: ((r"layers\.(\d+)\.([01])\.", r"layers.\1.self_attns.0.\2."),),
}
_ATTENTION = {"fn.to_q": "query", "fn.to_out": "output"}
_MLP = {"norm": "mlp_norm", "fn.net.0": "mlp.hidden", "fn.net.2": "mlp.output"}


def take_in(model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *unused: Any) -> None:
    """Renames, in place, what a state dict holds by the package's names; one with our names stays as it is.

    A hook that `load_state_dict` calls first; missing and unexpected names are its to report.

    Raises:
        ValueError: if layers that the model ties differ.
    """
    if f"{prefix}latents" not in state_dict:
        return
    encoder = model.get_submodule("encoder")
    assert isinstance(encoder, PerceiverEncoder)
    older = (*_OLDER, *_OLDER_LAYERS[not hasattr(model, "decoder")])
    theirs = {_newer(name.removeprefix(prefix), older): name for name in list(state_dict) if name.startswith(prefix)}
    renamed: dict[str, Tensor] = {}

    def take(target: str, source: str) -> None:
        for kind in ("weight", "bias"):
            name = theirs.get(f"{source}.{kind}")
            if name is None:
                continue
            tensor = state_dict.pop(name)
            if source.endswith("to_kv"):
                key, value = tensor.chunk(2)
                _put(renamed, f"{target}.key.{kind}", key, name)
                _put(renamed, f"{target}.value.{kind}", value, name)
            else:
                _put(renamed, f"{target}.{kind}", tensor, name)

    renamed["encoder.latents.embeddings"] = state_dict.pop(f"{prefix}latents")
    for ours, attention, mlp, crosses in _blocks(model, encoder):
        norms = {"norm": "query_norm", "norm_context": "input_norm"} if crosses else {"norm": "attention_norm"}
        for name, target in norms.items():
            take(f"{ours}.{target}", f"{attention}.{name}")
        take(f"{ours}.attention", f"{attention}.fn.to_kv")
        for name, target in _ATTENTION.items():
            take(f"{ours}.attention.{target}", f"{attention}.{name}")
        for name, target in _MLP.items():
            take(f"{ours}.{target}", f"{mlp}.{name}")
    state_dict.update({f"{prefix}{name}": tensor for name, tensor in renamed.items()})


def _blocks(model: nn.Module, encoder: PerceiverEncoder) -> Iterator[tuple[str, str, str, bool]]:
    """Our blocks: their names, those of attention and MLP in the package, and whether they are cross-attentions."""
    decodes = hasattr(model, "decoder")
    for index, (cross, block) in enumerate(encoder.rounds):
        if cross is not None:
            ours = f"encoder.further_cross_attends.{cross - 1}" if cross else "encoder.cross_attend"
            theirs = "cross_attend_block" if decodes else f"layers.{index}"
            yield ours, f"{theirs}.cross_attn", f"{theirs}.cross_ff", True
        ours = f"encoder.further_self_attends.{block - 1}" if block else "encoder.self_attends"
        for place in range(len(encoder.blocks[block])):
            theirs = f"layers.{index}.self_attns.{place}"
            yield f"{ours}.{place}", f"{theirs}.0", f"{theirs}.1", False
    if decodes:
        yield "decoder", "decoder_cross_attn", "decoder_ff", True


def _newer(name: str, older: Iterable[tuple[str, str]]) -> str:
    for pattern, replacement in older:
        name = re.sub(f"^{pattern}", replacement, name)
    return name


def _put(renamed: dict[str, Tensor], name: str, tensor: Tensor, source: str) -> None:
    """Notes a tensor, which must be the same wherever tied layers name it again."""
    if name in renamed and not tensor.is_meta and not torch.equal(renamed[name], tensor):
        raise ValueError(
            f"{source} differs from the earlier layer that weight_tie_layers=True makes it share {name} with; build "
            "the model with weight_tie_layers=False"
        )
    renamed[name] = tensor
