"""startai's (formerly ivy's) Perceiver IO: its specification and constructor as typed.

    from perceiver_io.compat.startai import PerceiverIOSpec, perceiver_io_img_classification

Images are channels last. At the values of its documented program the model is `imagenet-fourier`, whose downloaded
weights it takes; other values build what this library's modules can express.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perceiver_io.attention import CrossAttention, SelfAttention
from perceiver_io.decoder import PerceiverDecoder
from perceiver_io.encoder import PerceiverEncoder, Round
from perceiver_io.fast import accelerate
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.position_encoding import FourierPositionEncoding, LearnedPositionEncoding
from perceiver_io.preprocessors import Preprocessor
from perceiver_io.queries import OutputQuery, PositionQuery
from perceiver_io.weights import load_model

_RELEASED = "imagenet-fourier"
_RESOLUTION = 224


@dataclasses.dataclass(kw_only=True)
class PerceiverIOSpec:
    """Sizes and options of a model, by startai's names and with its defaults.

    Attributes:
        input_dim: channels of the input.
        num_input_axes: axes of the input between batch and channels.
        output_dim: channels of the output.
        queries_dim: channels of the queries.
        network_depth: how many blocks of latent layers are applied.
        num_latents: number of latents.
        latent_dim: channels of a latent.
        num_cross_att_heads: heads of the cross-attentions.
        num_self_att_heads: heads of the self-attentions.
        cross_head_dim: channels of a head of the encoder's cross-attention.
        latent_head_dim: channels of a head of the self-attentions.
        weight_tie_layers: whether all blocks, and all cross-attentions, share their weights.
        learn_query: whether the model has queries of its own; without, each call brings them.
        query_shape: axes of the outputs, for `learn_query`.
        attn_dropout: probability of dropping an attention weight while training.
        fc_dropout: probability of dropping an output value of an MLP while training.
        num_lat_att_per_layer: self-attentions of a block.
        cross_attend_in_every_layer: whether the latents attend to the inputs before every block, not the first alone.
        with_decoder: True; a decoder without its MLP is not built.
        with_final_head: whether a linear layer follows the decoder; without, the output has `queries_dim` channels.
        fourier_encode_input: whether Fourier features of the positions are appended to the input.
        num_fourier_freq_bands: frequencies per axis.
        max_fourier_freq: twice the highest frequency; None: 224 for two axes, else the input's own sizes.
        device: to build the model on; None for PyTorch's default.

    Raises:
        ValueError: for `with_decoder=False`, `learn_query` without a `query_shape`, or a size that cannot be.
    """

    input_dim: int
    num_input_axes: int
    output_dim: int
    queries_dim: int = 1024
    network_depth: int = 8
    num_latents: int = 512
    latent_dim: int = 1024
    num_cross_att_heads: int = 1
    num_self_att_heads: int = 8
    cross_head_dim: int = 261
    latent_head_dim: int = 128
    weight_tie_layers: bool = True
    learn_query: bool = False
    query_shape: Sequence[int] | None = None
    attn_dropout: float | int = 0.0
    fc_dropout: float | int = 0.0
    num_lat_att_per_layer: int = 6
    cross_attend_in_every_layer: bool = False
    with_decoder: bool = True
    with_final_head: bool = True
    fourier_encode_input: bool = True
    num_fourier_freq_bands: int = 6
    max_fourier_freq: float | int | None = None
    device: Any = None

    def __post_init__(self) -> None:
        if self.learn_query and self.query_shape is None:
            raise ValueError("learn_query (True) needs query_shape, the axes of the outputs; for a classifier, [1]")
        if not self.with_decoder:
            raise ValueError("with_decoder (False) is not built here: a PerceiverDecoder has its MLP; leave it out")
        if self.max_fourier_freq is not None and not (self.max_fourier_freq > 0 and self.max_fourier_freq % 1 == 0):
            raise ValueError(f"max_fourier_freq ({self.max_fourier_freq}) must be a positive whole number, or None")
        for name in ("input_dim", "num_input_axes", "output_dim", "network_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")

    @property
    def token_channels(self) -> int:
        """Channels of an input with its position."""
        positions = self.num_input_axes * (2 * self.num_fourier_freq_bands + 1) if self.fourier_encode_input else 0
        return self.input_dim + positions


class ImageClassifier(nn.Module):
    """startai's Perceiver IO on this library's stages: data, channels last, to outputs [batch, *query_shape, channels].

    Args:
        spec: sizes and options.
    """

    def __init__(self, spec: PerceiverIOSpec) -> None:
        super().__init__()
        self.spec = spec
        query_shape = tuple(spec.query_shape or (1,))
        with torch.device(spec.device or torch.get_default_device()):
            self.perceiver = accelerate(
                PerceiverIO(
                    input_preprocessor=Preprocessor(_ChannelsLast(spec.input_dim), _positions(spec)),
                    encoder=_encoder(spec),
                    output_query=PositionQuery(LearnedPositionEncoding(math.prod(query_shape), spec.queries_dim))
                    if spec.learn_query
                    else _GivenQueries(spec.queries_dim),
                    decoder=PerceiverDecoder(
                        spec.queries_dim,
                        spec.latent_dim,
                        output_channels=spec.output_dim if spec.with_final_head else None,
                        num_heads=spec.num_cross_att_heads,
                        qk_channels=spec.num_cross_att_heads * spec.latent_dim,
                        use_query_residual=True,
                    ),
                )
            )
        self.query_shape = query_shape

    def forward(
        self,
        data: Float[Tensor, "*batch_and_axes channels"],
        mask: Any = None,
        queries: Float[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "..."]:
        """Maps data [*batch, *axes, channels] to outputs; with queries [batch, *axes, channels], to one for each.

        Args:
            data: channels last; any number of batch axes, also none.
            mask: [batch, *axes], True where an input is valid.
            queries: needed without `learn_query`.

        Raises:
            ValueError: for data of other axes or channels, or where there are no queries.
        """
        axes = self.spec.num_input_axes
        if data.ndim < axes + 1 or data.shape[-1] != self.spec.input_dim:
            raise ValueError(
                f"data {tuple(data.shape)} must be [*batch, *axes, channels] with num_input_axes ({axes}) axes and "
                f"input_dim ({self.spec.input_dim}) channels, channels last"
            )
        if queries is None and not self.spec.learn_query:
            raise ValueError("queries are needed: the model has none of its own, as learn_query (False) says")
        batch = data.shape[: -axes - 1]
        flat = data.reshape(-1, *data.shape[-axes - 1 :])
        encoding = self.perceiver.encode(flat, None if mask is None else mask.reshape(len(flat), -1))
        if queries is None:
            outputs, shape = self.perceiver.decode(encoding), self.query_shape
        else:
            rows = queries.flatten(1, -2)
            outputs, shape = self.perceiver.decoder(rows, encoding.latents), tuple(queries.shape[1:-1])
        return outputs.reshape(*batch, *shape, outputs.shape[-1])


def perceiver_io_img_classification(spec: PerceiverIOSpec, pretrained: bool = True) -> ImageClassifier:
    """Maps a specification to a model; with the released weights it is in evaluation mode.

    Args:
        pretrained: whether to take the weights of `imagenet-fourier`, which are downloaded beforehand.

    Raises:
        ValueError: for `pretrained` with sizes that are not the released model's.
        FileNotFoundError: if these weights are not here; the message says how to fetch them.
    """
    if not pretrained:
        return ImageClassifier(spec)
    wanted = PerceiverIOSpec(
        input_dim=3,
        num_input_axes=2,
        output_dim=1000,
        learn_query=True,
        query_shape=[1],
        num_fourier_freq_bands=64,
        # Of no influence on the weights.
        attn_dropout=spec.attn_dropout,
        fc_dropout=spec.fc_dropout,
        max_fourier_freq=spec.max_fourier_freq if spec.max_fourier_freq == _RESOLUTION else None,
        device=spec.device,
    )
    others = [
        f"{name} ({value!r}, not {getattr(wanted, name)!r})"
        for name, value in vars(spec).items()
        if (list(value) if isinstance(value, tuple) else value) != getattr(wanted, name)
    ]
    if others:
        raise ValueError(
            f"pretrained=True takes the weights of {_RELEASED}, of which the specification differs in "
            f"{', '.join(others)}; change that, or give pretrained=False"
        )
    released = load_model(_RELEASED)
    model = ImageClassifier(spec)
    model.perceiver.load_state_dict(released.state_dict())
    return model.eval()


class _GivenQueries(OutputQuery):
    """Stands for queries that come with each call, which go to the decoder past this."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels


class _ChannelsLast(nn.Module):
    """Takes data as they are."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.num_channels = num_channels

    def forward(self, data: Float[Tensor, "batch *axes channels"]) -> Float[Tensor, "batch *axes channels"]:
        """Returns the data."""
        return data


def _positions(spec: PerceiverIOSpec) -> FourierPositionEncoding | None:
    if not spec.fourier_encode_input:
        return None
    axes = spec.num_input_axes
    highest = spec.max_fourier_freq or (_RESOLUTION if axes == 2 else None)
    return FourierPositionEncoding(
        (_RESOLUTION,) * axes if axes == 2 else (1,) * axes,
        num_bands=spec.num_fourier_freq_bands,
        max_resolution=None if highest is None else (int(highest),) * axes,
    )


def _encoder(spec: PerceiverIOSpec) -> PerceiverEncoder:
    rounds = []
    for index in range(spec.network_depth):
        shared = 0 if spec.weight_tie_layers else index
        attends = index == 0 or spec.cross_attend_in_every_layer
        rounds.append(Round(shared if attends else None, shared))
    cross_attends = [
        CrossAttention(
            spec.latent_dim,
            spec.token_channels,
            num_heads=spec.num_cross_att_heads,
            qk_channels=spec.num_cross_att_heads * spec.cross_head_dim,
            attention_dropout_prob=spec.attn_dropout,
        )
        for _ in {entry.cross_attend for entry in rounds} - {None}
    ]
    blocks = [
        [
            SelfAttention(
                spec.latent_dim,
                num_heads=spec.num_self_att_heads,
                qk_channels=spec.num_self_att_heads * spec.latent_head_dim,
                widening_factor=1,
                attention_dropout_prob=spec.attn_dropout,
            )
            for _ in range(spec.num_lat_att_per_layer)
        ]
        for _ in {entry.block for entry in rounds}
    ]
    layers: list[CrossAttention | SelfAttention] = [*cross_attends, *(layer for block in blocks for layer in block)]
    for layer in layers:
        layer.mlp.dropout_prob = spec.fc_dropout
    latents = LearnedPositionEncoding(spec.num_latents, spec.latent_dim)
    return PerceiverEncoder.of_blocks(latents, cross_attends, blocks, rounds)
