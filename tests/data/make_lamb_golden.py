"""Writes lamb.npz beside this file: 20 steps of the reference's chain of optax transformations.

Needs the `parity` extra: pip install --constraint constraints.txt 'perceiver-io-torch[parity]'
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

GOLDEN = Path(__file__).with_name("lamb.npz")
NUM_STEPS = 20
WEIGHT_DECAY = 0.1

# A weight, a bias, a norm's scale and a tensor that starts at zero; only the first and the last decay.
SHAPES = {"weight": (5, 7), "bias": (5,), "norm": (3,), "zeros": (2, 4)}
DECAYED = {"weight": True, "bias": False, "norm": False, "zeros": True}


def problem() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]], list[float]]:
    """Initial parameters, and each step's gradients and learning rate. Some gradients exceed the norm of 10."""
    generator = np.random.default_rng(0)
    parameters = {name: generator.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    parameters["zeros"][:] = 0
    gradients = [
        {
            name: (generator.standard_normal(shape) * (4 if step % 3 else 0.1)).astype(np.float32)
            for name, shape in SHAPES.items()
        }
        for step in range(NUM_STEPS)
    ]
    gradients[0]["bias"][:] = 0  # without decay, so this tensor's first update is zero
    return parameters, gradients, [0.02 * (1 - step / NUM_STEPS) for step in range(NUM_STEPS)]


def trajectory() -> list[dict[str, np.ndarray]]:
    """The parameters after each step."""
    parameters, gradients, rates = problem()
    chain = optax.chain(
        optax.clip_by_global_norm(10.0),
        optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-6),
        optax.add_decayed_weights(WEIGHT_DECAY, DECAYED),
        optax.scale_by_trust_ratio(),
        optax.scale_by_learning_rate(lambda step: jnp.asarray(rates)[step]),
    )
    values = jax.tree.map(jnp.asarray, parameters)
    state = chain.init(values)
    result = []
    for gradient in gradients:
        updates, state = chain.update(gradient, state, values)
        values = optax.apply_updates(values, updates)
        result.append(jax.tree.map(np.asarray, values))
    return result


if __name__ == "__main__":
    initial, steps, rates = problem()
    np.savez_compressed(
        GOLDEN,
        rates=np.array(rates),
        **{f"parameter/{name}": value for name, value in initial.items()},
        **{f"gradient/{name}": np.stack([step[name] for step in steps]) for name in SHAPES},
        **{f"result/{name}": np.stack([step[name] for step in trajectory()]) for name in SHAPES},
    )
