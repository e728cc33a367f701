"""A start from which a small language model learns within minutes: every latent begins by reading the bytes near it.

From the usual start, positions are faint beside the bytes and all latents attend everywhere, so that such a model
predicts the same bytes everywhere for a long time. Here the heads of every attention begin by looking a fixed number of
bytes to one side, as a convolution does, and outputs by asking the latents at their place. Weights alone are set, all
of which are then trained: the model is the same. Not in the paper.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.attention import Attention, SelfAttention
from perceiver_io.decoder import PerceiverDecoder
from perceiver_io.encoder import PerceiverEncoder
from perceiver_io.models import LanguagePerceiver
from perceiver_io.position_encoding import LearnedPositionEncoding
from perceiver_io.preprocessors import ByteEmbedding, Preprocessor
from perceiver_io.queries import PositionQuery

# Wavelengths in bytes: short ones tell neighbours apart, long ones what is far apart and looks alike to the others.
_WAVELENGTHS = (3.0, 4.2, 6.0, 9.0, 16.0, 32.0, 80.0, 256.0)
# Channels of a place: a sine and a cosine each.
PLACE_CHANNELS = 2 * len(_WAVELENGTHS)

# How far the heads of each kind of attention look to the right, in bytes; further heads start again from the first.
# With a latent every two bytes, half a byte to either side of an output are the latent of its pair and a pair's border.
_ENCODER_OFFSETS = (-0.5, 0.5, -1.5, 1.5)
_SELF_OFFSETS = (-9.0, -3.0, 3.0, 9.0)
_DECODER_OFFSETS = (0.5, -0.5)
# Scores of what lies where a head looks; those of what is far from it are about 0.
_SCORE, _SELF_SCORE = 9.0, 5.0

# What remains of the random start of queries and keys beside it.
_RANDOM_SHARE = 0.3
# Deviation of the bytes' embeddings, and amplitudes of places: in tokens and queries, and in latents.
_EMBEDDING_STD, _PLACE, _LATENT_PLACE, _LATENT_STD = 0.4, 1.0, 1.5, 0.02
# Mean square that the encoder's attention adds to the channels of a latent.
_ATTENDED_VARIANCE = 0.5


@torch.no_grad()
def start_like_a_convolution(model: LanguagePerceiver) -> None:
    """Sets a new model's weights as above.

    Args:
        model: each of its heads has `PLACE_CHANNELS` (16) query channels, and latents and embeddings have no fewer.

    Raises:
        ValueError: if the model does not have these sizes.
    """
    config = model.config
    for name in ("num_cross_attend_heads", "num_self_attend_heads", "num_decoder_heads"):
        if getattr(config, name) * PLACE_CHANNELS != config.qk_channels:
            raise ValueError(
                f"a local start needs qk_channels ({config.qk_channels}) to be {PLACE_CHANNELS} times {name} "
                f"({getattr(config, name)})"
            )
    for name in ("embed_channels", "num_latent_channels"):
        if getattr(config, name) < PLACE_CHANNELS:
            raise ValueError(f"a local start needs {name} ({getattr(config, name)}) to be at least {PLACE_CHANNELS}")
    preprocessor, encoder, query, decoder = model.input_preprocessor, model.encoder, model.output_query, model.decoder
    assert isinstance(preprocessor, Preprocessor)
    assert isinstance(encoder, PerceiverEncoder)
    assert isinstance(decoder, PerceiverDecoder)
    assert isinstance(preprocessor.featurizer, ByteEmbedding)
    assert isinstance(preprocessor.position_encoding, LearnedPositionEncoding)
    assert isinstance(query, PositionQuery)
    assert isinstance(query.position_encoding, LearnedPositionEncoding)

    places = torch.arange(config.max_seq_len, dtype=torch.float32)
    centres = (torch.arange(config.num_latents) + 0.5) * (config.max_seq_len / config.num_latents) - 0.5
    preprocessor.featurizer.weight.normal_(std=_EMBEDDING_STD)[:, :PLACE_CHANNELS] = 0
    _set_places(preprocessor.position_encoding, _PLACE * waves(places))
    _set_places(query.position_encoding, _PLACE * waves(places))
    _set_places(encoder.latents, _LATENT_PLACE * waves(centres), std=_LATENT_STD)

    # Amplitudes of places after the layer norms: amplitude over root mean square.
    embed, latent = config.embed_channels, config.num_latent_channels
    token_square = (PLACE_CHANNELS / 2 * _PLACE**2 + (embed - PLACE_CHANNELS) * _EMBEDDING_STD**2) / embed
    latent_square = PLACE_CHANNELS / 2 * _LATENT_PLACE**2 / latent
    in_tokens = _PLACE / math.sqrt(token_square)
    in_queries = math.sqrt(embed / (PLACE_CHANNELS / 2))
    in_new_latents = math.sqrt(latent / (PLACE_CHANNELS / 2))
    in_latents = _LATENT_PLACE / math.sqrt(latent_square + _ATTENDED_VARIANCE)
    encode, decode = encoder.cross_attend, decoder.cross_attend
    _look_aside(encode.attention, _ENCODER_OFFSETS, _SCORE / (in_new_latents * in_tokens))
    _look_aside(decode.attention, _DECODER_OFFSETS, _SCORE / (in_queries * in_latents))
    num_layers = len(encoder.self_attends) * config.num_blocks
    for layer in encoder.self_attends:
        assert isinstance(layer, SelfAttention)
        _look_aside(layer.attention, _SELF_OFFSETS, _SELF_SCORE / in_latents**2)
        for output in (layer.attention.output, layer.mlp.output):
            output.weight.mul_(num_layers**-0.5)
    for output in (decode.attention.output, decode.mlp.output):
        output.weight.mul_(0.3)  # so that the first predictions are not certain


def waves(places: Float[Tensor, " places"]) -> Float[Tensor, "places channels"]:
    """Maps places in bytes to sines and cosines; near places have like ones."""
    angles = 2 * math.pi * places[:, None] / places.new_tensor(_WAVELENGTHS)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def moved(offset: float) -> Float[Tensor, "channels channels"]:
    """Maps an offset in bytes to the matrix that takes the waves of any place to those of the place so much later."""
    angles = 2 * math.pi * offset / torch.tensor(_WAVELENGTHS)
    return torch.block_diag(
        *(torch.tensor([[angle.cos(), angle.sin()], [-angle.sin(), angle.cos()]]) for angle in angles)
    )


def _set_places(encoding: LearnedPositionEncoding, values: Float[Tensor, "places channels"], std: float = 0.0) -> None:
    encoding.embeddings.normal_(std=std)[:, :PLACE_CHANNELS] = values


def _look_aside(attention: Attention, offsets: Sequence[float], score: float) -> None:
    """Makes each head's score highest where the key's place is the query's plus the head's offset.

    Args:
        offsets: of the heads, in bytes.
        score: the highest, for places of amplitude 1.
    """
    gain = math.sqrt(score * math.sqrt(PLACE_CHANNELS) / len(_WAVELENGTHS))
    for head in range(attention.num_heads):
        rows = slice(head * PLACE_CHANNELS, (head + 1) * PLACE_CHANNELS)
        for layer, places in (
            (attention.query, moved(offsets[head % len(offsets)])),
            (attention.key, torch.eye(PLACE_CHANNELS)),
        ):
            layer.weight[rows].mul_(_RANDOM_SHARE)
            layer.weight[rows, :PLACE_CHANNELS] += gain * places
