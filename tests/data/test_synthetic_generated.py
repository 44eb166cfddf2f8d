"""Series made during training: endless, the same for everybody, mixed with others by weight."""

import pickle
import threading

import numpy as np
import pytest

from tsmjax.data.packing import DataConfig, ForecastBatches, Source
from tsmjax.data.synthetic import corpus
from tsmjax.data.synthetic.generated import GeneratedSource, GeneratedWindows
from tsmjax.errors import InputError

CALLS = []


@pytest.fixture(autouse=True)
def counting_items(monkeypatch):
    """Items that tell their number, in place of generated ones: value = number + step / 1000."""
    CALLS.clear()

    def items(number, *, min_length, max_length, variates, **_):
        CALLS.append(number)
        size = corpus.block_size(variates)
        found = []
        for index in range(number * size, (number + 1) * size):
            length = min_length + index % (max_length - min_length + 1)
            values = np.float32(index) + np.arange(length, dtype=np.float32) / 1000
            count = 1 if variates == 1 else 2 + index % (variates - 1)
            parts = np.split(np.tile(values, (count, 1)), [1, count])
            found.append((parts[0], parts[2], parts[1]))
        return found

    monkeypatch.setattr(corpus, "items", items)


def batches(*sources, host=0, hosts=1, **config):
    defaults = dict(batch_size=8, context_length=16, min_past=4)
    return ForecastBatches(
        DataConfig(sources=sources, **(defaults | config)),
        prediction_length=8,
        patch=4,
        seed=0,
        host=host,
        hosts=hosts,
    )


CORPUS = Source("generated:corpus?min_length=12&max_length=60", 1.0)


def test_every_draw_is_a_new_item():
    found = batches(CORPUS)
    assert found.steps_per_epoch is None
    numbers = [np.floor(found[step]["context"][:, 0, -1]) for step in range(200)]
    assert np.concatenate(numbers).tolist() == list(range(1600))
    assert CALLS == [0, 1]
    with pytest.raises(TypeError, match="no epoch"):
        len(found)


def test_windows_are_cut_where_series_have_past_and_future():
    source = GeneratedSource(CORPUS.path)
    windows = GeneratedWindows(source, seed=3, min_past=4, min_future=1, holdout=2)
    draws = np.arange(5000)
    items, cuts = windows.locate(draws, 8)
    lengths = 12 + draws % 49 - 2
    assert np.array_equal(items, draws)
    assert (cuts >= 4).all() and (cuts <= np.maximum(lengths - 8, 4)).all()
    uniform = (cuts - 4)[lengths == 48] / 37
    assert abs(uniform.mean() - 0.5) < 0.1 and uniform.max() > 0.9
    assert windows.share_of_long(31) == pytest.approx((lengths[:1024] >= 31).mean())


def test_batches_are_the_same_in_any_order_on_any_host_and_after_a_resume():
    one = batches(CORPUS, group_by_length=4)
    wanted = [one[step] for step in range(12)]
    other = pickle.loads(pickle.dumps(batches(CORPUS, group_by_length=4)))
    for step in (11, 3, 7, 0):
        for name, values in other[step].items():
            np.testing.assert_array_equal(values, wanted[step][name])
    halves = [batches(CORPUS, group_by_length=4, host=host, hosts=2)[5] for host in (0, 1)]
    for name, values in wanted[5].items():
        np.testing.assert_array_equal(np.concatenate([half[name] for half in halves]), values)


def test_blocks_are_kept_while_they_are_read_again():
    found = batches(CORPUS, batch_size=1024, group_by_length=4)
    for step in range(8):
        found[step]
    assert sorted(CALLS) == list(range(8))


def test_threads_make_each_block_once():
    source = GeneratedSource(CORPUS.path)
    threads = [threading.Thread(target=source.lengths, args=(np.arange(2048),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(CALLS) == [0, 1]


def test_groups_keep_their_shares_beside_an_arrow_source(dataset):
    path = Source(dataset("a", [40] * 30), 1.0)
    groups = Source("generated:corpus?min_length=12&max_length=60&variates=4", 3.0)
    found = batches(path, groups, batch_size=64)
    rows = {True: 0, False: 0}
    for step in range(60):
        batch = found[step]
        known = np.isfinite(batch["future"]).any(axis=(1, 2))
        filled = (batch["group"] >= 0).sum(axis=1)
        for generated, count in zip(known, filled, strict=True):
            rows[bool(generated)] += count
    assert rows[True] / (rows[True] + rows[False]) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize(
    ("path", "config", "words"),
    [
        ("generated:kernel_synth", {}, ["cannot be made during training", "structural"]),
        ("generated:corpsu", {}, ["did you mean 'corpus'"]),
        ("generated:corpus?variates=100", {}, ["64 is the most"]),
        ("generated:corpus?missing=101", {}, ["missing is 101 per cent"]),
        ("generated:ets?tcm=1", {}, ["no parameter 'tcm'"]),
        ("generated:corpus?min_length=4", {}, ["write min_length=5 into it"]),
        ("generated:corpus", {"workers": 2}, ["set data.workers to 0"]),
        (
            "generated:corpus?structural=0&arima=0&ets=0&kernels=0&tcm=0&growth=0",
            {},
            ["share of every generator is 0"],
        ),
    ],
)
def test_bad_sources(path, config, words):
    with pytest.raises(InputError) as caught:
        batches(Source(path), **config)
    assert all(word in str(caught.value) for word in words), str(caught.value)
