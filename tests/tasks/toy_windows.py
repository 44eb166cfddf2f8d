"""A small data set of labelled windows, and a config of a tiny SensorLLM for it."""

import re

import numpy as np
import pandas as pd

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.text import Bytes

LABELS = ("rest", "swim", "walk", "fly")  # nobody swims
STEPS, RATE = 12, 4.0
FACTS = {
    **{"dataset": "toy", "stage": 2, "rate": RATE, "window": STEPS},
    **{"channels": ["x_acc", "y_acc"], "channel_texts": ["x axis", "y axis"]},
    **{"labels": list(LABELS), "subjects": {"train": [], "validation": [], "test": []}},
    **{"counts": {}, "mean": [0.0, 0.0], "std": [1.0, 1.0], "settings": {}},
}
SPLITS = {"train": 44, "validation": 12, "test": 12}


class Chatty(Bytes):
    """Bytes, and three special tokens of Llama 3."""

    names = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    size = Bytes.size + 3

    def encode(self, text):
        parts = re.split("(" + "|".join(map(re.escape, self.names)) + ")", text)
        return [
            token
            for part in parts
            for token in (
                [Bytes.size + self.names.index(part)]
                if part in self.names
                else super(Chatty, self).encode(part)
            )
        ]


def write(folder, change=None, **facts):
    """Write the set, after `change` of its rows.

    Rest is still, walking swings slowly, flying fast; rest is the most frequent.
    """
    rng = np.random.default_rng(0)
    rows, t = [], np.arange(STEPS)
    for split, count in SPLITS.items():
        for number in range(count):
            label = (0, 0, 2, 3)[number % 4] if number % 8 else 2
            speed = {0: 0.0, 2: 0.7, 3: 2.4}[label]
            phase = rng.uniform(0, 6)
            x = np.stack([np.sin(speed * t + phase), np.cos(speed * t + phase)])
            x = (x + 0.05 * rng.normal(size=x.shape)).astype(np.float32)
            rows.append(
                {
                    **{"item_id": f"{split}/{number}", "target": x, "label": LABELS[label]},
                    **{"label_id": np.int32(label), "label_fraction": 1.0, "subject": split},
                    **{"start": np.datetime64(0, "ns"), "rate": RATE, "split": split},
                    **{"smry": f"sd {x.std():.2f}", "trend_text": "up", "corr_text": "none"},
                    **{"Q": "Which?", "A": LABELS[label], "info_text": ""},
                    "sensor": {**FACTS, **facts},
                }
            )
    if change is not None:
        change(rows)
    write_dataset(rows, folder)
    return str(folder)


def stream(windows, labels):
    """Windows one after the other as a table of readings at twice the rate."""
    values = np.repeat(windows.transpose(0, 2, 1).reshape(-1, windows.shape[1]), 2, axis=0)
    return pd.DataFrame(
        {
            "time": np.arange(len(values)) / (2 * RATE),
            "x acc": values[:, 0],
            "y acc": values[:, 1],
            "label": np.repeat([LABELS[i] for i in labels], 2 * STEPS),
        }
    )


def config(path, **sections):
    """Config values; keyword arguments update single sections."""
    values = {
        "name": "toy",
        "model": {
            **{"family": "sensorllm", "channels": ("x_acc", "y_acc"), "window": STEPS},
            **{"labels": LABELS, "proj_hidden": (16,)},
            "llm": {
                **{"vocab_size": 259, "d_model": 24, "d_ff": 32, "num_layers": 1, "num_heads": 2},
                **{"num_kv_heads": 1, "d_kv": 12, "rope_theta": 10000.0, "bos_token": 1},
                **{"rope_scaling": {"kind": "none"}, "eos_tokens": (2,)},
                "initializer_range": 0.2,
            },
            "encoder": {
                **{"d_model": 20, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
                **{"initializer_factor": 1.0, "vocab_size": 40},
                "tokenizer": {"kind": "StanNormalizeUniformBins", "n_tokens": 40},
            },
        },
        "task": {"kind": "classify", "preprocess_type": "smry+Q"},
        "data": {"path": path, "batch_size": 16},
        "optim": {"length": 6, "lr": 1e-2, "schedule": "constant"},
        "mesh": {"replica": -1, "replicate_below": 0},
        "checkpoint": {"every": 100},
        "evals": {"every": 6, "suites": (), "metric": "toy/f1_macro", "mode": "max"},
        "log": {"every": 1, "tensorboard": False, "plots": True},
    }
    for name, changes in sections.items():
        values[name] = {**values[name], **changes}
    return values
