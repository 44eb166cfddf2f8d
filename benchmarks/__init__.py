"""Speed and accuracy beside the reference implementations: ``python -m benchmarks.NAME``."""
