"""Processors take models of their task, and say so of others."""

import pytest
from torch import nn

import perceiver_io
from perceiver_io.processors import ImageProcessor, TextProcessor, VideoProcessor
from tests.small_models import SMALL
from tests.unchecked import unchecked

TAKES = {
    ImageProcessor: {"imagenet-fourier", "imagenet-learned", "imagenet-conv"},
    TextProcessor: {"language"},
    VideoProcessor: {"video-autoencoding"},
}


@pytest.mark.parametrize("processor", TAKES)
def test_models_of_other_tasks_are_refused(
    processor: type[ImageProcessor] | type[TextProcessor] | type[VideoProcessor],
) -> None:
    for preset in SMALL.keys() - TAKES[processor]:
        model = perceiver_io.create_model(preset, **SMALL[preset])
        with (
            pytest.raises(
                ValueError, match=f"{processor.__name__} does not fit a .*Perceiver.*; give it a model whose"
            ),
            unchecked(),
        ):
            processor.for_model(model)
    with pytest.raises(ValueError, match="does not fit a Linear"), unchecked():
        processor.for_model(nn.Linear(1, 1))
