"""Random models of tables, and shops whose sales follow visitors and promotions."""

import dataclasses

import numpy as np
import pandas as pd

from tsmjax import weights
from tsmjax.config import build
from tsmjax.models import ttm
from tsmjax.nn.functional import abstract, flatten, unflatten

SIZE = {
    **{"context_length": 24, "prediction_length": 6, "patch_length": 6, "d_model": 8},
    **{"num_layers": 1, "adaptive_patching_levels": 0},
    **{"decoder_d_model": 8, "decoder_num_layers": 1},
}
MIXED = {
    **{"num_input_channels": 3, "prediction_channels": (0,), "known_channels": (2,)},
    **{"decoder_mode": "mix_channel", "forecast_mixing": {"enabled": True}},
}
LEVELS = {"quantile_head": {"levels": (0.1, 0.5, 0.9)}, "frequency_vocabulary": 8}
NAMES = ["sales", "visitors", "promotion"]
SCALERS = {"names": NAMES, "mean": [100.0, -5.0, 0.5], "deviation": [20.0, 3.0, 0.4]}


def save(folder, model, artefacts=None):
    """A random model, with weights large enough that every input matters."""
    rng = np.random.default_rng(0)
    config = build(ttm.Config, {**SIZE, **model}, "model")
    shapes = flatten(abstract(lambda rngs: ttm.Model(config, rngs=rngs))[1])
    params = {
        path: np.float32(path.endswith("scale")) + rng.normal(scale=0.4, size=leaf.shape)
        for path, leaf in shapes.items()
    }
    params = {path: leaf.astype(np.float32) for path, leaf in params.items()}
    weights.write(folder, "ttm", dataclasses.asdict(config), unflatten(params), artefacts)
    return folder


def frame(items=("a", "b"), length=40, seed=0):
    rng = np.random.default_rng(seed)
    return pd.concat(
        pd.DataFrame(
            {
                "item_id": item,
                "timestamp": pd.date_range("2024-01-01", periods=length, freq="h"),
                "sales": 100 + 20 * rng.normal(size=length).cumsum(),
                "visitors": rng.normal(-5, 3, size=length),
                "promotion": rng.random(length) < 0.3,
            }
        )
        for item in items
    ).reset_index(drop=True)


def ahead(df, horizon=6, value=1.0):
    times = pd.date_range(df["timestamp"].max(), periods=horizon + 1, freq="h")[1:]
    return pd.concat(
        pd.DataFrame({"item_id": item, "timestamp": times, "promotion": value})
        for item in df["item_id"].unique()
    ).reset_index(drop=True)
