"""Measures a model on the data and by the protocol of one of the paper's tables.

The figures go to OUTPUT/results.json with all that is needed to cite them, the examples that the model did worst on to
OUTPUT/worst.html. An interrupted evaluation is continued by the same command; torchrun shares it among processes.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from perceiver_io.atomic import new_files
from perceiver_io.commands.evaluation_page import examples_page
from perceiver_io.commands.models import add_model_arguments, class_names, load_model
from perceiver_io.commands.tasks import add_tasks
from perceiver_io.evaluation.results import check_packages, identity_of, output_files, results_of, worst
from perceiver_io.evaluation.running import example_of, measured
from perceiver_io.evaluation.task import EvaluationTask
from perceiver_io.terminal import LONGEST_NAME, one_line
from perceiver_io.training import process_group, world

EXAMPLE = "perceiver-io evaluate imagenet --checkpoint imagenet-fourier --data IMAGENET"

TASKS = ("imagenet", "sintel", "kitti", "kinetics", "glue", "text")
# Of the examples on the page.
_SHOWN = 12


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the tasks, each with its options."""
    add_tasks(parser, "perceiver_io.evaluation", TASKS, add_task_arguments)


def add_task_arguments(parser: argparse.ArgumentParser, task: EvaluationTask) -> None:
    """Adds the options of one evaluation."""
    parser.set_defaults(task=task)
    task.add_arguments(parser)
    parser.add_argument("--data", type=Path, required=True, metavar="PATH", help=task.data)
    add_model_arguments(parser, task.checkpoint)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIRECTORY",
        help="for the results; an unfinished evaluation there is continued (default: a folder of outputs/evaluate)",
    )
    for option, default, text in (
        ("--batch-size", task.batch_size, "samples at a time"),
        ("--workers", 0, "processes that load samples"),
        ("--worst", _SHOWN, "examples on the page of the worst"),
    ):
        parser.add_argument(option, type=int, default=default, help=f"{text} (default: %(default)s)")
    parser.add_argument(
        "--skip-unreadable", action="store_true", help="leave out samples that cannot be read, and say how many"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures the model, and writes what was found.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
        KeyboardInterrupt: after an interruption, with the way to go on.
        SystemExit: with code 0, in all processes of several but the first, which alone has a result.
    """
    check_packages()
    for name in ("workers", "worst"):
        if getattr(arguments, name) < 0:
            raise ValueError(f"--{name} ({getattr(arguments, name)}) must be at least 0")
    with process_group(arguments.device) as device:
        result = _evaluate(arguments.task, arguments, device)
    if result is None:
        raise SystemExit(0)
    return result


def _evaluate(task: EvaluationTask, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any] | None:
    model = load_model(arguments.checkpoint, str(device), *task.models)
    name = "-".join(filter(None, [task.name, task.variant(arguments)]))
    output = arguments.output or Path("outputs/evaluate", name)
    protocol = task.prepare(arguments, model, class_names(arguments.checkpoint))
    identity = identity_of(protocol, name, arguments.checkpoint, device.type)
    begin = time.monotonic()
    found = measured(
        protocol,
        model,
        output,
        identity,
        batch_size=arguments.batch_size,
        num_workers=arguments.workers,
        skip_unreadable=arguments.skip_unreadable,
    )
    if world().rank > 0:
        return None
    result = results_of(
        protocol,
        found,
        identity,
        checkpoint=arguments.checkpoint,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        command=arguments.command_line,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        processes=world().size,
        seconds=round(time.monotonic() - begin, 1),
    )
    examples = [example_of(protocol, model, index) for index in worst(protocol, found, arguments.worst)]
    results, page = output_files(output)
    with new_files(output) as folder:
        (folder / results.name).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        (folder / page.name).write_text(examples_page(result, describe_figures(result), examples), encoding="utf-8")
    return {**result, "files": [str(results), str(page)]}


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    lines = [f"model: {one_line(result['checkpoint'], LONGEST_NAME)}", *describe_figures(result)]
    lines.append(f"{result['samples']:,} samples: {result['data']['description']}")
    unreadable = result["unreadable"]
    if unreadable["number"]:
        first = one_line(next(iter(unreadable["first"].values())))
        lines.append(f"left out, since they cannot be read: {unreadable['number']:,}; the first: {first}")
    return "\n".join([*lines, f"wrote {', '.join(result['files'])}"])


def describe_figures(result: dict[str, Any]) -> list[str]:
    """Maps the figures of a result to lines, with the paper's beside them."""
    lines = []
    for name, value in result["figures"].items():
        figure = "not finite" if value is None else f"{value:.4g} {result['units'].get(name, '')}".rstrip()
        published = ", ".join(f"{model} {number:g}" for model, number in result["published"].get(name, {}).items())
        lines.append(f"{name}: {figure}{f' (paper: {published})' if published else ''}")
    return lines
