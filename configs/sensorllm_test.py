"""SensorLLM in a few minutes on two CPU cores: tiny random models, generated recordings.

    python -m tsmjax.main --config=configs/sensorllm_test.py

Recognise the activities of a data set of your own (`python -m tsmjax.prepare har` makes one):

    python -m tsmjax.main --config=configs/sensorllm_test.py:data/mine
"""

from ml_collections import ConfigDict

from tsmjax.data.sensor import SensorData


def get_config(source: str = "embedded:capture24?participants=8&minutes=12") -> ConfigDict:
    """Return the config; `source` is a sensor data set of stage 2."""
    facts = SensorData(source).facts
    return ConfigDict(
        {
            "name": "test",
            "seed": 0,
            "model": {
                "family": "sensorllm",
                "channels": facts.channels,
                "window": facts.window,
                "labels": facts.labels,
                "proj_hidden": (128,),
                "llm": {
                    "vocab_size": 259,
                    "d_model": 64,
                    "d_ff": 128,
                    "num_layers": 2,
                    "num_heads": 4,
                    "num_kv_heads": 2,
                    "d_kv": 16,
                    "rope_theta": 10000.0,
                    "rope_scaling": {"kind": "none"},
                    "bos_token": 1,
                    "eos_tokens": (2,),
                },
                "encoder": {
                    "d_model": 64,
                    "d_kv": 16,
                    "d_ff": 128,
                    "num_layers": 2,
                    "num_heads": 4,
                    "initializer_factor": 1.0,
                    "tokenizer": {"kind": "StanNormalizeUniformBins"},
                },
            },
            "task": {
                "kind": "classify",
                "tokenizer": "bytes",
                "preprocess_type": "smry",
                "fix_llm": False,
            },
            "data": {"path": source, "batch_size": 32, "workers": 0},
            "optim": {
                "length": "120 steps",
                "lr": 2e-3,
                "schedule": "cosine",
                "warmup": "3%",
                "clip": 1.0,
                "precision": "float32",
            },
            "mesh": {"replica": -1, "fsdp": 1, "tensor": 1},
            "checkpoint": {
                "every": "60 steps",
                "keep_latest": 1,
                "keep_best": 1,
                "init_from": "",
                "init_skip": (),
            },
            "evals": {
                "every": "40 steps",
                "suites": (),
                "metric": f"{facts.dataset}/f1_macro",
                "mode": "max",
                "batch_size": 64,
            },
            "log": {"every": "20 steps", "plots": True},
        }
    )
