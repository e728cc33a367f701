"""Trains a model that continues a text, byte by byte.

As `perceiver-io train autoregressive`, and with `--tiny` a small model with toy data.
"""

from collections.abc import Sequence

from common import train
from tiny.autoregressive import TASK


def main(argv: Sequence[str] | None = None) -> None:
    train(TASK, argv)


if __name__ == "__main__":
    main()
