"""Directories that transformers' classes load, computing what our models do; refusals where its classes cannot."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.export import export_transformers
from perceiver_io.models.config import ModelConfig
from perceiver_io.position_encoding import linspace
from perceiver_io.presets import PRESETS, create_config, model_from_config
from perceiver_io.weights.importing import import_model
from perceiver_io.weights.transformers import model_config
from tests.golden import TOLERANCE
from tests.weights.transformers_models import CONFIGS, inputs_for, outputs_of

EXPORTED = (
    "PerceiverForMaskedLM",
    "PerceiverForSequenceClassification",
    "PerceiverForImageClassificationFourier",
    "PerceiverForImageClassificationLearned",
    "PerceiverForOpticalFlow",
)


def small_model(architecture: str, **overrides: Any) -> Any:
    """A random model of ours, of the sizes that the class's small one has."""
    head = {"perceiver.decoder.decoder.final_layer.weight": torch.empty(3, 24)}
    config = model_config(architecture, head, CONFIGS[architecture])
    if architecture == "PerceiverForImageClassificationLearned":
        overrides = {"decoder_query_residual": True, **overrides}
    torch.manual_seed(1)
    model = model_from_config(type(config).from_dict({**config.to_dict(), **overrides}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1 if parameter.ndim == 1 else 3 * parameter.shape[-1] ** -0.5)
    return model.eval()


@pytest.mark.parametrize("activation", ["gelu_tanh", "gelu"])
@pytest.mark.parametrize("name", EXPORTED)
def test_transformers_computes_our_outputs(
    name: str, activation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    ours = small_model(name, activation=activation)
    assert export_transformers(ours, tmp_path / "exported") == name
    theirs, report = getattr(transformers, name).from_pretrained(tmp_path / "exported", output_loading_info=True)
    assert not any(report.values()), report
    inputs = inputs_for(name)
    with torch.inference_mode():
        expected = ours(*inputs)
    for exact, tolerance in ((False, 2e-5), (True, TOLERANCE)):
        if exact:  # but for an ulp in its frequencies, it is right
            monkeypatch.setattr(torch, "linspace", lambda start, end, steps, **_: linspace(float(start), end, steps))
        given = outputs_of(theirs.eval(), *inputs)
        wanted = expected
        if name == "PerceiverForMaskedLM":
            given, wanted = given[inputs[1]], expected[inputs[1]]
        assert (given - wanted).abs().max() / wanted.std() < tolerance
    back = import_model(tmp_path / "exported", activation=activation, decoder_query_residual=name != EXPORTED[0])
    if name not in ("PerceiverForMaskedLM", "PerceiverForOpticalFlow"):
        assert back.config == ours.config
    for key, tensor in ours.state_dict().items():
        assert torch.equal(tensor, back.state_dict()[key]), key


def test_released_models() -> None:
    from perceiver_io.export.transformers import their_config

    for preset, architecture in (
        ("language", "PerceiverForMaskedLM"),
        ("imagenet-fourier", "PerceiverForImageClassificationFourier"),
        ("optical-flow", "PerceiverForOpticalFlow"),
    ):
        config = PRESETS[preset]
        name, described = their_config(config)
        assert name == architecture
        head = {"perceiver.decoder.decoder.final_layer.weight": torch.empty(1000, 1, device="meta")}
        assert model_config(name, head, described) == config


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (create_config("imagenet-conv"), "the convolution stem .its stem pads 3 on either side and pools"),
        (create_config("imagenet-learned"), "a decoder without the query's residual"),
        (create_config("video-autoencoding"), "positions of sound .its frequencies, from torch.linspace"),
        (create_config("optical-flow", flow_scale=0.3), r"flow_scale 0.3"),
        (create_config("imagenet-fourier", num_bands=32), "these Fourier features .it has pixels with 64 bands"),
        (create_config("language", num_decoder_heads=4), "num_decoder_heads .its decoder has 8 heads"),
        (
            create_config("imagenet-fourier", num_cross_attends=2),
            "num_cross_attends > 1 .its encoder attends to the inputs once",
        ),
        (create_config("imagenet-fourier", activation="geglu"), "activation 'geglu'"),
    ],
)
def test_what_its_classes_cannot_do(config: ModelConfig, message: str) -> None:
    from perceiver_io.export.transformers import their_config

    with pytest.raises(ValueError, match=rf"transformers' classes cannot compute this model: {message}"):
        their_config(config)


def test_labels_go_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = small_model("PerceiverForSequenceClassification")
    names = {"class_names": ["bad", "so-so", "good"]}
    perceiver_io.save_model(model, tmp_path / "model", metadata=names)
    assert main(["export", str(tmp_path / "model"), str(tmp_path / "theirs"), "--to", "transformers"]) == 0, (
        capsys.readouterr()
    )
    printed = capsys.readouterr().out
    assert "transformers.PerceiverForSequenceClassification.from_pretrained(" in printed
    described = json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert described["id2label"] == {"0": "bad", "1": "so-so", "2": "good"}
