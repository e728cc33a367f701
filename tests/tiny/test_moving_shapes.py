"""Clips that are made up, against what they are said to be."""

import pytest
import torch

from examples.tiny.moving_shapes import MovingShapes
from perceiver_io.training import Draw


class TestMovingShapes:
    def test_shapes_and_ranges(self) -> None:
        clip = MovingShapes(9, num_frames=3, image_size=(20, 28), audio_samples_per_frame=50)[Draw(2, 7)]
        assert clip["video"].shape == (3, 3, 20, 28)
        assert clip["audio"].shape == (150, 1)
        assert 0 <= clip["video"].min() <= clip["video"].max() <= 1
        assert 0.3 <= clip["audio"].abs().max() <= 0.9
        assert len(MovingShapes(9)) == 9

    def test_a_clip_depends_on_the_seed_alone(self) -> None:
        clips = MovingShapes(100)
        one, same, other = clips[Draw(3, 5)], clips[Draw(4, 5)], clips[Draw(3, 6)]
        assert all(torch.equal(one[name], same[name]) for name in one)
        assert not torch.equal(one["video"], other["video"])

    def test_every_class_has_its_own_shape_and_tone(self) -> None:
        clips = MovingShapes(1, num_frames=16, audio_samples_per_frame=200)
        tones: dict[int, set[int]] = {}
        areas: dict[int, list[float]] = {}
        for seed in range(300):
            clip = clips[Draw(0, seed)]
            label = int(clip["label"])
            # 3,200 samples at 5,000 Hz: the bins of the spectrum are 1.5625 Hz wide.
            tones.setdefault(label, set()).add(
                round(float(torch.fft.rfft(clip["audio"][:, 0]).abs().argmax()) * 1.5625)
            )
            first = clip["video"][0] - clip["video"][0, :, :1, :1]
            areas.setdefault(label, []).append(float((first.abs().amax(0) > 0.05).float().mean()))
        assert sorted(tones) == list(range(len(MovingShapes.classes))) == list(range(8))
        assert {label: sorted(pitches) for label, pitches in tones.items()} == {
            label: pytest.approx([220 * 2 ** (semitones / 12)], abs=1)
            for label, semitones in enumerate((0, 2, 4, 5, 7, 9, 11, 12))
        }
        bar, square = (MovingShapes.classes.index(name) for name in ("bar", "square"))
        assert sum(areas[bar]) / len(areas[bar]) < 0.7 * sum(areas[square]) / len(areas[square])

    def test_the_shape_moves_and_stays_inside(self) -> None:
        clips = MovingShapes(1, num_frames=60)
        for seed in range(20):
            video = clips[Draw(0, seed)]["video"]
            ground = video[0, :, 0, 0]
            inside = (video - ground[:, None, None]).abs().amax(1) > 0.05
            assert inside.any((1, 2)).all()
            # Only the soft outline of the widest shapes reaches the border.
            assert inside[:, 0].float().mean() < 0.1
            assert (inside[0] != inside[5]).any()

    def test_tones_need_enough_samples(self) -> None:
        with pytest.raises(ValueError, match=r"audio_samples_per_frame \(35\) must be at least 36: .* has 440 Hz"):
            MovingShapes(1, audio_samples_per_frame=35)
