"""Plans: the arithmetic from the cost of a step to cards and hours."""

import pytest
from torch import nn

import perceiver_io
from perceiver_io.training import Recipe
from perceiver_io.training.cards import CARDS, Card, card_of
from perceiver_io.training.plan import Plan, describe_plan, plan_run
from perceiver_io.training.step_cost import first_examples, step_cost
from tests.small_models import SMALL
from tests.training.small_run import NUM_EXAMPLES, Pictures, objective

RECIPE = Recipe(num_steps=1800, batch_size=96, learning_rate=0.1, weight_decay=0.1)
CARD = Card(40_000_000, 1e12, 8e12)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return perceiver_io.create_model("imagenet-fourier", **SMALL["imagenet-fourier"])


@pytest.fixture(scope="module")
def plan(model: nn.Module) -> Plan:
    return plan_run(model, objective, Pictures(), RECIPE, CARD, utilisation=0.25)


def test_bytes_are_those_of_the_weights(plan: Plan, model: nn.Module) -> None:
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    assert plan.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (plan.weight_bytes, plan.gradient_bytes, plan.optimizer_bytes) == (weights, weights, 2 * weights)


def test_hours_are_work_over_speed(plan: Plan) -> None:
    assert plan.run_flops == plan.example_flops * 96 * 1800
    assert plan.seconds_per_step == pytest.approx(96 * plan.example_flops / (0.25 * 1e12))
    assert plan.hours == pytest.approx(plan.seconds_per_step / 2)


def test_the_largest_micro_batch_fits_and_one_more_does_not(plan: Plan, model: nn.Module) -> None:
    assert plan.largest_micro_batch > 8

    def total(number: int) -> int:
        fixed = plan.weight_bytes + plan.gradient_bytes + plan.optimizer_bytes
        return fixed + step_cost(model, objective, first_examples(Pictures(), number)).peak_bytes

    limit = 0.9 * CARD.memory_bytes
    assert total(plan.largest_micro_batch) <= 1.01 * limit
    assert total(plan.largest_micro_batch + 2) >= 0.99 * limit


def test_the_batch_is_cut_into_the_fewest_micro_batches(plan: Plan) -> None:
    share = 96 // plan.accumulation
    assert 96 % plan.accumulation == 0
    assert share <= plan.largest_micro_batch
    assert all(96 % n or 96 // n > plan.largest_micro_batch for n in range(1, plan.accumulation))


def test_cards_share_time_and_sharded_also_memory(plan: Plan, model: nn.Module) -> None:
    shared = plan_run(model, objective, Pictures(), RECIPE, CARD, num_cards=4, strategy="fsdp", utilisation=0.25)
    assert shared.hours == pytest.approx(plan.hours / 4)
    assert shared.weight_bytes == plan.weight_bytes // 4
    assert shared.gradient_bytes == plan.gradient_bytes // 4
    assert shared.optimizer_bytes == plan.optimizer_bytes // 4


def test_a_card_may_be_too_small(plan: Plan) -> None:
    nothing_fits = plan._replace(largest_micro_batch=0)
    text = describe_plan(nothing_fits, RECIPE, card="h100", num_cards=1, precision="float32", utilisation=0.4)
    assert "none: h100 is too small; try --precision bfloat16" in text


def test_a_table_says_it_all(plan: Plan) -> None:
    text = describe_plan(
        plan._replace(parameters=12_345, example_flops=2_500_000, run_flops=432_000_000_000, hours=12.25),
        RECIPE,
        card="h100",
        num_cards=4,
        precision="bfloat16",
        utilisation=0.4,
    )
    assert "parameters           12,345\n" in text
    assert "2.5 MFLOP an example, 432 GFLOP for 1,800 updates" in text
    assert "× 4 cards\n" in text
    assert "12.2 hours in all, at 40% of what 4 × h100 can do" in text


def test_what_cannot_be_planned_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match=r"utilisation \(1\.5\) must be more than 0 and at most 1"):
        plan_run(model, objective, Pictures(), RECIPE, CARD, utilisation=1.5)
    with pytest.raises(ValueError, match=r"batch_size \(96\) must be a multiple of the 7 cards; change one"):
        plan_run(model, objective, Pictures(), RECIPE, CARD, num_cards=7)
    for number in (0, -2):
        with pytest.raises(ValueError, match=rf"the number of cards \({number}\) must be at least 1"):
            plan_run(model, objective, Pictures(), RECIPE, CARD, num_cards=number)


def test_few_examples_are_taken_again() -> None:
    batch = first_examples(Pictures(), NUM_EXAMPLES + 2)
    assert batch["index"].tolist() == [*range(NUM_EXAMPLES), 0, 1]


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
        ("NVIDIA A100 80GB PCIe", "a100-80"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("A100-SXM4-40GB", "a100-40"),  # older drivers
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H200 NVL", "h200-nvl"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("NVIDIA GeForce GTX 1050", None),
    ],
)
def test_cards_are_known_by_their_drivers_name(name: str, card: str | None) -> None:
    assert card_of(name) == (CARDS[card] if card else None)
    assert CARDS["h100"].flops("bfloat16") > CARDS["h100"].flops("float32")
