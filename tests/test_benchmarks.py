"""Benchmarks of the data report what they say they do."""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import synthetic
from configs import chronos2_small
from tsmjax.data.synthetic import corpus


def test_arrow_reading(tmp_path):
    small = "--long=64 --length=96 --context=32 --batch=16 --batches=3 --many=500 --short=40"
    command = [sys.executable, "-m", "benchmarks.arrow_reading", *small.split()]
    command += ["--repeats=1", f"--folder={tmp_path}"]
    root = Path(synthetic.__file__).parents[1]
    found = json.loads(subprocess.check_output(command, text=True, cwd=root).splitlines()[-1])
    assert found["windows"]["pipeline"][0]["per_cpu_second"] > 0
    assert found["series"]["reopen"]["series"] == 500
    assert 0 < found["series"]["reopen"]["anonymous_mb_open"] < 200
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("variates", "rows"), [(1, 1024), (8, 640)])
def test_every_batch_of_generated_series_is_a_block_of_its_own(monkeypatch, variates, rows):
    made = []

    def items(number, *, max_length, variates, **_):
        made.append(number)
        sizes = [1 if variates == 1 else 2 + n % 7 for n in range(corpus.block_size(variates))]
        none = np.zeros((0, max_length), np.float32)
        return [(np.ones((size, max_length), np.float32), none, none) for size in sizes]

    monkeypatch.setattr(corpus, "items", items)
    settings = chronos2_small.get_config().to_dict()
    settings["model"]["context_length"] = 256
    found = synthetic.generated(settings, variates, argparse.Namespace(mixup=0.5, blocks=2))
    assert made == [0, 1, 2]
    assert found["length"] == 320
    assert found["rows_per_block"] == pytest.approx(rows, rel=0.02)
    rate = found["rows_per_block"] / found["seconds_per_block"]
    assert found["generated_per_second"] == pytest.approx(rate, rel=0.1)
