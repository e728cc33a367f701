"""Mixing, soft labels and their loss, and the objective and evaluation that use them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from perceiver_io.training import Draw
from perceiver_io.training.image_classification import (
    ClassificationEvaluation,
    ClassificationObjective,
    Pairs,
    cutmix_mask,
    mix,
    mixup_shares,
    soft_cross_entropy,
    soft_targets,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Numbers:
    """Ten pictures of one pixel: the number of the draw's index, and a random one."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, draw: Draw) -> dict[str, Tensor]:
        noise = torch.rand((), generator=generator(draw.seed))
        return {"image": torch.stack([torch.tensor(float(draw.index)), noise])[:, None, None], "label": _label(draw)}


def _label(draw: Draw) -> Tensor:
    return torch.tensor(draw.index % 3)


class Logits(nn.Module):
    """Answers with given logits, and remembers what it was asked."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        self.asked = images
        return self.logits[: len(images)]


def test_mixup_shares_are_beta_distributed() -> None:
    shares = mixup_shares(20_000, generator())
    assert ((shares >= 0) & (shares <= 1)).all()
    # Beta(a, a) has mean 1/2 and variance 1 / (4 (2a + 1)).
    assert shares.mean().item() == pytest.approx(0.5, abs=0.01)
    assert shares.var().item() == pytest.approx(1 / 5.6, abs=0.005)
    assert mixup_shares(20_000, generator(), alpha=3.0).var().item() == pytest.approx(1 / 28, abs=0.002)
    assert torch.equal(mixup_shares(5, generator(4)), mixup_shares(5, generator(4)))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
def test_a_cutmix_mask_is_a_rectangle(height: int, width: int, seed: int) -> None:
    mask = cutmix_mask((height, width), generator(seed))
    rows, columns = mask.amax(1), mask.amax(0)
    assert torch.equal(mask, torch.outer(rows, columns))
    for side in (rows, columns):
        assert set(side.tolist()) <= {0.0, 1.0}
        assert (side.diff() != 0).sum() <= 2
        places = side.nonzero()
        assert not len(places) or len(places) == places[-1] - places[0] + 1


def test_cutmix_masks_follow_the_definition() -> None:
    draws = generator(7)
    part = (1 - float(torch.rand((), generator=draws))) ** 0.5
    expected = torch.zeros(23, 31)
    centres = [int(torch.randint(side, (), generator=draws)) for side in (23, 31)]
    for row in range(23):
        for column in range(31):
            half_height, half_width = int(part * 23) // 2, int(part * 31) // 2
            inside_rows = centres[0] - half_height <= row < centres[0] + half_height
            expected[row, column] = inside_rows and centres[1] - half_width <= column < centres[1] + half_width
    assert 0 < expected.mean() < 1
    assert torch.equal(cutmix_mask((23, 31), generator(7)), expected)


def test_before_it_is_cut_off_the_rectangles_area_is_uniform() -> None:
    # Centred far from the border of a large picture, rectangles lose nothing.
    masks = [cutmix_mask((200, 200), generator(seed)) for seed in range(300)]
    whole = [m for m in masks if not (m[0].any() or m[-1].any() or m[:, 0].any() or m[:, -1].any())]
    assert all(abs(mask.amax(1).sum() - mask.amax(0).sum()) <= 1 for mask in whole)
    assert 0.25 < sum(float(mask.mean()) for mask in masks) / 300 < 0.4  # 1/2 less what is cut off


def test_half_of_a_batch_is_mixed_by_mixup_and_half_by_cutmix() -> None:
    images, partners = torch.ones(6, 3, 23, 31), torch.zeros(6, 3, 23, 31)
    mixed, shares = mix(images, partners, generator(5))
    assert mixed.shape == images.shape
    torch.testing.assert_close(mixed.mean((1, 2, 3)), shares)
    assert ((shares > 0) & (shares < 1)).all()
    for picture, share in zip(mixed[:3], shares[:3], strict=True):
        torch.testing.assert_close(picture, share.expand_as(picture))
    for picture in mixed[3:]:
        assert set(picture.flatten().tolist()) == {0.0, 1.0}
        assert torch.equal(picture[0], picture[2])


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_small_batches_are_mixed_too(batch: int) -> None:
    images = torch.rand(batch, 3, 9, 8)
    mixed, shares = mix(images, images, generator())
    torch.testing.assert_close(mixed, images)
    assert shares.shape == (batch,)


def test_soft_targets() -> None:
    labels, partners = torch.tensor([2, 0]), torch.tensor([1, 0])
    shares = torch.tensor([0.75, 0.3])
    assert torch.equal(soft_targets(labels, 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    mixed = soft_targets(labels, 3, partner_labels=partners, shares=shares)
    torch.testing.assert_close(mixed, torch.tensor([[0.0, 0.25, 0.75], [1, 0, 0]]))
    smooth = soft_targets(labels, 3, smoothing=0.3, partner_labels=partners, shares=shares)
    torch.testing.assert_close(smooth, 0.7 * mixed + 0.1)


@pytest.mark.parametrize("labels", [[0, 3], [-1, 2]])
def test_a_label_outside_the_classes_is_refused(labels: list[int]) -> None:
    with pytest.raises(ValueError, match=r"labels -?\d…\d must lie in 0…2, the model's classes; train a model with as"):
        soft_targets(torch.tensor(labels), 3)


def test_soft_cross_entropy_is_pytorchs() -> None:
    logits, labels = torch.randn(5, 7), torch.randint(7, (5,))
    smooth = soft_cross_entropy(logits, soft_targets(labels, 7, smoothing=0.1))
    torch.testing.assert_close(smooth, F.cross_entropy(logits, labels, label_smoothing=0.1))
    targets = torch.rand(5, 7).softmax(-1)
    torch.testing.assert_close(soft_cross_entropy(logits, targets), F.cross_entropy(logits, targets))
    assert soft_cross_entropy(logits.bfloat16(), targets).dtype == torch.float32


def test_pairs_have_independent_partners() -> None:
    pairs = Pairs(Numbers())
    assert len(pairs) == 10
    example = pairs[Draw(4, 11)]
    assert example.keys() == {"image", "label", "partner_image", "partner_label"}
    assert torch.equal(example["image"], Numbers()[Draw(4, 11)]["image"])
    assert torch.equal(pairs[Draw(4, 11)]["partner_image"], example["partner_image"])
    partners = [int(pairs[Draw(4, seed)]["partner_image"][0]) for seed in range(200)]
    assert set(partners) == set(range(10))
    assert all(pairs[Draw(4, seed)]["partner_image"][1] != pairs[Draw(4, seed)]["image"][1] for seed in range(20))


def test_the_objective_without_partners() -> None:
    logits, labels = torch.randn(4, 5), torch.tensor([0, 4, 2, 1])
    model = Logits(logits)
    images = torch.rand(4, 3, 6, 7)
    figures = ClassificationObjective(label_smoothing=0.2)(model, {"image": images, "label": labels}, generator())
    assert torch.equal(model.asked, images)
    torch.testing.assert_close(figures["loss"], F.cross_entropy(model.logits, labels, label_smoothing=0.2))
    assert figures["accuracy"] == (logits.argmax(-1) == labels).float().mean()
    assert figures["loss"].requires_grad


def test_the_objective_mixes_pictures_and_labels_alike() -> None:
    model = Logits(torch.randn(4, 5))
    images, partners = torch.rand(2, 4, 3, 6, 7)
    labels, partner_labels = torch.tensor([0, 4, 2, 1]), torch.tensor([3, 3, 1, 1])
    batch = {"image": images, "label": labels, "partner_image": partners, "partner_label": partner_labels}
    figures = ClassificationObjective(label_smoothing=0.1)(model, batch, generator(9))
    mixed, shares = mix(images, partners, generator(9))
    assert torch.equal(model.asked, mixed)
    log_probabilities = model.logits.log_softmax(-1)
    loss = torch.zeros(())
    for row, (label, partner, share) in enumerate(zip(labels, partner_labels, shares, strict=True)):
        sharp = share * log_probabilities[row, label] + (1 - share) * log_probabilities[row, partner]
        loss = loss - (0.9 * sharp + 0.1 * log_probabilities[row].mean()) / 4
    torch.testing.assert_close(figures["loss"], loss)


def test_evaluation_sees_every_picture_once() -> None:
    class Remainder(nn.Module):
        """Knows the label of all pictures but those above 7."""

        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(3.0))

        def forward(self, images: Tensor) -> Tensor:
            number = images[:, 0, 0, 0].long()
            return self.scale * F.one_hot((number + (number > 7)) % 3, 3)

    model = Remainder()
    values = ClassificationEvaluation(dataset=Numbers(), batch_size=4)(model)
    labels = torch.arange(10) % 3
    logits = 3.0 * F.one_hot((torch.arange(10) + (torch.arange(10) > 7)) % 3, 3)
    assert values["accuracy"] == 0.8
    assert values["loss"] == pytest.approx(F.cross_entropy(logits, labels).item())
