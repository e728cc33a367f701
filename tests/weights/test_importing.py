"""Sources that are broken, wrong or unusual: one sentence each, or taken in where that is safe."""

import json
import os
import shutil
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

import perceiver_io
from perceiver_io.commands.cli import main
from perceiver_io.presets import create_config
from perceiver_io.weights import transformers
from perceiver_io.weights.importing import import_model
from perceiver_io.weights.krasserm import Settings
from perceiver_io.weights.tables import invert_table
from tests.golden import GOLDEN_DIR
from tests.parity.test_moving_over import load

LANGUAGE = {
    "model_type": "perceiver",
    "architectures": ["PerceiverForMaskedLM"],
    "num_latents": 7,
    "d_latents": 24,
    "d_model": 40,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 3,
    "num_cross_attention_heads": 2,
    "qk_channels": 12,
    "v_channels": 24,
    "vocab_size": 31,
    "max_position_embeddings": 17,
}


# Those of a model that is not of text.
WIDTHS = {"qk_channels": None, "v_channels": None}


@pytest.fixture
def model() -> perceiver_io.PerceiverIO:
    """A small language model, as transformers' class would be."""
    config = transformers.model_config("PerceiverForMaskedLM", {}, LANGUAGE)
    return perceiver_io.create_model("language", **config.to_dict()).eval()


@pytest.fixture
def source(model: perceiver_io.PerceiverIO, tmp_path: Path) -> Path:
    """The same in transformers' files."""
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(LANGUAGE))
    torch.save(their_tensors(model), directory / "pytorch_model.bin")
    return directory


def their_tensors(model: Any) -> dict[str, torch.Tensor]:
    return invert_table(transformers.name_table(model.config), model.state_dict())


def error_of(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a failing conversion says: one line, exit code 2, and nothing is left behind."""
    destination = Path(str(words[0])).parent / "destination"
    assert main(["convert", str(words[0]), str(destination), *map(str, words[1:])]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    assert not destination.exists()
    return message


def same(imported: Any, model: Any) -> bool:
    return all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in imported.state_dict().items())


def test_a_truncated_file(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = source / "pytorch_model.bin"
    whole = weights.read_bytes()
    for length in (0, 3, 100, len(whole) // 2, len(whole) - 10):
        weights.write_bytes(whole[:length])
        assert "download it again" in error_of(capsys, source)


def test_a_truncated_safetensors_file(source: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    import safetensors.torch

    (source / "pytorch_model.bin").unlink()
    safetensors.torch.save_file(their_tensors(model), path := source / "model.safetensors")
    assert same(import_model(source), model)
    path.write_bytes(path.read_bytes()[:-9])
    assert "model.safetensors is damaged or cut short" in error_of(capsys, source)


def shard(source: Path, model: Any) -> list[Path]:
    tensors = sorted(their_tensors(model).items())
    names = [f"pytorch_model-0000{index}-of-00003.bin" for index in (1, 2, 3)]
    for index, name in enumerate(names):
        torch.save(dict(tensors[index::3]), source / name)
    (source / "pytorch_model.bin").unlink()
    weight_map = {key: names[index % 3] for index, (key, _) in enumerate(tensors)}
    (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return [source / name for name in names]


def test_shards(source: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shards = shard(source, model)
    assert same(import_model(source), model)
    shards[1].unlink()
    assert f"{shards[1].name} does not exist, though pytorch_model.bin.index.json names it" in error_of(capsys, source)


def test_a_shard_outside_of_the_directory(source: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    shard(source, model)
    index = source / "pytorch_model.bin.index.json"
    index.write_text(index.read_text().replace("pytorch_model-00002", "../pytorch_model-00002"))
    assert "does not exist, though" in error_of(capsys, source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "bert", "architectures": ["BertModel"]}, "holds a bert model of transformers (BertModel)"),
        ({"architectures": ["PerceiverModel"]}, "it holds a PerceiverModel, which has no model here"),
        ({"num_latents": 8}, "perceiver.embeddings.latents has shape (7, 24), where encoder.latents.embeddings must"),
        ({"num_self_attends_per_block": 3}, "missing in it are perceiver.encoder.self_attends.2.attention.output"),
        ({"num_self_attends_per_block": 1}, "left over are perceiver.encoder.self_attends.1.attention.output"),
        ({**WIDTHS, "architectures": ["PerceiverForOpticalFlow"]}, "does not fit PerceiverForOpticalFlow"),
        ({"num_self_attention_heads": 5}, "num_self_attend_heads (5) must divide num_latent_channels (24)"),
        ({"hidden_act": ["gelu"]}, "has a configuration or tensors that its library does not write (TypeError"),
        (
            {**WIDTHS, "architectures": ["PerceiverForMultimodalAutoencoding"], "output_shape": [1, 2]},
            "output_shape [1, 2] must be batch, frames, height and width",
        ),
        ({"qk_channels": 13}, "(3) must divide qk_channels (13)"),
    ],
)
def test_another_configuration(
    change: dict[str, Any], message: str, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source / "config.json").write_text(json.dumps({**LANGUAGE, **change}))
    said = error_of(capsys, source)
    assert message in said
    assert str(source) in said


def test_no_configuration(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (source / "config.json").write_text("{")
    assert "config.json is not JSON" in error_of(capsys, source)
    (source / "config.json").unlink()
    assert "config.json does not exist" in error_of(capsys, source)
    assert "without its config.json" in error_of(capsys, source / "pytorch_model.bin")


def test_the_file_beside_its_configuration_will_do(source: Path, model: Any) -> None:
    assert same(import_model(source / "pytorch_model.bin"), model)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_prefixes_of_wrappers_are_removed(prefix: str, source: Path, model: Any) -> None:
    tensors = {f"{prefix}{name}": tensor for name, tensor in their_tensors(model).items()}
    torch.save(tensors, source / "pytorch_model.bin")
    assert same(import_model(source), model)


def test_a_name_with_and_without_prefix(source: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = their_tensors(model)
    tensors["_orig_mod.embedding_decoder.bias"] = tensors["embedding_decoder.bias"]
    torch.save(tensors, source / "pytorch_model.bin")
    assert "holds embedding_decoder.bias twice" in error_of(capsys, source)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype, source: Path, model: Any) -> None:
    half = {name: tensor.to(dtype) for name, tensor in their_tensors(model).items()}
    torch.save(half, source / "pytorch_model.bin")
    state = import_model(source).state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    for name, tensor in state.items():
        assert torch.equal(tensor, model.state_dict()[name].to(dtype).float())


def test_extra_heads_are_named(source: Path, model: Any, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = their_tensors(model)
    tensors["classifier.weight"] = torch.zeros(3, 24)
    torch.save(tensors, source / "pytorch_model.bin")
    assert "missing in it are none; left over are classifier.weight" in error_of(capsys, source)


def test_what_trainers_keep_beside_the_weights(source: Path, model: Any) -> None:
    torch.save({"state_dict": their_tensors(model), "epoch": 3, "lr": 1e-4}, source / "pytorch_model.bin")
    assert same(import_model(source), model)


class Attack:
    """What a hostile pickle runs."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch attacked",)


def test_nothing_is_run(
    source: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"a": Attack()}, source / "pytorch_model.bin")
    assert "asks for posix.system" in error_of(capsys, source)
    assert not (tmp_path / "attacked").exists()


def test_other_files(
    source: Path, model: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "nowhere does not exist" in error_of(capsys, tmp_path / "nowhere")
    path = tmp_path / "other.pth"
    torch.save([1, 2], path)
    assert "holds a list, not named tensors" in error_of(capsys, path)
    torch.save({"a": 1}, path)
    assert "holds a int at 'a', where a tensor belongs" in error_of(capsys, path)
    torch.save({}, path)
    assert "holds no tensors" in error_of(capsys, path)
    torch.save({"layer.weight": torch.ones(2)}, path)
    assert "holds 1 tensors of an unknown model (layer.weight)" in error_of(capsys, path)
    torch.save({"latents": torch.ones(2, 3), "layers.0.0.fn.to_q.weight": torch.ones(2, 3)}, path)
    assert "looks like perceiver-pytorch's state dict, which does not say" in error_of(capsys, path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "is a Git LFS pointer" in error_of(capsys, path)
    assert "looks like transformers' Perceiver model, not like JOBR0" in error_of(capsys, source, "--from", "jobr0")
    assert "--model language is for Haiku checkpoints" in error_of(capsys, source, "--model", "language")
    perceiver_io.save_model(model, tmp_path / "ours")
    assert "is a model of this library already" in error_of(capsys, tmp_path / "ours")
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(source / "config.json", empty)
    assert "has neither model.safetensors nor pytorch_model.bin" in error_of(capsys, empty)


def test_haiku_checkpoints_are_recognised(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    pystate = GOLDEN_DIR / "models" / "language.pystate"
    copied = shutil.copy(pystate, tmp_path)
    assert "is a Haiku checkpoint of none of the released models' shapes" in error_of(capsys, copied)


def test_the_command(source: Path, model: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["convert", str(source), str(tmp_path / "converted"), "--from", "transformers"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("converted source (sha256 ")
    assert printed.rstrip().endswith("parameters, transformers → LanguageConfig")
    assert same(perceiver_io.load_model(tmp_path / "converted"), model)
    metadata = json.loads((tmp_path / "converted" / "config.json").read_text())["metadata"]
    assert metadata["source_kind"] == "transformers"


def test_tied_weights_must_be_the_same(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, parts = load(GOLDEN_DIR / "moving_over" / "jobr0_language_perceiver_io_bytes.npz")
    copy = "perceiver._output_postprocessors.__default._embedding.weight"
    torch.save({**parts["param"], copy: parts["param"][copy] + 1}, path := tmp_path / "checkpoint.pth")
    assert f"{copy} must be the same as" in error_of(capsys, path)


def test_lightnings_checkpoint_of_krasserm(tmp_path: Path) -> None:
    config, parts = load(GOLDEN_DIR / "moving_over" / "krasserm_image_classifier_mnist.npz")
    settings = dict(config["model_config"])
    for part in ("encoder", "decoder"):
        options = Settings()
        vars(options).update(settings[part])
        settings[part] = options
    tensors = OrderedDict((name.replace("backend_model.", "model."), tensor) for name, tensor in parts["param"].items())
    path = tmp_path / "epoch=025.ckpt"
    # As his library pickles it, under his names.
    Settings.__module__, Settings.__qualname__ = "perceiver.model.core.config", "EncoderConfig"
    try:
        for name in ("perceiver", "perceiver.model", "perceiver.model.core", "perceiver.model.core.config"):
            sys.modules[name] = types.ModuleType(name)
        sys.modules["perceiver.model.core.config"].EncoderConfig = Settings  # type: ignore[attr-defined]
        torch.save({"state_dict": tensors, "hyper_parameters": settings, "global_step": 7}, path)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "perceiver"]:
            del sys.modules[name]
        Settings.__module__, Settings.__qualname__ = "perceiver_io.weights.krasserm", "Settings"
    model = import_model(path)
    assert model.config.share_first_block is False
    torch.save({"state_dict": tensors}, path)
    with pytest.raises(ValueError, match="without its options"):
        import_model(path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("decoder", {"num_output_query_channels": 7}, "num_output_query_channels of the decoder"),
        ("decoder", {"vocab_size": 7}, "vocab_size of the decoder"),
        ("encoder", {"num_self_attention_v_channels": 8}, "num_self_attention_v_channels"),
        ("encoder", {"num_cross_attention_qk_channels": 3}, "num_cross_attention_qk_channels"),
    ],
)
def test_krasserms_options_without_counterpart(
    part: str, change: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    config, parts = load(GOLDEN_DIR / "moving_over" / "krasserm_masked_language_published.npz")
    config["model_config"][part] |= change
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config))
    torch.save(parts["param"], directory / "pytorch_model.bin")
    assert f"its {message}" in error_of(capsys, directory)


def test_rounds_of_configurations() -> None:
    config = create_config(
        "imagenet-fourier", num_blocks=4, num_cross_attends=3, share_first_cross_attend=False, share_first_block=False
    )
    assert config.rounds == ((0, 0), (1, 1), (1, 1), (None, 1))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"num_cross_attends \(9\) must be at most num_blocks \(8\)"):
        create_config("imagenet-fourier", num_cross_attends=9)
