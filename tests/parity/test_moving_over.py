"""Other libraries' models, taken in as files, against what their own code computed.

The cases are made by tests/data/make_moving_over_golden.py.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import perceiver_io
from perceiver_io.weights.importing import import_model
from tests.golden import TOLERANCE, WORST, cases


def load(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    """A case's configuration, and its arrays by kind (in, param, out) and name."""
    parts: dict[str, dict[str, Tensor]] = {}
    with np.load(path) as file:
        config = json.loads(file["config"].tobytes())
        for key in file.files:
            if key != "config":
                kind, name = key.split(":", 1)
                parts.setdefault(kind, {})[name] = torch.from_numpy(file[key])
    return config, parts


def written(config: dict[str, Any], params: dict[str, Tensor], directory: Path) -> Path:
    """The case's weights as its library saves them."""
    if config["library"] == "jobr0":
        torch.save({"model_state_dict": params, "epoch": 3}, path := directory / "checkpoint.pth")
        return path
    described = {"model_type": config["model_type"], "model_config": config["model_config"]}
    (directory / "config.json").write_text(json.dumps(described))
    torch.save(params, directory / "pytorch_model.bin")
    return directory


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", cases("moving_over"), ids=lambda path: path.stem)
def test_imported_model(path: Path, accelerated: bool, tmp_path: Path) -> None:
    config, parts = load(path)
    model = import_model(written(config, parts["param"], tmp_path), **config.get("overrides", {}))
    if not accelerated:
        perceiver_io.undo_accelerate(model)
    with torch.inference_mode():
        results = run(model, config["library"], parts["in"])
    assert results.keys() == parts["out"].keys()
    for name, result in results.items():
        expected = parts["out"][name]
        if "pad_mask" in parts["in"] and expected.ndim == 3:  # he decodes what is padding too
            valid = ~parts["in"]["pad_mask"]
            result, expected = result[valid], expected[valid]
        assert result.shape == expected.shape
        error = ((result - expected).abs().max() / expected.std()).item()
        group = f"moving over: {config['library']}"
        WORST[group] = max(WORST.get(group, (-1.0, "")), (error, path.stem))
        assert error <= TOLERANCE, f"{name} differs by {error:.2e} of its deviation"


def run(model: Any, library: str, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our outputs as the library lays them out."""
    match model:
        case perceiver_io.LanguagePerceiver() | perceiver_io.TextClassificationPerceiver() if library == "krasserm":
            return {"out": model(inputs["x"].long(), ~inputs["pad_mask"])}
        case perceiver_io.LanguagePerceiver():
            return {"out": model(inputs["tokens"].long(), inputs["mask"])}
        case perceiver_io.ImageClassificationPerceiver() if library == "krasserm":
            return {"out": model(inputs["x"].movedim(-1, 1))}
        case perceiver_io.ImageClassificationPerceiver():
            return {"out": model(inputs["img"])}
        case perceiver_io.OpticalFlowPerceiver() if library == "krasserm":
            encoding = model.encode(inputs["x"])
            flow = model.decode(encoding) * model.config.flow_scale / 20  # he scales by 20 afterwards
            return {"out": flow.unflatten(1, model.config.image_size)}
        case perceiver_io.OpticalFlowPerceiver():
            return {"out": model(inputs["image1"], inputs["image2"])}
        case perceiver_io.VideoAutoencodingPerceiver():
            return model(inputs["images"], inputs["audio"])
    raise AssertionError(type(model))
