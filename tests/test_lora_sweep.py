"""The four ways to fine-tune TTM: what each trains, as docs/ttm.md says."""

import re
from pathlib import Path

import pytest

from configs import ttm_lora_sweep
from tsmjax import state
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.nn.functional import flatten


def plan(argument):
    config = resolve(ttm_lora_sweep.get_config(argument))
    return state.blueprint(config.build_task(), config.optim)


@pytest.mark.parametrize("variant", ttm_lora_sweep.VARIANTS)
def test_the_documentation_tells_how_many_parameters_are_trained(variant):
    text = (Path(__file__).parent.parent / "docs" / "ttm.md").read_text()
    (said,) = re.findall(rf"^\| `{variant}` \|.*\| ([\d,]+) \|", text, re.M)
    found = plan(variant)
    assert state.count(found.params) == int(said.replace(",", ""))
    assert state.count(found.model_params()) == 805_280


def test_adapters_leave_all_but_the_head_alone():
    trained = flatten(plan("r16").params)
    adapters = {path for path in trained if re.search(r"feature_mixer/mlp/fc[12]/lora_[ab]$", path)}
    assert {path for path in trained if path not in adapters} == {
        "model/network/head/forecast/kernel",
        "model/network/head/forecast/bias",
    }
    assert all(16 in trained[path].shape for path in adapters)


def test_a_checkpoint_brings_its_sizes(tmp_path, monkeypatch):
    values = {"family": "ttm", "context_length": 90, "prediction_length": 30, "patch_length": 9}
    monkeypatch.setattr("tsmjax.pretrained.model_values", lambda path: dict(values))
    config = resolve(ttm_lora_sweep.get_config(f"full,{tmp_path}/mine,from=owner/name"))
    assert (config.model.context_length, config.checkpoint.init_from) == (90, "owner/name")
    assert (config.data.path, config.evals.metric) == (f"{tmp_path}/mine", "mine/mse")
    assert config.name == "lora_sweep_full" and config.optim.lora.rank == 0


def test_other_variants_are_refused():
    with pytest.raises(InputError, match="no variant 'r32'; there are head, r8"):
        ttm_lora_sweep.get_config("r32")
