"""The task models against what the reference computed, converted by the table of names and by the script."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import perceiver_io
from perceiver_io.weights.haiku_conversion import convert_parameters
from perceiver_io.weights.pystate import HaikuCheckpoint, read_pystate
from tests.golden import GOLDEN_DIR, Case, cases, channels_first, channels_last

PYSTATES = sorted((GOLDEN_DIR / "models").glob("*.pystate"))


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", cases("models"), ids=lambda path: path.stem)
def test_model(path: Path, accelerated: bool) -> None:
    case = Case.load(path)
    preset, overrides = preset_of(case)
    model = perceiver_io.create_model(preset, **overrides).eval()
    if not accelerated:
        perceiver_io.undo_accelerate(model)
    checkpoint = HaikuCheckpoint(params=case.params, state=case.state, sha256="")
    model.load_state_dict(convert_parameters(checkpoint, preset, model.config), strict=True)
    check_outputs(case, model)


@pytest.mark.parametrize("path", PYSTATES, ids=lambda path: path.stem)
def test_converted_pystate(path: Path, tmp_path: Path) -> None:
    from conversion.convert_haiku_checkpoint import main

    matching = cases_of(path)
    assert matching, "no case beside the file has its parameters"
    for case in matching:
        preset, overrides = preset_of(case)
        config = tmp_path / f"{case.name}.json"
        config.write_text(perceiver_io.create_config(preset, **overrides).to_json())
        destination = tmp_path / case.name
        assert main([str(path), str(destination), "--model", preset, "--config", str(config)]) == 0
        check_outputs(case, perceiver_io.load_model(destination))


def check_outputs(case: Case, model: Any) -> None:
    with torch.inference_mode():
        match model:
            case perceiver_io.LanguagePerceiver():
                case.check(out=model(case.inputs["inputs"].long(), case.inputs["input_mask"].bool()))
            case perceiver_io.ImageClassificationPerceiver():
                case.check(out=model(channels_first(case.inputs["images"])))
            case perceiver_io.OpticalFlowPerceiver():
                frame1, frame2 = channels_first(case.inputs["images"]).unbind(1)
                case.check(out=channels_last(model(frame1, frame2)))
            case perceiver_io.VideoAutoencodingPerceiver():
                points = {"image": case.inputs["sub_image"], "audio": case.inputs["sub_audio"]}
                case.check(**model(channels_first(case.inputs["images"]), case.inputs["audio"], points=points))
            case _:
                raise AssertionError(type(model))


def preset_of(case: Case) -> tuple[str, dict[str, Any]]:
    """The preset and the changes to it that a case's configuration, under the reference's names, stands for."""
    c = case.config
    if case.kind == "language":
        return "language", {
            "vocab_size": c["vocab"],
            "max_seq_len": c["seq"],
            "embed_channels": c["d_model"],
            "num_latents": c["z"],
            "num_latent_channels": c["d_latents"],
            "num_self_attends_per_block": c["layers"],
            "num_self_attend_heads": c["heads"],
            "num_cross_attend_heads": c["heads"],
            "num_decoder_heads": c["heads"],
            "qk_channels": c["qk"],
        }
    encoder = {
        "num_latents": c["z"],
        "num_latent_channels": c["zc"],
        "num_self_attends_per_block": c["layers"],
        "num_self_attend_heads": c["heads"],
    }
    if case.kind == "imagenet":
        kind = c["kind"].split("_")[0]
        resolution = c["res"] // 4 if kind == "conv" else c["res"]
        return f"imagenet-{kind}", {
            **encoder,
            "num_blocks": c["blocks"],
            "num_classes": c["classes"],
            "image_size": (c["res"], c["res"]),
            "num_bands": c["bands"],
            "max_resolution": (resolution, resolution),
            "position_channels": c["pos_ch"],
            "featurizer_channels": c["conv1x1_ch"] if kind == "learned" else 64,
        }
    if case.kind == "optical_flow":
        size, bands = tuple(c["hw"]), c["bands"]
        return "optical-flow", {**encoder, "image_size": size, "num_bands": bands, "flow_scale": c["scale"] / 100}
    assert case.kind == "video"
    height, width = case.inputs["images"].shape[2:4]
    return "video-autoencoding", {
        **encoder,
        "num_frames": c["frames"],
        "image_size": (height, width),
        "patch_size": height // c["res"],
        "audio_samples_per_frame": c["spf"],
        "audio_samples_per_patch": c["spp"],
        "num_classes": c["classes"],
        "num_image_bands": c["image_bands"],
        "num_audio_bands": c["audio_bands"],
        "decoder_channels": c["out_ch"],
        "label_query_channels": c["label_ch"],
    }


def cases_of(pystate: Path) -> list[Case]:
    """The cases whose parameters a `.pystate` file holds: of its name, or of the longest beginning that they share."""
    names = [path.stem for path in cases("models")]
    stem = pystate.stem
    own = [name for name in names if name == stem or name.startswith(stem + "_")]
    own = own or [max((name for name in names if stem.startswith(name)), key=len)]
    params = read_pystate(pystate).params
    found = [Case.load(GOLDEN_DIR / "models" / f"{name}.npz") for name in own]
    return [case for case in found if same_arrays(case.params, params)]


def same_arrays(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    """Whether two parameter trees are equal."""
    return first.keys() == second.keys() and all(np.array_equal(first[name], second[name]) for name in first)
