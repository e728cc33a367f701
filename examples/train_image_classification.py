"""Trains a model that names what is in a picture.

As `perceiver-io train image_classification`, and with `--tiny` a small model with toy data.
"""

from collections.abc import Sequence

from common import train
from tiny.image_classification import TASK


def main(argv: Sequence[str] | None = None) -> None:
    train(TASK, argv)


if __name__ == "__main__":
    main()
