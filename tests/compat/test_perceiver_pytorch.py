"""`perceiver-pytorch` itself as the oracle: the same calls, its state dicts, the same outputs."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from perceiver_io import undo_accelerate
from perceiver_io.compat import perceiver_pytorch as ours
from tests.unchecked import unchecked

theirs = pytest.importorskip("perceiver_pytorch", reason="perceiver-pytorch==0.11.0 is not installed (extra: dev)")

_PERCEIVER: dict[str, Any] = {
    "num_freq_bands": 3,
    "depth": 3,
    "max_freq": 7.0,
    "input_channels": 4,
    "input_axis": 2,
    "num_latents": 6,
    "latent_dim": 20,
    "cross_heads": 1,
    "latent_heads": 3,
    "cross_dim_head": 12,
    "latent_dim_head": 5,
    "num_classes": 9,
    "self_per_cross_attn": 2,
}
_IO: dict[str, Any] = {
    "depth": 3,
    "dim": 14,
    "queries_dim": 18,
    "logits_dim": 11,
    "num_latents": 6,
    "latent_dim": 20,
    "cross_heads": 1,
    "latent_heads": 3,
    "cross_dim_head": 12,
    "latent_dim_head": 5,
}
_AXES = {1: (23,), 2: (9, 13), 3: (3, 7, 5)}

PERCEIVERS: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"weight_tie_layers": True},
    "one self-attend": {"self_per_cross_attn": 1},
    "no self-attend": {"self_per_cross_attn": 0},
    "one round": {"depth": 1, "weight_tie_layers": True},
    "one axis": {"input_axis": 1},
    "three axes": {"input_axis": 3, "weight_tie_layers": True},
    "several cross-heads": {"cross_heads": 2},
    "no head": {"final_classifier_head": False},
    "no Fourier features": {"fourier_encode_data": False},
    "no Fourier features, one axis, tied": {"fourier_encode_data": False, "input_axis": 1, "weight_tie_layers": True},
    "one channel": {"input_channels": 1, "num_freq_bands": 6, "max_freq": 224.0},
}
IOS: dict[str, dict[str, Any]] = {
    "untied": {},
    "tied": {"weight_tie_layers": True},
    "decoder MLP": {"decoder_ff": True},
    "no logits": {"logits_dim": None},
    "no logits, decoder MLP": {"logits_dim": None, "decoder_ff": True, "weight_tie_layers": True},
    "several cross-heads": {"cross_heads": 3},
}


def pair(name: str, **arguments: Any) -> tuple[nn.Module, nn.Module]:
    """A model of ours and the package's, with its weights, none of which is a round number."""
    oracle = getattr(theirs, name)(**arguments).eval()
    with torch.no_grad():
        for parameter in oracle.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model = getattr(ours, name)(**arguments).eval()
    assert not any(model.load_state_dict(oracle.state_dict()))
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in oracle.parameters())
    return model, oracle


def assert_same(model: nn.Module, oracle: nn.Module, *inputs: Any, **options: Any) -> None:
    """Compares outputs, accelerated, plain and of a training step, to 1e-5 of a standard deviation."""
    with torch.no_grad():
        expected = oracle(*inputs, **options)
        assert_close(model(*inputs, **options), expected)
    assert_close(model(*inputs, **options), expected)
    assert_close(undo_accelerate(model)(*inputs, **options), expected)


def assert_close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 1e-5 * expected.std()


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("case", PERCEIVERS)
def test_perceiver(case: str, masked: bool) -> None:
    arguments = {**_PERCEIVER, **PERCEIVERS[case]}
    model, oracle = pair("Perceiver", **arguments)
    axes = _AXES[arguments["input_axis"]]
    data = torch.randn(2, *axes, arguments["input_channels"])
    mask = torch.rand(2, *axes) > 0.4 if masked else None
    assert_same(model, oracle, data, mask=mask)
    assert_same(model, oracle, data, mask=mask, return_embeddings=True)
    (actual, hiddens), (expected, oracle_hiddens) = (m(data, mask, return_hiddens=True) for m in (model, oracle))
    for one, other in zip([actual, *hiddens], [expected, *oracle_hiddens], strict=True):
        assert_close(one.expand_as(other), other)


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("batched", [False, True], ids=["shared queries", "batched queries"])
@pytest.mark.parametrize("case", IOS)
def test_perceiver_io(case: str, batched: bool, masked: bool) -> None:
    model, oracle = pair("PerceiverIO", **{**_IO, **IOS[case]})
    data, mask = torch.randn(2, 29, 14), torch.rand(2, 29) > 0.4 if masked else None
    queries = torch.randn(2, 31, 18) if batched else torch.randn(31, 18)
    assert_same(model, oracle, data, mask=mask, queries=queries)
    assert_same(model, oracle, data, mask=mask)
    given = torch.randn(2, 6, 20)
    for options in ({}, {"block_outputs": given}, {"block_outputs": [given, given]}):
        _, hiddens = model(data, mask, return_hiddens=True, **options)
        for one, other in zip(hiddens, oracle(data, mask, return_hiddens=True, **options)[1], strict=True):
            assert_close(one.expand_as(other), other)


@pytest.mark.parametrize("options", [{}, {"weight_tie_layers": True, "decoder_ff": True}], ids=["untied", "tied"])
def test_language_model(options: dict[str, Any]) -> None:
    arguments = {name: value for name, value in _IO.items() if name not in ("queries_dim", "logits_dim")}
    model, oracle = pair("PerceiverLM", num_tokens=37, max_seq_len=19, **arguments, **options)
    tokens = torch.randint(37, (2, 17))
    assert_same(model, oracle, tokens)
    assert_same(model, oracle, tokens, mask=torch.rand(2, 17) > 0.3)
    with pytest.raises(ValueError, match=r"20 tokens are more than max_seq_len \(19\)"):
        model(torch.zeros(1, 20, dtype=torch.long))


def test_gradients() -> None:
    model, oracle = pair("Perceiver", **_PERCEIVER)
    data = torch.randn(2, 9, 13, 4)
    for each in (model, oracle):
        each.train()(data).square().sum().backward()
    wanted = oracle.encoder_gradient = oracle.latents.grad
    assert (model.get_parameter("encoder.latents.embeddings").grad - wanted).abs().max() <= 1e-4 * wanted.std()


def test_dropout_of_inputs_draws_as_the_package_does() -> None:
    model, oracle = pair("PerceiverIO", **_IO, seq_dropout_prob=0.4)
    data, mask = torch.randn(2, 29, 14), torch.rand(2, 29) > 0.4
    for options in ({}, {"mask": mask}):
        outputs = []
        for each in (model, oracle):
            torch.manual_seed(3)
            outputs.append(each.train()(data, queries=torch.ones(3, 18), **options))
        assert_close(*outputs)


def test_dropout_is_where_the_package_has_it() -> None:
    model = ours.Perceiver(**_PERCEIVER, attn_dropout=0.2, ff_dropout=0.3)
    oracle = theirs.Perceiver(**_PERCEIVER, attn_dropout=0.2, ff_dropout=0.3)
    (hidden,) = {m.p for n, m in oracle.named_modules() if isinstance(m, nn.Dropout) and n.endswith("net.3")}
    for layer in (model.encoder.cross_attend, model.encoder.self_attends[0]):
        assert (layer.dropout_prob, layer.attention.dropout_prob, layer.mlp.dropout_prob) == (0, 0.2, hidden)


# As versions before 0.11 named the same tensors.
_OLDER = {
    "Perceiver": [("cross_attn.", "0."), ("cross_ff.", "1."), ("self_attns.", "2.")],
    "PerceiverIO": [
        ("cross_attend_block.cross_attn.", "cross_attend_blocks.0."),
        ("cross_attend_block.cross_ff.", "cross_attend_blocks.1."),
        ("self_attns.0.", ""),
    ],
}


@pytest.mark.parametrize(("name", "arguments"), [("Perceiver", _PERCEIVER), ("PerceiverIO", _IO)])
def test_older_names_and_our_own_load(name: str, arguments: dict[str, Any]) -> None:
    model, oracle = pair(name, **arguments)
    older = {}
    for key, value in oracle.state_dict().items():
        for new, old in _OLDER[name]:
            key = key.replace(new, old)
        older[key] = value
    for state_dict in (older, model.state_dict(), nn.Sequential(model).state_dict()):
        other = getattr(ours, name)(**arguments)
        target = nn.Sequential(other) if "0.encoder.latents.embeddings" in state_dict else other
        target.load_state_dict(state_dict)
        for key, value in model.state_dict().items():
            assert torch.equal(other.state_dict()[key], value)


def test_a_state_dict_that_does_not_fit_is_refused() -> None:
    state_dict = theirs.Perceiver(**_PERCEIVER).state_dict()
    with pytest.raises(ValueError, match=r"layers\.2\.cross_attn\..* differs .*weight_tie_layers=False"):
        ours.Perceiver(**_PERCEIVER, weight_tie_layers=True).load_state_dict(state_dict)
    del state_dict["layers.1.cross_attn.fn.to_kv.weight"]
    with pytest.raises(RuntimeError, match=r"further_cross_attends\.0\.attention\.key\.weight"):
        ours.Perceiver(**_PERCEIVER).load_state_dict(state_dict)
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\).*layers\.2"):
        ours.Perceiver(**{**_PERCEIVER, "depth": 2}).load_state_dict(theirs.Perceiver(**_PERCEIVER).state_dict())


def test_an_example_without_valid_inputs_attends_to_nothing() -> None:
    """Guards a deviation."""
    model, oracle = pair("PerceiverIO", **_IO)
    data, mask = torch.randn(2, 29, 14), torch.ones(2, 29, dtype=torch.bool)
    mask[1] = False
    actual, expected = model(data, mask), oracle(data, mask)
    assert_close(actual[0], expected[0])
    assert torch.equal(actual[1], model(torch.randn(2, 29, 14), mask)[1])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Perceiver", {"inverted_cross_attn": (False, True, False)}, r"inverted_cross_attn \(True\) is not built here"),
        ("PerceiverIO", {"attn_residual": True}, r"attn_residual \(True\) is not built here"),
        ("Perceiver", {"depth": 0}, r"depth \(0\) must be at least 1"),
        ("Perceiver", {"cross_heads": 0}, r"num_heads \(0\) must divide"),
        ("PerceiverIO", {"seq_dropout_prob": 1.0}, r"seq_dropout_prob \(1\.0\) must lie in \[0, 1\)"),
    ],
)
def test_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(ours, name)(**{**(_PERCEIVER if name == "Perceiver" else _IO), **options})


def test_data_of_other_axes_is_refused() -> None:
    model = ours.Perceiver(**_PERCEIVER)
    with unchecked():
        for shape in ((2, 4, 9, 13), (2, 9, 4)):
            with pytest.raises(ValueError, match=re.escape(f"data {shape} must be [batch, *axes, channels]")):
                model(torch.randn(shape))
        with pytest.raises(ValueError, match=r"mask \(torch\.float32\) must be of torch\.bool"):
            model(torch.randn(2, 9, 13, 4), torch.ones(2, 9, 13))
