"""The names and options of google-research/perceiver-ar, as tables of ours (`haiku` has what all Haiku models share).

    reference                                      here
    z_index_dim, num_z_channels                    num_latents, num_latent_channels
    num_transformers_per_block                     num_self_attends
    position_encoding_type, position_encoding      rotary, position_tables
    input_idx_size                                 position_sizes
    use_positions_from_data=False                  positions_from_end
    fraction_to_rotate, fraction_heads_to_rotate   rotary_channels_fraction, rotary_heads_fraction
    initial_query_embed_style                      latent_query
    encoder_dropout_prob, train_input_positions    input_dropout_prob, num_training_inputs
    embed, embed_1, …                              embedding, position_tables
    q_embed_learned, z_pos_enc                     latent_query.embeddings, position_latents.embeddings
    dense                                          mlp
    logits                                         output

Tables of positions are parameters there even where they are a formula's; here those are checked and dropped.
"""

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

from perceiver_io.autoregressive.config import PerceiverARConfig
from perceiver_io.autoregressive.positions import Formula, formula_rows
from perceiver_io.weights.haiku import Array, Row, Table, counted, cross_attention, layer_norm, linear, self_attention

_ACTIVATIONS = {"sq_relu": "squared_relu", "gelu": "gelu_tanh", "relu": "relu"}
_QUERIES = {"none": "linear", "mlp": "mlp", "learned": "learned"}
# Rows of a table that are compared with the formula's at a time.
_ROWS = 8192


def reference_config(options: Mapping[str, Any]) -> PerceiverARConfig:
    """Maps the reference's constructor arguments, or some of them, to a configuration.

    Raises:
        ValueError: for options that have no counterpart here.
    """
    o = {**_DEFAULTS, **options}
    absolute = o["position_encoding_type"] == "absolute"
    tables = {"random": "learned"}.get(o["position_encoding"], o["position_encoding"])
    sizes = tuple(o["max_context_length"] if size == -1 else size for size in o["input_idx_size"])
    query = _QUERIES[o["initial_query_embed_style"]]
    if query == "learned" and o["share_learned_initial_query"]:
        query = "learned_shared"
    for name in ("activation_name", "initial_query_embed_activation_name"):
        if o[name] not in _ACTIVATIONS:
            raise ValueError(f"{name} ({o[name]!r}) must be one of {', '.join(_ACTIVATIONS)}; others are not here")
    return PerceiverARConfig(
        vocab_size=o["num_classes"],
        max_context_length=o["max_context_length"],
        num_latents=o["z_index_dim"],
        embed_channels=o["input_embed_dim"],
        num_latent_channels=o["num_z_channels"],
        num_self_attends=o["num_transformers_per_block"],
        num_cross_attend_heads=o["num_cross_attend_heads"],
        num_self_attend_heads=o["num_transformer_heads"],
        cross_attend_widening_factor=o["cross_attend_widening_factor"],
        self_attend_widening_factor=o["transformer_widening_factor"],
        activation=cast(Any, _ACTIVATIONS[o["activation_name"]]),
        position_tables=cast(Any, tables if absolute else "none"),
        position_sizes=sizes if absolute else None,
        train_positions=absolute and o["learnable_position_embeddings"],
        positions_from_end=not o["use_positions_from_data"],
        negative_positions_from_end=o["use_negative_rotary_positions"],
        rotary="none" if absolute else "perceiver_ar",
        rotary_channels_fraction=o["fraction_to_rotate"],
        rotary_heads_fraction=o["fraction_heads_to_rotate"],
        rotary_head_group_size=o["cross_attention_head_group_size"] or None,
        max_wavelength=o["max_wavelength"],
        latent_query=cast(Any, query),
        query_mlp_layers=o["initial_query_embed_num_layers"],
        query_mlp_activation=cast(Any, _ACTIVATIONS[o["initial_query_embed_activation_name"]]),
        latents_per_position=o["num_latents_per_position"],
        offset_queries=o["initial_query_offsetting"],
        initial_cross_attend=o["include_initial_cross_attention"],
        additional_cross_attends=tuple(o["additional_cross_attend_after_layers"] or ()) or None,
        cross_attend_query_residual=o["encoder_use_query_residual"],
        cross_attend_shape=o["cross_attention_shape_for_attn"],
        zero_init_output=o["final_layer_init_zeros"],
        dropout_prob=o["dropout_prob"],
        input_dropout_prob=o["encoder_dropout_prob"],
        latent_dropout_prob=o["latent_dropout_prob"],
        num_training_inputs=o["train_input_positions"] or None,
    )


# Source: the constructor in `perceiver_ar_model.py`.
_DEFAULTS: dict[str, Any] = {
    "input_embed_dim": 1024,
    "position_encoding": "sinusoidal",
    "learnable_position_embeddings": False,
    "num_transformers_per_block": 12,
    "z_index_dim": 1024,
    "num_z_channels": 1024,
    "num_cross_attend_heads": 1,
    "num_transformer_heads": 8,
    "cross_attend_widening_factor": 1,
    "transformer_widening_factor": 1,
    "initial_query_offsetting": False,
    "initial_query_embed_style": "none",
    "share_learned_initial_query": False,
    "initial_query_embed_activation_name": "sq_relu",
    "initial_query_embed_num_layers": 2,
    "include_initial_cross_attention": True,
    "additional_cross_attend_after_layers": None,
    "dropout_prob": 0.0,
    "cross_attention_shape_for_attn": "kv",
    "encoder_use_query_residual": True,
    "latent_dropout_prob": 0.0,
    "encoder_dropout_prob": 0.0,
    "num_latents_per_position": 1,
    "activation_name": "sq_relu",
    "fraction_to_rotate": 0.25,
    "fraction_heads_to_rotate": 1.0,
    "max_wavelength": 8192,
    "cross_attention_head_group_size": 0,
    "use_positions_from_data": False,
    "train_input_positions": 0,
    "final_layer_init_zeros": True,
    "use_negative_rotary_positions": False,
}


def name_table(config: PerceiverARConfig) -> Table:
    """Maps a configuration to the table of its model, without the tables of positions that are a formula's.

    Raises:
        ValueError: for a model that the reference has none of.
    """
    _check_is_references(config)
    module = "perceiver_ar/~"
    rows: Table = [Row("embedding.weight", f"{module}/embed/embeddings")]
    if _stores_tables(config):
        for axis, name in enumerate(_table_names(config)):
            rows.append(Row(f"position_tables.{axis}.embeddings", name))
    first = 0  # of the linear layers outside of attention, which Haiku counts in the order in which they are made
    if config.latent_query == "mlp":
        for layer in range(config.query_mlp_layers):
            rows += linear(f"latent_query.layers.{layer}", f"{module}/{counted('linear', layer)}")
        first = config.query_mlp_layers
    if config.latent_query in ("linear", "mlp"):
        rows += linear("latent_query.linear", f"{module}/{counted('linear', first)}")
    else:
        rows.append(Row("latent_query.embeddings", "perceiver_ar/q_embed_learned"))
    if config.latents_per_position > 1:
        rows.append(Row("position_latents.embeddings", f"{module}/z_pos_enc/pos_embs"))
    crosses = 0
    if config.initial_cross_attend:
        rows += cross_attention("cross_attend", f"{module}/cross_attention", "dense")
        crosses = 1
    for index in range(config.num_self_attends):
        rows += self_attention(f"self_attends.{index}", f"{module}/{counted('self_attention', index)}", "dense")
        if index in (config.additional_cross_attends or ()):
            source = f"{module}/{counted('cross_attention', crosses)}"
            rows += cross_attention(f"further_cross_attends.{index}", source, "dense")
            crosses += 1
    rows += layer_norm("output_norm", "perceiver_ar/layer_norm")
    return [*rows, *linear("output", f"{module}/logits")]


def without_formulas(params: Mapping[str, Array], config: PerceiverARConfig) -> dict[str, Array]:
    """Maps a checkpoint's parameters to those that our model has: tables that a formula makes are left out.

    Raises:
        ValueError: if such a table holds something else than its formula makes.
    """
    dropped = [] if _stores_tables(config) else _table_names(config)
    for axis, name in enumerate(dropped):
        size = (config.position_sizes or ())[axis]
        if name in params:
            _check_table(name, params[name], cast(Formula, config.position_tables), (size, config.embed_channels))
    return {name: array for name, array in params.items() if name not in dropped}


def formula_shapes(config: PerceiverARConfig) -> dict[str, tuple[int, ...]]:
    """Maps a configuration to the names and shapes of the tables that `without_formulas` leaves out."""
    if _stores_tables(config):
        return {}
    sizes = config.position_sizes or ()
    return {name: (size, config.embed_channels) for name, size in zip(_table_names(config), sizes, strict=True)}


def _stores_tables(config: PerceiverARConfig) -> bool:
    return config.position_tables == "learned" or config.train_positions


def _table_names(config: PerceiverARConfig) -> list[str]:
    return [f"perceiver_ar/~/embed_{axis + 1}/embeddings" for axis in range(len(config.position_sizes or ()))]


def _check_table(name: str, table: Array, formula: Formula, shape: tuple[int, int]) -> None:
    size, channels = shape
    fits = table.shape == shape
    for start in range(0, size, _ROWS) if fits else ():
        indices = torch.arange(start, min(start + _ROWS, size))
        expected = formula_rows(formula, indices, size, channels).numpy()
        fits = fits and bool(np.allclose(table[start : start + _ROWS], expected, rtol=0, atol=1e-4))
    if not fits:
        raise ValueError(
            f"{name} {table.shape} is not the table of {shape} that position_tables {formula!r} makes; if it was "
            "trained, set train_positions to true"
        )


def _check_is_references(config: PerceiverARConfig) -> None:
    reference = {
        "rotary": config.rotary != "standard",
        "latent_query": config.latent_query != "embedding",
        "one of position_tables and rotary": (config.position_tables == "none") != (config.rotary == "none"),
        "cross_attend_own_norm": not config.cross_attend_own_norm,
        "qkv_bias": config.qkv_bias,
        "cross_output_bias": config.cross_output_bias,
        "self_output_bias": config.self_output_bias,
        "mlp_bias": config.mlp_bias,
        "output_norm": config.output_norm,
        "tied_output": not config.tied_output,
        "output_bias": config.output_bias,
    }
    differing = [name for name, same in reference.items() if not same]
    if differing:
        raise ValueError(
            f"there is no table of Haiku names for a PerceiverAR whose {', '.join(differing)} are others than the "
            "reference's"
        )
