"""SensorLLM: a frozen Llama reads the states of a frozen Chronos encoder, and names the activity.

Source: Li et al., "SensorLLM: Human-Intuitive Alignment of Multivariate Sensor Data with LLMs for
Activity Recognition" (2024), arXiv 2410.10624.

A sensor channel enters the text as a start marker, one vector for each reading, one for the
encoder's end token, and an end marker. The vectors are the encoder's states after a perceptron, the
projection, which is what trains.
"""

from tsmjax.models.sensorllm.config import (
    LORA,
    PRESETS,
    SHARDING,
    Compat,
    Config,
    flops,
)
from tsmjax.models.sensorllm.model import Model, Projection

__all__ = [
    "LORA",
    "PRESETS",
    "SHARDING",
    "Compat",
    "Config",
    "Model",
    "Projection",
    "flops",
]
