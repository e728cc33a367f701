"""Names what is in a picture, with a Perceiver IO trained on ImageNet."""

from collections.abc import Sequence
from pathlib import Path

import common
import torch

from perceiver_io import ImageClassificationPerceiver
from perceiver_io.inputs import imagenet_classes, load_image, prepare_image
from perceiver_io.visualize import draw_classes

SMALL = {
    "image_size": (64, 64),
    "max_resolution": (64, 64),
    "num_bands": 8,
    "num_latents": 32,
    "num_latent_channels": 64,
    "num_self_attends_per_block": 2,
    "num_blocks": 2,
}


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> None:
    parser = common.argument_parser(__doc__)
    parser.add_argument("--image", type=Path, default=common.SAMPLES / "balloon.jpg", help="a picture file")
    arguments = parser.parse_args(argv)
    with common.reported_errors():
        path = common.result_path(arguments.output, "image_classification", [".png", ".pdf", ".svg"])
        image = load_image(arguments.image)
        model = common.load_or_create(arguments, ImageClassificationPerceiver, "imagenet-fourier", SMALL)

        pixels = prepare_image(image, model.config.image_size)
        logits = model(pixels[None].to(arguments.device))[0]

        labels, probabilities = common.top_classes(logits, imagenet_classes())
        with common.written(path) as file:
            draw_classes(image, labels, probabilities).savefig(file)


if __name__ == "__main__":
    main()
