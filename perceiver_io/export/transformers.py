"""transformers: a directory that its `from_pretrained` loads, wherever its classes can compute what the model does."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch

from perceiver_io.atomic import new_directory
from perceiver_io.models import (
    ImageClassificationConfig,
    LanguageConfig,
    OpticalFlowConfig,
    TextClassificationConfig,
    VideoAutoencodingConfig,
)
from perceiver_io.models.config import EncoderConfig, ModelConfig
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.weights.tables import invert_table
from perceiver_io.weights.transformers import name_table

FILES = {"config.json", "model.safetensors"}
# Ours, to theirs.
_ACTIVATIONS = {"gelu_tanh": "gelu_pytorch_tanh", "gelu": "gelu", "relu": "relu", "squared_relu": "relu2"}


def export_transformers(
    model: PerceiverIO, directory: str | Path, *, class_names: list[str] | None = None, overwrite: bool = False
) -> str:
    """Writes a task model as transformers' files, and returns the name of the class that loads them.

    The class computes the model's outputs, but a language model's at padding (it ignores the mask of queries), and flow
    in units of 20 pixels, as with the released one. With Fourier positions the outputs are up to 4e-5 of their
    deviation apart: its frequencies come from `torch.linspace`, an ulp off the reference's.

    Args:
        directory: new or empty, or with `overwrite` one that holds such files and nothing else.
        class_names: of a classifier, to be its labels.

    Raises:
        ValueError: where its classes compute something else; says which part of the model that is.
        FileExistsError: if the directory has files already.
    """
    config = model.config
    assert isinstance(config, ModelConfig)
    architecture, described = their_config(config)
    if class_names is not None:
        described["id2label"] = {str(index): name for index, name in enumerate(class_names)}
        described["label2id"] = {name: index for index, name in enumerate(class_names)}
    directory = Path(directory)
    with new_directory(directory, replaceable=FILES if overwrite else ()) as temporary:
        tensors = invert_table(name_table(config), model.state_dict())
        description = {"model_type": "perceiver", "architectures": [architecture], **described}
        (temporary / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        safetensors.torch.save_file(tensors, temporary / "model.safetensors", metadata={"format": "pt"})
    return architecture


def their_config(config: ModelConfig) -> tuple[str, dict[str, Any]]:
    """Maps a configuration to the class of transformers' that computes the same, and to its configuration.

    Raises:
        ValueError: if there is none.
    """
    assert isinstance(config, EncoderConfig)
    described: dict[str, Any] = {
        "num_latents": config.num_latents,
        "d_latents": config.num_latent_channels,
        "num_blocks": config.num_blocks,
        "num_self_attends_per_block": config.num_self_attends_per_block,
        "num_self_attention_heads": config.num_self_attend_heads,
        "num_cross_attention_heads": config.num_cross_attend_heads,
        "cross_attention_widening_factor": config.cross_attend_widening_factor,
        "self_attention_widening_factor": config.self_attend_widening_factor,
        "hidden_act": _ACTIVATIONS.get(config.activation),
    }
    _require(config.activation in _ACTIVATIONS, f"activation {config.activation!r}", "it has no such function")
    _require(config.num_cross_attends == 1, "num_cross_attends > 1", "its encoder attends to the inputs once")
    _require(config.share_first_block or config.num_blocks == 1, "share_first_block false", "its blocks are one")
    match config:
        case LanguageConfig() | TextClassificationConfig():
            described |= {
                "vocab_size": config.vocab_size,
                "max_position_embeddings": config.max_seq_len,
                "d_model": config.embed_channels,
                "qk_channels": config.qk_channels,
                "v_channels": None if config.qk_channels is None else config.num_latent_channels,
            }
            _require(config.decoder_widening_factor == 1, "decoder_widening_factor > 1", "its decoder's is 1")
            if isinstance(config, LanguageConfig):
                _require(config.num_decoder_heads == 8, "num_decoder_heads", "its decoder has 8 heads")
                width = config.decoder_qk_channels or config.qk_channels
                _require(width == 256, f"a decoder's width of queries of {width}", "it is 256 there")
                _require(not config.decoder_query_residual, "decoder_query_residual", "it has none there")
                return "PerceiverForMaskedLM", described
            _require_classifier(config, config.query_channels)
            return "PerceiverForSequenceClassification", {**described, **_labels(config.num_classes)}
        case ImageClassificationConfig():
            _require_classifier(config, config.query_channels)
            _require(config.decoder_widening_factor == 1, "decoder_widening_factor > 1", "its decoder's is 1")
            _require(config.num_image_channels == 3, "num_image_channels", "its images have 3 channels")
            _require(
                config.featurizer != "conv",
                "the convolution stem",
                "its stem pads 3 on either side and pools to 55×55, where the reference (and this model) has 56×56",
            )
            described |= _labels(config.num_classes)
            if config.position_encoding == "fourier":
                same = config.featurizer == "pixels" and config.num_bands == 64
                same = same and config.max_resolution == (224, 224)
                _require(same, "these Fourier features", "it has pixels with 64 bands up to 224 × 224 alone")
                return "PerceiverForImageClassificationFourier", described
            height, width = config.image_size
            widths = (config.featurizer_channels, config.position_channels)
            same = config.featurizer == "conv1x1" and height == width and widths == (256, 256)
            _require(same, "this preprocessor", "it has square images and 256 channels of each kind alone")
            return "PerceiverForImageClassificationLearned", {**described, "image_size": height}
        case OpticalFlowConfig():
            _require(config.num_bands == 64 and config.featurizer_channels == 64, "these channels", "it has 64 of each")
            _require(config.flow_scale == 0.2, f"flow_scale {config.flow_scale}", "the hub's models have 0.2")
            plain = config.num_decoder_heads == 1 and config.decoder_widening_factor == 1
            plain = plain and not config.decoder_query_residual
            _require(plain and not _own_width(config), "this decoder", "its own has one head and no residual")
            return "PerceiverForOpticalFlow", {**described, "train_size": list(config.image_size)}
        case VideoAutoencodingConfig():
            _require(
                False,
                "positions of sound",
                "its frequencies, from torch.linspace, are an ulp off: 1e-2 in the features at the released sizes",
            )
    raise ValueError(f"transformers has no class for {type(config).__name__}")


def _require_classifier(config: ImageClassificationConfig | TextClassificationConfig, query: int | None) -> None:
    if isinstance(config, TextClassificationConfig):
        _require(config.head_channels is None, "a head of two layers", "its classifiers have one")
    plain = config.num_decoder_heads == 1 and query in (None, config.num_latent_channels) and not _own_width(config)
    _require(plain, "this decoder", "its own has one head, and a query of the latents' width")
    _require(
        config.decoder_query_residual,
        "a decoder without the query's residual",
        "its classifiers always add it, where the reference's model of learned positions does not",
    )


def _own_width(config: OpticalFlowConfig | ImageClassificationConfig | TextClassificationConfig) -> bool:
    return config.decoder_qk_channels not in (None, config.num_latent_channels)


def _labels(num_classes: int) -> dict[str, Any]:
    names = [f"LABEL_{index}" for index in range(num_classes)]
    return {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _require(condition: bool, what: str, reason: str) -> None:
    if not condition:
        raise ValueError(
            f"transformers' classes cannot compute this model: {what} ({reason}); --to onnx and --to torch-export can"
        )
