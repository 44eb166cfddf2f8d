"""Weight table of the skeleton models: LAST-E, LAST-v2, LAST-E v3 and ShiftFuse of their author.

A PyTorch checkpoint has no config: `describe` reads net, size, classes and graph off its tensors.
The author's checkpoints were not at hand. The names are those of his modules; that the factor of
the joint attention is called ``alpha`` is assumed, and so is that a ShiftFuse frequency gate adds
its input. LAST-Base was never published: its tensors keep our names.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any, get_args

import numpy as np

from tsmjax.errors import InputError

TASK = "skeleton"
IGNORED = (  # counters, and constants that we build ourselves
    r"num_batches_tracked$",
    r"(^|\.)(A|A_\d+|A_physical)$",
    r"\.(dct|idct|shift_indices)$",
)
_NET_OF = {  # a tensor that only this net has
    "fusion.stem.weight": "last_e",
    "data_bn.0.weight": "last_v2",
    "stages.0.0.gcn.edge": "last_e_v3",
    "stages.0.0.pw_conv.0.weight": "shiftfuse",
}
_BLOCK = {
    "last_e": "stage{stage}.{block}",
    "last_v2": "backbone.{number}",
    "last_e_v3": "stages.{index}.{block}",
    "shiftfuse": "stages.{index}.{block}",
}
_ATTENTION = tuple(
    (f"st_att.{theirs}.{number}", f"attention/{ours}/{part}", kind)
    for theirs, ours in (("temporal_att", "temporal"), ("spatial_att", "spatial"))
    for number, part, kind in ((1, "reduce", "conv"), (2, "norm", "norm"), (4, "expand", "conv"))
)
_SHORTCUT = (("residual.0", "shortcut/conv", "conv"), ("residual.1", "shortcut/norm", "norm"))
_PATH = (
    ("residual_path.0", "shortcut/conv", "conv"),
    ("residual_path.1", "shortcut/norm", "norm"),
)
# Inside a block: their module, ours, and its kind.
_MODULES = {
    "last_e": (
        *(("gcn.conv", "gcn/conv", "conv"), ("gcn_bn", "gcn_norm", "norm")),
        *(_ATTENTION + _PATH),
        *(
            (f"tcn.branch{number + 1}.{place}", f"branches/{number}/{part}", kind)
            for number in range(2)
            for place, part, kind in (
                *((0, "norm", "norm"), (2, "depthwise", "depthwise")),
                *((3, "pointwise", "conv"), (4, "output_norm", "norm")),
            )
        ),
    ),
    "last_v2": (
        *(("gcn.node_proj", "gcn/project", "conv"), ("gcn_bn", "gcn_norm", "norm")),
        *((f"gcn.subset_convs.{k}", f"gcn/convs/{k}", "conv") for k in range(5)),
        *(_ATTENTION + _PATH),
        *(("tcn.0", "temporal/norm", "norm"), ("tcn.3", "temporal/output_norm", "norm")),
        ("tcn.2.depthwise", "temporal/depthwise", "depthwise"),
        ("tcn.2.pointwise", "temporal/pointwise", "conv"),
        *(("tcn.qkv", "temporal/qkv", "linear"), ("tcn.proj", "temporal/output", "linear")),
    ),
    "last_e_v3": (
        *(("gcn.gcn", "gcn/conv", "conv"), ("gcn.bn", "gcn/norm", "norm")),
        ("gcn.subset_att.2", "gcn/attention", "linear"),
        *(("gate.mlp.0", "gate/reduce", "linear"), ("gate.mlp.2", "gate/expand", "linear")),
        *(_ATTENTION + _SHORTCUT),
    ),
    "shiftfuse": (
        *(("pw_conv.0", "conv", "conv"), ("pw_conv.1", "norm", "norm")),
        *_SHORTCUT,
    ),
}
_TCN = (
    *(("expand_conv.0", "expand", "conv"), ("expand_conv.1", "expand_norm", "norm")),
    *(("depth_conv.0", "depthwise", "depthwise"), ("depth_conv.1", "depthwise_norm", "norm")),
    *(("point_conv.0", "project", "conv"), ("point_conv.1", "project_norm", "norm")),
    *_SHORTCUT,
)
# Inside a block: single tensors.
_TENSORS = {
    "last_e": (("gcn.alpha", "gcn/alpha", ""), ("st_att.alpha", "attention/alpha", "channels")),
    "last_v2": (
        ("gcn.A_learned", "gcn/learned", ""),
        ("st_att.alpha", "attention/alpha", "channels"),
    ),
    "last_e_v3": (
        ("gcn.edge", "gcn/edge", ""),
        ("gate.gate_alpha", "gate/alpha", "channels"),
        ("st_att.alpha", "attention/alpha", "channels"),
    ),
    "shiftfuse": (
        ("joint_embed.embed.weight", "embedding/embedding", "T"),
        ("dct_gate.freq_mask", "dct_gate/mask", "frames"),
        ("frame_gate.gate_logit", "frame_gate/gate", "frames"),
    ),
}
_RANK_ONE = (  # ours alone
    ("frame_gate.channel_logit", "frame_gate/gate", ""),
    ("frame_gate.frame_logit", "frame_gate/frame_gate", ""),
)
_CONCAT = (("fusion.proj.0", "stem/conv", "conv"), ("fusion.proj.1", "stem/norm", "norm"))
_GATED = (
    *(("head_bn", "classifier/norm", "norm"), ("fc_mu", "bottleneck/mean", "linear")),
    ("fc_logvar", "bottleneck/log_variance", "linear"),
)
# Outside of blocks.
_OUTER = {
    "last_e": (
        ("fusion.stream_bn.{i}", "stem/stream_norms/{i}", "norm"),
        *(("fusion.stem", "stem/conv", "conv"), ("fusion.stem_bn", "stem/norm", "norm")),
    ),
    "last_v2": (("data_bn.{i}", "stem/stream_norms/{i}", "norm"),),
    "last_e_v3": (("fusion.stream_bn.{i}", "stem/stream_norms/{i}", "norm"), *_CONCAT, *_GATED),
    "shiftfuse": (("fusion.stream_bn.{i}", "stem/stream_norms/{i}", "norm"), *_CONCAT, *_GATED),
}
_LEAVES = {
    "conv": (("weight", "kernel", "conv"), ("bias", "bias", "")),
    "depthwise": (("weight", "kernel", "depthwise"),),
    "linear": (("weight", "kernel", "T"), ("bias", "bias", "")),
    "norm": (
        *(("weight", "scale", ""), ("bias", "bias", "")),
        *(("running_mean", "mean", ""), ("running_var", "var", "")),
    ),
}


def rules(values: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (their tensor, our path, transform) of the model that `values` describe."""
    from tsmjax.config import build
    from tsmjax.models import last
    from tsmjax.models.last.model import parts_of, size_of

    config = build(last.Config, values, "model")
    if config.net == "last_base":
        return [(path.replace("/", "."), path, "") for path in _paths(config)]
    modules, tensors = _MODULES[config.net], _TENSORS[config.net]
    if config.net == "shiftfuse":
        modules += tuple((f"tcn.{a}", f"tcn/{b}", kind) for a, b, kind in _TCN)
        if parts_of(config).frame_gate == "rank_one":
            tensors = tensors[:-1] + _RANK_ONE
    elif config.net == "last_e_v3":
        modules += tuple((f"tcns.0.{a}", f"tcn/{b}", kind) for a, b, kind in _TCN)
    found = list(_outer(config.net))
    counts = config.blocks or size_of(config).blocks
    blocks = [(stage, block) for stage in range(3) for block in range(counts[stage])]
    for number, (stage, block) in enumerate(blocks):
        place = {"stage": stage + 1, "index": stage, "block": block, "number": number}
        theirs, ours = _BLOCK[config.net].format(**place), f"stages/{stage}/{block}"
        for source, target, kind in modules:
            found += _leaves(f"{theirs}.{source}", f"{ours}/{target}", kind)
        found += [(f"{theirs}.{a}", f"{ours}/{b}", transform) for a, b, transform in tensors]
    return found


def matches(hf: Mapping[str, Any]) -> bool:
    """Whether a config.json is ours; the reference writes none."""
    return hf.get("model_type") == "last"


def to_config(hf: Mapping[str, Any]) -> dict[str, Any]:
    """Translate config.json to values of `Config`."""
    from tsmjax.models import last

    names = {field.name for field in dataclasses.fields(last.Config)}
    return {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in hf.items()
        if name in names
    }


def from_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Translate values of `Config` to config.json."""
    from tsmjax.config import build
    from tsmjax.models import last

    config = build(last.Config, values, "model")
    return {"model_type": "last", **dataclasses.asdict(config)}


def describe(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Find out which model the tensors of a PyTorch checkpoint belong to.

    Args:
      tensors: the state dict, constants included.

    Returns:
      config.json of the model.

    Raises:
      InputError: when they fit no net, no size or no graph that is known.
    """
    net = next((net for name, net in _NET_OF.items() if name in tensors), None)
    if net is None or "fc.weight" not in tensors:
        raise InputError(
            "The tensors are of none of the known skeleton models (LAST-E, LAST-v2, LAST-E v3, "
            f"ShiftFuse); the first are {', '.join(itertools.islice(tensors, 4))}."
        )
    size = _size(net, tensors)
    values = {"net": net, "size": size, "num_classes": int(tensors["fc.weight"].shape[0])}
    if net == "shiftfuse":
        values["frames"] = int(tensors["stages.0.0.dct_gate.freq_mask"].shape[2])
        _check_shift(size, tensors)
    elif (graph := _graph(net, size, tensors)) is not None:
        values["compat"] = graph
    return from_config(values)


def _outer(net: str) -> Iterator[tuple[str, str, str]]:
    for source, target, kind in _OUTER[net]:
        yield from _leaves(source, target, kind)
    yield from _leaves("fc", "classifier/linear", "linear")
    if net == "last_e":
        yield "fusion.stream_weights", "stem/stream_weights", ""
    if net in ("last_e_v3", "shiftfuse"):
        yield "pool_gate", "pool/gate", "channels"


def _leaves(source: str, target: str, kind: str) -> Iterator[tuple[str, str, str]]:
    for theirs, ours, transform in _LEAVES[kind]:
        yield f"{source}.{theirs}", f"{target}/{ours}", transform


def _paths(config: Any) -> list[str]:
    from tsmjax.models import last
    from tsmjax.nn.functional import abstract, flatten

    _, params, stats = abstract(lambda rngs: last.Model(config, rngs=rngs))
    return [*flatten(params), *flatten(stats)]


def _size(net: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Name of the size with the widths and blocks of the tensors."""
    from tsmjax.models.last import NETS

    marks = {"last_e": "gcn.conv", "last_v2": "gcn.subset_convs.0", "last_e_v3": "gcn.gcn"}
    mark = f"{marks.get(net, 'pw_conv.0')}.weight"
    for name, size in NETS[net].SIZES.items():
        blocks = [(stage, block) for stage in range(3) for block in range(size.blocks[stage])]
        wanted = {}
        for number, (stage, block) in enumerate(blocks):
            place = {"stage": stage + 1, "index": stage, "block": block, "number": number}
            groups = 2 * size.hops + 1 if net == "last_e_v3" else 1
            wanted[f"{_BLOCK[net].format(**place)}.{mark}"] = groups * size.channels[stage]
        found = {key: int(x.shape[0]) for key, x in tensors.items() if key.endswith(f".{mark}")}
        if found == wanted and (net != "shiftfuse" or name.endswith("_ref")):
            return name
    raise InputError(
        f"The tensors are of {net}, but of none of its sizes ({', '.join(NETS[net].SIZES)})."
    )


def _graph(net: str, size: str, tensors: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """The switches that reproduce the stored graph; None when no graph is stored."""
    from tsmjax.models.last import NETS
    from tsmjax.models.last.graph import Norm, subsets

    if net == "last_e" and "stage1.0.gcn.A_0" in tensors:
        stored = np.stack([tensors[f"stage1.0.gcn.A_{k}"] for k in range(3)])
    elif "A" in tensors:
        stored = tensors["A"]
    else:
        return None
    hops = NETS[net].SIZES[size].hops
    for norm, truncated in itertools.product(get_args(Norm), (False, True)):
        graph = subsets("ntu25", hops, norm, truncated).swapaxes(1, 2)
        if graph.shape == stored.shape and np.allclose(graph, stored, rtol=1e-4, atol=1e-5):
            return {"truncated_hops": truncated, "adjacency": norm}
    raise InputError(
        f"The checkpoint stores a graph {stored.shape} that is no known form of the 25 joints'."
    )


def _check_shift(size: str, tensors: Mapping[str, np.ndarray]) -> None:
    from tsmjax.models.last import NETS
    from tsmjax.models.last.graph import shift_table

    for name, stored in tensors.items():
        if name.endswith("shift_indices"):
            hops = NETS["shiftfuse"].SIZES[size].hops
            ours = shift_table("ntu25", stored.shape[0], hops, "region")
            if not np.array_equal(stored, ours):
                raise InputError(f"{name} of the checkpoint is not the body-region shift we know.")
