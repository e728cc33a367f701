"""Files of moving pictures and sound: opened safely, and the clock that both tracks share."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_io.media.border import UnreadableError, reading
from perceiver_io.optional import needs_extra

if TYPE_CHECKING:
    from av import AudioStream, VideoStream
    from av.container import InputContainer

# FFmpeg's names for containers of films and sound. Others may be playlists, which name further files, or texts.
_FORMATS = (
    "aac,ac3,aiff,amr,ape,apng,asf,au,avi,caf,dv,eac3,flac,flv,gif,h264,hevc,ivf,m4v,matroska,mov,mp3,mpeg,mpegts,"
    "mpegvideo,mxf,nut,ogg,rm,tta,w64,wav,wv"
)
# Pictures that stay longer, or pauses, come from damaged time stamps; believed, they would fill the memory.
LONGEST_PAUSE = 300.0


@contextmanager
def opened(path: str | Path, kind: str) -> Iterator[InputContainer]:
    """Yields the open file; whatever PyAV raises within the block becomes an error that names the file.

    Args:
        kind: of file, for errors: "video" or "sound file".

    Raises:
        FileNotFoundError: no such file.
        UnreadableError: for any exception in the block.
        ImportError: PyAV is missing; it comes with the `examples` extra.
    """
    with needs_extra("reading films and sound"):
        import av
    if not Path(path).is_file():
        raise FileNotFoundError(f"no {kind} at {path}")
    # Titles may be in any encoding. "file:" keeps FFmpeg from taking the start of a name for a protocol.
    with (
        reading(path, f"a {kind} that FFmpeg can read"),
        av.open(
            f"file:{path}",
            container_options={"format_whitelist": _FORMATS, "protocol_whitelist": "file"},
            metadata_errors="replace",
        ) as container,
    ):
        yield container


def picture_track(container: InputContainer) -> VideoStream | None:
    """Finds the first track of moving pictures; covers of albums are none."""
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails):
            return stream
    return None


def sound_track(container: InputContainer) -> AudioStream | None:
    """Finds the first track of sound."""
    return next(iter(container.streams.audio), None)


def origin(container: InputContainer) -> float:
    """Finds the time, on the file's own clock and in seconds, that we count from.

    It is that of the first picture, or of the first sound in a file without pictures. Pictures and sound of a file
    belong together by this clock: either may start later.
    """
    track = picture_track(container) or sound_track(container)
    if track is None or track.start_time is None or track.time_base is None:
        return 0.0
    return float(track.start_time * track.time_base)


class Clock:
    """The times of a track's frames, from its `origin` on, that never go back.

    Films are joined without minding their clocks, and stamps wrap around or are missing: a frame whose stamp lies
    before that of the frame before it follows on that, and those after it keep their distance.

    Args:
        start: the `origin`.
        path: of the file, for errors.

    Attributes:
        end: of the last frame, in seconds.
    """

    def __init__(self, start: float, path: str | Path) -> None:
        self.end = 0.0
        self._path = path
        self._shift = -start
        self._last = -math.inf

    def place(self, stamp: float | None, lasts: float) -> float:
        """Maps a frame's stamp to its time, in seconds.

        Args:
            stamp: None for a frame that has none.
            lasts: seconds to the end of the frame.

        Raises:
            UnreadableError: the stamp lies so far ahead that it cannot be right.
        """
        time = self.end if stamp is None else stamp + self._shift
        if time < self._last:
            self._shift += self.end - time
            time = self.end
        if time - self.end > LONGEST_PAUSE:
            raise UnreadableError(
                f"{self._path} pauses for {time - self.end:,.0f} s after {self.end:,.0f} s; its time stamps are "
                "damaged: write it anew, with ffmpeg for example"
            )
        self._last, self.end = time, time + min(lasts, LONGEST_PAUSE)
        return time
