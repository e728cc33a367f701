"""The TensorFlow package `perceiver` (Rishit-dagli/Perceiver): its constructor and call as typed, in PyTorch.

    import perceiver_io.compat.perceiver as perceiver

    model = perceiver.Perceiver(num_freq_bands=6, depth=6, max_freq=10., …)
    model(torch.randn(1, 224, 224, 3))  # channels last; arrays of NumPy are taken too

The function is that of `compat.perceiver_pytorch.Perceiver`, of which that package is a translation, with its own
frequencies: `freq_base` to the powers from 1 to log(max_freq / 2). DEVIATION: that package applies its layers one after
the other, without the data and without the residuals (its call stops for lack of a context); here they are the
Perceiver's.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from perceiver_io.compat import perceiver_pytorch


class Perceiver(perceiver_pytorch.Perceiver):
    """Maps data to class logits; arguments as in `compat.perceiver_pytorch.Perceiver`.

    Args:
        freq_base: base of the powers that frequencies are.

    Raises:
        ValueError: for a size that cannot be, or a highest frequency that is not positive.
    """

    def __init__(
        self,
        num_freq_bands: int,
        depth: int,
        max_freq: float | int,
        freq_base: float | int = 2,
        input_channels: int = 3,
        input_axis: int = 2,
        num_latents: int = 512,
        latent_dim: int = 512,
        cross_heads: int = 1,
        latent_heads: int = 8,
        cross_dim_head: int = 64,
        latent_dim_head: int = 64,
        num_classes: int = 1000,
        attn_dropout: float | int = 0.0,
        ff_dropout: float | int = 0.0,
    ) -> None:
        if not (max_freq > 0 and freq_base > 0 and freq_base != 1):
            raise ValueError(
                f"max_freq ({max_freq}) and freq_base ({freq_base}) must be positive, and freq_base not 1: frequencies "
                "are powers of it up to max_freq / 2"
            )
        super().__init__(
            num_freq_bands=num_freq_bands,
            depth=depth,
            max_freq=max_freq,
            input_channels=input_channels,
            input_axis=input_axis,
            num_latents=num_latents,
            latent_dim=latent_dim,
            cross_heads=cross_heads,
            latent_heads=latent_heads,
            cross_dim_head=cross_dim_head,
            latent_dim_head=latent_dim_head,
            num_classes=num_classes,
            attn_dropout=attn_dropout,
            ff_dropout=ff_dropout,
        )
        self.freq_base = freq_base

    def forward(
        self,
        data: Any,
        mask: Any = None,
        return_embeddings: bool = False,
        block_outputs: Sequence[Tensor] | Tensor | None = None,
        return_hiddens: bool = False,
    ) -> Any:
        """Maps data [batch, *axes, channels] and a mask [batch, *axes] to logits; the rest as there."""
        data = data if isinstance(data, Tensor) else torch.as_tensor(data, dtype=torch.get_default_dtype())
        mask = mask if mask is None or isinstance(mask, Tensor) else torch.as_tensor(mask)
        return super().forward(data, mask, return_embeddings, block_outputs, return_hiddens)

    def _frequencies(self, like: Tensor) -> Float[Tensor, "bands"]:
        highest = math.log(self.max_freq / 2) / math.log(self.freq_base)
        return torch.logspace(
            1.0, highest, self.num_freq_bands, base=self.freq_base, device=like.device, dtype=like.dtype
        )
