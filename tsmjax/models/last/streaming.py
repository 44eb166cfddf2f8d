"""Frame by frame: what a strictly causal skeleton model says of the frames so far.

    stream = Stream(model)
    for frame in camera:                 # {"joint": (B, V, 3), "joint_velocity": …}
        logits = stream.push(frame)      # (B, classes)

After the last frame of a clip the logits are those of the model on the whole clip; each frame costs
about one T-th of that. Velocities are this frame minus the one before, zero in the first.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.errors import InputError
from tsmjax.models.last.blocks import Pass, hard_swish
from tsmjax.models.last.model import STRIDES, Model, bodies, input_streams
from tsmjax.models.last.shiftfuse import Block
from tsmjax.models.last.skeletons import skeleton
from tsmjax.nn import functional
from tsmjax.nn.functional import Tree

_RUN = Pass(train=False, causal=True)


class Stream:
    """State of a clip that is being seen.

    Attributes:
      frame: number of frames seen.
    """

    def __init__(self, model: Model, clips: int = 1):
        """Begin `clips` clips side by side.

        Raises:
          InputError: when the model is not strictly causal, or reads several bodies.
        """
        if model.config.causal != "strict":
            raise InputError("A stream needs a model with model.causal='strict'.")
        if bodies(model.config) != "first":
            raise InputError("A stream reads one body: set model.bodies to 'first'.")
        self._names = input_streams(model.config)
        graph, self._params, self._stats = functional.split(model)
        self._steps = {
            phase: jax.jit(functools.partial(_step, graph, phase)) for phase in (0, 1, 2)
        }
        self._clips, self._dtype = clips, model.classifier.linear.kernel[...].dtype
        self._joints = skeleton(model.config.skeleton).size
        self._past = [
            jnp.zeros((block.tcn.depthwise.kernel.shape[1], self._joints, _past(block), clips))
            for stage in model.stages
            for block in stage
        ]
        self._channels = model.classifier.linear.kernel.shape[0]
        self.reset()

    def reset(self) -> None:
        """Begin new clips."""
        self.frame = 0
        pooled = jnp.zeros((self._channels, self._clips), jnp.float32)
        self._state = {
            "past": [x.astype(self._dtype) for x in self._past],
            "sum": pooled,
            "largest": pooled - jnp.inf,
        }

    def push(self, frame: Mapping[str, jax.Array]) -> jax.Array:
        """See one more frame of each clip.

        Args:
          frame: (clips, V, 3) of each stream that the model takes.

        Returns:
          Logits (clips, classes), float32. Behind the model's number of frames, the gates of its
          last one stay.

        Raises:
          InputError: when a stream is missing or of another shape.
        """
        shape = (self._clips, self._joints, 3)
        for name in self._names:
            if name not in frame or jnp.shape(frame[name]) != shape:
                found = jnp.shape(frame[name]) if name in frame else "not there"
                raise InputError(f"The stream {name} is {found}, but must have shape {shape}.")
        given = [jnp.asarray(frame[name], jnp.float32) for name in self._names]
        phase = 1 if self.frame % 2 else self.frame % 4
        step = self._steps[phase]
        logits, self._state = step(self._params, self._stats, self._state, given, self.frame)
        self.frame += 1
        return logits


def _step(
    graph: nnx.GraphDef,
    phase: int,
    params: Tree,
    stats: Tree,
    state: Tree,
    given: list[jax.Array],
    frame: jax.Array,
) -> tuple[jax.Array, Tree]:
    """Pass one frame as far as the strides let it.

    `phase` is its number modulo four; 1 serves for 3, which goes as far.
    """
    model = functional.merge(graph, params, stats)
    x = model.stem([row.transpose(2, 1, 0)[:, :, None] for row in given], _RUN)
    past, place, at = list(state["past"]), 0, frame
    total, largest = state["sum"], state["largest"]
    for stage, stride in zip(model.stages, STRIDES, strict=True):
        for number, block in enumerate(stage):
            step = stride if number == 0 else 1
            if x is not None:
                kept = phase % step == 0
                x, past[place] = _through(block, x, past[place], at, step, kept)
            place += 1
            if step > 1:
                phase, at = phase // step, at // step
    if x is not None:
        total = total + x.sum(axis=(1, 2)).astype(jnp.float32)
        largest = jnp.maximum(largest, x.max(axis=(1, 2)).astype(jnp.float32))
    seen = frame // 4 + 1
    pooled = model.pool.blend(total / (seen * given[0].shape[1]), largest)
    logits = model.classifier(pooled, _RUN, None)
    return logits, {"past": past, "sum": total, "largest": largest}


def _through(
    block: Block, x: jax.Array, past: jax.Array, at: jax.Array, stride: int, kept: bool
) -> tuple[jax.Array | None, jax.Array]:
    """One frame through a block; None when its stride leaves this frame out.

    Args:
      block: the block.
      x: (C, V, 1, N), frame number `at` of its input.
      past: (C', V, k − 1, N), what its temporal convolution has seen before.
      at: that number.
      stride: of the block.
      kept: whether the stride divides `at`.
    """
    tcn = block.tcn
    y = hard_swish(block.norm(block.conv(block.shift(x)), _RUN))
    y = block.embedding(y) if block.embedding else y
    window = hard_swish(tcn.expand_norm(tcn.expand(y), _RUN))
    window = jnp.concatenate([past, window], axis=2)
    if not kept:
        return None, window[:, :, 1:]
    z = jnp.einsum("cvkn,kc->cvn", window, tcn.depthwise.kernel[...])[:, :, None]
    z = tcn.project_norm(tcn.project(hard_swish(tcn.depthwise_norm(z, _RUN))), _RUN)
    z = z + (tcn.shortcut(y, _RUN) if tcn.shortcut else y)
    z = block.frame_gate(z, at // stride) if block.frame_gate else z
    return block.shortcut(x, _RUN) + z, window[:, :, 1:]


def _past(block: Block) -> int:
    return block.tcn.depthwise.kernel.shape[0] - 1
