"""Hyper-parameters of the skeleton models, and what must hold between them."""

from __future__ import annotations

import dataclasses
from typing import Literal

from tsmjax.errors import InputError, closest
from tsmjax.models.last.graph import Norm
from tsmjax.models.last.skeletons import skeleton

STREAMS = ("joint", "bone", "joint_velocity", "bone_velocity")
ALIASES = {"velocity": "joint_velocity"}


@dataclasses.dataclass(frozen=True)
class Compat:
    """Behaviour of the reference implementation that is off here.

    Attributes:
      truncated_hops: joints farther from the centre than the graph's hops count as equally far.
      adjacency: how the graph is normalised, see `tsmjax.models.last.graph.subsets`; None for the
        net's own way.
    """

    truncated_hops: bool = False
    adjacency: Norm | None = None


@dataclasses.dataclass(frozen=True)
class ShiftFuseParts:
    """What a ShiftFuse block is made of; None takes what the size says.

    Attributes:
      shift: how joints move between channels, see `tsmjax.models.last.graph.shift_table`.
      expansion: hidden width of the temporal convolution, as a multiple of the block's.
      inner_residual: residual of a strided temporal convolution: 1×1 convolution ("conv") or every
        other frame ("subsample").
      joint_embedding: one table for each block, one for all blocks of a stage, or none.
      dct_gate: add the filtered signal ("residual"), return it alone ("plain"), or no gate.
      frame_gate: a gate for each channel and frame ("full"), the sum of one for channels and one
        for frames ("rank_one"), or none.
    """

    shift: Literal["region", "random", "none"] | None = None
    expansion: float | None = None
    inner_residual: Literal["conv", "subsample"] | None = None
    joint_embedding: Literal["block", "stage", "none"] | None = None
    dct_gate: Literal["residual", "plain", "none"] | None = None
    frame_gate: Literal["full", "rank_one", "none"] | None = None


@dataclasses.dataclass(frozen=True)
class BaseParts:
    """What a LAST-Base block is made of.

    Attributes:
      spatial: graph convolution across frames ("ctp"), or one over fixed subsets ("gcn").
      prototypes: mix graphs of a shared bank by what the clip resembles ("ctp" only).
      frequency_gate: gate frequencies of the clip.
      attention: attention over joints and frames in four partitions, gates over joints and over
        frames ("joint"), or none.
      attention_form: scores of all pairs under masks ("masked"), or attention inside fixed windows
        ("partition"), which needs less memory and sees other pairs.
      near_frames: frames that count as near ("masked"), or frames of a window ("partition": twice
        that and two).
      regions: attention inside and between body regions.
      bottleneck: heads of the information-bottleneck loss.
      hidden: hidden width of the perceptron that predicts a graph.
      graph_scale: factor of the skeleton's edges inside the softmax.
    """

    spatial: Literal["ctp", "gcn"] = "ctp"
    prototypes: bool = True
    frequency_gate: bool = True
    attention: Literal["partitioned", "joint", "none"] = "partitioned"
    attention_form: Literal["masked", "partition"] = "masked"
    near_frames: int = 3
    regions: bool = True
    bottleneck: bool = True
    hidden: int = 96
    graph_scale: float = 4.0


@dataclasses.dataclass(frozen=True)
class Config:
    """Which net, and what it sees.

    Attributes:
      net: family of nets.
      size: one of the family's sizes.
      skeleton: joints and graph, see `tsmjax.models.last.skeletons`.
      num_classes: number of actions.
      streams: inputs, of `STREAMS` in the order in which the net takes them ("velocity" means
        joint_velocity); empty for the net's own.
      bodies: read the "first" body only, or average the logits or the pooled features of all that
        are present; None for the net's own.
      frames: frames of a clip, T; a multiple of 4.
      channels: width of each stage; None for the size's own.
      blocks: blocks of each stage; likewise.
      dropout: rate of the dropout before the classifier; likewise.
      drop_path: largest rate of stochastic depth; likewise.
      stream_merge: how a net with one pass a stream (LAST-v2) joins their logits: log of the mean
        probability, or sum.
      causal: with "strict" a frame never depends on a later one, in training as in use: temporal
        convolutions look back only, and so do velocities; the last pooling alone sees all frames.
        Nets that gate or transform whole clips cannot.
      shiftfuse: parts of a ShiftFuse block.
      base: parts of a LAST-Base block.
      compat: defects of the reference to reproduce.
    """

    net: Literal["last_e", "last_v2", "last_e_v3", "last_base", "shiftfuse"] = "last_e"
    size: str = "base"
    skeleton: str = "ntu25"
    num_classes: int = 60
    streams: tuple[str, ...] = ()
    bodies: Literal["first", "mean_logits", "mean_features"] | None = None
    frames: int = 64
    channels: tuple[int, ...] | None = None
    blocks: tuple[int, ...] | None = None
    dropout: float | None = None
    drop_path: float | None = None
    stream_merge: Literal["mean_prob", "sum_logits"] = "mean_prob"
    causal: Literal["no", "strict"] = "no"
    shiftfuse: ShiftFuseParts = ShiftFuseParts()
    base: BaseParts = BaseParts()
    compat: Compat = Compat()

    def __post_init__(self):
        """Check what no type can."""
        skeleton(self.skeleton)
        for stream in self.streams:
            if ALIASES.get(stream, stream) not in STREAMS:
                raise InputError(
                    f"model.streams names {stream!r}{closest(stream, STREAMS)}; known are "
                    f"{', '.join(STREAMS)}."
                )
        if len(set(self.streams)) != len(self.streams):
            raise InputError(f"model.streams names a stream twice: {', '.join(self.streams)}.")
        if self.num_classes < 2:
            raise InputError(f"model.num_classes is {self.num_classes}, but must be at least 2.")
        if self.frames < 4 or self.frames % 4:
            raise InputError(f"model.frames is {self.frames}, but must be a multiple of 4.")
        for name in ("channels", "blocks"):
            value = getattr(self, name)
            if value is not None and (len(value) != 3 or min(value) < 1):
                raise InputError(f"model.{name} is {value}, but must be three positive numbers.")
        if self.channels and any(width % 8 for width in self.channels):
            raise InputError(f"model.channels is {self.channels}, but must be multiples of 8.")
        for name in ("dropout", "drop_path"):
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < 1.0:
                raise InputError(f"model.{name} is {value}, but must be in [0, 1).")
