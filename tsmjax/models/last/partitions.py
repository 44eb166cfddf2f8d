"""Attention of LAST-Base: over pairs of joints and frames in four partitions, and over regions."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax.errors import InputError
from tsmjax.models.last.blocks import Pass, Pointwise
from tsmjax.models.last.config import BaseParts
from tsmjax.models.last.graph import distances, padded_regions
from tsmjax.models.last.skeletons import skeleton
from tsmjax.nn.attention import attend
from tsmjax.nn.linear import Linear


class PartitionedAttention(nnx.Module):
    """Four heads, each with a slice of the channels and one kind of pairs, and a residual.

    The kinds are near joints in near frames, far joints in near frames, near joints in far frames,
    far joints in far frames. "masked" scores all pairs of (joint, frame): joints are near within
    one hop, frames within ``near_frames``. "partition" attends inside windows of
    2 · ``near_frames`` + 2 consecutive or evenly spread frames, over the joints of one body region
    or over those at one place of every region.

    Source: Do & Kim, "SkateFormer: Skeletal-Temporal Transformer for Human Action Recognition"
    (2024), section 3.3 (the windows).
    """

    def __init__(self, channels: int, frames: int, name: str, parts: BaseParts, *, rngs: nnx.Rngs):
        width = channels // 4
        self.frame_positions = nnx.Param(jnp.zeros((frames, channels)))
        self.joint_positions = nnx.Param(jnp.zeros((skeleton(name).size, channels)))

        def head() -> Pointwise:
            return Pointwise(width, 3 * width, bias=True, std=width**-0.5, rngs=rngs)

        self.qkv = nnx.List([head() for _ in range(4)])
        self.output = Pointwise(channels, channels, bias=True, std=0.01, rngs=rngs)
        self.skeleton, self.near, self.form = name, parts.near_frames, parts.attention_form
        self.window = min(2 * self.near + 2, frames)
        if self.form == "partition" and frames % self.window:
            raise InputError(
                f"model.base.attention_form is 'partition' with windows of {self.window} frames, "
                f"which do not divide the {frames} frames of a stage: change model.frames or "
                "model.base.near_frames."
            )

    def __call__(self, x: jax.Array, run: Pass) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        y = x + self.joint_positions[...].T[:, :, None, None]
        y = y + self.frame_positions[...].T[:, None, :, None]
        heads = [qkv(part) for qkv, part in zip(self.qkv, jnp.split(y, 4), strict=True)]
        if self.form == "masked":
            y = self._masked(jnp.stack(heads), run)
        else:
            y = jnp.concatenate([self._windows(x, kind, run) for kind, x in enumerate(heads)])
        return x + self.output(y)

    def _masked(self, heads: jax.Array, run: Pass) -> jax.Array:
        """Attend to all pairs of a kind; (4, 3D, V, T, N) to (4D, V, T, N)."""
        H, _, V, T, N = heads.shape
        mask = _pairs(self.skeleton, T, self.near)
        if run.causal is not None:
            time = np.tile(np.arange(T), V)
            mask = mask & ((time[None, :] <= time[:, None]) | jnp.logical_not(run.causal))
        q, k, v = heads.reshape(H, 3, -1, V * T, N).transpose(1, 4, 3, 0, 2)
        y = attend(q, k, v, jnp.asarray(mask)[None], scale=q.shape[-1] ** -0.5)
        alive = jnp.asarray(mask.any(axis=-1))  # a short clip has no far frames
        y = jnp.where(alive.T[:, :, None], y, 0)
        return y.transpose(2, 3, 1, 0).reshape(-1, V, T, N)

    def _windows(self, head: jax.Array, kind: int, run: Pass) -> jax.Array:
        """Attend inside the windows of a kind; (3D, V, T, N) to (D, V, T, N)."""
        T, N = head.shape[2:]
        table, real = padded_regions(skeleton(self.skeleton))
        near_joints, near_frames = kind % 2 == 0, kind < 2
        spread = (T // self.window, self.window)
        x = head[:, table].reshape(
            3, -1, *table.shape, *(spread if near_frames else spread[::-1]), N
        )
        # Axes: 3, D, regions, places, and two of frames, N. Those of tokens are of the near kind
        # the places and the later, else the regions and the earlier; the others number windows.
        joint, frame = 3 if near_joints else 2, 5 if near_frames else 4
        order = (0, 6, 9 - frame, joint, frame, 5 - joint, 1)
        x = x.transpose(order)
        shape = x.shape[1:]
        _, _, joints, frames, groups, features = shape
        q, k, v = x.reshape(3, -1, joints * frames, groups, features)
        mask = np.repeat(real if near_joints else real.T, frames, axis=1)[:, None, :]
        if run.causal is not None:
            time = np.tile(np.arange(frames), joints)
            mask = mask & ((time[None, :] <= time[:, None]) | jnp.logical_not(run.causal))
        y = attend(q, k, v, jnp.asarray(mask)[None], scale=features**-0.5).reshape(shape)
        y = y.transpose(np.argsort(np.array(order[1:]))).reshape(features, table.size, T, N)
        return y[:, _places(table, real)]


class RegionAttention(nnx.Module):
    """Attention among the joints of a body region, then among regions, frame by frame.

    A learned query pools each region to a token; what the tokens tell each other goes back to the
    joints, weighed joint by joint, and a projection of both is added to the input.
    """

    def __init__(self, channels: int, name: str, *, rngs: nnx.Rngs):
        width, regions = channels // 8, len(skeleton(name).regions)

        def inner() -> Linear:
            return Linear(width, width, std=width**-0.5, bias=True, rngs=rngs)

        self.q, self.k, self.v = (
            Pointwise(channels, width, bias=True, std=channels**-0.5, rngs=rngs) for _ in range(3)
        )
        self.queries = nnx.Param(width**-0.5 * jax.random.normal(rngs.params(), (regions, width)))
        self.region_q, self.region_k, self.region_v, self.region_output = (
            inner() for _ in range(4)
        )
        self.output = Pointwise(width, channels, bias=True, std=0.01, rngs=rngs)
        self.joint_weights = nnx.Param(jnp.zeros((skeleton(name).size,)))
        self.skeleton = name

    def __call__(self, x: jax.Array) -> jax.Array:
        """Map (C, V, T, N) to the same shape."""
        T, N = x.shape[2:]
        table, real = padded_regions(skeleton(self.skeleton))
        mask, scale = real[None, :, None, :], self.queries.shape[-1] ** -0.5

        def tokens(x: jax.Array) -> jax.Array:  # rows, places, regions, D
            return x[:, table].transpose(3, 4, 2, 1, 0).reshape(T * N, *table.T.shape, -1)

        q, k, v = (tokens(part(x)) for part in (self.q, self.k, self.v))
        joints = attend(q, k, v, mask, scale=scale)
        queries = jnp.broadcast_to(self.queries[...], (T * N, 1, *self.queries.shape))
        regions = attend(queries, joints, joints, mask, scale=scale)[:, 0]
        parts = (self.region_q, self.region_k, self.region_v)
        q, k, v = (part(regions)[:, :, None] for part in parts)
        told = self.region_output(attend(q, k, v, scale=scale)[:, :, 0])
        places = _places(table, real)
        joints = joints.swapaxes(1, 2).reshape(T * N, table.size, -1)[:, places]
        told = told[:, places // table.shape[1]]
        y = joints + self.joint_weights[...][:, None] * told
        return x + self.output(y.reshape(T, N, *y.shape[1:]).transpose(3, 2, 0, 1))


@functools.cache
def _pairs(name: str, frames: int, near_frames: int) -> np.ndarray:
    """Masks of the four kinds of pairs, (4, V · T, V · T), tokens ordered by joint, then frame."""
    joints = distances(name) <= 1
    time = np.abs(np.subtract.outer(np.arange(frames), np.arange(frames))) <= near_frames
    kinds = ((joints, time), (~joints, time), (joints, ~time), (~joints, ~time))
    return np.stack([np.kron(one, other).astype(bool) for one, other in kinds])


def _places(table: np.ndarray, real: np.ndarray) -> np.ndarray:
    """Where each joint stands in the flattened table of regions."""
    flat = np.flatnonzero(real.ravel())
    return flat[np.argsort(table.ravel()[flat])]
