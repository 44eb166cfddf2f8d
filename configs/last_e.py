"""LAST-E, the small nets: three streams fused at the input, one body.

    python -m tsmjax.prepare ntu --src nturgb+d_skeletons --dst data/ntu60
    python -m tsmjax.main --config=configs/last_e.py                      # base, NTU-60, cross-subject
    python -m tsmjax.main --config=configs/last_e.py:nano,ntu120,xset
    python -m tsmjax.main --config=configs/last_e.py:ucla,small,joint,/data/ucla

Words in any order: a size, a data set (ntu60, ntu120, ucla, utd), a protocol (xsub, xview, xset), a
stream (joint, bone, joint_velocity, bone_velocity) to train on alone, a path with a slash, and
init=RUN, a run whose weights to start from, the classifier's excepted.
"""  # noqa: E501

from typing import Any

from ml_collections import ConfigDict

from tsmjax.errors import InputError, closest

# Joint set, actions, protocols (the first is the default).
DATASETS: dict[str, tuple[str, str, int, tuple[str, ...]]] = {
    "ntu60": ("ntu60", "ntu25", 60, ("xsub", "xview")),
    "ntu120": ("ntu120", "ntu25", 120, ("xsub", "xset")),
    "ucla": ("nw_ucla", "ucla20", 10, ("xview",)),
    "utd": ("utd_mhad", "utd20", 27, ("xsub",)),
}
# What small data sets change: short clips are interpolated, steps are of few clips, and where
# training sees two of three views, clips are turned upright and then by up to 46 degrees.
SMALL_SETS: dict[str, dict[str, Any]] = {
    "ucla": {
        "model": {"frames": 32},
        "task": {"augment": {"rotation": (0.2, 0.8, 0.0), "crop": (0.5, 1.0), "mirror": 0.5}},
        "data": {
            **{"frames": 64, "sampling": "resize", "centre": "first_frame", "upright": True},
            "batch_size": 16,
        },
    },
    "utd": {  # swipes to the left and to the right are two actions: no mirror
        "model": {"frames": 32},
        "task": {"augment": {"rotation": (0.1, 0.4, 0.0), "crop": (0.6, 1.0)}},
        "data": {"frames": 64, "sampling": "resize", "centre": "first_frame", "batch_size": 16},
    },
}
STREAMS = ("joint", "bone", "joint_velocity", "bone_velocity")
# Kernels of projections and convolutions are decayed; biases, norms, gates, masks, embeddings and
# learned graphs are not.
DECAY = ((r"(^|/)(?!kernel$)[^/]+$", 0.0),)


def get_config(variant: str = "") -> ConfigDict:
    """Return the config; `variant` holds words as above, separated by commas."""
    return recipe("last_e", variant, "base", ("nano", "small", "base", "large"), batch_size=128)


def recipe(
    net: str, variant: str, size: str, sizes: tuple[str, ...], batch_size: int = 16
) -> ConfigDict:
    """Return what all configs of skeleton models start from.

    Args:
      net: family of nets.
      variant: words, separated by commas.
      size: size when none is named.
      sizes: sizes that there are.
      batch_size: clips of a step; small data sets take 16.

    Raises:
      InputError: for a word that is none of those.
    """
    chosen: dict[str, Any] = {"size": size, "dataset": "ntu60", "protocol": "", "stream": ""}
    chosen["path"] = ""
    protocols = ("xsub", "xview", "xset", "given")
    kinds = {"size": sizes, "dataset": (*DATASETS,), "protocol": protocols, "stream": STREAMS}
    start = ""
    for word in filter(None, variant.split(",")):
        if word.startswith("init="):
            start = word.removeprefix("init=")
            continue
        kind = next((kind for kind, words in kinds.items() if word in words), "path")
        if kind == "path" and "/" not in word and ":" not in word:
            known = [word for words in kinds.values() for word in words]
            raise InputError(
                f"The variant {word!r} of the config is none of {', '.join(known)}, and no path "
                f"(a path has a slash){closest(word, known)}."
            )
        chosen[kind] = word
    dataset, skeleton, classes, known = DATASETS[chosen["dataset"]]
    stream = chosen["stream"]
    config = ConfigDict(
        {
            "name": "_".join(filter(None, (chosen["size"], chosen["dataset"], stream))),
            "seed": 0,
            "model": {
                "family": "last",
                "net": net,
                "size": chosen["size"],
                "skeleton": skeleton,
                "num_classes": classes,
                "streams": (stream,) if stream else (),
                "frames": 64,
            },
            "task": {
                "kind": "skeleton",
                "label_smoothing": 0.1,
                "bottleneck": "none",
                "bottleneck_weight": 0.01,
                "causal": 0.0,
                "augment": {
                    "rotation": (0.0, 0.26, 0.0),  # 15 degrees about the vertical
                    "scale": 0.1,
                    "shear": 0.1,
                    "noise": 0.0,
                    "crop": (1.0, 1.0),
                    "eval_crop": 1.0,
                    "mirror": 0.0,
                },
            },
            "data": {
                "path": chosen["path"] or f"data/{chosen['dataset']}",
                "protocol": chosen["protocol"] or known[0],
                "bodies": 1,
                "frames": 0,
                "sampling": "uniform",
                "centre": "every_frame",
                "scale": "torso",
                "upright": False,
                "batch_size": batch_size,
            },
            "optim": {
                "optimizer": "sgd",
                "momentum": 0.9,
                "nesterov": True,
                "length": "70 epochs",
                "lr": 0.01,
                "warmup": "10 epochs",
                "start": 0.1,
                "final": 1e-3,
                "schedule": "cosine",
                "stepping": "step",
                "accumulate": 1,
                "weight_decay": 4e-4,
                "decay": DECAY,
                "clip": 1.0,
                "precision": "float32",
            },
            "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
            "checkpoint": {
                "every": "5 epochs",
                "keep_latest": 2,
                "keep_best": 2,
                "init_from": start,
                "init_skip": ("^classifier/",) if start else (),
            },
            "evals": {
                "every": "5 epochs",
                "suites": (),
                "metric": f"{dataset}/top1",
                "mode": "max",
                "batch_size": 64,
            },
            "log": {"every": "1%", "plots": True},
        }
    )
    config.update(SMALL_SETS.get(chosen["dataset"], {}))
    return config
