"""Skeleton action recognition: LAST-E, LAST-v2, LAST-E v3, LAST-Base and ShiftFuse.

    config = Config(net="last_e", size="base", skeleton="ntu25", num_classes=60)
    model = Model(config, rngs=rngs)
    out = model(streams, mask, train=True, key=key)

`Config` names a net and a size and gives everything that is data: the skeleton, the streams, what
happens to several bodies, the number of frames. `NETS` lists the sizes of every net.

**In.** ``streams``: one float array (B, M, T, V, 3) for each name of `input_streams`, a subset of
``joint``, ``bone``, ``joint_velocity``, ``bone_velocity``; B clips, M bodies, ``config.frames``
frames T, V joints of the skeleton; a stream that is missing is an error, others are ignored.
``mask``: (B, M) bool, bodies that are present; None takes bodies with any value but zero. A net
that reads the first body only (``bodies="first"``) ignores the others. ``train``: BatchNorm takes
the statistics of the batch (the present bodies of all devices) and moves its running ones. ``key``:
dropout and stochastic depth; None for none. ``causal``: a bool, possibly traced: temporal
convolutions see the past only.

**Out.** A dict:

- ``logits`` (B, classes), float32;
- ``features``: a tuple of the three stages' outputs, (B, M, T', V, C) each (M = 1 for
  ``bodies="first"``), for mimicry;
- ``pooled`` (B, M, C): what the classifier sees of each body, before dropout;
- ``present`` (B, M): 1.0 where that body counts, else 0.0;
- ``ib_mean``, ``ib_log_variance`` (B, M, D): only of nets with information-bottleneck heads.

Parameters and statistics (`nnx.BatchStat`, always float32) are all that a model holds.
"""

from tsmjax.models.last.blocks import MOMENTUM
from tsmjax.models.last.config import BaseParts, Compat, Config, ShiftFuseParts
from tsmjax.models.last.model import NETS, Model, bodies, input_streams, widths
from tsmjax.models.last.presets import DECAY, SHARDING, TABLES, flops
from tsmjax.models.last.skeletons import SKELETONS, Skeleton, skeleton

__all__ = [
    "DECAY",
    "MOMENTUM",
    "NETS",
    "SHARDING",
    "SKELETONS",
    "TABLES",
    "BaseParts",
    "Compat",
    "Config",
    "Model",
    "ShiftFuseParts",
    "Skeleton",
    "bodies",
    "flops",
    "input_streams",
    "skeleton",
    "widths",
]
