"""The border: every entry refuses wrong arguments of every kind in one sentence, and takes what is unambiguous."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import perceiver_io
from perceiver_io import PerceiverDecoder, PerceiverEncoder, PerceiverIO, ProjectionDecoder
from perceiver_io.multimodal import MultimodalPreprocessor, MultimodalQuery
from perceiver_io.position_encoding import FourierPositionEncoding, LearnedPositionEncoding
from perceiver_io.postprocessors import IdentityPostprocessor
from perceiver_io.preprocessors import (
    AudioPatches,
    ByteEmbedding,
    Conv1x1,
    ConvStem,
    OneHot,
    Patches,
    Pixels,
    Preprocessor,
)
from perceiver_io.queries import PositionQuery
from tests.small_models import SMALL, small_inputs
from tests.unchecked import unchecked

# Ways to get an argument wrong that no entry that takes floats may answer.
WRONG_FLOATS: dict[str, Callable[[Tensor], Any]] = {
    "None": lambda x: None,
    "a list": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "bytes": lambda x: (x * 100).to(torch.uint8),
    "int16": lambda x: (x * 100).short(),
    "int64": lambda x: (x * 100).long(),
    "bool": lambda x: x > 0,
    "complex": lambda x: x.to(torch.complex64),
    "half": lambda x: x.half(),
    "double": lambda x: x.double(),
    "NaN": lambda x: torch.where(torch.arange(x.numel()).reshape(x.shape) == 3, torch.nan, x),
    "infinite": lambda x: torch.where(torch.arange(x.numel()).reshape(x.shape) == 3, torch.inf, x),
    "an axis less": lambda x: x[0],
    "an axis more": lambda x: x[None],
    "channels last": lambda x: x.movedim(-3, -1) if x.ndim > 3 else x.transpose(1, -1),
    "another number of channels": lambda x: x.repeat_interleave(2, -3 if x.ndim > 3 else -1),
    "nothing along the last axis": lambda x: x[..., :0],
}
WRONG_IDS: dict[str, Callable[[Tensor], Any]] = {
    "too large, unsigned": lambda x: (x + 1000).to(torch.uint16),
    "None": lambda x: None,
    "a list": lambda x: x.tolist(),
    "numpy": lambda x: x.numpy(),
    "floats": lambda x: x.float(),
    "bool": lambda x: x > 3,
    "negative": lambda x: x - 1000,
    "too large": lambda x: x + 1000,
    "an axis less": lambda x: x[0],
    "an axis more": lambda x: x[None],
    "nothing": lambda x: x[:, :0],
}
WRONG_MASKS: dict[str, Callable[[Tensor], Any]] = {
    "a list": lambda mask: mask.tolist(),
    "numpy": lambda mask: mask.numpy(),
    "zeros and ones as floats": lambda mask: mask.float(),
    "additive": lambda mask: torch.zeros(mask.shape).masked_fill(~mask, -torch.inf),
    "NaN": lambda mask: torch.full(mask.shape, torch.nan),
    "counts": lambda mask: mask.long() * 7,
    "unsigned counts": lambda mask: (mask.long() * 7).to(torch.uint16),
    "shorter": lambda mask: mask[:, 1:],
    "longer": lambda mask: torch.cat([mask, mask], 1),
    "of more examples": lambda mask: torch.cat([mask, mask]),
    "an axis less": lambda mask: mask[0],
    "an axis more": lambda mask: mask[None],
}
WRONG_POINTS: dict[str, Any] = {
    "an int": 3,
    "a list": [1, 2],
    "a range": range(3),
    "numpy": np.arange(3),
    "bool": torch.ones(9, dtype=torch.bool),
    "bytes": torch.ones(9, dtype=torch.uint8),
    "negative": torch.tensor([0, -1]),
    "beyond": torch.tensor([0, 10**6]),
    "no axes": torch.tensor(1),
    "three axes": torch.zeros(2, 1, 2, dtype=torch.long),
    "floats of one axis": torch.rand(3),
    "floats of two axes": torch.rand(3, 2),
    "NaN": torch.full((2, 3, 2), torch.nan),
    "far out": torch.full((2, 3, 2), 1e30),
    "of more coordinates": torch.rand(2, 3, 5),
    "of other examples": torch.zeros(5, 3, dtype=torch.long),
}


def refused(call: Callable[[], Any], what: str) -> None:
    values = what.endswith(("NaN", "infinite"))  # of floats: looked at in inference only
    for context in (torch.no_grad,) if values else (torch.no_grad, torch.enable_grad):
        with unchecked(), context(), pytest.raises(ValueError) as caught:  # the message is looked at below
            call()
        message = str(caught.value)
        # The value and the rule; and not an inside of PyTorch.
        assert " must " in message or "holds" in message or "hold " in message or " need " in message, (
            f"{what}: {message}"
        )
        assert "\n" not in message


@pytest.fixture(params=SMALL)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("wrong", {**WRONG_FLOATS, **WRONG_IDS})
def test_task_models(name: str, wrong: str) -> None:
    model = perceiver_io.create_model(name, **SMALL[name]).eval()
    inputs = small_inputs(model)
    for place, given in enumerate(inputs):
        ways = WRONG_MASKS if given.dtype == torch.bool else WRONG_FLOATS if given.is_floating_point() else WRONG_IDS
        if wrong not in ways:
            continue
        with unchecked():
            bad = ways[wrong](given)
        if (
            isinstance(bad, Tensor)
            and bad.shape == given.shape
            and bad.dtype == given.dtype
            and torch.equal(bad, given)
        ):
            continue
        arguments = [*inputs[:place], bad, *inputs[place + 1 :]]
        refused(lambda arguments=arguments: model(*arguments), f"{name}, argument {place}, {wrong}")


@pytest.mark.parametrize("wrong", WRONG_MASKS)
def test_masks(wrong: str) -> None:
    language = perceiver_io.create_model("language", **SMALL["language"]).eval()
    tokens, mask = small_inputs(language)
    bad = WRONG_MASKS[wrong](mask)
    refused(lambda: language(tokens, bad), f"language, mask {wrong}")
    model, images, input_mask, query_mask = own()
    refused(lambda: model(images, WRONG_MASKS[wrong](input_mask)), f"input_mask {wrong}")
    for either in (model, perceiver_io.accelerate(copy.deepcopy(model))):
        for chunk_size in (None, 5, 42):
            refused(
                lambda either=either, chunk_size=chunk_size: either(
                    images, query_mask=WRONG_MASKS[wrong](query_mask), chunk_size=chunk_size
                ),
                f"query_mask {wrong} in chunks of {chunk_size}",
            )
    clip, tokens_of = several()
    for name, names in (("input_mask", tokens_of), ("masked", ["shot"]), ("query_mask", ["name"])):
        for modality in names:
            mask = torch.rand(2, 1 if modality == "name" else 12) > 0.4
            mask[0] = True
            bad = {modality: WRONG_MASKS[wrong](mask)}
            if wrong == "shorter" and modality == "name":
                continue  # nothing is left, not even a wrong value
            refused(lambda name=name, bad=bad: clip(pictures(), **{name: bad}), f"{name} of {modality} {wrong}")


def several() -> tuple[PerceiverIO, list[str]]:
    """A model of two modalities in and one out, and the names of those that come in."""
    stems = {name: Preprocessor(Pixels(2), FourierPositionEncoding((3, 4), num_bands=2)) for name in ("shot", "take")}
    stem = MultimodalPreprocessor(stems, mask_probs={"shot": 0.5})
    query = MultimodalQuery({"name": PositionQuery(LearnedPositionEncoding(1, 8))})
    encoder = PerceiverEncoder(
        stem.num_channels, num_latents=5, num_latent_channels=12, num_self_attends_per_block=1, num_self_attend_heads=3
    )
    decoder = PerceiverDecoder(query.num_channels, 12, output_channels=3)
    return PerceiverIO(encoder, decoder, stem, query, {"name": IdentityPostprocessor()}).eval(), ["shot", "take"]


def pictures() -> dict[str, Tensor]:
    return {name: torch.randn(2, 2, 3, 4) for name in ("shot", "take")}


@pytest.mark.parametrize("argument", ["positions", "masked", "points", "query_mask", "input_mask"])
def test_names_of_modalities(argument: str) -> None:
    model, _ = several()
    for wrong in ({"sound": None}, {"sound": torch.ones(2, 12, 2)}, torch.ones(2, 12, 2), [None], 3, "shot"):
        refused(lambda wrong=wrong: model(pictures(), **{argument: wrong}), f"{argument} {wrong!r}")


def test_arguments_that_nothing_takes() -> None:
    tokens = PerceiverIO(PerceiverEncoder(4, num_latents=5, num_latent_channels=8), ProjectionDecoder(8, 3)).eval()
    pixels = PerceiverIO(
        PerceiverEncoder(2, num_latents=5, num_latent_channels=8), ProjectionDecoder(8, 3), Pixels(2)
    ).eval()
    for model, given in ((tokens, torch.randn(2, 12, 4)), (pixels, torch.randn(2, 2, 3, 4))):
        for name, value in (
            ("positions", torch.rand(2, 12, 2)),
            ("points", torch.tensor([0])),
            ("points", torch.rand(2, 1, 2)),
            ("query_mask", torch.ones(2, 1, dtype=torch.bool)),
        ):
            refused(lambda model=model, given=given, name=name, value=value: model(given, **{name: value}), name)
        torch.testing.assert_close(model(given, chunk_size=3), model(given))


@pytest.mark.parametrize("wrong", WRONG_POINTS)
def test_points(wrong: str) -> None:
    model, images, *_ = own()
    flow = perceiver_io.create_model("optical-flow", **SMALL["optical-flow"]).eval()
    video = perceiver_io.create_model("video-autoencoding", **SMALL["video-autoencoding"]).eval()
    points = WRONG_POINTS[wrong]
    for chunk_size in (None, 2):
        refused(lambda chunk_size=chunk_size: model(images, points=points, chunk_size=chunk_size), f"points {wrong}")
    refused(lambda: flow(*small_inputs(flow), points=points), f"flow, points {wrong}")
    refused(lambda: video(*small_inputs(video), points={"image": points}), f"video, points {wrong}")


def own() -> tuple[PerceiverIO, Tensor, Tensor, Tensor]:
    stem = Preprocessor(Pixels(2), FourierPositionEncoding((3, 4), num_bands=2))
    query = PositionQuery(FourierPositionEncoding((6, 7), num_bands=3))
    encoder = PerceiverEncoder(
        stem.num_channels, num_latents=5, num_latent_channels=12, num_self_attends_per_block=1, num_self_attend_heads=3
    )
    model = PerceiverIO(encoder, PerceiverDecoder(14, 12, output_channels=3), stem, query).eval()
    masks = torch.rand(2, 12) > 0.4, torch.rand(2, 42) > 0.4
    for mask in masks:
        mask[0, :2] = torch.tensor([True, False])
    return model, torch.randn(2, 2, 3, 4), *masks


@pytest.mark.parametrize("chunk_size", [0, -1, 1.5, "3", np.float64(3), np.int64(0), torch.tensor([3, 4])])
def test_chunk_sizes(chunk_size: Any) -> None:
    model, images, *_ = own()
    refused(lambda: model(images, chunk_size=chunk_size), f"chunk_size {chunk_size!r}")


FEATURIZERS: list[tuple[torch.nn.Module, Tensor]] = [
    (Pixels(2), torch.randn(2, 2, 3, 4)),
    (Patches(2, spatial_downsample=2, num_channels=5), torch.randn(2, 2, 4, 6)),
    (Conv1x1(2, 5), torch.randn(2, 2, 3, 4)),
    (ConvStem(2, 5), torch.randn(2, 2, 9, 11)),
    (AudioPatches(5), torch.randn(2, 20, 1)),
    (OneHot(9), torch.randn(2, 9)),
    (ByteEmbedding(50, 5), torch.randint(50, (2, 7))),
]


@pytest.mark.parametrize(("featurizer", "given"), FEATURIZERS, ids=lambda x: type(x).__name__)
def test_compositions_of_ones_own(featurizer: torch.nn.Module, given: Tensor) -> None:
    stem = Preprocessor(featurizer)
    encoder = PerceiverEncoder(
        stem.num_channels,
        num_latents=5,
        num_latent_channels=12,
        num_self_attends_per_block=1,
        num_cross_attend_heads=1,
        num_self_attend_heads=3,
    )
    model = PerceiverIO(encoder, ProjectionDecoder(12, 4), stem).eval()
    model(given)
    for wrong, change in (WRONG_FLOATS if given.is_floating_point() else WRONG_IDS).items():
        bad = change(given)
        # Frames of five axes are videos; audio of several channels is interleaved, which is allowed; the scores of
        # classes have but one axis.
        if isinstance(featurizer, AudioPatches) and wrong in ("channels last", "another number of channels"):
            continue
        if isinstance(featurizer, OneHot) and wrong == "channels last":
            continue
        if given.ndim == 4 and wrong == "an axis more":
            continue
        refused(lambda bad=bad: model(bad), f"{type(featurizer).__name__}, {wrong}")


def test_what_is_unambiguous_is_taken() -> None:
    language = perceiver_io.create_model("language", **SMALL["language"]).eval()
    tokens, mask = small_inputs(language)
    with torch.no_grad(), unchecked():
        expected = language(tokens, mask)
        unsigned = (torch.uint8, torch.uint16, torch.uint32, torch.uint64)
        for ids in (tokens.int(), tokens.short(), *map(tokens.to, unsigned)):
            for integers in (mask.long(), mask.int(), *map(mask.to, unsigned)):
                torch.testing.assert_close(language(ids, integers), expected)
        points = torch.tensor([1, 3])
        torch.testing.assert_close(language(tokens, mask, points.int()), expected[:, points])
        torch.testing.assert_close(language(tokens, mask, slice(1, 5, 2)), expected[:, points])
        model, images, input_mask, query_mask = own()
        for chunk_size in (np.int64(5), np.uint8(5), torch.tensor(5)):
            torch.testing.assert_close(model(images, chunk_size=chunk_size), model(images))
        torch.testing.assert_close(
            model(images, input_mask.int(), query_mask=query_mask.byte()),
            model(images, input_mask, query_mask=query_mask),
        )


def test_widths_that_do_not_fit_are_refused_when_a_model_is_built() -> None:
    stem = Preprocessor(Pixels(2), FourierPositionEncoding((3, 4), num_bands=2))
    query = PositionQuery(LearnedPositionEncoding(4, 8))
    sizes: dict[str, Any] = {"num_latents": 5, "num_latent_channels": 12, "num_self_attend_heads": 3}
    right = PerceiverEncoder(stem.num_channels, **sizes)
    with pytest.raises(
        ValueError, match="the input_preprocessor yields 12 channels and the encoder takes 9; they must agree: build"
    ):
        PerceiverIO(PerceiverEncoder(9, **sizes), PerceiverDecoder(8, 12, output_channels=3), stem, query)
    with pytest.raises(ValueError, match="the encoder yields 12 channels and the decoder takes 11"):
        PerceiverIO(right, PerceiverDecoder(8, 11, output_channels=3), stem, query)
    with pytest.raises(ValueError, match="the output_query yields 8 channels and the decoder takes 7"):
        PerceiverIO(right, PerceiverDecoder(7, 12, output_channels=3), stem, query)


def test_batches_that_do_not_fit() -> None:
    decoder = PerceiverDecoder(16, 8, output_channels=3).eval()
    for queries, latents in ((2, 4), (4, 2)):
        refused(
            lambda queries=queries, latents=latents: decoder(torch.randn(queries, 9, 16), torch.randn(latents, 4, 8)),
            f"{queries} queries, {latents} latents",
        )
    video = perceiver_io.create_model("video-autoencoding", **SMALL["video-autoencoding"]).eval()
    clip, audio = small_inputs(video)
    with unchecked(), pytest.raises(ValueError, match="audio of 1 examples must fit video of 2: give as many"):
        video(clip, audio[:1])


def test_modalities_must_be_dicts() -> None:
    video = perceiver_io.create_model("video-autoencoding", **SMALL["video-autoencoding"]).eval()
    clip, audio = small_inputs(video)
    for points in (torch.tensor([1]), [1], {"sound": None}):
        refused(lambda points=points: video(clip, audio, points=points), f"points {points}")
    for given in (clip, [clip, audio], {"image": clip}):
        refused(lambda given=given: video.encode(given), "inputs")


def test_checks_vanish_where_pytorch_compiles_or_exports() -> None:
    model, images, *_ = own()
    with unchecked():
        program = torch.export.export(model, (images,), strict=False)
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls
    assert not any("isfinite" in call or "item.default" in call or "aten.min" in call for call in calls)
