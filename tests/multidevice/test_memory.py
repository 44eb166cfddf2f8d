"""FSDP of the base model: what one device holds, and what its compiled step needs besides."""

import math
import re

import jax
import numpy as np
import pytest

from tsmjax import optim, sharding, state, step
from tsmjax.config import resolve
from tsmjax.models import chronos2
from tsmjax.nn.functional import flatten

DEVICES = 8
PACKS, SLOTS, CONTEXT, HORIZON = 8, 2, 256, 64  # of each device
MB = 10**6


class Plan:
    """The abstract state and the jitted step of a model on a mesh, nothing allocated."""

    def __init__(self, preset="base", model=None, **sizes):
        mesh = {"replica": 1, "replicate_below": 0, **sizes}
        model = {"family": "chronos2", **chronos2.PRESETS[preset], **(model or {})}
        model |= {"context_length": CONTEXT, "max_output_patches": HORIZON // 16}
        config = resolve({"model": model, "task": {"kind": "forecast"}, "mesh": mesh})
        task = config.build_task()
        parts = math.prod(size for size in sizes.values())
        self.mesh = sharding.make_mesh(config.mesh, jax.devices()[:parts])
        plan = state.blueprint(task, config.optim)
        _, self.state, self.frozen = state.create(task, plan, config.optim, self.mesh, 0)
        schedule = optim.learning_rate(config.optim, 1000)
        self.step = step.jit_train_step(
            task, plan, config.optim, schedule, self.mesh, self.state, donate=True
        )

    def compile(self, **options):
        packs = PACKS * self.mesh.shape["replica"] * self.mesh.shape["fsdp"]
        batch = {
            "context": np.empty((packs, SLOTS, CONTEXT), np.float32),
            "target": np.empty((packs, SLOTS, HORIZON), np.float32),
            "future": np.empty((packs, SLOTS, HORIZON), np.float32),
            "group": np.empty((packs, SLOTS), np.int32),
            "patches": np.empty(packs, np.int32),
        }
        batch = sharding.abstract_batch(batch, self.mesh)
        key = jax.eval_shape(jax.random.key, 0)
        lowered = self.step.lower(self.state, self.frozen, batch, key)
        # Machine code that never runs need not be fast; buffers are assigned before.
        return lowered.compile(compiler_options={"xla_backend_optimization_level": 0, **options})


def collectives(compiled):
    """(operation, bytes of its largest output) of every collective in a compiled step."""
    size = {"f32": 4, "s32": 4, "u32": 4, "pred": 1, "bf16": 2}
    pattern = r"= (.*?) (all-gather|all-reduce|all-to-all|reduce-scatter|collective-permute)\("
    return [
        (
            operation,
            max(
                size[kind] * math.prod(map(int, filter(None, shape.split(","))))
                for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", outputs)
            ),
        )
        for outputs, operation in re.findall(pattern, compiled.as_text())
    ]


@pytest.mark.parametrize("scan", [True, False], ids=["scanned", "unrolled"])
def test_a_device_holds_an_eighth(scan):
    whole, split = (Plan(model={"scan_layers": scan}, fsdp=size) for size in (1, DEVICES))
    for part in ("params", "opt"):
        total = sharding.bytes_per_device(whole.state[part])
        held = sharding.bytes_per_device(split.state[part])
        assert total > 400 * MB
        assert held <= total / DEVICES + 4 * MB


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        pytest.param({"scan_layers": True}, id="scanned"),
        pytest.param({"scan_layers": False}, id="unrolled"),
    ],
)
def test_the_step_gathers_kernels_one_by_one(model):
    whole, split = (Plan(model=model, fsdp=size) for size in (1, DEVICES))
    # Bytes of one layer each: a scanned stack is never gathered whole.
    kernels = {
        path: 4 * math.prod(leaf.shape[-2:])
        for path, leaf in flatten(whole.state["params"]).items()
        if path.endswith("kernel")
    }
    first_block = r"model/blocks/(0/)?[a-z]"
    block = sum(size for path, size in kernels.items() if re.match(first_block, path))
    before = whole.compile()
    # XLA's default on CPU starts all that could run at once, all gathers before the first product.
    after = split.compile(xla_cpu_scheduler_type="CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED")
    found = collectives(after)
    gathers = [size for operation, size in found if operation == "all-gather"]
    assert max(gathers) <= max(kernels.values())
    # Once for the forward and once for the backward pass, instead of keeping it in between.
    in_blocks = sum(path.startswith("model/blocks/") for path in kernels)
    assert len(gathers) >= 2 * in_blocks
    # Rows stay where they are: nothing but parameters and sums moves between devices.
    assert {operation for operation, _ in found} <= {"all-gather", "all-reduce", "reduce-scatter"}
    temporary = [one.memory_analysis().temp_size_in_bytes for one in (before, after)]
    assert temporary[1] <= temporary[0] + 2 * block


def test_packed_groups_stay_on_one_device():
    """Data parallelism moves sums of gradients, and no row, though series of a group attend."""
    found = collectives(Plan("tiny", replica=DEVICES).compile())
    assert {operation for operation, _ in found} == {"all-reduce"}
