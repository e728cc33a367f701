"""Attention by products: exact, in pieces of any size, with the right gradients and little kept for them."""

import copy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from perceiver_io import CrossAttention, PerceiverEncoder, accelerate
from perceiver_io.attention import attend
from perceiver_io.fast import cross_attention
from perceiver_io.fast.choice import Heads, Way, choose
from perceiver_io.fast.pieces import MAX_SCORE_BYTES
from perceiver_io.fast.products import attend_by_products, attend_heads_by_products
from tests.randomised import randomised

BOUNDS = [1, 100, MAX_SCORE_BYTES]


@given(
    seed=st.integers(0, 2**16),
    batch=st.sampled_from([1, 3]),
    heads=st.sampled_from([1, 2]),
    masked=st.sampled_from([None, (1, 1), (3, 1), (3, 7)]),
    bound=st.sampled_from(BOUNDS),
    gradients=st.booleans(),
)
def test_products_attend(
    seed: int, batch: int, heads: int, masked: tuple[int, int] | None, bound: int, gradients: bool
) -> None:
    torch.manual_seed(seed)
    query, key, value = (torch.randn(*shape) for shape in ((batch, heads, 7, 4), (3, heads, 11, 4), (3, heads, 11, 5)))
    mask = None
    if masked is not None:
        mask = torch.rand(*masked, 11) > 0.6
        mask[0, 0] = False  # nothing to attend to
    with torch.set_grad_enabled(gradients):
        attended = attend_heads_by_products(query, key, value, mask, bound)
    torch.testing.assert_close(attended, attend(query, key, value, mask), rtol=1e-4, atol=1e-6)


def test_gradients_are_as_precise_where_autocasting_is_on() -> None:
    query, key = torch.randn(1, 7, 4, requires_grad=True), torch.randn(3, 11, 4, requires_grad=True)
    results = []
    for is_on in (True, False):
        output = attend_by_products(query, key).square().sum()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_on):
            results.append(torch.autograd.grad(output, (query, key)))
    torch.testing.assert_close(*results)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("own_values", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_derivatives(bound: int, own_values: bool, masked: bool) -> None:
    def variable(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    query, key = variable(1, 3, 2), variable(2, 5, 2)
    value, bias = variable(2, 5, 3) if own_values else None, variable(2, 1, 5)
    mask = torch.rand(2, 1, 5) > 0.5 if masked else None

    def attended(*rows: torch.Tensor) -> torch.Tensor:
        return attend_by_products(*rows, mask=mask, max_score_bytes=bound)

    assert torch.autograd.gradcheck(attended, (query, key, value, bias), check_batched_grad=True)
    assert torch.autograd.gradgradcheck(attended, (query, key, value, bias))


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="needs PyTorch 2.7 to tell exporters apart")
def test_compiled_programs_keep_to_the_bound() -> None:
    words = [sys.executable, "-W", "ignore", "-c", _COMPILED]
    ended = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]


# In a process of its own: the run-time checks of these tests cannot be compiled.
_COMPILED = """
import torch
from perceiver_io.fast import pieces, products

graphs, sizes = [], []
whole = pieces._weights

def backend(graph, inputs):
    graphs.append(graph)
    return torch._dynamo.backends.debugging.aot_eager(graph, inputs)

def weights(query, *others):
    sizes.append(len(query) * query.shape[1])
    return whole(query, *others)

pieces._weights = weights
BOUND = 3 * 11 * 4  # three rows of scores; the backward pass has a quarter
for own_values in (True, False):
    for gradients in (True, False):
        torch._dynamo.reset()
        graphs.clear()
        attend = torch.compile(products.attend_by_products, backend=backend, fullgraph=True)
        for batch in (2, 3, 4):
            shapes = (1, 7, 4), (batch, 11, 4), (batch, 1, 11), (batch, 11, 5)
            given = [torch.randn(*shape, requires_grad=True) for shape in shapes]
            query, key, bias, value = given if own_values else (*given[:3], None)
            mask = torch.rand(batch, 1, 11) > 0.4
            results = []
            for function, bound in ((products.attend_by_products, 2**31), (attend, BOUND)):
                sizes.clear()
                with torch.set_grad_enabled(gradients):
                    output = function(query, key, value, bias, mask, bound)
                    assert max(sizes) <= 3 or function is not attend, sizes
                    wanted = given if own_values else given[:3]
                    sizes.clear()
                    found = torch.autograd.grad(output.sin().sum(), wanted) if gradients else ()
                    assert set(sizes) <= {1} or function is not attend, sizes
                results.append([output, *found])
            for ours, theirs in zip(*results, strict=True):
                torch.testing.assert_close(ours, theirs)
        assert len(graphs) == 2, len(graphs)  # one more for any number of examples

# A number of examples that may be any, and one for which scores would pass the bound at once.
torch._dynamo.reset()
query, key = torch.randn(1, 7, 4), torch.randn(3, 11, 4)
torch._dynamo.mark_dynamic(key, 0, min=2, max=10**7)
expected = products.attend_by_products(query, key)
attend = torch.compile(lambda query, key: products.attend_by_products(query, key), backend=backend, fullgraph=True)
torch.testing.assert_close(attend(query, key), expected)

pieces._weights = whole
# Exported programs know no operators of this library.
class Attends(torch.nn.Module):
    def forward(self, query, key):
        return products.attend_by_products(query, key, max_score_bytes=BOUND)

query, key = torch.randn(5, 7, 4), torch.randn(5, 11, 4)
batch = {0: torch.export.Dim("batch", min=1, max=64)}
for strict in (True, False):
    with torch.no_grad():
        program = torch.export.export(
            Attends(), (query[:3], key[:3]), dynamic_shapes={"query": batch, "key": batch}, strict=strict
        )
    assert "perceiver_io." not in str(program.graph)
    torch.testing.assert_close(program.module()(query, key), products.attend_by_products(query, key))
"""


class NoFusedAttention(TorchFunctionMode):
    """Refuses attention that is given keys and values of its own."""

    only_looks_on = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func is not F.scaled_dot_product_attention
        return func(*args, **(kwargs or {}))


SIZES = [(5, 300), (300, 5)]


@pytest.mark.parametrize(("queries", "inputs"), SIZES)
@pytest.mark.parametrize("options", [{}, {"qkv_bias": False, "output_bias": False}, {"dropout_prob": 0.3}], ids=str)
@pytest.mark.parametrize("masked", [True, False])
def test_training_takes_the_cheaper_order(queries: int, inputs: int, options: dict[str, object], masked: bool) -> None:
    block = randomised(CrossAttention(6, 8, num_heads=1, qk_channels=10, v_channels=12, **options)).double().train()
    fast = accelerate(copy.deepcopy(block))
    rows, seen = torch.randn(1, queries, 6).double(), torch.randn(3, inputs, 8).double()
    mask = None
    if masked:
        mask = torch.rand(3, 1, inputs) > 0.5 if queries < inputs else torch.rand(3, queries, 1) > 0.5
        mask[1] = False
    results = []
    for either in (block, fast):
        torch.manual_seed(1)
        arguments = [rows.clone().requires_grad_(), seen.clone().requires_grad_()]
        with NoFusedAttention() if either is fast else nullcontext():
            output = either(*arguments, mask)
        gradients = torch.autograd.grad((output * output.sin()).sum(), [*arguments, *either.parameters()])
        results.append((output, *gradients))
    for ours, theirs in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_weights_that_are_dropped_are_attended_to_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    block = accelerate(CrossAttention(6, 8, num_heads=1, attention_dropout_prob=0.5)).train()
    for function in ("gather", "look_up"):
        monkeypatch.setattr(cross_attention.associated, function, None)
    for queries, inputs in SIZES:
        block(torch.randn(1, queries, 6), torch.randn(3, inputs, 8)).sum().backward()


def kept_bytes(module: torch.nn.Module, inputs: torch.Tensor) -> int:
    """What a forward pass keeps for the backward pass, parameters left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = module(inputs)
    del output
    return sum(kept.values())


@pytest.mark.parametrize("trained_inputs", [True, False])
def test_training_keeps_less(trained_inputs: bool) -> None:
    encoder = PerceiverEncoder(32, num_latents=9, num_latent_channels=24, num_self_attends_per_block=1, num_blocks=1)
    inputs = torch.randn(2, 900, 32, requires_grad=trained_inputs)
    plain = kept_bytes(encoder, inputs)
    assert kept_bytes(accelerate(encoder), inputs) < 0.6 * plain


# Rows of the table of issue 12, one H100: heads' queries × inputs, widths, and what was the fastest.
MEASURED: list[tuple[int, int, int, int, torch.dtype, Way]] = [
    (512, 50_176, 264, 264, torch.bfloat16, "products"),
    (512, 50_176, 512, 512, torch.bfloat16, "products"),
    (512, 3_136, 328, 328, torch.bfloat16, "products"),
    (2_048, 182_528, 328, 328, torch.bfloat16, "products"),
    (182_528, 2_048, 328, 328, torch.bfloat16, "products"),
    (256, 2_048, 32, 160, torch.bfloat16, "fused"),
    (2_048, 2_048, 32, 32, torch.bfloat16, "fused"),
    (512, 50_176, 264, 264, torch.float32, "products"),
]


@pytest.mark.parametrize("measured", MEASURED, ids=str)
@pytest.mark.parametrize("is_masked", [True, False])
@pytest.mark.parametrize("is_inference", [True, False])
def test_the_choice_is_what_was_measured(
    measured: tuple[int, int, int, int, torch.dtype, Way], is_masked: bool, is_inference: bool
) -> None:
    queries, inputs, qk_channels, v_channels, dtype, fastest = measured
    call = Heads("cuda", dtype, queries, inputs, qk_channels, v_channels, is_masked, is_inference)
    assert choose(call) == fastest
    on_cpu = choose(call._replace(device="cpu"))
    serves = qk_channels == v_channels  # torch's fused kernel, which is the fastest in float32 alone
    if is_inference:
        assert on_cpu == ("fused" if serves and dtype == torch.float32 else "blocks")
        assert choose(call._replace(device="cpu", dtype=torch.float16)) == "fused"
    else:
        assert on_cpu == ("fused" if serves or is_masked else "products")
    assert choose(call._replace(device="mps")) == "fused"
