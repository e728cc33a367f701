"""Prose beside that of Python: what is gathered, what is left out, and what is written."""

import json
from pathlib import Path

import pytest

from examples.tiny import more_prose
from examples.tiny.python_prose import Prose

HELD_OUT = "Streams are read and written without any callbacks at all."
PROSE = Prose(["The first of these is known already."], [HELD_OUT])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Documentation, with a package beside it and what is no document."""
    files = {
        "docs/a.rst": "The first of these is known already.\n\nThe :func:`~os.path.join` of ``two`` paths is a path.\n",
        "docs/b.rst.txt": "It is read and written without any callbacks.\n\nNothing is in common with them here.",
        "docs/c.md": "This is not read, as its name says so.",
        "package/module.py": '"""Nothing is in common with them here.\n\nA module says what it has in it."""',
        "package/tests/test_module.py": '"""Tests are no prose and are left out of it."""',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


def test_what_is_known_or_nearly_held_out_is_left_out(folder: Path) -> None:
    documents = more_prose.more_prose([folder / "docs", folder / "package"], PROSE)
    paragraphs = sorted(paragraph for text in documents for paragraph in text.splitlines())
    assert paragraphs == [
        "A module says what it has in it.",
        "Nothing is in common with them here.",
        "The os.path.join of two paths is a path.",
    ]


def test_four_words_in_common_are_none_in_five(tmp_path: Path) -> None:
    (tmp_path / "a.rst").write_text("These are read and written without much ado.\n", encoding="utf-8")
    prose = Prose([], ["Streams are read and written by callbacks."])
    assert len(more_prose.more_prose([tmp_path], prose)) == 1
    assert not more_prose.more_prose([tmp_path], Prose([], ["They are read and written without callbacks."]))


def test_markup_hides_nothing_that_is_known_or_held_out(tmp_path: Path) -> None:
    marked = "Works just like :func:`open` does with text."
    (tmp_path / "a.rst").write_text(marked, encoding="utf-8")
    assert not more_prose.more_prose([tmp_path], Prose([], [marked]))
    assert not more_prose.more_prose([tmp_path], Prose([marked], []))
    assert more_prose.more_prose([tmp_path], Prose([], []))


def test_files_of_one_name_are_all_gathered(tmp_path: Path) -> None:
    for number, text in enumerate(("The first of them has this to say.", "And that is what the second says.")):
        (tmp_path / str(number) / "docs").mkdir(parents=True)
        (tmp_path / str(number) / "docs" / "index.rst").write_text(text, encoding="utf-8")
    documents = more_prose.more_prose([tmp_path / "0" / "docs", tmp_path / "1" / "docs"], Prose([], []))
    assert len(documents) == 2


def test_what_only_looks_like_a_document_is_passed_by(folder: Path) -> None:
    (folder / "docs" / "highlight.py").mkdir()
    (folder / "docs" / "broken.rst").symlink_to("nowhere")
    assert len(more_prose.more_prose([folder / "docs"], PROSE)) == 2


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        (":class:`Queue` is a class", "Queue is a class"),
        (":class:`~queue.Queue` is a class", "queue.Queue is a class"),
        (":ref:`this section <name-of-it>` says", "this section says"),
        ("see `the manual <https://example.org/>`_ or ``f(x)``", "see the manual or f(x)"),
        ("a `name` alone", "a name alone"),
        ("don't touch 'quotes'", "don't touch 'quotes'"),
    ],
)
def test_markup_goes_and_its_text_stays(marked: str, plain: str) -> None:
    assert more_prose.plain_text(marked) == plain


def test_it_is_written_as_lines_of_json(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(more_prose, "python_prose", lambda: PROSE)
    output = tmp_path / "prose.jsonl"
    more_prose.main([str(folder / "docs"), "--output", str(output)])
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert sorted(row["text"] for row in rows) == [
        "Nothing is in common with them here.",
        "The os.path.join of two paths is a path.",
    ]
    assert "2 documents, 76 characters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("folder_name", "output_name", "message"),
    [
        ("nowhere", "new.jsonl", "is not a folder"),
        ("docs", "taken.jsonl", "exists; choose another"),
        ("empty", "new.jsonl", "hold no prose that is new"),
    ],
)
def test_bad_input_says_so(
    folder: Path,
    folder_name: str,
    output_name: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(more_prose, "python_prose", lambda: PROSE)
    (folder / "empty").mkdir()
    (folder / "taken.jsonl").write_text("kept", encoding="utf-8")
    with pytest.raises(SystemExit):
        more_prose.main([str(folder / folder_name), "--output", str(folder / output_name)])
    assert message in capsys.readouterr().err
    assert (folder / "taken.jsonl").read_text(encoding="utf-8") == "kept"
    assert not (folder / "new.jsonl").exists()
