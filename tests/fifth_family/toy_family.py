"""A family that tsmjax does not know: a classifier of feature rows with BatchNorm."""

import dataclasses

import jax
from flax import nnx

SHARDING = ((r"kernel$", ("fsdp", "tensor")), (r"(bias|scale)$", (None,)))
PRESETS = {"test": {"features": 8, "width": 16, "classes": 3}}


@dataclasses.dataclass(frozen=True)
class Config:
    features: int = 8
    width: int = 16
    classes: int = 3


class Model(nnx.Module):
    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        # BatchNorm takes a bias away again: its gradient would be rounding errors, and Adam would
        # make whole steps of them, other ones on every mesh.
        self.hidden = nnx.Linear(config.features, config.width, use_bias=False, rngs=rngs)
        self.norm = nnx.BatchNorm(config.width, rngs=rngs)
        self.head = nnx.Linear(config.width, config.classes, rngs=rngs)

    def features(self, x: jax.Array, train: bool) -> jax.Array:
        return jax.nn.relu(self.norm(self.hidden(x), use_running_average=not train))

    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        return self.head(self.features(x, train))
