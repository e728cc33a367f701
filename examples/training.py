"""What the training scripts share: their options, the model, the run, and what it leaves."""

import argparse
import dataclasses
import json
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import perceiver_io
from perceiver_io import ImageClassificationPerceiver, PerceiverIO
from perceiver_io.atomic import check_replaceable, new_directory
from perceiver_io.commands.cli import reported_errors
from perceiver_io.models.config import ModelConfig
from perceiver_io.presets import model_from_config
from perceiver_io.training import (
    METRICS_FILE,
    PAPER_RECIPES,
    Dataset,
    Evaluation,
    Objective,
    Recipe,
    Trainer,
    TrainerConfig,
    process_group,
    read_metrics,
    world,
)
from perceiver_io.training.data.skipping import SkipUnusable
from perceiver_io.training.fine_tuning import freeze_encoder, replace_head
from perceiver_io.visualize import draw_loss_curve
from perceiver_io.weights.saving import MODEL_FILES, save_checkpoint

NOTES_FILE, CURVE_FILE = "training.json", "loss.png"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Material:
    """What a run learns from and how.

    Args:
        config: of the model that suits the data, for instance with its number of classes.
        dataset: to learn from.
        objective: see `Trainer`.
        evaluate: see `Trainer`; on data that are not learned from.
        description: of the data, for the notes that stay with the model.
        class_names: in the order of the logits, for the notes; None for a model without classes.
        skipping: data sets that leave examples out, which is told of at the end.
        initialise: changes a new model before it is trained; None leaves it as the reference starts.
    """

    config: ModelConfig
    dataset: Dataset
    objective: Objective
    evaluate: Evaluation
    description: str
    class_names: Sequence[str] | None = None
    skipping: Sequence[SkipUnusable] = ()
    initialise: Callable[[Any], None] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What makes a training script.

    Args:
        name: of its directory under outputs/train.
        description: what --help says.
        presets: released models that it trains, with the paper's recipes.
        tiny_config: a model for --tiny.
        tiny_recipe: for --tiny.
        fine_tuning_recipe: for --from.
        add_arguments: adds options of its own to the parser, --data among them.
        prepare: maps the arguments and the model's configuration to what it learns from.
    """

    name: str
    description: str
    presets: Sequence[str]
    tiny_config: ModelConfig
    tiny_recipe: Recipe
    fine_tuning_recipe: Recipe
    add_arguments: Callable[[argparse.ArgumentParser], None]
    prepare: Callable[[argparse.Namespace, ModelConfig], Material]


def main(task: Task, argv: Sequence[str] | None = None) -> None:
    """Trains as the command line says and leaves the model in OUTPUT/model.

    Raises:
        SystemExit: after an error that a user can mend (code 2) or an interruption (130).
    """
    words = sys.argv[1:] if argv is None else list(argv)
    arguments = _parser(task).parse_args(words)
    command = shlex.join(["python", f"examples/{Path(sys.argv[0]).name}", *words])
    with reported_errors():
        try:
            with process_group(arguments.device) as device:
                _train(task, arguments, device, command)
        except FloatingPointError as error:
            raise ValueError(error) from error


def _parser(task: Task) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=task.description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    start = parser.add_mutually_exclusive_group(required=True)
    start.add_argument("--preset", choices=task.presets, help="a model of the released size, by the paper's recipe")
    start.add_argument("--tiny", action="store_true", help="a model that two cores train in minutes")
    start.add_argument("--from", dest="source", metavar="MODEL", help="fine-tune: a directory with a model, or a name")
    parser.add_argument("--freeze-encoder", action="store_true", help="train only what comes after the latents")
    task.add_arguments(parser)
    output = Path("outputs/train") / task.name
    parser.add_argument(
        "--output", type=Path, default=output, metavar="DIRECTORY", help="for the model; an unfinished run is resumed"
    )
    recipe = parser.add_argument_group("recipe (defaults depend on --preset, --tiny or --from)")
    for name, kind, text in (
        ("--steps", int, "updates of the weights"),
        ("--batch-size", int, "examples of an update, over all processes and micro-batches"),
        ("--learning-rate", float, "the highest"),
        ("--weight-decay", float, "of all parameters but biases and norms"),
    ):
        recipe.add_argument(name, type=kind, default=argparse.SUPPRESS, help=text)
    recipe.add_argument(
        "--optimizer", choices=["lamb", "adamw", "muon"], default=argparse.SUPPRESS, help="how to update"
    )
    recipe.add_argument("--seed", type=int, default=0, help="of everything random")
    machine = parser.add_argument_group("machine")
    default_device = "cuda" if torch.cuda.is_available() else "cpu"
    machine.add_argument("--device", default=default_device, help="where to train")
    machine.add_argument(
        "--precision", choices=["float32", "bfloat16", "float16"], default="float32", help="of the products"
    )
    machine.add_argument("--accumulation", type=int, default=1, help="micro-batches of an update, to save memory")
    machine.add_argument("--gradient-checkpointing", action="store_true", help="recompute layers, to save memory")
    machine.add_argument("--workers", type=int, default=0, help="processes that load data")
    machine.add_argument(
        "--strategy", choices=["ddp", "fsdp"], default="ddp", help="of several processes that torchrun starts"
    )
    machine.add_argument("--log-every", type=int, default=10, help="updates between two lines of figures")
    machine.add_argument("--evaluate-every", type=int, default=1000, help="updates between two evaluations")
    machine.add_argument("--checkpoint-every", type=int, default=500, help="updates between two saved states")
    return parser


def _train(task: Task, arguments: argparse.Namespace, device: torch.device, command: str) -> None:
    directory = arguments.output / "model"
    check_replaceable(directory, {*MODEL_FILES, NOTES_FILE, CURVE_FILE})
    torch.manual_seed(arguments.seed)
    model, material = _model_and_material(task, arguments)
    model.encoder.gradient_checkpointing = arguments.gradient_checkpointing
    if arguments.freeze_encoder:
        freeze_encoder(model)
    recipe = _recipe(task, arguments)
    trainer = Trainer(
        model,
        material.objective,
        material.dataset,
        TrainerConfig(
            num_steps=recipe.num_steps,
            batch_size=_micro_batch_size(recipe.batch_size, arguments.accumulation),
            accumulation=arguments.accumulation,
            precision=arguments.precision,
            seed=arguments.seed,
            num_workers=arguments.workers,
            device=device,
            strategy=arguments.strategy,
            log_every=arguments.log_every,
            evaluate_every=arguments.evaluate_every,
            checkpoint_every=arguments.checkpoint_every,
        ),
        arguments.output / "run",
        make_optimizer=recipe.make_optimizer,
        schedule=recipe.schedule(),
        evaluate=material.evaluate,
    )
    results = trainer.fit()
    for dataset in material.skipping:
        dataset.warn_of_unusable()
    state = trainer.full_state_dict()
    if world().rank > 0:
        return
    for name, value in results.items():
        print(f"{name}: {value:.4g}")
    records = read_metrics(arguments.output / "run" / METRICS_FILE)
    notes = {
        "command": command,
        "seed": arguments.seed,
        "data": material.description,
        "results": results,
        "minutes": round(records[-1]["seconds"] / 60, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "recipe": dataclasses.asdict(recipe),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "perceiver_io": perceiver_io.__version__,
        },
    }
    if material.class_names is not None:
        notes["class_names"] = list(material.class_names)
    with new_directory(directory, replaceable={*MODEL_FILES, NOTES_FILE, CURVE_FILE}) as temporary:
        save_checkpoint(model.config, state, temporary)
        (temporary / NOTES_FILE).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
        draw_loss_curve(records).savefig(temporary / CURVE_FILE)
    print(f"wrote {directory}")


def _model_and_material(task: Task, arguments: argparse.Namespace) -> tuple[PerceiverIO, Material]:
    if arguments.source is None:
        config = perceiver_io.create_config(arguments.preset) if arguments.preset else task.tiny_config
        material = task.prepare(arguments, config)
        model = model_from_config(material.config)
        if material.initialise is not None:
            material.initialise(model)
        return model, material
    model = perceiver_io.load_model(arguments.source).float()
    if not isinstance(model.config, type(task.tiny_config)):
        raise ValueError(
            f"{arguments.source} holds a {type(model).__name__}; "
            f"this script trains models with a {type(task.tiny_config).__name__}"
        )
    material = task.prepare(arguments, model.config)
    if isinstance(model, ImageClassificationPerceiver) and model.config.num_classes != material.config.num_classes:
        replace_head(model, material.config.num_classes)
    if model.config != material.config:
        raise ValueError(
            f"the data need {material.config}, which differs from the {model.config} of {arguments.source}"
        )
    return model, material


def _recipe(task: Task, arguments: argparse.Namespace) -> Recipe:
    if arguments.source is not None:
        recipe = task.fine_tuning_recipe
    else:
        recipe = PAPER_RECIPES[arguments.preset] if arguments.preset else task.tiny_recipe
    given: dict[str, Any] = {name: value for name, value in vars(arguments).items() if value is not None}
    fields = ("batch_size", "learning_rate", "weight_decay", "optimizer")
    recipe = dataclasses.replace(recipe, **{name: given[name] for name in fields if name in given})
    return recipe.with_steps(given["steps"]) if "steps" in given else recipe


def _micro_batch_size(batch_size: int, accumulation: int) -> int:
    parts = max(accumulation, 1) * world().size
    if batch_size % parts:
        raise ValueError(
            f"--batch-size {batch_size} must be a multiple of --accumulation times the processes ({parts}); change one"
        )
    return batch_size // parts
