"""Weights between PyTorch checkpoints and ours; the only room besides tests that may use torch."""
