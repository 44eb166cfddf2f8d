"""Two-layer perceptron with a linear shortcut."""

from __future__ import annotations

import jax
from flax import nnx

from tsmjax.nn.dropout import dropout
from tsmjax.nn.linear import Linear


class ResidualBlock(nnx.Module):
    """``dropout(output(relu(hidden(x)))) + residual(x)``, all three linears with bias.

    Source: Das et al., "Long-term Forecasting with TiDE" (2023), section 4.1, without its norm.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        *,
        init: float,
        dropout_rate: float,
        rngs: nnx.Rngs,
    ):
        """Build the block.

        Args:
          inputs: size of the last axis of the input.
          hidden: width of the hidden layer.
          outputs: size of the last axis of the output.
          init: kernels are drawn from N(0, (init / √fan_in)²).
          dropout_rate: probability of dropping an output of the perceptron.
          rngs: initialisation randomness.
        """

        def linear(fan_in: int, fan_out: int) -> Linear:
            return Linear(fan_in, fan_out, std=init * fan_in**-0.5, bias=True, rngs=rngs)

        self.hidden = linear(inputs, hidden)
        self.output = linear(hidden, outputs)
        self.residual = linear(inputs, outputs)
        self.dropout_rate = dropout_rate

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Map (…, inputs) to (…, outputs)."""
        y = self.output(jax.nn.relu(self.hidden(x)))
        return dropout(y, self.dropout_rate, key) + self.residual(x)
