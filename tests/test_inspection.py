"""Reports of stages: shapes as they come, parameters and work that add up, on small models and on users' own."""

import math

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import perceiver_io
from perceiver_io import PerceiverDecoder, PerceiverEncoder, PerceiverIO
from perceiver_io.fast import plain
from perceiver_io.inspection import StageReport, example_inputs, inspect_stages, total_work
from perceiver_io.position_encoding import LearnedPositionEncoding
from perceiver_io.postprocessors import ProjectionPostprocessor
from perceiver_io.preprocessors import Pixels, Preprocessor
from tests.small_models import SMALL, small_inputs

STAGES = ["preprocessor", "encoder cross-attention", "latent self-attention", "query", "decoder", "postprocessor"]


def by_stage(reports: list[StageReport]) -> dict[str, StageReport]:
    assert [report.stage for report in reports] == STAGES
    return {report.stage: report for report in reports}


@pytest.mark.parametrize("name", SMALL)
def test_stages_add_up_to_the_model(name: str) -> None:
    model = perceiver_io.create_model(name, **SMALL[name]).eval()
    inputs = small_inputs(model, batch=1)
    if name == "language":
        inputs = (torch.zeros(1, 17, dtype=torch.long),)
    assert [given.shape for given in example_inputs(model)] == [given.shape for given in inputs]
    reports = inspect_stages(model)
    by_stage(reports)
    assert sum(report.parameters for report in reports) == sum(p.numel() for p in model.parameters())
    tensors = [*model.parameters(), *model.buffers()]
    assert sum(report.weight_bytes for report in reports) == sum(tensor.nbytes for tensor in tensors)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        twin = perceiver_io.create_model(name, **SMALL[name]).to("meta").eval().requires_grad_(False)
        perceiver_io.undo_accelerate(twin)
        outputs = twin(*(given.to("meta") for given in inputs))
    assert sum(report.flops for report in reports) == counter.get_total_flops() > 0
    results = outputs.values() if isinstance(outputs, dict) else [outputs]
    assert reports[-1].output_shapes == [tuple(result.shape) for result in results]
    # Every stage that computes anything holds at least its own result.
    for report in reports[:3]:
        assert report.largest_activation_bytes >= 4 * math.prod(report.output_shapes[0])


@pytest.mark.parametrize("name", SMALL)
def test_total_work_is_that_of_the_model_as_it_is(name: str) -> None:
    model = perceiver_io.create_model(name, **SMALL[name]).eval()
    with plain(model):
        whole = total_work(model)
    assert whole == sum(report.flops for report in inspect_stages(model))
    assert 0 < total_work(model) <= whole
    assert total_work(model, *small_inputs(model, batch=2)) > 0


def test_shapes_and_work_of_an_image_classifier() -> None:
    stages = by_stage(inspect_stages(perceiver_io.create_model("imagenet-conv", **SMALL["imagenet-conv"])))
    channels = 9 + 2 * (1 + 2 * 5)
    assert {name: report.output_shapes for name, report in stages.items()} == {
        "preprocessor": [(1, 5 * 7, channels)],
        "encoder cross-attention": [(1, 7, 24)],
        "latent self-attention": [(1, 7, 24)],
        "query": [(1, 1, 24)],
        "decoder": [(1, 1, 11)],
        "postprocessor": [(1, 11)],
    }
    assert stages["latent self-attention"].module == "4 × SelfAttention"
    # For each latent and weight of the linear layers a multiplication and an addition; so for scores, and their use.
    layer = 7 * 6 * 24 * 24 + 2 * 7 * 7 * 24
    assert stages["latent self-attention"].flops == 4 * 2 * layer
    # Queries, output and MLP of 7 latents, keys and values of 35 inputs, scores and their use.
    cross = 7 * (24 * channels + channels * 24 + 2 * 24 * 24) + 2 * 35 * channels**2 + 2 * 7 * 35 * channels
    assert stages["encoder cross-attention"].flops == 2 * cross
    assert stages["query"].parameters == 24
    assert stages["postprocessor"].parameters == stages["postprocessor"].flops == 0


def test_chunks_and_modalities_are_joined() -> None:
    stages = by_stage(inspect_stages(perceiver_io.create_model("video-autoencoding", **SMALL["video-autoencoding"])))
    num_points = 12 + 3 * 8 * 12 + 1
    assert stages["query"].output_shapes == [(1, num_points, 29 + 2)]
    assert stages["decoder"].output_shapes == [(1, num_points, 18)]
    assert stages["postprocessor"].output_shapes == [(1, 60, 1), (1, 3, 3, 8, 12), (1, 13)]


def test_the_model_stays_as_it_is() -> None:
    model = perceiver_io.create_model("imagenet-learned", **SMALL["imagenet-learned"])
    model.train().requires_grad_(False)
    types = [type(module) for module in model.modules()]
    inspect_stages(model)
    assert model.training
    assert [type(module) for module in model.modules()] == types
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    assert not any(module._forward_hooks for module in model.modules())


def test_precision_counts() -> None:
    whole, half = (
        perceiver_io.create_model("optical-flow", **SMALL["optical-flow"]).to(dtype)
        for dtype in (torch.float32, torch.float16)
    )
    for report, of_half in zip(inspect_stages(whole), inspect_stages(half), strict=True):
        assert of_half.weight_bytes == report.weight_bytes / 2
        assert of_half.flops == report.flops


class MeanEncoder(nn.Module):
    """An encoder of a user's own."""

    def forward(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return tokens.mean(dim=1, keepdim=True)


def test_models_of_ones_own() -> None:
    model = PerceiverIO(
        PerceiverEncoder(4, num_latents=5, num_latent_channels=8, num_self_attends_per_block=2, num_blocks=3),
        PerceiverDecoder(6, 8, output_channels=10),
        Preprocessor(Pixels(4)),
        LearnedPositionEncoding(9, 6),
        ProjectionPostprocessor(10, 2),
    )
    images = torch.randn(3, 4, 11, 13)
    stages = by_stage(inspect_stages(model, images))
    assert stages["preprocessor"].output_shapes == [(3, 11 * 13, 4)]
    assert stages["latent self-attention"].output_shapes == [(3, 5, 8)]
    assert stages["postprocessor"].output_shapes == [(3, 9, 2)]
    with pytest.raises(
        ValueError, match=r"what a PerceiverIO takes is for you to say: inspect_stages\(model, \*inputs\)"
    ):
        inspect_stages(model)

    model = PerceiverIO(MeanEncoder(), PerceiverDecoder(6, 4, output_channels=10), None, LearnedPositionEncoding(9, 6))
    reports = inspect_stages(model, torch.randn(3, 7, 4))
    assert [report.stage for report in reports] == ["preprocessor", "encoder", "query", "decoder", "postprocessor"]
    assert reports[1] == StageReport("encoder", "MeanEncoder", 0, [(3, 1, 4)], 0, 0, 3 * 4 * 4)
