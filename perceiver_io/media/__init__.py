"""Files of pictures, sound, video and optical flow: to arrays, and back."""

from perceiver_io.media.audio import SAMPLE_RATE, read_audio, write_wav
from perceiver_io.media.flow import flow_to_image, read_flo, write_flo
from perceiver_io.media.images import image_pixels, load_image
from perceiver_io.media.resizing import resize
from perceiver_io.media.video import FRAME_RATE, fit_frame, read_video, to_frames, video_duration, write_gif, write_mp4

__all__ = [
    "FRAME_RATE",
    "SAMPLE_RATE",
    "fit_frame",
    "flow_to_image",
    "image_pixels",
    "load_image",
    "read_audio",
    "read_flo",
    "read_video",
    "resize",
    "to_frames",
    "video_duration",
    "write_flo",
    "write_gif",
    "write_mp4",
    "write_wav",
]
