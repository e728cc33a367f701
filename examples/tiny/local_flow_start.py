"""A start from which a small optical flow model learns within minutes: every latent begins at a place of its own.

From the usual start, latents that attend everywhere and patches whose channels are nearly alike, such a model predicts
no motion for a long time. Here latents ask for what is near their places, queries for what the latents near them know,
and patches are whitened, so that the small differences between the frames are as large as anything else. Weights alone
are set, all of which are then trained: the model is the same. Not in the paper.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.decoder import PerceiverDecoder
from perceiver_io.encoder import PerceiverEncoder
from perceiver_io.models import OpticalFlowConfig, OpticalFlowPerceiver
from perceiver_io.patches import patches_for_flow
from perceiver_io.position_encoding import FourierPositionEncoding
from perceiver_io.preprocessors import Patches, Preprocessor

# Two frames of 3×3 pixels of three colours.
PATCH_CHANNELS = 54

# Latents recognise places by frequencies below this many pixels (standard deviation of the blur).
_BLUR = 4.0
# How strongly nearness counts for attention, in the encoder and in the decoder.
_ENCODER_GAIN, _DECODER_GAIN = 6.0, 3.0
# What remains of the random start beside it.
_RANDOM_SHARE = 0.5
_LATENT_NOISE = 0.1


@torch.no_grad()
def start_locally(
    model: OpticalFlowPerceiver,
    frame1: Float[Tensor, "pairs 3 height width"],
    frame2: Float[Tensor, "pairs 3 height width"],
) -> None:
    """Sets a new model's weights as above.

    Args:
        model: has one cross-attention head, 54 featurizer channels, no fewer latent channels than its position encoding
            has, and a number of latents that forms a grid of nearly square cells.
        frame1: of some pairs, whose patches are to be white.
        frame2: likewise.

    Raises:
        ValueError: if the model does not have these sizes.
    """
    config, preprocessor, encoder, decoder = model.config, model.input_preprocessor, model.encoder, model.decoder
    assert isinstance(preprocessor, Preprocessor)
    assert isinstance(encoder, PerceiverEncoder)
    assert isinstance(decoder, PerceiverDecoder)
    encoding = preprocessor.position_encoding
    assert isinstance(preprocessor.featurizer, Patches)
    assert isinstance(encoding, FourierPositionEncoding)
    _check(config, encoding.num_channels)
    _whiten(preprocessor.featurizer.linear, patches_for_flow(torch.stack([frame1, frame2], dim=1)))

    latents = encoder.latents.embeddings
    in_latents = slice(0, encoding.num_channels)
    in_tokens = slice(config.featurizer_channels, None)
    latents.zero_()
    latents[:, in_latents] = encoding(_grid(config))[0] * _low_pass(config)
    latents.div_(latents.std()).add_(_LATENT_NOISE * torch.randn_like(latents))
    encode, decode = encoder.cross_attend.attention, decoder.cross_attend.attention
    _compare(encode.query, in_latents, encode.key, in_tokens, _ENCODER_GAIN)
    _compare(decode.query, in_tokens, decode.key, in_latents, _DECODER_GAIN)


def _check(config: OpticalFlowConfig, position_channels: int) -> None:
    if config.num_cross_attend_heads != 1 or config.featurizer_channels != PATCH_CHANNELS:
        raise ValueError(
            f"a local start needs num_cross_attend_heads ({config.num_cross_attend_heads}) to be 1 and "
            f"featurizer_channels ({config.featurizer_channels}) to be {PATCH_CHANNELS}, as many as a patch has values"
        )
    if config.num_latent_channels < position_channels:
        raise ValueError(
            f"a local start needs num_latent_channels ({config.num_latent_channels}) of at least {position_channels}, "
            f"the channels of a position with {config.num_bands} bands"
        )


def grid_shape(num_cells: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Maps a number of cells to the rows and columns whose cells are nearest to squares.

    Raises:
        ValueError: if the best cells are more than 1.5 times as long as wide.
    """
    height, width = image_size
    shapes = [(rows, num_cells // rows) for rows in range(1, num_cells + 1) if num_cells % rows == 0]
    elongation = {shape: math.log((height / shape[0]) / (width / shape[1])) for shape in shapes}
    best = min(shapes, key=lambda shape: abs(elongation[shape]))
    if abs(elongation[best]) > math.log(1.5):
        raise ValueError(
            f"{num_cells} cells cannot cover {height}×{width} pixels as nearly squares: {best[0]}×{best[1]} is the "
            "best; choose a number with other divisors"
        )
    return best


def _grid(config: OpticalFlowConfig) -> Float[Tensor, "1 latents 2"]:
    """The centres of the cells, one per latent, in -1…1."""
    axes = [torch.linspace(-1, 1, 2 * cells + 1)[1::2] for cells in grid_shape(config.num_latents, config.image_size)]
    return torch.cartesian_prod(*axes)[None]


def _low_pass(config: OpticalFlowConfig) -> Float[Tensor, "position_channels"]:
    """The factor of each channel of a position; without the high frequencies nearness falls off smoothly."""
    bands = [torch.linspace(1, size / 2, config.num_bands) / size for size in config.image_size]  # cycles per pixel
    waves = torch.exp(-0.5 * (2 * math.pi * _BLUR * torch.cat(bands)) ** 2)
    # The coordinates themselves tell opposite borders apart, which waves do not.
    return torch.cat([torch.ones(len(bands)), waves, waves])


def _whiten(layer: torch.nn.Linear | None, patches: Float[Tensor, "pairs 2 channels height width"]) -> None:
    """Makes the layer map patches to uncorrelated channels of mean 0 and about deviation 1."""
    assert layer is not None
    rows = patches.movedim(2, -1).flatten(2, 3).transpose(1, 2).flatten(2).flatten(0, 1)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    # Directions that hardly occur are not blown up as far.
    layer.weight.copy_(vectors * (values + 1e-3).rsqrt() @ vectors.T)
    layer.bias.copy_(-layer.weight @ rows.mean(0))


def _compare(
    query: torch.nn.Linear, query_channels: slice, key: torch.nn.Linear, key_channels: slice, gain: float
) -> None:
    """Makes the channels of both sides a part of the scores: query · key grows by `gain` times their product."""
    for layer, channels in ((query, query_channels), (key, key_channels)):
        layer.weight.mul_(_RANDOM_SHARE)
        rows = layer.weight[: len(range(layer.in_features)[channels])]
        rows.zero_()
        rows[:, channels].copy_(math.sqrt(gain) * torch.eye(len(rows)))
