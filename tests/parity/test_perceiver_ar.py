"""Perceiver AR against what the reference's code computed: one test per golden file, everything read from the file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from perceiver_io import attention as attentions
from perceiver_io.autoregressive import PerceiverAR, losses, masks
from perceiver_io.autoregressive.cache import KVCache, Slots
from perceiver_io.autoregressive.evaluation import blocks, evaluate
from perceiver_io.autoregressive.masks import Keep
from perceiver_io.autoregressive.positions import formula_rows
from perceiver_io.autoregressive.rotary import Rotary, Rotations, rotate
from perceiver_io.autoregressive.sampling import CodeBooks, Sampler
from perceiver_io.fast import accelerate
from perceiver_io.training import schedules
from perceiver_io.weights import haiku, perceiver_ar
from perceiver_io.weights.haiku_conversion import apply_table
from tests.golden import Case, cases

ACCELERATED = pytest.mark.parametrize("accelerated", [False, True], ids=["plain", "accelerated"])
ACTIVATIONS = {"sq_relu": "squared_relu", "gelu": "gelu_tanh", "relu": "relu"}
# Gradients and trained weights: the reference's own jit lies 8e-6 off in the former (reference/perceiver_ar/README.md).
GRADIENT_TOLERANCE, TRAINED_TOLERANCE = 3e-5, 1e-4


@ACCELERATED
@pytest.mark.parametrize("path", cases("perceiver_ar/blocks"), ids=lambda path: path.stem)
def test_block(path: Path, accelerated: bool) -> None:
    check_block(Case.load(path, accelerated))


def check_block(case: Case) -> None:
    check = next(check for prefix, check in BLOCK_CHECKS.items() if case.name.startswith(prefix))
    check(replace(case, config=dict(case.config)))


@ACCELERATED
@pytest.mark.parametrize("path", cases("perceiver_ar/models"), ids=lambda path: path.stem)
def test_model(path: Path, accelerated: bool) -> None:
    case = Case.load(path)
    model = model_of(case)
    check_model(case, accelerate(model) if accelerated else model)


def check_model(case: Case, model: PerceiverAR) -> None:
    check = MODEL_CHECKS.get(case.name.split("_")[0], check_logits)
    for prefix, special in TRAINING_CHECKS.items():
        if case.name.startswith(prefix):
            check = special
    check(case, model)


def compare(case: Case, group: str, **results: Tensor) -> None:
    for name, result in results.items():
        case.check_array(name, result.detach().cpu().numpy(), case.outputs[name], f"perceiver ar: {group}")


# Blocks


def check_rotation_matrices(case: Case) -> None:
    rotary = Rotary(1, case.config["head_dim"], max_wavelength=case.config["max_wavelength"])
    cosines, sines, _ = rotary(case.inputs["positions"])
    compare(case, "rotary", cos=cosines.repeat_interleave(2, -1), sin=sines.repeat_interleave(2, -1))


def check_rotary(case: Case) -> None:
    x = case.inputs["x"].movedim(2, 1)
    rotary = rotary_of(case.config, x.shape[1], x.shape[-1]).to(x.device)
    compare(case, "rotary", out=rotate(x, rotary(case.inputs["positions"])).movedim(1, 2))


def rotary_of(config: dict[str, Any], num_heads: int, head_channels: int) -> Rotary:
    return Rotary(
        num_heads,
        head_channels,
        max_wavelength=config["max_wavelength"],
        channels_fraction=config["fraction_to_rotate"],
        heads_fraction=config.get("fraction_heads_to_rotate", 1.0),
        head_group_size=config.get("head_group_size") or None,
    )


def rotations_of(case: Case, num_heads: int, head_channels: int, *positions: str) -> Rotations | None:
    if case.config["position_encoding_type"] != "rotary":
        return None
    rotary = rotary_of(case.config, num_heads, head_channels).to(case.inputs[positions[0]].device)
    return Rotations(*(rotary(case.inputs[name]) for name in positions))


def mask_of(case: Case) -> Tensor | None:
    return case.inputs["mask"][:, 0].bool() if "mask" in case.inputs else None


def check_attention(case: Case) -> None:
    config, q, kv = case.config, case.inputs["inputs_q"], case.inputs["inputs_kv"]
    with_bias = config.get("with_final_bias", True)
    module = attentions.Attention(
        q.shape[-1],
        kv.shape[-1],
        num_heads=config["num_heads"],
        qk_channels=config.get("qk_channels"),
        output_channels=config.get("output_channels"),
        output_bias=with_bias,
    )
    case.fill(holder := nn.ModuleDict({"m": module.eval()}), haiku.attention("m", "attention", with_bias))
    heads, head_channels = module.num_heads, module.query.out_features // module.num_heads
    rotations = rotations_of(case, heads, head_channels, "q_positions", "kv_positions")
    mask = mask_of(case)
    with torch.inference_mode():
        if "memory_k" in case.inputs:
            check_memory(case, module, rotations)
            return
        out = holder["m"](q, kv, mask, rotations)
    if mask is not None:  # DEVIATION: rows without keys are zeros here
        attends = mask.any(-1)
        out, case.outputs["out"] = out[attends], case.outputs["out"][attends.cpu().numpy()]
    compare(case, "attention", out=out)


def check_memory(case: Case, module: nn.Module, rotations: Rotations | None) -> None:
    """The reference keeps keys as projected, oldest first, empty ones at the start; ours rotated, in a ring."""
    keys, values, there = (case.inputs[f"memory_{part}"] for part in ("k", "v", "mask"))
    capacity, held = keys.shape[1], int(there[0].sum())
    rotary = None
    if rotations is not None:
        rotary = rotary_of(case.config, keys.shape[2], keys.shape[3])

    def as_kept(keys: Tensor, positions: str) -> Tensor:
        keys = keys.movedim(2, 1)
        return keys if rotary is None else rotate(keys, rotary(torch.as_tensor(case_positions[positions])))

    case_positions = {
        "before": case.inputs.get("memory_kv_positions"),
        "after": case.outputs.get("memory_kv_positions"),
    }
    slots = Slots(capacity)
    cache = KVCache(slots)
    if held:
        slots.advance(held, None)
        cache(as_kept(keys, "before")[:, :, capacity - held :], values.movedim(2, 1)[:, :, capacity - held :])
    slots.advance(1, None)
    out = module(case.inputs["inputs_q"], case.inputs["inputs_kv"], None, rotations, cache)
    compare(case, "attention", out=out)
    check_kept(case, cache, as_kept(torch.from_numpy(case.outputs["memory_k"]), "after"), "memory_v", "memory_mask")


def check_kept(case: Case, cache: KVCache, keys: Tensor, value_name: str, mask_name: str) -> None:
    assert cache.keys is not None and cache.values is not None
    values = torch.from_numpy(case.outputs[value_name]).movedim(2, 1)
    held = cache.slots.held
    assert (case.outputs[mask_name].sum(-1) == held).all()
    order = (torch.arange(held) + cache.slots.count) % held  # the oldest first
    for name, ours, theirs in ((value_name, cache.values, values), ("keys", cache.keys, keys)):
        expected = theirs[:, :, theirs.shape[2] - held :].numpy()
        case.check_array(name, ours[:, :, order].numpy(), expected, "perceiver ar: memory")


def check_self_attention(case: Case) -> None:
    config, x = case.config, case.inputs["x"]
    module = attentions.SelfAttention(
        x.shape[-1],
        num_heads=config["num_heads"],
        widening_factor=config["widening_factor"],
        activation=ACTIVATIONS[config["activation_name"]],
    )
    case.fill(nn.ModuleDict({"m": module.eval()}), haiku.self_attention("m", "self_attention", "dense"))
    rotations = rotations_of(case, config["num_heads"], x.shape[-1] // config["num_heads"], "pos", "pos")
    with torch.inference_mode():
        compare(case, "blocks", out=module(x, mask_of(case), rotations))


def check_cross_attention(case: Case) -> None:
    config, queries, inputs = case.config, case.inputs["queries"], case.inputs["inputs"]
    module = attentions.CrossAttention(
        queries.shape[-1],
        inputs.shape[-1],
        num_heads=config["num_heads"],
        shape_for_attn=config["shape_for_attn"],
        widening_factor=config["widening_factor"],
        use_query_residual=config["use_query_residual"],
        activation=ACTIVATIONS[config["activation_name"]],
    )
    case.fill(nn.ModuleDict({"m": module.eval()}), haiku.cross_attention("m", "cross_attention", "dense"))
    width = module.attention.query.out_features
    rotations = rotations_of(case, config["num_heads"], width // config["num_heads"], "q_positions", "kv_positions")
    with torch.inference_mode():
        compare(case, "blocks", out=module(queries, inputs, mask_of(case), rotations))


def check_dense(case: Case) -> None:
    config, x = case.config, case.inputs["x"]
    activation = ACTIVATIONS[config["activation_name"]]
    module = attentions.MLP(x.shape[-1], widening_factor=config["widening_factor"], activation=activation)
    case.fill(nn.ModuleDict({"m": module.eval()}), haiku.mlp("m", "dense"))
    with torch.inference_mode():
        compare(case, "blocks", out=module(x))


def check_fourier_positions(case: Case) -> None:
    size, channels = case.config["index_dim"], case.config["num_channels"]
    compare(case, "positions", out=formula_rows("fourier", torch.arange(size), size, channels))


def check_sinusoidal(case: Case) -> None:
    size, channels = case.config["max_len"], case.config["size"]
    rows = case.inputs.get("rows", torch.arange(size))
    out = formula_rows("sinusoidal", rows, size, channels)
    assert np.array_equal(out.numpy(), case.outputs["out"])
    compare(case, "positions", out=out)


def check_terminal_relative_positions(case: Case) -> None:
    tokens = case.inputs["inputs"].long()
    model = PerceiverAR(perceiver_ar.reference_config(small_terminal(tokens))).eval()
    aligned, positions, _, _ = model._aligned(tokens, None, None, None)
    for row, (sequence, expected) in enumerate(zip(tokens, case.outputs["out"], strict=True)):
        length = int((sequence != 0).cumprod(0).sum())
        ours = positions.expand(len(tokens), -1, -1)[row, aligned.shape[1] - length :, 0]
        assert np.array_equal(ours.numpy(), expected[:length])


def small_terminal(tokens: Tensor) -> dict[str, Any]:
    return {
        "num_classes": int(tokens.max()) + 1,
        "input_idx_size": [-1],
        "max_context_length": tokens.shape[1],
        "position_encoding_type": "rotary",
        "input_embed_dim": 8,
        "num_z_channels": 8,
        "num_transformers_per_block": 1,
    }


def check_masks(case: Case) -> None:
    """The order and the padding of right-aligned sequences, taken together and put back in the order of the tokens."""
    tokens = case.inputs["inputs"].long()
    repeats, num_latents = case.config["latents_per_position"], case.config["latent_index_dim"]
    batch, length = tokens.shape
    places = num_latents // repeats
    valid = masks.valid_tokens(tokens, 0)
    valid = torch.ones_like(tokens, dtype=torch.bool) if valid is None else valid
    order = masks.right_aligned(valid)
    aligned = valid.gather(1, order)
    last_steps = case.outputs["latent_last_steps"]
    ours = torch.arange(length).expand(batch, -1).gather(1, order)[:, length - places :]
    ours = ours.masked_fill(~aligned[:, length - places :], -1)
    assert np.array_equal(ours.numpy(), last_steps)
    cross = masks.repeated_order(places, length, repeats) & aligned[:, None, :]
    cross = torch.zeros_like(cross).scatter(2, order[:, None, :].expand_as(cross), cross)
    latents = aligned[:, length - places :].repeat_interleave(repeats, 1)
    among = masks.repeated_order(places, places, repeats).repeat_interleave(repeats, 2) & latents[:, None, :]
    rows = latents.numpy()  # those of latents that are there
    assert np.array_equal(cross.numpy()[rows], case.outputs["encoder_mask"][:, 0].astype(bool)[rows])
    assert np.array_equal(among.numpy()[rows], case.outputs["processor_mask"][:, 0].astype(bool)[rows])


def check_loss(case: Case) -> None:
    logits = case.inputs["logits"].clone().requires_grad_()
    result = losses.token_losses(logits, case.inputs["targets"].long(), case.inputs["weights"], **case.config)
    result.loss.sum().backward()
    compare(case, "losses", loss=result.loss, z_loss=result.z_loss, grad_logits=logits.grad)
    assert result.weight_sum.item() == pytest.approx(float(case.outputs["weight_sum"]), rel=1e-6)


def check_shifted(case: Case) -> None:
    events, positions = case.inputs["events"].long(), case.inputs["event_idxs"].long()
    inputs, targets, idxs = losses.inputs_and_targets(events, positions)
    for name, ours in (("inputs", inputs), ("targets", targets), ("input_idxs", idxs)):
        assert ours is not None and np.array_equal(ours.numpy(), case.outputs[name]), name


def check_schedule(case: Case) -> None:
    c = case.config
    warmup, steps = c["warmup_steps"], c["training_steps"]
    schedule = {
        "constant": lambda: schedules.warmup_then_flat(warmup),
        "cosine": lambda: schedules.warmup_then_cosine(warmup + steps, warmup),
        "t5": lambda: schedules.warmup_then_inverse_sqrt(warmup),
        "steps": lambda: schedules.warmup_then_steps(steps, warmup),
    }[c["schedule_type"]]()
    rates = torch.tensor([c["base_lr"] * schedule(int(step)) for step in case.inputs["steps"]])
    compare(case, "schedules", rate=rates)


def check_sampling(case: Case) -> None:
    c, logits = case.config, case.inputs["logits"]
    num_books, book_size = {"image": (3, 256), "soundstream_12kbps": (24, 1024), "soundstream_22kbps": (44, 1024)}.get(
        c.get("modality"), (0, 0)
    )
    sampler = Sampler(
        temperature=c.get("temperature", 1.0),
        top_p=c.get("top_p"),
        allowed=CodeBooks(num_books, book_size) if num_books else None,
    )
    filtered = sampler.filter(logits, c["i"])
    assert np.array_equal(filtered.isfinite().numpy(), case.outputs["kept"])
    compare(case, "sampling", probabilities=filtered.softmax(-1))


BLOCK_CHECKS = {
    "attention": check_attention,
    "cross_attention": check_cross_attention,
    "dense": check_dense,
    "fourier_positions": check_fourier_positions,
    "loss": check_loss,
    "masks": check_masks,
    "rotary": check_rotary,
    "rotation_matrices": check_rotation_matrices,
    "sampling": check_sampling,
    "schedule": check_schedule,
    "self_attention": check_self_attention,
    "shifted_inputs_and_targets": check_shifted,
    "sinusoidal": check_sinusoidal,
    "terminal_relative_positions": check_terminal_relative_positions,
}


# Models

NOT_OF_THE_MODEL = {
    *("is_training", "temperature", "margin", "cached_margin", "z_index_dim_memory", "max_context_length_memory"),
    *("eval_block_size", "z_loss", "label_smoothing", "optimizer"),
}


def model_of(case: Case) -> PerceiverAR:
    options = {name: value for name, value in case.config.items() if name not in NOT_OF_THE_MODEL}
    config = perceiver_ar.reference_config(options)
    model = PerceiverAR(config).eval()
    load(model, case.params, case.name)
    return model


def load(model: PerceiverAR, params: dict[str, np.ndarray], name: str) -> None:
    params = perceiver_ar.without_formulas(params, model.config)
    table = perceiver_ar.name_table(model.config)
    model.load_state_dict(apply_table(table, params, model.state_dict(), name), strict=True)


def positions_of(case: Case, model: PerceiverAR, name: str = "input_idxs") -> Tensor | None:
    return None if model.config.positions_from_end or name not in case.inputs else case.inputs[name].long()


def check_logits(case: Case, model: PerceiverAR) -> None:
    tokens = case.inputs["inputs"].long()
    keep = None
    if case.config.get("is_training"):
        model.train()
        keep = Keep(inputs_kept(case), case.inputs["latent_keep"].bool())
    with torch.inference_mode():
        logits = model(tokens, positions_of(case, model), keep=keep)
    valid = case.outputs["latent_last_steps"] >= 0
    if "encoder_mask" in case.outputs and case.config.get("is_training"):
        # DEVIATION: a latent that attends to nothing gets zeros, which later ones then see.
        attends = case.outputs["encoder_mask"][:, 0].any(-1)
        valid &= np.logical_and.accumulate(attends | ~valid, axis=1)
    expected = case.outputs["logits"]
    assert logits.shape == expected.shape
    case.check_array("logits", logits.cpu().numpy()[valid], expected[valid], "perceiver ar: models")


def inputs_kept(case: Case) -> Tensor:
    keep = case.inputs["encoder_keep"].bool()
    number = case.config.get("train_input_positions", 0)
    if not number:
        return keep
    # The reference goes on with the chosen columns, padding moved last.
    tokens = case.inputs["inputs"]
    chosen = case.inputs["permutation"][:, :number].long()
    order = (tokens.gather(1, chosen) == 0).int().argsort(dim=1, stable=True)
    return torch.zeros_like(tokens, dtype=torch.bool).scatter(1, chosen.gather(1, order), keep)


def check_block_evaluation(case: Case, model: PerceiverAR) -> None:
    documents = [row[row != 0].long() for row in case.inputs["documents"]]
    positions = [row[row != 0].long() for row in case.inputs["document_idxs"]]
    block_size = case.config["eval_block_size"]
    result = evaluate(model, documents, block_size, positions=positions, batch_size=3)
    assert (result.num_tokens, result.num_correct) == (int(case.outputs["num_tokens"]), int(case.outputs["correct"]))
    assert result.nats == pytest.approx(float(case.outputs["loss_sum"]), rel=1e-5)
    cut = list(blocks([len(d) - 1 for d in documents], block_size, model.config.max_context_length))
    for block, window, targets in zip(cut, case.outputs["window_inputs"], case.outputs["window_targets"], strict=True):
        inputs = documents[block.document][block.inputs]
        assert np.array_equal(inputs.numpy(), window[window != 0])
        following = documents[block.document][block.inputs.start + 1 : block.inputs.stop + 1]
        assert np.array_equal(following.numpy(), targets[targets != 0])
    check_window_logits(case, model)


def check_window_logits(case: Case, model: PerceiverAR) -> None:
    tokens, positions = (torch.from_numpy(case.outputs[name]).long() for name in ("window_inputs", "window_input_idxs"))
    with torch.inference_mode():
        logits = model(tokens, positions)
    valid = case.outputs["latent_last_steps"] >= 0
    logits = nn.functional.pad(logits, (0, 0, valid.shape[1] - logits.shape[1], 0))
    case.check_array("logits", logits.numpy()[valid], case.outputs["logits"][valid], "perceiver ar: models")


def check_generation(case: Case, model: PerceiverAR) -> None:
    prompt, positions = case.inputs["prompt"].long(), case.inputs["event_idxs"].long()
    for prefix in ("", "cached_"):
        if f"{prefix}tokens" not in case.outputs:
            continue
        expected = case.outputs[f"{prefix}tokens"][:, prompt.shape[1] :]
        run = model.generate(
            prompt,
            max_new_tokens=expected.shape[1],
            temperature=case.config["temperature"],
            positions=positions,
            num_latents="official",
            max_latents=case.config["z_index_dim_memory"] if prefix else None,
            cache=bool(prefix),
        )
        for step, tokens in enumerate(expected.T):
            if (tokens == 0).any():
                break  # the reference draws padding, which we never do: its sequences end there
            ours = next(run)
            logits = case.outputs[f"{prefix}logits"][step]
            case.check_array(f"{prefix}logits", run.logits.cpu().numpy(), logits, "perceiver ar: generation")
            assert np.array_equal(ours.cpu().numpy(), tokens)
            assert run.num_latents == case.outputs[f"{prefix}num_latents"][step]
        else:
            if prefix:
                check_final_memories(case, model, run.cache)


def check_final_memories(case: Case, model: PerceiverAR, cache: Any) -> None:
    for layer, (kept, rotary) in enumerate(
        ((cache.cross_attends[0], model.cross_rotary), (cache.self_attends[0], model.self_rotary))
    ):
        keys = torch.from_numpy(case.outputs[f"cached_memory_{layer}_k"]).movedim(2, 1)
        if rotary is not None:
            keys = rotate(keys, rotary(torch.from_numpy(case.outputs[f"cached_memory_{layer}_positions"])))
        check_kept(case, kept, keys, f"cached_memory_{layer}_v", f"cached_memory_{layer}_mask")


# Training


def batch_of(case: Case) -> tuple[Tensor, Tensor, Tensor | None]:
    return losses.inputs_and_targets(case.inputs["events"].long(), case.inputs["event_idxs"].long())


def loss_of(case: Case, model: PerceiverAR) -> losses.TokenLosses:
    inputs, targets, positions = batch_of(case)
    options = {name: case.config[name] for name in ("z_loss", "label_smoothing") if name in case.config}
    return losses.next_token_loss(model(inputs, positions), targets, inputs != 0, **options)


def check_loss_and_gradients(case: Case, model: PerceiverAR) -> None:
    model.train()
    result = loss_of(case, model)
    result.loss.sum().backward()
    assert result.loss.sum().item() == pytest.approx(float(case.outputs["loss"]), rel=1e-5)
    assert result.z_loss.sum().item() == pytest.approx(float(case.outputs["z_loss"]), rel=1e-5)
    assert int(result.weight_sum) == int(case.outputs["num_events"])
    expected = expected_tensors(case, model, "grad/")
    ours = {name: parameter.grad for name, parameter in model.named_parameters()}
    first = torch.cat([ours[name].flatten() for name in expected])
    second = torch.cat([expected[name].flatten() for name in expected])
    # Key biases have no gradient but rounding: compared as one vector, they weigh nothing.
    assert ((first - second).abs().max() / second.std()).item() <= GRADIENT_TOLERANCE


def check_updates(case: Case, model: PerceiverAR) -> None:
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    o = case.config["optimizer"]
    schedule = {
        "cosine": lambda: schedules.warmup_then_cosine(o["warmup_steps"] + o["training_steps"], o["warmup_steps"]),
        "constant": lambda: schedules.warmup_then_flat(o["warmup_steps"]),
        "t5": lambda: schedules.warmup_then_inverse_sqrt(o["warmup_steps"]),
    }[o["schedule_type"]]()
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0, betas=(o["b1"], o["b2"]), eps=o["eps"])
    for step, (loss, norm, rate) in enumerate(
        zip(case.outputs["losses"], case.outputs["gradient_norms"], case.outputs["rates"], strict=True)
    ):
        optimizer.zero_grad()
        result = loss_of(case, model).loss.sum()
        result.backward()
        optimizer.param_groups[0]["lr"] = o["base_lr"] * schedule(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(float(rate), rel=1e-5)
        assert result.item() == pytest.approx(float(loss), rel=1e-5)
        total = nn.utils.clip_grad_norm_(model.parameters(), o["max_norm"])
        assert total.item() == pytest.approx(float(norm), rel=1e-5)
        optimizer.step()
    for name, expected in expected_tensors(case, model, "param/").items():
        if not name.endswith("attention.key.bias"):  # theirs have no gradient but rounding
            spread = initial[name].std().item() or 1.0
            assert ((model.state_dict()[name] - expected).abs().max() / spread).item() <= TRAINED_TOLERANCE, name


def expected_tensors(case: Case, model: PerceiverAR, prefix: str) -> dict[str, Tensor]:
    arrays = {name.removeprefix(prefix): array for name, array in case.outputs.items() if name.startswith(prefix)}
    formulas = perceiver_ar.formula_shapes(model.config)
    arrays = {name: array for name, array in arrays.items() if name not in formulas}
    return apply_table(perceiver_ar.name_table(model.config), arrays, model.state_dict(), case.name)


MODEL_CHECKS = {"block": check_block_evaluation, "generate": check_generation}
TRAINING_CHECKS = {"train_loss_and_gradients": check_loss_and_gradients, "train_four_updates": check_updates}
