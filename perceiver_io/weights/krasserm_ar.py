"""The names and options of krasserm/perceiver-io's Perceiver AR models, as tables of ours.

Causal language models and models of symbolic music, from his directories on the hub or from Lightning's `.ckpt`. His
function is kept: latents are the embeddings themselves, keys at their positions are normed as queries are, rotary
encoding has the usual frequencies, and its number of layers is an option.

DEVIATION: his padding, where it reaches into the latents, is attended to in self-attention; here it is not, unless
`leaks_padding=True` overrides the configuration. Guarded by tests/parity/test_perceiver_ar_krasserm.py.

    krasserm                                       here
    max_seq_len, max_latents                       max_context_length, num_latents
    num_channels                                   embed_channels, num_latent_channels
    num_heads                                      num_cross_attend_heads, num_self_attend_heads
    num_self_attention_layers, …_rotary_layers     num_self_attends, num_rotary_self_attends
    abs_pos_emb                                    position_tables="learned", half of the channels rotary
    cross_attention_dropout                        prefix_dropout_prob
    residual_dropout, post_attention_dropout       dropout_prob, attention_dropout_prob
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.autoregressive.rotary import standard_frequencies
from perceiver_io.weights.krasserm import NAMES
from perceiver_io.weights.tables import Row, Rows, Table

MODEL_TYPES = ("perceiver-ar-causal-language-model", "perceiver-ar-symbolic-audio-model")
_FREQUENCIES = "input_adapter.frq_pos_encoding.inv_freq"
# Source: perceiver/model/core/config.py.
_DEFAULTS: dict[str, Any] = {
    "num_heads": 8,
    "num_self_attention_layers": 8,
    "num_self_attention_rotary_layers": 1,
    "self_attention_widening_factor": 4,
    "cross_attention_widening_factor": 4,
    "cross_attention_dropout": 0.5,
    "post_attention_dropout": 0.0,
    "residual_dropout": 0.0,
    "vocab_size": 262,
    "max_seq_len": 4096,
    "max_latents": 512,
    "num_channels": 512,
    "output_norm": False,
    "output_bias": True,
    "abs_pos_emb": True,
}
# Symbolic music has its padding after the 388 events.
_MUSIC_VOCABULARY = 389


def recognises(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors, unwrapped, have the names of one of these models."""
    return _FREQUENCIES in tensors


def model_config(settings: Mapping[str, Any], pad_token: int | None) -> PerceiverARConfig:
    """Maps his options to our configuration.

    Args:
        settings: `model_config` of `config.json`, or Lightning's hyperparameters.
        pad_token: the tokenizer's, if `config.json` tells.
    """
    s = {**_DEFAULTS, **settings}
    rotary_layers = s["num_self_attention_rotary_layers"]
    if pad_token is None and s["vocab_size"] == _MUSIC_VOCABULARY:
        pad_token = _MUSIC_VOCABULARY - 1
    absolute = s["abs_pos_emb"]
    if not 1 <= rotary_layers <= s["num_self_attention_layers"] and rotary_layers != -1:
        raise ValueError(
            f"num_self_attention_rotary_layers ({rotary_layers}) must be -1 (all) or one of "
            f"1…{s['num_self_attention_layers']}; other values have no counterpart here"
        )
    return PerceiverARConfig(
        vocab_size=s["vocab_size"],
        max_context_length=s["max_seq_len"],
        num_latents=s["max_latents"],
        embed_channels=s["num_channels"],
        num_latent_channels=s["num_channels"],
        num_self_attends=s["num_self_attention_layers"],
        num_cross_attend_heads=s["num_heads"],
        num_self_attend_heads=s["num_heads"],
        cross_attend_widening_factor=s["cross_attention_widening_factor"],
        self_attend_widening_factor=s["self_attention_widening_factor"],
        activation="gelu",
        position_tables="learned" if absolute else "none",
        position_sizes=(s["max_seq_len"],) if absolute else None,
        train_positions=absolute,
        first_position=0,
        rotary="standard",
        rotary_channels_fraction=0.5 if absolute else 1.0,
        max_wavelength=10_000,
        num_rotary_self_attends=None if rotary_layers == -1 else rotary_layers,
        latent_query="embedding",
        dropout_prob=s["residual_dropout"],
        attention_dropout_prob=s["post_attention_dropout"],
        prefix_dropout_prob=s["cross_attention_dropout"],
        pad_token=pad_token,
        cross_attend_own_norm=True,
        qkv_bias=False,
        self_output_bias=False,
        mlp_bias=False,
        output_norm=s["output_norm"],
        tied_output=True,
        output_bias=s["output_bias"],
    )


def name_table(config: PerceiverARConfig) -> Table:
    """Maps a configuration to the table of its model."""
    rows: Rows = [Row("embedding.weight", "input_adapter.txt_embedding.weight")]
    if config.position_tables == "learned":
        rows.append(Row("position_tables.0.embeddings", "input_adapter.pos_embedding.weight"))
    rows += _block("cross_attend", "cross_attention", NAMES.cross_attention, output_bias=True)
    for index in range(config.num_self_attends):
        rows += _block(f"self_attends.{index}", f"self_attention.{index}", NAMES.self_attention, output_bias=False)
    if config.output_norm:
        rows += [Row(f"output_norm.{kind}", f"out_norm.{kind}") for kind in ("weight", "bias")]
    if config.output_bias:
        rows.append(Row("output_bias", "output_adapter.bias"))
    return Table(rows, ignored=[_FREQUENCIES])


def check_frequencies(tensors: Mapping[str, Tensor], config: PerceiverARConfig) -> None:
    """Checks that the frequencies that he saves are those that ours computes.

    Raises:
        ValueError: if they are others.
    """
    head_channels = config.embed_channels // config.num_cross_attend_heads
    ours = standard_frequencies(int(head_channels * config.rotary_channels_fraction / 2), config.max_wavelength)
    saved = tensors[_FREQUENCIES].float()
    if saved.shape != ours.shape or not torch.allclose(saved, ours, rtol=1e-2):
        raise ValueError(
            f"{_FREQUENCIES} {tuple(saved.shape)} holds other frequencies than {config.max_wavelength} makes for "
            f"{head_channels} channels a head"
        )


def _block(target: str, source: str, names: Mapping[str, str], output_bias: bool) -> Rows:
    """A block, whose layers have biases only in norms and, some, at the end of attention."""
    rows: Rows = []
    for ours, theirs in names.items():
        has_bias = ours.endswith("norm") or (ours == "attention.output" and output_bias)
        rows += [Row(f"{target}.{ours}.{k}", f"{source}.{theirs}.{k}") for k in ("weight", "bias")[: 1 + has_bias]]
    return rows
