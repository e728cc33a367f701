"""Trains a model: by the paper's recipe, or further from a trained one.

The model goes to OUTPUT/model. The run itself is kept in OUTPUT/run, from which the same command goes on if it is
interrupted.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

import perceiver_io
from perceiver_io.atomic import check_replaceable, new_directory
from perceiver_io.autoregressive import PerceiverAR
from perceiver_io.commands.tasks import add_tasks
from perceiver_io.commands.train_options import DEFAULT_CARD, add_task_arguments, micro_batch_size, recipe_of
from perceiver_io.optional import needs_extra
from perceiver_io.perceiver import PerceiverIO
from perceiver_io.presets import model_from_config
from perceiver_io.training import (
    METRICS_FILE,
    Recipe,
    Trainer,
    TrainerConfig,
    process_group,
    read_metrics,
    world,
)
from perceiver_io.training.cards import CARDS, Card, card_of
from perceiver_io.training.fine_tuning import adapted, freeze_encoder
from perceiver_io.training.plan import describe_plan, plan_run
from perceiver_io.training.tasks import Material, Task
from perceiver_io.training.wandb_log import WandbLog
from perceiver_io.visualize import draw_loss_curve
from perceiver_io.weights.locations import find_model
from perceiver_io.weights.saving import MODEL_FILES, save_checkpoint

EXAMPLE = "perceiver-io train image_classification --from imagenet-conv --data MY_PICTURES --freeze-encoder"

TASKS = ("language", "glue", "image_classification", "optical_flow", "video_autoencoding", "autoregressive")
NOTES_FILE, CURVE_FILE = "training.json", "loss.png"

# Reading data that takes longer than this is told of, in seconds.
_LONG = 2.0


class TaskCommand:
    """A command that trains for one task, as `examples/train_*.py` are.

    Args:
        task: to train for.
    """

    EXAMPLE = EXAMPLE

    def __init__(self, task: Task) -> None:
        self.task = task
        self.__doc__ = task.description

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds the command's options."""
        add_task_arguments(parser, self.task)

    def run(self, arguments: argparse.Namespace) -> dict[str, Any]:
        """Trains, as `run` does."""
        return run(arguments)

    def describe(self, result: dict[str, Any]) -> str:
        """Maps what `run` returned to what a person reads."""
        return describe(result)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the tasks, each with its options."""
    add_tasks(parser, "perceiver_io.training.tasks", TASKS, add_task_arguments)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Maps parsed arguments to what the trained model does on data that are held out, and where it is.

    Raises:
        ValueError, OSError, ImportError: what the user can mend.
        KeyboardInterrupt: after a signal that ends the run, with the way to go on.
        SystemExit: with code 0, in all processes of several but the first, which alone has a result.
    """
    with needs_extra("the loss curve", "train"):
        import matplotlib  # noqa: F401  # now rather than when the model is trained
    with _warnings_on_one_line():
        try:
            with process_group(arguments.device) as device:
                do = _plan if arguments.plan else _train
                result = do(arguments.task, arguments, device)
        except FloatingPointError as error:
            raise ValueError(error) from error
    if result is None:
        raise SystemExit(0)
    return result


def describe(result: dict[str, Any]) -> str:
    """Maps what `run` returned to what a person reads."""
    if "plan" in result:
        return str(result["table"])
    figures = [f"{name}: {value:.4g}" for name, value in result["results"].items()]
    return "\n".join([*figures, f"wrote {result['model']}"])


def _train(task: Task, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any] | None:
    directory = arguments.output / "model"
    _check_start(arguments)
    _check_places(arguments, directory)
    model, material = _ready(task, arguments)
    recipe = recipe_of(task, arguments, len(material.dataset))
    shown = {"command": arguments.command_line, "data": material.description, **_recorded(recipe)}
    mirror = WandbLog(arguments.wandb, str(arguments.output), shown) if arguments.wandb else None
    trainer = Trainer(
        model,
        material.objective,
        material.dataset,
        TrainerConfig(
            num_steps=recipe.num_steps,
            batch_size=micro_batch_size(recipe.batch_size, arguments.accumulation),
            accumulation=arguments.accumulation,
            precision=arguments.precision,
            seed=arguments.seed,
            num_workers=arguments.workers,
            device=device,
            strategy=arguments.strategy,
            log_every=arguments.log_every,
            evaluate_every=arguments.evaluate_every,
            checkpoint_every=arguments.checkpoint_every,
            average_decay=arguments.average,
            compiled=arguments.compile,
            peak_flops=card.flops(arguments.precision) if (card := _known_card(arguments, device)) else None,
        ),
        arguments.output / "run",
        make_optimizer=recipe.make_optimizer,
        schedule=recipe.schedule(),
        evaluate=material.evaluate,
        mirror=mirror,
    )
    with mirror or nullcontext():
        results = trainer.fit()
        for dataset in material.skipping:
            dataset.warn_of_unusable()
        state = trainer.full_state_dict()
        if world().rank > 0:
            return None
        _write_model(directory, state, material, arguments, recipe, results, device)
    return {"model": str(directory), "results": results, "data": material.description}


def _recorded(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON can say it."""
    return {name: str(value) if value == math.inf else value for name, value in dataclasses.asdict(recipe).items()}


def _write_model(
    directory: Path,
    state: dict[str, Any],
    material: Material,
    arguments: argparse.Namespace,
    recipe: Recipe,
    results: dict[str, float],
    device: torch.device,
) -> None:
    """Writes a trained model with the notes about it."""
    records = read_metrics(arguments.output / "run" / METRICS_FILE)
    notes = {
        "command": arguments.command_line,
        "seed": arguments.seed,
        "data": material.description,
        "results": results,
        "minutes": round(records[-1]["seconds"] / 60, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "recipe": _recorded(recipe),
        "average": arguments.average,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "perceiver_io": perceiver_io.__version__,
        },
    }
    metadata = {} if material.class_names is None else {"class_names": list(material.class_names)}
    with new_directory(directory, replaceable={*MODEL_FILES, NOTES_FILE, CURVE_FILE}) as temporary:
        save_checkpoint(material.config, state, temporary, metadata=metadata)
        (temporary / NOTES_FILE).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
        draw_loss_curve(records).savefig(temporary / CURVE_FILE)


def _plan(task: Task, arguments: argparse.Namespace, device: torch.device) -> dict[str, Any] | None:
    """What a run needs, as `--plan` asks for in place of the run."""
    _check_start(arguments)
    model, material = _ready(task, arguments)
    if world().rank > 0:
        return None
    card = _known_card(arguments, device)
    here = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    if card is None and here:
        raise ValueError(f"what {here} can do is not known; name a card like it with --card: {', '.join(CARDS)}")
    name = arguments.card or here or DEFAULT_CARD
    recipe = recipe_of(task, arguments, len(material.dataset))
    num_cards = world().size if arguments.cards is None else arguments.cards
    with _notice_if_long("planning …"):
        plan = plan_run(
            model.to(device),
            material.objective,
            material.dataset,
            recipe,
            card or CARDS[DEFAULT_CARD],
            num_cards=num_cards,
            precision=arguments.precision,
            strategy=arguments.strategy,
            averaged=arguments.average is not None,
            utilisation=arguments.utilisation,
        )
    about = {
        "card": name,
        "num_cards": num_cards,
        "precision": arguments.precision,
        "utilisation": arguments.utilisation,
    }
    return {"plan": plan._asdict(), **about, "table": describe_plan(plan, recipe, **about)}


def _known_card(arguments: argparse.Namespace, device: torch.device) -> Card | None:
    """The card that is named, or the one that is here, if it is known."""
    if arguments.card is not None:
        return CARDS[arguments.card]
    return card_of(torch.cuda.get_device_name(device)) if device.type == "cuda" else None


def _ready(task: Task, arguments: argparse.Namespace) -> tuple[PerceiverIO | PerceiverAR, Material]:
    """The model and what it learns from, as the options say."""
    torch.manual_seed(arguments.seed)
    data = " ".join(arguments.data) if isinstance(arguments.data, list) else arguments.data
    with _notice_if_long(f"reading {data or 'what is learned from'} …"):
        model, material = _model_and_material(task, arguments)
    checkpointed = model if isinstance(model, PerceiverAR) else model.encoder
    checkpointed.gradient_checkpointing = arguments.gradient_checkpointing
    if arguments.freeze_encoder:
        if isinstance(model, PerceiverAR):
            raise ValueError("--freeze-encoder has no encoder to freeze in a PerceiverAR; leave it out")
        freeze_encoder(model)
    return model, material


def _check_places(arguments: argparse.Namespace, directory: Path) -> None:
    """Checks that no result takes the place of what it is made from, now or in the next run."""
    check_replaceable(directory, {*MODEL_FILES, NOTES_FILE, CURVE_FILE})
    if arguments.source is not None and find_model(arguments.source).resolve() == directory.resolve():
        raise ValueError(
            f"--output {arguments.output} would replace --from {arguments.source}; choose another --output"
        )


def _check_start(arguments: argparse.Namespace) -> None:
    """Checks that the options say with what to start, and what to learn from."""
    if arguments.preset and (arguments.tiny or arguments.source):
        other = f"--from {arguments.source}" if arguments.source else "--tiny"
        raise ValueError(f"--preset {arguments.preset} and {other} start with different models; give one of them")
    if not (arguments.preset or arguments.tiny or arguments.source):
        ways = {"--preset": arguments.task.presets, "--tiny": arguments.task.tiny, "--from": True}
        raise ValueError(f"say what to start with: {' or '.join(way for way, is_there in ways.items() if is_there)}")
    if arguments.data is None and not arguments.tiny:
        raise ValueError("only --tiny has data of its own; name what to learn from with --data PATH")


def _model_and_material(task: Task, arguments: argparse.Namespace) -> tuple[PerceiverIO | PerceiverAR, Material]:
    tiny = task.tiny if arguments.tiny else None
    prepare = tiny.prepare if tiny else task.prepare
    if arguments.source is None:
        material = prepare(arguments, tiny.config if tiny else perceiver_io.create_config(arguments.preset))
        model = model_from_config(material.config)
        if material.initialise is not None:
            material.initialise(model)
        return model, material
    model = perceiver_io.load_model(arguments.source).float()
    config: Any = model.config
    if not isinstance(config, (task.config_class, *task.other_config_classes)):
        raise ValueError(
            f"{arguments.source} holds a {type(model).__name__}; {task.name} trains models with a "
            f"{task.config_class.__name__}"
        )
    material = prepare(arguments, config)
    if config != material.config:
        model = adapted(model, material.config)
    if model.config != material.config:
        raise ValueError(f"the data need {material.config}, which differs from the {config} of {arguments.source}")
    return model, material


@contextmanager
def _notice_if_long(text: str) -> Iterator[None]:
    """Says on stderr what the block does, if it takes long: an error that comes at once stays the only line."""
    notice = threading.Timer(_LONG, lambda: print(text, file=sys.stderr, flush=True))
    notice.daemon = True
    if os.environ.get("RANK", "0") == "0":
        notice.start()
    try:
        yield
    finally:
        notice.cancel()


@contextmanager
def _warnings_on_one_line() -> Iterator[None]:
    """Prints warnings within the block without the place in the code, which is of no use to whoever runs a command."""
    usual = warnings.formatwarning
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    try:
        yield
    finally:
        warnings.formatwarning = usual
