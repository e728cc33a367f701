"""The corpus that comes with Python."""

import math

import pytest

from examples.tiny import python_prose
from examples.tiny.python_prose import Prose, docstrings, prose_paragraphs

SOURCE = '''
"""Of the module.

Second paragraph."""
class A:
    "Of the class."
    def b(self):
        """Of the method."""
        return "not a docstring"
    async def c(self):
        r"""Of the \\coroutine."""
'''


def test_docstrings_in_their_order() -> None:
    assert docstrings(SOURCE) == [
        "Of the module.\n\nSecond paragraph.",
        "Of the class.",
        "Of the method.",
        "Of the \\coroutine.",
    ]


def test_source_of_another_python_has_no_docstrings() -> None:
    assert docstrings('"""Text."""\nprint "hello"') == []


def test_prose_is_told_from_code() -> None:
    text = """Return the   first item,
        or the (second) one if it isn't there.

        >>> f(1) and then some words that follow

        some_name = other_name(x, y) + 2 * z_index[0]

        Too short.
    """
    assert list(prose_paragraphs(text)) == ["Return the first item, or the (second) one if it isn't there."]


def test_docstrings_of_a_module_without_source() -> None:
    documents = python_prose._documents_of_compiled_modules(["math", "random", "no_such_module"])
    assert set(documents) == {"compiled math"}
    assert documents["compiled math"][0] == math.__doc__
    assert math.cos.__doc__ in documents["compiled math"]


@pytest.fixture
def prose(monkeypatch: pytest.MonkeyPatch) -> Prose:
    """Of twenty documents with a paragraph that all have, one that differs in a word, and one of their own."""
    documents = {
        name: [
            "This is said in every one of them.",
            f"Nearly the same is said by all of the documents, this one is {name} however.",
            " ".join(f"{name}{letter}" for letter in "abcdefgh"),
        ]
        for name in "abcdefghijklmnopqrst"
    }
    monkeypatch.setattr(python_prose, "_documents", lambda: documents)
    return python_prose.python_prose(held_out_percent=40)


def test_paragraphs_occur_once(prose: Prose) -> None:
    paragraphs = [paragraph for document in [*prose.training, *prose.held_out] for paragraph in document.splitlines()]
    assert len(paragraphs) == len(set(paragraphs))


def test_what_is_held_out_occurs_nowhere_else(prose: Prose) -> None:
    assert 1 < len(prose.held_out) < len(prose.training)
    assert sum("Nearly the same" in document for document in prose.training) == len(prose.training)
    assert not any("same" in document or "every one" in document for document in prose.held_out)


def test_what_is_held_out_is_for_choosing_or_for_figures(prose: Prose) -> None:
    assert sorted(prose.validation + prose.test) == sorted(prose.held_out)
    assert prose.validation
    assert not set(prose.validation) & set(prose.test)


def test_the_corpus_is_the_same_every_time(prose: Prose) -> None:
    assert python_prose.python_prose(held_out_percent=40) == prose


def test_the_digest_tells_texts_and_parts_apart() -> None:
    digests = {Prose(["a", "b"], ["c"]).digest, Prose(["ab"], ["c"]).digest, Prose(["a"], ["b", "c"]).digest}
    assert len(digests) == 3
    assert Prose(["a", "b"], ["c"]).digest in digests
