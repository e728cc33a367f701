"""A task of evaluation: its options, its data and its protocol, for the command that runs it."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from perceiver_io.evaluation.protocol import Protocol

# Maps the command's arguments, the model and the class names that come with it, if any, to the protocol.
Prepare = Callable[[argparse.Namespace, Any, Sequence[str] | None], Protocol]


@dataclass(frozen=True, kw_only=True)
class EvaluationTask:
    """A task as `perceiver-io evaluate` runs it.

    Args:
        name: on the command line.
        description: its help, the first line alone in the list of tasks.
        checkpoint: the released model that is evaluated where none is named; None requires a name.
        models: classes of models that it evaluates.
        data: the help of `--data`.
        prepare: see `Prepare`.
        batch_size: samples at a time, unless another is asked for.
        add_arguments: adds options of its own to the parser.
        variant: maps the command's arguments to the name of one of several evaluations; "" where there is but one.
    """

    name: str
    description: str
    checkpoint: str | None
    models: tuple[type[nn.Module], ...]
    data: str
    prepare: Prepare
    batch_size: int
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    variant: Callable[[argparse.Namespace], str] = lambda arguments: ""
