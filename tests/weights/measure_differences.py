"""How far transformers' outputs are from DeepMind's with the same random weights, cause by cause (docs/differences.md).

python -m tests.weights.measure_differences
"""

import math
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from perceiver_io import import_model
from perceiver_io.position_encoding import FourierPositionEncoding
from tests.weights.transformers_models import CLASSES, inputs_for, outputs_of, random_model


def distance(theirs: Tensor, ours: Tensor) -> str:
    """The largest difference, relative to the deviation of ours."""
    return f"{((theirs - ours).abs().max() / ours.std()).item():.1e}"


def compare(name: str, activation: str, *inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs of a small model of transformers' and of ours with its weights."""
    theirs = random_model(name, hidden_act=activation)
    with tempfile.TemporaryDirectory() as directory:
        theirs.save_pretrained(directory)
        ours = import_model(Path(directory))
    inputs = inputs or inputs_for(name)
    with torch.inference_mode():
        expected = ours(*inputs)
    return outputs_of(theirs, *inputs), expected["image"] if isinstance(expected, dict) else expected


def audio_features() -> float:
    """The largest difference of the released video model's features of sound from those with torch.linspace."""
    ours = FourierPositionEncoding((1920,), num_bands=192, max_resolution=(30720,))()[0]
    angles = math.pi * torch.linspace(-1, 1, 1920)[:, None] * torch.linspace(1.0, 15360.0, 192)
    theirs = torch.cat([torch.linspace(-1, 1, 1920)[:, None], angles.sin(), angles.cos()], dim=1)
    return (theirs - ours).abs().max().item()


def main() -> None:
    mask = inputs_for("PerceiverForMaskedLM")[1]
    for name in CLASSES:
        for activation in ("gelu", "gelu_pytorch_tanh"):
            theirs, ours = compare(name, activation)
            if name == "PerceiverForMaskedLM":
                print(f"{name} {activation} at padding: {distance(theirs[~mask], ours[~mask])}")
                theirs, ours = theirs[mask], ours[mask]
            print(f"{name} {activation}: {distance(theirs, ours)}")
    stem = "PerceiverForImageClassificationConvProcessing"
    torch.manual_seed(0)
    large = distance(*compare(stem, "gelu_pytorch_tanh", torch.randn(2, 3, 224, 224)))
    print(f"{stem} gelu_pytorch_tanh at 224 × 224: {large}")
    print(f"features of sound: {audio_features():.1e} absolute")


if __name__ == "__main__":
    main()
