"""The end-point error, as loss and as metric, and the start near places."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from perceiver_io import OpticalFlowConfig, OpticalFlowPerceiver
from perceiver_io.patches import patches_for_flow
from perceiver_io.training import Draw, derived_seed
from perceiver_io.training.data.flow import MovingTextures
from perceiver_io.training.local_flow_start import grid_shape, start_locally
from perceiver_io.training.optical_flow import OpticalFlowEvaluation, OpticalFlowObjective, end_point_error
from tests.small_models import SMALL

HEIGHT, WIDTH = SMALL["optical-flow"]["image_size"]
LOCAL = OpticalFlowConfig(
    image_size=(24, 40),
    num_bands=12,
    featurizer_channels=54,
    num_latents=15,
    num_latent_channels=64,
    num_self_attends_per_block=1,
    num_self_attend_heads=4,
)


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


def made_frames(num_pairs: int) -> tuple[Tensor, Tensor]:
    pairs = [MovingTextures(1, image_size=LOCAL.image_size)[Draw(0, seed)] for seed in range(num_pairs)]
    frame1, frame2 = (torch.stack([pair[name] for pair in pairs]) for name in ("frame1", "frame2"))
    return frame1, frame2


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


class TestLocalStart:
    def test_patches_become_white(self) -> None:
        model, frames = OpticalFlowPerceiver(LOCAL), made_frames(8)
        start_locally(model, *frames)
        with torch.no_grad():
            tokens = model.input_preprocessor(patches_for_flow(torch.stack(frames, dim=1)))
        rows = tokens.features.flatten(0, 1)
        assert rows.mean(0).abs().amax() < 1e-3
        covariance = torch.cov(rows.T)
        assert (covariance - covariance.diag().diag()).abs().amax() < 0.3
        assert covariance.diag().amin() > 0.5
        assert covariance.diag().amax() <= 1.01

    def test_latents_and_queries_attend_to_what_is_near(self) -> None:
        model, frames = OpticalFlowPerceiver(LOCAL), made_frames(8)
        start_locally(model, *frames)
        pixels = torch.cartesian_prod(torch.arange(24.0), torch.arange(40.0))
        cells = torch.cartesian_prod(torch.arange(3) * 8 + 3.5, torch.arange(5) * 8 + 3.5)
        with torch.no_grad():
            tokens = model.input_preprocessor(patches_for_flow(torch.stack(frames, dim=1))).tokens[:1]
            latents = model.encoder.latents()
            gathered = attention_weights(model.encoder.cross_attend, latents, tokens) @ pixels
            read = attention_weights(model.decoder.cross_attend, tokens, latents) @ cells
        assert (gathered - cells).norm(dim=-1).mean() < 3
        assert (read - pixels).norm(dim=-1).mean() < 4

    def test_other_weights_stay_random(self) -> None:
        torch.manual_seed(1)
        model = OpticalFlowPerceiver(LOCAL)
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        start_locally(model, *made_frames(2))
        changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
        compared = {
            f"{half}.cross_attend.attention.{side}.weight"
            for half in ("encoder", "decoder")
            for side in ("query", "key")
        }
        patches = "input_preprocessor.featurizer.linear"
        assert changed == {f"{patches}.weight", f"{patches}.bias", "encoder.latents.embeddings", *compared}
        for name in compared:
            assert model.state_dict()[name].norm() > 0.3 * before[name].norm(), name

    @pytest.mark.parametrize(
        ("changed", "message"),
        [
            ({"num_cross_attend_heads": 2}, r"num_cross_attend_heads \(2\) to be 1"),
            ({"featurizer_channels": 55}, r"featurizer_channels \(55\) to be 54"),
            ({"num_latent_channels": 48}, r"num_latent_channels \(48\) of at least 50"),
            ({"num_latents": 17}, r"17 cells cannot cover 24×40 pixels as nearly squares: 1×17 is the best"),
        ],
    )
    def test_models_that_cannot_start_so(self, changed: dict[str, int], message: str) -> None:
        model = OpticalFlowPerceiver(dataclasses.replace(LOCAL, **changed))
        with pytest.raises(ValueError, match=message):
            start_locally(model, *made_frames(1))

    def test_cells_are_nearly_square(self) -> None:
        assert grid_shape(384, (64, 96)) == (16, 24)
        assert grid_shape(260, (64, 96)) == (13, 20)
        assert grid_shape(20, (50, 40)) == (5, 4)


def attention_weights(layer: nn.Module, queries: Tensor, inputs: Tensor) -> Tensor:
    query = layer.attention.query(layer.query_norm(queries))
    key = layer.attention.key(layer.input_norm(inputs))
    return (query[0] @ key[0].T / query.shape[-1] ** 0.5).softmax(-1)
