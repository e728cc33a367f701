"""The names and options of krasserm/perceiver-io's Perceiver IO models, as tables of ours.

Masked language models, text and image classifiers and optical flow, from his directories on the hub (`config.json` and
weights) or from Lightning's `.ckpt`. His function is kept: exact GELU, rounds that attend to the inputs again. Images
are channels last there and channels first here; his masks are True where there is padding, ours where there is none.

    krasserm                                 here
    num_cross_attention_layers               num_cross_attends
    first_cross_attention_layer_shared       share_first_cross_attend
    first_self_attention_block_shared        share_first_block
    latent_provider._query                   encoder.latents.embeddings
    cross_attn_1, cross_attn_n               encoder.cross_attend, encoder.further_cross_attends.0
    self_attn_1, self_attn_n                 encoder.self_attends, encoder.further_self_attends.0
    LAYER.0.module.{q_norm,kv_norm,norm}     query_norm, input_norm, attention_norm
    LAYER.1.module.{0,1,3}                   mlp_norm, mlp.hidden, mlp.output
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from perceiver_io.models import (
    ImageClassificationConfig,
    LanguageConfig,
    OpticalFlowConfig,
    TextClassificationConfig,
)
from perceiver_io.models.config import DecoderConfig, ModelConfig
from perceiver_io.position_encoding import FourierPositionEncoding
from perceiver_io.weights.tables import BlockNames, Row, Rows, Table, encoder, layer, layers

_ATTENTION = {
    "attention.query": "0.module.attention.q_proj",
    "attention.key": "0.module.attention.k_proj",
    "attention.value": "0.module.attention.v_proj",
    "attention.output": "0.module.attention.o_proj",
    "mlp_norm": "1.module.0",
    "mlp.hidden": "1.module.1",
    "mlp.output": "1.module.3",
}
NAMES = BlockNames(
    cross_attention={"query_norm": "0.module.q_norm", "input_norm": "0.module.kv_norm", **_ATTENTION},
    self_attention={"attention_norm": "0.module.norm", **_ATTENTION},
)
# His directories say what they are under `model_type`.
MODEL_TYPES = {
    "perceiver-io-masked-language-model": LanguageConfig,
    "perceiver-io-text-classifier": TextClassificationConfig,
    "perceiver-io-image-classifier": ImageClassificationConfig,
    "perceiver-io-optical-flow": OpticalFlowConfig,
}
_LATENTS = "0.latent_provider._query"
_POSITIONS = "0.input_adapter.position_encoding.position_encoding"
# The wrappers that his models are saved in.
_WRAPPERS = ("backend_model.", "model.")


class Settings:
    """Stands in for his configuration classes, which Lightning pickles: holds their fields, and does nothing."""


STAND_INS = [
    (Settings, f"perceiver.model.{name}")
    for name in (
        "core.config.EncoderConfig",
        "core.config.DecoderConfig",
        "core.config.ClassificationDecoderConfig",
        "text.common.backend.TextEncoderConfig",
        "text.mlm.backend.TextDecoderConfig",
        "vision.image_classifier.backend.ImageEncoderConfig",
        "vision.optical_flow.backend.OpticalFlowEncoderConfig",
        "vision.optical_flow.backend.OpticalFlowDecoderConfig",
    )
]

# Fields that he leaves to the defaults. Source: perceiver/model/core/config.py and the `backend.py` of each task.
_ENCODER_DEFAULTS: dict[str, Any] = {
    "num_cross_attention_heads": 8,
    "num_cross_attention_qk_channels": None,
    "num_cross_attention_v_channels": None,
    "num_cross_attention_layers": 1,
    "first_cross_attention_layer_shared": False,
    "cross_attention_widening_factor": 1,
    "num_self_attention_heads": 8,
    "num_self_attention_qk_channels": None,
    "num_self_attention_v_channels": None,
    "num_self_attention_layers_per_block": 8,
    "num_self_attention_blocks": 1,
    "first_self_attention_block_shared": True,
    "self_attention_widening_factor": 1,
}
_DECODER_DEFAULTS: dict[str, Any] = {
    "num_cross_attention_heads": 8,
    "num_cross_attention_qk_channels": None,
    "num_cross_attention_v_channels": None,
    "cross_attention_widening_factor": 1,
    "cross_attention_residual": True,
}
_TEXT_DEFAULTS = {"vocab_size": 10003, "max_seq_len": 256, "num_input_channels": 64}
_CLASSIFIER_DEFAULTS = {"num_output_queries": 1, "num_output_query_channels": 256, "num_classes": 100}


def recognises(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> bool:
    """Whether something looks like one of krasserm's models, Perceiver AR included."""
    if config is not None and "model_type" in config:
        return str(config["model_type"]).startswith(("perceiver-io-", "perceiver-ar-")) and "model_config" in config
    return any(name.removeprefix(wrapper) == _LATENTS for name in tensors for wrapper in ("", *_WRAPPERS))


def unwrap(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Removes what his wrappers put before every name."""
    for wrapper in _WRAPPERS:
        if all(name.startswith(wrapper) for name in tensors):
            return {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    return dict(tensors)


def settings_of(config: Mapping[str, Any] | None, extras: Mapping[str, Any]) -> dict[str, Any] | None:
    """Maps `config.json`, or what Lightning keeps beside the weights, to his options; None without either."""
    if config is not None:
        settings = config.get("model_config")
        return dict(settings) if isinstance(settings, Mapping) else None
    settings = extras.get("hyper_parameters")
    if not isinstance(settings, Mapping) or not {"encoder", "decoder"} <= settings.keys():
        return None
    plain = dict(settings)
    for part in ("encoder", "decoder"):
        plain[part] = vars(plain[part]) if isinstance(plain[part], Settings) else plain[part]
    return plain


def model_config(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], model_type: str | None) -> ModelConfig:
    """Maps his options to our configuration.

    Args:
        tensors: unwrapped; they tell what the model is where `model_type` does not.

    Raises:
        ValueError: for Perceiver AR, and for options that have no counterpart here.
    """
    kind = MODEL_TYPES.get(model_type) if model_type else _kind_of(tensors)
    if kind is None:
        known = ", ".join(MODEL_TYPES)
        raise ValueError(f"it holds a {model_type}, which has no table of names; those with one are {known}")
    settings_encoder, settings_decoder = settings["encoder"], settings["decoder"]
    e, d = {**_ENCODER_DEFAULTS, **settings_encoder}, {**_DECODER_DEFAULTS, **settings_decoder}
    latent_channels = settings["num_latent_channels"]
    common: dict[str, Any] = {
        "num_latents": settings["num_latents"],
        "num_latent_channels": latent_channels,
        "num_self_attends_per_block": e["num_self_attention_layers_per_block"],
        "num_blocks": e["num_self_attention_blocks"],
        "num_self_attend_heads": e["num_self_attention_heads"],
        "num_cross_attend_heads": e["num_cross_attention_heads"],
        "activation": "gelu",
        "num_cross_attends": e["num_cross_attention_layers"],
        "share_first_cross_attend": e["first_cross_attention_layer_shared"],
        "share_first_block": e["first_self_attention_block_shared"],
        "cross_attend_widening_factor": e["cross_attention_widening_factor"],
        "self_attend_widening_factor": e["self_attention_widening_factor"],
        "num_decoder_heads": d["num_cross_attention_heads"],
        "decoder_query_residual": d["cross_attention_residual"],
        "decoder_widening_factor": d["cross_attention_widening_factor"],
    }
    self_qk = e["num_self_attention_qk_channels"] or latent_channels
    self_v = e["num_self_attention_v_channels"] or self_qk
    _expect("num_self_attention_v_channels", self_v, latent_channels, "num_latent_channels")
    if issubclass(kind, LanguageConfig | TextClassificationConfig):
        e = {**_TEXT_DEFAULTS, **e}
        cross_qk = e["num_cross_attention_qk_channels"] or latent_channels
        _expect("num_cross_attention_qk_channels", cross_qk, self_qk, "num_self_attention_qk_channels")
        cross_v = e["num_cross_attention_v_channels"] or cross_qk
        _expect("num_cross_attention_v_channels", cross_v, latent_channels, "num_latent_channels")
        common |= {
            "vocab_size": e["vocab_size"],
            "max_seq_len": e["max_seq_len"],
            "embed_channels": e["num_input_channels"],
            "qk_channels": self_qk,
        }
        if kind is LanguageConfig:
            d = {"vocab_size": 10003, "max_seq_len": 512, "num_output_query_channels": None, **d}
            _expect("num_output_query_channels of the decoder", d["num_output_query_channels"], None, "null")
            _expect("vocab_size of the decoder", d["vocab_size"], e["vocab_size"], "the encoder's")
            _expect("max_seq_len of the decoder", d["max_seq_len"], e["max_seq_len"], "the encoder's")
            qk_channels = d["num_cross_attention_qk_channels"] or e["num_input_channels"]
            v_channels = d["num_cross_attention_v_channels"] or qk_channels
            _expect("num_cross_attention_v_channels of the decoder", v_channels, e["num_input_channels"], "its query's")
            return LanguageConfig(**common, decoder_qk_channels=qk_channels)
        return TextClassificationConfig(**common, **_classifier(d))
    _expect("num_self_attention_qk_channels", self_qk, latent_channels, "num_latent_channels")
    if kind is ImageClassificationConfig:
        e = {"image_shape": (224, 224, 3), "num_frequency_bands": 32, **e}
        *size, channels = e["image_shape"]
        config: DecoderConfig = ImageClassificationConfig(
            **common,
            **_classifier(d),
            image_size=tuple(size),
            max_resolution=tuple(size),
            num_bands=e["num_frequency_bands"],
            num_image_channels=channels,
        )
        input_channels = channels + 2 + 4 * e["num_frequency_bands"]
    else:
        e = {"image_shape": (368, 496), "num_patch_hidden_channels": 64, "num_frequency_bands": 64, **e}
        d = {"image_shape": (368, 496), "rescale_factor": 100.0, **d}
        _expect("num_patch_input_channels", e.get("num_patch_input_channels", 27), 27, "3 × 3 × 3")
        input_channels = e["num_patch_hidden_channels"] + 2 + 4 * e["num_frequency_bands"]
        _expect("image_shape of the decoder", list(d["image_shape"]), list(e["image_shape"]), "the encoder's")
        config = OpticalFlowConfig(
            **common,
            image_size=tuple(e["image_shape"]),
            num_bands=e["num_frequency_bands"],
            featurizer_channels=e["num_patch_hidden_channels"],
            decoder_qk_channels=_decoder_width(d, input_channels),
            # As in the reference: what he divides by, after multiplying by 20.
            flow_scale=20 / d["rescale_factor"],
        )
    for name in ("num_cross_attention_qk_channels", "num_cross_attention_v_channels"):
        _expect(name, e[name] or input_channels, input_channels, "the inputs' channels")
    return config


def name_table(config: DecoderConfig) -> Table:
    """Maps a configuration to the table of its model."""
    cross_attends = ["0.cross_attn_1"]
    if config.num_cross_attends > 1 and not config.share_first_cross_attend:
        cross_attends.append("0.cross_attn_n")
    blocks = ["0.self_attn_1"]
    if config.num_blocks > 1 and not config.share_first_block:
        blocks.append("0.self_attn_n")
    rows: Rows = encoder(config, NAMES, _LATENTS, cross_attends, blocks)
    decoder_names = {
        # Without a residual there is no module around the attention that would add it.
        ours: theirs if config.decoder_query_residual else theirs.replace("0.module.", "0.", 1)
        for ours, theirs in NAMES.cross_attention.items()
    }
    decoder_names |= {name: NAMES.cross_attention[name] for name in ("mlp_norm", "mlp.hidden", "mlp.output")}
    rows += layers("decoder.cross_attend", "1.cross_attn", decoder_names)
    if isinstance(config, LanguageConfig | TextClassificationConfig):
        rows += [
            Row("input_preprocessor.featurizer.weight", "0.input_adapter.txt_embedding.weight"),
            Row("input_preprocessor.position_encoding.embeddings", "0.input_adapter.pos_embedding.weight"),
        ]
    if isinstance(config, OpticalFlowConfig):
        rows += layer("input_preprocessor.featurizer.linear", "0.input_adapter.linear")
    else:
        rows.append(Row("output_query.position_encoding.embeddings", "1.output_query_provider._query"))
    if isinstance(config, LanguageConfig):
        rows.append(Row("output_postprocessor.bias", "1.output_adapter.bias"))
    else:
        rows += layer("decoder.output", "1.output_adapter.linear")
    return Table(rows, ignored=[_POSITIONS])


def check_positions(tensors: Mapping[str, Tensor], config: ModelConfig) -> None:
    """Checks that the Fourier features that he saves are those that ours computes.

    Raises:
        ValueError: if they differ by more than frequencies from `torch.linspace` do.
    """
    if _POSITIONS not in tensors or not isinstance(config, ImageClassificationConfig | OpticalFlowConfig):
        return
    saved = tensors[_POSITIONS].float()
    ours = FourierPositionEncoding(config.image_size, num_bands=config.num_bands)()[0]
    if saved.shape != ours.shape or not torch.allclose(saved, ours, rtol=0, atol=1e-3):
        raise ValueError(f"{_POSITIONS} holds other features than image_shape and num_frequency_bands make")


def _kind_of(tensors: Mapping[str, Tensor]) -> type[DecoderConfig]:
    if "1.output_adapter.bias" in tensors:
        return LanguageConfig
    if "0.input_adapter.txt_embedding.weight" in tensors:
        return TextClassificationConfig
    return OpticalFlowConfig if "0.input_adapter.linear.weight" in tensors else ImageClassificationConfig


def _classifier(decoder: Mapping[str, Any]) -> dict[str, Any]:
    d = {**_CLASSIFIER_DEFAULTS, **decoder}
    _expect("num_output_queries", d["num_output_queries"], 1, "the one that there is here")
    return {
        "num_classes": d["num_classes"],
        "query_channels": d["num_output_query_channels"],
        "decoder_qk_channels": _decoder_width(d, d["num_output_query_channels"]),
    }


def _decoder_width(decoder: Mapping[str, Any], query_channels: int) -> int:
    qk_channels: int = decoder["num_cross_attention_qk_channels"] or query_channels
    v_channels = decoder["num_cross_attention_v_channels"] or qk_channels
    _expect("num_cross_attention_v_channels of the decoder", v_channels, qk_channels, "that of queries and keys")
    return qk_channels


def _expect(name: str, value: Any, expected: Any, meaning: str) -> None:
    if value != expected:
        raise ValueError(f"its {name} ({value}) must be {expected} ({meaning}); other values have no counterpart here")
