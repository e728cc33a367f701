"""Where a flow model with a local start looks before it has learned anything."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from examples.tiny.local_flow_start import grid_shape, start_locally
from examples.tiny.moving_textures import MovingTextures
from perceiver_io import OpticalFlowConfig, OpticalFlowPerceiver
from perceiver_io.patches import patches_for_flow
from perceiver_io.training import Draw

LOCAL = OpticalFlowConfig(
    image_size=(24, 40),
    num_bands=12,
    featurizer_channels=54,
    num_latents=15,
    num_latent_channels=64,
    num_self_attends_per_block=1,
    num_self_attend_heads=4,
)


def made_frames(num_pairs: int) -> tuple[Tensor, Tensor]:
    pairs = [MovingTextures(1, image_size=LOCAL.image_size)[Draw(0, seed)] for seed in range(num_pairs)]
    frame1, frame2 = (torch.stack([pair[name] for pair in pairs]) for name in ("frame1", "frame2"))
    return frame1, frame2


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
