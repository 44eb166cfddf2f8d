"""Sweeps: one run a trial, each a process of its own, in a folder that can be taken up again.

The folder holds `sweep.json` (what is swept), one run folder a trial (`run_000`, with the trial's
output in `sweep.log`), and at the end `run_history.csv` and the `best_run` link. A trial is over
when its `results.json` is there; one that was cut short resumes from its checkpoint.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tsmjax import runs
from tsmjax.checkpoint import write_json
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.experiments import ablations, compare, records, space
from tsmjax.experiments import processes as processes_lib
from tsmjax.experiments.space import Values
from tsmjax.monitor.logs import console

METHODS = ("grid", "random", "optuna")
VARIANT = "variant"  # what stands for the argument of the config file in a space
_POLL = 0.2  # seconds between looks at the processes


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What `sweep.json` holds.

    Attributes:
      config: config file of all trials, with its argument.
      overrides: further arguments of the training command.
      space: words such as ``optim.lr=1e-4,1e-3``.
      method: "grid", "random" or "optuna".
      trials: number of trials.
      seed: seed of the draws.
      metric: score that decides.
      mode: "min" or "max".
    """

    config: str
    overrides: tuple[str, ...]
    space: tuple[str, ...]
    method: str
    trials: int
    seed: int
    metric: str
    mode: str

    def listed(self) -> list[Values]:
        """Return all trials of a grid or of random draws."""
        axes = space.parse(self.space)
        if self.method == "grid":
            return space.grid(axes)
        return space.random(axes, self.trials, self.seed)

    def command(self, run: Path, values: Values) -> list[str]:
        """Return the training command of a trial."""
        fields = dict(values)
        words = [word for word in (fields.pop(VARIANT, ""),) if word]
        name, _, argument = self.config.partition(":")
        argument = ",".join([*words, *filter(None, [argument])])
        config = f"{name}:{argument}" if argument else name
        return [
            *(sys.executable, "-m", "tsmjax.main", f"--config={config}"),
            *self.overrides,
            *(f"--config.{field}={value}" for field, value in fields.items()),
            f"--workdir={run}",
        ]

    def folder(self, parent: Path, number: int) -> Path:
        """Return the run folder of a trial."""
        return parent / f"run_{number:03d}"


def plan(
    config: str,
    overrides: Sequence[str],
    words: Sequence[str],
    method: str,
    trials: int | None,
    seed: int,
) -> tuple[Sweep, Path]:
    """Check a new sweep and return it with the folder it goes to by default.

    Every trial's config is resolved here, so that a misspelt field ends the command at once.

    Raises:
      InputError: when the space, a field or a value is wrong.
    """
    axes = space.parse(words)
    if method == "grid":
        if trials is not None:
            raise InputError("A grid has as many trials as combinations: leave --trials out.")
        trials = len(space.grid(axes))
    elif trials is None or trials < 1:
        raise InputError(f"--method={method} needs --trials=N, at least 1.")
    sweep = Sweep(config, tuple(overrides), tuple(words), method, trials, seed, "", "min")
    # Optuna's trials are not known yet: draws from the same space check the fields.
    samples = sweep.listed() if method != "optuna" else space.random(axes, 2, seed)
    for values in samples:
        resolved = resolve(_parsed(sweep, values))
    sweep = dataclasses.replace(sweep, metric=resolved.evals.metric, mode=resolved.evals.mode)
    family = resolved.family.rsplit(".", 1)[-1]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S")
    return sweep, Path("experiments") / family / resolved.name / f"sweep_{now}"


def save(sweep: Sweep, folder: Path) -> None:
    """Write `sweep.json`, or make sure that the folder holds this sweep already.

    Raises:
      InputError: when the folder holds another sweep.
    """
    path = folder / "sweep.json"
    if path.exists():
        if load(folder) != sweep:
            raise InputError(
                f"{folder} holds another sweep: choose another --dir, or resume with --dir alone."
            )
        return
    write_json(path, dataclasses.asdict(sweep))


def load(folder: Path) -> Sweep:
    """Read `sweep.json`.

    Raises:
      InputError: when there is none, or it is broken.
    """
    try:
        values = json.loads((folder / "sweep.json").read_text())
        for name in ("overrides", "space"):
            values[name] = tuple(values[name])
        return Sweep(**values)
    except FileNotFoundError as error:
        raise InputError(
            f"{folder} holds no sweep.json: say --config and what to sweep."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / 'sweep.json'} is broken ({error}).") from error


def run(sweep: Sweep, folder: Path, processes: int, devices: Sequence[str] = ()) -> int:
    """Run what is left of a sweep and return the exit code: 0, 1 (a trial failed) or 75.

    Args:
      sweep: what to try.
      folder: where the runs go.
      processes: trials at the same time.
      devices: values of CUDA_VISIBLE_DEVICES that the trials share out, one each.
    """
    sampler = _sampler(sweep, folder)
    slots = [devices[i % len(devices)] if devices else "" for i in range(processes)]
    working: dict[int, tuple[subprocess.Popen, str]] = {}
    failed: list[int] = []
    with processes_lib.Stop() as stop:
        while True:
            while slots and not stop.asked and (trial := sampler.ask()):
                number, values = trial
                device = slots.pop(0)
                process = _start(sweep, folder, number, values, device)
                working[number] = process, device
            if not working:
                break
            for number in [n for n, (process, _) in working.items() if process.poll() is not None]:
                process, device = working.pop(number)
                slots.append(device)
                if process.returncode == processes_lib.RESTART or stop.asked:
                    stop.asked = True  # the machine is being cleared
                    continue
                score = _score(sweep, folder, number, process.returncode)
                sampler.tell(number, score)
                if process.returncode:
                    failed.append(number)
            if stop.asked:
                for process, _ in working.values():
                    process.terminate()
            time.sleep(_POLL)
    if stop.asked:
        console.print(f"Stopped; go on with: python -m tsmjax.experiments sweep --dir={folder}")
        return processes_lib.RESTART
    conclude(sweep, folder)
    return 1 if failed else 0


def run_one(sweep: Sweep, folder: Path, number: int) -> int:
    """Run one trial of a listed sweep and return its exit code (a task of a job array)."""
    trials = sweep.listed()
    if not 0 <= number < len(trials):
        raise InputError(f"--trial={number}, but the trials are 0 to {len(trials) - 1}.")
    if _done(sweep, folder)[number]:
        return 0
    with processes_lib.Stop() as stop:
        process = _start(sweep, folder, number, trials[number], "")
        while process.poll() is None:
            if stop.asked:
                process.terminate()
            time.sleep(_POLL)
    _score(sweep, folder, number, process.returncode)
    if process.returncode == 0:
        runs.link_best(sweep.folder(folder, number), sweep.metric, sweep.mode)
    return process.returncode


def conclude(sweep: Sweep, folder: Path) -> None:
    """Print the comparison, and write `run_history.csv` and the link to the best run."""
    found = records.find([folder])
    metric, mode = records.deciding(found)
    if sweep.method == "grid" and VARIANT in space.parse(sweep.space):
        variants = {}
        for number, values in enumerate(sweep.listed()):
            others = [f"{field}={value}" for field, value in values.items() if field != VARIANT]
            run = records.Run(sweep.folder(folder, number))
            variants[" ".join([values[VARIANT], *others])] = run
        console.print(ablations.table(variants, metric, f"ablations {folder}"))
        ablations.plot(variants, metric, folder / "ablations.png")
    else:
        console.print(compare.table(found, metric, mode, f"sweep {folder}"))
    compare.write_history(folder)
    runs.link_best(found[0].path, sweep.metric, sweep.mode)


def slurm_script(sweep: Sweep, folder: Path, processes: int) -> str:
    """Return a script for sbatch that runs the trials as a job array, `processes` at a time.

    Raises:
      InputError: for Optuna, whose trials depend on each other.
    """
    if sweep.method == "optuna":
        raise InputError("Optuna's trials wait for each other's scores: a job array cannot.")
    here = shlex.quote(str(folder.absolute()))
    return f"""#!/usr/bin/env bash
# One task a trial of the sweep in {folder}; submit with sbatch from the project's folder.
#SBATCH --job-name=sweep
#SBATCH --array=0-{sweep.trials - 1}%{processes}
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --gpus=1
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
#SBATCH --requeue
set -euo pipefail

cd "${{SLURM_SUBMIT_DIR:?submit this file with sbatch}}"
code=0
srun "${{PYTHON:-python}}" -m tsmjax.experiments sweep --dir={here} --trial="$SLURM_ARRAY_TASK_ID" || code=$?
if ((code == {processes_lib.RESTART})); then
    scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
fi
exit "$code"
"""  # noqa: E501


def _sampler(sweep: Sweep, folder: Path) -> space.Sampler:
    if sweep.method != "optuna":
        return space.Listed(sweep.listed(), _done(sweep, folder))
    axes = space.parse(sweep.space)
    return space.Optuna(axes, sweep.trials, sweep.seed, sweep.mode, folder / "optuna.log")


def _done(sweep: Sweep, folder: Path) -> list[bool]:
    return [(sweep.folder(folder, n) / "results.json").exists() for n in range(sweep.trials)]


def _start(
    sweep: Sweep, folder: Path, number: int, values: Values, device: str
) -> subprocess.Popen:
    """Start the process of a trial; its output is appended to `sweep.log` of its run folder."""
    run = sweep.folder(folder, number)
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": device} if device else {})}
    told = ", ".join(f"{field}={value}" for field, value in values.items())
    console.print(f"Trial {number + 1}/{sweep.trials}: {told}", markup=False, highlight=False)
    return processes_lib.start(sweep.command(run, values), run / "sweep.log", environment)


def _score(sweep: Sweep, folder: Path, number: int, code: int) -> float | None:
    """Report how a trial ended and return its score."""
    run = sweep.folder(folder, number)
    score = records.Run(run).scores.get(sweep.metric) if code == 0 else None
    if code:
        why = f"exit code {code}: {processes_lib.last_line(run / 'sweep.log')}"
    else:
        why = f"{sweep.metric}={score:.5f}" if score is not None else "no finite score"
    console.print(f"Trial {number + 1}/{sweep.trials} ended, {why}", markup=False, highlight=False)
    return score


def _parsed(sweep: Sweep, values: Values) -> dict[str, Any]:
    """Config values of a trial, as the training command will see them."""
    from tsmjax.main import parse

    return parse(["sweep", *sweep.command(Path("run"), values)[3:]])[0]
