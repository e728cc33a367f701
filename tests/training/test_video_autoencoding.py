"""The objective of video autoencoding: its loss, its points, its labels, and what it is evaluated by."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import perceiver_io
from examples.tiny.moving_shapes import MovingShapes
from perceiver_io import VideoAutoencodingConfig
from perceiver_io.training import Draw, derived_seed
from perceiver_io.training.points import draw_points
from perceiver_io.training.video_autoencoding import (
    VideoAutoencodingEvaluation,
    VideoAutoencodingObjective,
    autoencoding_losses,
    psnr,
)
from tests.small_models import SMALL, small_inputs

CONFIG = VideoAutoencodingConfig(**SMALL["video-autoencoding"])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_batch(batch: int = 4) -> tuple[nn.Module, dict[str, Tensor]]:
    model = perceiver_io.create_model("video-autoencoding", **SMALL["video-autoencoding"])
    video, audio = small_inputs(model, batch)
    return model, {"video": video, "audio": audio, "label": torch.arange(batch)}


class Copy(nn.Module):
    """Stands for a perfect model, off by a given amount; remembers what it was given."""

    def __init__(self, off: float = 0.0) -> None:
        super().__init__()
        self.off = nn.Parameter(torch.tensor(off))
        self.given: dict[str, Any] = {}

    def forward(
        self,
        video: Tensor,
        audio: Tensor,
        points: dict[str, Tensor] | None = None,
        label: Tensor | None = None,
    ) -> dict[str, Tensor]:
        self.given = {"points": points, "label": label}
        logits = video.new_zeros(len(video), 13) if label is None else 100 * label
        if points is None:
            return {"image": video + self.off, "audio": audio + self.off, "label": logits}
        pixels = video.movedim(2, -1).flatten(1, 3)
        patches = audio.reshape(len(audio), 12, 5)
        return {
            "image": torch.stack([rows[i] for rows, i in zip(pixels, points["image"], strict=True)]) + self.off,
            "audio": torch.stack([rows[i].flatten() for rows, i in zip(patches, points["audio"], strict=True)]),
            "label": logits,
        }


def test_the_losses_of_known_errors() -> None:
    targets = {"image": torch.rand(2, 7, 3), "audio": torch.rand(2, 15), "label": torch.tensor([1, 0])}
    outputs = {"image": targets["image"] + 0.25, "audio": targets["audio"] - 0.5, "label": torch.zeros(2, 4)}
    losses = autoencoding_losses(outputs, targets)
    assert {name: float(loss) for name, loss in losses.items()} == pytest.approx(
        {"image": 0.25, "audio": 0.5, "label": math.log(4)}
    )


class TestPoints:
    def test_points_are_drawn_for_each_example(self) -> None:
        points = draw_points(300, 11, 6, generator())
        assert points.shape == (300, 6)
        assert torch.bincount(points.flatten(), minlength=11).float() / 1800 == pytest.approx(1 / 11, abs=0.03)
        assert torch.equal(points, draw_points(300, 11, 6, generator()))

    def test_all_points_if_there_are_no_more(self) -> None:
        assert draw_points(3, 5, 5, generator()).tolist() == [[0, 1, 2, 3, 4]] * 3


class TestObjective:
    def test_targets_are_those_of_the_points(self) -> None:
        _, batch = small_batch()
        objective = VideoAutoencodingObjective(
            config=CONFIG, num_image_points=9, num_audio_points=7, label_mask_prob=0.0
        )
        figures = objective(Copy(), batch, generator())
        assert {name: float(value.detach()) for name, value in figures.items()} == pytest.approx(
            {"loss": 0, "image_loss": 0, "audio_loss": 0, "label_loss": 0}
        )

    def test_the_sum_is_the_papers(self) -> None:
        model, batch = small_batch()
        figures = VideoAutoencodingObjective(config=CONFIG)(model, batch, generator())
        expected = 0.03 * figures["image_loss"] + figures["audio_loss"] + 1e-4 * figures["label_loss"]
        torch.testing.assert_close(figures["loss"], expected)

    def test_all_points_give_the_loss_of_the_whole_clip(self) -> None:
        model, batch = small_batch()
        objective = VideoAutoencodingObjective(config=CONFIG, label_mask_prob=1.0)
        figures = objective(model, batch, generator())
        whole = model(batch["video"], batch["audio"])
        torch.testing.assert_close(figures["image_loss"], F.l1_loss(whole["image"], batch["video"]))
        torch.testing.assert_close(figures["audio_loss"], F.l1_loss(whole["audio"], batch["audio"]))
        torch.testing.assert_close(figures["label_loss"], F.cross_entropy(whole["label"], batch["label"]))

    def test_labels_are_hidden_for_half_of_the_examples(self) -> None:
        _, batch = small_batch(400)
        batch["label"] %= 13
        model = Copy()
        VideoAutoencodingObjective(config=CONFIG)(model, batch, generator())
        visible = model.given["label"].any(1)
        assert 0.4 < visible.float().mean() < 0.6
        assert torch.equal(model.given["label"][visible], F.one_hot(batch["label"], 13).float()[visible])

    def test_the_generator_reproduces_everything(self) -> None:
        model, batch = small_batch()
        objective = VideoAutoencodingObjective(config=CONFIG, num_image_points=9, num_audio_points=3)
        first, again, other = (objective(model, batch, generator(seed)) for seed in (5, 5, 6))
        assert all(torch.equal(first[name], again[name]) for name in first)
        assert not torch.equal(first["loss"], other["loss"])

    def test_every_parameter_learns(self) -> None:
        model, batch = small_batch()
        VideoAutoencodingObjective(config=CONFIG)(model, batch, generator())["loss"].backward()
        unused = {"input_preprocessor.mask_tokens.audio", "input_preprocessor.mask_tokens.image"}
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None or name in unused, name

    def test_a_label_outside_the_classes(self) -> None:
        model, batch = small_batch()
        batch["label"][2] = 13
        with pytest.raises(ValueError, match=r"must lie in 0…12, the model's classes"):
            VideoAutoencodingObjective(config=CONFIG)(model, batch, generator())


class TestEvaluation:
    def test_psnr(self) -> None:
        targets = torch.rand(2, 3, 4, 5)
        outputs = targets + torch.tensor([0.1, 0.01])[:, None, None, None]
        torch.testing.assert_close(psnr(outputs, targets), torch.tensor([20.0, 40.0]), rtol=1e-4, atol=0)
        torch.testing.assert_close(psnr(outputs, targets, peak=2.0)[0], torch.tensor(26.0206), rtol=1e-4, atol=0)

    def test_figures_are_means_over_clips(self) -> None:
        clips = MovingShapes(7, num_frames=3, image_size=(8, 12), audio_samples_per_frame=40)
        evaluation = VideoAutoencodingEvaluation(dataset=clips, seed=3, batch_size=4)
        model = Copy(0.01)
        with torch.no_grad():
            figures = evaluation(model)
            assert evaluation(model) == figures
        assert model.given == {"points": None, "label": None}
        assert figures["image_psnr"] == pytest.approx(40, abs=0.1)
        assert figures["audio_psnr"] == pytest.approx(40, abs=0.1)
        # Equal logits: class 0 is always the answer.
        labels = [int(batch["label"]) for batch in _examples(clips, evaluation)]
        assert figures["label_accuracy"] == pytest.approx(labels.count(0) / 7)

    def test_outputs_are_clipped_to_their_range(self) -> None:
        clips = MovingShapes(2, num_frames=3, image_size=(8, 12), audio_samples_per_frame=40)
        with torch.no_grad():
            figures = VideoAutoencodingEvaluation(dataset=clips)(Copy(100.0))
        expected = [
            float(psnr(torch.ones_like(clip["video"])[None], clip["video"][None]))
            for clip in _examples(clips, VideoAutoencodingEvaluation(dataset=clips))
        ]
        assert figures["image_psnr"] == pytest.approx(sum(expected) / 2)


def _examples(clips: MovingShapes, evaluation: VideoAutoencodingEvaluation) -> list[dict[str, Tensor]]:
    return [clips[Draw(index, derived_seed(evaluation.seed, index))] for index in range(len(clips))]
