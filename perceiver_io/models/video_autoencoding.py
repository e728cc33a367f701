"""Autoencoding of video, audio and label together, Kinetics-style (paper, section 4.4)."""

import dataclasses
from collections.abc import Mapping

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from perceiver_io.checks import check_batch, check_floats
from perceiver_io.decoder import PerceiverDecoder
from perceiver_io.models.config import EncoderConfig
from perceiver_io.multimodal import MultimodalPreprocessor, MultimodalQuery
from perceiver_io.perceiver import Encoding, PerceiverIO, Progress
from perceiver_io.position_encoding import FourierPositionEncoding, LearnedPositionEncoding, Points
from perceiver_io.postprocessors import (
    AudioPostprocessor,
    ClassificationPostprocessor,
    ProjectionPostprocessor,
)
from perceiver_io.preprocessors import AudioPatches, OneHot, Patches, Preprocessor
from perceiver_io.queries import PositionQuery

# Outputs decoded at a time when a whole clip is: large enough for fast products, small enough for any machine.
DEFAULT_CHUNK_SIZE = 65536


@dataclasses.dataclass(frozen=True, kw_only=True)
class VideoAutoencodingConfig(EncoderConfig):
    """Sizes of a `VideoAutoencodingPerceiver`; the defaults are the released model's (19.9M parameters).

    Attributes:
        num_frames: frames of a clip.
        image_size: height and width of a frame in pixels.
        patch_size: height and width of an input patch in pixels.
        audio_samples_per_frame: audio samples per video frame (48 kHz at 25 frames a second).
        audio_samples_per_patch: samples of an audio patch, in and out.
        num_classes: number of labels.
        num_image_bands: frequencies per axis (time, row, column).
        num_audio_bands: frequencies in time.
        decoder_channels: width of the decoder's output, before each modality's own layer.
        label_query_channels: width of the label's trained query.
        input_padding_channels: trained channels that the widest input is padded with.
        query_padding_channels: trained channels that the widest query is padded with.
    """

    num_frames: int = 16
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 4
    audio_samples_per_frame: int = 1920
    audio_samples_per_patch: int = 16
    num_classes: int = 700
    num_image_bands: int = 32
    num_audio_bands: int = 192
    num_latents: int = 784
    num_latent_channels: int = 512
    num_self_attends_per_block: int = 8
    num_blocks: int = 1
    decoder_channels: int = 512
    label_query_channels: int = 1024
    input_padding_channels: int = 4
    query_padding_channels: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.image_size:
            if size % self.patch_size:
                raise ValueError(f"patch_size ({self.patch_size}) must divide image_size ({self.image_size})")
        if self.num_audio_samples % self.audio_samples_per_patch:
            raise ValueError(
                f"audio_samples_per_patch ({self.audio_samples_per_patch}) must divide the clip's samples "
                f"({self.num_audio_samples} = num_frames · audio_samples_per_frame)"
            )

    @property
    def num_audio_samples(self) -> int:
        """Audio samples of a clip."""
        return self.num_frames * self.audio_samples_per_frame

    @property
    def num_audio_patches(self) -> int:
        """Audio patches of a clip."""
        return self.num_audio_samples // self.audio_samples_per_patch


class VideoAutoencodingPerceiver(PerceiverIO):
    """Maps a clip with its sound to a reconstruction of both and to a label.

    The label is an input too. It is masked unless it is given, which only training does: the model has to infer it.
    Source: the reference's `video_autoencoding` colab.
    """

    def __init__(self, config: VideoAutoencodingConfig) -> None:
        height, width = config.image_size
        # QUIRK: image queries lie on the grid of pixels but have the frequencies of the coarser grid of patches.
        patch_grid = (config.num_frames, height // config.patch_size, width // config.patch_size)
        pixel_grid = (config.num_frames, height, width)
        audio_grid = (config.num_audio_patches,)
        audio_resolution = (config.num_audio_samples,)
        preprocessor = MultimodalPreprocessor(
            {
                "audio": Preprocessor(
                    AudioPatches(config.audio_samples_per_patch),
                    FourierPositionEncoding(
                        audio_grid, num_bands=config.num_audio_bands, max_resolution=audio_resolution
                    ),
                ),
                "image": Preprocessor(
                    Patches(3, spatial_downsample=config.patch_size),
                    FourierPositionEncoding(patch_grid, num_bands=config.num_image_bands, max_resolution=patch_grid),
                ),
                "label": Preprocessor(OneHot(config.num_classes)),
            },
            mask_probs={"audio": 0.0, "image": 0.0, "label": 1.0},
            min_padding_size=config.input_padding_channels,
        )
        query = MultimodalQuery(
            {
                "audio": PositionQuery(
                    FourierPositionEncoding(
                        audio_grid, num_bands=config.num_audio_bands, max_resolution=audio_resolution
                    )
                ),
                "image": PositionQuery(
                    FourierPositionEncoding(pixel_grid, num_bands=config.num_image_bands, max_resolution=patch_grid)
                ),
                "label": PositionQuery(LearnedPositionEncoding(1, config.label_query_channels)),
            },
            min_padding_size=config.query_padding_channels,
        )
        super().__init__(
            input_preprocessor=preprocessor,
            encoder=config.encoder(preprocessor.num_channels),
            output_query=query,
            decoder=PerceiverDecoder(
                query.num_channels,
                config.num_latent_channels,
                output_channels=config.decoder_channels,
                activation=config.activation,
            ),
            output_postprocessor={
                "audio": AudioPostprocessor(config.decoder_channels, config.audio_samples_per_patch),
                "image": ProjectionPostprocessor(config.decoder_channels, 3),
                "label": ClassificationPostprocessor(config.decoder_channels, config.num_classes),
            },
        )
        self.config = config

    def encode_clip(
        self,
        video: Float[Tensor, "batch time 3 height width"],
        audio: Float[Tensor, "batch samples 1"],
        label: Float[Tensor, "batch classes"] | None = None,
    ) -> Encoding:
        """Maps video in 0…1, audio in -1…1 and, if known, a one-hot label to their encoding.

        Raises:
            ValueError: if the clip or the label is not of the configured size.
        """
        config, dtype = self.config, self.dtype
        check_floats("video", video, ("batch", config.num_frames, 3, *config.image_size), dtype)
        check_floats("audio", audio, ("batch", config.num_audio_samples, 1), dtype)
        check_batch("audio", audio.shape[0], "video", video.shape[0])
        if label is not None:
            check_floats("label", label, ("batch", config.num_classes), dtype)
            check_batch("label", label.shape[0], "video", video.shape[0])
        if label is None:
            unknown = video.new_zeros(video.shape[0], self.config.num_classes)
            return self.encode({"audio": audio, "image": video, "label": unknown})
        masked = {"label": (label == 0).all(1, keepdim=True)}
        return self.encode({"audio": audio, "image": video, "label": label}, masked=masked)

    def forward(  # type: ignore[override]  # a task model's arguments are its own
        self,
        video: Float[Tensor, "batch time 3 height width"],
        audio: Float[Tensor, "batch samples 1"],
        points: Mapping[str, Points] | None = None,
        chunk_size: int | None = None,
        progress: Progress = iter,
        label: Float[Tensor, "batch classes"] | None = None,
    ) -> dict[str, Tensor]:
        """Reconstructs a clip; the encoder runs once however many chunks are decoded.

        Args:
            video: values in 0…1.
            audio: values in -1…1.
            points: flat indices of the pixels ("image") and audio patches ("audio") to decode; None decodes everything,
                on the grid of indices, as the released model is used.
            chunk_size: outputs decoded at a time; None chooses.
            progress: wraps the iteration over chunks, for instance `tqdm`.
            label: one-hot, as an input; it is masked where the row is all zeros, and for all examples if None.

        Returns:
            "label": logits [batch, classes]. Without `points`, "image" [batch, time, 3, height, width] and "audio"
            [batch, samples, 1]; with them, "image" [batch, points, 3] and "audio" [batch, points · samples_per_patch],
            each only if it was asked for.
        """
        encoding = self.encode_clip(video, audio, label)
        whole = {
            "audio": torch.arange(self.config.num_audio_patches, device=video.device),
            "image": torch.arange(self.config.num_frames * video.shape[-2] * video.shape[-1], device=video.device),
        }
        if points is not None and not isinstance(points, Mapping):
            raise ValueError(f'points ({type(points).__name__}) must be a dict with "image", "audio" or both')
        chosen = {"label": None, **(whole if points is None else points)}
        outputs: dict[str, Tensor] = self.decode(
            encoding,
            points=chosen,
            chunk_size=DEFAULT_CHUNK_SIZE if chunk_size is None else chunk_size,
            progress=progress,
        )
        if points is None:
            outputs["audio"] = outputs["audio"].unsqueeze(-1)
            outputs["image"] = rearrange(
                outputs["image"],
                "batch (time height width) channels -> batch time channels height width",
                time=self.config.num_frames,
                height=video.shape[-2],
            )
        return outputs
