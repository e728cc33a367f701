"""Recipes: what they make, and what they refuse."""

from typing import Any

import pytest
import torch
from torch import nn

from perceiver_io.presets import PRESETS
from perceiver_io.training import FINE_TUNING_RECIPE, PAPER_RECIPES, PERCEIVER_RECIPE, Lamb, Recipe, stepwise
from tests.unchecked import unchecked

SMALL: dict[str, Any] = {"num_steps": 20, "batch_size": 3, "learning_rate": 0.5, "weight_decay": 0.1}


def test_there_is_one_for_every_released_model() -> None:
    assert PAPER_RECIPES.keys() == PRESETS.keys()


def test_the_papers_schedules() -> None:
    language, imagenet, flow = (
        PAPER_RECIPES[name].schedule() for name in ("language", "imagenet-fourier", "optical-flow")
    )
    assert [language(0), language(500), language(1000), language(500_000)] == [0, 0.5, 1, 0]
    assert [imagenet(0), imagenet(68_812), imagenet(137_625)] == [1, 1, 0]
    assert flow(0) == 1
    assert flow(187_500) == pytest.approx(0.5)
    assert FINE_TUNING_RECIPE.schedule()(70_000) == 1
    assert FINE_TUNING_RECIPE.schedule()(100_500) == pytest.approx(0.5)


def test_the_original_perceivers_rate_falls_at_epochs_84_102_and_114_of_120() -> None:
    recipe = PERCEIVER_RECIPE
    assert (recipe.learning_rate, recipe.weight_decay, recipe.max_gradient_norm) == (4e-3, 0.1, 10)
    for length in (recipe.num_steps, 1200):
        schedule = recipe.with_steps(length).schedule()
        for epoch, factor in (
            (0, 1),
            (83.9, 1),
            (84.1, 0.1),
            (101.9, 0.1),
            (102.1, 0.01),
            (113.9, 0.01),
            (114.1, 1e-3),
        ):
            assert schedule(int(length * epoch / 120)) == pytest.approx(factor)
    assert [recipe.with_steps(2).schedule()(step) for step in range(3)] == pytest.approx([1, 0.1, 1e-3])
    assert isinstance(recipe.make_optimizer(nn.Linear(2, 2)), Lamb)
    with pytest.raises(ValueError, match=r"drops_at \(5, 3\) must not fall, and lie between 1 and num_steps \(9\)"):
        stepwise(9, (5, 3))


@pytest.mark.parametrize(("name", "kind"), [("lamb", Lamb), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_has_the_rate_and_decays_weights_alone(name: Any, kind: type) -> None:
    model = nn.Linear(4, 3)
    optimizer = Recipe(**SMALL, optimizer=name).make_optimizer(model)
    assert type(optimizer) is kind
    assert [(group["params"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        ([model.weight], 0.5, 0.1),
        ([model.bias], 0.5, 0.0),
    ]


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon", "adam"])
def test_gradients_are_scaled_down_to_the_norm_of_the_recipe(name: Any) -> None:
    decay = {} if name != "adam" else {"weight_decay": 0.0}

    def after_two_steps(max_norm: float, length: float) -> torch.Tensor:
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        first, second = nn.functional.normalize(torch.randn(2, 12), dim=-1).view(2, 3, 4)
        optimizer = Recipe(**{**SMALL, **decay}, optimizer=name, max_gradient_norm=max_norm).make_optimizer(model)
        for gradient in (first * length, second):  # means over both tell how long the first was
            model.weight.grad = gradient.clone()
            optimizer.step()
        return model.weight.detach()

    # LAMB's own norm is 10, Adam's 1.
    assert torch.allclose(after_two_steps(40.0, 4000.0), after_two_steps(40.0, 40.0))
    assert not torch.allclose(after_two_steps(40.0, 40.0), after_two_steps(40.0, 20.0))
    assert torch.allclose(after_two_steps(0.5, 40.0), after_two_steps(0.5, 0.5))


@pytest.mark.parametrize("name", ["lamb", "adamw", "muon", "adam"])
def test_gradients_are_cut_to_the_value_of_the_recipe(name: Any) -> None:
    decay = {} if name != "adam" else {"weight_decay": 0.0}
    model = nn.Linear(400, 3)
    optimizer = Recipe(**{**SMALL, **decay}, optimizer=name, max_gradient_value=2.0).make_optimizer(model)
    model.weight.grad = torch.linspace(-50, 50, 1200).view(3, 400)
    optimizer.step()
    # And no norm cuts them more.
    assert torch.equal(model.weight.grad, torch.linspace(-50, 50, 1200).view(3, 400).clamp(-2, 2))


def test_what_leads_keeps_its_share_at_another_length() -> None:
    recipe = Recipe(**SMALL, lead="flat", lead_steps=10).with_steps(50)
    assert (recipe.num_steps, recipe.lead_steps) == (50, 25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, r"num_steps \(0\) must be at least 1"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate \(0.0\) must be positive"),
        ({"max_gradient_norm": 0.0}, r"max_gradient_norm \(0.0\) must be positive; None leaves it out"),
        ({"max_gradient_value": -1.0}, r"max_gradient_value \(-1.0\) must be positive; None leaves it out"),
        ({"max_gradient_norm": 1.0, "max_gradient_value": 2.0}, r"max_gradient_value \(2.0\) both bound .*; give one"),
        ({"optimizer": "sgd"}, r"optimizer \('sgd'\) must be one of lamb, adamw"),
        ({"lead": "steep"}, r"lead \('steep'\) must be one of flat, warmup"),
        ({"lead_steps": 21}, r"warmup_steps \(21\) must lie between 0 and num_steps \(20\)"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        Recipe(**{**SMALL, **change})
