"""A Chronos-2 with weights from a formula, and what the reference implementation makes of it.

The numbers were made once with chronos-forecasting 2.3.2 (fp32, CPU, evaluation mode); neither
torch nor a weight file is needed to check them.
"""

import numpy as np

from tsmjax.models.chronos2 import Config
from tsmjax.nn.functional import unflatten

CONFIG = Config(
    d_model=32,
    d_kv=8,
    d_ff=64,
    num_layers=2,
    num_heads=4,
    context_length=64,
    quantiles=(0.1, 0.5, 0.9),
    max_output_patches=4,
    time_encoding_scale=64,
    scan_layers=False,
)
LOC = (1.354624, 2.334466, 3.218892, 4.298663)
SCALE = (0.993075, 0.948846, 0.922074, 1.055906)
LOSS = 1.895928
# columns: q.1 at step 0, q.5 at 0, q.9 at 0, q.5 at 15, q.5 at 16, q.5 at 31
FORECASTS = (
    (1.00711, 2.39111, 1.32562, 1.62850, 3.08908, 1.28638),
    (2.17627, 3.47866, 2.31478, 2.45013, 4.19050, 2.17346),
    (3.16069, 5.26910, 3.12055, 3.17029, 7.08331, 1.95325),
    (3.95948, 5.51698, 4.42970, 4.44424, 6.23452, 4.14792),
)
LOSS_ALONE = 1.901540  # without groups and covariates
MEDIANS_ALONE = (2.41290, 3.48646, 4.32683, 5.51698)  # q.5 at step 0


def params():
    """The 40 tensors, numbered in the reference's order and laid out (out, in) there."""
    width = {"D": CONFIG.d_model, "F": CONFIG.d_ff, "I": 32, "X": 48, "Y": 48}

    def residual(name, inputs, outputs):
        for layer, fan_in, fan_out in (
            ("hidden", inputs, "F"),
            ("output", "F", outputs),
            ("residual", inputs, outputs),
        ):
            yield f"{name}/{layer}/kernel", (fan_out, fan_in)
            yield f"{name}/{layer}/bias", (fan_out,)

    def entries():
        yield "shared/embedding", (2, "D")
        yield from residual("input_patch_embedding", "X", "D")
        for block in range(CONFIG.num_layers):
            for kind in ("time_attention", "group_attention"):
                for name in "qkv":
                    yield f"blocks/{block}/{kind}/{name}/kernel", ("I", "D")
                yield f"blocks/{block}/{kind}/o/kernel", ("D", "I")
                yield f"blocks/{block}/{kind}/norm/scale", ("D",)
            yield f"blocks/{block}/feed_forward/wi/kernel", ("F", "D")
            yield f"blocks/{block}/feed_forward/wo/kernel", ("D", "F")
            yield f"blocks/{block}/feed_forward/norm/scale", ("D",)
        yield "final_norm/scale", ("D",)
        yield from residual("output_patch_embedding", "D", "Y")

    flat = {}
    for k, (path, dims) in enumerate(entries()):
        shape = tuple(width.get(dim, dim) for dim in dims)
        i = np.arange(np.prod(shape), dtype=np.int64)
        u = (2.0 * (((31 * i**2 + 17 * i + 101 * k + 7) % 9973) / 9973) - 1.0).reshape(shape)
        if path.endswith("scale"):
            value = 1.0 + 0.1 * u
        elif path.endswith("bias"):
            value = 0.1 * u
        else:
            value = u * 1.5 / np.sqrt(shape[-1])
        flat[path] = (value.T if path.endswith("kernel") else value).astype(np.float32)
    assert len(flat) == 40
    return unflatten(flat)


def rows():
    """Context (4, 50), target (4, 20), future (4, 20): NaN = missing; row 2 is a covariate."""
    b, t = np.arange(4)[:, None], np.arange(70)[None, :]
    x = (np.sin(0.3 * t * (b + 1)) + 0.05 * t + b).astype(np.float32)
    context = np.where((t + 3 * b) % 11 == 0, np.nan, x).astype(np.float32)[:, :50]
    target, future = x[:, 50:].copy(), np.full((4, 20), np.nan, np.float32)
    future[2], target[2] = target[2], np.nan
    return context, target, future
