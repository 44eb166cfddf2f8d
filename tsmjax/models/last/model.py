"""The model around every net: streams and bodies in, stages, pooling, classifier."""

from __future__ import annotations

import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import nnx

from tsmjax.errors import InputError, closest
from tsmjax.models.last import last_base, last_e, last_e_v3, last_v2, shiftfuse
from tsmjax.models.last.blocks import Bottleneck, Classifier, GatedPool, Pass, StreamConcat
from tsmjax.models.last.config import ALIASES, Config
from tsmjax.models.last.graph import Graph
from tsmjax.models.last.skeletons import skeleton
from tsmjax.nn.dropout import split

NETS: dict[str, types.ModuleType] = {
    "last_e": last_e,
    "last_v2": last_v2,
    "last_e_v3": last_e_v3,
    "last_base": last_base,
    "shiftfuse": shiftfuse,
}
STRIDES = (1, 2, 2)


class Model(nnx.Module):
    """A skeleton model; `tsmjax.models.last` describes what it takes and returns.

    Parameters are under ``stem``, ``stages/S/B`` (stage and block), ``pool``, ``classifier`` and
    ``bottleneck``.
    """

    def __init__(self, config: Config, *, rngs: nnx.Rngs):
        """Build the net that `config` names.

        Raises:
          InputError: when the net has no such size, or cannot take what the config says.
        """
        self.config = config
        size, channels = size_of(config), widths(config)
        self.stem, width = _stem(config, channels, rngs=rngs)
        self.stages = nnx.List(_stages(config, width, channels, rngs=rngs))
        if config.causal == "strict":
            _check_causal(config)
        gated = config.net not in ("last_e", "last_v2")
        self.pool = GatedPool(channels[-1], rngs=rngs) if gated else None
        rate = size.dropout if config.dropout is None else config.dropout
        self.classifier = Classifier(channels[-1], config.num_classes, rate, norm=gated, rngs=rngs)
        latent = config.base.bottleneck if config.net == "last_base" else None
        latent = getattr(size, "bottleneck", False) if latent is None else latent
        self.bottleneck = Bottleneck(channels[-1], rngs=rngs) if latent else None

    def __call__(
        self,
        streams: Mapping[str, jax.Array],
        mask: jax.Array | None = None,
        *,
        train: bool = False,
        key: jax.Array | None = None,
        causal: jax.Array | bool | None = None,
    ) -> dict[str, jax.Array | tuple[jax.Array, ...]]:
        """Classify clips.

        Args:
          streams: (B, M, T, V, 3) of each stream in `input_streams`; others are ignored.
          mask: (B, M) bodies that are present; None takes those with any value but zero.
          train: normalise by the batch and move the running statistics.
          key: dropout and stochastic depth; None for none.
          causal: None, or whether temporal convolutions see the past only; may be traced.

        Returns:
          The dict that `tsmjax.models.last` describes.

        Raises:
          InputError: when a stream is missing or of another shape.
        """
        given = self._inputs(streams)
        present = _present(given, mask)
        if bodies(self.config) == "first":
            given, present = [x[:, :1] for x in given], jnp.ones_like(present[:, :1])
        B, M = present.shape
        several = M > 1
        causal = True if self.config.causal == "strict" else causal
        run = Pass(train, present.reshape(-1) if several else None, causal)
        block_key, head_key = split(key, 2)
        rows = [x.transpose(4, 3, 2, 0, 1).reshape(3, *x.shape[3:1:-1], B * M) for x in given]
        dtype = self.classifier.linear.kernel[...].dtype
        x = self.stem([row.astype(dtype) for row in rows], run)
        copies = x.shape[-1] // (B * M)  # a net may pass each stream by itself
        run = run.tiled(copies)
        features = []
        keys = iter(split(block_key, sum(len(blocks) for blocks in self.stages)))
        for blocks in self.stages:
            for block in blocks:
                x = block(x, run, next(keys))
            features.append(x.reshape(*x.shape[:-1], copies, B, M).mean(axis=3))
        pooled = self.pool(x) if self.pool else x.mean(axis=(1, 2))
        out = {
            "logits": self._logits(pooled, present, copies, run, head_key),
            "features": tuple(feature.transpose(3, 4, 2, 1, 0) for feature in features),
            "pooled": pooled.reshape(-1, copies, B, M).mean(axis=1).transpose(1, 2, 0),
            "present": present,
        }
        if self.bottleneck:
            mean, log_variance = self.bottleneck(pooled)
            out["ib_mean"] = mean.reshape(B, M, -1)
            out["ib_log_variance"] = log_variance.reshape(B, M, -1)
        return out

    def _inputs(self, streams: Mapping[str, jax.Array]) -> list[jax.Array]:
        given = {ALIASES.get(name, name): x for name, x in streams.items()}
        wanted = input_streams(self.config)
        if missing := [name for name in wanted if name not in given]:
            raise InputError(
                f"The model wants the stream{'s' * (len(missing) > 1)} {', '.join(missing)}, but "
                f"was given {', '.join(given) or 'none'}."
            )
        shape = (self.config.frames, skeleton(self.config.skeleton).size, 3)
        for name in wanted:
            if given[name].ndim != 5 or given[name].shape[2:] != shape:
                raise InputError(
                    f"The stream {name} has shape {given[name].shape}, but the model takes (clips, "
                    f"bodies, {', '.join(map(str, shape))}): frames, joints, coordinates."
                )
        return [given[name] for name in wanted]

    def _logits(
        self,
        pooled: jax.Array,
        present: jax.Array,
        copies: int,
        run: Pass,
        key: jax.Array | None,
    ) -> jax.Array:
        """Join bodies and streams: pooled features (C, S · B · M) to logits (B, classes)."""
        B, M = present.shape
        share = present / present.sum(axis=1, keepdims=True)
        if bodies(self.config) == "mean_features":
            pooled = pooled.reshape(-1, copies, B, M)
            pooled = (pooled * share.astype(pooled.dtype)).sum(axis=-1).reshape(-1, copies * B)
            logits = self.classifier(pooled, run._replace(rows=None), key)
        else:
            logits = self.classifier(pooled, run, key).reshape(copies * B, M, -1)
            logits = (logits * jnp.tile(share, (copies, 1))[..., None]).sum(axis=1)
        if copies == 1:
            return logits
        logits = logits.reshape(copies, B, -1)
        if self.config.stream_merge == "sum_logits":
            return logits.sum(axis=0)
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(float(copies))


def size_of(config: Config):
    """The size that a config names, with what it overrides left as it is.

    Raises:
      InputError: when the net has no such size.
    """
    sizes = NETS[config.net].SIZES
    if config.size not in sizes:
        raise InputError(
            f"model.size is {config.size!r}{closest(config.size, sizes)}, but {config.net} comes "
            f"in {', '.join(sizes)}."
        )
    return sizes[config.size]


def widths(config: Config) -> tuple[int, ...]:
    """Channels behind each stage of the model of a config."""
    return config.channels or size_of(config).channels


def input_streams(config: Config) -> tuple[str, ...]:
    """Streams that the model of a config takes, in its order, by their canonical names."""
    named = config.streams or NETS[config.net].STREAMS
    return tuple(ALIASES.get(stream, stream) for stream in named)


def bodies(config: Config) -> str:
    """What the model of a config does with several bodies."""
    return config.bodies or NETS[config.net].BODIES


def graph_of(config: Config) -> Graph:
    """The partitioned graph of a config."""
    norm = config.compat.adjacency or NETS[config.net].NORM
    return Graph(config.skeleton, size_of(config).hops, norm, config.compat.truncated_hops)


def parts_of(config: Config):
    """Parts of a ShiftFuse block: the size's own, where the config says nothing else."""
    import dataclasses

    given = dataclasses.asdict(config.shiftfuse)
    chosen = {name: value for name, value in given.items() if value is not None}
    return dataclasses.replace(size_of(config).parts, **chosen)


def _check_causal(config: Config) -> None:
    """Raise InputError unless nothing in the net looks at a whole clip before the last pooling."""
    if config.net != "shiftfuse" or parts_of(config).dct_gate != "none":
        raise InputError(
            f"model.causal is 'strict', but {config.net} gates, transforms or pools whole clips; "
            "model.net='shiftfuse' with model.shiftfuse.dct_gate='none' does not."
        )


def _stem(config: Config, channels: tuple[int, ...], *, rngs: nnx.Rngs) -> tuple[nnx.Module, int]:
    """The stem, and its width."""
    count, size = len(input_streams(config)), size_of(config)
    if config.net == "last_e":
        return last_e.StreamFusion(count, channels[0], rngs=rngs), channels[0]
    if config.net == "last_v2":
        return last_v2.StreamNorms(count, rngs=rngs), 3
    if config.net == "last_base":
        return StreamConcat(count, channels[0], relu=False, rngs=rngs), channels[0]
    return StreamConcat(count, size.stem, rngs=rngs), size.stem


def _stages(
    config: Config, width: int, channels: tuple[int, ...], *, rngs: nnx.Rngs
) -> list[nnx.List]:
    """Blocks of the three stages; the first block of the later two halves the frames."""
    size, graph = size_of(config), graph_of(config)
    counts = config.blocks or size.blocks
    joints, frames = skeleton(config.skeleton).size, config.frames
    largest = size.drop_path if config.drop_path is None else config.drop_path
    parts = parts_of(config) if config.net == "shiftfuse" else config.base
    bank = None
    if config.net == "last_base" and parts.prototypes and parts.spatial == "ctp":
        bank = last_base.GraphBank(joints, rngs=rngs)
    stages, number = [], 0
    for stage, (outputs, count) in enumerate(zip(channels, counts, strict=True)):
        blocks, embedding = [], None
        if config.net == "shiftfuse" and parts.joint_embedding == "stage":
            embedding = shiftfuse.JointEmbedding(outputs, joints, rngs=rngs)
        for block in range(count):
            stride = STRIDES[stage] if block == 0 else 1
            rate = largest * number / max(sum(counts) - 1, 1)
            shape = (width, outputs, stride)
            if config.net == "last_e":
                blocks.append(last_e.Block(*shape, size.attention[stage], rate, graph, rngs=rngs))
            elif config.net == "last_v2":
                attention = size.attention[stage]
                blocks.append(last_v2.Block(*shape, attention, rate, graph, joints, rngs=rngs))
            elif config.net == "last_e_v3":
                hybrid = size.hybrid and stage == 2
                kind = (graph, joints, size.subset_attention)
                blocks.append(last_e_v3.Block(*shape, hybrid, rate, *kind, rngs=rngs))
            elif config.net == "last_base":
                rate = largest * stage / 2
                kind = (graph, joints, bank, parts)
                blocks.append(last_base.Block(*shape, frames, rate, *kind, rngs=rngs))
            else:
                if parts.joint_embedding == "block":
                    embedding = shiftfuse.JointEmbedding(outputs, joints, rngs=rngs)
                shift = shiftfuse.Shift(config.skeleton, width, size.hops, parts.shift)
                kind = (shift, embedding, parts)
                blocks.append(shiftfuse.Block(*shape, frames, rate, *kind, rngs=rngs))
            width, frames, number = outputs, frames // stride, number + 1
        stages.append(nnx.List(blocks))
    return stages


def _present(streams: list[jax.Array], mask: jax.Array | None) -> jax.Array:
    """(B, M) float32, 1 for bodies that count; a clip without any counts its first body."""
    if mask is None:
        mask = jnp.zeros(streams[0].shape[:2], bool)
        for x in streams:
            mask = mask | (x != 0).any(axis=(2, 3, 4))
    mask = mask.astype(bool)
    first = jnp.arange(mask.shape[1]) == 0
    return (mask | (first & ~mask.any(axis=1, keepdims=True))).astype(jnp.float32)
