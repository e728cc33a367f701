"""Damaged, hostile and odd files: each is read, or is one of our errors that names it, within bounds of memory."""

import os
import random
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from perceiver_io.media import (
    MAX_PIXELS,
    UnreadableError,
    load_image,
    read_audio,
    read_flo,
    read_text,
    read_video,
    video_duration,
    write_flo,
    write_gif,
    write_mp4,
    write_wav,
)
from perceiver_io.media.images import FORMATS

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (20, 28, 3), dtype=np.uint8)
FRAMES = RNG.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8)

PICTURES = ["jpg", "png", "gif", "bmp", "tif", "webp", "ppm", "avif", "jp2", "tga", "qoi"]
FILMS = ["mp4", "mkv", "avi", "ts", "webm"]
READERS: dict[str, list[Callable[[Path], object]]] = {
    "picture": [load_image],
    "film": [lambda path: read_video(path, (8, 12), 4), lambda path: read_audio(path, 1200), video_duration],
    "sound": [read_audio],
    "flow": [read_flo],
    "text": [read_text],
}


def write_film(path: Path) -> None:
    codec = {"webm": "libvpx", "avi": "mpeg4"}.get(path.suffix[1:], "libx264")
    with av.open(str(path), "w") as container:
        pictures = container.add_stream(codec, rate=25)
        pictures.height, pictures.width, pictures.pix_fmt = 32, 48, "yuv420p"
        sound = container.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48_000, layout="mono")
        for number, frame in enumerate(FRAMES):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
        form = sound.codec_context.format.name
        samples = np.zeros((1, 960 if path.suffix == ".webm" else 1024), np.float32)
        for number in range(10):
            packed = samples if form.startswith("flt") else (samples * 2**15).astype(np.int16)
            block = av.AudioFrame.from_ndarray(packed, format=form, layout="mono")
            block.sample_rate, block.pts, block.time_base = 48_000, number * samples.shape[1], Fraction(1, 48_000)
            container.mux(sound.encode(block))
        container.mux(sound.encode(None))


def write_sample(path: Path, kind: str) -> None:
    if kind == "picture":
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "a maker"
        options = {"exif": exif} if path.suffix in (".jpg", ".png", ".webp", ".avif", ".tif") else {}
        Image.fromarray(PIXELS).save(path, **options)
    elif kind == "film":
        write_gif(path, FRAMES) if path.suffix == ".gif" else write_film(path)
    elif kind == "sound":
        write_wav(path, torch.rand(3000, 2))
    elif kind == "flow":
        write_flo(path, torch.randn(2, 7, 9))
    else:
        path.write_text("A text of some length, für alle.\n" * 9, encoding="utf-8")


def damaged(content: bytes, random_numbers: random.Random) -> bytes:
    """A few bytes changed, cut out, doubled, or the end lost; mostly near the start, where headers are."""
    data = bytearray(content)
    for _ in range(random_numbers.choice((1, 1, 2, 8))):
        span = min(len(data), 400) if random_numbers.random() < 0.7 else len(data)
        place = random_numbers.randrange(max(span, 1))
        match random_numbers.randrange(5):
            case 0:
                data[place : place + 1] = bytes([random_numbers.randrange(256)])
            case 1:
                data[place : place + 4] = random_numbers.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff"))
            case 2:
                del data[place : place + random_numbers.randrange(1, 40)]
            case 3:
                data[place:place] = data[place : place + random_numbers.randrange(1, 40)]
            case 4:
                del data[random_numbers.randrange(len(data) + 1) :]
    return bytes(data)


CASES = [
    *(("picture", ending) for ending in PICTURES),
    *(("film", ending) for ending in [*FILMS, "gif"]),
    ("sound", "wav"),
    ("flow", "flo"),
    ("text", "txt"),
]


@pytest.mark.filterwarnings("ignore")  # Pillow warns of much; warnings must not be what saves us
@pytest.mark.parametrize(("kind", "ending"), CASES)
def test_damage_is_our_error_with_the_files_name(kind: str, ending: str, tmp_path: Path) -> None:
    write_sample(tmp_path / f"whole.{ending}", kind)
    content = (tmp_path / f"whole.{ending}").read_bytes()
    for reader in READERS[kind]:
        reader(tmp_path / f"whole.{ending}")
    random_numbers = random.Random(0)
    path = tmp_path / f"damaged.{ending}"
    for _ in range(60):
        path.write_bytes(damaged(content, random_numbers))
        for reader in READERS[kind]:
            try:
                reader(path)
            except ValueError as error:
                assert path.name in str(error), error
                assert len(str(error)) < 800
                assert "\n" not in str(error)


@pytest.mark.parametrize("reader", [load_image, read_audio, lambda path: read_video(path, (8, 8)), video_duration])
@pytest.mark.parametrize(
    "raised", [RuntimeError("odd"), struct.error("bytes"), UnicodeDecodeError("utf-8", b"", 0, 1, "no"), KeyError(7)]
)
def test_whatever_a_library_raises_is_our_error(
    reader: Callable[[Path], object], raised: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise raised

    (tmp_path / "file.xyz").write_bytes(b"content")
    monkeypatch.setattr(av, "open", fail)
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(UnreadableError, match=r"file\.xyz is not a .* can read: "):
        reader(tmp_path / "file.xyz")


@pytest.mark.parametrize(
    "call",
    [
        "write_wav(path, torch.zeros(9, 1))",
        "write_flo(path, torch.zeros(2, 3, 4))",
        "write_gif(path, np.zeros((6, 32, 48, 3), np.uint8))",
        "write_mp4(path, np.zeros((6, 32, 48, 3), np.uint8), audio=torch.zeros(99, 1))",
    ],
)
def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left(call: str, tmp_path: Path) -> None:
    # No file may grow beyond some bytes, as on a full disk.
    code = (
        "import resource, signal, sys; from pathlib import Path; import numpy as np, torch\n"
        "from perceiver_io.media import write_flo, write_gif, write_mp4, write_wav\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))\n"
        f"path = Path(sys.argv[1])\ntry: {call}\nexcept OSError as error: print(error)"
    )
    (tmp_path / "file").write_text("old")
    for path in (tmp_path / "full", tmp_path / "file" / "below"):
        ran = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
        assert str(path) in ran.stdout
        assert ran.stdout.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_picture_by_name_that_is_a_program_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    for program in ("gs", "gswin64c", "ffmpeg"):
        (tmp_path / program).write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\n%%EOF\n"
    for ending in ("jpg", "png", "eps", "tif"):
        (tmp_path / f"cat.{ending}").write_bytes(eps)
        with pytest.raises(UnreadableError, match=rf"cat\.{ending} is not a picture"):
            load_image(tmp_path / f"cat.{ending}")
    assert not started.exists()
    Image.init()
    assert not {"EPS", "WMF", "ICO", "FITS", "GRIB"} & set(FORMATS)


def test_a_film_by_name_that_is_a_list_of_files_opens_none(tmp_path: Path) -> None:
    write_film(tmp_path / "secret.mp4")
    lists = {
        "concat": "ffconcat version 1.0\nfile secret.mp4\n",
        "playlist": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsecret.mp4\n#EXT-X-ENDLIST\n",
        "stream": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 4000 RTP/AVP 96\n",
    }
    for name, content in lists.items():
        path = tmp_path / f"{name}.mp4"
        path.write_text(content)
        for reader in READERS["film"]:
            with pytest.raises(UnreadableError, match=rf"{name}\.mp4 is not a"):
                reader(path)


@pytest.mark.parametrize("name", ["take:1.mp4", "2024-01-01 10:30.mp4", "100%d.mp4", "größe #7?.mp4", "-.mp4"])
def test_names_are_no_addresses(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_mp4(name, FRAMES)
    for path in (name, tmp_path / name):
        assert len(read_video(path, (8, 8))) == 6
        assert len(read_audio(path)) == 0


def png(width: int, height: int, content: bytes = b"") -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(content)) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("width", "height"),
    [(0, 0), (0, 5), (2**31 - 1, 2**31 - 1), (9_500, 9_500), (MAX_PIXELS + 1, 1), (1, MAX_PIXELS + 1)],
)
def test_sizes_are_not_believed(width: int, height: int, tmp_path: Path) -> None:
    (tmp_path / "claims.png").write_bytes(png(width, height))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableError, match=r"claims\.png"):
        load_image(tmp_path / "claims.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000, "kilobytes were allocated"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not say what a process takes")
def test_the_largest_picture_takes_little_more_than_its_pixels(tmp_path: Path) -> None:
    Image.new("L", (9_400, 9_400), 7).save(tmp_path / "large.png")
    code = (
        "import sys; from perceiver_io.media import load_image; from perceiver_io.processors import "
        "prepare_image; prepare_image(load_image(sys.argv[1]));"
        # Not `ru_maxrss`, in which a new process has what its parent once took.
        "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "large.png"], capture_output=True, text=True, check=True
    )
    # 253 MiB of pixels, Pillow's own 84, and the library with torch about 300.
    assert int(ran.stdout) / 1024 < 1100


def test_rates_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "slow.wav"
    write_wav(path, torch.zeros(100_000, 1))
    content = bytearray(path.read_bytes())
    content[24:28] = struct.pack("<I", 1)  # a sample a second
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"slow\.wav .*too"):
        read_audio(path)


def test_time_stamps_are_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "pause.mkv"
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("ffv1", rate=25)
        pictures.height, pictures.width, pictures.pix_fmt = 32, 48, "yuv420p"
        pictures.codec_context.time_base = Fraction(1, 1000)
        for time in (0, 40, 90_000_000, 90_000_040):
            picture = av.VideoFrame.from_ndarray(FRAMES[0], format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(pictures.encode(picture))
        container.mux(pictures.encode(None))
    assert len(read_video(path, (8, 8), 2)) == 2
    with pytest.raises(UnreadableError, match=r"pause\.mkv pauses for 90,000 s after 0 s; its time stamps are damaged"):
        read_video(path, (8, 8))


def test_a_text_has_a_bound(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(2**40)  # claims a terabyte, takes none
    with pytest.raises(UnreadableError, match=r"huge\.txt has 1,099,511,627,776 bytes, more than 67,108,864"):
        read_text(tmp_path / "huge.txt")
