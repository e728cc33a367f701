"""transformers' models: names at full size, and outputs of random small ones against transformers itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.position_encoding import linspace
from perceiver_io.presets import PRESETS, model_from_config
from perceiver_io.weights import jobr0, transformers
from perceiver_io.weights.importing import import_model, read_model
from perceiver_io.weights.tables import Table, invert_table
from tests.golden import GOLDEN_DIR, TOLERANCE
from tests.weights.transformers_models import CLASSES, CONFIGS, inputs_for, outputs_of, random_model

TREES = sorted((GOLDEN_DIR / "moving_over").glob("*_trees/*.json"))
# Where transformers' function is not DeepMind's whatever its configuration says.
APPROXIMATE = {"PerceiverForImageClassificationConvProcessing"}


def tensors_of(path: Path) -> dict[str, torch.Tensor]:
    """A tree's tensors, without memory for them."""
    return {name: torch.empty(shape, device="meta") for name, shape in json.loads(path.read_text()).items()}


@pytest.mark.parametrize("path", TREES, ids=lambda path: path.stem)
def test_names_and_shapes_at_full_size(path: Path) -> None:
    given = tensors_of(path)
    table: Table
    if path.parent.name == "jobr0_trees":
        config, table = jobr0.model_config(given), jobr0.name_table(jobr0.model_config(given))
        assert config == PRESETS[jobr0.preset_of(given)]
    else:
        preset = transformers.ARCHITECTURES[transformers.architecture_of(given, {})]
        config = PRESETS[preset or ""]
        table = transformers.name_table(config)
    with torch.device("meta"):
        model = model_from_config(config)
    expected = model.state_dict()
    sources = {row.source for row in table.rows}
    assert sources <= given.keys() <= sources | set(table.ignored) | table.copies.keys()
    assert {row.target for row in table.rows} | table.made.keys() == expected.keys()
    assert len({row.target for row in table.rows}) == len(table.rows)
    for row in table.rows:
        assert row.transform(given[row.source]).shape == expected[row.target].shape, row


@pytest.mark.parametrize(
    ("name", "config"),
    [
        # What the hub's config.json says of the six, beside what has its default.
        ("language", {"qk_channels": 256, "v_channels": 1280}),
        ("imagenet-fourier", {}),
        ("imagenet-conv", {}),
        ("imagenet-learned", {"image_size": 224}),
        ("optical-flow", {"num_self_attention_heads": 16, "train_size": [368, 496]}),
        ("video-autoencoding", {}),
    ],
)
def test_configurations_of_the_released_models(name: str, config: dict[str, Any]) -> None:
    preset = PRESETS[name]
    sizes = {
        "num_latents": "num_latents",
        "d_latents": "num_latent_channels",
        "num_blocks": "num_blocks",
        "num_self_attends_per_block": "num_self_attends_per_block",
        "num_cross_attention_heads": "num_cross_attend_heads",
    }
    architecture = next(key for key, value in transformers.ARCHITECTURES.items() if value == name)
    given = {theirs: getattr(preset, ours) for theirs, ours in sizes.items()} | config
    trees = [tensors_of(path) for path in TREES if path.parent.name == "transformers_trees"]
    tensors = next(tree for tree in trees if transformers.architecture_of(tree, {}) == architecture)
    assert transformers.model_config(architecture, tensors, given) == preset


@pytest.fixture
def exact_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives transformers the reference's `linspace`; an ulp in it is up to 2e-5 of a std in the outputs."""

    def exact(start: float, end: float, steps: int, **options: Any) -> torch.Tensor:
        return linspace(float(start), float(end), steps)

    monkeypatch.setattr(torch, "linspace", exact)


@pytest.mark.usefixtures("exact_frequencies")
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_outputs_are_transformers_own_where_its_function_is_right(name: str, safe: bool, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    theirs = random_model(name)
    if safe:
        theirs.save_pretrained(tmp_path)
    else:
        theirs.config.architectures = [name]
        theirs.config.save_pretrained(tmp_path)
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    # Its class for learned positions always has the residual, which the released weights were trained without.
    residual = {"decoder_query_residual": True} if name == "PerceiverForImageClassificationLearned" else {}
    ours = import_model(tmp_path, **residual)
    inputs = inputs_for(name)
    with torch.inference_mode():
        given = ours(*inputs)
    given = given["image"] if isinstance(given, dict) else given
    expected = outputs_of(theirs, *inputs)
    assert given.shape == expected.shape
    if name == "PerceiverForMaskedLM":  # it ignores the query's mask
        given, expected = given[inputs[1]], expected[inputs[1]]
    error = ((given - expected).abs().max() / expected.std()).item()
    if name in APPROXIMATE:
        assert TOLERANCE < error < 2  # a grid of another size (docs/differences.md)
    else:
        assert error < TOLERANCE


@pytest.mark.parametrize("name", CLASSES)
def test_tensors_go_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    theirs = random_model(name)
    theirs.save_pretrained(tmp_path)
    imported = read_model(tmp_path)
    assert imported.kind == "transformers"
    given = theirs.state_dict()
    back = invert_table(transformers.name_table(imported.config), imported.state_dict)
    assert back.keys() == {key for key in given if not key.endswith("num_batches_tracked")}
    for key, tensor in back.items():
        assert torch.equal(tensor, given[key]), key


@pytest.mark.parametrize("name", sorted(APPROXIMATE))
def test_what_transformers_only_approximates_is_ours(name: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    random_model(name).save_pretrained(tmp_path)
    imported = read_model(tmp_path)
    by_hand = model_from_config(imported.config)
    by_hand.load_state_dict(imported.state_dict)
    inputs = inputs_for(name)
    with torch.inference_mode():
        expected, given = by_hand.eval()(*inputs), import_model(tmp_path)(*inputs)
    torch.testing.assert_close(given, expected, rtol=0, atol=0)


def test_exact_gelu_is_not_taken_over(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    random_model("PerceiverForSequenceClassification", hidden_act="gelu").save_pretrained(tmp_path)
    assert import_model(tmp_path).config.activation == "gelu_tanh"
    assert import_model(tmp_path, activation="gelu").config.activation == "gelu"


def test_labels_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from perceiver_io.processors import read_class_names
    from perceiver_io.weights.importing import convert_source

    model = random_model("PerceiverForSequenceClassification", id2label={0: "bad", 1: "so-so", 2: "good"})
    model.save_pretrained(tmp_path / "theirs")
    convert_source(tmp_path / "theirs", tmp_path / "ours")
    assert read_class_names(tmp_path / "ours") == ("bad", "so-so", "good")
    assert isinstance(perceiver_io.load_model(tmp_path / "ours"), perceiver_io.TextClassificationPerceiver)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_act": "silu"}, r"hidden_act \('silu'\) must be one of gelu"),
        ({"use_query_residual": False}, "leaves out the query's residual"),
        ({"v_channels": 12}, r"v_channels \(12\) must both be null"),
        ({"qk_channels": None, "v_channels": None, "cross_attention_shape_for_attention": "q"}, "must be 'kv'"),
    ],
)
def test_what_has_no_counterpart_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        transformers.model_config("PerceiverForMaskedLM", {}, {**CONFIGS["PerceiverForMaskedLM"], **change})


def test_defaults_are_those_of_transformers() -> None:
    pytest.importorskip("transformers")
    from transformers import PerceiverConfig

    config = PerceiverConfig()
    for name, value in transformers.DEFAULTS.items():
        theirs = getattr(config, name)
        assert (list(theirs) if isinstance(theirs, tuple) else theirs) == value, name


def test_text_models_with_default_widths(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    widths = {"qk_channels": None, "v_channels": None, "num_cross_attention_heads": 4}
    theirs = random_model("PerceiverForSequenceClassification", **widths)
    theirs.save_pretrained(tmp_path)
    inputs = inputs_for("PerceiverForSequenceClassification")
    with torch.inference_mode():
        given = import_model(tmp_path)(*inputs)
    expected = outputs_of(theirs, *inputs)
    assert (given - expected).abs().max() / expected.std() < TOLERANCE
