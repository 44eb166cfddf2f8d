"""What a run reports: log line, metrics files, TensorBoard, results, plots."""

from tsmjax.monitor.monitor import LogConfig, Monitor

__all__ = ["LogConfig", "Monitor"]
