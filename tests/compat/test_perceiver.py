"""The TensorFlow package's call, as its README has it."""

import numpy as np
import pytest
import torch

import perceiver_io.compat.perceiver as perceiver
from perceiver_io.compat import perceiver_pytorch


def test_the_call_of_its_readme() -> None:
    model = perceiver.Perceiver(
        num_freq_bands=6,
        depth=6,
        max_freq=10.0,
        freq_base=2,
        num_latents=256,
        latent_dim=512,
        cross_heads=1,
        latent_heads=8,
        cross_dim_head=64,
        latent_dim_head=64,
        num_classes=1000,
        attn_dropout=0.0,
        ff_dropout=0.0,
    )
    with torch.no_grad():
        logits = model(torch.rand(1, 224, 224, 3))
    assert logits.shape == (1, 1000)
    assert logits.isfinite().all()


def test_it_is_the_perceiver_with_frequencies_that_are_powers() -> None:
    arguments = {"num_freq_bands": 4, "depth": 2, "max_freq": 9.0, "num_latents": 5, "latent_dim": 16, "num_classes": 7}
    model = perceiver.Perceiver(4, 2, 9.0, 3, num_latents=5, latent_dim=16, num_classes=7)
    frequencies = model._frequencies(torch.empty(0))
    assert frequencies.tolist() == pytest.approx(np.geomspace(3, 4.5, 4).tolist())
    other = perceiver_pytorch.Perceiver(**arguments)
    other._frequencies = model._frequencies
    other.load_state_dict(model.state_dict())
    images, mask = (
        np.random.default_rng(0).random((2, 6, 8, 3), dtype=np.float32),
        np.arange(96).reshape(2, 6, 8) % 5 > 0,
    )
    assert torch.equal(model(images, mask), other(torch.tensor(images), torch.tensor(mask)))
    assert model(images).isfinite().all()
    with pytest.raises(ValueError, match=r"max_freq \(-1\) and freq_base \(2\) must be positive"):
        perceiver.Perceiver(4, 2, -1)
