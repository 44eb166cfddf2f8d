"""A day of each virtual patient, and what simglucose 0.2.11 makes of it.

    python tests/glucose/golden_simglucose.py

writes golden_simglucose.npz beside this file. The package is not needed to check the numbers. It
imports gym and pkg_resources at the top, for an environment that is not used here; both are stood
in for, so that ``pip install --no-deps simglucose==0.2.11`` is enough.
"""

import importlib.resources
import sys
import types
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).with_suffix(".npz")
PATIENTS, MINUTES = 30, 24 * 60
SENSORS = {"Dexcom": 3, "GuardianRT": 5}  # minutes between readings
READINGS = 200


def day(body_weight: float, ratio: float, basal: float, number: int) -> tuple:
    """Carbs in g and insulin in U/min at each minute: meals that overlap, good and bad boluses."""
    carbs, insulin = np.zeros(MINUTES), np.full(MINUTES, basal)
    size = np.clip(body_weight / 70, 0.35, 1.2)
    for i, (hour, grams) in enumerate([(6.5, 60), (9, 12), (12, 90), (12.4, 35), (18, 75)]):
        minute = int(60 * hour) + (17 * number + 5 * i) % 31
        amount = size * grams * (0.7 + ((7 * number + 3 * i) % 11) / 15)
        carbs[minute] += amount
        insulin[minute + (5 * number + 2 * i) % 16] += amount / ratio * ((number + i) % 5) / 3.5
    return carbs, insulin


def import_simglucose() -> None:
    """Make simglucose importable without the packages that its environment needs."""
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda name, path: str(importlib.resources.files(name) / path)
    registration = types.ModuleType("gym.envs.registration")
    registration.register = lambda **_: None
    stand_ins = {
        "pkg_resources": resources,
        "gym": types.ModuleType("gym"),
        "gym.envs": types.ModuleType("gym.envs"),
        "gym.envs.registration": registration,
    }
    added = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(added)
    try:
        import simglucose.patient.t1dpatient
        import simglucose.sensor.cgm
        import simglucose.utils  # noqa: F401
    finally:
        for name in added:
            del sys.modules[name]


def reference(number: int, carbs: np.ndarray, insulin: np.ndarray) -> np.ndarray:
    """Glucose in mg/dL of patient `number` at the start and after each minute."""
    import_simglucose()
    from simglucose.patient.t1dpatient import Action, T1DPatient

    patient = T1DPatient.withID(number + 1)
    # The same numbers in an object whose attributes are six times as fast to read.
    patient._params = types.SimpleNamespace(**patient._params.to_dict())
    values = [patient.observation.Gsub]
    for served, rate in zip(carbs, insulin, strict=True):
        patient.step(Action(CHO=served, insulin=rate))
        values.append(patient.observation.Gsub)
    return np.array(values)


def reference_day(number: int) -> tuple:
    """`day` of a patient of the package, and its glucose."""
    import_simglucose()
    from simglucose.patient.t1dpatient import T1DPatient
    from simglucose.utils import fetch_patient_params, fetch_patient_quest

    name = T1DPatient.withID(number + 1).name
    params, quest = fetch_patient_params(name), fetch_patient_quest(name)
    basal = params["u2ss"] * params["BW"] / 6000
    carbs, insulin = day(params["BW"], quest["CR"], basal, number)
    return carbs, insulin, reference(number, carbs, insulin)


def sensor_errors(name: str, seed: int) -> np.ndarray:
    """Errors of the first readings of a sensor in mg/dL."""
    import_simglucose()
    from simglucose.sensor.cgm import CGMSensor

    noise = CGMSensor.withName(name, seed=seed)._noise_generator
    return np.array([next(noise) for _ in range(READINGS)])


def main() -> None:
    """Write the fixture."""
    glucose = np.stack([reference_day(number)[2][::5] for number in range(PATIENTS)])
    normals = np.random.RandomState(7).randn(101)
    errors = {name: sensor_errors(name, 7) for name in SENSORS}
    np.savez_compressed(FIXTURE, glucose=glucose.astype(np.float32), normals=normals, **errors)


if __name__ == "__main__":
    main()
