"""The names and sizes of transformers' Perceiver models, as tables of ours.

The six `deepmind/…` repositories of the Hugging Face hub and whatever was fine-tuned from them. What comes out computes
DeepMind's function, of which transformers' is an approximation in places (docs/differences.md says by how much): tanh
GELU, the stem's SAME padding, the decoder without its residual where positions are learned, frequencies bit for bit.

    transformers                             here
    perceiver.embeddings.latents             encoder.latents.embeddings
    …attention.self.layernorm1, layernorm2   query_norm (attention_norm), input_norm
    …layernorm, mlp.dense1, mlp.dense2       mlp_norm, mlp.hidden, mlp.output
    …decoder.final_layer                     decoder.output
    embedding_decoder.bias                   output_postprocessor.bias (the weight is tied)
    padding.NAME, mask.NAME                  padding.NAME, mask_tokens.NAME
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from perceiver_io.attention import Activation
from perceiver_io.models import (
    ImageClassificationConfig,
    LanguageConfig,
    OpticalFlowConfig,
    TextClassificationConfig,
    VideoAutoencodingConfig,
)
from perceiver_io.models.config import EncoderConfig, ModelConfig
from perceiver_io.presets import PRESETS
from perceiver_io.weights.tables import BlockNames, Row, Rows, Table, Transform, batch_norm, encoder, layer, layers

MODALITIES = ("audio", "image", "label")

_ATTENTION = {
    **{f"attention.{name}": f"attention.self.{name}" for name in ("query", "key", "value")},
    "attention.output": "attention.output.dense",
    "mlp_norm": "layernorm",
    "mlp.hidden": "mlp.dense1",
    "mlp.output": "mlp.dense2",
}
NAMES = BlockNames(
    cross_attention={
        "query_norm": "attention.self.layernorm1",
        "input_norm": "attention.self.layernorm2",
        **_ATTENTION,
    },
    self_attention={"attention_norm": "attention.self.layernorm1", **_ATTENTION},
)

# The configuration's defaults: a file leaves out what has its default.
# Source: configuration_perceiver.py of transformers 5.24.0.
DEFAULTS: dict[str, Any] = {
    "num_latents": 256,
    "d_latents": 1280,
    "d_model": 768,
    "num_blocks": 1,
    "num_self_attends_per_block": 26,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 8,
    "qk_channels": None,
    "v_channels": None,
    "cross_attention_shape_for_attention": "kv",
    "self_attention_widening_factor": 1,
    "cross_attention_widening_factor": 1,
    "hidden_act": "gelu",
    "use_query_residual": True,
    "vocab_size": 262,
    "max_position_embeddings": 2048,
    "image_size": 56,
    "train_size": [368, 496],
    "num_frames": 16,
    "audio_samples_per_frame": 1920,
    "samples_per_patch": 16,
    "output_shape": [1, 16, 224, 224],
    "output_num_channels": 512,
    "_label_trainable_num_channels": 1024,
}
# Theirs, to ours: every GELU is DeepMind's.
ACTIVATIONS: dict[str, Activation] = {
    **dict.fromkeys(("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python"), "gelu_tanh"),
    "relu": "relu",
    "relu2": "squared_relu",
}
# The decoder of the language model has these whatever the configuration says.
_DECODER_HEADS, _DECODER_QK_CHANNELS = 8, 8 * 32

# Their classes, by the released model that each is.
ARCHITECTURES = {
    "PerceiverForMaskedLM": "language",
    "PerceiverForSequenceClassification": None,
    "PerceiverForImageClassificationFourier": "imagenet-fourier",
    "PerceiverForImageClassificationLearned": "imagenet-learned",
    "PerceiverForImageClassificationConvProcessing": "imagenet-conv",
    "PerceiverForOpticalFlow": "optical-flow",
    "PerceiverForMultimodalAutoencoding": "video-autoencoding",
}


def recognises(tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> bool:
    """Whether something looks like one of transformers' Perceivers."""
    if config is not None and "model_type" in config:
        return bool(config["model_type"] == "perceiver")
    return "perceiver.embeddings.latents" in tensors


def architecture_of(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> str:
    """Maps a configuration, or names where it does not tell, to the name of their class.

    Raises:
        ValueError: for a class that has no model here.
    """
    named = config.get("architectures") or []
    if len(named) == 1:
        if named[0] not in ARCHITECTURES:
            raise ValueError(
                f"it holds a {named[0]}, which has no model here; those with one are {', '.join(ARCHITECTURES)}"
            )
        return str(named[0])
    if "embedding_decoder.bias" in tensors:
        return "PerceiverForMaskedLM"
    if "perceiver.input_preprocessor.embeddings.weight" in tensors:
        return "PerceiverForSequenceClassification"
    preprocessor = "perceiver.input_preprocessor."
    for part, name in (
        ("conv_after_patches.", "PerceiverForOpticalFlow"),
        ("padding.", "PerceiverForMultimodalAutoencoding"),
        ("convnet_1x1.", "PerceiverForImageClassificationLearned"),
        ("convnet.", "PerceiverForImageClassificationConvProcessing"),
    ):
        if any(tensor.startswith(preprocessor + part) for tensor in tensors):
            return name
    return "PerceiverForImageClassificationFourier"


def model_config(architecture: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> ModelConfig:
    """Maps their configuration to ours; sizes of heads are those of the tensors.

    Raises:
        ValueError: for a value that changes the function in a way that has no counterpart here.
    """
    values = {**DEFAULTS, **config}
    _refuse_the_rest(architecture, values)
    common: dict[str, Any] = {
        "num_latents": values["num_latents"],
        "num_latent_channels": values["d_latents"],
        "num_self_attends_per_block": values["num_self_attends_per_block"],
        "num_blocks": values["num_blocks"],
        "num_self_attend_heads": values["num_self_attention_heads"],
        "num_cross_attend_heads": values["num_cross_attention_heads"],
        "activation": ACTIVATIONS[values["hidden_act"]],
        "cross_attend_widening_factor": values["cross_attention_widening_factor"],
        "self_attend_widening_factor": values["self_attention_widening_factor"],
    }
    text = {
        "vocab_size": values["vocab_size"],
        "max_seq_len": values["max_position_embeddings"],
        "embed_channels": values["d_model"],
        "qk_channels": values["qk_channels"],
    }
    match architecture:
        case "PerceiverForMaskedLM":
            # None is the encoder's width, as in the released model.
            width = None if values["qk_channels"] == _DECODER_QK_CHANNELS else _DECODER_QK_CHANNELS
            return LanguageConfig(**common, **text, num_decoder_heads=_DECODER_HEADS, decoder_qk_channels=width)
        case "PerceiverForSequenceClassification":
            return TextClassificationConfig(**common, **text, num_classes=_num_classes(tensors))
        case "PerceiverForOpticalFlow":
            return OpticalFlowConfig(**common, image_size=tuple(values["train_size"]))
        case "PerceiverForMultimodalAutoencoding":
            if len(values["output_shape"]) != 4:
                raise ValueError(f"its output_shape {values['output_shape']} must be batch, frames, height and width")
            _, frames, height, width = values["output_shape"]
            if (height % 4, width % 4, frames, height // 4, width // 4) != (
                *(0, 0, values["num_frames"]),
                *(values["image_size"], values["image_size"]),
            ):
                raise ValueError(
                    f"its output_shape {values['output_shape']} must be num_frames ({values['num_frames']}) frames of "
                    f"four times image_size ({values['image_size']}), its number of patches"
                )
            weight = tensors.get("perceiver.output_postprocessor.modalities.label.classifier.weight")
            return VideoAutoencodingConfig(
                **common,
                num_frames=frames,
                image_size=(height, width),
                audio_samples_per_frame=values["audio_samples_per_frame"],
                audio_samples_per_patch=values["samples_per_patch"],
                decoder_channels=values["output_num_channels"],
                label_query_channels=values["_label_trainable_num_channels"],
                num_classes=1 if weight is None else weight.shape[0],
            )
    preset = PRESETS[ARCHITECTURES[architecture] or ""]
    assert isinstance(preset, ImageClassificationConfig)
    # Only learned positions know a size of images; the others take any.
    size = values["image_size"] if preset.position_encoding == "learned" else 224
    return ImageClassificationConfig.from_dict(
        {
            **preset.to_dict(),
            **common,
            "image_size": [size, size] if isinstance(size, int) else size,
            "num_classes": _num_classes(tensors),
        }
    )


def name_table(config: ModelConfig) -> Table:
    """Maps a configuration to the table of its model."""
    match config:
        case LanguageConfig():
            return Table(
                [
                    *_text_preprocessor(),
                    *_encoder(config),
                    *_query("output_query", "perceiver.decoder"),
                    *_decoder("perceiver.decoder", output=False),
                    Row("output_postprocessor.bias", "embedding_decoder.bias"),
                ],
            )
        case TextClassificationConfig():
            return Table([*_text_preprocessor(), *_encoder(config), *_classifier()])
        case ImageClassificationConfig():
            stem, made, ignored = _image_preprocessor(config)
            return Table([*stem, *_encoder(config), *_classifier()], made, ignored)
        case OpticalFlowConfig():
            patches = layer("input_preprocessor.featurizer.linear", "perceiver.input_preprocessor.conv_after_patches")
            return Table([*patches, *_encoder(config), *_decoder("perceiver.decoder.decoder")])
        case VideoAutoencodingConfig():
            label = "modalities.label"
            rows = [
                *_encoder(config),
                *_query(f"output_query.{label}", f"perceiver.decoder.{label}.decoder"),
                *_decoder("perceiver.decoder.decoder"),
            ]
            for name in MODALITIES:
                rows += [
                    _per_modality("input_preprocessor.padding", "perceiver.input_preprocessor.padding", name),
                    _per_modality("input_preprocessor.mask_tokens", "perceiver.input_preprocessor.mask", name),
                    _per_modality("output_query.padding", "perceiver.decoder.padding", name),
                    *layer(
                        f"output_postprocessor.modalities.{name}.linear",
                        f"perceiver.output_postprocessor.modalities.{name}.classifier",
                    ),
                ]
            return Table(rows)
    raise ValueError(f"there is no table of transformers' names for {type(config).__name__}")


def class_names(config: Mapping[str, Any]) -> list[str] | None:
    """Maps their configuration to the names of its classes, unless they are only numbered."""
    labels = config.get("id2label")
    if not isinstance(labels, dict) or set(labels) != {str(index) for index in range(len(labels))}:
        return None
    names = [str(labels[str(index)]) for index in range(len(labels))]
    return None if names == [f"LABEL_{index}" for index in range(len(names))] else names


def _refuse_the_rest(architecture: str, values: Mapping[str, Any]) -> None:
    if values["hidden_act"] not in ACTIVATIONS:
        raise ValueError(f"its hidden_act ({values['hidden_act']!r}) must be one of {', '.join(ACTIVATIONS)}")
    if not values["use_query_residual"]:
        raise ValueError("its encoder leaves out the query's residual (use_query_residual false), which ours does not")
    of_text = architecture in ("PerceiverForMaskedLM", "PerceiverForSequenceClassification")
    qk_channels, v_channels = values["qk_channels"], values["v_channels"]
    widths = (qk_channels, v_channels)
    if widths != (None, None) and not (of_text and qk_channels is not None and v_channels == values["d_latents"]):
        raise ValueError(
            f"its qk_channels ({qk_channels}) and v_channels ({v_channels}) must both be null, or in a model of text "
            f"both be given, and v_channels be d_latents ({values['d_latents']})"
        )
    if qk_channels is None and values["cross_attention_shape_for_attention"] != "kv":
        raise ValueError(
            "its cross_attention_shape_for_attention "
            f"({values['cross_attention_shape_for_attention']!r}) must be 'kv', as in the released models"
        )


def _num_classes(tensors: Mapping[str, Tensor]) -> int:
    weight = tensors.get("perceiver.decoder.decoder.final_layer.weight")
    return 1 if weight is None else weight.shape[0]


def _encoder(config: EncoderConfig) -> Rows:
    return encoder(
        config,
        NAMES,
        "perceiver.embeddings.latents",
        ["perceiver.encoder.cross_attention"],
        ["perceiver.encoder.self_attends"],
    )


def _decoder(source: str, output: bool = True) -> Rows:
    rows = layers("decoder.cross_attend", f"{source}.decoding_cross_attention", NAMES.cross_attention)
    return [*rows, *layer("decoder.output", f"{source}.final_layer")] if output else rows


def _query(target: str, source: str) -> Rows:
    return [Row(f"{target}.position_encoding.embeddings", f"{source}.output_position_encodings.position_embeddings")]


def _classifier() -> Rows:
    return [*_query("output_query", "perceiver.decoder.decoder"), *_decoder("perceiver.decoder.decoder")]


def _text_preprocessor() -> Rows:
    source = "perceiver.input_preprocessor"
    return [
        Row("input_preprocessor.featurizer.weight", f"{source}.embeddings.weight"),
        Row("input_preprocessor.position_encoding.embeddings", f"{source}.position_embeddings.weight"),
    ]


def _image_preprocessor(config: ImageClassificationConfig) -> tuple[Rows, Mapping[str, float], list[str]]:
    target, source = "input_preprocessor", "perceiver.input_preprocessor"
    match config.featurizer:
        case "conv":
            norm = batch_norm(f"{target}.featurizer.downsample.batch_norms.0", f"{source}.convnet.batchnorm")
            convolution = f"{target}.featurizer.downsample.convolutions.0"
            return (
                [*layer(convolution, f"{source}.convnet.conv", bias=False), *norm.rows],
                norm.made,
                list(norm.ignored),
            )
        case "conv1x1":
            rows = [
                Row(f"{target}.featurizer.linear.weight", f"{source}.convnet_1x1.weight", Transform.POINTWISE),
                Row(f"{target}.featurizer.linear.bias", f"{source}.convnet_1x1.bias"),
                Row(
                    f"{target}.position_encoding.base.embeddings",
                    f"{source}.position_embeddings.position_embeddings",
                ),
                *layer(f"{target}.position_encoding.projection", f"{source}.positions_projection"),
            ]
            return rows, {}, []
    return [], {}, []


def _per_modality(target: str, source: str, name: str) -> Row:
    return Row(f"{target}.{name}", f"{source}.{name}", Transform.ROW)
