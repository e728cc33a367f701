"""How latents start: from the last inputs, or from learned vectors."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from perceiver_io.attention import Activation, activate
from perceiver_io.initializers import truncated_normal_, variance_scaling_


class LatentQuery(nn.Module):
    """Base of these: maps the inputs at the latents' positions to latents."""

    def forward(self, inputs: Float[Tensor, "batch places channels"]) -> Float[Tensor, "batch places latent_channels"]:
        """Maps the inputs to one row per position."""
        raise NotImplementedError

    def finish(self, latents: Float[Tensor, "batch latents channels"]) -> Float[Tensor, "batch latents channels"]:
        """Maps rows further, once the latents of a position are told apart."""
        return latents


class LinearQuery(LatentQuery):
    """Starts latents as a linear function of their inputs, or, with layers, as an MLP's.

    Args:
        embed_channels: channels of the inputs.
        num_latent_channels: channels of the latents.
        num_layers: further linear layers, each followed by the activation.
        activation: see `attention.MLP`.
    """

    def __init__(
        self,
        embed_channels: int,
        num_latent_channels: int,
        *,
        num_layers: int = 0,
        activation: Activation = "squared_relu",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.linear = nn.Linear(embed_channels, num_latent_channels)
        self.layers = nn.ModuleList(nn.Linear(num_latent_channels, num_latent_channels) for _ in range(num_layers))
        for layer in (self.linear, *self.layers):
            assert isinstance(layer, nn.Linear)
            initialise(layer)

    def forward(self, inputs: Float[Tensor, "batch places channels"]) -> Float[Tensor, "batch places latent_channels"]:
        """Applies the first layer."""
        return self.linear(inputs)

    def finish(self, latents: Float[Tensor, "batch latents channels"]) -> Float[Tensor, "batch latents channels"]:
        """Applies the other layers."""
        for layer in self.layers:
            latents = activate(layer(latents), self.activation)
        return latents


class LearnedQuery(LatentQuery):
    """Starts latents from learned vectors, the same for all sequences.

    Args:
        rows: number of vectors: 1, or one for each place, of which the last are used.
        num_latent_channels: width of a vector.
    """

    def __init__(self, rows: int, num_latent_channels: int) -> None:
        super().__init__()
        self.embeddings = nn.Parameter(truncated_normal_(torch.empty(rows, num_latent_channels), 0.02))

    def forward(self, inputs: Float[Tensor, "batch places channels"]) -> Float[Tensor, "batch places latent_channels"]:
        """Takes the vectors."""
        batch, places = inputs.shape[:2]
        return self.embeddings[-places:].expand(batch, places, -1)


class EmbeddingQuery(LatentQuery):
    """Starts latents as their inputs."""

    def forward(self, inputs: Float[Tensor, "batch places channels"]) -> Float[Tensor, "batch places channels"]:
        """Leaves them as they are."""
        return inputs


def initialise(layer: nn.Linear, zeros: bool = False) -> None:
    """Initialises a linear layer as the reference does; its last one starts from zeros."""
    if zeros:
        nn.init.zeros_(layer.weight)
    else:
        variance_scaling_(layer.weight, fan_in=layer.in_features)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
