"""Trains a model that squeezes video and sound through a few latents and rebuilds both.

As `perceiver-io train video_autoencoding`, and with `--tiny` a small model with toy data.
"""

from collections.abc import Sequence

from common import train
from tiny.video_autoencoding import TASK


def main(argv: Sequence[str] | None = None) -> None:
    train(TASK, argv)


if __name__ == "__main__":
    main()
