"""Recipes: what they make, and what they refuse."""

from typing import Any

import pytest
import torch
from torch import nn

from perceiver_io.presets import PRESETS
from perceiver_io.training import FINE_TUNING_RECIPE, PAPER_RECIPES, Lamb, Recipe
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


@pytest.mark.parametrize(("name", "kind"), [("lamb", Lamb), ("adamw", torch.optim.AdamW)])
def test_the_optimiser_has_the_rate_and_decays_weights_alone(name: Any, kind: type) -> None:
    model = nn.Linear(4, 3)
    optimizer = Recipe(**SMALL, optimizer=name).make_optimizer(model)
    assert type(optimizer) is kind
    assert [(group["params"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [
        ([model.weight], 0.5, 0.1),
        ([model.bias], 0.5, 0.0),
    ]


def test_what_leads_keeps_its_share_at_another_length() -> None:
    recipe = Recipe(**SMALL, lead="flat", lead_steps=10).with_steps(50)
    assert (recipe.num_steps, recipe.lead_steps) == (50, 25)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_steps": 0}, r"num_steps \(0\) must be at least 1"),
        ({"batch_size": 0}, r"batch_size \(0\) must be at least 1"),
        ({"learning_rate": 0.0}, r"learning_rate \(0.0\) must be positive"),
        ({"optimizer": "sgd"}, r"optimizer \('sgd'\) must be one of lamb, adamw"),
        ({"lead": "steep"}, r"lead \('steep'\) must be one of flat, warmup"),
        ({"lead_steps": 21}, r"warmup_steps \(21\) must lie between 0 and num_steps \(20\)"),
    ],
)
def test_bad_values_are_refused(change: dict[str, Any], message: str) -> None:
    with unchecked(), pytest.raises(ValueError, match=message):
        Recipe(**{**SMALL, **change})
