"""Perceiver IO as a whole: the properties that users rely on, for compositions of their own."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from perceiver_io import MultimodalPreprocessor, PerceiverDecoder, PerceiverEncoder, PerceiverIO, ProjectionDecoder
from perceiver_io.position_encoding import FourierPositionEncoding, LearnedPositionEncoding, Points
from perceiver_io.postprocessors import (
    AudioPostprocessor,
    FirstOutputPostprocessor,
    ProjectionPostprocessor,
    ReshapePostprocessor,
)
from perceiver_io.preprocessors import Pixels, Preprocessor
from perceiver_io.queries import InputQuery, PositionQuery

SEEDS = st.integers(0, 2**16)


def encoder(input_channels: int) -> PerceiverEncoder:
    return PerceiverEncoder(
        input_channels,
        num_latents=5,
        num_latent_channels=12,
        num_self_attends_per_block=2,
        num_blocks=2,
        num_cross_attend_heads=1,
        num_self_attend_heads=3,
    )


def compositions() -> dict[str, PerceiverIO]:
    """Images of 3×4 pixels to different things."""
    stem = Preprocessor(Pixels(2), FourierPositionEncoding((3, 4), num_bands=2))
    channels = stem.num_channels
    fourier = PositionQuery(FourierPositionEncoding((6, 7), num_bands=3))
    learned = PositionQuery(LearnedPositionEncoding(10, 8))
    with_inputs = PositionQuery(FourierPositionEncoding((3, 4), num_bands=3), concat_inputs=2)
    return {
        "fourier": PerceiverIO(encoder(channels), PerceiverDecoder(14, 12, output_channels=9), stem, fourier),
        "learned": PerceiverIO(
            encoder(channels),
            PerceiverDecoder(8, 12, output_channels=None),
            stem,
            learned,
            ProjectionPostprocessor(8, 3),
        ),
        "sound": PerceiverIO(
            encoder(channels), PerceiverDecoder(8, 12, output_channels=6), stem, learned, AudioPostprocessor(6, 4)
        ),
        "inputs": PerceiverIO(
            encoder(channels),
            PerceiverDecoder(channels, 12, output_channels=2, use_query_residual=True),
            stem,
            InputQuery(channels),
        ),
        "features": PerceiverIO(encoder(channels), PerceiverDecoder(16, 12, output_channels=2), stem, with_inputs),
    }


@pytest.fixture(params=sorted(compositions()))
def model(request: pytest.FixtureRequest) -> PerceiverIO:
    return compositions()[request.param].eval()


def images(batch: int = 3) -> Tensor:
    return torch.randn(batch, 2, 3, 4)


@pytest.mark.parametrize("chunk_size", [1, 4, 5, 1000])
def test_chunked_decoding_equals_whole_decoding(model: PerceiverIO, chunk_size: int) -> None:
    x = images()
    torch.testing.assert_close(model(x, chunk_size=chunk_size), model(x))


@given(seed=SEEDS, chunk_size=st.integers(1, 12), per_example=st.booleans())
def test_chunks_of_points(seed: int, chunk_size: int, per_example: bool) -> None:
    torch.manual_seed(seed)
    module = compositions()["fourier"].eval()
    points: Points = torch.randint(42, (3, 9) if per_example else (9,))
    if seed % 2:
        points = torch.rand(3, 9, 2) * 2 - 1
    x = images()
    whole = module(x, points=points)
    torch.testing.assert_close(module(x, points=points, chunk_size=chunk_size), whole)
    first, second = (points[:, :4], points[:, 4:]) if points.ndim > 1 else (points[:4], points[4:])
    parts = [module(x, points=part) for part in (first, second)]
    torch.testing.assert_close(torch.cat(parts, dim=1), whole)


def test_the_encoder_runs_once_for_any_number_of_chunks(model: PerceiverIO) -> None:
    calls = {"encoder": 0, "decoder": 0}

    def count(name: str) -> Any:
        def hook(*_: Any) -> None:
            calls[name] += 1

        return hook

    model.encoder.register_forward_hook(count("encoder"))
    model.decoder.register_forward_hook(count("decoder"))
    model(images(), chunk_size=2)
    assert calls["encoder"] == 1
    assert calls["decoder"] > 4


def test_progress_sees_every_chunk(model: PerceiverIO) -> None:
    seen = []
    model.decode(model.encode(images()), chunk_size=2, progress=lambda chunks: (seen.append(c) or c for c in chunks))
    assert len(seen) == len(list(model.output_query.chunks(None, None, model.encode(images()).inputs, 2)))


@given(seed=SEEDS)
def test_examples_do_not_influence_one_another(seed: int) -> None:
    torch.manual_seed(seed)
    for module in compositions().values():
        x = images()
        alone = [module.eval()(x[i : i + 1]) for i in range(len(x))]
        torch.testing.assert_close(module(x), torch.cat(alone))


@given(seed=SEEDS)
def test_masked_inputs_have_no_influence(seed: int) -> None:
    torch.manual_seed(seed)
    module = compositions()["fourier"].eval()
    x = images()
    mask = torch.rand(3, 12) > 0.4
    changed = torch.where(mask.reshape(3, 1, 3, 4), x, torch.randn_like(x) * 50)
    torch.testing.assert_close(module(x, mask), module(changed, mask))


@given(seed=SEEDS)
def test_the_order_of_inputs_does_not_matter_without_positions(seed: int) -> None:
    torch.manual_seed(seed)
    module = PerceiverIO(
        encoder(4), PerceiverDecoder(8, 12, output_channels=3), None, PositionQuery(LearnedPositionEncoding(10, 8))
    ).eval()
    tokens = torch.randn(2, 9, 4)
    torch.testing.assert_close(module(tokens), module(tokens[:, torch.randperm(9)]))


def test_masked_queries_are_decoded_as_if_they_attended_to_nothing() -> None:
    module = compositions()["learned"].eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x, mask = images(), torch.rand(3, 10) > 0.5
    outputs = module(x, query_mask=mask)
    # Zeros come out of attention; what follows is its output layer's bias, the MLP, and no query residual.
    block = module.decoder.cross_attend
    attended = block.attention.output(torch.zeros(1, 1, 12))
    nothing = module.output_postprocessor(attended + block.mlp(block.mlp_norm(attended)))
    torch.testing.assert_close(outputs[~mask], nothing[0].expand(int((~mask).sum()), -1))
    torch.testing.assert_close(outputs[mask], module(x)[mask])


def test_inputs_at_positions_of_their_own() -> None:
    module = compositions()["fourier"].eval()
    x, positions = images(), torch.rand(3, 12, 2) * 2 - 1
    latents = module.encode(x, positions=positions).latents
    for i in range(3):
        torch.testing.assert_close(
            module.encode(x[i : i + 1], positions=positions[i : i + 1]).latents, latents[i : i + 1]
        )
    assert not torch.allclose(module.encode(x, positions=positions.flip(0)).latents, latents)


def test_gradients_reach_every_parameter(model: PerceiverIO) -> None:
    model.train()
    model(images()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A key's bias adds the same to all scores of a query, which the softmax takes out again.
        assert name.endswith("key.bias") or parameter.grad.ne(0).any(), name


def test_state_dict_round_trip(model: PerceiverIO) -> None:
    twin, x = deepcopy(model), images()
    for parameter in twin.parameters():
        nn.init.normal_(parameter)
    twin.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(twin(x), model(x), rtol=0, atol=0)


def test_an_encoding_keeps_inputs_only_for_queries_that_read_them() -> None:
    models = compositions()
    assert models["fourier"].encode(images()).inputs is None
    assert models["inputs"].encode(images()).inputs is not None


def test_projection_decoder_needs_no_query() -> None:
    decoder = ProjectionDecoder(12, 4)
    nn.init.normal_(decoder.output.weight)
    module = PerceiverIO(encoder(6), decoder).eval()
    tokens = torch.randn(2, 7, 6)
    expected = decoder.output(module.encode(tokens).latents.mean(1))
    torch.testing.assert_close(module(tokens), expected)


def test_plain_modules_serve_as_stages() -> None:
    module = PerceiverIO(
        encoder(5),
        PerceiverDecoder(8, 12, output_channels=6),
        nn.Embedding(11, 5),
        PositionQuery(LearnedPositionEncoding(4, 8)),
        nn.Flatten(1),
    )
    assert module(torch.randint(11, (2, 9)), chunk_size=3).shape == (2, 4 * 6)


def test_postprocessors_that_need_all_outputs_run_once() -> None:
    module = PerceiverIO(
        encoder(6),
        PerceiverDecoder(14, 12, output_channels=3),
        None,
        PositionQuery(FourierPositionEncoding((4, 5), num_bands=3)),
        ReshapePostprocessor((4, 5)),
    ).eval()
    tokens = torch.randn(2, 7, 6)
    assert module(tokens).shape == (2, 3, 4, 5)
    torch.testing.assert_close(module(tokens, chunk_size=3), module(tokens))
    single = PerceiverIO(
        encoder(6),
        PerceiverDecoder(8, 12, output_channels=3),
        None,
        PositionQuery(LearnedPositionEncoding(1, 8)),
        FirstOutputPostprocessor(),
    )
    assert single(tokens).shape == (2, 3)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_no_points_are_no_outputs(model: PerceiverIO, chunk_size: int | None) -> None:
    outputs = model(images(), points=torch.zeros(0, dtype=torch.long), chunk_size=chunk_size)
    assert outputs.shape[:2] == (3, 0)


def test_positions_pass_through_forward() -> None:
    module = compositions()["fourier"].eval()
    x, positions = images(), torch.rand(3, 12, 2)
    encoding = module.encode(x, positions=positions)
    torch.testing.assert_close(module(x, positions=positions), module.decode(encoding))


def test_masked_tokens_pass_through_or_are_refused() -> None:
    with pytest.raises(ValueError, match="masked names tokens that a mask token replaces, and there is none"):
        compositions()["fourier"](images(), masked=torch.ones(3, 12, dtype=torch.bool))
    stem = {"sight": Preprocessor(Pixels(2), FourierPositionEncoding((3, 4), num_bands=2))}
    preprocessor = MultimodalPreprocessor(stem, mask_probs={"sight": 0.0})
    module = PerceiverIO(
        encoder(preprocessor.num_channels),
        PerceiverDecoder(14, 12, output_channels=2),
        preprocessor,
        PositionQuery(FourierPositionEncoding((6, 7), num_bands=3)),
    ).eval()
    x, chosen = images(), torch.ones(3, 12, dtype=torch.bool)
    masked = module({"sight": x}, masked={"sight": chosen})
    torch.testing.assert_close(masked, module({"sight": torch.randn_like(x)}, masked={"sight": chosen}))
    assert not torch.allclose(masked, module({"sight": x}))


def test_errors() -> None:
    with pytest.raises(
        ValueError, match=r"output_query \(Linear\) must be an OutputQuery, a position encoding, or a dict"
    ):
        PerceiverIO(encoder(4), PerceiverDecoder(8, 12, output_channels=2), None, nn.Linear(3, 3))
    with pytest.raises(ValueError, match=r"points must lie in 0…41, the grid's flat indices; got 3…42"):
        compositions()["fourier"](images(), points=torch.tensor([3, 42]))
    with pytest.raises(ValueError, match=r"points must lie in 0…9, the grid's flat indices; got -1…3"):
        compositions()["learned"](images(), points=torch.tensor([3, -1]))
    module = compositions()["features"]
    with pytest.raises(ValueError, match=r"chunk_size \(0\) must be an integer of at least 1"):
        module(images(), chunk_size=0)
    with pytest.raises(ValueError, match=r"to be added, the position encoding \(14 channels\) must be as wide"):
        Preprocessor(Pixels(2), FourierPositionEncoding((3, 4), num_bands=3), concat_or_add_pos="add")
    other = compositions()["features"]
    other.output_query = PositionQuery(FourierPositionEncoding((3, 3), num_bands=3), concat_inputs=2)
    with pytest.raises(ValueError, match="inputs of 12 tokens with 2 feature channels must match the 9 outputs"):
        other(images())
