"""Trained models as files that other programs load: ``python -m tsmjax.export --help``."""
