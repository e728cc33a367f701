"""Trains a model that finds how every pixel moves from one frame to the next.

As `perceiver-io train optical_flow`, and with `--tiny` a small model with toy data.
"""

from collections.abc import Sequence

from common import train
from tiny.optical_flow import TASK


def main(argv: Sequence[str] | None = None) -> None:
    train(TASK, argv)


if __name__ == "__main__":
    main()
