"""Weights from a hub on loopback: branches, proxy, offline mode, and what may go wrong."""

import json
import subprocess
import sys
from pathlib import Path

import fake_hub
import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.weights import hub as hub_ids

CODE = """
import json, sys
from tsmjax import weights
from tsmjax.errors import InputError
for name in sys.argv[1:]:
    try:
        found = weights.read(name)
        print(json.dumps([found.family, float(found.params["shared"]["embedding"][0, 0])]))
    except InputError as error:
        print(json.dumps(str(error)))
"""
VALUES = {
    **{"d_model": 4, "d_kv": 2, "d_ff": 4, "num_layers": 1, "num_heads": 1},
    **{"context_length": 32, "quantiles": (0.5,), "max_output_patches": 1},
}


def model(folder, first):
    """Files of a Chronos-2 whose first number is `first`."""
    from flax import nnx

    from tsmjax import weights
    from tsmjax.models import chronos2
    from tsmjax.nn.functional import split

    params = split(chronos2.Model(chronos2.Config(**VALUES), rngs=nnx.Rngs(0)))[1]
    params["shared"]["embedding"] = np.full_like(params["shared"]["embedding"], first)
    weights.write(folder, "chronos2", VALUES, params)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    with fake_hub.serve() as server:
        main = {**model(folder / "a", 1.0), "pytorch_model.bin": b"never fetched"}
        server.repositories["amazon/tiny", "main"] = main
        server.repositories["amazon/tiny", "refs/pr/1"] = model(folder / "b", 2.0)
        server.repositories["meta/gated", "main"] = main
        server.gated = "meta/gated"
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def read(hub, home, *names, **more):
    """What a process of its own reads, or the sentence that it says instead."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *names],
        env=fake_hub.environment(hub, home, **more),
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_branches_and_refusals_then_the_cache(hub, home):
    pull = f"amazon/tiny@{fake_hub.commit('refs/pr/1')}"
    names = (
        "amazon/tiny",
        "amazon/tiny@refs/pr/1",
        pull,
        "amazon/tiny@v9",
        "no/body",
        "meta/gated",
    )
    main, branch, commit, revision, nobody, gated = read(hub, home, *names)
    assert main == ["chronos2", 1.0]
    assert branch == commit == ["chronos2", 2.0]
    assert revision.endswith("it has no branch, tag or commit v9.")
    assert "there is no such model, or it is private" in nobody
    assert f"accepted at {hub.address}/meta/gated, and HF_TOKEN" in gated
    assert not any(path.endswith(".bin") for path in hub.files_asked_for())

    # What is in the cache needs no connection, and no other process asks for one.
    hub.requests.clear()
    kept, lacking = read(hub, home, "amazon/tiny", "no/body", HF_HUB_OFFLINE="1")
    assert kept == main and not hub.requests
    assert "HF_HUB_OFFLINE is set, and the cache does not have it" in lacking


def test_a_proxy_and_a_connection_that_ends_early(hub, home, tmp_path):
    hub.requests.clear()
    hub.cut_next = True
    proxied = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": hub.address}
    assert read(hub, tmp_path, "amazon/tiny", **proxied) == [["chronos2", 1.0]]
    assert all(path.startswith("http://hub.invalid/") for _, path, _ in hub.requests)
    nowhere = {"HF_ENDPOINT": "http://hub.invalid", "HTTP_PROXY": "http://127.0.0.1:9"}
    (told,) = read(hub, tmp_path / "empty", "amazon/tiny", **nowhere)
    assert "check network, proxy (HTTPS_PROXY) and HF_ENDPOINT" in told and "\n" not in told


def test_names_that_are_no_hub_ids():
    for name in ("nowhere", "a/b/c", "a/b@", "http://a/b"):
        assert not hub_ids.is_id(name)
        with pytest.raises(InputError, match="neither a folder nor a hub id"):
            hub_ids.resolve(name)
    assert hub_ids.is_id("a/b") and hub_ids.is_id("a/b@refs/pr/3")
