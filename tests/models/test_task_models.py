"""The four task models: shapes, sizes other than the trained one, chunks, and errors."""

from itertools import pairwise, product

import pytest
import torch

import perceiver_io
from perceiver_io import PerceiverIO
from perceiver_io.models.optical_flow import even_tile_starts, tile_starts, tile_weights
from perceiver_io.presets import PRESETS
from tests.small_models import SMALL, small_inputs
from tests.unchecked import unchecked


def small(preset: str, **overrides: object) -> PerceiverIO:
    model = perceiver_io.create_model(preset, **{**SMALL[preset], **overrides}).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


@pytest.mark.parametrize("preset", PRESETS)
def test_examples_do_not_influence_one_another(preset: str) -> None:
    model = small(preset)
    inputs = small_inputs(model, batch=3)
    one_by_one = [model(*(x[i : i + 1] for x in inputs)) for i in range(3)]
    if isinstance(one_by_one[0], dict):
        expected = {name: torch.cat([outputs[name] for outputs in one_by_one]) for name in one_by_one[0]}
    else:
        expected = torch.cat(one_by_one)
    torch.testing.assert_close(model(*inputs), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("preset", PRESETS)
def test_gradients_reach_every_parameter(preset: str) -> None:
    model = small(preset).train()
    outputs = model(*small_inputs(model))
    tensors = outputs.values() if isinstance(outputs, dict) else [outputs]
    sum(tensor.square().sum() for tensor in tensors).backward()
    # The mask tokens of modalities that are never masked, and what only a masked label would feed, play no part.
    unused = {"input_preprocessor.mask_tokens.audio", "input_preprocessor.mask_tokens.image"}
    unused |= {"input_preprocessor.padding.label"}
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None or name in unused, name


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_of_no_examples(preset: str, gradients: bool) -> None:
    model = small(preset)
    with torch.set_grad_enabled(gradients):
        outputs = model(*small_inputs(model, batch=0))
    for output in outputs.values() if isinstance(outputs, dict) else [outputs]:
        assert len(output) == 0


class TestLanguage:
    def test_padding_changes_nothing(self) -> None:
        model = small("language")
        tokens = torch.randint(31, (2, 9))
        mask = torch.ones(2, 17, dtype=torch.bool)
        mask[:, 9:] = False
        padded = torch.nn.functional.pad(tokens, (0, 8))
        torch.testing.assert_close(model(tokens), model(padded, mask)[:, :9])
        torch.testing.assert_close(model(tokens, mask[:, :9]), model(tokens))

    def test_masked_bytes_have_no_influence(self) -> None:
        model = small("language")
        tokens, mask = torch.randint(31, (2, 9)), torch.rand(2, 9) > 0.4
        other = torch.where(mask, tokens, torch.randint(31, (2, 9)))
        torch.testing.assert_close(model(tokens, mask), model(other, mask))

    @pytest.mark.parametrize("masked", [False, True])
    def test_points_select_positions(self, masked: bool) -> None:
        model = small("language")
        tokens, mask = torch.randint(31, (2, 9)), torch.rand(2, 9) > 0.4 if masked else None
        logits = model(tokens, mask)
        torch.testing.assert_close(model(tokens, mask, points=torch.tensor([8, 0, 3])), logits[:, [8, 0, 3]])
        points = torch.tensor([[1, 1], [7, 2]])
        chosen = model(tokens, mask, points=points)
        torch.testing.assert_close(chosen, logits.take_along_dim(points[..., None], dim=1))

    def test_errors(self) -> None:
        model = small("language")
        with pytest.raises(ValueError, match=r"sequence of 18 tokens is longer than max_seq_len \(17\)"):
            model(torch.zeros(1, 18, dtype=torch.long))
        with (
            unchecked(),
            pytest.raises(ValueError, match=r"mask \(1, 8\) must be of shape \[1, 9\], a value for each row"),
        ):
            model(torch.zeros(1, 9, dtype=torch.long), torch.ones(1, 8, dtype=torch.bool))
        with pytest.raises(ValueError, match=r"token ids must lie in 0…30; got 0…31"):
            model(torch.tensor([[0, 31]]))
        with pytest.raises(ValueError, match=r"points must lie in 0…8, .* got 3…9"):
            model(torch.zeros(1, 9, dtype=torch.long), points=torch.tensor([3, 9]))

    def test_the_embedding_is_counted_and_saved_once(self) -> None:
        model = small("language")
        assert sum("weight" in name and "featurizer" in name for name in model.state_dict()) == 1
        copy = perceiver_io.create_model("language", **SMALL["language"]).eval()
        copy.load_state_dict(model.state_dict(), strict=True)
        tokens = torch.randint(31, (1, 5))
        torch.testing.assert_close(copy(tokens), model(tokens))


class TestImageClassification:
    @pytest.mark.parametrize("preset", ["imagenet-fourier", "imagenet-conv"])
    def test_fourier_positions_take_any_size(self, preset: str) -> None:
        assert small(preset)(torch.randn(2, 3, 31, 16)).shape == (2, 11)

    def test_learned_positions_do_not(self) -> None:
        with pytest.raises(ValueError, match=r"must be \[batch, 3, 19, 25\]"):
            small("imagenet-learned")(torch.randn(2, 3, 31, 16))

    def test_query_residual_differs_between_the_released_models(self) -> None:
        residual = {preset: PRESETS[preset].decoder_query_residual for preset in PRESETS if "imagenet" in preset}
        assert residual == {"imagenet-fourier": True, "imagenet-conv": True, "imagenet-learned": False}


class TestOpticalFlow:
    def test_a_larger_frame_is_the_blend_of_its_tiles(self) -> None:
        model = small("optical-flow")
        frame1, frame2 = torch.rand(2, 1, 3, 10, 23) * 2 - 1
        starts = tile_starts(23, 14)
        assert starts == [0, 7, 9]
        weight = tile_weights(10, 14)
        total, weights = torch.zeros(1, 2, 10, 23), torch.zeros(10, 23)
        for left in starts:
            tile = (..., slice(left, left + 14))
            total[tile] += model(frame1[tile], frame2[tile]) * weight
            weights[tile] += weight
        torch.testing.assert_close(model(frame1, frame2), total / weights)

    def test_chunks_and_progress(self) -> None:
        model = small("optical-flow")
        frame1, frame2 = torch.rand(2, 2, 3, 16, 20)
        seen: list[object] = []
        flow = model(frame1, frame2, chunk_size=11, progress=lambda tiles: (seen.append(t) or t for t in tiles))
        assert flow.shape == (2, 2, 16, 20)
        assert len(seen) == len(tile_starts(16, 10)) * len(tile_starts(20, 14))
        torch.testing.assert_close(flow, model(frame1, frame2))

    @pytest.mark.parametrize(("tile", "overlap"), [(368, 20), (496, 20), (16, 20), (1, 20)])
    def test_tiles_cover_every_pixel(self, tile: int, overlap: int) -> None:
        for size in range(tile, 4 * tile + 40):
            starts = tile_starts(size, tile, overlap)
            assert starts[0] == 0
            assert starts[-1] == size - tile
            assert all(0 < b - a <= max(1, tile - min(overlap, tile // 2)) for a, b in pairwise(starts))

    def test_the_papers_six_tiles_are_evenly_spaced(self) -> None:
        # Sintel's frames and KITTI's.
        assert [even_tile_starts(436, 368, 2), even_tile_starts(1024, 496, 3)] == [[0, 68], [0, 264, 528]]
        assert [even_tile_starts(375, 368, 2), even_tile_starts(1242, 496, 3)] == [[0, 7], [0, 373, 746]]
        assert even_tile_starts(368, 368, 2) == [0]
        for size, number in ((1500, 3), (497, 1), (497, 0)):
            with pytest.raises(ValueError, match=rf"{number} tiles of 496 pixels do not cover {size}; take more tiles"):
                even_tile_starts(size, 496, number)

    def test_tiles_may_be_evenly_spaced(self) -> None:
        model = small("optical-flow")
        frame1, frame2 = torch.rand(2, 1, 3, 12, 39) * 2 - 1
        total, weights = torch.zeros(1, 2, 12, 39), torch.zeros(12, 39)
        for top, left in product((0, 2), (0, 12, 25)):
            tile = (..., slice(top, top + 10), slice(left, left + 14))
            total[tile] += model(frame1[tile], frame2[tile]) * tile_weights(10, 14)
            weights[tile] += tile_weights(10, 14)
        torch.testing.assert_close(model(frame1, frame2, tiles=(2, 3)), total / weights)

    def test_tiles_of_the_colab(self) -> None:
        assert tile_starts(436, 368) == [0, 68]
        assert tile_starts(1024, 496) == [0, 476, 528]

    def test_errors(self) -> None:
        model = small("optical-flow")
        with pytest.raises(ValueError, match="frames of 9×14 pixels must be at least 10×14; pad or resize them"):
            model(torch.zeros(1, 3, 9, 14), torch.zeros(1, 3, 9, 14))
        with unchecked(), pytest.raises(ValueError, match="frames must have the same shape"):
            model(torch.zeros(1, 3, 10, 14), torch.zeros(1, 3, 10, 15))


class TestVideoAutoencoding:
    def test_whole_and_points(self) -> None:
        model = small("video-autoencoding")
        video, audio = small_inputs(model)
        whole = model(video, audio)
        assert {name: tuple(x.shape) for name, x in whole.items()} == {
            "image": (2, 3, 3, 8, 12),
            "audio": (2, 60, 1),
            "label": (2, 13),
        }
        pixels, patches = torch.tensor([0, 287, 100]), torch.tensor([11, 3])
        some = model(video, audio, points={"image": pixels, "audio": patches})
        assert some["audio"].shape == (2, 2 * 5)
        flat = whole["image"].movedim(2, -1).flatten(1, 3)
        torch.testing.assert_close(some["image"], flat[:, pixels])
        torch.testing.assert_close(some["audio"], whole["audio"].reshape(2, 12, 5)[:, patches].flatten(1))
        torch.testing.assert_close(some["label"], whole["label"])

    @pytest.mark.parametrize("chunk_size", [1, 50, 10_000])
    def test_chunks_with_one_encoder_call(self, chunk_size: int) -> None:
        model = small("video-autoencoding")
        inputs = small_inputs(model)
        whole = model(*inputs)
        calls: list[object] = []
        model.encoder.register_forward_hook(lambda *args: calls.append(args))
        torch.testing.assert_close(model(*inputs, chunk_size=chunk_size), whole, rtol=1e-4, atol=1e-4)
        assert len(calls) == 1

    def test_points_of_one_modality(self) -> None:
        model = small("video-autoencoding")
        assert set(model(*small_inputs(model), points={"image": torch.tensor([5])})) == {"image", "label"}

    def test_a_label_is_an_input_where_it_is_given(self) -> None:
        model = small("video-autoencoding")
        inputs = small_inputs(model, batch=3)
        unlabelled = model(*inputs)
        label = torch.zeros(3, 13)
        torch.testing.assert_close(model(*inputs, label=label), unlabelled)
        label[1, 4] = 1
        outputs = model(*inputs, label=label)
        for name, expected in unlabelled.items():
            torch.testing.assert_close(outputs[name][[0, 2]], expected[[0, 2]])
            assert not torch.allclose(outputs[name][1], expected[1])

    def test_errors(self) -> None:
        model = small("video-autoencoding")
        video, audio = small_inputs(model)
        with pytest.raises(ValueError, match=r"video \(2, 2, 3, 8, 12\) must be \[batch, 3, 3, 8, 12\]"):
            model(video[:, :2], audio)
        with pytest.raises(ValueError, match=r"audio \(2, 59, 1\) must be \[batch, 60, 1\]"):
            model(video, audio[:, :59])
        with pytest.raises(ValueError, match=r"label \(2, 12\) must be \[batch, 13\]"):
            model(video, audio, label=torch.zeros(2, 12))


def test_a_head_of_two_layers_has_a_tanh_between_them() -> None:
    sizes = {**SMALL["language"], "num_decoder_heads": 1}
    config = perceiver_io.TextClassificationConfig(**sizes, num_classes=3, head_channels=9)
    model = perceiver_io.TextClassificationPerceiver(config)
    tokens = torch.randint(31, (2, 11))
    decoded = model.decoder(model.output_query(), model.encode(tokens).latents)
    head = model.output_postprocessor
    assert head.hidden.out_features == 9
    expected = head.output(torch.tanh(head.hidden(decoded[:, 0])))
    assert expected.shape == (2, 3)
    torch.testing.assert_close(model(tokens), expected)
