"""Small models of all kinds, with sizes that differ on every axis."""

from typing import Any

import torch
from torch import nn

from perceiver_io.autoregressive import PerceiverAR, PerceiverARConfig

SIZES: dict[str, Any] = {
    "vocab_size": 23,
    "max_context_length": 15,
    "num_latents": 6,
    "embed_channels": 12,
    "num_latent_channels": 16,
    "num_self_attends": 3,
    "num_cross_attend_heads": 3,
    "num_self_attend_heads": 2,
    "cross_attend_widening_factor": 2,
    "self_attend_widening_factor": 3,
    "max_wavelength": 40,
}
KRASSERM: dict[str, Any] = {
    "num_latent_channels": 12,
    "activation": "gelu",
    "rotary": "standard",
    "rotary_channels_fraction": 1.0,
    "num_rotary_self_attends": 1,
    "latent_query": "embedding",
    "cross_attend_own_norm": True,
    "qkv_bias": False,
    "self_output_bias": False,
    "mlp_bias": False,
    "tied_output": True,
    "output_bias": False,
    "first_position": 0,
}
# Kinds that can be cached, then those that cannot.
CACHED: dict[str, dict[str, Any]] = {
    "rotary": {},
    "sinusoidal": {"rotary": "none", "position_tables": "sinusoidal", "position_sizes": (40,)},
    "from_the_end": {"positions_from_end": True},
    "from_the_end_negative": {"positions_from_end": True, "negative_positions_from_end": True},
    "shared_query": {"latent_query": "learned_shared"},
    "mlp_query": {"latent_query": "mlp", "offset_queries": True},
    "more_cross_attends": {"additional_cross_attends": (0, 2)},
    "no_initial_cross_attend": {"initial_cross_attend": False, "additional_cross_attends": (1,)},
    "some_heads": {"rotary_heads_fraction": 0.7, "rotary_head_group_size": 3},
    "krasserm": KRASSERM,
    "krasserm_absolute": {
        **KRASSERM,
        "position_tables": "learned",
        "position_sizes": (15,),
        "rotary_channels_fraction": 0.5,
    },
}
UNCACHED: dict[str, dict[str, Any]] = {
    "learned_query": {"latent_query": "learned"},
    "two_latents_a_position": {
        "latents_per_position": 2,
        "rotary": "none",
        "position_tables": "fourier",
        "position_sizes": (16,),
    },
    "tables_from_the_end": {
        "positions_from_end": True,
        "rotary": "none",
        "position_tables": "sinusoidal",
        "position_sizes": (15,),
    },
}
KINDS = CACHED | UNCACHED


def small_model(kind: str = "rotary", **overrides: Any) -> PerceiverAR:
    """A model of a kind with random weights, biases and output too, in evaluation mode."""
    config = PerceiverARConfig(**{**SIZES, **KINDS[kind], "zero_init_output": False, **overrides})
    torch.manual_seed(1)
    model = PerceiverAR(config).eval()
    for parameter in model.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return model


def random_tokens(*lengths: int, seed: int = 2) -> list[torch.Tensor]:
    """Sequences without padding."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, SIZES["vocab_size"], (length,), generator=generator) for length in lengths]


def padded(rows: list[torch.Tensor]) -> torch.Tensor:
    """Right-padded with 0."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)
