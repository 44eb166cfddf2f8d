"""Blocks of all generators: the same for every maker and reader, finite, with gaps where asked."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.data.synthetic import blocks, corpus, realism, workers
from tsmjax.data.synthetic.generated import GeneratedSource
from tsmjax.prepare import synthetic
from tsmjax.prepare.__main__ import main

# Two generators compile in a few seconds; the others are made from the same keys.
FEW = dict.fromkeys(corpus.SHARES, 0) | {"ets": 1, "tcm": 1}
SINGLE = dict(min_length=32, max_length=96, missing=25, variates=1, seed=3, **FEW)
GROUPS = SINGLE | {"variates": 4}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache of compiled functions that worker processes share."""
    return str(tmp_path_factory.mktemp("compiled"))


@functools.cache
def items(number, kind):
    return corpus.items(number, **{"single": SINGLE, "groups": GROUPS}[kind])


def same(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("kind", ["single", "groups"])
def test_blocks_are_the_same_in_any_order(kind):
    wanted = [items(number, kind) for number in (0, 1)]
    parameters = {"single": SINGLE, "groups": GROUPS}[kind]
    same(corpus.items(1, **parameters), wanted[1])
    same(corpus.items(0, **parameters), wanted[0])
    targets = {item[0].tobytes() for block in wanted for item in block}
    assert len(targets) == 2 * len(wanted[0])  # no two alike
    other = corpus.items(0, **(parameters | {"seed": 4}))
    assert not np.array_equal(other[0][0], wanted[0][0][0])


def test_rows_do_not_depend_on_where_reading_begins():
    whole = list(corpus.rows(1000, 1060, **SINGLE))  # across the end of a block
    parts = [*corpus.rows(1030, 1060, **SINGLE), *corpus.rows(1000, 1030, **SINGLE)]
    parts = parts[30:] + parts[:30]
    for one, other in zip(whole, parts, strict=True):
        assert one["item_id"] == other["item_id"]
        np.testing.assert_array_equal(one["target"], other["target"])
    np.testing.assert_array_equal(whole[24]["target"], items(1, "single")[0][0][0])


def test_hosts_read_the_same_items():
    query = "&".join(f"{name}={value}" for name, value in SINGLE.items())
    one, two = (GeneratedSource(f"generated:corpus?{query}") for _ in range(2))

    def read(source, numbers):
        lengths = source.lengths(numbers)
        values = source.windows(numbers, lengths, lengths, SINGLE["max_length"], 0).values
        return [row[-length:] for row, length in zip(values, lengths, strict=True)]

    wanted = [item[0][0] for item in [*items(0, "single")[:6], *items(1, "single")[:2]]]
    numbers = np.asarray([0, 1, 2, 3, 4, 5, 1024, 1025])
    same([read(one, numbers)], [wanted])
    halves = read(two, numbers[::-2]), read(two, numbers[-2::-2])
    same([[item for pair in zip(*halves, strict=True) for item in pair]], [wanted[::-1]])


@pytest.mark.slow
def test_worker_processes_make_what_training_makes(compiled, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", compiled)
    found = next(workers.make("corpus", GROUPS, [(0, 256)], 1))
    for row, (target, past, known) in zip(found, items(0, "groups"), strict=True):
        # Another process may split its work among other threads: the last bits may differ.
        for column, values in (
            ("target", target),
            ("past_feat_dynamic_real", past),
            ("feat_dynamic_real", known),
        ):
            np.testing.assert_allclose(row[column], values, rtol=2e-3, atol=1e-4)


@pytest.mark.slow
def test_workers_and_shards_write_the_same_groups(compiled, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", compiled)
    monkeypatch.setattr(synthetic, "SERIES_OF_A_FILE", 200)
    monkeypatch.setattr(synthetic, "SERIES_OF_A_PIECE", 100)
    arguments = ["--series", "500", "--length", "96", "--min-length", "32", "--variates", "4"]
    arguments += ["--missing", "25", "--seed", "3", "--shares", "ets=1", "tcm=1"]
    jobs = {"one": [["--workers", "1"]], "shards": [["--workers", "2", "--shard", f"{i}/2"]
            for i in (1, 0)]}  # fmt: skip
    written = {}
    for name, runs in jobs.items():
        for options in runs:
            assert main(["synthetic", "--dst", str(tmp_path / name), *arguments, *options]) == 0
        files = sorted((tmp_path / name).glob("data-*.arrow"))
        written[name] = [path.read_bytes() for path in files]
    assert len(written["one"]) == 3 and written["one"] == written["shards"]
    manifest = json.loads((tmp_path / "one" / "manifest.json").read_text())
    assert manifest["version"] == corpus.VERSION and manifest["weights"] == {"corpus": 2}
    source = ArrowSource(tmp_path / "one")
    assert len(source) == 500 and source.metadata(499)["item_id"] == "corpus/499"


def test_series_are_finite_and_miss_values_where_asked():
    holed = []
    for target, past, known in items(0, "single") + items(1, "single"):
        assert target.shape[0] == 1 and not len(past) and not len(known)
        assert 32 <= target.shape[1] <= 96
        assert not np.isinf(target).any() and np.isfinite(target).mean() > 0.3
        holed.append(np.isnan(target).any())
    assert 0.2 < np.mean(holed) < 0.3


def test_groups_have_their_roles_and_known_covariates_no_gaps():
    holed = {"target": [], "past": []}
    for target, past, known in items(0, "groups") + items(1, "groups"):
        assert len(target) >= 1 and 2 <= len(target) + len(past) + len(known) <= 4
        assert target.shape[1] == past.shape[1] == known.shape[1]
        assert np.isfinite(known).all() and not np.isinf(target).any()
        holed["target"] += np.isnan(target).any(axis=1).tolist()
        holed["past"] += np.isnan(past).any(axis=1).tolist()
    assert 0.19 < np.mean(holed["target"]) < 0.31 and 0.15 < np.mean(holed["past"]) < 0.35


def test_groups_are_shuffled_whole(monkeypatch):
    # Groups that tell their length and their place, in the order in which rules make them.
    def numbered(key, clocks, roles, inside, shares):
        told = jnp.stack([clocks.used, jnp.arange(len(clocks.used))], axis=1)
        return jnp.repeat(told[:, :, None], inside.shape[1], axis=2).astype(jnp.float32)

    monkeypatch.setattr(blocks, "dependent", numbered)
    monkeypatch.setattr(realism, "realistic", lambda key, values, used: values)
    made = blocks.block(
        jax.random.key(0), shares=(1,), variates=2, length=67, missing=0.0, size=200
    )
    values, used = np.asarray(made.values), np.asarray(made.used)
    np.testing.assert_array_equal(values[:, 0, -1], used)
    np.testing.assert_array_equal(np.isfinite(values).sum(axis=2), np.stack([used, used], 1))
    place = values[:, 1, -1]
    assert sorted(place) == list(range(200))
    # A quarter of a block has groups from all quarters.
    assert all(np.bincount(part.astype(int) // 50, minlength=4).min() >= 4
               for part in place.reshape(4, 50))  # fmt: skip
