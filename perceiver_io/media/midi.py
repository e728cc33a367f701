"""MIDI files as notes in seconds, and back: the part of the Standard MIDI File format that notes need.

Pedals are turned into longer notes. Instruments and channels are left out: all notes become one piano's.
"""

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiver_io.media.border import UnreadableError, reading, writing

# Far more than any piece of music.
MAX_BYTES = 64 * 2**20
_DRUMS = 9
_SUSTAIN, _SUSTAIN_DOWN = 64, 64
_DEFAULT_TEMPO = 500_000  # microseconds a quarter
# Of the files that are written.
_TICKS_PER_QUARTER = 480
_TICKS_PER_SECOND = _TICKS_PER_QUARTER * 1_000_000 / _DEFAULT_TEMPO


@dataclass(frozen=True, order=True)
class Note:
    """One note.

    Attributes:
        start: in seconds.
        pitch: 0…127; 60 is the middle C.
        end: in seconds.
        velocity: how hard it is struck, 1…127.
    """

    start: float
    pitch: int
    end: float
    velocity: int = 64


@dataclass(frozen=True, order=True)
class _Event:
    tick: int
    order: int  # in the file, of events at the same time
    kind: int
    channel: int
    first: int
    second: int


def read_midi(path: str | Path) -> list[Note]:
    """Reads the notes of a MIDI file, sorted by their start; percussion is left out.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no MIDI file, a damaged one, or one without notes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no MIDI file at {path}")
    if path.stat().st_size > MAX_BYTES:
        raise UnreadableError(f"{path} has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}; give a part of it")
    with reading(path, "a Standard MIDI File"):
        events, tempi, division = _parse(path.read_bytes())
    notes = sorted(_notes(events, _Clock(tempi, division)))
    if not notes:
        raise UnreadableError(f"{path} has no notes; give a file with some")
    return notes


def write_midi(path: str | Path, notes: Sequence[Note]) -> None:
    """Writes notes as a MIDI file of one track.

    Raises:
        OSError: if the file cannot be written.
    """
    events = []
    for note in notes:
        events.append((round(note.start * _TICKS_PER_SECOND), 1, bytes([0x90, note.pitch, max(1, note.velocity)])))
        events.append((round(note.end * _TICKS_PER_SECOND), 0, bytes([0x80, note.pitch, 64])))
    track, before = bytearray(), 0
    for tick, _, message in sorted(events):
        track += _variable_length(tick - before) + message
        before = tick
    track += b"\x00\xff\x2f\x00"
    header = b"MThd" + struct.pack(">IHHH", 6, 0, 1, _TICKS_PER_QUARTER)
    with writing(path) as temporary:
        temporary.write_bytes(header + b"MTrk" + struct.pack(">I", len(track)) + track)


class _Clock:
    """Maps ticks to seconds, by the changes of tempo before them."""

    def __init__(self, tempi: list[tuple[int, int]], division: int) -> None:
        self.marks: list[tuple[int, float, float]] = []  # tick, seconds there, seconds a tick from there on
        if division & 0x8000:  # frames a second, ticks a frame: no tempo
            self.marks = [(0, 0.0, 1 / ((256 - (division >> 8)) * (division & 0xFF)))]
            return
        seconds, at, each = 0.0, 0, _DEFAULT_TEMPO / 1e6 / division
        self.marks.append((0, 0.0, each))
        for tick, tempo in sorted(tempi):
            seconds += (tick - at) * each
            at, each = tick, tempo / 1e6 / division
            self.marks.append((tick, seconds, each))

    def __call__(self, tick: int) -> float:
        start, seconds, each = next(mark for mark in reversed(self.marks) if mark[0] <= tick)
        return seconds + (tick - start) * each


def _parse(content: bytes) -> tuple[list[_Event], list[tuple[int, int]], int]:
    if content[:4] != b"MThd":
        raise ValueError("it does not begin with MThd")
    length, _, _, division = struct.unpack(">IHHH", content[4:14])
    if not division & 0x7FFF:
        raise ValueError("its ticks have no length")
    events: list[_Event] = []
    tempi: list[tuple[int, int]] = []
    place = 8 + length
    while place + 8 <= len(content):
        kind, length = content[place : place + 4], struct.unpack(">I", content[place + 4 : place + 8])[0]
        if place + 8 + length > len(content):
            raise ValueError("it is cut short")
        if kind == b"MTrk":
            for tick, message in _messages(content[place + 8 : place + 8 + length]):
                if message[0] == 0xFF and message[1] == 0x51:
                    tempi.append((tick, int.from_bytes(message[2:5], "big")))
                elif message[0] < 0xF0:
                    events.append(_Event(tick, len(events), message[0] >> 4, message[0] & 15, message[1], message[-1]))
        place += 8 + length
    return sorted(events), tempi, division


def _messages(track: bytes) -> Iterator[tuple[int, bytes]]:
    """The messages of a track with their ticks: status and data; of a meta event, 0xFF, its type and its data."""
    place = tick = status = 0
    while place < len(track):
        delta, place = _read_variable_length(track, place)
        tick += delta
        if track[place] & 0x80:
            status = track[place]
            place += 1
        elif not 0x80 <= status < 0xF0:
            raise ValueError("a message has no status")
        if status in (0xF0, 0xF7, 0xFF):
            kind = track[place : place + 1] if status == 0xFF else b""
            length, place = _read_variable_length(track, place + len(kind))
            yield tick, bytes([status]) + (kind or b"\x00") + track[place : place + length]
            if kind == b"\x2f":
                return
            place += length
            status = 0
            continue
        size = 1 if status >> 4 in (0xC, 0xD) else 2
        data = track[place : place + size]
        if len(data) < size or any(byte & 0x80 for byte in data):
            raise ValueError("a message is damaged")
        yield tick, bytes([status]) + data
        place += size


def _notes(events: Iterable[_Event], clock: _Clock) -> Iterator[Note]:
    sounding: dict[tuple[int, int], tuple[float, int]] = {}
    held: dict[int, set[int]] = defaultdict(set)  # released while the pedal is down, by channel
    pedal: set[int] = set()
    now = 0.0

    def end(channel: int, pitch: int) -> Iterator[Note]:
        held[channel].discard(pitch)
        if (begun := sounding.pop((channel, pitch), None)) and now > begun[0]:
            yield Note(begun[0], pitch, now, begun[1])

    for event in events:
        channel = event.channel
        if channel == _DRUMS:
            continue
        now = clock(event.tick)
        if event.kind == 0x9 and event.second:
            yield from end(channel, event.first)
            sounding[channel, event.first] = (now, event.second)
        elif event.kind in (0x8, 0x9):
            if channel in pedal:
                held[channel].add(event.first)
            else:
                yield from end(channel, event.first)
        elif event.kind == 0xB and event.first == _SUSTAIN:
            if event.second >= _SUSTAIN_DOWN:
                pedal.add(channel)
            else:
                pedal.discard(channel)
                for pitch in sorted(held[channel]):
                    yield from end(channel, pitch)
    for channel, pitch in list(sounding):
        yield from end(channel, pitch)


def _variable_length(number: int) -> bytes:
    parts = [number & 0x7F]
    while number := number >> 7:
        parts.append(number & 0x7F | 0x80)
    return bytes(reversed(parts))


def _read_variable_length(content: bytes, place: int) -> tuple[int, int]:
    number = 0
    for _ in range(4):
        byte = content[place]
        place += 1
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            return number, place
    raise ValueError("a length has more than four bytes")
