"""SensorLLM, stage 2: Llama 3.2 1B and chronos-t5-large, both frozen, name the activity.

    python -m tsmjax.prepare capture24 --src capture24/ --dst data/capture24
    python -m tsmjax.main --config=configs/sensorllm_stage2.py:data/capture24

64 windows a step, in 8 parts: 4 a device on two devices. The values are those of the published
training without stage 1 (macro-F1 decides which checkpoint is kept, here on validation people).
"""

from pathlib import Path

from ml_collections import ConfigDict

from tsmjax.data.sensor import SensorData
from tsmjax.models.sensorllm import Config

LLM, ENCODER = "meta-llama/Llama-3.2-1B-Instruct", "amazon/chronos-t5-large"


def get_config(source: str = "data/capture24") -> ConfigDict:
    """Return the config; `source` is a sensor data set of stage 2.

    While it does not exist, channels, window and labels are those of Capture-24 at about 1 Hz.
    """
    facts, name = Config(), "capture24"
    if source.startswith("embedded:") or Path(source).exists():
        facts = SensorData(source).facts
        name = facts.dataset
    return ConfigDict(
        {
            "name": "stage2",
            "seed": 0,
            "model": {
                "family": "sensorllm",
                "channels": facts.channels,
                "window": facts.window,
                "labels": facts.labels,
                "model_type": "classification",
                "proj_hidden": (2048,),
                "llm": {"eos_tokens": (128001, 128008, 128009), "remat": "full"},
                "encoder": {"tokenizer": {"kind": "StanNormalizeUniformBins"}},
                "compat": {"last_channel_grad_only": False},
            },
            "task": {
                "kind": "classify",
                "llm": LLM,
                "encoder": ENCODER,
                "tokenizer": LLM,
                "preprocess_type": "smry+trend+corr+Q",
                "add_ts_special_token_text": True,
                "model_max_length": 4096,
                "use_weighted_loss": True,
                "fix_llm": True,
                "fix_ts_encoder": True,
                "fix_cls_head": False,
                "tune_mm_mlp_adapter": True,
            },
            "data": {"path": source, "batch_size": 64, "workers": 0},
            "optim": {
                "length": "8 epochs",
                "lr": 2e-3,
                "schedule": "cosine",
                "warmup": "3%",
                "weight_decay": 0.0,
                "clip": 1.0,
                "accumulate": 8,
                "precision": "bfloat16",
            },
            "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
            "checkpoint": {
                "every": "50 steps",
                "keep_latest": 1,
                "keep_best": 1,
                "init_from": "",
                "init_skip": (),
            },
            "evals": {
                "every": "50 steps",
                "suites": (),
                "metric": f"{name}/f1_macro",
                "mode": "max",
                "batch_size": 16,
            },
            "log": {"every": "10 steps", "plots": True},
        }
    )
