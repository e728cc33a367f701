"""Learning rates over time, as factors of the peak rate. The first update uses the factor of step 0."""

import math
from collections.abc import Callable, Sequence

Schedule = Callable[[int], float]


def flat_then_cosine(num_steps: int, flat_steps: int | None = None) -> Schedule:
    """Maps a step to 1 at first, then to half a cosine that reaches 0 at `num_steps`.

    Source: the reference's "constant_cosine" schedule for ImageNet.

    Args:
        num_steps: length of the run.
        flat_steps: length of the constant part; by default half of the run.

    Raises:
        ValueError: if the constant part is longer than the run.
    """
    flat_steps = num_steps // 2 if flat_steps is None else flat_steps
    _check_part("flat_steps", flat_steps, num_steps)
    return lambda step: 1.0 if step < flat_steps else _half_cosine(step - flat_steps, num_steps - flat_steps)


def warmup_then_cosine(num_steps: int, warmup_steps: int) -> Schedule:
    """Maps a step to a line from 0 to 1, then to half a cosine that reaches 0 at `num_steps`.

    Source: the paper's schedule for language (supplement, section C); as optax's `warmup_cosine_decay_schedule`.

    Args:
        num_steps: length of the run, warm-up included.
        warmup_steps: length of the rise; 0 for none.

    Raises:
        ValueError: if the warm-up is longer than the run.
    """
    _check_part("warmup_steps", warmup_steps, num_steps)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return _half_cosine(step - warmup_steps, num_steps - warmup_steps)

    return factor


def stepwise(num_steps: int, drops_at: Sequence[int], factor: float = 0.1) -> Schedule:
    """Maps a step to 1 at first, and from each step of `drops_at` on to `factor` times what it was.

    Source: the original Perceiver's schedule for ImageNet (2103.03206, section 4.1).

    Args:
        num_steps: length of the run.
        drops_at: steps, in order.
        factor: of each drop.

    Raises:
        ValueError: if the steps are out of order, or not within the run.
    """
    if list(drops_at) != sorted(set(drops_at)) or not all(0 < drop <= num_steps for drop in drops_at):
        raise ValueError(f"drops_at {tuple(drops_at)} must rise, and lie between 1 and num_steps ({num_steps})")
    return lambda step: factor ** sum(step >= drop for drop in drops_at)


def _half_cosine(step: int, num_steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(step / max(num_steps, 1), 1.0)))


def _check_part(name: str, part: int, num_steps: int) -> None:
    if not 0 <= part <= num_steps:
        raise ValueError(f"{name} ({part}) must lie between 0 and num_steps ({num_steps}); change one of the two")
