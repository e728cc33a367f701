"""Where a language model with a local start looks before it has learned anything."""

import pytest
import torch
from torch import Tensor

import perceiver_io
from examples.tiny.local_language_start import PLACE_CHANNELS, moved, start_like_a_convolution, waves
from perceiver_io import LanguageConfig, LanguagePerceiver

CONFIG = LanguageConfig(
    max_seq_len=48,
    embed_channels=64,
    num_latents=24,
    num_latent_channels=80,
    num_self_attends_per_block=2,
    num_self_attend_heads=4,
    num_cross_attend_heads=4,
    num_decoder_heads=4,
    qk_channels=4 * PLACE_CHANNELS,
)


@pytest.fixture
def model() -> LanguagePerceiver:
    torch.manual_seed(0)
    model = LanguagePerceiver(CONFIG)
    start_like_a_convolution(model)
    return model


def looked_at(attention: torch.nn.Module, queries: Tensor, inputs: Tensor) -> Tensor:
    """The input that each head's query attends to most: [heads, queries]."""
    query, key = (
        projected.unflatten(-1, (4, PLACE_CHANNELS)).movedim(-2, 0)
        for projected in (attention.query(queries), attention.key(inputs))
    )
    return (query @ key.mT).argmax(-1)


def test_waves_move_with_their_places() -> None:
    places = torch.tensor([0.0, 3.0, 17.5])
    torch.testing.assert_close(waves(places) @ moved(2.5).T, waves(places + 2.5), atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_encoder_reads_what_is_near(model: LanguagePerceiver) -> None:
    cross_attend = model.encoder.cross_attend
    tokens = model.input_preprocessor.position_encoding.embeddings
    seen = looked_at(
        cross_attend.attention,
        cross_attend.query_norm(model.encoder.latents.embeddings),
        cross_attend.input_norm(tokens),
    )
    # Latents lie between two bytes; the first two heads take the left and the right one.
    assert seen[0].tolist() == list(range(0, 48, 2))
    assert seen[1].tolist() == list(range(1, 48, 2))


@torch.no_grad()
def test_outputs_ask_the_latents_at_their_place(model: LanguagePerceiver) -> None:
    cross_attend = model.decoder.cross_attend
    queries = cross_attend.query_norm(model.output_query.position_encoding.embeddings)
    latents = cross_attend.input_norm(model.encoder.latents.embeddings)
    seen = looked_at(cross_attend.attention, queries, latents)
    assert seen[0, 0::2].tolist() == list(range(24))
    assert seen[1, 1::2].tolist() == list(range(24))


@torch.no_grad()
def test_the_first_predictions_are_not_certain(model: LanguagePerceiver) -> None:
    tokens = torch.randint(6, 262, (3, 41), generator=torch.Generator().manual_seed(0))
    assert model(tokens).softmax(-1).max() < 0.9


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qk_channels": 32}, r"qk_channels \(32\) to be 16 times num_cross_attend_heads \(4\)"),
        ({"num_self_attend_heads": 2}, r"qk_channels \(64\) to be 16 times num_self_attend_heads \(2\)"),
        ({"embed_channels": 12}, r"embed_channels \(12\) to be at least 16"),
        ({"num_latent_channels": 8}, r"num_latent_channels \(8\) to be at least 16"),
    ],
)
def test_sizes_that_do_not_suit(changes: dict[str, int], message: str) -> None:
    model = perceiver_io.create_model("language", **{**CONFIG.to_dict(), **changes})
    assert isinstance(model, LanguagePerceiver)
    with pytest.raises(ValueError, match=f"a local start needs {message}"):
        start_like_a_convolution(model)
