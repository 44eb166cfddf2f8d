"""What a run reports: log line, health report, metrics files, TensorBoard, results, plots."""

from tsmjax.monitor.callbacks import Callback
from tsmjax.monitor.health import Facts
from tsmjax.monitor.monitor import LogConfig, Monitor

__all__ = ["Callback", "Facts", "LogConfig", "Monitor"]
