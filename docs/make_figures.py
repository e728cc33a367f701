"""Draws the figures of the documents: `python -m docs.make_figures`, after changing a model, a sample or a drawing."""

import io
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

import perceiver_io
from examples.tiny.moving_textures import MovingTextures
from perceiver_io.atomic import new_file
from perceiver_io.processors import ImageProcessor, TextProcessor, VideoProcessor, read_class_names
from perceiver_io.training.sampling import Draw
from perceiver_io.visualize import draw_flow, draw_masked_text
from perceiver_io.visualize.style import new_figure
from perceiver_io.weights.locations import bundled_model, sample

IMAGES = Path(__file__).parent / "images"
WIDTH, MARGIN, CAPTION = 1400, 24, 34
TEXT = "Return the name of the file, or None if the file does not exist."
DIGITS = ["digit_2.png", "digit_3.png", "digit_5.png", "digit_6.png", "digit_8.png", "digit_9.png"]
FLOW_SEED = 7


def masked_text() -> Figure:
    model = perceiver_io.load_model("tiny-language")
    batch = TextProcessor.for_model(model)(TEXT, mask="the")
    return draw_masked_text(batch.tokens[0], model(*batch)[0].softmax(-1))


def digits() -> Figure:
    model = perceiver_io.load_model("tiny-image-classification")
    names = read_class_names(bundled_model("tiny-image-classification"))
    images = ImageProcessor.for_model(model, names)([sample(name) for name in DIGITS])
    figure = new_figure(15, 2.9)
    for axes, image, classes in zip(figure.subplots(1, len(DIGITS)), images, model(images).softmax(-1), strict=True):
        axes.imshow(image.mean(0), cmap="gray")
        axes.set_title(f"{names[int(classes.argmax())]}: {classes.max():.0%}", fontsize=15)
        axes.set_axis_off()
    return figure


def flow() -> Figure:
    model = perceiver_io.load_model("tiny-optical-flow")
    pair = MovingTextures(1)[Draw(0, seed=FLOW_SEED)]
    frames = [pair[name] for name in ("frame1", "frame2")]
    pictures = [((frame.permute(1, 2, 0) + 1) * 127.5).byte().numpy() for frame in frames]
    return draw_flow(*pictures, model(*(frame[None] for frame in frames))[0])


def video() -> Figure:
    model = perceiver_io.load_model("tiny-video-autoencoding")
    names = read_class_names(bundled_model("tiny-video-autoencoding"))
    processor = VideoProcessor.for_model(model, names)
    clips = processor(sample("moving_shape.mp4"))
    rebuilt = processor.rebuilt(model(*clips))[0]
    original = (clips.video[0].permute(0, 2, 3, 1) * 255).byte().numpy()
    figure = new_figure(15, 4.6)
    rows = figure.subplots(2, len(original))
    for row, frames, title in zip(rows, (original, rebuilt.frames), ("in", "out"), strict=True):
        for axes, frame in zip(row, frames, strict=True):
            axes.imshow(frame)
            axes.set_axis_off()
        row[0].set_title(title, fontsize=15, loc="left")
    best = rebuilt.classes[0]
    rows[1][1].set_title(f"{best.name}: {best.probability:.0%}", fontsize=15, loc="left")
    return figure


def main() -> None:
    panels = {
        "Masked bytes": masked_text,
        "Digits": digits,
        "Optical flow": flow,
        "Video, sound and label through 96 latents": video,
    }
    with torch.inference_mode():
        pictures = {caption: _picture(draw()) for caption, draw in panels.items()}
    height = MARGIN + sum(CAPTION + picture.height + MARGIN for picture in pictures.values())
    page = Image.new("RGB", (WIDTH + 2 * MARGIN, height), "white")
    top = MARGIN
    for caption, picture in pictures.items():
        ImageDraw.Draw(page).text((MARGIN, top), caption, fill="black", font=ImageFont.load_default(size=24))
        page.paste(picture, (MARGIN, top + CAPTION))
        top += CAPTION + picture.height + MARGIN
    IMAGES.mkdir(exist_ok=True)
    with new_file(IMAGES / "results.png") as file:
        page.save(file, format="PNG", optimize=True)


def _picture(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    picture = Image.open(buffer).convert("RGB")
    return picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)


if __name__ == "__main__":
    main()
