"""Days of virtual patients a second, ours beside simglucose 0.2.11, and how far apart they are.

    python -m benchmarks.glucose_simulator --patients 1024 --json glucose_simulator.json

Both run the same patients under the same meals and insulin for 24 hours, minute by minute.
simglucose is timed as it is, one patient after the other, on a few patients, through its patient
class alone: no sensor, no environment. Ours runs all patients at once, compiled; the compilation is
reported beside it. `days_of_life` adds sensor, meals and controller. `ratio` is by the clock,
`cpu_ratio` by the CPU time of all threads, which other work on the machine changes less. The last
line printed is JSON; ``--json FILE`` writes it too.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsmjax.glucose import scenario
from tsmjax.glucose import simulator as sim

MINUTES = 24 * 60


def main() -> None:
    """Measure both sides and print one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=1024, help="at once, ours")
    parser.add_argument(
        "--reference", type=int, default=3, help="patients of simglucose; 0 for none"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()

    numbers = np.arange(options.patients) % 30
    patient, (carbs, insulin) = sim.choose(numbers), inputs(numbers)
    started = time.perf_counter()
    jax.block_until_ready(sim.simulate(patient, carbs, insulin))
    first = time.perf_counter() - started
    seconds, cpu = fastest(lambda: sim.simulate(patient, carbs, insulin), options.repeats)
    key = jax.random.key(0)
    jax.block_until_ready(scenario.simulate_days(key, numbers, 1))
    life, _ = fastest(lambda: scenario.simulate_days(key, numbers, 1), options.repeats)
    result = {
        "benchmark": "glucose_simulator",
        "device": jax.devices()[0].device_kind,
        "patients": options.patients,
        "patient_days_per_second": options.patients / seconds,
        "days_of_life_per_second": options.patients / life,
        "compile_seconds": first - seconds,
    }
    chosen = np.linspace(0, 29, options.reference).astype(int)
    started, cpu_started = time.perf_counter(), time.process_time()
    expected = [reference(number, *inputs(np.array([number]))) for number in chosen]
    spent, cpu_spent = time.perf_counter() - started, time.process_time() - cpu_started
    found = np.asarray(sim.simulate(sim.choose(chosen), *inputs(chosen)))
    share = options.patients / options.reference
    result |= {
        "reference_patient_days_per_second": options.reference / spent,
        "ratio": share * spent / seconds,
        "cpu_ratio": share * cpu_spent / cpu,
        "largest_difference": float(np.abs(found - np.stack(expected)).max()),
    }
    print(json.dumps(result))
    if options.json:
        options.json.write_text(json.dumps(result) + "\n")


def inputs(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Three meals with their boluses: g and U/min at each minute, (N, MINUTES)."""
    p = sim.choose(numbers)
    size = np.clip(np.asarray(p.BW) / 70, 0.35, 1.2)
    carbs = np.zeros((len(numbers), MINUTES))
    insulin = np.repeat(np.asarray(p.basal, np.float64)[:, None], MINUTES, axis=1)
    for minute, grams in ((420, 50), (740, 75), (1100, 80)):
        carbs[:, minute] = grams * size
        insulin[:, minute + 5] += grams * size / np.asarray(p.CR)
    return carbs, insulin


def fastest(run: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the least seconds by the clock and of CPU time of several runs."""
    times = []
    for _ in range(repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        times.append((time.perf_counter() - started, time.process_time() - cpu_started))
    clock, cpu = np.min(times, axis=0)
    return float(clock), float(cpu)


def reference(number: int, carbs: np.ndarray, insulin: np.ndarray) -> np.ndarray:
    """Glucose of one patient by simglucose, (MINUTES + 1,) mg/dL."""
    # It imports these two at the top for an environment that is not used here.
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda name, path: str(importlib.resources.files(name) / path)
    registration = types.ModuleType("gym.envs.registration")
    registration.register = lambda **_: None
    for name, module in (("pkg_resources", resources), ("gym.envs.registration", registration)):
        sys.modules.setdefault(name, module)
    for name in ("gym", "gym.envs"):
        sys.modules.setdefault(name, types.ModuleType(name))
    from simglucose.patient.t1dpatient import Action, T1DPatient

    patient = T1DPatient.withID(int(number) + 1)
    values = [patient.observation.Gsub]
    for served, rate in zip(carbs[0], insulin[0], strict=True):
        patient.step(Action(CHO=served, insulin=rate))
        values.append(patient.observation.Gsub)
    return np.array(values)


if __name__ == "__main__":
    main()
