"""Every building block against what the reference computed: one test per golden file, everything read from the file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perceiver_io import attention as blocks
from perceiver_io import patches as patch_ops
from perceiver_io import position_encoding
from perceiver_io import postprocessors as post
from perceiver_io import preprocessors as pre
from perceiver_io.decoder import PerceiverDecoder, ProjectionDecoder
from perceiver_io.encoder import PerceiverEncoder
from perceiver_io.multimodal import MultimodalPreprocessor
from perceiver_io.queries import PositionQuery
from perceiver_io.weights import haiku
from perceiver_io.weights.haiku_conversion import apply_table
from tests.golden import Case, cases, channels_first, channels_last


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", cases("blocks"), ids=lambda path: path.stem)
def test_block(path: Path, accelerated: bool) -> None:
    check(Case.load(path, accelerated))


def check(case: Case) -> None:
    config = {OPTIONS.get(name, name): value for name, value in case.config.items() if name not in INITIAL_VALUES}
    with torch.inference_mode():
        CHECKS[case.kind](replace(case, config=config))


def check_attention(case: Case) -> None:
    output_bias = case.config.pop("with_final_bias", True)
    q, kv = case.inputs["q"], case.inputs["kv"]
    module = blocks.Attention(q.shape[-1], kv.shape[-1], output_bias=output_bias, **case.config)
    run(case, module, haiku.attention("m", "attention", output_bias), q, kv, mask_of(case))


def check_self_attention(case: Case) -> None:
    x = case.inputs["x"]
    module = blocks.SelfAttention(x.shape[-1], **case.config)
    run(case, module, haiku.self_attention("m", "self_attention"), x, mask_of(case))


def check_cross_attention(case: Case) -> None:
    q, kv = case.inputs["q"], case.inputs["kv"]
    module = blocks.CrossAttention(q.shape[-1], kv.shape[-1], **case.config)
    run(case, module, haiku.cross_attention("m", "cross_attention"), q, kv, mask_of(case))


def check_mlp(case: Case) -> None:
    x = case.inputs["x"]
    run(case, blocks.MLP(x.shape[-1], **case.config), haiku.mlp("m", "mlp"), x)


def check_encoder(case: Case) -> None:
    x = case.inputs["x"]
    config = renamed(
        case.config,
        z_index_dim="num_latents",
        num_z_channels="num_latent_channels",
        cross_attention_shape_for_attn="shape_for_attn",
    )
    module = PerceiverEncoder(x.shape[-1], **config)
    table = haiku.encoder("m", "perceiver_encoder", len(module.self_attends))
    run(case, module, table, x, mask_of(case))


def check_basic_decoder(case: Case) -> None:
    config = case.config
    latents = case.inputs["z"]
    table, encoding = positions(config, "basic_decoder/~", config["output_index_dims"], "query.position_encoding")
    features = case.inputs.get("xin")
    query = PositionQuery(encoding, concat_inputs=0 if features is None else features.shape[-1])
    decoder = decoder_of(config, query.num_channels, latents.shape[-1])
    both = nn.ModuleDict({"query": query, "decoder": decoder})
    case.fill(both, table + haiku.decoder("decoder", "basic_decoder", output=decoder.output is not None))
    inputs = None if features is None else pre.InputTokens(features, features)
    points = torch.tensor(config["points"]) if "points" in config else None
    queries = query(points, inputs)
    results = {"query": queries.expand(len(latents), -1, -1)} if "query" in case.outputs else {}
    case.check(out=decoder(queries, latents, mask_of(case, "query_mask")), **results)


def check_classification_decoder(case: Case) -> None:
    latents = case.inputs["z"]
    source = "classification_decoder/~/basic_decoder"
    embeddings = case.params[f"{source}/~/trainable_position_encoding/pos_embs"]
    query = PositionQuery(position_encoding.LearnedPositionEncoding(*embeddings.shape))
    config = renamed(case.config, num_classes="output_num_channels")
    decoder = decoder_of(config, query.num_channels, latents.shape[-1])
    both = nn.ModuleDict({"query": query, "decoder": decoder})
    learned = haiku.learned_positions("query.position_encoding", f"{source}/~/trainable_position_encoding")
    case.fill(both, learned + haiku.decoder("decoder", source))
    case.check(out=post.FirstOutputPostprocessor()(decoder(query(), latents)))


def check_projection_decoder(case: Case) -> None:
    latents = case.inputs["z"]
    module = ProjectionDecoder(latents.shape[-1], case.config["num_classes"])
    run(case, module, haiku.linear("m.output", "projection_decoder/~/logits"), None, latents)


def check_fourier(case: Case) -> None:
    config = dict(case.config)
    given = case.inputs.get("pos")
    index_dims = config.pop("index_dims", None) or config["max_resolution"]
    module = position_encoding.FourierPositionEncoding(index_dims, **config)
    case.check(out=module(given))


def check_linear_positions(case: Case) -> None:
    result = position_encoding.linear_positions([case.config["n"]]).numpy()
    assert np.array_equal(result, case.outputs["out"])
    case.check_array("out", result, case.outputs["out"])


def check_image_pre(case: Case) -> None:
    config = dict(case.config)
    x = channels_first(case.inputs["x"])
    featurizer, table = featurizer_of(config, x.shape[-3])
    grid = featurizer(x)
    more, encoding = positions(config, BUILD.format("image_preprocessor"), grid.shape[1:-1], "m.position_encoding")
    module = pre.Preprocessor(featurizer, encoding, concat_or_add_pos=config.get("concat_or_add_pos", "concat"))
    module.train(config.get("call", {}).get("is_training", False))
    check_preprocessor(case, module, table + more, x)


def check_audio_pre(case: Case) -> None:
    config, audio = case.config, case.inputs["x"]
    featurizer = pre.AudioPatches(config.get("samples_per_patch", 96))
    index_dims = featurizer(audio).shape[1:-1]
    table, encoding = positions(config, BUILD.format("audio_preprocessor"), index_dims, "m.position_encoding")
    module = pre.Preprocessor(featurizer, encoding, concat_or_add_pos=config.get("concat_or_add_pos", "concat"))
    check_preprocessor(case, module.eval(), table, audio)


def check_image_post(case: Case) -> None:
    config, x = case.config, case.inputs["x"]
    if "input_reshape_size" in config:
        x = post.ReshapePostprocessor(config["input_reshape_size"])(x)
    else:
        x = channels_first(x)
    time, space = config.get("temporal_upsample", 1), config.get("spatial_upsample", 1)
    module: nn.Module
    source = "image_postprocessor/~"
    match config["postproc_type"]:
        case "pixels":
            module, table = post.IdentityPostprocessor(), []
        case "patches":
            module, table = post.PatchesPostprocessor(spatial_upsample=space, temporal_upsample=time), []
        case "conv1x1":
            module = post.Conv1x1Postprocessor(x.shape[-3], config["n_outputs"], stride=space)
            table = haiku.conv1x1("m.linear", f"{source}/conv2_d")
        case "conv" if time == 1:
            module = post.ConvUpsamplePostprocessor(x.shape[-3], config["n_outputs"])
            table = haiku.conv_2d_upsample("m.upsample", f"{source}/conv2_d_upsample")
        case "conv":
            module = post.Conv3DUpsamplePostprocessor(
                x.shape[-3], config["n_outputs"], temporal_upsample=time, spatial_upsample=space
            )
            table = haiku.conv_3d_upsample("m.upsample", f"{source}/conv3_d_upsample", len(module.upsample.layers))
    case.fill(nn.ModuleDict({"m": module}), table)
    case.check(out=channels_last(module(x)))


def check_audio_post(case: Case) -> None:
    x = case.inputs["x"]
    table = haiku.linear("m.linear", "audio_postprocessor/linear")
    samples = case.params["audio_postprocessor/linear/b"].shape[0]
    run(case, post.AudioPostprocessor(x.shape[-1], samples), table, x)


def check_classification_post(case: Case) -> None:
    x = case.inputs["x"]
    table = haiku.linear("m.linear", "classification_postprocessor/linear")
    num_classes = case.params["classification_postprocessor/linear/b"].shape[0]
    run(case, post.ClassificationPostprocessor(x.shape[-1], num_classes), table, x)


def check_projection_post(case: Case) -> None:
    x = case.inputs["x"]
    table = haiku.linear("m.linear", "projection_postprocessor/linear")
    out_channels = case.params["projection_postprocessor/linear/b"].shape[0]
    run(case, post.ProjectionPostprocessor(x.shape[-1], out_channels), table, x)


def check_embedding_decoder(case: Case) -> None:
    vectors = case.inputs["embedding"]
    embedding = pre.ByteEmbedding(*vectors.shape)
    embedding.load_state_dict({"weight": vectors})
    table = [haiku.Row("m.bias", "embedding_decoder/bias")]
    run(case, post.TiedEmbeddingPostprocessor(embedding), table, case.inputs["x"])


def check_multimodal_pre(case: Case) -> None:
    """Images in 4×4 patches, audio and a one-hot label, whose sizes follow from the arrays."""
    image, audio, label = channels_first(case.inputs["image"]), case.inputs["audio"], case.inputs["label"]
    source = "multimodal_preprocessor"
    total = case.outputs["out"].shape[-1]
    widths = {
        name: total - case.params[f"{source}/{name}_padding/pos_embs"].shape[-1] for name in ("audio", "image", "label")
    }
    patch_area = case.outputs["without_pos.image"].shape[-1] // image.shape[-3]
    image_patches = pre.Patches(image.shape[-3], spatial_downsample=round(patch_area**0.5))
    audio_patches = pre.AudioPatches(case.outputs["without_pos.audio"].shape[-1])

    tokens_before = 0
    offsets = {}
    for name in sorted(widths):
        offsets[name] = tokens_before
        tokens_before += case.outputs[f"without_pos.{name}"].shape[1]

    def fourier(name: str, featurizer: nn.Module, x: Tensor) -> pre.Preprocessor:
        index_dims = featurizer(x).shape[1:-1]
        features = featurizer.num_channels
        num_bands = ((widths[name] - features) // len(index_dims) - 1) // 2
        rows = slice(offsets[name], offsets[name] + int(np.prod(index_dims)))
        expected = torch.from_numpy(case.outputs["out"][:1, rows, features : widths[name]])
        masked = (case.config.get("mask_probs") or {}).get(name) == 1
        resolution = None if masked else resolution_of(index_dims, num_bands, expected)
        encoding = position_encoding.FourierPositionEncoding(index_dims, num_bands=num_bands, max_resolution=resolution)
        return pre.Preprocessor(featurizer, encoding)

    module = MultimodalPreprocessor(
        {
            "image": fourier("image", image_patches, image),
            "audio": fourier("audio", audio_patches, audio),
            "label": pre.Preprocessor(pre.OneHot(label.shape[-1])),
        },
        **case.config,
    ).eval()
    names = sorted(widths)
    table = haiku.padding("m.padding", source, "padding", names)
    if case.config.get("mask_probs") is not None:
        table += haiku.padding("m.mask_tokens", source, "mask_token", names)
    case.fill(nn.ModuleDict({"m": module}), table)
    tokens = module({"image": image, "audio": audio, "label": label})
    sizes = {name: features.shape[1] for name, features in tokens.features.items()}
    assert sizes == {name: int(case.outputs[f"sizes.{name}"]) for name in names}
    case.check(out=tokens.tokens, **{f"without_pos.{name}": tokens.features[name] for name in names})


def resolution_of(index_dims: Any, num_bands: int, expected: Tensor) -> list[int]:
    """The resolution of a Fourier encoding, which the file does not say: per axis the one that explains it best."""
    grid = position_encoding.linear_positions(index_dims).reshape(-1, len(index_dims)).double()
    candidates = torch.arange(1, 2**16)
    bands = 1 + (candidates[:, None] / 2 - 1).double() * torch.linspace(0, 1, num_bands, dtype=torch.float64)
    resolution = []
    for axis in range(len(index_dims)):
        sines, cosines = (len(index_dims) + (axis + shift) * num_bands for shift in (0, len(index_dims)))
        waves = torch.cat([expected[0, :, start : start + num_bands] for start in (sines, cosines)], dim=-1)
        errors = torch.zeros(len(candidates), dtype=torch.float64)
        for point, wave in zip(grid[:, axis], waves, strict=True):
            angles = torch.pi * point * bands
            errors += (torch.cat([angles.sin(), angles.cos()], dim=-1) - wave).abs().sum(-1)

        def exact_error(candidate: int, axis: int = axis, waves: Tensor = waves) -> float:
            encoding = position_encoding.FourierPositionEncoding(
                index_dims, num_bands=num_bands, max_resolution=[candidate] * len(index_dims)
            )()[0]
            starts = [len(index_dims) + (axis + shift) * num_bands for shift in (0, len(index_dims))]
            own = torch.cat([encoding[:, start : start + num_bands] for start in starts], dim=-1)
            return float((own - waves).abs().max())

        # On few points many frequencies look alike; only float32 rounding tells them apart.
        alike = candidates[errors / waves.numel() < 5e-3].tolist()
        resolution.append(next(candidate for candidate in alike if exact_error(candidate) < 1e-6))
    return resolution


def check_extract_patches(case: Case) -> None:
    config = case.config
    patches = patch_ops.extract_patches(
        channels_first(case.inputs["x"]), config["size"], config["stride"], config["rate"], config["padding"]
    )
    case.check(out=channels_last(patches))


def check_patches_for_flow(case: Case) -> None:
    case.check(out=channels_last(patch_ops.patches_for_flow(channels_first(case.inputs["x"]))))


def check_space_to_depth(case: Case) -> None:
    blocks_of = block_sizes(case.inputs["x"].shape, case.outputs["out"].shape)
    case.check(out=channels_last(patch_ops.space_to_depth(channels_first(case.inputs["x"]), *blocks_of)))


def check_reverse_space_to_depth(case: Case) -> None:
    blocks_of = block_sizes(case.outputs["out"].shape, case.inputs["x"].shape)
    case.check(out=channels_last(patch_ops.reverse_space_to_depth(channels_first(case.inputs["x"]), *blocks_of)))


# Names of the reference's options that differ from ours in every block, and options that only matter to new weights.
OPTIONS = {"dropout_attn_prob": "attention_dropout_prob"}
INITIAL_VALUES = {
    "init_scale",
    "final_init_scale_multiplier",
    "att_init_scale",
    "dense_init_scale",
    "z_pos_enc_init_scale",
    "output_w_init",
}
CHECKS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("check_"): function for name, function in globals().items() if name.startswith("check_")
}
BUILD = "{}/~_build_network_inputs"


def run(case: Case, module: nn.Module, table: haiku.Table, *inputs: Tensor | None) -> None:
    """Fills the module (called "m" in the table), runs it on the inputs and compares `out`."""
    case.fill(nn.ModuleDict({"m": module.eval()}), table)
    case.check(out=module(*inputs))


def check_preprocessor(case: Case, module: pre.Preprocessor, table: haiku.Table, x: Tensor) -> None:
    holder = nn.ModuleDict({"m": module})
    case.fill(holder, table)
    tokens = module(x, positions=case.inputs.get("pos"))
    case.check(out=tokens.tokens, without_pos=tokens.features)
    if case.new_state:
        rows = [row for row in table if row.source in case.new_state]
        state = holder.state_dict()
        expected = apply_table(rows, case.new_state, {row.target: state[row.target] for row in rows}, "new state")
        for name, tensor in expected.items():
            case.check_array(name, state[name].double().cpu().numpy(), tensor.double().numpy())


def mask_of(case: Case, *names: str) -> Tensor | None:
    for name in names or ("mask",):
        if name in case.inputs:
            return case.inputs[name].bool()
    return None


def renamed(config: dict[str, Any], **names: str) -> dict[str, Any]:
    return {names.get(key, key): value for key, value in config.items()}


def block_sizes(fine: Any, coarse: Any) -> tuple[int, int]:
    """Spatial and temporal block size between two channels-last shapes."""
    return fine[-2] // coarse[-2], fine[1] // coarse[1] if len(fine) == 5 else 1


def decoder_of(config: dict[str, Any], query_channels: int, latent_channels: int) -> PerceiverDecoder:
    return PerceiverDecoder(
        query_channels,
        latent_channels,
        output_channels=config["output_num_channels"] if config.get("final_project", True) else None,
        num_heads=config.get("num_heads", 1),
        qk_channels=config.get("qk_channels"),
        v_channels=config.get("v_channels"),
        use_query_residual=config.get("use_query_residual", False),
    ).eval()


def featurizer_of(config: dict[str, Any], in_channels: int) -> tuple[nn.Module, haiku.Table]:
    """The featurizer of an image preprocessor and its table, with the reference's defaults."""
    space, time = config.get("spatial_downsample", 4), config.get("temporal_downsample", 1)
    channels = config.get("num_channels", 64)
    match config.get("prep_type", "conv"):
        case "pixels":
            return pre.Pixels(in_channels, spatial_downsample=space, temporal_downsample=time), []
        case "conv1x1":
            table = haiku.conv1x1("m.featurizer.linear", "image_preprocessor/~/conv2_d")
            return pre.Conv1x1(in_channels, channels, spatial_downsample=space), table
        case "patches":
            mixed = config.get("conv_after_patching", False)
            patches = pre.Patches(
                in_channels,
                spatial_downsample=space,
                temporal_downsample=time,
                num_channels=channels if mixed else None,
            )
            return patches, haiku.linear("m.featurizer.linear", "image_preprocessor/patches_linear") if mixed else []
        case "conv":
            num_layers = round(np.log(space) / np.log(4))
            batchnorm = config.get("conv2d_use_batchnorm", True)
            stem = pre.ConvStem(in_channels, channels, num_layers=num_layers, use_batchnorm=batchnorm)
            # Only its output's size is of interest before it is filled, and that must not count as training.
            source = "image_preprocessor/~/conv2_d_downsample"
            return stem.eval(), haiku.conv_downsample("m.featurizer.downsample", source, num_layers, batchnorm)
    raise AssertionError(config["prep_type"])


def positions(config: dict[str, Any], source: str, index_dims: Any, target: str) -> tuple[haiku.Table, nn.Module]:
    """The position encoding that a configuration of the reference describes, and its table."""
    encoding: nn.Module
    table: haiku.Table = []
    base = target
    if config.get("n_extra_pos_mlp"):
        base += ".base"
    if config.get("project_pos_dim", -1) > 0:
        base += ".base"
    if config.get("position_encoding_type", "fourier") == "fourier":
        encoding = position_encoding.FourierPositionEncoding(index_dims, **config["fourier_position_encoding_kwargs"])
    else:
        channels = config["trainable_position_encoding_kwargs"]["num_channels"]
        encoding = position_encoding.LearnedPositionEncoding(int(np.prod(index_dims)), channels)
        table += haiku.learned_positions(base, f"{source}/trainable_position_encoding")
    if config.get("project_pos_dim", -1) > 0:
        encoding = position_encoding.ProjectedPositionEncoding(encoding, config["project_pos_dim"])
        table += haiku.linear(
            f"{base.removesuffix('.base')}.projection", f"{source}/position_encoding_projector/linear"
        )
    if config.get("n_extra_pos_mlp"):
        encoding = position_encoding.ResidualMLPPositionEncoding(encoding, config["n_extra_pos_mlp"])
        table += haiku.residual_mlp_positions(target, source, config["n_extra_pos_mlp"])
    return table, encoding
