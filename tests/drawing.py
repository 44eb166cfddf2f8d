"""Random parameters drawn with NumPy: eager initialisers of JAX take seconds a model."""

import jax.numpy as jnp
import numpy as np

from tsmjax.nn.functional import flatten, unflatten


def drawn(tree, seed=0):
    """Values for a tree of shapes that keep the size of activations, none of them zero or one."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        start = 1.0 if path.endswith(("scale", "var", "edge")) else 0.0
        spread = (leaf.shape[-2] if leaf.ndim > 1 else 10) ** -0.5
        return jnp.asarray(start + spread * rng.uniform(-1, 1, leaf.shape), jnp.float32)

    return unflatten({path: draw(path, leaf) for path, leaf in flatten(tree).items()})
