"""Wrong input ends with exit code 2 and one sentence: what is wrong, where, what to do."""

import re

import datasets
import numpy as np
import pyarrow as pa
import pytest

from tsmjax import checkpoint, main

RNG = np.random.default_rng(0)


def good(rows: int = 16, length: int = 300) -> list:
    return RNG.normal(size=(rows, length)).cumsum(axis=1).astype(np.float32).tolist()


def save(folder, columns) -> str:
    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    return str(folder)


def missing_folder(tmp_path):
    return str(tmp_path / "nowhere")


def no_arrow_files(tmp_path):
    (tmp_path / "empty").mkdir()
    return str(tmp_path / "empty")


def truncated(tmp_path):
    folder = save(tmp_path / "cut", {"target": good()})
    file = next((tmp_path / "cut").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return folder


def wrong_type(tmp_path):
    return save(tmp_path / "text", {"target": [["a", "b"]] * 8})


def no_target(tmp_path):
    return save(tmp_path / "named", {"targte": good()})


def too_short(tmp_path):
    return save(tmp_path / "short", {"target": good(length=9)})


def only_nan(tmp_path):
    return save(tmp_path / "nan", {"target": [[float("nan")] * 300] * 8})


def no_rows(tmp_path):
    path = tmp_path / "none"
    path.mkdir()
    schema = pa.schema([("target", pa.list_(pa.float32()))])
    with pa.OSFile(str(path / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as out:
        out.write_table(schema.empty_table())
    return str(path)


def run(capsys, tmp_path, source, *overrides):
    capsys.readouterr()  # what writing the data printed
    code = main.run(
        [
            "main",
            f"--config=configs/chronos2_test.py:{source}",
            f"--workdir={tmp_path / 'run'}",
            *("--config.model.d_model=32", "--config.model.d_ff=64", "--config.model.num_layers=1"),
            *("--config.data.batch_size=8", "--config.optim.length=2", "--config.log.every=1"),
            *("--config.model.context_length=64", "--config.log.plots=False"),
            *overrides,
        ]
    )
    error = capsys.readouterr().err.strip()
    return code, error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing_folder, "nowhere"),
        (no_arrow_files, "empty"),
        (truncated, r"cut/data-.*\.arrow"),
        (wrong_type, "target"),
        (no_target, "targte"),
        (too_short, "short.*9"),
        (only_nan, "nan.*missing"),
        (no_rows, "none"),
    ],
)
def test_wrong_data(capsys, tmp_path, make, message):
    code, error = run(capsys, tmp_path, make(tmp_path))
    assert code == 2
    assert re.search(message, error), error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.optim.lrr=1", "lrr"),
        ("--config.optim.length=soon", "optim.length"),
        ("--config.optim.lr=fast", "lr"),
        ("--config.model.num_layers=0", "model.num_layers"),
        ("--config.data.batch_size=0", "data.batch_size"),
        ("--config.data.sources=()", "data.sources is empty"),
        ("--config.evals.metric=embeded/wql", "evals.metric"),
        ("--workdri=x", "workdri"),
    ],
)
def test_wrong_flags(capsys, tmp_path, override, message):
    source = save(tmp_path / "good", {"target": good()})
    code, error = run(capsys, tmp_path, source, override)
    assert code == 2
    assert message in error
    assert "Traceback" not in error


def test_no_config_file(capsys, tmp_path):
    assert main.run(["main", f"--config={tmp_path}/none.py"]) == 2
    assert "none.py" in capsys.readouterr().err


def test_a_variant_that_does_not_exist(capsys):
    assert main.run(["main", "--config=configs/chronos2_small.py:corpus,9l"]) == 2
    error = capsys.readouterr().err
    assert error == "error: The variant '9l' of chronos2_small does not exist; there is 8l.\n"


def test_no_config(capsys):
    assert main.run(["main"]) == 2
    assert "--config" in capsys.readouterr().err


def test_a_checkpoint_of_another_width(capsys, tmp_path):
    source = save(tmp_path / "good", {"target": good()})
    assert run(capsys, tmp_path, source)[0] == 0
    code, error = run(capsys, tmp_path, source, "--config.model.d_model=48")
    assert code == 2
    assert "does not fit this config" in error
    assert "(the config asks for" in error
    # The run that was there before is untouched.
    assert checkpoint.find(f"{tmp_path / 'run'}@final")[1] == 2
