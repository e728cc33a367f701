"""krasserm's Perceiver AR, loaded into ours, against what his code computed: one test per golden file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from perceiver_io.autoregressive import PerceiverAR
from perceiver_io.autoregressive.masks import Keep
from perceiver_io.autoregressive.rotary import Rotary, rotate
from perceiver_io.fast import accelerate
from perceiver_io.weights import krasserm, krasserm_ar
from perceiver_io.weights.tables import apply_table
from tests.golden import Case, cases


@pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
@pytest.mark.parametrize("path", cases("perceiver_ar/krasserm"), ids=lambda path: path.stem)
def test_case(path: Path, accelerated: bool) -> None:
    case = Case.load(path)
    if case.name.startswith("rotary"):
        check_rotary(case)
        return
    model = model_of(case)
    if accelerated:
        accelerate(model)
    with torch.inference_mode():
        check_generation(case, model) if case.name.startswith("generate") else check_logits(case, model)


def compare(case: Case, name: str, result: Tensor, expected: np.ndarray) -> None:
    case.check_array(name, result.numpy(), expected, "perceiver ar: krasserm")


def check_rotary(case: Case) -> None:
    positions, x = case.inputs["abs_pos"], case.inputs["t"]
    turned = case.config["dim"]
    rotary = Rotary(
        x.shape[1],
        x.shape[-1],
        max_wavelength=10_000,
        channels_fraction=turned / x.shape[-1],
        frequencies="standard",
    )
    frequencies = rotary.get_buffer("frequency_bits").view(torch.float32)
    angles = (positions[..., None].float() * frequencies).repeat_interleave(2, -1)
    compare(case, "frq_pos_enc", angles, case.outputs["frq_pos_enc"])
    rows = x.shape[2]
    of_rows = positions[:, -rows:] if case.config["right_align"] else positions[:, :rows]
    compare(case, "rotated", rotate(x, rotary(of_rows)), case.outputs["rotated"])


def model_of(case: Case) -> PerceiverAR:
    config = krasserm_ar.model_config(case.config, None)
    # His self-attention sees padding.
    config = type(config).from_dict({**config.to_dict(), "leaks_padding": True})
    tensors = krasserm.unwrap({name: torch.from_numpy(array) for name, array in case.params.items()})
    krasserm_ar.check_frequencies(tensors, config)
    model = PerceiverAR(config).eval()
    model.load_state_dict(apply_table(krasserm_ar.name_table(config), tensors, config, case.name), strict=True)
    return model


def check_logits(case: Case, model: PerceiverAR) -> None:
    tokens = case.inputs["input_ids"].long()
    prefix = case.config["prefix_len"]
    mask = ~case.inputs["pad_mask"].bool() if "pad_mask" in case.inputs else None
    keep = None
    if "prefix_keep" in case.inputs:
        model.train()
        kept = case.inputs["prefix_keep"].bool()
        keep = Keep(torch.cat([kept, kept.new_ones(len(tokens), tokens.shape[1] - prefix)], dim=1))
    options = {"num_latents": tokens.shape[1] - prefix, "mask": mask, "keep": keep}
    compare(case, "logits", model(tokens, **options), case.outputs["logits"])
    latents = model.latents(tokens, **options)
    hidden = latents if model.output_norm is None else model.output_norm(latents)
    compare(case, "last_hidden_state", hidden, case.outputs["last_hidden_state"])


def check_generation(case: Case, model: PerceiverAR) -> None:
    """His two ways as they are: both with more latents or longer memories than training has, once latents are full."""
    config, prompt = model.config, case.inputs["input_ids"].long()
    padding = (case.inputs["attention_mask"] == 0).sum(1)
    first = prompt.shape[1]
    prefix = first - min(first, case.config["num_latents"])
    sequences = torch.from_numpy(case.outputs["sequences"]).long()
    for step, expected in enumerate(case.outputs["scores"]):
        length = first + step
        # One token at most ever joins the prefix, since his code forgets that it did.
        grown = length - prefix > config.num_latents and prefix < config.max_context_length - config.num_latents
        window = slice(max(0, length - config.max_context_length), length)
        logits = model(
            sequences[:, window],
            num_latents=window.stop - window.start - prefix - grown,
            mask=torch.arange(window.start, window.stop) >= padding[:, None],
        )
        compare(case, "scores", logits[:, -1], expected)
        assert torch.equal(logits[:, -1].argmax(-1), sequences[:, length])
    sequences = torch.from_numpy(case.outputs["cached_sequences"]).long()
    cache = model.new_cache()
    for step, expected in enumerate(case.outputs["cached_scores"]):
        length = first + step
        if step == 0:
            mask = torch.arange(first) >= padding[:, None]
            logits = model(prompt, num_latents=first - prefix, mask=mask, cache=cache)
        else:
            logits = model(sequences[:, length - 1 : length], cache=cache)
        compare(case, "cached_scores", logits[:, -1], expected)
        assert torch.equal(logits[:, -1].argmax(-1), sequences[:, length])
