"""Perceiver AR's checkpoints as its reference and krasserm save them; names and shapes of the published ones."""

import json
import pickle
import sys
import types
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perceiver_io
from perceiver_io.autoregressive import PerceiverAR
from perceiver_io.commands.cli import main
from perceiver_io.presets import AUTOREGRESSIVE_PRESETS, model_from_config
from perceiver_io.weights import krasserm, krasserm_ar, perceiver_ar
from perceiver_io.weights.haiku_conversion import convert_parameters, fitting_presets, haiku_shapes
from perceiver_io.weights.importing import import_model
from perceiver_io.weights.pystate import HaikuCheckpoint, PystateError, read_pystate
from tests.golden import GOLDEN_DIR, Case, cases
from tests.parity.test_models import same_arrays
from tests.parity.test_perceiver_ar import NOT_OF_THE_MODEL, check_logits

FOLDER = GOLDEN_DIR / "perceiver_ar"
CHECKPOINTS = sorted((FOLDER / "checkpoints").glob("*.dill"))
OFFICIAL_TREES = sorted((FOLDER / "official_trees").glob("*.json"))
KRASSERM_TREES = sorted((FOLDER / "krasserm_trees").glob("*.json"))


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_dill(path: Path, tmp_path: Path) -> None:
    matching = [case for case in map(Case.load, cases("perceiver_ar/models")) if is_of(path, case)]
    assert matching, "no case beside the file has its parameters"
    for case in matching:
        options = {name: value for name, value in case.config.items() if name not in NOT_OF_THE_MODEL}
        config = tmp_path / f"{case.name}.json"
        config.write_text(perceiver_ar.reference_config(options).to_json())
        destination = tmp_path / case.name
        arguments = ["convert", str(path), str(destination), "--model", "ar-default", "--config", str(config)]
        assert main(arguments) == 0
        loaded = perceiver_io.load_model(destination)
        assert isinstance(loaded, PerceiverAR)
        if "inputs" in case.inputs:
            check_logits(case, loaded)


def is_of(path: Path, case: Case) -> bool:
    return not case.name.startswith("train_four") and same_arrays(case.params, read_pystate(path).params)


@pytest.mark.parametrize("path", OFFICIAL_TREES, ids=lambda path: path.stem)
def test_official_trees(path: Path) -> None:
    tree = json.loads(path.read_text())
    config = perceiver_ar.reference_config(tree["config"])
    assert haiku_shapes(config) == {name: tuple(shape) for name, shape in tree["params"].items()}


@pytest.mark.parametrize(
    ("preset", "tree"), [("ar-copy-131k", "random_mirrored_131072"), ("ar-imagenet64", "imagenet_w_positions")]
)
def test_presets_are_the_official_configurations(preset: str, tree: str) -> None:
    path = FOLDER / "official_trees" / f"{tree}.json"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    described = json.loads(path.read_text())
    shapes = {name: tuple(shape) for name, shape in described["params"].items()}
    assert fitting_presets(shapes) == [preset]
    ours = AUTOREGRESSIVE_PRESETS[preset].to_dict()
    theirs = perceiver_ar.reference_config(described["config"]).to_dict()
    of_rotary = {
        name for name in ours if name.startswith("rotary_") or name == "max_wavelength"
    }  # which they have none of
    assert {k: v for k, v in ours.items() if k not in of_rotary} == {
        k: v for k, v in theirs.items() if k not in of_rotary
    } | {"zero_init_output": True}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) in (223_976_707, 770_094_339)


@pytest.mark.parametrize("path", KRASSERM_TREES, ids=lambda path: path.stem)
def test_krasserms_trees(path: Path) -> None:
    tree = json.loads(path.read_text())
    config = krasserm_ar.model_config(tree["config"], None)
    table = krasserm_ar.name_table(config)
    with torch.device("meta"):
        expected = model_from_config(config).state_dict()
        given = {name: torch.empty(shape) for name, shape in tree["state_dict"].items()}
    tensors = krasserm.unwrap(given)
    assert krasserm_ar.recognises(tensors)
    assert {row.source for row in table.rows} == tensors.keys() - set(table.ignored)
    assert {row.target: tensors[row.source].shape for row in table.rows} == {
        name: tensor.shape for name, tensor in expected.items()
    }


@pytest.mark.parametrize("layout", ["directory", "lightning"])
def test_krasserms_files(layout: str, tmp_path: Path) -> None:
    found = [case for case in map(Case.load, cases("perceiver_ar/krasserm")) if case.name.startswith("generate")]
    for case in found:
        tensors = krasserm.unwrap({name: torch.from_numpy(array) for name, array in case.params.items()})
        source = tmp_path / case.name
        source.mkdir()
        if layout == "directory":
            described = {
                "model_type": krasserm_ar.MODEL_TYPES[0],
                "model_config": case.config,
                "pad_token_id": 5,
            }
            (source / "config.json").write_text(json.dumps(described))
            torch.save(
                {f"backend_model.{name}": tensor for name, tensor in tensors.items()}, source / "pytorch_model.bin"
            )
        else:
            content = {"state_dict": {f"model.{k}": v for k, v in tensors.items()}, "hyper_parameters": case.config}
            source = source / "last.ckpt"
            torch.save(content, source)
        model = import_model(source)
        assert isinstance(model, PerceiverAR) and model.config.pad_token == (5 if layout == "directory" else None)
        prompt = case.inputs["input_ids"].long()
        mask = case.inputs["attention_mask"].bool()
        logits = model(prompt, num_latents=case.config["num_latents"], mask=mask)[:, -1]
        expected = torch.from_numpy(case.outputs["scores"][0])
        assert ((logits - expected).abs().max() / expected.std()).item() <= 1e-5


def tiny_checkpoint() -> tuple[dict[str, dict[str, np.ndarray]], Any]:
    config = perceiver_ar.reference_config(
        {
            "num_classes": 7,
            "input_idx_size": [9],
            "max_context_length": 8,
            "position_encoding_type": "absolute",
            "input_embed_dim": 8,
            "num_z_channels": 8,
            "num_transformers_per_block": 1,
            "use_positions_from_data": True,
        }
    )
    params: dict[str, dict[str, np.ndarray]] = {}
    for name, shape in haiku_shapes(config).items():
        module, _, leaf = name.rpartition("/")
        params.setdefault(module, {})[leaf] = np.ones(shape, np.float32)
    return params, config


def test_a_table_that_is_no_formula_is_refused() -> None:
    params, config = tiny_checkpoint()
    flat = {f"{module}/{name}": array for module, leaves in params.items() for name, array in leaves.items()}
    with pytest.raises(ValueError, match=r"is not the table of .* 'sinusoidal' makes; .* set train_"):
        convert_parameters(HaikuCheckpoint(params=flat, state={}, sha256=""), "ar-default", config)


def test_namedtuples_are_dropped_and_nothing_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, fields: Any, module: str) -> type:
        raise AssertionError("the reader called what the file names")

    state = namedtuple("ScaleByAdamState", ["count", "mu"])

    class Pickler(pickle.Pickler):
        def reducer_override(self, thing: Any) -> Any:
            return (create, ("ScaleByAdamState", ("count", "mu"), "optax")) if thing is state else NotImplemented

    dill, inner = types.ModuleType("dill"), types.ModuleType("dill._dill")
    create.__module__, create.__qualname__, inner._create_namedtuple = "dill._dill", "_create_namedtuple", create  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dill", dill)
    monkeypatch.setitem(sys.modules, "dill._dill", inner)
    params, _ = tiny_checkpoint()
    path = tmp_path / "checkpoint.dill"
    with path.open("wb") as file:
        content = {"global_step": 3, "params": params, "state": {}, "opt_state": (state(1, params),)}
        Pickler(file, protocol=4).dump(content)
    read = read_pystate(path)
    assert len(read.params) == sum(map(len, params.values())) and not read.state
    with path.open("wb") as file:
        Pickler(file, protocol=4).dump({"params": {"linear": {"w": state(1, 2)}}})
    with pytest.raises(PystateError, match="every leaf must be an array"):
        read_pystate(path)
