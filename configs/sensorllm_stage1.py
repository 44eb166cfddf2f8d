"""SensorLLM, stage 1: align the channels with a frozen Llama 3.2 1B by questions about them.

    python -m tsmjax.prepare capture24 --src capture24/ --dst data/capture24_qa --stage 1
    python -m tsmjax.main --config=configs/sensorllm_stage1.py:data/capture24_qa

Stage 2 starts from the run, with a fresh head:

    python -m tsmjax.main --config=configs/sensorllm_stage2.py:data/capture24 \
        --config.checkpoint.init_from=RUN --config.checkpoint.init_skip="('head/',)"
"""

from ml_collections import ConfigDict

from configs import sensorllm_stage2


def get_config(source: str = "data/capture24_qa") -> ConfigDict:
    """Return the config; `source` is a sensor data set of stage 1."""
    config = sensorllm_stage2.get_config(source)
    name = config.evals.metric.partition("/")[0]
    config.name = "stage1"
    config.model.model_type = "causal_lm"
    config.task = ConfigDict(
        {
            "kind": "align",
            "llm": sensorllm_stage2.LLM,
            "encoder": sensorllm_stage2.ENCODER,
            "tokenizer": sensorllm_stage2.LLM,
            "qa_types": (),
            "fix_llm": True,
            "fix_ts_encoder": True,
            "tune_mm_mlp_adapter": True,
        }
    )
    config.data.update({"batch_size": 16, "pack_length": 2048})
    config.optim.update({"accumulate": 4, "length": "3 epochs"})
    config.evals.update({"metric": f"{name}/loss", "mode": "min", "batch_size": 4})
    return config
