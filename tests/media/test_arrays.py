"""Arrays of every kind mean the same as 8-bit pixels and floating samples, or are refused: never another picture."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_io.media import (
    fit_frame,
    flow_to_image,
    picture_pixels,
    resize,
    sound_samples,
    to_frames,
    video_pixels,
    write_flo,
    write_gif,
    write_mp4,
    write_wav,
)
from perceiver_io.processors import (
    FlowProcessor,
    ImageProcessor,
    TextBatch,
    TextProcessor,
    VideoProcessor,
    centre_crop,
    likeliest_classes,
    prepare_audio,
    prepare_frame,
    prepare_image,
    prepare_video,
)
from tests.unchecked import unchecked

# Each keeps the values' meaning, or gives something that is none.
VALUES: dict[str, Callable[[np.ndarray], Any]] = {
    "uint8": lambda pixels: pixels,
    "bool": lambda pixels: pixels > 127,
    "int64": lambda pixels: pixels.astype(np.int64),
    "uint16": lambda pixels: pixels.astype(np.uint16),
    "16 bits": lambda pixels: pixels.astype(np.uint16) * 257,
    "signed bytes": lambda pixels: pixels.astype(np.int8),
    "0…1": lambda pixels: pixels / 255,
    "0…1 in half": lambda pixels: (pixels / 255).astype(np.float16),
    "0…255 in float": lambda pixels: pixels.astype(np.float32),
    "-1…1": lambda pixels: pixels / 127.5 - 1,
    "normalised": lambda pixels: (pixels / 255 - 0.45) / 0.22,
    "NaN": lambda pixels: np.where(pixels > 200, np.nan, pixels / 255),
    "infinite": lambda pixels: np.where(pixels > 200, np.inf, pixels / 255),
    "complex": lambda pixels: pixels.astype(complex),
    "text": lambda pixels: pixels.astype(str),
    "objects": lambda pixels: pixels.astype(object),
}
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "last": lambda pixels: pixels,
    "first": lambda pixels: np.moveaxis(pixels, -1, 0),
    "grey": lambda pixels: pixels[..., 0],
    "grey last": lambda pixels: pixels[..., :1],
    "grey first": lambda pixels: np.moveaxis(pixels[..., :1], -1, 0),
    "alpha": lambda pixels: np.dstack([pixels, pixels[..., :1]]),
    "two channels": lambda pixels: pixels[..., :2],
    "reversed": lambda pixels: pixels[::-1, ::-1][::-1, ::-1],
    "one axis": lambda pixels: pixels.ravel(),
    "five axes": lambda pixels: pixels[None, None],
    "empty": lambda pixels: pixels[:0],
}
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "array": lambda values: values,
    "big-endian": lambda values: values.astype(values.dtype.newbyteorder(">")),
    "read-only": lambda values: np.frombuffer(values.tobytes(), values.dtype).reshape(values.shape),
    "tensor": lambda values: torch.from_numpy(values.copy()),
    "with gradient": lambda values: torch.from_numpy(np.array(values, np.float64)).requires_grad_(),
    "list": lambda values: values.tolist(),
}


def colours(height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(
    st.sampled_from(sorted(VALUES)),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(FORMS)),
    st.integers(4, 9),
    st.integers(4, 9),
    st.integers(0, 99),
)
def test_a_picture_is_the_same_in_any_form_or_refused(
    values: str, layout: str, form: str, height: int, width: int, seed: int
) -> None:
    pixels = colours(height, width, seed)
    try:
        picture: Any = FORMS[form](VALUES[values](LAYOUTS[layout](pixels)))
    except (TypeError, ValueError, RuntimeError, np.exceptions.ComplexWarning):
        return  # there is no such tensor or array
    expected = pixels[..., :1].repeat(3, axis=-1) if layout.startswith("grey") else pixels
    expected = np.where(expected > 127, 255, 0) if values == "bool" else expected
    readers = {
        "picture_pixels": (picture_pixels, lambda found: found),
        "prepare_frame": (prepare_frame, lambda found: np.rint((found.permute(1, 2, 0).numpy() + 1) * 127.5)),
        "centre_crop": (lambda one: centre_crop(one, (8 * height, 8 * width)), None),
        "prepare_image": (lambda one: prepare_image(one, (3, 5)), None),
        "flow": (lambda one: FlowProcessor()(one, one).frame2[0], None),
        "image": (lambda one: ImageProcessor((3, 5), ["a"])(one)[0], None),
    }
    for name, (reader, back) in readers.items():
        with unchecked():
            try:
                found = reader(picture)
            except ValueError as error:
                assert len(str(error)) > 20, (name, error)
                continue
            # Half precision has 11 bits: pixels are exact to one step.
            of_pixels = reader(np.ascontiguousarray(expected.astype(np.uint8)))
        slack = 2.5 / 255 / 0.22 if values == "0…1 in half" else 0
        if back is not None:
            assert np.abs(back(found).astype(int) - expected).max() <= (slack > 0), (name, values, layout, form)
        same = np.abs(np.asarray(found, float) - np.asarray(of_pixels, float)).max()
        assert same <= (1 if name == "centre_crop" and slack else slack), (name, values, layout, form)


@given(
    st.sampled_from(["last", "first"]),
    st.sampled_from(sorted(VALUES)),
    st.sampled_from(sorted(FORMS)),
    st.integers(1, 6),
)
def test_a_video_is_the_same_in_any_form_or_refused(layout: str, values: str, form: str, num_frames: int) -> None:
    pixels = np.random.default_rng(num_frames).integers(0, 256, (num_frames, 5, 7, 3), dtype=np.uint8)
    try:
        video: Any = FORMS[form](VALUES[values](pixels if layout == "last" else np.moveaxis(pixels, -1, 1)))
    except (TypeError, ValueError, RuntimeError, np.exceptions.ComplexWarning):
        return
    expected = np.where(pixels > 127, 255, 0) if values == "bool" else pixels
    with unchecked():
        try:
            found = video_pixels(video)
        except ValueError:
            return
        prepared = prepare_video(video)
    assert np.abs(found.astype(int) - expected).max() <= (values == "0…1 in half")
    assert (prepared.permute(0, 2, 3, 1).numpy() == (found / 255.0).astype(np.float32)).all()


def test_what_is_unambiguous_is_converted() -> None:
    """The property above would hold if all were refused."""
    pixels = colours(6, 9, 0)
    for values in ("uint8", "int64", "uint16", "0…1", "0…1 in half"):
        for layout in ("last", "first", "reversed"):
            for form in ("array", "big-endian", "read-only", "tensor", "list"):
                if form == "tensor" and values == "uint16" and not hasattr(torch, "uint16"):
                    continue
                given_as = FORMS[form](VALUES[values](LAYOUTS[layout](pixels)))
                assert np.abs(picture_pixels(given_as).astype(int) - pixels).max() <= 1, (values, layout, form)
    for layout in ("grey", "grey last", "grey first"):
        assert (picture_pixels(LAYOUTS[layout](pixels)) == pixels[..., :1]).all()


def test_floats_are_no_longer_black() -> None:
    pixels = colours(40, 50, 0)
    assert torch.equal(prepare_image(pixels / 255, (8, 8)), prepare_image(pixels, (8, 8)))
    assert torch.equal(prepare_frame(pixels / 255), prepare_frame(pixels))
    assert torch.equal(prepare_video(pixels[None] / 255), prepare_video(pixels[None]))


SOUND = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype(np.float32)


@pytest.mark.parametrize(
    ("sound", "expected"),
    [
        (SOUND, SOUND),
        (SOUND.T, SOUND),
        (torch.from_numpy(SOUND).T, SOUND),
        (SOUND.astype(np.float64), SOUND),
        (SOUND[:, 0], SOUND[:, :1]),
        (SOUND[:, :1].T, SOUND[:, :1]),
        (SOUND.tolist(), SOUND),
        (SOUND.astype(">f4"), SOUND),
        ((SOUND * 2**15).astype(np.int16), (SOUND * 2**15).astype(np.int16) / 2**15),
        (SOUND[::-1], SOUND[::-1]),
        (torch.zeros(0, 1), np.zeros((0, 1))),
        (3 * SOUND, 3 * SOUND),
    ],
)
def test_sound_is_the_same_in_any_form(sound: Any, expected: np.ndarray) -> None:
    with unchecked():
        assert (sound_samples(sound).numpy() == expected).all()
        prepared = prepare_audio(sound, 400)
    assert (prepared[: len(expected), 0].numpy() == expected[:400, 0]).all()


@pytest.mark.parametrize(
    ("sound", "message"),
    [
        (SOUND * 2**15, r"floating samples must be -1…1: divide by the full scale"),
        (SOUND * np.nan, "samples that are not finite"),
        (np.where(SOUND > 0.99, np.inf, SOUND), "samples that are not finite"),
        ((SOUND * 2**31).astype(np.int32), "has samples of type int32; give floating -1…1"),
        ((SOUND * 127).astype(np.uint8), "has samples of type uint8"),
        (np.zeros((3, 20)), "if channels come first, turn it: sound.T"),
        (np.zeros((100, 200)), "with at most 64 channels"),
        (np.zeros((5, 0)), "is not a sound"),
        (np.zeros((1, 5, 2)), "is not a sound"),
        (np.zeros(()), "is not a sound"),
        (None, "has values of type object"),
    ],
)
def test_other_sounds_are_refused(sound: Any, message: str) -> None:
    for reader in (sound_samples, lambda one: prepare_audio(one, 4), VideoProcessor(2, (4, 4), 8, ["a"]).sound):
        with unchecked(), pytest.raises(ValueError, match=message):
            reader(sound)


@pytest.mark.parametrize(
    "call",
    [
        lambda path: resize(colours(4, 5, 0) / 255, (3, 3), "cubic"),
        lambda path: resize(colours(4, 5, 0)[..., 0], (3, 3), "linear"),
        lambda path: fit_frame(colours(4, 5, 0).astype(np.float32), (3, 3)),
        lambda path: fit_frame(torch.zeros(4, 5, 3), (3, 3)),
        lambda path: to_frames(torch.zeros(2, 3, 4, 5, dtype=torch.uint8)),
        lambda path: to_frames(torch.zeros(2, 4, 5, 3)),
        lambda path: to_frames(torch.full((2, 3, 4, 5), torch.nan)),
        lambda path: to_frames(np.zeros((2, 3, 4, 5))),
        lambda path: flow_to_image(torch.zeros(1, 2, 4, 5)),
        lambda path: flow_to_image(np.zeros((2, 4, 5))),
        lambda path: FlowProcessor().pictures(torch.zeros(2, 4, 5)),
        lambda path: FlowProcessor().arrays(torch.zeros(2, 3, 4, 5)),
        lambda path: write_flo(path, torch.zeros(4, 5, 2)),
        lambda path: write_gif(path, colours(4, 5, 0)),
        lambda path: write_gif(path, colours(4, 5, 0)[None] / 255),
        lambda path: write_mp4(path, torch.zeros(2, 4, 5, 3)),
        lambda path: write_mp4(path, colours(4, 6, 0)[None], audio=torch.zeros(1, 2, 3)),
        lambda path: write_wav(path, torch.zeros(5, 1, dtype=torch.int64)),
        lambda path: write_wav(path, torch.zeros(5, 1), sample_rate=0),
    ],
)
def test_what_media_take_is_checked(call: Callable[[Any], object], tmp_path: Any) -> None:
    with unchecked(), pytest.raises(ValueError, match=r"must|NaN|give") as error:
        call(tmp_path / "file")
    assert len(str(error.value)) < 400
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.tensor([[0.0, torch.nan, 1.0]]), "the logits are not finite"),
        (torch.tensor([[0.0, torch.inf, 1.0]]), "the logits are not finite"),
        (torch.full((2, 3), -torch.inf), "the logits are not finite"),
        (torch.zeros(2, 4), r"shape \(2, 4\) is not logits; they must be \[batch, classes\], for 3 classes"),
        (torch.zeros(1, 2, 3), "is not logits"),
        ("logits", "has values of type"),
    ],
)
def test_logits_that_name_nothing_are_refused(logits: Any, message: str) -> None:
    for classes in (ImageProcessor((4, 4), ["a", "b", "c"]).classes, lambda x: likeliest_classes(x, ["a", "b", "c"])):
        with unchecked(), pytest.raises(ValueError, match=message):
            classes(logits)


def test_logits_of_one_example_and_of_masked_classes() -> None:
    with unchecked():
        assert [name for name, _ in likeliest_classes(np.array([0.0, 2.0, 1.0]), ["a", "b", "c"])[0]] == ["b", "c", "a"]
    assert likeliest_classes(torch.tensor([[0.0, -torch.inf]]), ["a", "b"])[0][0].probability == 1
    with pytest.raises(ValueError, match=r"top \(0\) must be at least 1"):
        likeliest_classes(torch.zeros(1, 2), ["a", "b"], top=0)


def test_outputs_of_other_inputs_are_refused() -> None:
    processor = TextProcessor(9)
    batch = processor("a[MASK]c")
    for logits in (torch.zeros(1, 4, 262), torch.zeros(3, 262), torch.zeros(1, 3, 261), None):
        with unchecked(), pytest.raises(ValueError, match="give what the model returned for this batch"):
            processor.fill(TextBatch(*batch), logits)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the logits are not finite"):
        processor.fill(batch, torch.full((1, 3, 262), torch.nan))
    clip = {"image": torch.zeros(1, 2, 3, 4, 4), "audio": torch.zeros(1, 8, 1), "label": torch.zeros(1, 1)}
    video = VideoProcessor(2, (4, 4), 4, ["a"])
    with pytest.raises(ValueError, match="the outputs lack label"):
        video.rebuilt({"image": clip["image"], "audio": clip["audio"]})
    for name in clip:
        with pytest.raises(ValueError, match="checkpoint is damaged"):
            video.rebuilt({**clip, name: clip[name] * torch.nan})
