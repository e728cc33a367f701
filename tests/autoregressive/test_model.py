"""What a `PerceiverAR` computes: causality, padding, latents, dropout, and what it refuses."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

import perceiver_io
from perceiver_io.autoregressive import PerceiverAR, PerceiverARConfig
from perceiver_io.autoregressive.masks import Keep
from tests.autoregressive.small import CACHED, KINDS, SIZES, padded, random_tokens, small_model


def close(first: Tensor, second: Tensor, bar: float = 1e-5) -> bool:
    return ((first - second).abs().max() / second.std()).item() <= bar


@pytest.mark.parametrize("kind", KINDS)
def test_later_tokens_have_no_influence(kind: str) -> None:
    if "from_the_end" in kind:
        pytest.skip("positions from the end change with every token")
    model = small_model(kind)
    (tokens,) = random_tokens(13)
    changed = tokens.clone()
    changed[10:] = random_tokens(3, seed=5)[0]
    first, second = model(tokens[None]), model(changed[None])
    rows = first.shape[1] - 3
    assert torch.allclose(first[:, :rows], second[:, :rows], atol=1e-6)
    assert not torch.allclose(first[:, rows:], second[:, rows:], atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", ["right", "left", "token"])
def test_padding_has_no_influence(kind: str, side: str) -> None:
    model = small_model(kind)
    rows = random_tokens(9, 4, 13)
    tokens, mask = padded(rows), torch.arange(13) < torch.tensor([[len(row)] for row in rows])
    if side == "left":
        tokens, mask = tokens.flip(1), mask.flip(1)
        for row, own in enumerate(rows):
            tokens[row, 13 - len(own) :] = own
    tokens[~mask] = 0 if side == "token" else 7
    logits = model(tokens, mask=None if side == "token" else mask)
    for row, own in enumerate(rows):
        alone = model(own[None])[0]
        assert close(logits[row, -len(alone) :], alone)


def test_logits_do_not_depend_on_the_rest_of_the_batch_in_any_precision() -> None:
    model = small_model().bfloat16()
    rows = random_tokens(9, 4)
    logits = model(padded(rows))
    assert logits.dtype == torch.bfloat16
    assert close(logits[1, -4:].float(), model(rows[1][None])[0].float(), 5e-2)
    # Frequencies stay those of float32.
    assert model.cross_rotary is not None
    assert model.cross_rotary(torch.arange(3)[None]).cosines.dtype == torch.float32


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "two_latents_a_position"])
def test_number_of_latents_changes_no_parameter(kind: str) -> None:
    model = small_model(kind)
    tokens = random_tokens(13)[0][None]
    assert model(tokens).shape == (1, 6, 23)
    assert model(tokens, num_latents=2).shape == (1, 2, 23)
    assert model(tokens[:, :3]).shape == (1, 3, 23)
    assert close(model.next_logits(tokens, num_latents=2), model(tokens, num_latents=2)[:, -1])


def test_latents_of_the_end_are_those_of_a_shorter_sequence() -> None:
    """The rule that caching rests on: a latent depends on what comes before it alone."""
    model = small_model()
    tokens = random_tokens(13)[0][None]
    assert close(model(tokens, num_latents=5)[:, :4], model(tokens[:, :12], num_latents=4))


def test_a_latent_without_keys_attends_to_zeros() -> None:
    """DEVIATION: the reference averages all inputs then, later ones included."""
    model = small_model()
    tokens = random_tokens(9)[0][None]
    keep = Keep(inputs=torch.arange(9)[None] >= 6)
    changed = tokens.clone()
    changed[:, 6:] = random_tokens(3, seed=8)[0]
    first, second = (model(x, num_latents=4, keep=keep) for x in (tokens, changed))
    assert torch.allclose(first[:, 0], second[:, 0], atol=1e-6)  # at position 5, which keeps nothing


def test_dropout_of_inputs_and_latents_in_training_only() -> None:
    options: dict[str, Any] = {"dropout_prob": 0.0, "input_dropout_prob": 0.5, "latent_dropout_prob": 0.5}
    model = small_model(**options)
    tokens = random_tokens(13)[0][None]
    assert torch.equal(model(tokens), model(tokens))
    model.train()
    first, second = model(tokens), model(tokens)
    assert not torch.allclose(first, second)
    assert torch.equal(model(tokens, keep=Keep()), model.eval()(tokens))


@pytest.mark.parametrize("name", ["num_training_inputs", "prefix_dropout_prob"])
def test_exactly_so_many_inputs_are_kept(name: str) -> None:
    from perceiver_io.autoregressive.masks import draw_keep

    value: Any = 5 if name == "num_training_inputs" else 0.4
    keep = draw_keep(7, 13, 4, **{name: value}).inputs
    assert keep is not None
    expected = 5 if name == "num_training_inputs" else 13 - int(9 * 0.4)
    assert keep.sum(1).tolist() == [expected] * 7
    if name == "prefix_dropout_prob":
        assert keep[:, 9:].all()


@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_loaded(kind: str, tmp_path: Any) -> None:
    model = small_model(kind)
    perceiver_io.save_model(model, tmp_path / "model")
    loaded = perceiver_io.load_model(tmp_path / "model")
    tokens = random_tokens(13)[0][None]
    assert isinstance(loaded, PerceiverAR) and loaded.config == model.config and not loaded.training
    assert close(loaded(tokens), model(tokens))
    assert close(copy.deepcopy(loaded).half().float()(tokens), model(tokens), 1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_changes_nothing(kind: str) -> None:
    model = small_model(kind, dropout_prob=0.0)
    tokens = random_tokens(13)[0][None]
    gradients = []
    for checkpointing in (False, True):
        model.gradient_checkpointing = checkpointing
        model.zero_grad()
        model(tokens).logsumexp(-1).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert close(*gradients)


def test_initialised_as_the_reference() -> None:
    model = PerceiverAR(PerceiverARConfig(**SIZES))
    assert model.output is not None and not model.output.weight.any()
    assert model.embedding.weight.std().item() == pytest.approx(0.88, rel=0.15)
    assert not model.self_attends[0].attention.query.bias.any()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary_channels_fraction": 1.5}, r"rotary_channels_fraction \(1.5\) must lie in 0…1"),
        ({"max_wavelength": 10}, r"max_wavelength \(10\) must be max_context_length \(15\) at least"),
        ({"position_tables": "sinusoidal"}, "position_tables .* and position_sizes .* both"),
        ({"position_tables": "learned", "position_sizes": (5, 6)}, "set rotary to 'none'"),
        ({"num_cross_attend_heads": 5}, r"num_cross_attend_heads \(5\) must divide embed_channels \(12\)"),
        ({"additional_cross_attends": (3,)}, "must be indices of self-attentions, 0…2"),
        ({"latents_per_position": 2}, r"latents_per_position \(2\) must be 1 with rotary"),
        ({"latent_query": "embedding"}, r"embed_channels \(12\) and num_latent_channels \(16\) to be the same"),
        ({"cross_attend_own_norm": True}, "set latent_query .* to 'embedding'"),
        ({"leaks_padding": True}, "leaks_padding is a quirk"),
        ({"tied_output": True}, r"tied_output needs embed_channels \(12\)"),
        ({"pad_token": 23}, r"pad_token \(23\) must be one of the 23 ids"),
        ({"num_rotary_self_attends": 4}, r"at most num_self_attends \(3\)"),
        ({"input_dropout_prob": 1.0}, r"input_dropout_prob \(1.0\) must lie in 0…1, below 1"),
    ],
)
def test_impossible_configurations(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PerceiverARConfig.from_dict({**SIZES, **changes})


def test_refuses_impossible_inputs() -> None:
    model = small_model()
    tokens = random_tokens(13)[0][None]
    for arguments, message in (
        ({"tokens": torch.cat([tokens, tokens], 1)}, "there are 26 tokens, and max_context_length is 15"),
        ({"tokens": tokens + 20}, "token ids must lie in 0…22"),
        ({"positions": torch.arange(13)[None, :, None].expand(1, 13, 2)}, "13 tokens and 1 axes"),
        ({"num_latents": 0}, r"num_latents \(0\) must be at least 1"),
        ({"mask": torch.tensor([[True, False] * 6 + [True]])}, "valid tokens in 7 runs"),
    ):
        with pytest.raises(ValueError, match=message):
            model(**{"tokens": tokens, **arguments})
    axes = small_model("sinusoidal", position_sizes=(5, 6), position_tables="learned")
    with pytest.raises(ValueError, match=r"positions \[batch, tokens, 2\] must be given"):
        axes(tokens)
    with pytest.raises(ValueError, match="cannot be cached"):
        small_model("learned_query").new_cache()


@pytest.mark.parametrize("kind", CACHED)
def test_accelerated_is_plain(kind: str) -> None:
    model = small_model(kind)
    fast = perceiver_io.accelerate(copy.deepcopy(model))
    rows = padded(random_tokens(13, 5))
    with torch.inference_mode():
        assert close(fast(rows)[:, -5:], model(rows)[:, -5:])


def test_presets() -> None:
    with torch.device("meta"):
        copying = perceiver_io.create_model("ar-copy-131k")
        pictures = perceiver_io.create_model("ar-imagenet64")
        default = perceiver_io.create_model("ar-default", num_self_attends=1)
    assert isinstance(copying, PerceiverAR) and isinstance(default, PerceiverAR)
    table = 131_073 * 1024  # which is computed here
    assert sum(p.numel() for p in copying.parameters()) == 223_976_707 - table
    assert sum(p.numel() for p in pictures.parameters()) == 770_094_339
