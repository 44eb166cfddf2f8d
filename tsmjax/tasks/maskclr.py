"""`tsmjax.tasks.masked_contrastive` by the name of its recipe; the paper of that name differs."""

from tsmjax.tasks.masked_contrastive import Config, DataConfig, Task

__all__ = ["Config", "DataConfig", "Task"]
