"""Trains a model that fills in the hidden words of a text, byte by byte.

As `perceiver-io train language`, and with `--tiny` a small model with toy data.
"""

from collections.abc import Sequence

from common import train
from tiny.language import TASK


def main(argv: Sequence[str] | None = None) -> None:
    train(TASK, argv)


if __name__ == "__main__":
    main()
