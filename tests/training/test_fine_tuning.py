"""Fine-tuning of models that were converted from golden checkpoints: a new head learns, what is frozen stays."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import perceiver_io
from conversion.convert_haiku_checkpoint import main as convert
from perceiver_io import ImageClassificationPerceiver
from perceiver_io.training import Draw, Lamb, Trainer, TrainerConfig, decay_groups, flat_then_cosine, read_metrics
from perceiver_io.training.fine_tuning import freeze_encoder, replace_head
from perceiver_io.training.image_classification import ClassificationObjective
from tests.golden import GOLDEN_DIR, Case
from tests.parity.test_models import preset_of
from tests.small_models import SMALL

NAMES = ["imagenet_conv_preprocessing", "imagenet_fourier_position_encoding", "imagenet_learned_position_encoding"]
NUM_CLASSES = 4
GUESSING = math.log(NUM_CLASSES)  # the loss of equal probabilities


@pytest.fixture(params=NAMES)
def converted(request: pytest.FixtureRequest, tmp_path: Path) -> ImageClassificationPerceiver:
    """A golden checkpoint, converted by the script and loaded."""
    preset, overrides = preset_of(Case.load(GOLDEN_DIR / "models" / f"{request.param}.npz"))
    config = tmp_path / "config.json"
    config.write_text(perceiver_io.create_config(preset, **overrides).to_json())
    source, destination = GOLDEN_DIR / "models" / f"{request.param}.pystate", tmp_path / "model"
    assert convert([str(source), str(destination), "--model", preset, "--config", str(config)]) == 0
    model = perceiver_io.load_model(destination)
    assert isinstance(model, ImageClassificationPerceiver)
    return model


class Colours:
    """Noisy pictures that are red, green, blue or grey: four classes."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size

    def __len__(self) -> int:
        return 24

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        image = torch.randn(3, *self.size, generator=torch.Generator().manual_seed(draw.seed))
        label = draw.index % NUM_CLASSES
        image[label : label + 1] += 2.0
        return {"image": image, "label": torch.tensor(label)}


def fine_tune(model: ImageClassificationPerceiver, directory: Path) -> list[float]:
    """The losses of a short run."""
    Trainer(
        model,
        ClassificationObjective(),
        Colours(model.config.image_size),
        TrainerConfig(num_steps=40, batch_size=6, log_every=1, checkpoint_every=None),
        directory,
        make_optimizer=lambda trained: Lamb(decay_groups(trained, 0.1), lr=0.01),
        schedule=flat_then_cosine(40),
    ).fit()
    return [record["loss"] for record in read_metrics(directory / "metrics.jsonl")]


def changed_tensors(before: dict[str, Tensor], model: ImageClassificationPerceiver) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def test_a_new_head_lowers_the_loss(converted: ImageClassificationPerceiver, tmp_path: Path) -> None:
    replace_head(converted, NUM_CLASSES)
    before = copy.deepcopy(converted.state_dict())
    losses = fine_tune(converted, tmp_path / "run")
    assert sum(losses[-8:]) / 8 < GUESSING / 2
    # The bias of keys adds the same to all scores of a query, so there is nothing to be learned for it.
    learning = {name for name, _ in converted.named_parameters() if not name.endswith("attention.key.bias")}
    assert changed_tensors(before, converted) >= learning
    perceiver_io.save_model(converted, tmp_path / "tuned")
    tuned = perceiver_io.load_model(tmp_path / "tuned")
    assert tuned(torch.randn(2, 3, *converted.config.image_size)).shape == (2, NUM_CLASSES)


def test_freezing_freezes(converted: ImageClassificationPerceiver, tmp_path: Path) -> None:
    replace_head(converted, NUM_CLASSES)
    freeze_encoder(converted)
    before = copy.deepcopy(converted.state_dict())
    losses = fine_tune(converted, tmp_path / "run")
    assert sum(losses[-8:]) / 8 < GUESSING / 2
    changed = changed_tensors(before, converted)
    # The averages of the batch norm are state too, and stay.
    assert {name.split(".")[0] for name in changed} == {"output_query", "decoder"}
    assert "decoder.output.weight" in changed


def test_a_new_head_leaves_the_rest_as_it_is(converted: ImageClassificationPerceiver) -> None:
    before, config = copy.deepcopy(converted.state_dict()), converted.config
    old_classes = config.num_classes
    replace_head(converted, NUM_CLASSES)
    head = {"decoder.output.weight", "decoder.output.bias"}
    after = converted.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in after.keys() - head)
    assert after["decoder.output.weight"].shape == (NUM_CLASSES, config.num_latent_channels)
    assert (converted.config.num_classes, config.num_classes) == (NUM_CLASSES, old_classes)
    assert converted.config == type(config).from_dict({**config.to_dict(), "num_classes": NUM_CLASSES})


def test_a_head_for_as_many_other_classes_is_new_too() -> None:
    model = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"]).double()
    old = model.decoder.output.weight
    replace_head(model, model.config.num_classes)
    assert model.decoder.output.weight.shape == old.shape
    assert model.decoder.output.weight.dtype == torch.float64
    assert not torch.equal(model.decoder.output.weight, old)


def test_a_head_needs_a_class() -> None:
    model = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])
    with pytest.raises(ValueError, match=r"num_classes \(0\) must be a positive integer"):
        replace_head(model, 0)
    assert model.config.num_classes == 11


@pytest.mark.parametrize("preset", SMALL)
def test_all_up_to_the_latents_is_frozen(preset: str) -> None:
    model = perceiver_io.create_model(preset, **SMALL[preset])
    freeze_encoder(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (not name.startswith(("input_preprocessor.", "encoder.")))
