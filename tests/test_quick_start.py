"""A short command starts quickly: few imports, and programs that were compiled before."""

import dataclasses
import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flax import nnx

import tsmjax
from tsmjax import quick_start, weights
from tsmjax.models import chronos2
from tsmjax.nn.functional import split

# Libraries that forecasting from a Hugging Face folder has no use for.
IDLE = ("grain", "matplotlib", "orbax", "tensorboardX", "tensorstore", "torch", "transformers")


@pytest.fixture
def environment(monkeypatch):
    """An environment in which nothing of what `prepare` sets is set."""
    names = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    for name in names:
        monkeypatch.setenv(name, "")  # so that it is restored at the end
        monkeypatch.delenv(name)
    threshold = gc.get_threshold()
    yield monkeypatch
    gc.set_threshold(*threshold)


def test_each_kind_of_processor_has_a_cache_of_its_own(environment, tmp_path):
    environment.setenv("TSMJAX_CACHE", str(tmp_path))
    folders = set()
    for flags in ("sse avx2", "sse avx2 avx512f"):
        text = f"processor\t: 0\nmodel name\t: X\nMHz\t: {len(flags)}\nflags\t\t: {flags}\n\n"
        environment.setattr(Path, "read_text", lambda self, text=text: text + "processor\t: 1\n")
        environment.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        quick_start.prepare()
        folders.add(os.environ["JAX_COMPILATION_CACHE_DIR"])
        quick_start.prepare()
        assert os.environ["JAX_COMPILATION_CACHE_DIR"] in folders
    assert len(folders) == 2
    assert all(Path(folder).parent == tmp_path / "compiled" for folder in folders)


def test_nothing_is_kept_where_the_processor_is_unknown_or_the_user_chose(environment):
    def unreadable(self):
        raise OSError

    environment.setattr(Path, "read_text", unreadable)
    quick_start.prepare()
    assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
    environment.undo()
    environment.setenv("JAX_COMPILATION_CACHE_DIR", "/mine")
    quick_start.prepare()
    assert os.environ["JAX_COMPILATION_CACHE_DIR"] == "/mine"


def test_predict_imports_little_and_keeps_what_it_compiled(tmp_path):
    config = chronos2.Config(
        **{"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2},
        **{"context_length": 32, "max_output_patches": 1},
    )
    _, params, _ = split(chronos2.Model(config, rngs=nnx.Rngs(0)))
    weights.write(tmp_path / "model", "chronos2", dataclasses.asdict(config), params)
    days = pd.date_range("2024-01-01", periods=32, freq="D")
    frame = pd.DataFrame({"timestamp": days, "target": np.arange(32.0)})
    frame.to_csv(tmp_path / "in.csv", index=False)
    code = (
        "import json, sys\n"
        "from tsmjax import predict, quick_start\n"
        "quick_start.prepare()\n"
        "code = predict.main(sys.argv[1:])\n"
        "print(json.dumps([code, sorted({name.partition('.')[0] for name in sys.modules})]))"
    )
    command = [sys.executable, "-c", code, "--checkpoint", str(tmp_path / "model")]
    command += ["--input", str(tmp_path / "in.csv"), "--output", str(tmp_path / "out.csv")]
    own = {"TSMJAX_CACHE": str(tmp_path / "cache"), "JAX_PLATFORMS": "cpu"}
    drop = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")
    environment = {k: v for k, v in os.environ.items() if k not in drop} | own
    root = Path(tsmjax.__file__).parents[1]
    done = subprocess.run(
        command, env=environment, cwd=root, capture_output=True, text=True, check=True
    )
    found, modules = json.loads(done.stdout.splitlines()[-1])
    assert found == 0 and len(pd.read_csv(tmp_path / "out.csv")) == 16
    assert not set(IDLE) & set(modules)
    assert list((tmp_path / "cache/compiled").glob("*/jit__forward-*"))
