"""The names and shapes of the reference's parameters, as a table of ours.

A table is a list of rows (our name, Haiku's name, transform), composed module by module as the modules are. Haiku
counts modules of a name within their parent (`linear`, `linear_1`, …) and marks the method that made them (`~` for the
constructor, `~decoder_query`).

    reference                                here
    z, z_pos_enc                             latents
    z_index_dim, num_z_channels              num_latents, num_latent_channels
    TrainablePositionEncoding.pos_embs       LearnedPositionEncoding.embeddings
    PositionEncodingProjector                ProjectedPositionEncoding
    BasicDecoder                             PerceiverDecoder and PositionQuery
    ClassificationDecoder, FlowDecoder, …    PerceiverDecoder, a query and a postprocessor
    EmbeddingDecoder                         TiedEmbeddingPostprocessor
"""

from enum import Enum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perceiver_io.encoder import perceiver_io_rounds
from perceiver_io.models import (
    ImageClassificationConfig,
    LanguageConfig,
    OpticalFlowConfig,
    VideoAutoencodingConfig,
)
from perceiver_io.models.config import EncoderConfig, ModelConfig

Array = NDArray[np.generic]


class Transform(Enum):
    """Change of a Haiku array on its way."""

    NONE = "as it is"
    TRANSPOSE = "linear: [in, out] to [out, in]"
    FLATTEN = "batch norm: [1, 1, 1, channels] to [channels]"
    CONVOLUTION = "convolution: [*kernel, in, out] to [out, in, *kernel]"
    POINTWISE = "1×1 convolution: [1, 1, in, out] to [out, in]"
    TRANSPOSED_CONVOLUTION = "transposed convolution: [*kernel, out, in] to [in, out, *kernel], kernel reversed"

    def __call__(self, array: Array) -> Array:
        """Applies the transform, as a view."""
        kernel_axes = tuple(range(array.ndim - 2))
        match self:
            case Transform.NONE:
                return array
            case Transform.TRANSPOSE:
                return array.T
            case Transform.FLATTEN:
                return array.reshape(-1)
            case Transform.CONVOLUTION:
                return array.transpose(-1, -2, *kernel_axes)
            case Transform.POINTWISE:
                return array.reshape(array.shape[-2:]).T
            case Transform.TRANSPOSED_CONVOLUTION:
                return np.flip(array, kernel_axes).transpose(-1, -2, *kernel_axes)


class Row(NamedTuple):
    """One tensor: our name, Haiku's, and what happens on the way."""

    target: str
    source: str
    transform: Transform = Transform.NONE


Table = list[Row]


def linear(target: str, source: str, bias: bool = True) -> Table:
    """A linear layer."""
    weight = Row(f"{target}.weight", f"{source}/w", Transform.TRANSPOSE)
    return [weight, Row(f"{target}.bias", f"{source}/b")] if bias else [weight]


def conv1x1(target: str, source: str) -> Table:
    """A 1×1 convolution, which is a linear layer here."""
    return [Row(f"{target}.weight", f"{source}/w", Transform.POINTWISE), Row(f"{target}.bias", f"{source}/b")]


def transposed_convolution(target: str, source: str) -> Table:
    """A transposed convolution."""
    return [
        Row(f"{target}.weight", f"{source}/w", Transform.TRANSPOSED_CONVOLUTION),
        Row(f"{target}.bias", f"{source}/b"),
    ]


def layer_norm(target: str, source: str) -> Table:
    """A layer norm."""
    return [Row(f"{target}.weight", f"{source}/scale"), Row(f"{target}.bias", f"{source}/offset")]


def batch_norm(target: str, source: str) -> Table:
    """A batch norm with its running averages."""
    rows = [
        Row(f"{target}.weight", f"{source}/scale", Transform.FLATTEN),
        Row(f"{target}.bias", f"{source}/offset", Transform.FLATTEN),
    ]
    for ours, theirs in (("mean", "mean_ema"), ("variance", "var_ema")):
        rows += [
            Row(f"{target}.{ours}.average", f"{source}/~/{theirs}/average", Transform.FLATTEN),
            Row(f"{target}.{ours}.hidden", f"{source}/~/{theirs}/hidden", Transform.FLATTEN),
            Row(f"{target}.{ours}.counter", f"{source}/~/{theirs}/counter"),
        ]
    return rows


def attention(target: str, source: str, output_bias: bool = True) -> Table:
    """Multi-head attention."""
    return [
        *linear(f"{target}.query", f"{source}/linear"),
        *linear(f"{target}.key", f"{source}/linear_1"),
        *linear(f"{target}.value", f"{source}/linear_2"),
        *linear(f"{target}.output", f"{source}/linear_3", bias=output_bias),
    ]


def mlp(target: str, source: str) -> Table:
    """The MLP after an attention."""
    return [*linear(f"{target}.hidden", f"{source}/linear"), *linear(f"{target}.output", f"{source}/linear_1")]


def self_attention(target: str, source: str, mlp_name: str = "mlp") -> Table:
    """A self-attention block."""
    return [
        *layer_norm(f"{target}.attention_norm", f"{source}/layer_norm"),
        *attention(f"{target}.attention", f"{source}/attention"),
        *layer_norm(f"{target}.mlp_norm", f"{source}/layer_norm_1"),
        *mlp(f"{target}.mlp", f"{source}/{mlp_name}"),
    ]


def cross_attention(target: str, source: str, mlp_name: str = "mlp") -> Table:
    """A cross-attention block."""
    return [
        *layer_norm(f"{target}.query_norm", f"{source}/layer_norm"),
        *layer_norm(f"{target}.input_norm", f"{source}/layer_norm_1"),
        *attention(f"{target}.attention", f"{source}/attention"),
        *layer_norm(f"{target}.mlp_norm", f"{source}/layer_norm_2"),
        *mlp(f"{target}.mlp", f"{source}/{mlp_name}"),
    ]


def learned_positions(target: str, source: str) -> Table:
    """A trained position encoding."""
    return [Row(f"{target}.embeddings", f"{source}/pos_embs")]


def projected_learned_positions(target: str, source: str) -> Table:
    """A trained position encoding with its projection."""
    return [
        *learned_positions(f"{target}.base", f"{source}/trainable_position_encoding"),
        *linear(f"{target}.projection", f"{source}/position_encoding_projector/linear"),
    ]


def residual_mlp_positions(target: str, source: str, num_layers: int) -> Table:
    """The layers that deepen a position encoding."""
    return [
        row
        for layer in range(num_layers)
        for row in linear(f"{target}.layers.{layer}", f"{source}/{counted('linear', layer)}")
    ]


def conv_2d_upsample(target: str, source: str) -> Table:
    """The two transposed convolutions of an image postprocessor."""
    return [
        *transposed_convolution(f"{target}.layers.0", f"{source}/~/transp_conv_1"),
        *transposed_convolution(f"{target}.layers.1", f"{source}/~/transp_conv_2"),
    ]


def conv_3d_upsample(target: str, source: str, num_layers: int) -> Table:
    """The transposed convolutions of a video postprocessor."""
    return [
        row
        for layer in range(num_layers)
        for row in transposed_convolution(f"{target}.layers.{layer}", f"{source}/conv3d_transpose_{layer}")
    ]


def conv_downsample(target: str, source: str, num_layers: int, use_batchnorm: bool = True) -> Table:
    """The convolution stem."""
    rows: Table = []
    for layer in range(num_layers):
        convolution = Row(
            f"{target}.convolutions.{layer}.weight", f"{source}/~/{counted('conv', layer)}/w", Transform.CONVOLUTION
        )
        rows.append(convolution)
        if use_batchnorm:
            rows += batch_norm(f"{target}.batch_norms.{layer}", f"{source}/~/{counted('batchnorm', layer)}")
    return rows


def encoder(target: str, source: str, num_self_attends_per_block: int) -> Table:
    """An encoder."""
    rows = [
        *learned_positions(f"{target}.latents", f"{source}/~/trainable_position_encoding"),
        *cross_attention(f"{target}.cross_attend", f"{source}/~/cross_attention"),
    ]
    for layer in range(num_self_attends_per_block):
        rows += self_attention(f"{target}.self_attends.{layer}", f"{source}/~/{counted('self_attention', layer)}")
    return rows


def decoder(target: str, source: str, output: bool = True) -> Table:
    """A decoder, with or without its last layer."""
    rows = cross_attention(f"{target}.cross_attend", f"{source}/cross_attention")
    return [*rows, *linear(f"{target}.output", f"{source}/output")] if output else rows


def padding(target: str, source: str, kind: str, modalities: list[str]) -> Table:
    """The trained vectors that pad or mask the rows of each modality."""
    return [Row(f"{target}.{name}", f"{source}/{name}_{kind}/pos_embs", Transform.FLATTEN) for name in modalities]


def counted(name: str, index: int) -> str:
    """Haiku's name of the index-th module called `name`."""
    return f"{name}_{index}" if index else name


def name_table(config: ModelConfig) -> Table:
    """Maps a configuration to the table of its model.

    Raises:
        ValueError: for a model that the reference has none of.
    """
    if isinstance(config, EncoderConfig) and config.rounds != perceiver_io_rounds(config.num_blocks):
        raise ValueError(
            "there is no table of Haiku names for an encoder of other rounds than Perceiver IO's; leave out "
            "num_cross_attends and share_first_block"
        )
    match config:
        case LanguageConfig():
            return [
                Row("input_preprocessor.featurizer.weight", "embed/embeddings"),
                *learned_positions("input_preprocessor.position_encoding", "trainable_position_encoding"),
                *encoder("encoder", "perceiver_encoder", config.num_self_attends_per_block),
                *learned_positions("output_query.position_encoding", "basic_decoder/~/trainable_position_encoding"),
                *decoder("decoder", "basic_decoder", output=False),
                Row("output_postprocessor.bias", "embedding_decoder/bias"),
            ]
        case ImageClassificationConfig():
            return [
                *_image_preprocessor(config),
                *encoder("encoder", "perceiver_encoder", config.num_self_attends_per_block),
                *learned_positions(
                    "output_query.position_encoding",
                    "classification_decoder/~/basic_decoder/~/trainable_position_encoding",
                ),
                *decoder("decoder", "classification_decoder/~/basic_decoder"),
            ]
        case OpticalFlowConfig():
            return [
                *linear("input_preprocessor.featurizer.linear", "image_preprocessor/patches_linear"),
                *encoder("encoder", "perceiver_encoder", config.num_self_attends_per_block),
                *decoder("decoder", "flow_decoder/~/basic_decoder"),
            ]
        case VideoAutoencodingConfig():
            names = ["audio", "image", "label"]
            return [
                *padding("input_preprocessor.padding", "multimodal_preprocessor", "padding", names),
                *padding("input_preprocessor.mask_tokens", "multimodal_preprocessor", "mask_token", names),
                *encoder("encoder", "encoder", config.num_self_attends_per_block),
                *padding("output_query.padding", "multimodal_decoder/~decoder_query", "padding", names),
                *learned_positions(
                    "output_query.modalities.label.position_encoding",
                    "classification_decoder/~/basic_decoder/~/trainable_position_encoding",
                ),
                *decoder("decoder", "multimodal_decoder/~/basic_decoder"),
                *linear("output_postprocessor.modalities.audio.linear", "audio_postprocessor/linear"),
                *linear("output_postprocessor.modalities.image.linear", "projection_postprocessor/linear"),
                *linear("output_postprocessor.modalities.label.linear", "classification_postprocessor/linear"),
            ]
    raise ValueError(f"there is no table of Haiku names for {type(config).__name__}")


def _image_preprocessor(config: ImageClassificationConfig) -> Table:
    rows: Table = []
    if config.featurizer == "conv":
        stem = "input_preprocessor.featurizer.downsample"
        rows += conv_downsample(stem, "image_preprocessor/~/conv2_d_downsample", num_layers=1)
    if config.featurizer == "conv1x1":
        rows += conv1x1("input_preprocessor.featurizer.linear", "image_preprocessor/~/conv2_d")
    if config.position_encoding == "learned":
        rows += projected_learned_positions(
            "input_preprocessor.position_encoding", "image_preprocessor/~_build_network_inputs"
        )
    return rows
