"""Texts with shares, as `--data` names them."""

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import datasets
import pytest

import perceiver_io
from perceiver_io import LanguageConfig
from perceiver_io.commands.cli import main
from perceiver_io.training import mixtures
from perceiver_io.training.data.corpora import Corpus, describe_corpora, read_corpora
from perceiver_io.training.tasks import language
from tests.small_models import SMALL


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of texts, in which the tests run."""
    for name, text in {"c4/web.txt": "a page of the web " * 90, "wikipedia/en.txt": "an article " * 150}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["c4"], [("c4", 1.0)]),
        (["c4:1"], [("c4", 1.0)]),
        (["c4:0.7", "wikipedia:0.3"], [("c4", 0.7), ("wikipedia", 0.3)]),
        (["web=c4:0.7", "wikipedia/en.txt:3e-1"], [("web", 0.7), ("en.txt", 0.3)]),
        (["one=c4:.5", "two=c4:.5"], [("one", 0.5), ("two", 0.5)]),
        (["./c4/"], [("c4", 1.0)]),
    ],
)
def test_names_and_shares(sources: list[str], expected: list[tuple[str, float]], folders: Path) -> None:
    assert [(corpus.name, corpus.share) for corpus in read_corpora(sources)] == expected


def test_the_last_part_of_each_is_held_out(folders: Path) -> None:
    for corpus in read_corpora(["c4:0.7", "wikipedia:0.3"]):
        learned, held_out = (sum(map(len, part)) for part in (corpus.learned, corpus.held_out))
        assert held_out == pytest.approx(0.05 * (learned + held_out), abs=1)


def test_a_file_that_is_called_like_a_share_is_a_file(folders: Path) -> None:
    (folders / "a=b:0.5").mkdir()
    (folders / "a=b:0.5" / "text.txt").write_text("something to read")
    (corpus,) = read_corpora(["a=b:0.5"])
    assert (corpus.name, corpus.share) == ("a=b:0.5", 1.0)


def test_a_corpus_at_hand_beside_files(folders: Path) -> None:
    at_hand = {"own": lambda: Corpus(name="own", learned=[b"one", b"two"], held_out=[b"three"], note="one is left")}
    own, files = read_corpora(["own:0.7", "c4:0.3"], at_hand=at_hand)
    assert (own.name, own.share, own.learned, own.held_out) == ("own", 0.7, [b"one", b"two"], [b"three"])
    assert files.name == "c4"
    sources = ["own:0.7", "c4:0.3"]
    assert (
        describe_corpora(sources, [own, files])
        == "own:0.7 c4:0.3; own: one is left; c4: the last twentieth is held out"
    )
    assert describe_corpora(["own"], [own]) == "own; one is left"
    assert describe_corpora(["c4"], [files]) == "c4; the last twentieth is held out"
    assert [corpus.name for corpus in read_corpora(["first=own:0.5", "own:0.5"], at_hand=at_hand)] == ["first", "own"]
    (folders / "own").mkdir()
    (folders / "own" / "text.txt").write_text("a folder of the same name")
    (corpus,) = read_corpora(["own"], at_hand=at_hand)
    assert bytes(corpus.learned[0]).startswith(b"a folder")


def test_a_data_set_of_hugging_face_beside_files(folders: Path) -> None:
    datasets.Dataset.from_dict({"text": ["one text of many"] * 9}).save_to_disk(folders / "saved")
    corpora = read_corpora(["c4:0.7", "saved:0.3"])
    assert bytes(corpora[1].learned[0]).startswith(b"one text of many\n\none")
    corpora = read_corpora(["saved"], rows_apart=True)
    assert bytes(corpora[0].learned[1]) == b"one text of many"


@pytest.mark.parametrize(
    ("sources", "error", "message"),
    [
        (["c4:0.7", "wikipedia"], ValueError, r"wikipedia has no share; each of several texts needs one, as in --data"),
        (["c4:0.7", "wikipedia:0.2"], ValueError, r"the shares 0\.7 \+ 0\.2 are 0\.9; they must add up to 1"),
        (["c4:7", "wikipedia:3"], ValueError, r"the share 7 must be above 0 and at most 1"),
        (["c4:0.5"], ValueError, r"the shares 0\.5 are 0\.5; they must add up to 1"),
        (["c4:0.5", "c4:0.5"], ValueError, r"two texts are called 'c4'; name one otherwise, as in --data NAME=c4:0\.5"),
        (["hf:o/c4/en:train:0.5", "hf:o/c4/de:0.5"], ValueError, r"two texts are called 'c4'; name one otherwise"),
        (["c4:0.7", "nowhere:0.3"], FileNotFoundError, r"nowhere does not exist; give a text file or a folder"),
        ([""], ValueError, r"--data names no file or folder; give its path"),
        (["c4:0.5", ":0.5"], ValueError, r"--data names no file or folder; give its path"),
        (["few.txt"], ValueError, r"few\.txt has too little text for a twentieth to be held out; give more"),
        (["c4:0.7", "empty:0.3"], ValueError, r"empty holds no text: its files are empty"),
    ],
)
def test_mistakes(sources: list[str], error: type[Exception], message: str, folders: Path) -> None:
    (folders / "few.txt").write_text("few")
    (folders / "empty").mkdir()
    (folders / "empty" / "nothing.txt").touch()
    with pytest.raises(error, match=message):
        read_corpora(sources)


def test_training_on_a_mixture(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixtures, "_SHORTEST_EPOCH", 20)
    config: dict[str, Any] = SMALL["language"] | {"vocab_size": 262}
    perceiver_io.save_model(perceiver_io.create_model("language", **config), "small")
    command = ["train", "language", "--from", "small", "--output", "run", "--steps", "2", "--batch-size", "3"]
    words = [*command, "--device", "cpu", "--data", "c4:0.7", "wikipedia:0.3"]
    assert main(words) == 0
    notes = json.loads(Path("run/model/training.json").read_text())
    assert notes["data"].startswith("c4:0.7 wikipedia:0.3; the last twentieth is held out (")
    results = notes["results"]
    weighted = 0.7 * results["accuracy_c4"] + 0.3 * results["accuracy_wikipedia"]
    assert results["accuracy"] == pytest.approx(weighted)


def test_a_corpus_that_is_too_short_is_named(folders: Path) -> None:
    (folders / "wikipedia" / "en.txt").write_text("a short text")
    arguments = argparse.Namespace(data=["c4:0.7", "wikipedia:0.3"], text_column="text", workers=0)
    with pytest.raises(ValueError, match="wikipedia: the text has 11 bytes, fewer than a window of 32; give more text"):
        language.prepare(arguments, dataclasses.replace(LanguageConfig(), max_seq_len=32))
