"""Sweeps whose trials are small programs instead of trainings."""

import csv
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tsmjax.errors import InputError
from tsmjax.experiments import __main__ as command
from tsmjax.experiments import sweep
from tsmjax.main import parse

ROOT = Path(__file__).parents[2]

# A trial scores the distance of lr to 3, counts how often it was started, takes `seconds`, and
# waits until `company` trials have started.
TRIAL = textwrap.dedent("""
    import json, pathlib, signal, sys, time
    run, lr, seconds = pathlib.Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
    company = int(sys.argv[4])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    with (run / "starts").open("a") as file:
        file.write("x")
    time.sleep(seconds)
    while len(list(run.parent.glob("run_*/starts"))) < company:
        time.sleep(0.05)
    if lr == 5:
        sys.exit("error: the loss is not finite")
    config = {"optim": {"lr": lr}, "evals": {"metric": "m/wql", "mode": "min"}}
    (run / "config.json").write_text(json.dumps(config))
    score = {"metric": "m/wql", "best": {"m/wql": abs(lr - 3)}, "step": 10, "seconds": 1.0}
    (run / "results.json").write_text(json.dumps(score))
""")


def faked(seconds, company=1):
    def start(self, run, values):
        numbers = (values["optim.lr"], str(seconds), str(company))
        return [sys.executable, "-c", TRIAL, str(run), *numbers]

    return start


def example(*lrs):
    words = ("optim.lr=" + ",".join(map(str, lrs)),)
    return sweep.Sweep("configs/x.py", (), words, "grid", len(lrs), 0, "m/wql", "min")


def starts(folder):
    return [len(path.read_text()) for path in sorted(folder.glob("run_*/starts"))]


def test_trials_run_side_by_side_and_the_best_is_linked(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep.Sweep, "command", faked(0, company=4))
    assert sweep.run(example(1, 2, 3, 4), tmp_path, processes=4) == 0
    assert (tmp_path / "best_run").resolve().name == "run_002"
    with (tmp_path / "run_history.csv").open() as file:
        assert [row["optim.lr"] for row in csv.DictReader(file)] == ["1.0", "2.0", "3.0", "4.0"]
    assert "run_002 *" in capsys.readouterr().out


def test_a_failed_trial_says_why_the_others_go_on_and_it_alone_is_tried_again(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(sweep.Sweep, "command", faked(0))
    assert sweep.run(example(5, 2), tmp_path, processes=1) == 1
    out = capsys.readouterr().out
    assert "exit code 1: error: the loss is not finite" in out
    assert (tmp_path / "best_run").resolve().name == "run_001"
    assert sweep.run(example(5, 2), tmp_path, processes=1) == 1
    assert starts(tmp_path) == [2, 1]


def test_a_killed_sweep_takes_its_trials_along_and_goes_on_with_what_is_left(tmp_path):
    sweep.save(example(1, 2, 3, 4, 6, 7), tmp_path)
    # The sweep in a process of its own, with the program above for a training.
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_sweep\nfrom tsmjax.experiments import sweep, __main__\n"
        "sweep.Sweep.command = test_sweep.faked(float(sys.argv[1]))\n"
        f"sys.exit(__main__.main(['sweep', '--dir={tmp_path}', '--processes=2']))"
    )

    def begin(seconds):
        arguments = [sys.executable, "-c", program, str(seconds)]
        return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL)

    def wait_for(pattern, count):
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob(pattern))) < count:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    first = begin(2)
    wait_for("run_*/results.json", 2)
    wait_for("run_*/starts", 4)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {path.parent.name for path in tmp_path.glob("run_*/results.json")}
    assert 2 <= len(done) < 6
    second = begin(0)
    assert second.wait(timeout=60) == 0
    assert len(list(tmp_path.glob("run_*/results.json"))) == 6
    names = sorted(path.parent.name for path in tmp_path.glob("run_*/starts"))
    counts = dict(zip(names, starts(tmp_path), strict=True))
    assert all(counts[name] == 1 for name in done)
    assert 2 in counts.values()  # what was cut short began again
    assert (tmp_path / "best_run").resolve().name == "run_002"


def test_sigterm_stops_the_trials_and_asks_for_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.Sweep, "command", faked(30))
    monkeypatch.setattr(sweep.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
    assert sweep.run(example(1, 2, 3), tmp_path, processes=2) == 75
    assert not list(tmp_path.glob("run_*/results.json"))
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_devices_are_shared_out(tmp_path, monkeypatch):
    program = (
        "import os, pathlib, sys; run = pathlib.Path(sys.argv[1]);"
        "(run / 'device').write_text(os.environ['CUDA_VISIBLE_DEVICES']);"
        "(run / 'results.json').write_text('{\"best\": {\"m/wql\": 1.0}}')"
    )
    monkeypatch.setattr(
        sweep.Sweep, "command", lambda self, run, values: [sys.executable, "-c", program, str(run)]
    )
    assert sweep.run(example(1, 2), tmp_path, processes=2, devices=["4", "7"]) == 0
    assert {p.read_text() for p in tmp_path.glob("*/device")} == {"4", "7"}


def test_the_training_command_reads_its_own_values():
    planned, folder = sweep.plan(
        str(ROOT / "configs" / "ttm_test.py"),
        ["--config.optim.length=20 steps"],
        ["optim.lr=1e-3,1e-4", "task.loss=mse,mae"],
        "grid",
        None,
        0,
    )
    assert planned.trials == 4 and (planned.metric, planned.mode) == ("kernel_synth/mse", "min")
    assert folder.parts[:3] == ("experiments", "ttm", "test")
    config, workdir, _, _ = parse(["main", *planned.command(Path("w"), planned.listed()[3])[3:]])
    assert (config["optim"]["lr"], config["task"]["loss"], workdir) == (1e-4, "mae", "w")
    assert config["optim"]["length"] == "20 steps"


def test_words_flags_and_overrides_come_in_any_order(tmp_path):
    script = tmp_path / "array.sbatch"
    arguments = [
        *("sweep", "optim.lr=1e-3,1e-4", f"--config={ROOT / 'configs' / 'ttm_test.py'}"),
        *("--config.optim.length=20 steps", "task.loss=mse,mae", "--config.data.workers=0"),
        *(f"--dir={tmp_path / 's'}", f"--slurm={script}"),
    ]
    assert command.main(arguments) == 0
    saved = sweep.load(tmp_path / "s")
    assert saved.space == ("optim.lr=1e-3,1e-4", "task.loss=mse,mae")
    assert saved.overrides == ("--config.optim.length=20 steps", "--config.data.workers=0")
    assert "--array=0-3%1" in script.read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["optim.lrr=1,2"], "lrr"),
        (["task.loss=mse,squares"], "must be one of"),
        (["optim.lr=0..1"], "no grid"),
        (["optim.lr=0..1", "--method=random"], "needs --trials"),
        (["optim.lr=1,2", "--trials=3"], "leave --trials out"),
        (["optim.lr=1,2", "--prozesses=3"], "no flag of sweep"),
        (["optim.lr=1,2", "--processes=0"], "at least 1"),
    ],
)
def test_mistakes_end_before_the_first_trial(arguments, sentence, tmp_path, capsys):
    config = f"--config={ROOT / 'configs' / 'ttm_test.py'}"
    assert command.main(["sweep", config, f"--dir={tmp_path / 's'}", *arguments]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_folder_keeps_one_sweep(tmp_path):
    sweep.save(example(1, 2), tmp_path)
    sweep.save(example(1, 2), tmp_path)
    with pytest.raises(InputError, match="holds another sweep"):
        sweep.save(example(1, 3), tmp_path)
    assert sweep.load(tmp_path) == example(1, 2)
    with pytest.raises(InputError, match=r"holds no sweep\.json"):
        sweep.load(tmp_path / "other")
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match="is broken"):
        sweep.load(tmp_path)


def test_a_job_array_runs_one_trial_a_task(tmp_path, monkeypatch):
    planned = example(1, 2, 3)
    script = sweep.slurm_script(planned, tmp_path, processes=2)
    assert "#SBATCH --array=0-2%2" in script and f"--dir={tmp_path}" in script
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    monkeypatch.setattr(sweep.Sweep, "command", faked(0))
    sweep.save(planned, tmp_path)
    assert command.main(["sweep", f"--dir={tmp_path}", "--trial=1"]) == 0
    assert json.loads((tmp_path / "run_001" / "results.json").read_text())["best"]["m/wql"] == 1
    assert command.main(["sweep", f"--dir={tmp_path}", "--trial=1"]) == 0
    assert starts(tmp_path) == [1]
    assert command.main(["sweep", f"--dir={tmp_path}", "--trial=3"]) == 2
