"""The names of JOBR0/PerceiverIO_Pytorch's checkpoints, as tables of ours.

That port of DeepMind's code has the released weights in six `.pth` files. Its modules are the reference's, with one
difference: its GELU is exact. What comes out here computes DeepMind's function.

    JOBR0                                    here
    _encoder.latent_pos_enc.pos_embs         encoder.latents.embeddings
    attention.proj_q, proj_k, proj_v, final  attention.query, key, value, output
    mlp.fc1, mlp.fc2                         mlp.hidden, mlp.output
    layer_norm_q, layer_norm_kv              query_norm, input_norm
    layer_norm1 (self-attention)             attention_norm
    layer_norm2                              mlp_norm
    NAME.pos_embs [1, C]                     padding.NAME, mask_tokens.NAME [C]
    __default                                – (a single modality has no name)
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from perceiver_io.models import (
    ImageClassificationConfig,
    LanguageConfig,
    OpticalFlowConfig,
    VideoAutoencodingConfig,
)
from perceiver_io.models.config import EncoderConfig, ModelConfig
from perceiver_io.presets import PRESETS
from perceiver_io.weights.tables import BlockNames, Row, Rows, Table, Transform, batch_norm, encoder, layer, layers

_ATTENTION = {
    "attention.query": "attention.proj_q",
    "attention.key": "attention.proj_k",
    "attention.value": "attention.proj_v",
    "attention.output": "attention.final",
    "mlp_norm": "layer_norm2",
    "mlp.hidden": "mlp.fc1",
    "mlp.output": "mlp.fc2",
}
NAMES = BlockNames(
    cross_attention={"query_norm": "layer_norm_q", "input_norm": "layer_norm_kv", **_ATTENTION},
    self_attention={"attention_norm": "layer_norm1", **_ATTENTION},
)
_PREPROCESSOR = "perceiver._multi_preprocessor._preprocessors.__default"
_QUERY = "perceiver._output_queries"
_POSTPROCESSORS = "perceiver._output_postprocessors"


def recognises(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> bool:
    """Whether names look like JOBR0's."""
    return "perceiver._encoder.latent_pos_enc.pos_embs" in tensors


def preset_of(tensors: Mapping[str, Tensor]) -> str:
    """Maps names to the released model that they are of."""
    for part, preset in (
        (f"{_PREPROCESSOR}.embed.", "language"),
        ("perceiver._multi_preprocessor.mask_tokens.", "video-autoencoding"),
        (f"{_PREPROCESSOR}._conv_after_patch_layer.", "optical-flow"),
        (f"{_PREPROCESSOR}.convnet_1x1.", "imagenet-learned"),
        (f"{_PREPROCESSOR}.convnet.", "imagenet-conv"),
    ):
        if any(name.startswith(part) for name in tensors):
            return preset
    return "imagenet-fourier"


def model_config(tensors: Mapping[str, Tensor]) -> ModelConfig:
    """Maps tensors to a configuration: the released model's, with what their shapes tell.

    How often the block is applied, heads and sizes of inputs are not among that.
    """
    preset = PRESETS[preset_of(tensors)]
    assert isinstance(preset, EncoderConfig)
    layers_found = {name.split(".")[3] for name in tensors if name.startswith("perceiver._encoder.self_attends.")}
    sizes: dict[str, tuple[str, int]] = {
        "num_latents": ("perceiver._encoder.latent_pos_enc.pos_embs", 0),
        "num_latent_channels": ("perceiver._encoder.latent_pos_enc.pos_embs", 1),
    }
    match preset:
        case LanguageConfig():
            sizes |= {
                "vocab_size": (f"{_PREPROCESSOR}.embed.weight", 0),
                "embed_channels": (f"{_PREPROCESSOR}.embed.weight", 1),
                "max_seq_len": (f"{_PREPROCESSOR}.input_pos_encoding.pos_embs", 0),
                "qk_channels": ("perceiver._encoder.cross_attend.attention.proj_q.weight", 0),
            }
        case ImageClassificationConfig():
            sizes |= {
                "num_classes": ("perceiver._decoder.final_layer.weight", 0),
                "query_channels": (f"{_QUERY}.__default._position_encoding.pos_embs", 1),
            }
        case VideoAutoencodingConfig():
            sizes |= {
                "num_classes": (f"{_POSTPROCESSORS}.label.linear.weight", 0),
                "audio_samples_per_patch": (f"{_POSTPROCESSORS}.audio.linear.weight", 0),
                "decoder_channels": ("perceiver._decoder.final_layer.weight", 0),
            }
    found: dict[str, Any] = {
        name: tensors[source].shape[axis]
        for name, (source, axis) in sizes.items()
        if source in tensors and tensors[source].ndim > axis
    }
    positions = tensors.get(f"{_PREPROCESSOR}._positional_encoding._base_position_encoding.pos_embs")
    if positions is not None:
        side = math.isqrt(positions.shape[0])
        found["image_size"] = [side, side]
    if found.get("query_channels") == found["num_latent_channels"]:
        del found["query_channels"]  # as in the released models
    found["num_self_attends_per_block"] = max(len(layers_found), 1)
    return type(preset).from_dict({**preset.to_dict(), **found})


def name_table(config: ModelConfig) -> Table:
    """Maps a configuration to the table of its model."""
    nameless = ["perceiver.padding_embeddings.__default.pos_embs"]  # [1, 0]
    match config:
        case LanguageConfig():
            embedding = f"{_PREPROCESSOR}.embed.weight"
            rows = [
                Row("input_preprocessor.featurizer.weight", embedding),
                Row("input_preprocessor.position_encoding.embeddings", f"{_PREPROCESSOR}.input_pos_encoding.pos_embs"),
                *_encoder(config),
                *_query("output_query", "__default"),
                *_decoder(output=False),
                Row("output_postprocessor.bias", f"{_POSTPROCESSORS}.__default.bias"),
            ]
            return Table(rows, ignored=nameless, copies={f"{_POSTPROCESSORS}.__default._embedding.weight": embedding})
        case ImageClassificationConfig():
            stem = _image_preprocessor(config)
            # QUIRK: there are as many queries as classes; the first alone is read.
            query = _query("output_query", "__default", Transform.FIRST_ROW)
            return Table([*stem.rows, *_encoder(config), *query, *_decoder()], stem.made, [*stem.ignored, *nameless])
        case OpticalFlowConfig():
            patches = layer("input_preprocessor.featurizer.linear", f"{_PREPROCESSOR}._conv_after_patch_layer")
            return Table([*patches, *_encoder(config), *_decoder()], ignored=nameless)
        case VideoAutoencodingConfig():
            rows = [*_encoder(config), *_query("output_query.modalities.label", "label"), *_decoder()]
            for name, module in (("audio", "linear"), ("image", "projection"), ("label", "linear")):
                rows += layer(f"output_postprocessor.modalities.{name}.linear", f"{_POSTPROCESSORS}.{name}.{module}")
                for target, source in (
                    ("input_preprocessor.padding", "_multi_preprocessor.padding_embeddings"),
                    ("input_preprocessor.mask_tokens", "_multi_preprocessor.mask_tokens"),
                    ("output_query.padding", "padding_embeddings"),
                ):
                    rows.append(Row(f"{target}.{name}", f"perceiver.{source}.{name}.pos_embs", Transform.ROW))
            return Table(rows)
    raise ValueError(f"there is no table of JOBR0's names for {type(config).__name__}")


def _encoder(config: EncoderConfig) -> Rows:
    source = "perceiver._encoder"
    return encoder(
        config, NAMES, f"{source}.latent_pos_enc.pos_embs", [f"{source}.cross_attend"], [f"{source}.self_attends"]
    )


def _decoder(output: bool = True) -> Rows:
    rows = layers("decoder.cross_attend", "perceiver._decoder.decoding_cross_attn", NAMES.cross_attention)
    return [*rows, *layer("decoder.output", "perceiver._decoder.final_layer")] if output else rows


def _query(target: str, name: str, transform: Transform = Transform.NONE) -> Rows:
    source = f"{_QUERY}.{name}._position_encoding.pos_embs"
    return [Row(f"{target}.position_encoding.embeddings", source, transform)]


def _image_preprocessor(config: ImageClassificationConfig) -> Table:
    target = "input_preprocessor"
    match config.featurizer:
        case "conv":
            norm = batch_norm(f"{target}.featurizer.downsample.batch_norms.0", f"{_PREPROCESSOR}.convnet.norms.0")
            convolution = layer(
                f"{target}.featurizer.downsample.convolutions.0", f"{_PREPROCESSOR}.convnet.convs.0", bias=False
            )
            return Table([*convolution, *norm.rows], norm.made, norm.ignored)
        case "conv1x1":
            positions = f"{_PREPROCESSOR}._positional_encoding"
            return Table(
                [
                    Row(
                        f"{target}.featurizer.linear.weight",
                        f"{_PREPROCESSOR}.convnet_1x1.weight",
                        Transform.POINTWISE,
                    ),
                    Row(f"{target}.featurizer.linear.bias", f"{_PREPROCESSOR}.convnet_1x1.bias"),
                    Row(
                        f"{target}.position_encoding.base.embeddings",
                        f"{positions}._base_position_encoding.pos_embs",
                    ),
                    *layer(f"{target}.position_encoding.projection", f"{positions}._projector"),
                ]
            )
    return Table([])
