# shellcheck shell=bash
# Environment of GPU processes; source it before the training command. What is set already stays.

# JAX takes this share of a GPU's memory at the start; the rest is for NCCL and the CUDA libraries.
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.9}"

# Hide communication behind computation: latency-hiding scheduler and pipelined collectives.
export JAX_OPTIMIZATION_LEVEL="${JAX_OPTIMIZATION_LEVEL:-O1}"

# Gather the parameters of about one block of the base model at a time (40 MiB, in FSDP): larger
# messages use the network better, too large ones leave nothing to hide behind.
export XLA_FLAGS="${XLA_FLAGS:---xla_gpu_all_gather_combine_threshold_bytes=41943040 --xla_gpu_reduce_scatter_combine_threshold_bytes=41943040}"
