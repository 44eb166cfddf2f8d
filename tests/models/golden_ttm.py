"""Small TTMs with weights from a formula, and what granite-tsfm makes of them.

    python tests/models/golden_ttm.py

writes golden_ttm.npz beside this file (granite-tsfm 0.3.11, torch 2.13.0; fp32, CPU, evaluation
mode). Neither is needed to check the numbers. Weights carry the reference's tensor names, so that
the weight table is checked too.
"""

import zlib
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).with_suffix(".npz")
WINDOWS = 4
SIZE = {
    **{"context_length": 96, "prediction_length": 24, "patch_length": 8, "patch_stride": 8},
    **{"d_model": 32, "num_layers": 1, "adaptive_patching_levels": 2},
    **{"decoder_d_model": 16, "decoder_num_layers": 1},
}
# Entries of config.json.
CASES = {
    "plain": {**SIZE, "num_layers": 2, "decoder_num_layers": 2},
    "prefix": {**SIZE, "resolution_prefix_tuning": True, "frequency_token_vocab_size": 10},
    "exogenous": {
        **SIZE,
        **{"num_input_channels": 6, "decoder_mode": "mix_channel", "prediction_filter_length": 15},
        **{"prediction_channel_indices": [0, 3], "exogenous_channel_indices": [1, 4]},
        **{"enable_forecast_channel_mixing": True, "fcm_use_mixer": True},
        **{"fcm_mix_layers": 2, "fcm_context_length": 2},
    },
    "static": {
        **SIZE,
        **{"num_input_channels": 3, "decoder_mode": "mix_channel", "decoder_raw_residual": True},
        **{"categorical_vocab_size_list": [3, 5], "resolution_prefix_tuning": True},
    },
    "channels": {
        **SIZE,
        **{"num_input_channels": 3, "mode": "mix_channel", "decoder_adaptive_patching_levels": 2},
    },
    "quantiles": {
        **SIZE,
        **{"multi_scale": True, "register_tokens": 2, "fft_length": 2, "expansion_factor": 3},
        **{"multi_quantile_head": True, "mq_use_decoder_pool": True, "gate_mode": "glu"},
    },
    "decomposed": {
        **SIZE,
        **{"num_input_channels": 2, "decompose": True, "residual_context_length": 64},
        **{"trend_patch_length": 12, "trend_patch_stride": 12, "trend_d_model": 24},
        **{"multi_quantile_head": True, "combine_quantiles_via_variance": True},
    },
}


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of the tensor called `name`; (out, in) as the reference stores it."""
    i = np.arange(np.prod(shape), dtype=np.int64)
    k = zlib.crc32(name.encode()) % 9973
    u = (2.0 * (((31 * i**2 + 17 * i + 101 * k + 7) % 9973) / 9973) - 1.0).reshape(shape)
    if "norm" in name and name.endswith("weight"):
        return (1.0 + 0.1 * u).astype(np.float32)
    if len(shape) == 1:
        return (0.1 * u).astype(np.float32)
    return (u * 1.5 / np.sqrt(np.prod(shape[1:]))).astype(np.float32)


def inputs(case: dict) -> dict[str, np.ndarray]:
    """Context and future (B, steps, C), NaN = missing, and what a case needs beside them."""
    channels, T = case.get("num_input_channels", 1), case["context_length"]
    b, t = np.arange(WINDOWS)[:, None, None], np.arange(T + case["prediction_length"])[:, None]
    c = np.arange(channels)
    x = np.sin(0.3 * t * (b + 1) + c) + 0.02 * t * (c - 1) + b
    x = np.where((t + 3 * b + c) % 11 == 0, np.nan, x).astype(np.float32)
    found = {"past": x[:, :T], "future": np.nan_to_num(x[:, T:], nan=0.5)}
    if "categorical_vocab_size_list" in case:
        sizes = np.asarray(case["categorical_vocab_size_list"])
        found["static"] = (np.arange(WINDOWS)[:, None] + 1) % sizes
    if case.get("resolution_prefix_tuning"):
        found["frequency"] = np.arange(WINDOWS) % case.get("frequency_token_vocab_size", 5)
    return found


def main() -> None:
    """Run the reference and write the fixture."""
    import torch
    from tsfm_public.models.tinytimemixer import TinyTimeMixerConfig, TinyTimeMixerForPrediction
    from tsfm_public.models.tinytimemixer.modeling_tinytimemixer import (
        TinyTimeMixerForDecomposedPrediction,
    )

    arrays = {}
    for name, case in CASES.items():
        kind = TinyTimeMixerForPrediction
        if case.get("decompose"):
            kind = TinyTimeMixerForDecomposedPrediction
        model = kind(TinyTimeMixerConfig(**case)).eval()
        model.load_state_dict(
            {k: torch.tensor(weight(k, tuple(v.shape))) for k, v in model.state_dict().items()}
        )
        given = inputs(case)
        seen = np.isfinite(given["past"])
        output = model(
            torch.tensor(np.where(seen, given["past"], 0.0).astype(np.float32)),
            future_values=torch.tensor(given["future"]),
            past_observed_mask=torch.tensor(seen.astype(np.float32)),
            freq_token=torch.tensor(given["frequency"]) if "frequency" in given else None,
            static_categorical_values=(
                torch.tensor(given["static"]) if "static" in given else None
            ),
        )
        output.loss.backward()
        if output.quantile_outputs is None:
            forecast = output.prediction_outputs.detach().permute(0, 2, 1)[:, :, None]
        else:
            forecast = output.quantile_outputs.detach().permute(0, 3, 1, 2)
        norms = {k: float(p.grad.norm()) for k, p in model.named_parameters() if p.requires_grad}
        arrays[f"{name}/forecast"] = forecast.numpy()
        arrays[f"{name}/loss"] = np.float32(output.loss.detach())
        arrays[f"{name}/tensors"] = np.asarray(sorted(norms))
        arrays[f"{name}/gradients"] = np.asarray([norms[k] for k in sorted(norms)], np.float32)
    np.savez_compressed(FIXTURE, **arrays)


if __name__ == "__main__":
    main()
