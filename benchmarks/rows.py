"""What is measured: the released models at the sizes they are used at, one row of the table each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]

# The colab decodes a clip in so many chunks; the reference and transformers encode anew for each.
VIDEO_CHUNKS = 128


@dataclass(frozen=True, kw_only=True)
class Row:
    """One model and one input.

    Attributes:
        name: on the command line.
        title: in the table.
        preset: of `perceiver_io.create_model`.
        gflop: floating-point operations that the result needs at least, in 10⁹ (a multiplication and an addition are
            two), after every saving that leaves the result as it is; None where nobody has counted.
        length: tokens of the text.
        decodes: "all" outputs, or one "chunk" of the video.
    """

    name: str
    title: str
    preset: str
    gflop: float | None = None
    length: int | None = None
    decodes: str = "all"


# Operations are those of the products that the accelerated model does, as PyTorch's `FlopCounterMode` counts them at
# full size on the meta device (tests/test_work.py), or a count by hand where that is a little (up to 3 %) less.
ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(name="language-2048", title="language, 2048 bytes", preset="language", gflop=118, length=2048),
        Row(name="language-60", title="language, 60 bytes", preset="language", length=60),
        Row(name="imagenet-conv", title="imagenet-conv", preset="imagenet-conv", gflop=365),
        Row(name="imagenet-fourier", title="imagenet-fourier", preset="imagenet-fourier", gflop=390),
        Row(name="imagenet-learned", title="imagenet-learned", preset="imagenet-learned", gflop=420),
        Row(name="optical-flow", title="optical flow, one tile of 368×496", preset="optical-flow", gflop=1371),
        Row(
            name="video-chunk",
            title=f"video, one of {VIDEO_CHUNKS} chunks",
            preset="video-autoencoding",
            decodes="chunk",
            gflop=177,
        ),
        Row(name="video-clip", title="video, whole clip", preset="video-autoencoding", gflop=3432),
    )
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A row at the sizes it is run at; light enough to travel to a worker, which makes the input from it.

    Attributes:
        overrides: fields of the preset's config that are not the released model's.
        fields: all fields of the config. Not the config itself: reading it would import torch into JAX's process.
        video_chunks: in how many chunks a peer decodes the clip.
    """

    row: Row
    overrides: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[str, Any]
    video_chunks: int = VIDEO_CHUNKS

    @property
    def config(self) -> SimpleNamespace:
        """The fields as attributes."""
        return SimpleNamespace(**self.fields)


def make_case(row: Row, tiny: bool) -> Case:
    """Maps a row to its case; `tiny` takes sizes at which the harness itself can be tried in seconds."""
    from conversion.verification import SMALL
    from perceiver_io import create_config

    overrides: Mapping[str, Any] = {}
    if tiny:
        overrides = SMALL[row.preset]
        row = replace(row, gflop=None)
    config = create_config(row.preset, **overrides)
    return Case(row=row, overrides=overrides, fields=vars(config), video_chunks=3 if tiny else VIDEO_CHUNKS)


def make_inputs(case: Case) -> Arrays:
    """The input of a case, channels first and with a batch of one; the same in every process."""
    rng = np.random.default_rng(0)
    config = case.config
    match case.row.preset:
        case "language":
            length = min(case.row.length or config.max_seq_len, config.max_seq_len)
            if case.row.length is not None and case.row.length < 2048:
                length = min(length, config.max_seq_len // 4)  # short at small sizes too
            return {"tokens": rng.integers(6, config.vocab_size, size=(1, length), dtype=np.int64)}
        case "optical-flow":
            return {"frames": rng.uniform(-1, 1, (1, 2, 3, *config.image_size)).astype(np.float32)}
        case "video-autoencoding":
            num_samples = config.num_frames * config.audio_samples_per_frame
            num_pixels = config.num_frames * config.image_size[0] * config.image_size[1]
            num_patches = num_samples // config.audio_samples_per_patch
            return {
                "video": rng.random((1, config.num_frames, 3, *config.image_size), dtype=np.float32),
                "audio": rng.uniform(-1, 1, (1, num_samples, 1)).astype(np.float32),
                "image_points": np.arange(num_pixels // case.video_chunks),
                "audio_points": np.arange(num_patches // case.video_chunks),
            }
        case _:
            return {"images": rng.standard_normal((1, 3, *config.image_size), dtype=np.float32)}
