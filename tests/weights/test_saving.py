"""Saving and loading of models."""

import copy
import json
import os
import pickle
import random
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune as prune
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import perceiver_io
from perceiver_io import PerceiverDecoder, PerceiverEncoder, PerceiverIO
from perceiver_io.position_encoding import LearnedPositionEncoding
from perceiver_io.preprocessors import ByteEmbedding
from perceiver_io.presets import PRESETS, create_config
from perceiver_io.weights.rebuilding import differences, twin
from perceiver_io.weights.saving import save_checkpoint
from tests.small_models import SMALL, small_inputs
from tests.unchecked import unchecked


@pytest.mark.parametrize("preset", PRESETS)
def test_save_and_load(preset: str, tmp_path: Path) -> None:
    model = perceiver_io.create_model(preset, **SMALL[preset])
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    inputs = small_inputs(model)
    with torch.inference_mode():
        model.train()(*inputs)  # moves the averages of batch norm
        perceiver_io.save_model(model, tmp_path / "model")
        loaded = perceiver_io.load_model(tmp_path / "model")
        torch.testing.assert_close(loaded(*inputs), model.eval()(*inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dict(loaded.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert not loaded.training
    assert loaded.config == model.config
    assert type(loaded) is type(model)
    assert all(p.requires_grad for p in loaded.parameters())
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_stays_accelerated_while_it_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads may be using it."""
    model = perceiver_io.create_model("language", **SMALL["language"])
    monkeypatch.setattr(perceiver_io.fast, "undo_accelerate", lambda _: pytest.fail("the model was made plain"))
    perceiver_io.save_model(model, tmp_path / "model")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("preset", PRESETS)
def test_other_precisions_survive(preset: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = perceiver_io.create_model(preset, **SMALL[preset]).to(dtype).eval()
    inputs = [x.to(dtype) if x.is_floating_point() else x for x in small_inputs(model)]
    perceiver_io.save_model(model, tmp_path / "model")
    with torch.inference_mode():
        torch.testing.assert_close(perceiver_io.load_model(tmp_path / "model")(*inputs), model(*inputs))


def test_pth_format(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"]).eval()
    save_checkpoint(model.config, model.state_dict(), tmp_path / "m", weight_format="pth")
    inputs = small_inputs(model)
    torch.testing.assert_close(perceiver_io.load_model(tmp_path / "m")(*inputs), model(*inputs), rtol=0, atol=0)


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    perceiver_io.save_model(model, tmp_path)  # an empty directory is fine
    before = (tmp_path / "model.safetensors").read_bytes()
    with torch.no_grad():
        model.output_postprocessor.bias.fill_(1.0)
    with pytest.raises(
        FileExistsError,
        match=r"config.json, model.safetensors would be lost; choose another name or ask to overwrite it",
    ):
        perceiver_io.save_model(model, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before
    perceiver_io.save_model(model, tmp_path, overwrite=True)
    assert perceiver_io.load_model(tmp_path).output_postprocessor.bias.eq(1).all()
    (tmp_path / "precious.txt").touch()
    with pytest.raises(FileExistsError, match=r"precious.txt would be lost; choose another name or remove it"):
        perceiver_io.save_model(model, tmp_path, overwrite=True)


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    model = perceiver_io.create_model("language", **SMALL["language"])
    with pytest.raises(OSError, match="No space left"):
        perceiver_io.save_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda d: (d / "config.json").unlink(), FileNotFoundError, "convert_haiku_checkpoint.py SOURCE DESTINATION"),
        (lambda d: (d / "model.safetensors").unlink(), FileNotFoundError, "has none of the files model.safetensors"),
        (lambda d: (d / "config.json").write_text("{"), ValueError, "is not the configuration of a model"),
        (lambda d: (d / "config.json").write_text("[]"), ValueError, "is not the configuration of a model"),
        (lambda d: (d / "model.safetensors").write_bytes(b"\0" * 40), ValueError, "is damaged"),
        (lambda d: (d / "model.pth").write_bytes(b"garbage"), ValueError, "model.pth is damaged"),
        (lambda d: os.truncate(d / "model.pth", 5000), ValueError, "model.pth is damaged"),
        (lambda d: (d / "model.pth").write_bytes(pickle.dumps(Path, protocol=2)), ValueError, "model.pth is damaged"),
        (
            lambda d: (d / "config.json").write_text(
                (d / "config.json").read_text().replace('"num_blocks"', '"blocks"')
            ),
            ValueError,
            "LanguageConfig has no field blocks; its fields are activation",
        ),
    ],
)
def test_damaged_directories(damage: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    weight_format = "pth" if "pth" in message else "safetensors"
    save_checkpoint(model.config, model.state_dict(), tmp_path, weight_format=weight_format)
    damage(tmp_path)
    with pytest.raises(error, match=message):
        perceiver_io.load_model(tmp_path)


def test_weights_must_fit_exactly_when_written_and_when_read(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    perceiver_io.save_model(model, tmp_path / "good")
    state = dict(model.state_dict())
    bias, key = state.pop("output_postprocessor.bias"), "encoder.cross_attend.attention.key.weight"
    wrong = {
        r"missing \['output_postprocessor.bias'\], left over \['extra'\]": {**state, "extra": bias},
        rf"output_postprocessor.bias has shape \({len(bias) - 1},\)": {**state, "output_postprocessor.bias": bias[:-1]},
        r"must all be of one kind.*torch.bfloat16 \(encoder": {
            **state,
            "output_postprocessor.bias": bias,
            key: state[key].bfloat16(),
        },
        "must all be of one kind.*torch.int64": {
            name: tensor.long() for name, tensor in {**state, "output_postprocessor.bias": bias}.items()
        },
    }
    for message, values in wrong.items():
        with pytest.raises(ValueError, match=message):
            save_checkpoint(model.config, values, tmp_path / "bad")
        assert not (tmp_path / "bad").exists()
        save_file({name: tensor.contiguous() for name, tensor in values.items()}, tmp_path / "good/model.safetensors")
        with pytest.raises(ValueError, match=message):
            perceiver_io.load_model(tmp_path / "good", verify=False)
    with pytest.raises(ValueError, match="must be a dense tensor with values"):
        save_checkpoint(
            model.config, {name: tensor.to("meta") for name, tensor in model.state_dict().items()}, tmp_path
        )


def _layer_more(model: PerceiverIO) -> nn.Module:
    model.extra = nn.Linear(3, 3)
    return model


def _subclass(model: PerceiverIO) -> nn.Module:
    class Mine(perceiver_io.ImageClassificationPerceiver):
        pass

    mine = Mine(model.config)
    mine.load_state_dict(model.state_dict())
    return mine


def _other_setting(model: PerceiverIO) -> nn.Module:
    model.decoder.cross_attend.use_query_residual ^= True
    return model


def _other_rounds(model: PerceiverIO) -> nn.Module:
    model.encoder.rounds = model.encoder.rounds[:1]
    return model


def _other_head(model: PerceiverIO) -> nn.Module:
    model.decoder.output = nn.Linear(model.decoder.output.in_features, 4)
    return model


def _pruned(model: PerceiverIO) -> nn.Module:
    prune.l1_unstructured(model.decoder.output, "weight", 0.5)
    return model


def _mixed(model: PerceiverIO) -> nn.Module:
    model.encoder.bfloat16()
    return model


def _on_meta(model: PerceiverIO) -> nn.Module:
    return model.to("meta")


def _dropout_more(model: PerceiverIO) -> nn.Module:
    model.encoder.self_attends[1].mlp.add_module("extra", nn.Dropout(0.5))
    return model


def _other_order(model: PerceiverIO) -> nn.Module:
    layers = model.encoder.self_attends._modules
    layers["0"] = layers.pop("0")
    return model


def _hook(model: PerceiverIO) -> nn.Module:
    model.decoder.output.register_forward_hook(lambda module, inputs, output: output + 1)
    return model


def _hook_before(model: PerceiverIO) -> nn.Module:
    model.encoder.register_forward_pre_hook(lambda module, inputs: (inputs[0] * 2, *inputs[1:]))
    return model


def _hook_on_a_compiled_part(model: PerceiverIO) -> nn.Module:
    model.encoder = torch.compile(model.encoder, backend="eager")
    model.encoder.register_forward_hook(lambda module, inputs, output: output + 1)
    return model


def _hook_on_the_state(model: PerceiverIO) -> nn.Module:
    model.register_state_dict_post_hook(lambda module, state, *_: state.pop("decoder.output.bias"))
    return model


def _own_forward(model: PerceiverIO) -> nn.Module:
    usual = model.encoder.forward
    model.encoder.forward = lambda *inputs, **options: usual(*inputs, **options) * 2
    return model


def _own_decode(model: PerceiverIO) -> nn.Module:
    model.decode = lambda encoding, *_: encoding.latents
    return model


def _other_table(model: PerceiverIO) -> nn.Module:
    model.input_preprocessor.position_encoding.axis_0.mul_(1.1)
    return model


def _none_instead_of_a_setting(model: PerceiverIO) -> nn.Module:
    model.input_preprocessor.position_encoding.max_resolution = None
    return model


def _tensor_instead_of_a_number(model: PerceiverIO) -> nn.Module:
    model.decoder.output.out_features = torch.tensor([11, 11])
    return model


def _array_instead_of_a_number(model: PerceiverIO) -> nn.Module:
    model.decoder.output.out_features = np.array([11, 11])
    return model


CHANGES = {
    _layer_more: "extra is a Linear that its config does not ask for",
    _subclass: "the model is of Mine and not of ImageClassificationPerceiver",
    _other_setting: "use_query_residual of decoder.cross_attend is False and not True",
    _other_rounds: "rounds of encoder is",
    _other_head: r"out_features of decoder.output is 4 and not 11",
    _pruned: "decoder.output has a hook before its forward, which is not saved; remove it",
    _mixed: "does not fit its config",
    _on_meta: "must be a dense tensor with values",
    _dropout_more: r"encoder.self_attends.1.mlp.extra is a Dropout that its config does not ask for",
    _other_order: "the parts of encoder.self_attends stand in the order 1, 0",
    _hook: "decoder.output has a hook after its forward",
    _hook_before: "encoder has a hook before its forward",
    _hook_on_a_compiled_part: "encoder has a hook after its forward",
    _hook_on_the_state: "the model has a hook after its state_dict",
    _own_forward: "forward of encoder is set on this one module, in place of its class's",
    _own_decode: "decode of the model is set on this one module, in place of its class's",
    _other_table: "axis_0 of input_preprocessor.position_encoding has other values than those that its config",
    _tensor_instead_of_a_number: r"out_features of decoder.output is tensor\(\[11, 11\]\) and not 11",
    _array_instead_of_a_number: r"out_features of decoder.output is array\(\[11, 11\]\) and not 11",
    _none_instead_of_a_setting: r"max_resolution of .* is None and not \(19, 25\)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_model_that_could_not_be_rebuilt_is_not_written(
    change: Callable[[PerceiverIO], nn.Module], tmp_path: Path
) -> None:
    model = change(perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"]))
    with pytest.raises(ValueError, match=CHANGES[change]):
        perceiver_io.save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def _change_every_value(value: Any) -> list[Any]:
    """Other values than a setting's, of its kind and of others."""
    match value:
        case bool():
            return [not value, None]
        case int() | float():
            return [value + 1, None]
        case str():
            return [f"{value}?", None]
        case dict():
            return [{**value, key: _change_every_value(value[key])[0]} for key in value] + [{}, None]
        case list() | tuple():
            return [value[:-1], type(value)((*value, 1)), None]
        case None:
            return [1, "x", nn.ReLU()]
    return [None]


SMALL_TOO: dict[str, dict[str, Any]] = {
    "perceiver-modelnet40": {"num_self_attends_per_block": 1},
    "ar-default": {"num_self_attends": 1},
}


@pytest.mark.parametrize("preset", [*PRESETS, *SMALL_TOO])
def test_no_setting_of_any_module_can_be_another(preset: str) -> None:
    config = create_config(preset, **{**SMALL, **SMALL_TOO}[preset])
    model, rebuilt = twin(config, "the config"), twin(config, "the config")
    assert not list(differences(model, rebuilt))
    of_any_module = {*vars(nn.Module()), "gradient_checkpointing", "_recordings"}
    tried = set()
    for module in model.modules():
        for name, value in list(vars(module).items()):
            if name in of_any_module or (type(module), name) in tried:
                continue
            tried.add((type(module), name))
            for other in _change_every_value(value):
                setattr(module, name, other)
                assert any(name in difference for difference in differences(model, rebuilt))
                if isinstance(other, nn.Module):
                    delattr(module, name)
                setattr(module, name, value)
    assert not list(differences(model, rebuilt))
    assert len(tried) > 10


def test_a_broken_tie_is_not_written(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    model.input_preprocessor.featurizer = ByteEmbedding(31, 20)
    with pytest.raises(ValueError, match=r"_tied of output_postprocessor .* its config says; load_model could not"):
        perceiver_io.save_model(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def _compiled(model: PerceiverIO) -> nn.Module:
    return torch.compile(model, backend="eager")


def _compiled_part(model: PerceiverIO) -> nn.Module:
    model.encoder = torch.compile(model.encoder, backend="eager")
    return model


def _tied(model: PerceiverIO) -> nn.Module:
    first, second = model.encoder.self_attends
    first.mlp.hidden.weight = second.mlp.hidden.weight
    return model


def _shared_layer(model: PerceiverIO) -> nn.Module:
    model.encoder.self_attends[1] = model.encoder.self_attends[0]
    return model


def _copied(model: PerceiverIO) -> nn.Module:
    return copy.deepcopy(model)


def _compiled_in_place(model: PerceiverIO) -> nn.Module:
    model.encoder.compile(backend="eager")
    return model


def _double(model: PerceiverIO) -> nn.Module:
    return model.double().train()


SAME = [
    *(_compiled, _compiled_part, _compiled_in_place, _tied, _shared_layer),
    *(perceiver_io.undo_accelerate, _copied, _double),
]


@pytest.mark.parametrize("change", SAME)
def test_what_is_written_is_read_as_the_same_function(
    change: Callable[[PerceiverIO], nn.Module], tmp_path: Path
) -> None:
    model = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])
    perceiver_io.save_model(change(model), tmp_path)
    again = perceiver_io.load_model(tmp_path)
    model.encoder = getattr(model.encoder, "_orig_mod", model.encoder)
    model.encoder._compiled_call_impl = None  # the checks of shapes in these tests cannot be compiled
    (images,) = small_inputs(again)
    with torch.no_grad():
        expected = model.eval()(images.to(again.dtype))
        torch.testing.assert_close(again(images.to(again.dtype)), expected, rtol=1e-4, atol=1e-4)


def test_a_model_that_was_in_bfloat16_gets_exact_tables(tmp_path: Path) -> None:
    model = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"]).bfloat16().float().eval()
    perceiver_io.save_model(model, tmp_path)
    again = perceiver_io.load_model(tmp_path)
    (images,) = small_inputs(again)
    torch.testing.assert_close(again(images), model(images), rtol=1e-2, atol=1e-2)  # 1.1e-3: its tables were rounded


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    model = perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])
    choose = random.Random(0)
    for weight_format in ("safetensors", "pth"):
        folder = tmp_path / weight_format
        save_checkpoint(model.config, model.state_dict(), folder, weight_format=weight_format)  # type: ignore[arg-type]
        (path,) = folder.glob("model.*")
        content = path.read_bytes()
        for trial in range(60):
            damaged = bytearray(content)
            if trial % 4:
                damaged[choose.randrange(len(damaged))] ^= 1 << choose.randrange(8)
            else:
                del damaged[choose.randrange(len(damaged)) :]
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=r"is damaged: its SHA-256 is not the one in config\.json"):
                perceiver_io.load_model(folder)
            try:  # without the check, another function or a sentence; never an error of another library
                perceiver_io.load_model(folder, verify=False)
            except ValueError as error:
                assert "is damaged" in str(error) or "does not fit" in str(error)


def test_models_that_0_1_wrote_have_no_hash_and_load(tmp_path: Path) -> None:
    perceiver_io.save_model(perceiver_io.create_model("language", **SMALL["language"]), tmp_path)
    description = json.loads((tmp_path / "config.json").read_text())
    del description["sha256"]
    (tmp_path / "config.json").write_text(json.dumps(description))
    perceiver_io.load_model(tmp_path)


def test_files_have_the_modes_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        perceiver_io.save_model(perceiver_io.create_model("language", **SMALL["language"]), tmp_path / "model")
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "model", *tmp_path.glob("model/*")]}
    assert modes == {"model": 0o775, "config.json": 0o664, "model.safetensors": 0o664}


def test_a_precision_can_be_asked_for(tmp_path: Path) -> None:
    perceiver_io.save_model(perceiver_io.create_model("language", **SMALL["language"]), tmp_path)
    model = perceiver_io.load_model(tmp_path, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in (*model.parameters(), *model.buffers())} == {torch.bfloat16}
    with pytest.raises(ValueError, match=r"dtype \(torch.int8\) must be a floating one"):
        perceiver_io.load_model(tmp_path, dtype=torch.int8)


NOT_BELIEVED = r"must be at most|no machine could hold|does not fit|must be a finite|needs tables|must divide"
SIZES_THAT_NO_MODEL_HAS = [
    ("language", {"num_latents": 10**18}),
    ("language", {"vocab_size": 2**62}),
    ("language", {"num_latents": 2**24, "num_latent_channels": 2**24}),
    ("language", {"num_self_attends_per_block": 10**9}),
    ("imagenet-fourier", {"image_size": [1, 3 * 10**8]}),
    ("imagenet-fourier", {"num_bands": 10**9}),
    ("imagenet-learned", {"image_size": [2**24, 2**24]}),
    ("optical-flow", {"flow_scale": 10**400}),
    ("video-autoencoding", {"num_frames": 10**12}),
    ("imagenet-fourier", {"max_resolution": [10**400, 1]}),
]


@pytest.mark.parametrize(("preset", "changes"), SIZES_THAT_NO_MODEL_HAS)
def test_claimed_sizes_are_not_believed(preset: str, changes: dict[str, Any], tmp_path: Path) -> None:
    perceiver_io.save_model(perceiver_io.create_model(preset, **SMALL[preset]), tmp_path)
    path = tmp_path / "config.json"
    description = json.loads(path.read_text())
    description["config"].update(changes)
    path.write_text(json.dumps(description))
    with unchecked(), pytest.raises(ValueError, match=NOT_BELIEVED):
        perceiver_io.load_model(tmp_path, verify=False)


def test_weights_that_inflate_are_refused(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    save_checkpoint(model.config, model.state_dict(), tmp_path, weight_format="pth")
    with zipfile.ZipFile(tmp_path / "model.pth") as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match=r"is damaged \(it is compressed, which torch.save never does\)"):
        perceiver_io.load_model(tmp_path, verify=False)


def test_quantised_weights_are_refused_in_one_sentence(tmp_path: Path) -> None:
    """Without the warning that PyTorch has for them, which would be an error here."""
    model = perceiver_io.create_model("language", **SMALL["language"])
    save_checkpoint(model.config, model.state_dict(), tmp_path, weight_format="pth")
    key = "encoder.cross_attend.attention.key.weight"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(model.state_dict()[key], 0.1, 0, torch.qint8)
        torch.save({**model.state_dict(), key: quantised}, tmp_path / "model.pth")
    with pytest.raises(ValueError, match=f"{key} must be a dense tensor with values"):
        perceiver_io.load_model(tmp_path, verify=False)


def test_metadata_is_kept(tmp_path: Path) -> None:
    model = perceiver_io.create_model("language", **SMALL["language"])
    perceiver_io.save_model(model, tmp_path, metadata={"source": "here"})
    notes = json.loads((tmp_path / "config.json").read_text())["metadata"]
    assert notes == {"library_version": perceiver_io.__version__, "source": "here"}


def test_metadata_may_have_any_names(tmp_path: Path) -> None:
    """Other readers ask the file of weights for its "format"."""
    model = perceiver_io.create_model("language", **SMALL["language"])
    perceiver_io.save_model(model, tmp_path, metadata={"format": "mine", "sha256": "mine"})
    with safe_open(tmp_path / "model.safetensors", "pt") as weights:
        assert weights.metadata()["format"] == "pt"
    assert json.loads((tmp_path / "config.json").read_text())["metadata"]["format"] == "mine"
    perceiver_io.load_model(tmp_path)


def test_custom_compositions_have_no_config(tmp_path: Path) -> None:
    query = LearnedPositionEncoding(3, 4)
    encoder, decoder = PerceiverEncoder(4, num_self_attends_per_block=1), PerceiverDecoder(4, 1024, output_channels=2)
    model = PerceiverIO(encoder, decoder, output_query=query)
    with pytest.raises(ValueError, match="save the state_dict\\(\\) of a PerceiverIO of your own instead"):
        perceiver_io.save_model(model, tmp_path)
