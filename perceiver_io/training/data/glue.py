"""GLUE as its owners ship it: a folder of tsv files for each task."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from perceiver_io.media.border import reading
from perceiver_io.processors import BytesTokenizer
from perceiver_io.training.sampling import Draw
from perceiver_io.training.trainer import Batch

# STS-B's scores.
_LOWEST, _HIGHEST = 0.0, 5.0


@dataclass(frozen=True, kw_only=True)
class GlueTask:
    """A task of GLUE and how its files are laid out.

    Args:
        name: of the task and its folder.
        texts: columns of the one or two texts.
        label: column of the label.
        classes: the labels, in the order of their numbers; none for scores.
        columns: of a file without a first line that names them; else they are read from it.
        evaluated: files that are evaluated on, by the names of groups with figures of their own.
        short_lines: whether lines with too few columns are left out, as the owners' file has some.
    """

    name: str
    texts: tuple[str, ...]
    label: str
    classes: tuple[str, ...] = ("0", "1")
    columns: tuple[str, ...] | None = None
    evaluated: tuple[tuple[str, str], ...] = (("", "dev.tsv"),)
    short_lines: bool = False

    @property
    def num_outputs(self) -> int:
        """Outputs of a model for the task: one for each class, or one for a score."""
        return len(self.classes) or 1


_ENTAILMENT = ("entailment", "not_entailment")
GLUE_TASKS = {
    task.name: task
    for task in (
        GlueTask(name="CoLA", texts=("sentence",), label="label", columns=("source", "label", "mark", "sentence")),
        GlueTask(name="SST-2", texts=("sentence",), label="label"),
        GlueTask(name="MRPC", texts=("#1 String", "#2 String"), label="Quality"),
        GlueTask(name="STS-B", texts=("sentence1", "sentence2"), label="score", classes=()),
        GlueTask(name="QQP", texts=("question1", "question2"), label="is_duplicate", short_lines=True),
        GlueTask(
            name="MNLI",
            texts=("sentence1", "sentence2"),
            label="gold_label",
            classes=("contradiction", "entailment", "neutral"),
            evaluated=(("matched", "dev_matched.tsv"), ("mismatched", "dev_mismatched.tsv")),
        ),
        GlueTask(name="QNLI", texts=("question", "sentence"), label="label", classes=_ENTAILMENT),
        GlueTask(name="RTE", texts=("sentence1", "sentence2"), label="label", classes=_ENTAILMENT),
    )
}


class GlueExample(NamedTuple):
    """One or two texts, and the number of their class or their score."""

    texts: tuple[str, ...]
    label: float


def find_glue_folder(directory: str | Path, task: GlueTask) -> Path:
    """Maps GLUE's folder, or that of a task, to the task's.

    Raises:
        FileNotFoundError: if it is not there.
    """
    directory = Path(directory)
    for folder in (directory / task.name, directory):
        if (folder / task.evaluated[0][1]).is_file():
            return folder
    raise FileNotFoundError(
        f"there is no {directory / task.name / task.evaluated[0][1]}; give GLUE's folder, or the task's"
    )


def read_glue(path: str | Path, task: GlueTask) -> list[GlueExample]:
    """Reads the examples of one of a task's tsv files.

    The files have no quoting: a quotation mark is a letter, alone or not, and only tabs and line feeds separate. Other
    ends of lines, which Unicode has, are parts of sentences.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a file without the task's columns or examples, or one that was written with quoting; a line with
            another number of columns, or a label that the task does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; give GLUE's folder as its owners ship it")
    with reading(path, "a tsv file in UTF-8"):
        text = path.read_bytes().decode("utf-8-sig")
    lines = [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]
    first = 1
    columns: Sequence[str] | None = task.columns
    if columns is None:
        columns, first = lines[0], 2
        if any(len(name) > 1 and name[0] == name[-1] == '"' for name in columns):
            raise ValueError(f"{path} was written with quotation marks around its fields; GLUE's files have none")
    wanted = (*task.texts, task.label)
    if missing := [name for name in wanted if name not in columns]:
        raise ValueError(
            f"{path} has the columns {', '.join(columns)[:200]}; {task.name} needs {', '.join(missing)}, too"
        )
    places = [list(columns).index(name) for name in wanted]
    examples = []
    for number, line in enumerate(lines[first - 1 :], start=first):
        if len(line) < len(columns) and task.short_lines:
            continue
        if len(line) != len(columns):
            quoted = (
                " (a quotation mark is a letter there: the files have no quoting)" if '"' in "\t".join(line) else ""
            )
            raise ValueError(
                f"line {number} of {path} has {len(line)} columns in place of {len(columns)}{quoted}; mend it"
            )
        *texts, label = (line[place] for place in places)
        examples.append(GlueExample(tuple(texts), _label(label, task, f"line {number} of {path}")))
    if not examples:
        raise ValueError(f"{path} has no examples")
    return examples


def _label(text: str, task: GlueTask, place: str) -> float:
    if task.classes:
        if text not in task.classes:
            raise ValueError(f"{place} has the label {text[:100]!r}, which is none of {', '.join(task.classes)}")
        return float(task.classes.index(text))
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not _LOWEST <= score <= _HIGHEST:
        raise ValueError(f"{place} has the score {text[:100]!r}, which is no number from {_LOWEST:g} to {_HIGHEST:g}")
    return score


def encode_texts(texts: Sequence[str], max_length: int) -> Int64[Tensor, " length"]:
    """Maps one or two texts to token ids: CLS, the bytes of the first, and, of two, SEP and those of the second.

    What is too long loses bytes at the end of the longer text. The paper does not say how it joins two texts.
    """
    tokenizer = BytesTokenizer()
    room = max_length - len(texts)
    first, *second = (tokenizer.encode(text) for text in texts)
    kept = min(len(first), max(room - sum(map(len, second)), (room + 1) // 2 if second else 0))
    joined = [torch.tensor([tokenizer.cls_token]), first[:kept]]
    for part in second:
        joined += [torch.tensor([tokenizer.sep_token]), part[: room - kept]]
    return torch.cat(joined)


class GlueTexts:
    """Maps draws to "tokens" and "mask" [length], as long as the longest example, "label" and "group".

    Args:
        groups: examples, group by group.
        max_length: tokens that the model reads at most.
    """

    def __init__(self, groups: Sequence[Sequence[GlueExample]], max_length: int) -> None:
        self.examples = [example for group in groups for example in group]
        self.groups = [number for number, group in enumerate(groups) for _ in group]
        lengths = (sum(len(text.encode()) for text in one.texts) + len(one.texts) for one in self.examples)
        self.length = min(max(lengths, default=1), max_length)

    def fingerprint(self) -> str:
        """Tells these examples from others: by a digest of them."""
        digest = hashlib.sha256()
        for example, group in zip(self.examples, self.groups, strict=True):
            digest.update(repr((example, group)).encode())
        return f"{digest.hexdigest()} {self.length}"

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, draw: Draw) -> Batch:
        example = self.examples[draw.index]
        tokens, mask = BytesTokenizer().pad(encode_texts(example.texts, self.length), self.length)
        return {
            "tokens": tokens[0],
            "mask": mask[0],
            "label": torch.tensor(example.label),
            "group": torch.tensor(self.groups[draw.index]),
        }
