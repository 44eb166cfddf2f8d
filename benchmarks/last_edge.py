"""A trained ShiftFuse in every form that leaves JAX: bytes, top-1, agreement and time of a clip.

    python -m benchmarks.last_edge --checkpoint runs/joint --json last_edge.json

Scores, on the test clips of the run's data, JAX in float32; the equations in eager PyTorch; an ONNX
file of one clip, and the same in int8; a LiteRT file, the same with kernels in int8, and with
convolutions in int8. All take one clip a call, on one thread (JAX: as many as there are); the time
is the median of 50 calls, taken when a form has been scored. Weights go to PyTorch by `convert`'s
names; `error` says that they arrived. The last line printed is JSON; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from benchmarks import last_torch
from tsmjax import checkpoint, pretrained, weights
from tsmjax.export import edge, head, int8, litert
from tsmjax.export.head import Arrays
from tsmjax.export.onnx.file import build
from tsmjax.models import last
from tsmjax.models.last.model import parts_of
from tsmjax.nn import functional


def main() -> None:
    """Score what the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="run folder of a ShiftFuse")
    parser.add_argument("--clips", type=int, default=256, help="training clips for calibration")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    found = variants(options.checkpoint, options.clips)
    Console().print(edge.table(found, options.checkpoint))
    result = {
        "benchmark": "last_edge",
        "checkpoint": Path(options.checkpoint).name,
        "calibration_clips": options.clips,
        "rows": [dataclasses.asdict(one) for one in found],
        "git_commit": checkpoint.versions()["git_commit"],
    }
    print(json.dumps(result))
    if options.json:
        checkpoint.write_json(options.json, result)


def variants(path: str, clips: int) -> list[edge.Variant]:
    """Score every form of a trained model."""
    described = head.load(path, {"single": True})
    examples = edge.Examples(described)
    given = edge.calibration(described, clips)
    call, size = in_torch(path)
    found = [examples.jax, examples.score("pytorch fp32, eager", call, size)]

    onnx = build(described, 17)
    found.append(
        examples.score("onnx fp32", int8.runner(onnx.SerializeToString()), onnx.ByteSize())
    )
    for method in int8.METHODS:
        with tempfile.TemporaryDirectory() as folder:
            int8.quantise(onnx, Path(folder) / "int8.onnx", given, method)
            content = (Path(folder) / "int8.onnx").read_bytes()
        name = f"onnx int8, {method}"
        found.append(examples.score(name, int8.runner(content), len(content)))

    plain = litert.convert(described)
    forms = {"litert fp32": plain}
    for kind, name in (("weights", "litert int8 weights"), ("static", "litert int8")):
        forms[name] = litert.quantised(plain, kind, given)
    for name, content in forms.items():
        found.append(examples.score(name, litert.runner(content), len(content)))
    return found


def in_torch(path: str) -> tuple[edge.Call, int]:
    """The equations in PyTorch with the weights of a run, joints to logits; and their bytes."""
    loaded = pretrained.from_pretrained(path)
    task = loaded.task
    config = task.config.model
    if config.net != "shiftfuse":
        raise SystemExit(f"{path} is a {config.net}; this benchmark takes a shiftfuse.")
    _, params, stats = functional.split(loaded.model)
    values = {name: x for name, x in loaded.config["model"].items() if name != "family"}
    named = weights.tensors("last", values, params, stats)
    size = dataclasses.replace(last.NETS["shiftfuse"].SIZES[config.size], parts=parts_of(config))
    names = last.input_streams(config)
    joints = last.skeleton(config.skeleton).size
    shape = (config.frames, config.skeleton, joints, len(names))
    model = last_torch.ShiftFuse(size, config.num_classes, *shape).eval()
    state = {name: torch.tensor(np.asarray(x)) for name, x in named.items()}
    left = model.load_state_dict(state, strict=False)
    constants = ("num_batches_tracked", "shift_indices", "dct", "embed.weight")
    assert not left.unexpected_keys, left
    assert all(name.endswith(constants) for name in left.missing_keys), left
    torch.set_num_threads(1)
    crop, parents = task.config.task.augment.eval_crop, list(task.parents)

    @torch.inference_mode()
    def call(inputs: Arrays) -> np.ndarray:
        clip = resampled(torch.from_numpy(inputs["joints"][:, 0]), crop, config.frames)
        derived = streams(clip, parents)
        return model([derived[name]().permute(0, 3, 1, 2) for name in names]).numpy()

    return call, sum(4 * x.numel() for x in state.values())


def resampled(clip: torch.Tensor, share: float, frames: int) -> torch.Tensor:
    """What `tsmjax.data.motion.middle` does to (B, S, V, 3)."""
    given = clip.shape[1]
    length = max(1, round(share * given))
    if length == given == frames:
        return clip
    places = (given - length) // 2 + torch.arange(frames) / max(frames - 1, 1) * (length - 1)
    weight = (1 - (places[:, None] - torch.arange(given)).abs()).clamp(min=0)
    weight = weight * (clip != 0).any(3).any(2)[:, None]
    total = weight.sum(2, keepdim=True)
    weight = weight / torch.where(total > 0, total, 1.0)
    return (weight @ clip.flatten(2)).reshape(len(clip), frames, *clip.shape[2:])


def streams(clip: torch.Tensor, parents: list[int]) -> dict[str, Callable[[], torch.Tensor]]:
    """What `tsmjax.data.motion.streams` makes of (B, T, V, 3), when it is asked for."""
    here = (clip != 0).any(3).any(2)
    both = (here[:, 1:] & here[:, :-1])[:, :, None, None]

    def bone() -> torch.Tensor:
        return clip - clip[:, :, parents]

    def velocity(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([(x[:, 1:] - x[:, :-1]) * both, torch.zeros_like(x[:, :1])], 1)

    return {
        **{"joint": lambda: clip, "joint_velocity": lambda: velocity(clip)},
        **{"bone": bone, "bone_velocity": lambda: velocity(bone())},
    }


if __name__ == "__main__":
    main()
