"""Runs DeepMind's Haiku code and this library on the same weights and input, and prints how far they differ.

    python conversion/verify_against_jax.py --reference CHECKOUT --model PRESET
        [--checkpoint FILE] [--small] [--seed N] [--tolerance X]

The weights are those of a released checkpoint, or drawn at random such that every tensor matters (biases and
output layers that start at zero do not stay there). Both sides get one and the same Haiku tree, ours through
the converter. Exits 0 if every output agrees within the tolerance, 1 if one does not, 2 if it cannot be tried.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as a script it would see its own folder alone

from conversion.official_models import Official, official_model

if TYPE_CHECKING:
    from perceiver_io.checkpoints.pystate import HaikuCheckpoint

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
PRESETS = tuple(SMALL)


class CannotVerifyError(Exception):
    """What was asked for cannot be tried; says what is missing."""


def main(argv: list[str] | None = None) -> int:
    """Command line → exit status, with one printed line per output."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--reference",
        required=True,
        type=Path,
        metavar="CHECKOUT",
        help="checkout of google-deepmind/deepmind-research, or its folder `perceiver`",
    )
    parser.add_argument("--model", required=True, choices=PRESETS, metavar="PRESET", help=", ".join(PRESETS))
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="a released .pystate (default: random weights)")
    parser.add_argument("--small", action="store_true", help="small sizes: seconds instead of minutes")
    parser.add_argument("--seed", type=int, default=0, help="of the weights and the input (default: %(default)s)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=2e-5,
        metavar="X",
        help="largest difference allowed, in standard deviations of the output (default: %(default)s)",
    )
    arguments = parser.parse_args(argv)
    try:
        if arguments.checkpoint is not None and arguments.small:
            raise CannotVerifyError("--checkpoint has the released sizes and --small others; leave one out")
        if not arguments.tolerance > 0:
            raise CannotVerifyError(f"--tolerance ({arguments.tolerance}) must be positive")
        return verify(arguments)
    except (CannotVerifyError, FileNotFoundError) as error:
        parser.error(str(error))


def verify(arguments: argparse.Namespace) -> int:
    """Parsed arguments → 0 if every output agrees, else 1.

    The two sides run one after the other and the first is freed before the second: flow takes gigabytes.
    """
    official = _import_official(arguments.reference)
    from perceiver_io.registry import create_config

    overrides = SMALL[arguments.model] if arguments.small else {}
    config = create_config(arguments.model, **overrides)
    rng = np.random.default_rng(arguments.seed)
    inputs = _INPUTS[arguments.model](config, rng, 2 if arguments.small else 1)
    checkpoint, expected = _run_official(official, arguments.model, config, inputs, arguments.checkpoint, rng)
    gc.collect()
    actual = _run_ours(arguments.model, config, overrides, inputs, checkpoint)
    return 0 if _report(arguments.model, expected, actual, arguments.tolerance) else 1


def _import_official(checkout: Path) -> Official:
    """A folder → the modules of the reference in it."""
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
            f"the reference needs {error.name}, which is not installed; `pip install -e .[parity]` brings it"
        ) from error


# ---- random inputs, in the reference's layout ----


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
    **dict.fromkeys(PRESETS, _image_inputs),
    "language": _language_inputs,
    "optical-flow": _flow_inputs,
    "video-autoencoding": _video_inputs,
}


# ---- the two sides ----


def _run_official(
    official: Official, preset: str, config: Any, inputs: Arrays, file: Path | None, rng: np.random.Generator
) -> tuple[HaikuCheckpoint, Arrays]:
    """The weights, and the outputs of the official model with them."""
    import jax

    from perceiver_io.checkpoints.pystate import HaikuCheckpoint, PystateError, read_pystate

    build = official_model(official, preset, config)
    model = official.haiku.transform_with_state(lambda is_training: build(inputs, is_training))
    key = jax.random.PRNGKey(0)  # dropout asks for one, even at probability 0
    # Batch norm makes the state that evaluation needs when it trains.
    shapes = [_flat(tree) for tree in jax.eval_shape(lambda key: model.init(key, True), key)]
    if file is None:
        params, state = ({name: _random(name, array, rng) for name, array in tree.items()} for tree in shapes)
        checkpoint = HaikuCheckpoint(params=params, state=state, sha256="random")
    else:
        try:
            checkpoint = read_pystate(file)
        except PystateError as error:
            raise CannotVerifyError(str(error)) from error
        for part, expected in zip((checkpoint.params, checkpoint.state), shapes, strict=True):
            _check_shapes(file, preset, {name: array.shape for name, array in part.items()}, expected)

    start = time.perf_counter()
    with jax.disable_jit():  # compiled, the reference differs from itself by up to 1e-5 of a std
        outputs, _ = model.apply(_nested(checkpoint.params), _nested(checkpoint.state), key, False)
    outputs = {name: np.asarray(output) for name, output in outputs.items()}
    print(f"{preset}: official {time.perf_counter() - start:.1f} s", flush=True)
    jax.clear_caches()
    return checkpoint, outputs


def _run_ours(
    preset: str, config: Any, overrides: Mapping[str, Any], inputs: Arrays, checkpoint: HaikuCheckpoint
) -> Arrays:
    """The outputs of our model with the same weights, in the reference's layout."""
    import torch

    from perceiver_io import create_model
    from perceiver_io.checkpoints.convert import convert_parameters

    model = create_model(preset, **overrides)
    model.load_state_dict(convert_parameters(checkpoint, preset, config), strict=True)
    model.eval()
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    start = time.perf_counter()
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
    print(f"{preset}: ours {time.perf_counter() - start:.1f} s", flush=True)
    return {name: output.numpy() for name, output in outputs.items()}


def _report(preset: str, expected: Arrays, actual: Arrays, tolerance: float) -> bool:
    """Prints the differences of every output, and returns whether all are within the tolerance."""
    agree = expected.keys() == actual.keys()
    if not agree:
        print(f"{preset}: outputs {sorted(actual)} are not the official {sorted(expected)}: FAIL")
    for name in sorted(expected.keys() & actual.keys()):
        if expected[name].shape != actual[name].shape:
            print(f"{preset} {name}: shape {actual[name].shape}, official {expected[name].shape}: FAIL")
            agree = False
            continue
        std = float(expected[name].std())
        difference = np.abs(actual[name] - expected[name])
        largest, mean = float(difference.max()) / std, float(difference.mean()) / std
        ok = largest <= tolerance  # false for NaN as well
        agree &= ok
        print(f"{preset} {name}: max {largest:.2e} mean {mean:.2e} of std {std:.3g}: {'ok' if ok else 'FAIL'}")
    return agree


# ---- weights ----


def _random(name: str, like: Any, rng: np.random.Generator) -> np.ndarray:
    """A tensor's name and shape → values under which it matters and no layer vanishes or explodes."""
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


if __name__ == "__main__":
    sys.exit(main())
