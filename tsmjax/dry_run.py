"""What a run would take: resolved parameters, memory of a device and FLOPs, without training.

The step is compiled, never run, and no parameter is allocated. For devices that are not here, it is
compiled for as many virtual CPU devices: parameters, gradients and moments are exact, temporaries
those of the CPU's kernels, which compute in float32 and have no fused attention.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
from rich.console import Group
from rich.filesize import decimal
from rich.table import Table

from tsmjax import optim, sharding, step
from tsmjax import state as state_lib
from tsmjax.config import Config, resolve, steps_of
from tsmjax.monitor import parameters
from tsmjax.monitor.logs import console

_BATCHES = 16  # the largest of so many is measured: lengths may vary


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Needs of a training step; memory in bytes of one device.

    Attributes:
      parameters: trained parameters, float32.
      gradients: gradients, float32.
      moments: state of the optimiser.
      average: running average of the parameters.
      frozen: parameters that are never trained, and statistics.
      batch: arrays of the batch.
      temporaries: what the compiled step needs besides: activations, gathered parameters, buffers.
      flops: matmul FLOPs of a step over all devices; None when the family does not tell.
    """

    parameters: int
    gradients: int
    moments: int
    average: int
    frozen: int
    batch: int
    temporaries: int
    flops: float | None

    @property
    def memory(self) -> int:
        """Bytes of a device, all in all."""
        fields = dataclasses.asdict(self)
        return sum(size for name, size in fields.items() if name != "flops")


def dry_run(config: Config | Mapping[str, Any], devices: int = 0) -> Estimate:
    """Print what training as `config` says would take on each device, and return it.

    Args:
      config: a resolved `Config`, or nested values as a config file gives them.
      devices: number of devices to pretend; 0 takes those that are here. Pretending must come
        before anything touches a device.

    Raises:
      InputError: when the config, the data or the mesh are wrong.
    """
    if devices:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", devices)
    config = config if isinstance(config, Config) else resolve(config)
    mesh = sharding.make_mesh(config.mesh)
    task = config.build_task()
    plan = state_lib.blueprint(task, config.optim)
    _, state, frozen = state_lib.create(task, plan, config.optim, mesh, config.mesh.replicate_below)
    batches = task.batches("train", 0, 1)
    batch = max(
        (sharding.abstract_batch(batches[number], mesh) for number in range(_BATCHES)),
        key=sharding.bytes_per_device,
    )
    steps = steps_of(config.optim.length, "optim.length", batches.steps_per_epoch)
    schedule = optim.learning_rate(config.optim, steps, batches.steps_per_epoch)
    # Memory is wanted as accelerators use it, whatever this backend would donate.
    train_step = step.jit_train_step(task, plan, config.optim, schedule, mesh, state, donate=True)
    rows = state_lib.table(plan, config.optim, state, frozen)
    sizes = state_lib.count(plan.model_params()), state_lib.count(plan.params)
    console.print(parameters.table(rows, *sizes))

    key = jax.eval_shape(jax.random.key, 0)
    compiled = train_step.lower(state, frozen, batch, key).compile()
    trained = sharding.bytes_per_device(state["params"])
    forward = task.flops(batch)
    estimate = Estimate(
        parameters=trained,
        gradients=trained,
        moments=sharding.bytes_per_device(state["opt"]),
        average=sharding.bytes_per_device(state["average"]),
        frozen=sharding.bytes_per_device((frozen, state["stats"])),
        batch=sharding.bytes_per_device(batch),
        temporaries=max(compiled.memory_analysis().temp_size_in_bytes - trained, 0),
        flops=forward and 3 * forward,
    )
    console.print(_report(estimate, mesh, batches.rows, steps))
    return estimate


def _report(estimate: Estimate, mesh: jax.sharding.Mesh, rows: int, steps: int) -> Group:
    """Memory of a device, then the work of a step and of the run."""
    sizes = " × ".join(f"{size} {name}" for name, size in mesh.shape.items())
    head = f"{sizes} = {mesh.size:,} devices, {rows:,} rows a step"
    memory = Table("on each device", "")
    for field in dataclasses.fields(estimate)[:-1]:
        memory.add_row(field.name, decimal(getattr(estimate, field.name)))
    memory.add_section()
    memory.add_row("all", decimal(estimate.memory))
    kind = f"Temporaries are those of a step compiled for {jax.default_backend()}."
    if estimate.flops is None:
        return Group(head, memory, kind)
    work = Table("matmul FLOPs", "")
    work.add_row("a step", f"{estimate.flops:.3g}")
    work.add_row("a step, on each device", f"{estimate.flops / mesh.size:.3g}")
    work.add_row(f"all {steps:,} steps", f"{estimate.flops * steps:.3g}")
    return Group(head, memory, kind, work)
