"""Environments: how they are told, where data are found, which precision a GPU has."""

import types

import pytest

from tsmjax import environment
from tsmjax.errors import InputError
from tsmjax.optim import OptimConfig


def test_environments_are_told_by_variables_and_mounts(tmp_path):
    assert environment.detect({}, tmp_path) == "local"
    assert environment.detect({"KAGGLE_KERNEL_RUN_TYPE": "Batch"}, tmp_path) == "kaggle"
    (tmp_path / "lambda" / "nfs").mkdir(parents=True)
    assert environment.detect({}, tmp_path) == "lambda"


def test_data_are_looked_for_where_the_environment_keeps_them(tmp_path):
    config = {"data": {"path": "data/ntu60", "bodies": 1}}
    assert environment.locate(config, "kaggle", tmp_path) == config
    (tmp_path / "kaggle" / "input" / "ntu60").mkdir(parents=True)
    found = environment.locate(config, "kaggle", tmp_path)["data"]
    assert found == {"path": str(tmp_path / "kaggle" / "input" / "ntu60"), "bodies": 1}
    assert environment.locate(config, "local", tmp_path) is config
    (tmp_path / "lambda" / "nfs" / "mine" / "data" / "ntu60").mkdir(parents=True)
    assert "nfs/mine/data" in environment.locate(config, "lambda", tmp_path)["data"]["path"]
    embedded = {"data": {"path": "embedded:skeletons"}}
    assert environment.locate(embedded, "kaggle", tmp_path) is embedded
    with pytest.raises(InputError, match="--env=kagle is none of local, kaggle, lambda"):
        environment.locate(config, "kagle", tmp_path)


@pytest.mark.parametrize(
    ("capability", "precision"), [("7.5", "float16"), ("8.0", "bfloat16"), ("gfx90a", "bfloat16")]
)
def test_a_gpu_without_bfloat16_takes_float16(capability, precision):
    gpu = types.SimpleNamespace(platform="gpu", compute_capability=capability)
    half = OptimConfig(precision="bfloat16")
    assert environment.supported(half, [gpu]).precision == precision
    assert environment.supported(OptimConfig(), [gpu]).precision == "float32"
    assert environment.supported(half, [types.SimpleNamespace(platform="cpu")]) is half
