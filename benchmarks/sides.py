"""The implementations that are compared, one class each: how each is built, fed and run on a case.

What a side needs before its first run (weights, layout of the input, compiling) is prepared and not timed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from benchmarks.rows import Case, make_inputs
from benchmarks.worker import Prepared
from conversion.official_models import Official, official_model

_REFERENCE_MODULES = ("perceiver", "io_processors", "position_encoding")


@dataclass(frozen=True, kw_only=True)
class Side:
    """Base of sides: a worker's task, bound to a case. See `worker.Task`.

    Attributes:
        needs: modules that must be installed.
    """

    needs: ClassVar[tuple[str, ...]] = ()
    case: Case

    def why_not(self) -> str | None:
        """Why this side has no figure for the case; None if it should have one."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"not installed ({', '.join(missing)})" if missing else None

    def load(self) -> None:
        """Imports the libraries."""
        for name in self.needs:
            importlib.import_module(name)

    def prepare(self) -> Prepared:
        """Builds the model and its inputs."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Ours(Side):
    """This library as a user runs it.

    Attributes:
        plain: whether the fast paths are taken off first.
        sleeps: whether threads sleep while they wait for one another.
    """

    needs: ClassVar[tuple[str, ...]] = ("perceiver_io",)
    plain: bool = False
    sleeps: bool = False

    def prepare(self) -> Prepared:
        """Builds the model."""
        import torch

        import perceiver_io
        from perceiver_io.fast import sleep_while_waiting

        model: Any = perceiver_io.create_model(self.case.row.preset, **self.case.overrides).eval()
        parameters = _count(model)
        if self.plain:
            perceiver_io.undo_accelerate(model)
        if self.sleeps:
            sleep_while_waiting()
        tensors = {name: torch.from_numpy(array) for name, array in make_inputs(self.case).items()}
        return Prepared(run=_without_gradients(lambda: run_ours(model, self.case, tensors)), parameters=parameters)


def run_ours(model: Any, case: Case, tensors: Mapping[str, Any]) -> Mapping[str, Any]:
    """Runs our model on a case's inputs."""
    match case.row.preset:
        case "language":
            return {"logits": model(tensors["tokens"])}
        case "optical-flow":
            return {"flow": model(*tensors["frames"].unbind(1))}
        case "video-autoencoding":
            points = {name: tensors[f"{name}_points"] for name in ("image", "audio")}
            chosen = points if case.row.decodes == "chunk" else None
            outputs: Mapping[str, Any] = model(tensors["video"], tensors["audio"], points=chosen)
            return outputs
        case _:
            return {"logits": model(tensors["images"])}


@dataclass(frozen=True, kw_only=True)
class Reference(Side):
    """DeepMind's Haiku code under `jax.jit`. Takes a text padded and a clip one chunk at a time.

    Attributes:
        checkout: of google-deepmind/deepmind-research, or its folder `perceiver`.
        chunks: chunks of the clip that one compiled program decodes. The colab compiles the loop over all chunks into
            one program, in which XLA finds that every chunk has the same encoder and runs it once.
        platform: of JAX's: "cpu" or "cuda".
        precision: of products: "float32" in full; "tf32", JAX's default, which is TF32 on GPUs that have it; or
            "bfloat16", in which layers compute, too (Haiku's mixed precision).
        batch: as often as the input is repeated.
    """

    needs: ClassVar[tuple[str, ...]] = ("jax", "haiku", "einops")
    checkout: Path | None
    chunks: int = 1
    platform: str = "cpu"
    precision: str = "float32"
    batch: int = 1

    def why_not(self) -> str | None:
        """Also without a checkout."""
        if self.checkout is None:
            return "no checkout given (--reference)"
        return super().why_not()

    def load(self) -> None:
        """Imports JAX and the checkout's modules."""
        os.environ["JAX_PLATFORMS"] = self.platform
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the card is shared with the process that measures
        super().load()
        assert self.checkout is not None
        folders = (self.checkout.resolve(), self.checkout.resolve().parent)
        root = next((folder for folder in folders if (folder / "perceiver" / "perceiver.py").is_file()), None)
        if root is None:
            raise FileNotFoundError("--reference has no perceiver/perceiver.py")
        sys.path.insert(0, str(root))
        for name in _REFERENCE_MODULES:
            importlib.import_module(f"perceiver.{name}")

    def prepare(self) -> Prepared:
        """Builds the model with random weights and compiles it."""
        import haiku
        import jax

        modules = {name: importlib.import_module(f"perceiver.{name}") for name in _REFERENCE_MODULES}
        jax.config.update("jax_default_matmul_precision", "highest" if self.precision == "float32" else "default")
        if self.precision == "bfloat16":
            _compute_in_bfloat16(haiku)
        official = Official(haiku=haiku, **modules)
        build = official_model(official, self.case.row.preset, self.case.config)
        model = haiku.transform_with_state(build)
        inputs, points = jax.device_put((self._inputs(), self._points()))
        key = jax.random.PRNGKey(0)
        # Batch norm makes the state that evaluation needs only when it trains.
        shapes = jax.eval_shape(lambda inputs: model.init(key, inputs, True), {**inputs, **points[0]})
        rng = np.random.default_rng(0)
        params, state = jax.tree.map(lambda like: jax.device_put(_random_like(like, rng)), shapes)

        def forward(params: Any, state: Any, inputs: Any, points: Any) -> list[Any]:
            return [model.apply(params, state, key, {**inputs, **chunk}, False)[0] for chunk in points]

        compiled = jax.jit(forward)

        def run() -> Mapping[str, Any]:
            outputs: Mapping[str, Any] = jax.block_until_ready(compiled(params, state, inputs, points))[-1]
            return outputs

        return Prepared(run=run, parameters=sum(leaf.size for leaf in jax.tree.leaves(params)))

    def _inputs(self) -> dict[str, np.ndarray]:
        """The input in the reference's layout, without the points to decode."""
        repeated = {name: np.repeat(array, self.batch, axis=0) for name, array in self._one_input().items()}
        if self.precision != "bfloat16":
            return repeated
        ml_dtypes = importlib.import_module("ml_dtypes")  # JAX's
        return {name: x.astype(ml_dtypes.bfloat16) if x.dtype == np.float32 else x for name, x in repeated.items()}

    def _one_input(self) -> dict[str, np.ndarray]:
        inputs = make_inputs(self.case)
        match self.case.row.preset:
            case "language":
                padding = [(0, 0), (0, self.case.config.max_seq_len - inputs["tokens"].shape[1])]
                tokens = inputs["tokens"].astype(np.int32)
                mask = np.ones_like(tokens)
                return {"tokens": np.pad(tokens, padding), "mask": np.pad(mask, padding)}
            case "optical-flow":
                return {"frames": np.ascontiguousarray(np.moveaxis(inputs["frames"], 2, -1))}
            case "video-autoencoding":
                return {"video": np.ascontiguousarray(np.moveaxis(inputs["video"], 2, -1)), "audio": inputs["audio"]}
            case _:
                return {"images": np.ascontiguousarray(np.moveaxis(inputs["images"], 1, -1))}

    def _points(self) -> list[dict[str, np.ndarray]]:
        """The points of each chunk to decode; one chunk of none where the model decodes everything at once."""
        first = {name: array for name, array in make_inputs(self.case).items() if name.endswith("_points")}
        return [{name: array + chunk * len(array) for name, array in first.items()} for chunk in range(self.chunks)]


class Transformers(Side):
    """The Perceiver models of Hugging Face transformers, from a config of the released sizes.

    Takes a short text as it is (its logits are then those of the padded text, at less cost), though it always
    decodes 2048 outputs, and a clip one chunk at a time. The 3×3 patches of flow are prepared and not timed: the model
    takes them as its input.
    """

    needs = ("torch", "transformers")

    def why_not(self) -> str | None:
        """Also at small sizes: its models have most of the released sizes in their code."""
        return "cannot be built at these sizes" if self.case.overrides else super().why_not()

    def prepare(self) -> Prepared:
        """Builds the model."""
        model, arguments = self.build()

        def forward() -> Mapping[str, Any]:
            logits = model(**arguments).logits
            return logits if isinstance(logits, Mapping) else {"logits": logits}

        return Prepared(run=_without_gradients(forward), parameters=_count(model))

    def build(self) -> tuple[Any, dict[str, Any]]:
        """Maps the case to a model in evaluation mode and the arguments of a call."""
        import torch

        transformers = importlib.import_module("transformers")
        config = self.case.config
        tensors = {name: torch.from_numpy(array) for name, array in make_inputs(self.case).items()}
        sizes: dict[str, Any] = {
            "num_latents": config.num_latents,
            "d_latents": config.num_latent_channels,
            "num_blocks": config.num_blocks,
            "num_self_attends_per_block": config.num_self_attends_per_block,
            "num_self_attention_heads": config.num_self_attend_heads,
            "num_cross_attention_heads": config.num_cross_attend_heads,
        }
        arguments: dict[str, Any]
        match self.case.row.preset:
            case "language":
                kind = "ForMaskedLM"
                sizes |= {"qk_channels": config.qk_channels, "v_channels": config.num_latent_channels}
                arguments = {"inputs": tensors["tokens"], "attention_mask": torch.ones(tensors["tokens"].shape)}
            case "optical-flow":
                kind = "ForOpticalFlow"
                arguments = {"inputs": _flow_patches(tensors["frames"])}
            case "video-autoencoding":
                kind = "ForMultimodalAutoencoding"
                # Its image_size is that of the grid of patches.
                sizes |= {"num_labels": config.num_classes, "image_size": config.image_size[0] // config.patch_size}
                label = torch.zeros(1, config.num_classes)
                arguments = {
                    "inputs": {"image": tensors["video"], "audio": tensors["audio"], "label": label},
                    "subsampled_output_points": {
                        "image": tensors["image_points"],
                        "audio": tensors["audio_points"],
                        "label": None,
                    },
                }
            case preset:
                variants = {"conv": "ConvProcessing", "fourier": "Fourier", "learned": "Learned"}
                kind = f"ForImageClassification{variants[preset.removeprefix('imagenet-')]}"
                sizes |= {"num_labels": config.num_classes, "image_size": config.image_size[0]}
                arguments = {"inputs": tensors["images"]}
        return getattr(transformers, f"Perceiver{kind}")(transformers.PerceiverConfig(**sizes)).eval(), arguments


class PerceiverPytorch(Side):
    """lucidrains' perceiver-pytorch, which offers none of the released models."""

    needs = ("perceiver_pytorch",)

    def why_not(self) -> str | None:
        """Always: no options make its `PerceiverIO` do the same work."""
        return super().why_not() or (
            "does other work: its feed-forward layers are GEGLU with four times the width, its queries and values have "
            "one and the same width, and no argument changes either"
        )


def _compute_in_bfloat16(haiku: Any) -> None:
    jmp = importlib.import_module("jmp")  # Haiku's
    policy = jmp.get_policy("params=float32,compute=bfloat16,output=bfloat16")
    for kind in (haiku.Linear, haiku.LayerNorm, haiku.Embed, haiku.Conv2D):
        haiku.mixed_precision.set_policy(kind, policy)


def _random_like(like: Any, rng: np.random.Generator) -> np.ndarray:
    """Maps the shape of a weight to values that neither vanish nor overflow on their way through the model."""
    if not np.issubdtype(like.dtype, np.floating):
        return np.ones(like.shape, like.dtype)
    values = rng.standard_normal(like.shape, dtype=np.float32)
    if len(like.shape) < 2:  # biases, scales and variances
        return np.abs(values)
    return values * np.float32(np.prod(like.shape[:-1]) ** -0.5)


def _flow_patches(frames: Any) -> Any:
    """Maps frames [1, 2, 3, H, W] to the 3×3 patch around each pixel [1, 2, 27, H, W], channels fastest."""
    import torch

    _, time, channels, height, width = frames.shape
    patches = torch.nn.functional.unfold(frames[0], kernel_size=3, padding=1)
    patches = patches.view(time, channels, 9, height, width).transpose(1, 2)
    return patches.reshape(1, time, 9 * channels, height, width)


def _without_gradients(forward: Callable[[], Mapping[str, Any]]) -> Callable[[], Mapping[str, Any]]:
    import torch

    def run() -> Mapping[str, Any]:
        with torch.inference_mode():
            return forward()

    return run


def _count(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
