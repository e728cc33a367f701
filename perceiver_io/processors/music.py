"""Music as Perceiver AR reads it: notes as events, in steps of 10 ms."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int, Int64
from torch import Tensor

from perceiver_io.media.midi import Note

_PITCHES, _STEPS, _VELOCITIES = 128, 100, 32
_NOTE_OFF, _SHIFT = _PITCHES, 2 * _PITCHES
_VELOCITY = _SHIFT + _STEPS
# A step, and how far velocities are apart.
_SECONDS, _VELOCITY_STEP = 0.01, 4


class MusicTokenizer:
    """The mapping between notes and events: note on, note off, a wait of 1…100 steps, and velocity, where it changes.

    Source: the symbolic audio models of krasserm/perceiver-io, whose events are those of Magenta's Performance RNN.
    """

    vocab_size = _VELOCITY + _VELOCITIES + 1
    pad_token = vocab_size - 1

    def encode(self, notes: Sequence[Note]) -> Int64[Tensor, " length"]:
        """Maps notes to ids of events.

        Raises:
            ValueError: if there are none.
        """
        if not notes:
            raise ValueError("there are no notes; give one at least")
        # At the same time, what ends comes before what begins.
        changes = sorted(
            change
            for note in notes
            for change in (
                (round(note.start / _SECONDS), 1, note.pitch, note.velocity // _VELOCITY_STEP),
                (max(round(note.end / _SECONDS), round(note.start / _SECONDS) + 1), 0, note.pitch, 0),
            )
        )
        ids: list[int] = []
        now, loud = 0, None
        for step, begins, pitch, velocity in changes:
            while now < step:
                wait = min(step - now, _STEPS)
                ids.append(_SHIFT + wait - 1)
                now += wait
            if begins and velocity != loud:
                loud = velocity
                ids.append(_VELOCITY + velocity)
            ids.append(pitch if begins else _NOTE_OFF + pitch)
        return torch.tensor(ids, dtype=torch.int64)

    def decode(self, tokens: Int[Tensor, " length"] | Sequence[int]) -> list[Note]:
        """Maps ids of events to notes, sorted by their start; a note that does not end lasts to the end.

        Raises:
            ValueError: an id outside the vocabulary.
        """
        ids = tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
        now, velocity = 0, 16
        sounding: dict[int, tuple[int, int]] = {}
        notes: list[Note] = []

        def end(pitch: int) -> None:
            if pitch in sounding:
                start, struck = sounding.pop(pitch)
                if now > start:
                    notes.append(Note(start * _SECONDS, pitch, now * _SECONDS, max(1, struck * _VELOCITY_STEP)))

        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise ValueError(f"event {token} is outside the vocabulary; ids are 0 to {self.vocab_size - 1}")
            if token == self.pad_token:
                continue
            if token >= _VELOCITY:
                velocity = token - _VELOCITY
            elif token >= _SHIFT:
                now += token - _SHIFT + 1
            elif token >= _NOTE_OFF:
                end(token - _NOTE_OFF)
            else:
                end(token)
                sounding[token] = (now, velocity)
        now += 1
        for pitch in list(sounding):
            end(pitch)
        return sorted(notes)
