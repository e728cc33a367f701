"""Fine-tuning of a language model on a task of GLUE (paper, section 4.1)."""

import argparse
import dataclasses

from perceiver_io.models.language import TextConfig
from perceiver_io.models.text_classification import TextClassificationConfig
from perceiver_io.processors import BytesTokenizer
from perceiver_io.training.data.glue import GLUE_TASKS, GlueTexts, find_glue_folder, read_glue
from perceiver_io.training.recipes import GLUE_EPOCHS, GLUE_RECIPE
from perceiver_io.training.tasks.task import Material, Task
from perceiver_io.training.text_classification import GlueEvaluation, GlueObjective


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds which of GLUE's tasks is learned, and for how long."""
    parser.add_argument("glue_task", choices=list(GLUE_TASKS), metavar="TASK", help=f"one of {', '.join(GLUE_TASKS)}")
    parser.add_argument(
        "--epochs",
        type=float,
        default=GLUE_EPOCHS,
        help="passes over the data, unless --steps says (default: %(default)s)",
    )


def prepare(arguments: argparse.Namespace, config: TextConfig) -> Material:
    """Maps `--data` to the task's training file, and to its development files, which are evaluated on."""
    if config.vocab_size != BytesTokenizer.vocab_size:
        raise ValueError(
            f"{arguments.source} has a vocabulary of {config.vocab_size} tokens; text as bytes takes "
            f"{BytesTokenizer.vocab_size}"
        )
    task = GLUE_TASKS[arguments.glue_task]
    folder = find_glue_folder(arguments.data, task)
    learned = GlueTexts([read_glue(folder / "train.tsv", task)], config.max_seq_len)
    held_out = GlueTexts([read_glue(folder / file, task) for _, file in task.evaluated], config.max_seq_len)
    return Material(
        config=classifier_config(config, task.num_outputs),
        dataset=learned,
        objective=GlueObjective(task=task),
        evaluate=GlueEvaluation(task=task, dataset=held_out, num_workers=arguments.workers),
        description=f"{len(learned):,} examples of {folder}; {len(held_out):,} others are evaluated on",
        class_names=task.classes or None,
    )


def classifier_config(config: TextConfig, num_outputs: int) -> TextClassificationConfig:
    """Maps a text model's configuration to that of a classifier with the same encoder.

    A language model gets one query and a head of two layers with a tanh, both as wide as the latents; that a language
    model's decoder leaves the query's residual out stays so.
    """
    if isinstance(config, TextClassificationConfig):
        return dataclasses.replace(config, num_classes=num_outputs)
    values = {field.name: getattr(config, field.name) for field in dataclasses.fields(TextConfig)}
    return TextClassificationConfig(**values, num_classes=num_outputs, head_channels=config.num_latent_channels)


TASK = Task(
    name="glue",
    description="Fine-tunes a language model on a task of GLUE.",
    presets=[],
    config_class=TextConfig,
    fine_tuning_recipe=GLUE_RECIPE,
    data="GLUE's folder, or the task's, with the owners' tsv files",
    prepare=prepare,
    add_arguments=add_arguments,
)
