"""Maps our configs to the official Haiku models at those sizes, composed as the reference's colabs compose them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Inputs by name, in the reference's layout (channels last), and is_training → outputs by name; for hk.transform.
Model = Callable[[Mapping[str, Any], bool], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Official:
    """The modules that the models are made of: Haiku and those of the reference's checkout."""

    haiku: Any
    perceiver: Any
    io_processors: Any
    position_encoding: Any


def official_model(official: Official, preset: str, config: Any) -> Model:
    """Maps a preset's name and config to its official model."""
    if preset.startswith("imagenet-"):
        return _image_classification(official, config)
    builders = {
        "language": _language,
        "optical-flow": _optical_flow,
        "video-autoencoding": _video_autoencoding,
    }
    return builders[preset](official, config)


def _encoder(official: Official, config: Any, **options: Any) -> Any:
    return official.perceiver.PerceiverEncoder(
        num_self_attends_per_block=config.num_self_attends_per_block,
        num_blocks=config.num_blocks,
        z_index_dim=config.num_latents,
        num_z_channels=config.num_latent_channels,
        num_self_attend_heads=config.num_self_attend_heads,
        num_cross_attend_heads=config.num_cross_attend_heads,
        **options,
    )


def _fourier(num_bands: int, max_resolution: tuple[int, ...]) -> dict[str, Any]:
    return {
        "position_encoding_type": "fourier",
        "fourier_position_encoding_kwargs": {
            "num_bands": num_bands,
            "max_resolution": tuple(max_resolution),
            "sine_only": False,
            "concat_pos": True,
        },
    }


def _learned(num_channels: int) -> dict[str, Any]:
    return {
        "position_encoding_type": "trainable",
        "trainable_position_encoding_kwargs": {"num_channels": num_channels, "init_scale": 0.02},
    }


def _language(official: Official, config: Any) -> Model:
    def model(inputs: Mapping[str, Any], is_training: bool) -> dict[str, Any]:
        embed = official.haiku.Embed(vocab_size=config.vocab_size, embed_dim=config.embed_channels)
        embedded = embed(inputs["tokens"])
        positions = official.position_encoding.TrainablePositionEncoding(
            index_dim=config.max_seq_len, num_channels=config.embed_channels
        )
        decoder = official.perceiver.BasicDecoder(
            output_num_channels=config.num_latent_channels,
            output_index_dims=config.max_seq_len,
            num_z_channels=config.num_latent_channels,
            qk_channels=config.qk_channels,
            v_channels=config.embed_channels,
            num_heads=config.num_decoder_heads,
            final_project=False,
            use_query_residual=False,
            position_encoding_type="trainable",
            trainable_position_encoding_kwargs={"num_channels": config.embed_channels},
        )
        encoder = _encoder(official, config, qk_channels=config.qk_channels, v_channels=config.num_latent_channels)
        outputs = official.perceiver.Perceiver(encoder=encoder, decoder=decoder)(
            embedded + positions(embedded.shape[0]),
            is_training=is_training,
            input_mask=inputs["mask"],
            query_mask=inputs["mask"],
        )
        return {"logits": official.io_processors.EmbeddingDecoder(embedding_matrix=embed.embeddings)(outputs)}

    return model


def _image_classification(official: Official, config: Any) -> Model:
    if config.position_encoding == "fourier":
        positions = _fourier(config.num_bands, config.max_resolution)
    else:
        positions = {**_learned(config.position_channels), "project_pos_dim": config.position_channels}
    featurizer = {
        "prep_type": config.featurizer,
        "spatial_downsample": 4 if config.featurizer == "conv" else 1,
    }
    if config.featurizer != "pixels":
        featurizer["num_channels"] = config.featurizer_channels

    def model(inputs: Mapping[str, Any], is_training: bool) -> dict[str, Any]:
        perceiver = official.perceiver.Perceiver(
            input_preprocessor=official.io_processors.ImagePreprocessor(**featurizer, **positions),
            encoder=_encoder(official, config),
            decoder=official.perceiver.ClassificationDecoder(
                config.num_classes,
                num_z_channels=config.num_latent_channels,
                use_query_residual=config.decoder_query_residual,
                **_learned(config.num_latent_channels),
            ),
        )
        return {"logits": perceiver(inputs["images"], is_training=is_training)}

    return model


def _optical_flow(official: Official, config: Any) -> Model:
    rescale_factor = 100.0
    positions = _fourier(config.num_bands, config.image_size)

    def model(inputs: Mapping[str, Any], is_training: bool) -> dict[str, Any]:
        perceiver = official.perceiver.Perceiver(
            input_preprocessor=official.io_processors.ImagePreprocessor(
                prep_type="patches",
                spatial_downsample=1,
                temporal_downsample=2,
                conv_after_patching=True,
                num_channels=config.featurizer_channels,
                **positions,
            ),
            encoder=_encoder(official, config),
            decoder=official.perceiver.FlowDecoder(
                config.image_size, rescale_factor=rescale_factor, use_query_residual=False, **positions
            ),
        )
        patches = official.io_processors.patches_for_flow(inputs["frames"])
        return {"flow": perceiver(patches, is_training=is_training) * (config.flow_scale * rescale_factor)}

    return model


def _video_autoencoding(official: Official, config: Any) -> Model:
    num_samples = config.num_frames * config.audio_samples_per_frame
    patches = tuple(size // config.patch_size for size in config.image_size)
    image_positions = _fourier(config.num_image_bands, (config.num_frames, *patches))
    audio_positions = _fourier(config.num_audio_bands, (num_samples,))
    # The modalities' decoders only make queries; one shared decoder answers them.
    query = {"output_num_channels": config.decoder_channels, "use_query_residual": False}

    def model(inputs: Mapping[str, Any], is_training: bool) -> dict[str, Any]:
        points = {"image": inputs["image_points"], "audio": inputs["audio_points"], "label": None}
        batch = inputs["video"].shape[0]
        preprocessor = official.io_processors.MultimodalPreprocessor(
            min_padding_size=config.input_padding_channels,
            modalities={
                "audio": official.io_processors.AudioPreprocessor(
                    samples_per_patch=config.audio_samples_per_patch, **audio_positions
                ),
                "image": official.io_processors.ImagePreprocessor(
                    prep_type="patches", spatial_downsample=config.patch_size, **image_positions
                ),
                "label": official.io_processors.OneHotPreprocessor(),
            },
            mask_probs={"image": 0.0, "audio": 0.0, "label": 1.0},
        )
        decoder = official.perceiver.MultimodalDecoder(
            min_padding_size=config.query_padding_channels,
            num_outputs=None,
            subsampled_index_dims={
                "audio": points["audio"].shape[0],
                "image": points["image"].shape[0],
                "label": 1,
            },
            modalities={
                "audio": official.perceiver.BasicDecoder(
                    output_index_dims=(num_samples // config.audio_samples_per_patch,),
                    **query,
                    **audio_positions,
                ),
                "image": official.perceiver.BasicVideoAutoencodingDecoder(
                    output_shape=inputs["video"].shape[:4], **query, **image_positions
                ),
                "label": official.perceiver.ClassificationDecoder(
                    config.num_classes, use_query_residual=False, **_learned(config.label_query_channels)
                ),
            },
            **query,
        )
        postprocessor = official.io_processors.MultimodalPostprocessor(
            modalities={
                "audio": official.io_processors.AudioPostprocessor(samples_per_patch=config.audio_samples_per_patch),
                "image": official.io_processors.ProjectionPostprocessor(num_outputs=3),
                "label": official.io_processors.ClassificationPostprocessor(num_classes=config.num_classes),
            }
        )
        perceiver = official.perceiver.Perceiver(
            input_preprocessor=preprocessor,
            encoder=_encoder(official, config, name="encoder"),
            decoder=decoder,
            output_postprocessor=postprocessor,
        )
        inputs = {
            "image": inputs["video"],
            "audio": inputs["audio"],
            "label": np.zeros((batch, config.num_classes), np.float32),
        }
        outputs: dict[str, Any] = perceiver(inputs, is_training=is_training, subsampled_output_points=points)
        return outputs

    return model
