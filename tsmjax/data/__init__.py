"""Data: Arrow folders on disk to NumPy batches that are addressed by step.

Files on disk are memory-mapped; the operating system's page cache keeps what is read often, so
there is no cache of decoded series. Nothing in this package imports jax.
"""
