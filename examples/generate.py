"""Continues a text with a Perceiver AR, token by token.

`perceiver-io generate` does the same, with music, several continuations and more options.
"""

from collections.abc import Sequence

import common

import perceiver_io
from perceiver_io.processors import ByteSequences


def main(argv: Sequence[str] | None = None) -> None:
    parser = common.options(__doc__, checkpoint="tiny-autoregressive")
    parser.add_argument("--prompt", default="The name of the", help="the text to continue (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.7, help="lower is likelier (default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the draws (default: another one each time)")
    arguments = parser.parse_args(argv)

    with common.results(arguments) as folder:
        model = perceiver_io.load_model(arguments.checkpoint).float().to(arguments.device)
        bytes_ = ByteSequences()
        run = model.generate(
            [bytes_.encode(arguments.prompt).tolist()],
            max_new_tokens=256,
            temperature=arguments.temperature,
            stop_tokens=[ByteSequences.end_token],
            seed=arguments.seed,
        )
        for tokens in run:  # as they come
            print(bytes_.decode(tokens.tolist()), end="", flush=True)
        print()
        (folder / "generate.txt").write_text(bytes_.decode(run.sequences[0]) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
