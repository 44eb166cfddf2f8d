"""The converter's command line: round trips, exit codes, sentences."""

import json
import subprocess
import sys

import pytest
from safetensors.numpy import load_file

from convert.__main__ import main
from tsmjax import checkpoint
from tsmjax.models import chronos2

DUMMY = "weights/dummy-chronos2-model"
LORA = "weights/dummy-chronos2-lora"


def same_tensors(a, b):
    a, b = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    return a.keys() == b.keys() and all(a[name].tobytes() == b[name].tobytes() for name in a)


def test_import_then_export_is_bit_identical(test_data, tmp_path):
    run, exported = tmp_path / "run", tmp_path / "exported"
    assert main(["import", "chronos2", str(test_data / DUMMY), str(run)]) == 0
    assert main(["export", "chronos2", f"{run}@final", str(exported)]) == 0
    assert same_tensors(test_data / DUMMY, exported)
    loaded = checkpoint.load_weights(str(run))
    assert loaded.config["model"]["family"] == "chronos2"
    assert loaded.config["model"]["d_kv"] == 4
    assert loaded.config["task"] == {"kind": "forecast"}
    assert "sha256" in loaded.artefacts["source"]
    written = json.loads((exported / "config.json").read_text())
    assert written["tsmjax"] == {"family": "chronos2", "task": "forecast", "format": 1}
    assert written["chronos_pipeline_class"] == "Chronos2Pipeline"


def test_an_adapter_is_merged_on_import(test_data, tmp_path):
    base = str(test_data / DUMMY)
    arguments = ["export", "chronos2", str(test_data / LORA), str(tmp_path / "merged")]
    assert main([*arguments, "--base", base]) == 0
    assert not same_tensors(test_data / DUMMY, tmp_path / "merged")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["import", "chronos3", "DUMMY", "NEW"], "did you mean 'chronos2'"),
        (["import", "chronos2", "nowhere", "NEW"], "neither a folder nor a hub id"),
        (["import", "chronos2", "DUMMY", "USED"], "not empty"),
        (["export", "chronos2", "DUMMY", "USED"], "not empty"),
        (["import", "chronos2", "LORA", "NEW"], "test/dummy-chronos2-model"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(
    test_data, tmp_path, capsys, monkeypatch, arguments, words
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (tmp_path / "used").mkdir()
    (tmp_path / "used/file").touch()
    paths = {
        "DUMMY": str(test_data / DUMMY),
        "LORA": str(test_data / LORA),
        "NEW": str(tmp_path / "new"),
        "USED": str(tmp_path / "used"),
    }
    assert main([paths.get(argument, argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "arguments",
    [["import", "chronos2", "x"], ["verify", "chronos2", "x", "y"], ["merge", "chronos2", "x"]],
)
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(arguments)
    assert error.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_run_of_another_family_is_refused(test_data, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["import", "chronos2", str(test_data / DUMMY), str(run)]) == 0
    assert main(["export", "ttm", str(run), str(tmp_path / "new")]) == 2
    assert "holds a chronos2 model, but ttm was asked for" in capsys.readouterr().err


def test_verify_agrees_on_a_run_folder_and_finds_a_difference(
    test_data, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    assert main(["import", "chronos2", str(test_data / DUMMY), str(run)]) == 0
    assert main(["verify", "chronos2", str(run)]) == 0
    assert "Both implementations agree." in capsys.readouterr().out

    feed_forward = chronos2.FeedForward.__call__
    monkeypatch.setattr(
        chronos2.FeedForward, "__call__", lambda *arguments: feed_forward(*arguments) + 0.01
    )
    assert main(["verify", "chronos2", str(run)]) == 1
    assert "The first stage that differs is: block 0." in capsys.readouterr().out


def test_the_command_explains_itself():
    command = [sys.executable, "-m", "convert", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "python -m convert verify chronos2" in shown
