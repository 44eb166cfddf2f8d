"""Skeleton models in and out: checkpoints of the fallback teacher, statistics, bad files."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

torch = pytest.importorskip("torch")

from benchmarks import last_torch  # noqa: E402
from convert.__main__ import main  # noqa: E402
from tsmjax import checkpoint  # noqa: E402
from tsmjax.models.last import NETS  # noqa: E402
from tsmjax.nn.functional import flatten  # noqa: E402

SIZE = NETS["last_e_v3"].SIZES["base"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """Checkpoint of LAST-E v3 base as the reference trainer writes it, and its state dict."""
    torch.manual_seed(0)
    state = last_torch.LastEV3(SIZE, 60).state_dict()
    for name, x in state.items():
        if name.endswith("running_mean"):
            x.normal_()
    path = tmp_path_factory.mktemp("pth") / "best_model.pth"
    wrapped = {f"module.{name}": x for name, x in state.items()}
    torch.save({"epoch": 119, "model_state_dict": wrapped, "best_acc": 0.8}, path)
    return path, {name: x.numpy() for name, x in state.items()}


def test_the_fallback_teacher_comes_in_and_goes_out_unchanged(teacher, tmp_path):
    path, state = teacher
    assert main(["import", "last", str(path), str(tmp_path / "run")]) == 0
    loaded = checkpoint.load_weights(str(tmp_path / "run"))
    model = loaded.config["model"]
    assert (model["family"], model["net"], model["size"]) == ("last", "last_e_v3", "base")
    assert (model["num_classes"], model["skeleton"]) == (60, "ntu25")
    assert model["compat"] == {"truncated_hops": True, "adjacency": "graph"}
    assert sum(x.size for x in flatten(loaded.params).values()) == 720_028
    mean = flatten(loaded.stats)["stages/1/0/tcn/depthwise_norm/mean"]
    np.testing.assert_array_equal(mean, state["stages.1.0.tcns.0.depth_conv.1.running_mean"])

    assert main(["export", "last", str(tmp_path / "run"), str(tmp_path / "out")]) == 0
    written = load_file(tmp_path / "out/model.safetensors")
    constants = {name for name in state if name.endswith(("num_batches_tracked", ".A"))} | {"A"}
    assert written.keys() == state.keys() - constants
    for name, tensor in written.items():
        np.testing.assert_array_equal(tensor, state[name], err_msg=name)
    assert json.loads((tmp_path / "out/config.json").read_text())["model_type"] == "last"


def test_bad_checkpoint_files_are_named(teacher, tmp_path, capsys):
    def refused(state, *parts):
        file = tmp_path / "bad.pth"
        if isinstance(state, bytes):
            file.write_bytes(state)
        else:
            torch.save(state, file)
        assert main(["import", "last", str(file), str(tmp_path / "run")]) == 2
        said = capsys.readouterr().err
        assert all(part in said for part in parts), said
        assert not (tmp_path / "run").exists()

    _, state = teacher
    tensors = {name: torch.tensor(x) for name, x in state.items()}
    refused(b"no pickle", "bad.pth")
    refused({"net": print}, "holds more than tensors")
    refused({"epoch": 3}, "holds no state dict")
    refused({"x": torch.zeros(1)}, "none of the known skeleton models")
    refused({**tensors, "A": tensors["A"] + 1}, "stores a graph (5, 25, 25) that is no known form")
    lost = {name: x for name, x in tensors.items() if name != "stages.0.1.gcn.edge"}
    refused(lost, "missing stages.0.1.gcn.edge")
    lost = {name: x for name, x in tensors.items() if not name.startswith("stages.2.1.")}
    refused(lost, "none of its sizes (nano, small, base, large)")
    assert main(["import", "last", str(tmp_path / "absent.pth"), str(tmp_path / "run")]) == 2
    assert "absent.pth does not exist" in capsys.readouterr().err
