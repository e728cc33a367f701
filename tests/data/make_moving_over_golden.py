"""Writes golden/moving_over beside this file: what the code of other libraries computes with random weights.

    python make_moving_over_golden.py JOBR0_CHECKOUT KRASSERM_CHECKOUT

The checkouts are JOBR0/PerceiverIO_Pytorch at 64947cf and krasserm/perceiver-io at 46c6325, both under the Apache
licence. JOBR0's package has our name and is found first; timm, fairscale and matplotlib are stood in for. Two things
are changed in JOBR0's code: GELU is made DeepMind's tanh form, and the sizes that are written into it are made small.
In krasserm's nothing is.
"""

import importlib
import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDEN = Path(__file__).parent / "golden" / "moving_over"
SMALL_ENCODER = {"num_latents": 6, "num_latent_channels": 16, "num_self_attends_per_block": 2}
# Ours, for what is written into JOBR0's code or cannot be seen in the weights.
OURS_JOBR0: dict[str, dict[str, Any]] = {
    "imagenet_conv_preprocessing": {"image_size": [12, 20], "num_bands": 5, "max_resolution": [3, 5], "num_blocks": 2},
    "imagenet_fourier_position_encoding": {
        **{"image_size": [7, 9], "num_bands": 5, "max_resolution": [7, 9], "num_blocks": 2}
    },
    "imagenet_learned_position_encoding": {
        **{"image_size": [8, 5], "featurizer_channels": 7, "position_channels": 7, "num_blocks": 2}
    },
    "language_perceiver_io_bytes": {},
    "optical_flow_checkpoint": {"image_size": [6, 9], "num_bands": 5, "featurizer_channels": 7, "num_blocks": 2},
    "video_autoencoding_checkpoint": {
        **{"num_frames": 3, "image_size": [8, 12], "audio_samples_per_frame": 10, "num_image_bands": 3},
        **{"num_audio_bands": 6, "label_query_channels": 29},
    },
}
# In JOBR0's files: what is written there, and what is put in its place.
REPLACED = {
    "perceiver_io/transformer_primitives.py": [("F.gelu(x)", 'F.gelu(x, approximate="tanh")')],
    "perceiver_io/classification_perceiver.py": [
        ("max_resolution=(56, 56)", "max_resolution=(3, 5)"),
        ("max_resolution=(224, 224)", "max_resolution=(7, 9)"),
        ("num_bands=64", "num_bands=5"),
        ("256", "7"),
        ("num_channels=1024", "num_channels=24"),
    ],
    "perceiver_io/flow_perceiver.py": [
        ("num_bands=64", "num_bands=5"),
        ("preprocessor_channels = 64", "preprocessor_channels = 7"),
    ],
    "perceiver_io/language_perceiver.py": [("8 * 32", "8 * 3")],
    "perceiver_io/multimodal_perceiver.py": [
        ("num_bands=192", "num_bands=6"),
        ("num_bands=32", "num_bands=3"),
        ("512,\n", "16,\n"),
        ("=512,", "=16,"),
        ("=1024", "=29"),
    ],
}


def stand_in(name: str, **members: Any) -> None:
    """Puts a module of these members, and empty packages around it, where imports look."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), types.ModuleType(parts[end - 1]))
    for member, value in members.items():
        setattr(sys.modules[name], member, value)


def randomise(model: nn.Module) -> None:
    """Gives all of a model values that matter, batch norms' averages included."""
    for name, tensor in model.state_dict().items():
        if not tensor.is_floating_point() or name.endswith("position_encoding.position_encoding"):
            continue
        if tensor.ndim == 1:
            tensor.uniform_(0.5, 1.5) if name.endswith(("weight", "running_var")) else tensor.normal_(0, 0.3)
        else:
            tensor.normal_(0, 0.5 if "embs" in name or "embed" in name or "query" in name else tensor.shape[-1] ** -0.5)


def write(name: str, config: dict[str, Any], model: nn.Module, run: Callable[..., Any], **inputs: Tensor) -> None:
    """Runs a model on random weights and writes the case."""
    model.eval()
    with torch.no_grad():
        randomise(model)
        outputs = run(**inputs)
    outputs = outputs if isinstance(outputs, dict) else {"out": outputs}
    arrays = {f"in:{key}": value.numpy() for key, value in inputs.items()}
    arrays |= {f"param:{key}": value.numpy() for key, value in model.state_dict().items()}
    arrays |= {f"out:{key}": value.numpy() for key, value in outputs.items()}
    text = json.dumps({**config, "jit_spread": {}}).encode()
    np.savez_compressed(GOLDEN / f"{name}.npz", config=np.frombuffer(text, np.uint8), **arrays)


def jobr0(checkout: Path) -> None:
    """The six models of JOBR0/PerceiverIO_Pytorch."""

    def nothing(*_: Any, **__: Any) -> None: ...

    stand_in("timm.models.layers", trunc_normal_=nothing, lecun_normal_=nothing, variance_scaling_=nothing)
    stand_in("timm.models.layers", to_2tuple=lambda x: (x, x) if isinstance(x, int) else tuple(x))
    stand_in("matplotlib.pyplot")
    stand_in("matplotlib.animation", ArtistAnimation=None)
    for file, changes in REPLACED.items():
        path = checkout / file
        text = path.read_text()
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text)
    sys.path.insert(0, str(checkout))
    classification = importlib.import_module("perceiver_io.classification_perceiver")
    for name, kind, size in (
        ("imagenet_conv_preprocessing", "FOURIER_POS_CONVNET", (12, 20)),
        ("imagenet_fourier_position_encoding", "FOURIER_POS_PIXEL", (7, 9)),
        ("imagenet_learned_position_encoding", "LEARNED_POS_1X1CONV", (8, 5)),
    ):
        model = classification.ClassificationPerceiver(
            num_classes=11, img_size=size, prep_type=classification.PrepType[kind], num_blocks=2, **SMALL_ENCODER
        )
        save_jobr0(name, model, model, img=torch.randn(2, 3, *size))
    language = importlib.import_module("perceiver_io.language_perceiver").LanguagePerceiver(
        vocab_size=31, max_seq_len=9, embed_dim=24, num_blocks=1, **SMALL_ENCODER
    )
    mask = torch.ones(2, 9, dtype=torch.bool)
    mask[1, 6:] = False
    save_jobr0(
        "language_perceiver_io_bytes",
        language,
        lambda tokens, mask: language(tokens.long(), mask),
        tokens=torch.randint(31, (2, 9)),
        mask=mask,
    )
    flow = importlib.import_module("perceiver_io.flow_perceiver").FlowPerceiver(
        img_size=(6, 9), num_blocks=2, **SMALL_ENCODER
    )
    frame1, frame2 = torch.rand(2, 2, 3, 6, 9) * 2 - 1
    save_jobr0("optical_flow_checkpoint", flow, flow, image1=frame1, image2=frame2)
    video = importlib.import_module("perceiver_io.multimodal_perceiver").MultiModalPerceiver(
        img_size=(8, 12),
        num_frames=3,
        num_classes=13,
        audio_samples_per_frame=10,
        audio_samples_per_patch=5,
        **SMALL_ENCODER,
    )
    save_jobr0(
        "video_autoencoding_checkpoint",
        video,
        lambda images, audio: video(images, audio, n_chunks=2),
        images=torch.rand(2, 3, 3, 8, 12),
        audio=torch.rand(2, 30, 1) * 2 - 1,
    )


def save_jobr0(name: str, model: nn.Module, run: Callable[..., Any], **inputs: Tensor) -> None:
    """Writes a case of JOBR0's."""
    write(f"jobr0_{name}", {"library": "jobr0", "overrides": OURS_JOBR0[name]}, model, run, **inputs)


def krasserm(checkout: Path) -> None:
    """Models of krasserm/perceiver-io: each kind, with his options for sharing, residuals and widths."""
    stand_in("fairscale.nn", checkpoint_wrapper=None)
    sys.path.insert(0, str(checkout))
    for package in ("text", "text.common", "text.mlm", "text.classifier", "vision", "vision.image_classifier"):
        skeleton = types.ModuleType(package)
        skeleton.__path__ = [str(checkout / "perceiver" / "model" / package.replace(".", "/"))]  # type: ignore[attr-defined]
        sys.modules[f"perceiver.model.{package}"] = skeleton
    skeleton = types.ModuleType("optical_flow")
    skeleton.__path__ = [str(checkout / "perceiver/model/vision/optical_flow")]  # type: ignore[attr-defined]
    sys.modules["perceiver.model.vision.optical_flow"] = skeleton
    core = importlib.import_module("perceiver.model.core")
    common = importlib.import_module("perceiver.model.text.common.backend")
    sys.modules["perceiver.model.text.common"].TextEncoder = common.TextEncoder  # type: ignore[attr-defined]
    sys.modules["perceiver.model.text.common"].TextEncoderConfig = common.TextEncoderConfig  # type: ignore[attr-defined]
    mlm = importlib.import_module("perceiver.model.text.mlm.backend")
    classifier = importlib.import_module("perceiver.model.text.classifier.backend")
    image = importlib.import_module("perceiver.model.vision.image_classifier.backend")
    flow = importlib.import_module("perceiver.model.vision.optical_flow.backend")

    sizes = {"num_latents": 5, "num_latent_channels": 12}
    heads = {"num_cross_attention_heads": 3, "num_self_attention_heads": 2, "num_self_attention_layers_per_block": 2}
    text = {"vocab_size": 31, "max_seq_len": 9, "num_input_channels": 18, **heads}
    tokens, pad_mask = torch.randint(31, (2, 9)), torch.zeros(2, 9, dtype=torch.bool)
    pad_mask[1, 6:] = True
    shared = {
        "num_cross_attention_layers": 2,
        "num_self_attention_blocks": 3,
        "first_cross_attention_layer_shared": True,
    }
    unshared = {**shared, "first_cross_attention_layer_shared": False, "first_self_attention_block_shared": False}
    widths = {"num_cross_attention_qk_channels": 6, "num_cross_attention_v_channels": 12}
    own_widths = {**widths, "num_self_attention_qk_channels": 6, "num_self_attention_v_channels": 12}
    cases = {
        "masked_language_published": (
            mlm.MaskedLanguageModel,
            common.TextEncoderConfig(**text, **own_widths),
            mlm.TextDecoderConfig(
                vocab_size=31,
                max_seq_len=9,
                num_cross_attention_heads=3,
                num_cross_attention_qk_channels=6,
                num_cross_attention_v_channels=18,
                cross_attention_residual=False,
            ),
        ),
        "masked_language_default": (
            mlm.MaskedLanguageModel,
            common.TextEncoderConfig(**text, **shared),
            mlm.TextDecoderConfig(vocab_size=31, max_seq_len=9, num_cross_attention_heads=2),
        ),
        "text_classifier": (
            classifier.TextClassifier,
            common.TextEncoderConfig(**text, **own_widths, **unshared, self_attention_widening_factor=2),
            core.ClassificationDecoderConfig(num_output_query_channels=16, num_classes=4, num_cross_attention_heads=4),
        ),
        "image_classifier_mnist": (
            image.ImageClassifier,
            image.ImageEncoderConfig(
                image_shape=(6, 7, 1), num_frequency_bands=3, **{**heads, "num_cross_attention_heads": 1}, **unshared
            ),
            core.ClassificationDecoderConfig(
                num_output_query_channels=10,
                num_classes=7,
                num_cross_attention_heads=2,
                cross_attention_widening_factor=3,
            ),
        ),
        "optical_flow": (
            flow.OpticalFlow,
            flow.OpticalFlowEncoderConfig(
                image_shape=(6, 9),
                num_patch_hidden_channels=7,
                num_frequency_bands=4,
                **{**heads, "num_cross_attention_heads": 1},
            ),
            flow.OpticalFlowDecoderConfig(
                image_shape=(6, 9),
                num_cross_attention_qk_channels=12,
                num_cross_attention_v_channels=12,
                num_cross_attention_heads=1,
                cross_attention_residual=False,
            ),
        ),
    }
    for name, (model_class, encoder, decoder) in cases.items():
        config = core.PerceiverIOConfig(encoder=encoder, decoder=decoder, **sizes)
        model = model_class(config)
        settings = {"encoder": vars(encoder), "decoder": vars(decoder), **sizes}
        kind = {"masked": "masked-language-model", "text": "text-classifier", "image": "image-classifier"}.get(
            name.split("_")[0], "optical-flow"
        )
        described = {"library": "krasserm", "model_type": f"perceiver-io-{kind}", "model_config": settings}
        wrapped = nn.ModuleDict({"backend_model": model})
        if kind == "image-classifier":
            write(f"krasserm_{name}", described, wrapped, model, x=torch.randn(2, 6, 7, 1))
        elif kind == "optical-flow":
            write(f"krasserm_{name}", described, wrapped, model, x=torch.randn(2, 2, 27, 6, 9))
        else:

            def run(x: Tensor, pad_mask: Tensor, model: nn.Module = model) -> Tensor:
                return model(x.long(), pad_mask)

            write(f"krasserm_{name}", described, wrapped, run, x=tokens, pad_mask=pad_mask)


if __name__ == "__main__":
    GOLDEN.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    jobr0(Path(sys.argv[1]))
    krasserm(Path(sys.argv[2]))
