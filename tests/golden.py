"""The golden cases: what DeepMind's Haiku code computed, and how close we have to come.

They are read from the directory in PERCEIVER_GOLDEN_DIR, so that the same tests run on other cases of the same kinds.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from perceiver_io.fast import accelerate
from perceiver_io.weights.haiku import Table
from perceiver_io.weights.haiku_conversion import apply_table

GOLDEN_DIR = Path(os.environ.get("PERCEIVER_GOLDEN_DIR", Path(__file__).parent / "data" / "golden"))

# The project's bar for max |difference| / std(output) in float32.
TOLERANCE = 1e-5

# Group -> (worst error so far, its case), for the report at the end of a run.
WORST: dict[str, tuple[float, str]] = {}


@dataclass
class Case:
    """A golden file: configuration under the reference's names, inputs, parameters, state and outputs."""

    name: str
    config: dict[str, Any]
    inputs: dict[str, Tensor]
    params: dict[str, np.ndarray]
    state: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    new_state: dict[str, np.ndarray]
    accelerated: bool = False

    @classmethod
    def load(cls, path: Path, accelerated: bool = False) -> "Case":
        """Reads a file; `accelerated` says whether modules that are filled become fast ones."""
        parts: dict[str, dict[str, np.ndarray]] = {kind: {} for kind in ("in", "param", "state", "out", "newstate")}
        with np.load(path) as file:
            config = json.loads(file["config"].tobytes())
            for key in file.files:
                if key != "config":
                    kind, name = key.split(":", 1)
                    parts[kind][name] = file[key]
        config.pop("jit_spread")
        inputs = {name: torch.from_numpy(array) for name, array in parts["in"].items()}
        arrays = (parts["param"], parts["state"], parts["out"], parts["newstate"])
        return cls(path.stem, config, inputs, *arrays, accelerated)

    def fill(self, module: nn.Module, table: Table) -> None:
        """Loads the case's parameters into a module, all of them."""
        state = apply_table(table, {**self.params, **self.state}, module.state_dict(), self.name)
        module.load_state_dict(state, strict=True)
        if self.accelerated:
            accelerate(module)

    def check(self, **results: Tensor) -> None:
        """Compares results with the outputs of the same names."""
        for name, result in results.items():
            self.check_array(name, result.detach().cpu().numpy(), self.outputs[name])

    def check_array(self, name: str, result: np.ndarray, expected: np.ndarray, group: str | None = None) -> None:
        """Compares one result with what is expected, relative to the deviation of the latter."""
        assert result.shape == expected.shape, f"{name}: {result.shape} instead of {expected.shape}"
        difference = float(np.abs(result - expected).max(initial=0))
        error = difference / (float(expected.std()) or 1.0)
        group = group or self.kind
        WORST[group] = max(WORST.get(group, (-1.0, "")), (error, self.name))
        assert error <= TOLERANCE, f"{self.name}: {name} differs by {error:.2e} of its deviation"

    @property
    def kind(self) -> str:
        return next((kind for kind in KINDS if self.name.startswith(kind)), self.name)


# File name prefixes, longer ones first where one begins with another.
KINDS = (
    "attention",
    "audio_post",
    "audio_pre",
    "basic_decoder",
    "classification_decoder",
    "classification_post",
    "cross_attention",
    "embedding_decoder",
    "encoder",
    "extract_patches",
    "fourier",
    "image_post",
    "image_pre",
    "imagenet",
    "language",
    "linear_positions",
    "mlp",
    "multimodal_pre",
    "optical_flow",
    "patches_for_flow",
    "projection_decoder",
    "projection_post",
    "reverse_space_to_depth",
    "self_attention",
    "space_to_depth",
    "video",
)


def cases(folder: str) -> list[Path]:
    """The golden files of a folder."""
    return sorted((GOLDEN_DIR / folder).glob("*.npz"))


def channels_first(array: Tensor) -> Tensor:
    """The reference's images and videos as PyTorch has them."""
    return array.movedim(-1, -3)


def channels_last(array: Tensor) -> Tensor:
    """Ours as the reference has them."""
    return array.movedim(-3, -1)
