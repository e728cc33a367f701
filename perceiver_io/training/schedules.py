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
        drops_at: steps, in order; in a very short run, two of them may be the same one.
        factor: of each drop.

    Raises:
        ValueError: if the steps are out of order, or not within the run.
    """
    if list(drops_at) != sorted(drops_at) or not all(0 < drop <= num_steps for drop in drops_at):
        raise ValueError(f"drops_at {tuple(drops_at)} must not fall, and lie between 1 and num_steps ({num_steps})")
    return lambda step: factor ** sum(step >= drop for drop in drops_at)


def warmup_then_flat(warmup_steps: int) -> Schedule:
    """Maps a step to a line from 0 to 1, then to 1. Perceiver AR's "constant" schedule.

    Args:
        warmup_steps: length of the rise; 0 for none.
    """
    return lambda step: min(1.0, step / warmup_steps) if warmup_steps else 1.0


def warmup_then_inverse_sqrt(warmup_steps: int) -> Schedule:
    """Maps a step to a line from 0 to 1, then to a decay by the square root of time. Perceiver AR's "t5" schedule.

    Args:
        warmup_steps: length of the rise, from 1 on, and the scale of the decay, which is counted from its end.
    """
    if warmup_steps < 1:
        raise ValueError(f"warmup_steps ({warmup_steps}) must be at least 1; it is the decay's scale too")
    return lambda step: min(step / warmup_steps, math.sqrt(warmup_steps / max(step, warmup_steps)))


def warmup_then_steps(
    num_steps: int, warmup_steps: int, drops_at: Sequence[float] = (0.5, 0.8, 0.95), factor: float = 0.1
) -> Schedule:
    """Maps a step to a line from 0 to 1, then to a power of `factor`. Perceiver AR's "steps" schedule.

    Args:
        num_steps: length of the run, counted from the end of the warm-up.
        warmup_steps: length of the rise; 0 for none.
        drops_at: fractions of the run after which the rate falls.
        factor: of each drop.
    """
    rise = warmup_then_flat(warmup_steps)
    drops = stepwise(num_steps, [int(fraction * num_steps) for fraction in drops_at], factor)
    return lambda step: rise(step) if step < warmup_steps else drops(step - warmup_steps)


def _half_cosine(step: int, num_steps: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(step / max(num_steps, 1), 1.0)))


def _check_part(name: str, part: int, num_steps: int) -> None:
    if not 0 <= part <= num_steps:
        raise ValueError(f"{name} ({part}) must lie between 0 and num_steps ({num_steps}); change one of the two")
