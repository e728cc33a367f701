"""Decoders: latents and queries to outputs (paper, section 3.2)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from perceiver_io.attention import Activation, CrossAttention
from perceiver_io.checks import as_mask, check_batch, check_rows
from perceiver_io.initializers import haiku_linear

Mask = Bool[Tensor, "batch outputs"] | Int[Tensor, "batch outputs"]


class PerceiverDecoder(nn.Module):
    """Maps queries and latents to one output per query: queries attend to the latents, then a linear layer follows.

    Outputs do not influence one another. Source: the reference's `BasicDecoder`, whose query is a stage of its own here
    (`queries`).

    Args:
        query_channels: channels of the queries.
        num_latent_channels: channels of the latents.
        output_channels: outputs of the last linear layer; None for no such layer (the result has the query's width).
        num_heads: heads of the cross-attention.
        qk_channels: width of queries and keys over all heads; default `num_latent_channels`.
        v_channels: width of the values over all heads; default as `qk_channels`.
        widening_factor: hidden width of the MLP as a multiple of `query_channels`.
        use_query_residual: whether the queries are added to what they attended to.
        activation: of the MLP, as there.
        zero_init_output: whether the last layer starts from zeros.
    """

    def __init__(
        self,
        query_channels: int,
        num_latent_channels: int,
        *,
        output_channels: int | None,
        num_heads: int = 1,
        qk_channels: int | None = None,
        v_channels: int | None = None,
        widening_factor: int = 1,
        use_query_residual: bool = False,
        activation: Activation = "gelu_tanh",
        zero_init_output: bool = False,
    ) -> None:
        super().__init__()
        self.query_channels = query_channels
        self.num_latent_channels = num_latent_channels
        self.cross_attend = CrossAttention(
            query_channels,
            num_latent_channels,
            num_heads=num_heads,
            qk_channels=qk_channels,
            v_channels=v_channels,
            widening_factor=widening_factor,
            use_query_residual=use_query_residual,
            activation=activation,
        )
        self.output = None if output_channels is None else haiku_linear(query_channels, output_channels)
        if zero_init_output and self.output is not None:
            nn.init.zeros_(self.output.weight)

    def forward(
        self,
        queries: Float[Tensor, "#batch outputs query_channels"],
        latents: Float[Tensor, "batch latents latent_channels"],
        query_mask: Mask | None = None,
    ) -> Float[Tensor, "batch outputs output_channels"]:
        """Decodes; queries of batch size one are asked of every example.

        QUIRK: a query where `query_mask` is False still yields an output: what the layers after attention make of zeros
        (and of the query, with the residual).

        Raises:
            ValueError: for queries, latents or a mask of another width or kind, or that do not fit one another.
        """
        check_rows("queries", queries, self.query_channels, "the decoder", latents.dtype)
        check_rows("latents", latents, self.num_latent_channels, "the decoder")
        check_batch("queries", queries.shape[0], "latents", latents.shape[0], one_for_all=True)
        mask = None
        if query_mask is not None:
            (batch,) = torch.broadcast_shapes(queries.shape[:1], latents.shape[:1])
            mask = as_mask("query_mask", query_mask, (batch, queries.shape[1]))[:, :, None]
        outputs = self.cross_attend(queries, latents, mask)
        return outputs if self.output is None else self.output(outputs)


class ProjectionDecoder(nn.Module):
    """Maps latents to one vector, a linear function of their mean; queries are not used.

    Source: the reference's `ProjectionDecoder`.

    Args:
        num_latent_channels: channels of the latents.
        output_channels: length of the vector.
    """

    def __init__(self, num_latent_channels: int, output_channels: int) -> None:
        super().__init__()
        self.output = haiku_linear(num_latent_channels, output_channels)
        nn.init.zeros_(self.output.weight)

    def forward(
        self,
        queries: Float[Tensor, "#batch outputs query_channels"] | None,
        latents: Float[Tensor, "batch latents latent_channels"],
        query_mask: Mask | None = None,
    ) -> Float[Tensor, "batch output_channels"]:
        """Averages and projects.

        Raises:
            ValueError: for a `query_mask`.
        """
        if query_mask is not None:
            raise ValueError("query_mask must be None: a ProjectionDecoder has one output and no queries; leave it out")
        return self.output(latents.mean(dim=1))
