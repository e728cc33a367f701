"""What `torch.hub.load("OWNER/NAME", ENTRY)` finds here: the released models, and the tiny ones of this repository.

model = torch.hub.load("OWNER/NAME", "imagenet_conv")                 # fetches and converts the released weights
model = torch.hub.load("OWNER/NAME", "language", pretrained=False)    # as the reference initialises it
model = torch.hub.load("OWNER/NAME", "tiny_language")
"""

from collections.abc import Callable
from functools import partial
from typing import Any

dependencies = ["torch", "numpy", "safetensors", "einops", "jaxtyping"]


def _released(preset: str, pretrained: bool = True, **config_overrides: Any) -> Any:
    """Loads a released model, fetching it the first time, or builds one with other sizes.

    Args:
        pretrained: whether it has the released weights.
        config_overrides: fields of the configuration, for a model that has none.
    """
    import perceiver_io
    from perceiver_io.weights.downloads import download_checkpoint

    if not pretrained:
        return perceiver_io.create_model(preset, **config_overrides)
    if config_overrides:
        raise ValueError(f"the released weights fit {preset} as it is; leave out {', '.join(config_overrides)}")
    download_checkpoint(preset)
    return perceiver_io.load_model(preset)


def _bundled(name: str) -> Any:
    """Loads a small model that lies in this repository."""
    import perceiver_io

    return perceiver_io.load_model(name)


language = partial(_released, "language")
imagenet_fourier = partial(_released, "imagenet-fourier")
imagenet_learned = partial(_released, "imagenet-learned")
imagenet_conv = partial(_released, "imagenet-conv")
optical_flow = partial(_released, "optical-flow")
video_autoencoding = partial(_released, "video-autoencoding")

tiny_language: Callable[[], Any] = partial(_bundled, "tiny-language")
tiny_image_classification: Callable[[], Any] = partial(_bundled, "tiny-image-classification")
tiny_optical_flow: Callable[[], Any] = partial(_bundled, "tiny-optical-flow")
tiny_video_autoencoding: Callable[[], Any] = partial(_bundled, "tiny-video-autoencoding")
