"""MIDI files: notes come back, pedals and tempi are obeyed, and damage is named."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.media.midi import Note, read_midi, write_midi


def file_of(track: bytes, path: Path, division: int = 480, kind: int = 0) -> Path:
    header = b"MThd" + struct.pack(">IHHH", 6, kind, 1, division)
    path.write_bytes(header + b"MTrk" + struct.pack(">I", len(track)) + track)
    return path


@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.integers(0, 127), st.integers(1, 300), st.integers(1, 127)),
        min_size=1,
        unique_by=lambda note: note[1],
    )
)
def test_written_notes_come_back(tmp_path_factory: pytest.TempPathFactory, numbers: list[tuple[int, ...]]) -> None:
    path = tmp_path_factory.mktemp("midi") / "music.mid"
    notes = sorted(Note(a / 100, pitch, (a + length) / 100, velocity) for a, pitch, length, velocity in numbers)
    write_midi(path, notes)
    read = read_midi(path)
    assert [(n.pitch, n.velocity) for n in read] == [(n.pitch, n.velocity) for n in notes]
    for ours, theirs in zip(read, notes, strict=True):
        assert ours.start == pytest.approx(theirs.start, abs=0.002) and ours.end == pytest.approx(theirs.end, abs=0.002)


def test_tempo_running_status_and_pedal(tmp_path: Path) -> None:
    track = b"".join(
        (
            b"\x00\xff\x51\x03\x07\xa1\x20",  # half a second a quarter
            b"\x00\x90\x3c\x40",  # middle C
            b"\x00\xb0\x40\x7f",  # the pedal goes down
            b"\x83\x60\x90\x3c\x00",  # 480 ticks: released, by a note of velocity 0
            b"\x00\xff\x51\x03\x0f\x42\x40",  # one second a quarter
            b"\x83\x60\x90\x40\x50",  # E
            b"\x83\x60\x40\x00",  # and its end, with the status of before
            b"\x83\x60\xb0\x40\x00",  # the pedal goes up
            b"\x00\x99\x23\x7f",  # a drum
            b"\x00\xff\x2f\x00",
        )
    )
    notes = read_midi(file_of(track, tmp_path / "music.mid"))
    assert notes == [Note(0.0, 60, 3.5, 64), Note(1.5, 64, 3.5, 80)]


def test_frames_a_second(tmp_path: Path) -> None:
    track = b"\x00\x90\x3c\x40\x64\x80\x3c\x00\x00\xff\x2f\x00"  # 100 ticks
    notes = read_midi(file_of(track, tmp_path / "music.mid", division=(256 - 25) << 8 | 40))
    assert notes == [Note(0.0, 60, 0.1, 64)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with MThd"),
        (b"RIFF" + bytes(30), "does not begin with MThd"),
        (b"MThd" + struct.pack(">IHHH", 6, 0, 1, 0), "its ticks have no length"),
        (b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", 99) + bytes(9), "is cut short"),
        (b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480) + b"MTrk" + struct.pack(">I", 2) + bytes(2), "has no status"),
        (b"MThd" + struct.pack(">IHHH", 6, 0, 1, 480), "has no notes"),
    ],
)
def test_damaged_files(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "music.mid"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"music\.mid .*{message}"):
        read_midi(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no MIDI file at"):
        read_midi(tmp_path / "none.mid")


@given(st.binary(max_size=60))
def test_whatever_a_track_holds_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, track: bytes) -> None:
    path = file_of(track, tmp_path_factory.mktemp("midi") / "music.mid")
    try:
        notes = read_midi(path)
    except ValueError as error:
        assert "music.mid" in str(error)
    else:
        assert all(note.end > note.start for note in notes)
