"""Continues a text, music or any sequence of tokens, with a Perceiver AR.

The same as `perceiver-io generate`.
"""

from collections.abc import Sequence

import common


def main(argv: Sequence[str] | None = None) -> None:
    common.run("generate", argv)


if __name__ == "__main__":
    main()
