"""The entry points of Hugging Face fine-tuning scripts for TTM, on top of `tsmjax.train`.

Their YAML files (`TTMConfig.from_yaml`, `configs/ttm_yaml.py`), ``TTMTrainer(config).train()`` and
the deprecated `finetune_ttm`. docs/ttm.md tells what each old call has become.
"""

from tsmjax.ttm_compat.settings import TTMConfig
from tsmjax.ttm_compat.trainer import TTMTrainer, finetune_ttm

__all__ = ["TTMConfig", "TTMTrainer", "finetune_ttm"]
