"""Weights of 8 bits: what they cost in precision, and that fast paths do not read past them."""

import sys
from pathlib import Path

import pytest
import torch

import perceiver_io
from perceiver_io.quantization import quantize_int8


def test_mistakes(monkeypatch: pytest.MonkeyPatch) -> None:
    model = perceiver_io.load_model("tiny-image-classification")
    with pytest.raises(ValueError, match=r"the model is in training mode, .*call model.eval\(\) before"):
        quantize_int8(model.train())
    for name in [name for name in sys.modules if name.startswith("torchao")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ImportError, match=r"needs torchao.*; install it with: pip .*\[int8\]"):
        quantize_int8(model.eval())


@pytest.mark.parametrize("activations", [False, True])
def test_outputs_are_close(activations: bool, tmp_path: Path) -> None:
    pytest.importorskip("torchao", reason="needs torchao: pip install 'perceiver-io-torch[int8]'")
    model = perceiver_io.load_model("tiny-image-classification").float()
    images = torch.rand(3, 3, 32, 32)
    with torch.inference_mode():
        expected = model(images)
        rounded = quantize_int8(model, activations=activations)(images)
        plain = perceiver_io.undo_accelerate(model)(images)
    assert rounded is not expected and not torch.equal(rounded, expected)
    assert (rounded - expected).abs().max() / expected.std() < 0.1
    # What layers are given is rounded: an ulp in it is then a step or none.
    assert torch.allclose(rounded, plain, atol=0.1 if activations else 1e-4)
    with pytest.raises(ValueError, match="load_model could not rebuild it"):
        perceiver_io.save_model(model, tmp_path / "model")
