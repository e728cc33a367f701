"""GLUE's protocol: the owners' files with their pitfalls, and figures that are known by construction."""

import argparse
import math
from pathlib import Path

import pytest
import torch
from sklearn.metrics import matthews_corrcoef
from torch import Tensor, nn

import perceiver_io
from perceiver_io.evaluation import glue
from perceiver_io.evaluation.glue import GlueProtocol
from perceiver_io.evaluation.running import example_of, measured
from perceiver_io.processors import BytesTokenizer
from perceiver_io.training.data.glue import GLUE_TASKS, GlueExample, encode_texts, find_glue_folder, read_glue
from perceiver_io.training.text_classification import glue_figures
from tests.small_models import SMALL

# Files as their owners lay them out: the first lines, and rows of (texts, label) put into the other columns.
HEADERS = {
    "CoLA": None,
    "SST-2": "sentence\tlabel",
    "MRPC": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String",
    "STS-B": "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
    "QQP": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate",
    "MNLI": "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
    "sentence2_parse\tsentence1\tsentence2\tlabel1\tlabel2\tlabel3\tlabel4\tlabel5\tgold_label",
    "QNLI": "index\tquestion\tsentence\tlabel",
    "RTE": "index\tsentence1\tsentence2\tlabel",
}


def write_glue(folder: Path, name: str, rows: list[tuple[list[str], str]], file: str = "dev.tsv") -> Path:
    task = GLUE_TASKS[name]
    header = HEADERS[name]
    columns = list(task.columns or []) if header is None else header.lstrip("\ufeff").split("\t")
    lines = [] if header is None else [header]
    for texts, label in rows:
        known = {**dict(zip(task.texts, texts, strict=True)), task.label: label}
        lines.append("\t".join(known.get(column, "x") for column in columns))
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / file).write_bytes(("\n".join(lines) + "\n").encode())
    return folder / name / file


PITFALLS = ['"An open quotation', 'said ""nothing"" to', "a \u2028 separator \x0b of lines", "it's 'ok'", ""]


@pytest.mark.parametrize("name", list(GLUE_TASKS))
def test_quotation_marks_and_odd_spaces_are_letters(name: str, tmp_path: Path) -> None:
    task = GLUE_TASKS[name]
    labels = task.classes or ("0.0", "5.000", "2.5")
    rows = [([text] * len(task.texts), labels[number % len(labels)]) for number, text in enumerate(PITFALLS)]
    examples = read_glue(write_glue(tmp_path, name, rows), task)
    assert [example.texts for example in examples] == [tuple(texts) for texts, _ in rows]
    numbers = [task.classes.index(label) if task.classes else float(label) for _, label in rows]
    assert [example.label for example in examples] == numbers


class Says(nn.Module):
    """Answers what the last letter of the texts says: a digit is the class that it is sure of, or the score."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        last = tokens.gather(1, mask.sum(1, keepdim=True) - 1) - BytesTokenizer.num_special_tokens - ord("0")
        return last.float() if self.outputs == 1 else 5 * nn.functional.one_hot(last[:, 0], self.outputs).float()


def protocol(name: str, folder: Path, names: list[str] | None = None, outputs: int | None = None) -> GlueProtocol:
    sizes = {**SMALL["language"], "vocab_size": 262, "max_seq_len": 40, "num_decoder_heads": 1}
    number = outputs or GLUE_TASKS[name].num_outputs
    model = perceiver_io.TextClassificationPerceiver(
        perceiver_io.TextClassificationConfig(**sizes, num_classes=number, head_channels=9)
    )
    return glue.prepare(argparse.Namespace(glue_task=name, data=folder, checkpoint="model"), model, names)


# Of each example the label and what the model says; by hand: 3 hits, 1 false alarm, 1 miss, 2 rejections.
LABELS, SAID = [1, 1, 1, 0, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0]
MATTHEWS = (3 * 2 - 1 * 1) / math.sqrt((3 + 1) * (3 + 1) * (2 + 1) * (2 + 1))
SCORES, SAID_SCORES = [0.5, 2.0, 4.0, 5.0], [1, 2, 4, 3]
MNLI, SAID_MNLI = [0, 1, 2, 1], [0, 1, 2, 0]
FIGURES = {
    "CoLA": {"matthews": MATTHEWS},
    "SST-2": {"accuracy": 5 / 7},
    "MRPC": {"accuracy": 5 / 7, "f1": 2 * 3 / (2 * 3 + 1 + 1)},
    # Pearson: deviations -2.375, -0.875, 1.125, 2.125 and -1.5, -0.5, 1.5, 0.5; Spearman: ranks 1 2 3 4 and 1 2 4 3.
    "STS-B": {"pearson": 6.75 / math.sqrt(12.1875 * 5), "spearman": 0.8},
    "QQP": {"accuracy": 5 / 7, "f1": 6 / 8},
    "MNLI": {"accuracy_matched": 3 / 4, "accuracy_mismatched": 1.0},
    "QNLI": {"accuracy": 5 / 7},
    "RTE": {"accuracy": 5 / 7},
}


def write_answers(folder: Path, name: str) -> None:
    """Examples whose texts end in what the model says."""
    task = GLUE_TASKS[name]
    labels, said = {"STS-B": (SCORES, SAID_SCORES), "MNLI": (MNLI, SAID_MNLI)}.get(name, (LABELS, SAID))
    texts = [["some text of any length"[: 5 + 2 * word], f"and {word}"][-len(task.texts) :] for word in said]
    names = [str(score) for score in labels] if not task.classes else [task.classes[int(label)] for label in labels]
    rows = list(zip(texts, names, strict=True))
    for number, (_, file) in enumerate(task.evaluated):
        write_glue(folder, name, rows[:3] if number else rows, file)


@pytest.mark.parametrize("name", list(GLUE_TASKS))
def test_official_figures_are_known(name: str, tmp_path: Path) -> None:
    write_answers(tmp_path, name)
    made = protocol(name, tmp_path)
    found = measured(made, Says(GLUE_TASKS[name].num_outputs), tmp_path / "out", {}, batch_size=3)
    expected = {figure: pytest.approx(100 * value, abs=1e-3) for figure, value in FIGURES[name].items()}
    mean = 100 * sum(FIGURES[name].values()) / len(FIGURES[name])
    assert made.figures(found.outcomes) == {**expected, "score": pytest.approx(mean, abs=1e-3)}


@pytest.mark.parametrize("said", [0.0, 1.0])
def test_answers_that_are_all_alike_have_no_correlation(said: float) -> None:
    # CoLA's development file: 721 of 1,043 are acceptable.
    labels = torch.tensor([1.0] * 721 + [0.0] * 322).double()
    figures = glue_figures(GLUE_TASKS["CoLA"], torch.full_like(labels, said), labels, torch.zeros(1043))
    assert figures == {"matthews": 0, "score": 0}
    assert figures["matthews"] == 100 * matthews_corrcoef(labels, torch.full_like(labels, said))
    scores = glue_figures(GLUE_TASKS["STS-B"], torch.full_like(labels, said), labels, torch.zeros(1043))
    assert scores == {"pearson": 0, "spearman": 0, "score": 0}


def test_outputs_of_a_model_are_found_by_their_names(tmp_path: Path) -> None:
    write_answers(tmp_path, "MNLI")
    model = Says(3)
    by_number = measured(protocol("MNLI", tmp_path), model, tmp_path / "a", {}, batch_size=3)
    # Its first output is the last class, and so on: what it says of 0 and 2 changes places.
    turned = protocol("MNLI", tmp_path, ["neutral", "entailment", "contradiction"])
    by_name = measured(turned, model, tmp_path / "b", {}, batch_size=3)
    assert torch.equal(by_name.outcomes[:, 2], 2 - by_number.outcomes[:, 2])
    example = example_of(turned, model, 0)
    assert example.title == "contradiction, taken for neutral"
    assert [caption for caption, _ in example.texts] == ["sentence1", "sentence2"]


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    def error(text: str, name: str = "SST-2") -> str:
        (tmp_path / "dev.tsv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError) as raised:
            read_glue(tmp_path / "dev.tsv", GLUE_TASKS[name])
        return str(raised.value)

    assert "has the columns text, label; SST-2 needs sentence, too" in error("text\tlabel\na\t1\n")
    assert "was written with quotation marks around its fields" in error('"sentence"\t"label"\n"a"\t"1"\n')
    assert "line 3 of " in error("sentence\tlabel\na\t1\nb\n")
    assert "has 1 columns in place of 2; mend it" in error("sentence\tlabel\na\t1\nb\n")
    quoted = error('sentence\tlabel\n"two\nlines"\t1\n')
    assert "line 2 of" in quoted
    assert "(a quotation mark is a letter there: the files have no quoting)" in quoted
    assert "line 2 of" in error('sentence\tlabel\na\t"1"\n')
    assert "has the label 'maybe', which is none of 0, 1" in error("sentence\tlabel\na\tmaybe\n")
    assert "has no examples" in error("sentence\tlabel\n")
    assert "line 1 of" in error("a\t1\t*\n", "CoLA")
    header = HEADERS["STS-B"] + "\n" + "x\t" * 9
    assert "has the score '5.1', which is no number from 0 to 5" in error(header + "5.1\n", "STS-B")
    assert "has the score 'nan'" in error(header + "nan\n", "STS-B")
    (tmp_path / "dev.tsv").write_bytes(b"sentence\tlabel\n\xff\t1\n")
    with pytest.raises(ValueError, match="is not a tsv file in UTF-8"):
        read_glue(tmp_path / "dev.tsv", GLUE_TASKS["SST-2"])
    # Some lines of the owners' own file of QQP are short.
    text = HEADERS["QQP"] + "\n1\t2\t3\n1\t2\t3\ta\tb\t0\n"
    (tmp_path / "dev.tsv").write_text(text)
    assert read_glue(tmp_path / "dev.tsv", GLUE_TASKS["QQP"]) == [GlueExample(("a", "b"), 0)]


def test_folders_and_models_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*RTE/dev\.tsv; give GLUE's folder, or the task's"):
        find_glue_folder(tmp_path, GLUE_TASKS["RTE"])
    write_answers(tmp_path, "RTE")
    assert find_glue_folder(tmp_path / "RTE", GLUE_TASKS["RTE"]) == tmp_path / "RTE"
    with pytest.raises(ValueError, match="model has 3 outputs and RTE needs 2; fine-tune a model with: per"):
        protocol("RTE", tmp_path, outputs=3)
    with pytest.raises(ValueError, match="knows the classes 0, 1, and RTE has entailment, not_entailment"):
        protocol("RTE", tmp_path, ["0", "1"])


@pytest.mark.parametrize(
    ("texts", "length", "expected"),
    [
        (["abc"], 9, "[CLS]abc"),
        (["abcdefghij"], 5, "[CLS]abcd"),
        (["abc", "de"], 9, "[CLS]abc[SEP]de"),
        (["abcdef", "gh"], 7, "[CLS]abc[SEP]gh"),
        (["ab", "cdefgh"], 7, "[CLS]ab[SEP]cde"),
        (["abcdef", "ghijkl"], 7, "[CLS]abc[SEP]gh"),
        (["", ""], 7, "[CLS][SEP]"),
    ],
)
def test_texts_are_joined_and_the_longer_one_is_cut(texts: list[str], length: int, expected: str) -> None:
    tokenizer = BytesTokenizer()
    assert "".join(map(tokenizer.describe, encode_texts(texts, length).tolist())) == expected
