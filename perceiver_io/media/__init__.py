"""Files of pictures, sound, films, optical flow and text: to arrays, and back."""

from perceiver_io.media.arrays import picture_pixels, sound_samples, video_pixels
from perceiver_io.media.audio import SAMPLE_RATE, read_audio, write_wav
from perceiver_io.media.border import MAX_PIXELS, UnreadableError
from perceiver_io.media.flow import flow_to_image, read_flo, read_kitti_flow, read_pfm_flow, write_flo
from perceiver_io.media.images import image_from_bytes, image_pixels, load_image
from perceiver_io.media.midi import Note, read_midi, write_midi
from perceiver_io.media.resizing import resize
from perceiver_io.media.text import read_text
from perceiver_io.media.video import FRAME_RATE, TooShortError, fit_frame, read_video, to_frames, video_duration
from perceiver_io.media.video_writing import write_gif, write_mp4

__all__ = [
    "FRAME_RATE",
    "MAX_PIXELS",
    "SAMPLE_RATE",
    "Note",
    "TooShortError",
    "UnreadableError",
    "fit_frame",
    "flow_to_image",
    "image_from_bytes",
    "image_pixels",
    "load_image",
    "picture_pixels",
    "read_audio",
    "read_flo",
    "read_kitti_flow",
    "read_midi",
    "read_pfm_flow",
    "read_text",
    "read_video",
    "resize",
    "sound_samples",
    "to_frames",
    "video_duration",
    "video_pixels",
    "write_flo",
    "write_gif",
    "write_midi",
    "write_mp4",
    "write_wav",
]
