r"""TTM from scratch on ETTh1: 12 months to train, 4 to validate, 4 to test, as in the literature.

    python -m tsmjax.prepare csv --src ETTh1.csv.gz --dst data/etth1 \
        --target HUFL HULL MUFL MULL LUFL LULL OT
    python -m tsmjax.main --config=configs/ttm_etth1.py:data/etth1

ETTh1.csv is in github.com/zhouhaoyi/ETDataset. A second argument is the horizon:
`--config=configs/ttm_etth1.py:data/etth1,720`.

A backbone of two layers of width 64 and no decoder: 12 months of seven channels do not feed more.
Size, loss and learning rate were chosen by the validation part at horizon 96.

The scores etth1/mse and etth1/mae are those of the long-horizon benchmarks: seven channels
standardised by their first twelve months, all windows one step apart, means over windows, channels
and steps.
"""

from ml_collections import ConfigDict

from configs import ttm_test

MONTH = 30 * 24  # steps; the benchmark counts months of 30 days


def get_config(argument: str = "data/etth1") -> ConfigDict:
    """Return the config; `argument` is FOLDER or FOLDER,HORIZON."""
    folder, _, horizon = argument.partition(",")
    config = ttm_test.get_config(folder)
    config.name = "etth1"
    config.model.update(
        {
            "context_length": 512,
            "prediction_length": int(horizon or 96),
            "patch_length": 64,
            "d_model": 64,
            "num_layers": 2,
            "adaptive_patching_levels": 0,
            "use_decoder": False,
            "dropout": 0.4,
            "head_dropout": 0.4,
        }
    )
    config.task.loss = "mae"
    config.data.update(
        {"split": (12 * MONTH, 4 * MONTH, 4 * MONTH), "batch_size": 32, "eval_stride": 1}
    )
    config.optim.update({"length": "3 epochs", "lr": 3e-3, "schedule": "one_cycle"})
    config.checkpoint.every = "0 steps"
    config.evals.update({"every": "0.5 epochs", "patience": "3 epochs"})
    return config
