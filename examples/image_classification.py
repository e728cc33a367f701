"""Names what is in a picture.

`perceiver-io classify` does the same, with many pictures and more options.
"""

from collections.abc import Sequence
from pathlib import Path

import common

import perceiver_io
from perceiver_io.media import load_image
from perceiver_io.processors import ImageProcessor, read_class_names
from perceiver_io.visualize import draw_classes, save_figure
from perceiver_io.weights.locations import find_model, sample


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.options(__doc__, checkpoint="tiny-image-classification")
    parser.add_argument("--image", type=Path, default=sample("digit_3.png"), help="a picture (default: a digit)")
    arguments = parser.parse_args(argv)

    with common.results(arguments, arguments.image) as folder:
        model = perceiver_io.load_model(arguments.checkpoint).to(arguments.device)
        processor = ImageProcessor.for_model(model, read_class_names(find_model(arguments.checkpoint)))
        picture = load_image(arguments.image)
        logits = model(processor(picture).to(arguments.device))
        classes = processor.classes(logits)[0]
        for name, probability in classes:
            print(f"{probability:6.1%}  {name}")
        save_figure(draw_classes(picture, *zip(*classes, strict=True)), folder / "image_classification.png")


if __name__ == "__main__":
    main()
