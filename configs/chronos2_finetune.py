"""Fine-tune Chronos-2 on data of your own, stopping when validation stops improving.

    python -m tsmjax.main --config=configs/chronos2_finetune.py:sales.csv,from=amazon/chronos-2,horizon=28,lora

What follows the colon, separated by commas:

    data/sales, sales.csv   an Arrow folder (`python -m tsmjax.prepare`), or a table of text
    from=CHECKPOINT         what to start from: run folder of tsmjax, Hugging Face folder, hub id, LoRA
                            adapter; its own sizes are taken. Without it, chronos2_base is trained
                            from `checkpoint.init_from`
    horizon=N               steps to forecast; 64 by default
    lora                    train low-rank adapters of rank 8 instead of the model

The last N steps of every series are the test window, the N before them the validation window;
neither is trained on. Items with several variates or covariates are forecast from all of them.
"""  # noqa: E501

from pathlib import Path

from ml_collections import ConfigDict

from configs import chronos2_base
from tsmjax import pretrained
from tsmjax.data.arrow import ArrowSource
from tsmjax.data.synthetic.embedded import resolve
from tsmjax.errors import InputError, closest
from tsmjax.prepare.cached import arrow_folder

_ROWS = 64  # series of a step: 8 on each of 8 GPUs


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; `argument` is ``DATA[,from=CHECKPOINT][,horizon=N][,lora]``."""
    data, start, horizon, lora = _parse(argument)
    config = chronos2_base.get_config()
    config.name = "finetune"
    if start:
        config.model = ConfigDict(pretrained.model_values(start))
        config.checkpoint.init_from = start
        config.task.flip_invariant = pretrained.task_values(start).get("flip_invariant", False)
    patch = config.model.get("output_patch_size", 16)
    patches = max(-(-horizon // patch), config.model.max_output_patches)
    scale = config.model.time_encoding_scale or config.model.context_length
    config.model.update(
        max_output_patches=patches, time_encoding_scale=scale, scan_layers=False, remat="dots"
    )
    slots, context = 1, config.model.context_length
    if data:
        source = ArrowSource(resolve(arrow_folder(data)))
        data, slots = str(source.path), source.max_group
        longest = max(source.max_length - 2 * horizon, 1)
        context = min(context, -(-longest // patch) * patch)
    config.task.missing = 0.0
    config.data.update(
        sources=({"path": data or "embedded:real", "weight": 1.0},),
        batch_size=max(_ROWS // slots // 8, 1) * 8 * slots,
        context_length=context,
        prediction_length=horizon,
        min_past=16,
        min_future=1,
        holdout=2 * horizon,
        long_share=0.0,
    )
    config.optim.update(
        length="50_000 steps",
        lr=1e-4 if lora else 1e-5,
        warmup="2%",
        lora={"rank": 8 if lora else 0, "alpha": 16.0},
    )
    suite = data or "embedded"
    config.checkpoint.every = "1_000 steps"
    config.evals.update(
        every="1_000 steps",
        suites=(suite,),
        horizon=horizon if data else 0,
        grouped=slots > 1,
        metric=f"{Path(suite).resolve().name}/wql",
        patience="10_000 steps",
    )
    return config


def _parse(argument: str) -> tuple[str, str, int, bool]:
    """Split the argument into (data, checkpoint, horizon, whether LoRA)."""
    data, *rest = argument.split(",")
    options = dict(part.partition("=")[::2] for part in rest)
    for name in options:
        if name not in ("from", "horizon", "lora"):
            raise InputError(
                f"chronos2_finetune has no option {name!r}{closest(name, ('horizon', 'lora'))}; "
                "there are from=CHECKPOINT, horizon=N and lora."
            )
    horizon = options.get("horizon", "64")
    if not horizon.isdecimal() or int(horizon) < 1:
        raise InputError(f"horizon is {horizon!r}, but must be a positive whole number.")
    return data, options.get("from", ""), int(horizon), "lora" in options
