"""Find a learning rate: sweep it upwards for a hundred steps and look where the loss falls.

    python -m tsmjax.find_lr --config=configs/NAME.py[:ARGUMENT] [--config.SECTION.FIELD=VALUE ...]

Examples:
    python -m tsmjax.find_lr --config=configs/ttm_test.py
    python -m tsmjax.find_lr --config=configs/chronos2_test.py:data/mine --steps=200 --plot=lr.png

Trains as the config says, from fresh weights or those of checkpoint.init_from, but with a learning
rate that grows exponentially from --first to --last, until the loss explodes. Prints the curve and
the suggestion, draws both into --plot, and writes nothing else.

Exit codes: 0 done, 2 wrong input, anything else a fault.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from tsmjax import sharding, step
from tsmjax import state as state_lib
from tsmjax.config import Config, resolve
from tsmjax.errors import InputError
from tsmjax.monitor.logs import console

_SMOOTHING = 0.98  # decay of the running mean of the loss
_EXPLODED = 4.0  # times the best running mean
_LEAST = 10  # steps of a sweep
_LINES = 25  # of the printed table


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A loss for each learning rate, up to where it exploded.

    Attributes:
      rates: (n,) learning rates, ascending.
      losses: (n,) loss of the batch after the step at each rate.
      smooth: (n,) running mean of the losses, without bias towards its start.
    """

    rates: np.ndarray
    losses: np.ndarray
    smooth: np.ndarray

    @property
    def suggestion(self) -> float:
        """Learning rate to train with, see `valley`."""
        return valley(self.rates, self.smooth)


def find(
    config: Config | Mapping[str, Any], first: float = 1e-7, last: float = 10.0, steps: int = 100
) -> Sweep:
    """Sweep the learning rate as the module says.

    The optimiser, its decay, clipping and adapters are those of the config; its learning rate and
    schedule are not used. One process, all its devices.

    Args:
      config: a resolved `Config`, or nested values as a config file gives them.
      first: learning rate of the first step.
      last: learning rate of the last step.
      steps: steps from one to the other.

    Raises:
      InputError: when an argument, the config or the data are wrong.
    """
    if not 0 < first < last < math.inf:
        raise InputError(f"The sweep goes from {first} to {last}, but must rise from above 0.")
    if steps < _LEAST:
        raise InputError(f"The sweep has {steps} steps, but needs at least {_LEAST}.")
    from tsmjax.start import fresh_state

    config = config if isinstance(config, Config) else resolve(config)
    mesh = sharding.make_mesh(config.mesh)
    task = config.build_task()
    batches = task.batches("train", 0, 1)
    plan = state_lib.blueprint(task, config.optim)
    init, abstract, _ = state_lib.create(
        task, plan, config.optim, mesh, config.mesh.replicate_below
    )
    state, frozen = fresh_state(config, plan, init, task)
    task.before(frozen)
    growth = math.log(last / first) / (steps - 1)
    train_step = step.jit_train_step(
        task, plan, config.optim, lambda at: first * jnp.exp(growth * at), mesh, abstract
    )
    key = jax.random.key(config.seed)
    rates, losses, smooth, mean = [], [], [], 0.0
    for number in range(steps + 1):
        batch = sharding.put_batch(batches[number], mesh)
        state, metrics = train_step(state, frozen, batch, key)
        loss = float(metrics["loss"])
        if not math.isfinite(loss) or metrics["bad_in_row"]:
            break
        if number:  # a loss is measured before its own step, and tells of the step before
            rates.append(first * math.exp(growth * (number - 1)))
            losses.append(loss)
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            smooth.append(mean / (1 - _SMOOTHING**number))
            if smooth[-1] > _EXPLODED * min(smooth) > 0:
                break
    return Sweep(*np.array([rates, losses, smooth]))


def valley(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the learning rate in the middle of the longest fall of the loss.

    The fall is the longest strictly decreasing subsequence, which small rises do not interrupt.

    Raises:
      InputError: when the loss never falls.
    """
    length, start = np.ones(len(losses), int), np.arange(len(losses))
    for at in range(1, len(losses)):
        above = np.flatnonzero(losses[:at] > losses[at])
        if len(above):
            # The last of those that do: a plateau is no part of the fall.
            before = above[np.flatnonzero(length[above] == length[above].max())[-1]]
            length[at], start[at] = length[before] + 1, start[before]
    if not len(losses) or length.max() < 3:
        raise InputError(
            "The loss falls at no learning rate of the sweep: start it lower with --first, or look "
            "at the data."
        )
    end = int(np.argmax(length))
    return float(rates[(start[end] + end) // 2])


def report(sweep: Sweep, suggestion: float) -> Table:
    """Lay the curve out as a table of a few lines."""
    table = Table("learning rate", "loss", "running mean", "")
    shown = np.unique(np.linspace(0, len(sweep.rates) - 1, _LINES).astype(int))
    marked = shown[np.argmin(np.abs(np.log(sweep.rates[shown] / suggestion)))]
    for at in shown:
        numbers = (f"{values[at]:.4g}" for values in (sweep.rates, sweep.losses, sweep.smooth))
        table.add_row(*numbers, "← suggested" if at == marked else "")
    return table


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    from tsmjax.main import parse

    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.find_lr",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--first", type=float, default=1e-7, help="learning rate of the first step (default: 1e-7)")
    add("--last", type=float, default=10.0, help="learning rate of the last step (default: 10)")
    add("--steps", type=int, default=100, help="steps of the sweep (default: 100)")
    add("--plot", type=Path, default=Path("learning_rate.png"), help=".png to draw into")
    options, rest = parser.parse_known_args(arguments)
    try:
        if options.plot.suffix != ".png":
            raise InputError(f"--plot {options.plot} must end in .png.")
        config, workdir, _, devices = parse([parser.prog, *rest])
        if workdir is not None or devices is not None:
            raise InputError("find_lr keeps no run: leave --workdir and --dry_run out.")
        sweep = find(config, options.first, options.last, options.steps)
        suggestion = sweep.suggestion
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from tsmjax.monitor import plots

    plots.sweep(sweep.rates, sweep.losses, sweep.smooth, suggestion, options.plot)
    console.print(report(sweep, suggestion))
    print(f"suggested: --config.optim.lr={suggestion:.2g} (curve in {options.plot})")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
