"""Bytes and music as sequences of ids, and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.media.midi import Note
from perceiver_io.processors import ByteSequences, MusicTokenizer


@given(st.text())
def test_text_comes_back(text: str) -> None:
    ids = ByteSequences().encode(text, ends=True)
    assert ids[0] == 2 and ids[-1] == 1 and len(ids) == len(text.encode()) + 2
    assert ByteSequences().decode(ids) == text
    assert ByteSequences().encode(text).tolist() == ids[:-1].tolist()


def test_the_references_ids() -> None:
    assert ByteSequences().encode(b"\x00a\xff", ends=True).tolist() == [2, 3, 100, 258, 1]
    with pytest.raises(ValueError, match="token 259 is outside the vocabulary"):
        ByteSequences().decode([259])
    with pytest.raises(ValueError, match="is not valid in UTF-8"):
        ByteSequences().encode("\ud800")


def test_events_of_two_notes() -> None:
    tokenizer = MusicTokenizer()
    notes = [Note(0.0, 60, 0.5, 64), Note(0.5, 64, 2.0, 64), Note(0.5, 67, 2.0, 100)]
    ids = tokenizer.encode(notes)
    assert ids.tolist() == [
        *(356 + 16, 60),  # velocity, middle C
        *(256 + 49, 128 + 60),  # half a second later it ends,
        *(64, 356 + 25, 67),  # and two notes begin
        *(256 + 99, 256 + 49),  # a second and a half
        *(128 + 64, 128 + 67),
    ]
    assert tokenizer.decode(ids) == notes
    assert (tokenizer.vocab_size, tokenizer.pad_token) == (389, 388)


@given(
    st.lists(
        st.tuples(st.integers(0, 500), st.integers(0, 127), st.integers(1, 400), st.integers(1, 31)),
        min_size=1,
        max_size=20,
        unique_by=lambda note: note[1],
    )
)
def test_music_comes_back(numbers: list[tuple[int, ...]]) -> None:
    notes = [Note(a / 100, pitch, (a + length) / 100, 4 * v) for a, pitch, length, v in numbers]
    decoded = MusicTokenizer().decode(MusicTokenizer().encode(notes))
    assert [(n.pitch, n.velocity) for n in decoded] == [(n.pitch, n.velocity) for n in sorted(notes)]
    for ours, theirs in zip(decoded, sorted(notes), strict=True):
        assert ours.start == pytest.approx(theirs.start) and ours.end == pytest.approx(theirs.end)


@given(st.lists(st.integers(0, 388), max_size=60))
def test_any_events_are_music(ids: list[int]) -> None:
    notes = MusicTokenizer().decode(torch.tensor(ids, dtype=torch.int64))
    assert all(note.end > note.start and 1 <= note.velocity <= 127 for note in notes)


def test_refuses() -> None:
    with pytest.raises(ValueError, match="there are no notes"):
        MusicTokenizer().encode([])
    with pytest.raises(ValueError, match="event 389 is outside the vocabulary"):
        MusicTokenizer().decode([389])
