"""The end-point error, as loss and as metric, and the phases of training."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from examples.tiny.moving_textures import MovingTextures
from perceiver_io import OpticalFlowConfig, OpticalFlowPerceiver
from perceiver_io.training import Draw, derived_seed
from perceiver_io.training.optical_flow import OpticalFlowEvaluation, OpticalFlowObjective, end_point_error
from perceiver_io.training.tasks import optical_flow
from perceiver_io.training.tasks.optical_flow import PHASES
from tests.small_models import SMALL
from tests.training.test_flow import write_sintel

HEIGHT, WIDTH = SMALL["optical-flow"]["image_size"]


def moving_model() -> OpticalFlowPerceiver:
    """A model whose flow is not zero."""
    model = OpticalFlowPerceiver(OpticalFlowConfig(**SMALL["optical-flow"]))
    nn.init.normal_(model.decoder.output.weight)
    return model


def batch(num_pairs: int = 3) -> dict[str, Tensor]:
    return {
        "frame1": torch.rand(num_pairs, 3, HEIGHT, WIDTH),
        "frame2": torch.rand(num_pairs, 3, HEIGHT, WIDTH),
        "flow": torch.randn(num_pairs, 2, HEIGHT, WIDTH),
    }


class TestEndPointError:
    def test_it_is_the_mean_distance(self) -> None:
        target = torch.zeros(1, 2, 1, 3)
        flow = torch.tensor([[[3.0, 0.0, 0.0]], [[4.0, 0.0, 2.0]]])[None]
        assert end_point_error(flow, target) == pytest.approx(7 / 3)

    def test_unknown_motion_is_left_out(self) -> None:
        flow = torch.zeros(1, 2, 4, requires_grad=True)
        target = torch.tensor([[6.0, 2e9, 1.0, float("nan")], [8.0, 0.0, float("inf"), 0.0]])[None]
        error = end_point_error(flow, target)
        assert error.item() == pytest.approx(10)
        error.backward()
        assert torch.allclose(flow.grad, torch.tensor([[[-0.6, 0, 0, 0], [-0.8, 0, 0, 0]]]))
        assert end_point_error(flow, torch.full_like(flow, 2e9)) == 0


class TestObjective:
    def test_all_points(self) -> None:
        model, pairs = moving_model(), batch()
        figures = OpticalFlowObjective()(model, pairs, torch.Generator())
        assert figures["loss"] == end_point_error(model(pairs["frame1"], pairs["frame2"]), pairs["flow"])

    def test_some_points_of_each_pair(self) -> None:
        model, pairs = moving_model(), batch()
        given: list[Tensor] = []
        hook = model.register_forward_hook(lambda *call: given.append(call[2]["points"]), with_kwargs=True)
        losses = [
            OpticalFlowObjective(num_points=17)(model, pairs, torch.Generator().manual_seed(s))["loss"]
            for s in (3, 3, 4)
        ]
        hook.remove()
        assert losses[0] == losses[1]
        assert losses[0] != losses[2]
        assert given[0].shape == (3, 17)
        assert not torch.equal(given[0][0], given[0][1])
        whole = model(pairs["frame1"], pairs["frame2"]).flatten(2)
        chosen = given[0][:, None].expand(-1, 2, -1)
        expected = end_point_error(whole.gather(2, chosen), pairs["flow"].flatten(2).gather(2, chosen))
        assert losses[0].item() == pytest.approx(expected.item(), rel=1e-5)

    def test_the_gradient_reaches_every_parameter(self) -> None:
        model = moving_model()
        OpticalFlowObjective(num_points=17)(model, batch(), torch.Generator())["loss"].backward()
        without = [name for name, parameter in model.named_parameters() if not parameter.grad.any()]
        # A key's bias adds the same to all scores of a query, which the softmax takes away.
        assert all(name.endswith("attention.key.bias") for name in without)


class TestPoints:
    def test_shared_points(self) -> None:
        model, pairs = moving_model(), batch()
        points = torch.tensor([5, 139, 0, 77])
        flow = model(pairs["frame1"], pairs["frame2"], points=points)
        assert flow.shape == (3, 2, 4)
        whole = model(pairs["frame1"], pairs["frame2"])
        assert torch.allclose(flow, whole.flatten(2)[..., points], atol=1e-5)

    def test_larger_frames_are_refused(self) -> None:
        frames = torch.rand(2, 1, 3, HEIGHT + 1, WIDTH)
        with pytest.raises(ValueError, match=r"points need frames of image_size \(10×14\), got 11×14; crop these"):
            moving_model()(*frames, points=torch.arange(3))


class TestEvaluation:
    def test_each_pair_counts_alike(self) -> None:
        pairs = MovingTextures(5, image_size=(HEIGHT, WIDTH))
        evaluation = OpticalFlowEvaluation(dataset=pairs, seed=8, batch_size=2)
        model = moving_model().eval()
        with torch.no_grad():
            figures = evaluation(model)
            examples = [pairs[Draw(index, derived_seed(8, index))] for index in range(5)]
            errors = [end_point_error(model(e["frame1"][None], e["frame2"][None]), e["flow"][None]) for e in examples]
        assert figures["end_point_error"] == pytest.approx(torch.stack(errors).mean().item(), rel=1e-5)
        speeds = [example["flow"].norm(dim=0).mean() for example in examples]
        assert figures["zero_error"] == pytest.approx(torch.stack(speeds).mean().item(), rel=1e-5)
        assert figures["relative_error"] == pytest.approx(figures["end_point_error"] / figures["zero_error"])


@pytest.mark.parametrize("phase", PHASES)
def test_the_phases_of_training(phase: str, tmp_path: Path) -> None:
    write_sintel(tmp_path)
    config = OpticalFlowConfig(**SMALL["optical-flow"])
    parser = argparse.ArgumentParser()
    optical_flow.add_arguments(parser)
    arguments = parser.parse_args(["--phase", phase])
    arguments.data, arguments.workers = tmp_path, 0
    material = optical_flow.prepare(arguments, config)
    assert len(material.dataset) == (6 if phase == "both-ways" else 3)
    last = material.dataset[Draw(len(material.dataset) - 1, 5)]
    assert last["frame1"].shape == last["frame2"].shape == (3, HEIGHT, WIDTH)
    assert last["flow"].shape == (2, HEIGHT, WIDTH)
    whole = material.evaluate.dataset[Draw(0, 5)]  # type: ignore[attr-defined]
    assert whole["flow"].shape == (2, 20, 30)
