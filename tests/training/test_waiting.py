"""Steps of training, as they run on a GPU: the host waits for nothing of them."""

from typing import Any

import pytest
import torch
from torch import Tensor

import perceiver_io
from perceiver_io.fast.waiting import NothingWaits, WaitingError
from perceiver_io.training import Lamb, decay_groups
from perceiver_io.training.autoregressive import NextTokenObjective
from perceiver_io.training.data.glue import GLUE_TASKS
from perceiver_io.training.fine_tuning import text_classifier
from perceiver_io.training.finiteness import Finiteness
from perceiver_io.training.gradients import clip_gradients, global_norm
from perceiver_io.training.image_classification import ClassificationObjective
from perceiver_io.training.language import MaskedLanguageObjective, hidden, masked_cross_entropy
from perceiver_io.training.muon import Muon, muon_groups
from perceiver_io.training.optical_flow import OpticalFlowObjective
from perceiver_io.training.tasks.glue import classifier_config
from perceiver_io.training.text_classification import GlueObjective
from perceiver_io.training.video_autoencoding import VideoAutoencodingObjective
from tests.small_models import SMALL, small_inputs

pytestmark = pytest.mark.usefixtures("as_on_cuda")
AR = {
    "num_self_attends": 1,
    "max_context_length": 12,
    "max_wavelength": 12,
    "num_latents": 6,
    "embed_channels": 24,
    "num_latent_channels": 24,
    "num_cross_attend_heads": 3,
    "num_self_attend_heads": 3,
}


def material(name: str) -> tuple[Any, Any, dict[str, Tensor]]:
    """A model, its objective and a batch."""
    if name == "autoregressive":
        model: Any = perceiver_io.create_model("ar-default", **AR)
        return model, NextTokenObjective(), {"tokens": torch.randint(1, 9, (3, 11))}
    preset = "language" if name == "glue" else name
    model = perceiver_io.create_model(preset, **SMALL[preset])
    inputs = small_inputs(model)
    match name:
        case "language" | "glue":
            tokens, mask = inputs
            if name == "language":
                return model, MaskedLanguageObjective(), {"tokens": tokens, "masked": torch.rand(tokens.shape) < 0.3}
            task = GLUE_TASKS["MRPC"]
            labels = torch.arange(len(tokens)) % 2
            return (
                text_classifier(model, classifier_config(model.config, 2)),
                GlueObjective(task=task),
                {"tokens": tokens, "mask": mask, "label": labels},
            )
        case "optical-flow":
            flow = torch.randn(len(inputs[0]), 2, *inputs[0].shape[2:])
            return model, OpticalFlowObjective(num_points=9), {"frame1": inputs[0], "frame2": inputs[1], "flow": flow}
        case "video-autoencoding":
            objective = VideoAutoencodingObjective(config=model.config, num_image_points=9, num_audio_points=2)
            labels = torch.arange(len(inputs[0]))
            return model, objective, {"video": inputs[0], "audio": inputs[1], "label": labels}
        case _:
            return model, ClassificationObjective(), {"image": inputs[0], "label": torch.arange(len(inputs[0]))}


@pytest.mark.parametrize("name", [*SMALL, "glue", "autoregressive"])
def test_no_objective_waits(name: str) -> None:
    model, objective, batch = material(name)
    if hasattr(objective, "prepare"):
        batch = objective.prepare(batch)
    with NothingWaits():
        objective(model.train(), batch, torch.Generator().manual_seed(0))["loss"].backward()
    assert any(parameter.grad is not None for parameter in model.parameters())


class ButForCounts(NothingWaits):
    """Lets optimisers look at their numbers of steps, which lie on the CPU wherever the weights are."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_count = func is torch.ops.aten._local_scalar_dense.default and float(args[0].sum()) == 1
        return func(*args) if is_count else super().__torch_dispatch__(func, types, args, kwargs)


@pytest.mark.parametrize("kind", [Lamb, Muon])
def test_no_optimiser_waits(kind: type) -> None:
    layer = torch.nn.Linear(5, 3)
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer = kind((muon_groups if kind is Muon else decay_groups)(layer, 0.1), lr=0.1)
    finiteness = Finiteness(most_steps=2)
    with ButForCounts():
        norm = global_norm(p.grad for p in layer.parameters() if p.grad is not None)
        clip_gradients(optimizer, 0.5)
        finiteness.note(1, [norm], norm)
        optimizer.step()
    assert not finiteness.is_due
    for parameter in layer.parameters():
        assert optimizer.state[parameter].get("step", torch.ones(())).device.type == "cpu"


def test_points_of_a_batch_are_found_before_it_is_copied() -> None:
    model, objective, batch = material("language")
    prepared = objective.prepare(batch)
    generator = torch.Generator()
    loss = objective(model, batch, generator)["loss"]
    assert torch.equal(objective(model, prepared, generator)["loss"], loss)
    tokens, masked = batch["tokens"], batch["masked"]
    torch.testing.assert_close(loss, masked_cross_entropy(model(hidden(tokens, masked)), tokens, masked))


@pytest.mark.parametrize("inference_mode", [False, True])
def test_refusals_name_the_operation(inference_mode: bool) -> None:
    with torch.inference_mode(inference_mode):
        x = torch.ones(3)
        with NothingWaits(), pytest.raises(WaitingError, match=r"aten\.nonzero\.default looks at values"):
            x.nonzero()
        with NothingWaits(), pytest.raises(WaitingError, match=r"aten\._to_copy\.default copies between devices"):
            x.to("meta")
        with NothingWaits(), pytest.raises(WaitingError, match=r"aten\._local_scalar_dense\.default looks at values"):
            x.sum().item()
