"""DeepMind's Haiku code and this library on the same weights and input, and how far they differ.

Needs JAX, Haiku and a checkout of the reference.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from conversion.official_models import Official, official_model
from perceiver_io.presets import create_config, model_from_config
from perceiver_io.weights.haiku_conversion import convert_parameters
from perceiver_io.weights.pystate import HaikuCheckpoint, read_pystate

Arrays = dict[str, np.ndarray]

# Sizes that differ from one another on every axis, so that swapped axes or fields cannot go unnoticed.
_SMALL_IMAGE = {
    "num_classes": 11,
    "image_size": (20, 28),
    "num_latents": 9,
    "num_latent_channels": 32,
    "num_self_attends_per_block": 3,
    "num_blocks": 2,
    "num_self_attend_heads": 4,
}
SMALL: dict[str, dict[str, Any]] = {
    "language": {
        "vocab_size": 97,
        "max_seq_len": 29,
        "embed_channels": 24,
        "num_latents": 13,
        "num_latent_channels": 40,
        "num_self_attends_per_block": 3,
        "num_blocks": 2,
        "num_self_attend_heads": 4,
        "num_cross_attend_heads": 5,
        "num_decoder_heads": 3,
        "qk_channels": 60,
    },
    "imagenet-learned": {**_SMALL_IMAGE, "featurizer_channels": 12, "position_channels": 10},
    "imagenet-fourier": {**_SMALL_IMAGE, "num_bands": 5, "max_resolution": (18, 30)},
    "imagenet-conv": {**_SMALL_IMAGE, "num_bands": 5, "max_resolution": (6, 8), "featurizer_channels": 12},
    "optical-flow": {
        "image_size": (12, 20),
        "num_bands": 5,
        "featurizer_channels": 14,
        "num_latents": 11,
        "num_latent_channels": 24,
        "num_self_attends_per_block": 3,
        "num_blocks": 2,
        "num_self_attend_heads": 4,
    },
    "video-autoencoding": {
        "num_frames": 3,
        "image_size": (8, 16),
        "patch_size": 4,
        "audio_samples_per_frame": 40,
        "audio_samples_per_patch": 8,
        "num_classes": 7,
        "num_image_bands": 4,
        "num_audio_bands": 6,
        "num_latents": 10,
        "num_latent_channels": 24,
        "num_self_attends_per_block": 2,
        "num_blocks": 3,
        "num_self_attend_heads": 3,
        "decoder_channels": 20,
        "label_query_channels": 18,
        "input_padding_channels": 3,
        "query_padding_channels": 5,
    },
}


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far one output is from the official one, in standard deviations of that."""

    largest: float
    mean: float
    std: float
    agrees: bool


class CannotVerifyError(ValueError):
    """What was asked for cannot be tried; says what is missing."""


def verify(
    checkout: Path,
    preset: str,
    *,
    checkpoint: Path | None = None,
    small: bool = False,
    seed: int = 0,
    tolerance: float = 2e-5,
    log: Callable[[str], None] = print,
) -> dict[str, Difference]:
    """Maps a checkout of the reference and a preset to the difference of each output.

    The two sides run one after the other and the first is freed before the second: flow takes gigabytes.

    Args:
        checkout: of google-deepmind/deepmind-research, or its folder `perceiver`.
        checkpoint: a released file; without it the weights are random, such that every tensor matters.
        small: small sizes, for random weights.
        seed: of the weights and the input.
        tolerance: the largest difference that agrees.
        log: takes a line about each side that has run.

    Raises:
        CannotVerifyError: if the arguments exclude each other, if the reference or what it needs is not there, or if
            the checkpoint is another model's.
        PystateError: if the checkpoint cannot be read.
        FileNotFoundError: if it is not there.
    """
    if checkpoint is not None and small:
        raise CannotVerifyError("--checkpoint has the released sizes and --small others; leave one out")
    if not tolerance > 0:
        raise CannotVerifyError(f"--tolerance ({tolerance}) must be positive")
    official = _import_official(checkout)
    config = create_config(preset, **(SMALL[preset] if small else {}))
    rng = np.random.default_rng(seed)
    inputs = _INPUTS[preset](config, rng, 2 if small else 1)
    start = time.perf_counter()
    weights, expected = _run_official(official, preset, config, inputs, checkpoint, rng)
    log(f"{preset}: official {time.perf_counter() - start:.1f} s")
    gc.collect()
    start = time.perf_counter()
    actual = _run_ours(preset, config, inputs, weights)
    log(f"{preset}: ours {time.perf_counter() - start:.1f} s")
    assert expected.keys() == actual.keys(), f"outputs {sorted(actual)} are not the official {sorted(expected)}"
    return {name: _compare(expected[name], actual[name], tolerance) for name in sorted(expected)}


def _compare(expected: np.ndarray, actual: np.ndarray, tolerance: float) -> Difference:
    assert expected.shape == actual.shape, f"shape {actual.shape} is not the official {expected.shape}"
    std = float(expected.std())
    difference = np.abs(actual - expected)
    largest, mean = float(difference.max()) / std, float(difference.mean()) / std
    # False for NaN as well.
    return Difference(largest=largest, mean=mean, std=std, agrees=largest <= tolerance)


def _import_official(checkout: Path) -> Official:
    """Maps a folder to the modules of the reference in it."""
    # The parent, when the folder is `perceiver` itself.
    candidates = (checkout.resolve(), checkout.resolve().parent)
    root = next((folder for folder in candidates if (folder / "perceiver" / "perceiver.py").is_file()), None)
    if root is None:
        raise CannotVerifyError(
            f"{checkout} has no perceiver/perceiver.py; give a checkout, made by "
            "`git clone --depth 1 https://github.com/google-deepmind/deepmind-research`"
        )
    sys.path.insert(0, str(root))
    try:
        return Official(
            haiku=importlib.import_module("haiku"),
            perceiver=importlib.import_module("perceiver.perceiver"),
            io_processors=importlib.import_module("perceiver.io_processors"),
            position_encoding=importlib.import_module("perceiver.position_encoding"),
        )
    except ModuleNotFoundError as error:
        raise CannotVerifyError(
            f"the reference needs {error.name}, which is not installed; "
            "pip install 'perceiver-io-torch[parity]' brings it (`pip install -e .[parity]` in a checkout)"
        ) from error


def _language_inputs(config: Any, rng: np.random.Generator, batch: int) -> Arrays:
    """Tokens, the last tenth of them padding."""
    shape = (batch, config.max_seq_len)
    mask = np.ones(shape, np.int32)
    mask[:, -(config.max_seq_len // 10) :] = 0
    return {"tokens": rng.integers(config.vocab_size, size=shape, dtype=np.int32) * mask, "mask": mask}


def _image_inputs(config: Any, rng: np.random.Generator, batch: int) -> Arrays:
    return {"images": rng.standard_normal((batch, *config.image_size, 3), dtype=np.float32)}


def _flow_inputs(config: Any, rng: np.random.Generator, batch: int) -> Arrays:
    return {"frames": rng.uniform(-1, 1, (batch, 2, *config.image_size, 3)).astype(np.float32)}


def _video_inputs(config: Any, rng: np.random.Generator, batch: int) -> Arrays:
    """A clip, and as many points to decode as one of the colab's 128 chunks has, from anywhere in it."""
    num_samples = config.num_frames * config.audio_samples_per_frame
    sizes = {
        "image_points": config.num_frames * config.image_size[0] * config.image_size[1],
        "audio_points": num_samples // config.audio_samples_per_patch,
    }
    return {
        "video": rng.random((batch, config.num_frames, *config.image_size, 3), dtype=np.float32),
        "audio": rng.uniform(-1, 1, (batch, num_samples, 1)).astype(np.float32),
        **{name: np.sort(rng.choice(n, max(n // 128, 5), replace=False)) for name, n in sizes.items()},
    }


_INPUTS: dict[str, Callable[[Any, np.random.Generator, int], Arrays]] = {
    **dict.fromkeys(SMALL, _image_inputs),
    "language": _language_inputs,
    "optical-flow": _flow_inputs,
    "video-autoencoding": _video_inputs,
}


def _run_official(
    official: Official, preset: str, config: Any, inputs: Arrays, file: Path | None, rng: np.random.Generator
) -> tuple[HaikuCheckpoint, Arrays]:
    """The weights, and the outputs of the official model with them."""
    import jax

    build = official_model(official, preset, config)
    model = official.haiku.transform_with_state(lambda is_training: build(inputs, is_training))
    key = jax.random.PRNGKey(0)  # dropout asks for one, even at probability 0
    # Batch norm makes the state that evaluation needs when it trains.
    shapes = [_flat(tree) for tree in jax.eval_shape(lambda key: model.init(key, True), key)]
    if file is None:
        params, state = ({name: _random(name, array, rng) for name, array in tree.items()} for tree in shapes)
        checkpoint = HaikuCheckpoint(params=params, state=state, sha256="random")
    else:
        checkpoint = read_pystate(file)
        for part, expected in zip((checkpoint.params, checkpoint.state), shapes, strict=True):
            _check_shapes(file, preset, {name: array.shape for name, array in part.items()}, expected)
    with jax.disable_jit():  # compiled, the reference differs from itself by up to 1e-5 of a std
        outputs, _ = model.apply(_nested(checkpoint.params), _nested(checkpoint.state), key, False)
    outputs = {name: np.asarray(output) for name, output in outputs.items()}
    jax.clear_caches()
    return checkpoint, outputs


def _run_ours(preset: str, config: Any, inputs: Arrays, checkpoint: HaikuCheckpoint) -> Arrays:
    """The outputs of our model with the same weights, in the reference's layout."""
    with torch.device("meta"):  # no time spent on initial values
        model = model_from_config(config)
    model.load_state_dict(convert_parameters(checkpoint, preset, config), strict=True, assign=True)
    model.eval()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    with torch.inference_mode():
        if preset == "language":
            outputs = {"logits": model(tensors["tokens"].long(), tensors["mask"].bool())}
        elif preset == "optical-flow":
            outputs = {"flow": model(*tensors["frames"].movedim(-1, -3).unbind(1)).movedim(1, -1)}
        elif preset == "video-autoencoding":
            points = {"image": tensors["image_points"], "audio": tensors["audio_points"]}
            outputs = model(tensors["video"].movedim(-1, -3), tensors["audio"], points=points)
        else:
            outputs = {"logits": model(tensors["images"].movedim(-1, -3))}
    return {name: output.numpy() for name, output in outputs.items()}


def _random(name: str, like: Any, rng: np.random.Generator) -> np.ndarray:
    """Maps a tensor's name and shape to values under which it matters and no layer vanishes or explodes."""
    module, _, kind = name.rpartition("/")
    if kind == "counter":  # of batch norm's averages; says how many steps were averaged
        return np.full(like.shape, 100, like.dtype)
    values: np.ndarray = rng.standard_normal(like.shape, dtype=np.float32)
    if module.endswith("var_ema"):
        values = 0.5 + np.abs(values)
    elif kind == "scale":
        values = 1 + 0.1 * values
    elif kind == "w":  # the last axis is the outputs'
        values *= np.float32(np.prod(like.shape[:-1]) ** -0.5)
    elif kind in ("pos_embs", "embeddings") and not module.endswith("_padding"):
        values *= 0.5
    else:  # biases, offsets; and padding, one vector for all tokens: large, it would drown what tells them apart
        values *= 0.1
    return values


def _check_shapes(file: Path, preset: str, actual: Mapping[str, tuple[int, ...]], expected: Arrays) -> None:
    for name in sorted(actual.keys() | expected.keys()):
        there = actual.get(name, "absent")
        wanted = expected[name].shape if name in expected else "absent"
        if there != wanted:
            raise CannotVerifyError(f"{file} does not fit {preset}: {name} is {there} and must be {wanted}")


def _flat(tree: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{module}/{name}": leaf for module, leaves in tree.items() for name, leaf in leaves.items()}


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Arrays]:
    nested: dict[str, Arrays] = {}
    for key, array in flat.items():
        module, _, name = key.rpartition("/")
        nested.setdefault(module, {})[name] = array
    return nested
