"""Forecast batches: every value at its place, nothing lost, any host, any step."""

import pickle

import numpy as np
import pytest

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.packing import DataConfig, ForecastBatches, Source
from tsmjax.errors import InputError

ARRAYS = ("context", "target", "future", "group", "patches")


def batches(*paths, weights=None, prediction_length=8, patch=4, seed=0, host=0, hosts=1, **config):
    weights = weights or [1.0] * len(paths)
    sources = tuple(Source(path, weight) for path, weight in zip(paths, weights, strict=True))
    defaults = dict(batch_size=8, context_length=12, min_past=2, min_future=1)
    return ForecastBatches(
        DataConfig(sources=sources, **(defaults | config)),
        prediction_length=prediction_length,
        patch=patch,
        seed=seed,
        host=host,
        hosts=hosts,
    )


def tasks_of(batch):
    """Yield (context, target, future) of every task of a batch, rows first."""
    for pack, groups in enumerate(batch["group"]):
        for number in range(groups.max() + 1):
            rows = groups == number
            yield tuple(batch[name][pack, rows] for name in ("context", "target", "future"))


def test_shapes_and_types(dataset):
    batch = batches(dataset("a", [40] * 5, targets=2, future=1), batch_size=12)[0]
    assert {name: (batch[name].shape, batch[name].dtype.name) for name in ARRAYS} == {
        "context": ((4, 3, 12), "float32"),
        "target": ((4, 3, 8), "float32"),
        "future": ((4, 3, 8), "float32"),
        "group": ((4, 3), "int32"),
        "patches": ((4,), "int32"),
    }
    assert set(batch) == set(ARRAYS)


@pytest.mark.parametrize("sampling", ["series", "windows"])
@pytest.mark.parametrize("holdout", [0, 5])
def test_every_value_is_where_the_series_has_it(dataset, sampling, holdout):
    lengths = [9, 40, 17, 8, 25]
    path = dataset("a", lengths, targets=2, past=1, future=2)
    source = batches(
        path,
        batch_size=10,
        sampling=sampling,
        holdout=holdout,
        random_horizon=True,
        prediction_length=7,
    )
    seen = set()
    for step in range(40):
        batch = source[step]
        (patches,) = set(batch["patches"].tolist())
        drawn = min(patches * 4, 7)
        for context, target, future in tasks_of(batch):
            assert context.shape[0] == 5
            last = context[0, -1]  # 10000 · row + position: the value that the generator wrote
            row, cut = int(last // 10_000), int(last % 1000) + 1
            seen.add(row)
            length = lengths[row] - holdout
            for variate in range(5):
                base = 10_000 * row + 1000 * variate
                past = np.full(12, np.nan, np.float32)
                begin = max(0, cut - 12)
                past[begin - cut :] = base + np.arange(begin, cut)
                np.testing.assert_array_equal(context[variate], past)
                ahead = np.full(8, np.nan, np.float32)
                end = min(cut + drawn, length)
                ahead[: end - cut] = base + np.arange(cut, end)
                nothing = np.full(8, np.nan, np.float32)
                np.testing.assert_array_equal(target[variate], ahead if variate < 2 else nothing)
                np.testing.assert_array_equal(future[variate], ahead if variate > 2 else nothing)
    assert seen == {row for row, length in enumerate(lengths) if length >= 3 + holdout}


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_together_read_the_batch_of_one_host(dataset, hosts):
    paths = dataset("a", [40] * 9), dataset("b", [30] * 7, targets=2)
    options = dict(batch_size=16, random_horizon=True, weights=[2, 1])
    whole = batches(*paths, **options)
    parts = [batches(*paths, host=host, hosts=hosts, **options) for host in range(hosts)]
    for step in (0, 3, 1000):
        for name in ARRAYS:
            together = np.concatenate([part[step][name] for part in parts])
            np.testing.assert_array_equal(together, whole[step][name])


def test_a_batch_depends_on_step_and_seed_alone(dataset):
    path = dataset("a", [40] * 30)
    first, again = batches(path), batches(path)
    third = again[3]["context"]
    _ = first[0], first[1], first[2]
    np.testing.assert_array_equal(first[3]["context"], third)
    assert not np.array_equal(batches(path, seed=1)[3]["context"], third)
    assert not np.array_equal(first[4]["context"], third)


def test_an_epoch_has_every_series_once(dataset):
    source = batches(dataset("a", [40] * 24), batch_size=8)
    assert (len(source), source.steps_per_epoch, source.rows) == (3, 3.0, 8)
    epochs = []
    for epoch in range(2):
        rows = [source[3 * epoch + step]["context"][:, 0, -1] // 10_000 for step in range(3)]
        epochs.append(np.concatenate(rows).tolist())
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(24))
    assert epochs[0] != epochs[1]


def test_groups_fill_the_pack_in_order(dataset):
    paths = dataset("a", [40] * 9), dataset("b", [30] * 7, targets=2, past=1)
    source = batches(*paths, batch_size=70, slots=7)
    groups = {tuple(row) for row in source[0]["group"].tolist()}
    assert groups == {(0, 1, 2, 3, 4, 5, 6), (0, 0, 0, 1, 1, 1, -1)}
    empty = source[0]["group"] == -1
    assert np.isnan(source[0]["context"][empty]).all()
    assert np.isnan(source[0]["target"][empty]).all()


def test_items_of_different_width_share_a_source(tmp_path):
    rows = [{"target": np.full((1 + i % 3, 40), i, np.float32)} for i in range(12)]
    write_dataset(rows, tmp_path / "a")
    source = batches(str(tmp_path / "a"), batch_size=24, slots=6)
    seen = []
    for step in range(6):
        for context, _, _ in tasks_of(source[step]):
            number = int(context[0, -1])
            seen.append(number)
            assert len(context) == 1 + number % 3
    assert {*seen} == set(range(12)) and len(seen) == 48  # four epochs, each exact
    assert set(np.bincount(seen)) == {4}


def test_weights_are_shares_of_the_rows(dataset):
    paths = dataset("a", [40] * 50), dataset("b", [40] * 50, targets=3), dataset("c", [40] * 50)
    source = batches(*paths, weights=[5, 3, 2], batch_size=70, slots=7)
    # A pack of "b" has two groups of three and one empty slot.
    tasks = np.zeros(2)
    for step in range(200):
        group = source[step]["group"]
        tasks += [(group == 6).sum() * 7, (group[:, 6] == -1).sum() * 6]
    assert abs(tasks[1] / tasks.sum() - 0.3) < 0.01


def test_the_horizon_is_drawn_for_each_batch(dataset):
    path = dataset("a", [60] * 4)
    source = batches(path, prediction_length=16, random_horizon=True)
    drawn = [set(source[step]["patches"].tolist()) for step in range(400)]
    assert all(len(found) == 1 for found in drawn)
    counts = np.bincount([found.pop() for found in drawn])
    assert len(counts) == 5 and counts[0] == 0 and (np.abs(counts[1:] - 100) < 45).all()
    for step in range(20):
        batch = source[step]
        known = np.isfinite(batch["target"]).any((0, 1))
        assert known.tolist() == [True] * 4 * batch["patches"][0] + [False] * (
            16 - 4 * batch["patches"][0]
        )
    fixed = batches(path, prediction_length=16)
    assert all((fixed[step]["patches"] == 4).all() for step in range(5))


@pytest.mark.parametrize("hosts", [1, 2])
def test_grouping_by_length_deals_the_same_tasks_anew(dataset, hosts):
    paths = dataset("short", [9, 11, 13] * 9), dataset("long", [60, 70, 90] * 9, targets=2)
    options = dict(batch_size=8, context_length=48, min_past=5, random_horizon=True)

    def block(number, **more):
        """All tasks of eight steps, and the context lengths of the steps."""
        sources = [
            batches(*paths, host=host, hosts=hosts, **options, **more) for host in range(hosts)
        ]
        tasks, lengths = [], []
        for step in range(8 * number, 8 * number + 8):
            parts = [source[step] for source in sources]
            length = {part["context"].shape[-1] for part in parts}
            assert len(length) == 1
            lengths += length
            for part in parts:
                for pack, patches in enumerate(part["patches"]):
                    one = {name: array[pack : pack + 1] for name, array in part.items()}
                    for context, target, _ in tasks_of(one):
                        seen = context[:, ~np.isnan(context[0])]
                        tasks.append(
                            (int(patches), seen.tolist(), target[~np.isnan(target)].tolist())
                        )
        return sorted(tasks), lengths

    for number in (0, 3):
        tasks, lengths = block(number, group_by_length=8)
        assert tasks == block(number)[0]
        assert set(lengths) == {12, 24, 48} and lengths != sorted(lengths)


def test_infinities_are_missing(tmp_path):
    values = np.arange(40.0)
    values[[0, 10, 20, 30]] = np.inf, -np.inf, 1e300, np.nan
    write_dataset([{"target": values}], tmp_path / "a")
    source = batches(str(tmp_path / "a"), context_length=40, batch_size=1)
    for step in range(20):
        batch = source[step]
        assert not np.isinf(batch["context"]).any() and not np.isinf(batch["target"]).any()
        finite = np.isfinite(batch["context"]).sum()
        cut = int(np.nanmax(batch["context"])) + 1
        assert finite == cut - sum(place < cut for place in (0, 10, 20, 30))


def test_max_series_limits_the_source(dataset):
    source = batches(dataset("a", [40] * 24), max_series=4)
    rows = {int(v) for step in range(9) for v in source[step]["context"][:, 0, -1] // 10_000}
    assert rows == {0, 1, 2, 3}


def test_batches_pickle_as_paths(dataset):
    source = batches(dataset("a", [400] * 500), sampling="windows")
    packed = pickle.dumps(source)
    assert len(packed) < 2000
    np.testing.assert_array_equal(pickle.loads(packed)[5]["context"], source[5]["context"])


# ------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(weights=[-1.0]), ["weight", "-1.0", "must be positive"]),
        (dict(weights=[0.0]), ["weight", "must be positive"]),
        (dict(weights=[float("nan")]), ["weight", "must be positive"]),
        (dict(slots=2), ["data.slots is 2", "3 variates"]),
        (dict(batch_size=7), ["data.batch_size is 7", "multiple", "take 6 or 9"]),
        (dict(batch_size=9, hosts=2), ["data.batch_size is 9", "2 hosts", "take 6 or 12"]),
        (dict(batch_size=0), ["data.batch_size is 0", "at least 1"]),
        (dict(min_past=0), ["data.min_past is 0"]),
        (dict(stride=0), ["data.stride is 0"]),
        (dict(holdout=-1), ["data.holdout is -1", "at least 0"]),
        (dict(slots=0), ["data.slots is 0"]),
        (dict(min_past=100), ["too short", "40 steps"]),
        (dict(max_series=0), ["data.max_series is 0"]),
    ],
)
def test_wrong_sizes(dataset, options, words):
    path = dataset("a", [40] * 5, targets=2, future=1)
    with pytest.raises(InputError) as caught:
        batches(path, **(dict(batch_size=12) | options))
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_the_context_is_the_models_unless_the_config_says(dataset):
    source = (Source(dataset("a", [40])),)
    common = dict(prediction_length=4, patch=4, seed=0)
    given = DataConfig(source, batch_size=1, context_length=6)
    assert ForecastBatches(given, context_length=9, **common)[0]["context"].shape == (1, 1, 6)
    free = DataConfig(source, batch_size=1)
    assert ForecastBatches(free, context_length=9, **common)[0]["context"].shape == (1, 1, 9)
    with pytest.raises(InputError, match=r"data\.context_length has no value"):
        ForecastBatches(free, **common)


def test_no_sources():
    with pytest.raises(InputError, match=r"data\.sources is empty"):
        batches()


def test_nothing_but_missing_values(tmp_path):
    write_dataset([{"target": np.full(50, np.nan)}] * 200, tmp_path / "a")
    with pytest.raises(InputError, match="nothing but missing values"):
        batches(str(tmp_path / "a"))


def test_missing_path(tmp_path):
    with pytest.raises(InputError, match="no data set at"):
        batches(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("sampling", ["series", "windows"])
def test_a_mixture_of_short_series_is_refused_where_long_ones_are_asked_for(dataset, sampling):
    """Half a context is 24 steps; a third of the rows come from such series, or more."""
    paths = dataset("long", [40] * 4), dataset("short", [12, 9, 30, 23])
    options = dict(context_length=48, sampling=sampling, weights=[1, 5], min_past=4)
    share = (1 + 5 / 4) / 6
    if sampling == "windows":  # a series has length − horizon − min_past + 1 windows, or one
        share = (1 + 5 * 19 / (1 + 1 + 19 + 12)) / 6
    batches(*paths, **options, long_share=share - 1e-6)
    words = rf"Only {share:.1%} of the rows come from series of 24 steps or more"
    with pytest.raises(InputError, match=words):
        batches(*paths, **options, long_share=share + 1e-6)
    # The held-out end of a series does not count as its length.
    with pytest.raises(InputError, match=r"Only 0\.0%"):
        batches(paths[0], context_length=48, holdout=17, long_share=0.5)
    with pytest.raises(InputError, match=r"data\.long_share is 2"):
        batches(paths[0], long_share=2.0)


def test_series_that_are_never_drawn_are_counted(dataset):
    paths = dataset("a", [40] * 4 + [4] * 2), dataset("b", [30] * 7)
    source = batches(*paths, min_past=3, min_future=2)
    assert source.skipped == {"a": (2, 6), "b": (0, 7)}
    assert batches(*paths, min_past=3, min_future=2, max_series=5).skipped == {
        "a": (1, 5),
        "b": (0, 5),
    }
