"""Fine-tunes a language model on a task of GLUE twelve times, as the paper does, and names the best.

    python examples/glue_grid.py CoLA --from language --data GLUE

Batches are of 16, 32 and 64 examples, rates 1e-4, 5e-5, 2e-5 and 1e-5; the best has the highest score on the
development files. Further options go to `perceiver-io train glue`. Runs that are done are not repeated, so that the
same command goes on with a grid that was interrupted.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

from perceiver_io.commands import cli
from perceiver_io.training.recipes import GLUE_BATCH_SIZES, GLUE_LEARNING_RATES


def main(argv: list[str] | None = None) -> int:
    """Runs the grid; returns the exit code of the first run that fails, or 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="of GLUE")
    parser.add_argument("--output", type=Path, default=Path("outputs/glue_grid"), help="for the runs")
    arguments, options = parser.parse_known_args(argv)
    scores: dict[Path, float] = {}
    for size, rate in itertools.product(GLUE_BATCH_SIZES, GLUE_LEARNING_RATES):
        output = arguments.output / arguments.task / f"{size}-{rate:g}"
        notes = output / "model" / "training.json"
        if not notes.is_file():
            recipe = ["--batch-size", str(size), "--learning-rate", str(rate), "--output", str(output)]
            if code := cli.main(["train", "glue", arguments.task, *options, *recipe]):
                return code
        scores[output / "model"] = json.loads(notes.read_text(encoding="utf-8"))["results"]["score"]
    for model, score in sorted(scores.items(), key=lambda item: -item[1]):
        print(f"{score:6.2f}  {model}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
