"""Tables: parts in time, standardisation by the training part, windows and their batches."""

import pickle

import numpy as np
import pytest

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.table import DataConfig, Table, TableBatches
from tsmjax.errors import InputError


def item(length, targets=2, past=1, known=1):
    """Channel c at step t is 1000 · c + t, so that every value says where it is from."""
    values = 1000.0 * np.arange(targets + past + known)[:, None] + np.arange(length)
    row = {"item_id": f"of {length}", "target": values[:targets]}
    if past:
        row["past_feat_dynamic_real"] = values[targets : targets + past]
    if known:
        row["feat_dynamic_real"] = values[targets + past :]
    return row


@pytest.fixture
def folder(tmp_path):
    write_dataset([item(100), item(40), item(60)], tmp_path / "table")
    return str(tmp_path / "table")


def plain(folder, **changes):
    config = DataConfig(path=folder, **{"standardise": False, **changes})
    return Table(config), config


def test_parts_follow_each_other_in_shares_and_in_steps(folder):
    table, _ = plain(folder)
    assert table.ends.tolist() == [[70, 80, 100], [28, 32, 40], [42, 48, 60]]
    table, _ = plain(folder, split=(30.0, 10.0, 5.0))
    assert table.ends.tolist() == [[30, 40, 45], [30, 40, 40], [30, 40, 45]]
    assert (table.targets, table.known, table.channels) == (2, 1, 4)


def test_windows_know_their_roles_and_are_padded_with_missing_values(folder):
    table, _ = plain(folder)
    batch = table.read(np.array([0, 1]), np.array([50, 3]), 5, 2)
    assert {name: x.shape for name, x in batch.items()} == {
        "context": (2, 4, 5),
        "target": (2, 4, 2),
        "future": (2, 4, 2),
    }
    assert all(x.dtype == np.float32 for x in batch.values())
    np.testing.assert_array_equal(batch["context"][0, 2], 2000.0 + np.arange(45, 50))
    np.testing.assert_array_equal(batch["context"][1, 3], [np.nan, np.nan, 3000, 3001, 3002])
    np.testing.assert_array_equal(batch["target"][0, :2], [[50, 51], [1050, 1051]])
    assert np.isnan(batch["target"][:, 2:]).all()
    np.testing.assert_array_equal(batch["future"][0, 3], [3050, 3051])
    assert np.isnan(batch["future"][:, :3]).all()


def test_infinite_values_are_missing(tmp_path):
    values = np.arange(30, dtype=np.float32)
    values[[3, 7]] = np.inf, -np.inf
    write_dataset([{"target": values}], tmp_path / "t")
    table = Table(DataConfig(path=str(tmp_path / "t")))
    context = table.read(np.array([0]), np.array([10]), 10, 1)["context"][0, 0]
    assert np.flatnonzero(np.isnan(context)).tolist() == [3, 7]


def test_channels_are_standardised_by_the_training_parts_of_all_items(tmp_path):
    rng = np.random.default_rng(0)
    rows = [1e6 + rng.normal(3, (2.0, 7.0), (50 * (k + 1), 2)).T for k in range(3)]
    for values in rows:
        values[:, 5] = np.nan
        values[:, int(0.7 * values.shape[1]) :] += 100.0  # never seen by the statistics
    write_dataset([{"target": values} for values in rows], tmp_path / "t")
    table = Table(DataConfig(path=str(tmp_path / "t")))
    train = np.concatenate([values[:, : int(0.7 * values.shape[1])] for values in rows], axis=1)
    np.testing.assert_allclose(table.mean, np.nanmean(train, axis=1), rtol=1e-12)
    np.testing.assert_allclose(table.deviation, np.nanstd(train, axis=1), rtol=1e-9)
    batch = table.read(np.array([2]), np.array([80]), 60, 5)
    expected = (rows[2][:, 20:80] - table.mean[:, None]) / table.deviation[:, None]
    np.testing.assert_allclose(batch["context"][0], expected, atol=0.1)  # fp32 near a million


def test_a_constant_channel_stays_finite(tmp_path):
    write_dataset([{"target": np.full(40, 3.0)}], tmp_path / "t")
    batch = Table(DataConfig(path=str(tmp_path / "t"))).read(np.array([0]), np.array([20]), 9, 1)
    np.testing.assert_array_equal(batch["context"], 0.0)


def test_windows_of_a_part_have_their_labels_inside_and_their_context_before(folder):
    table, _ = plain(folder)
    items, cuts = table.windows("validation", 3, min_past=20, stride=1)
    found = {number: cuts[items == number].tolist() for number in range(3)}
    assert found == {0: [*range(70, 78)], 1: [28, 29], 2: [42, 43, 44, 45]}
    items, cuts = table.windows("test", 3, min_past=38, stride=4)
    assert cuts[items == 0].tolist() == [80, 84, 88, 92, 96]
    assert not (items == 1).any()  # 40 steps are too few for a past of 38


def test_an_epoch_holds_each_training_window_once(folder):
    table, config = plain(folder, batch_size=7)
    batches = TableBatches(table, config, context_length=20, horizon=4, seed=1)
    windows = (70 - 24 + 1) + (28 - 24 + 1) + (42 - 24 + 1)
    assert batches.steps_per_epoch * 7 == windows
    assert list(batches.skipped.values()) == [(0, 3)]
    longer = TableBatches(table, config, context_length=30, horizon=4, seed=1)
    assert list(longer.skipped.values()) == [(1, 3)]  # 28 steps of training are too few
    seen = [b["target"][:, 0, 0] for b in (batches[step] for step in range(11))]
    firsts = np.concatenate(seen)[:windows]
    ends = np.concatenate([np.arange(20, end - 3) for end in (70, 28, 42)])
    np.testing.assert_array_equal(np.sort(firsts), np.sort(ends))
    assert firsts.tolist() != sorted(firsts)
    assert batches[3]["context"].shape == (7, 4, 20)


def test_labels_never_leave_the_training_part(folder):
    table, config = plain(folder, batch_size=64, min_past=1)
    batches = TableBatches(table, config, context_length=20, horizon=4, seed=0)
    for step in range(4):
        assert np.nanmax(batches[step]["target"][:, 0]) <= 69
    assert np.isnan(batches[0]["context"]).any()  # pasts shorter than the context are padded


@pytest.mark.parametrize(
    ("where", "share", "windows"),
    [("last", 0.2, 564), ("first", 0.2, 564), ("uniform", 0.2, 717), ("last", 1.0, 3586)],
)
def test_few_shots_are_as_many_as_in_granite_tsfm(tmp_path, where, share, windows):
    rows = [{"target": np.arange(2400.0)}, {"target": 5000 + np.arange(2400.0)}]
    write_dataset(rows, tmp_path / "t")
    table, config = plain(
        str(tmp_path / "t"), split=(1, 0, 0), batch_size=3, few_shot=share, few_shot_from=where
    )
    batches = TableBatches(table, config, context_length=512, horizon=96, seed=3)
    assert round(batches.steps_per_epoch * 3) == windows
    epochs = 2 if where == "uniform" else 1
    steps = range(-(-epochs * windows // 3))
    cuts = np.concatenate([batches[step]["target"][:, 0, 0] for step in steps])
    seen = np.sort(cuts[:windows] % 5000)
    if where == "uniform":
        assert len(set(cuts)) == windows  # the second epoch has no other windows than the first
        assert np.quantile(seen, [0.1, 0.9]) == pytest.approx([512 + 179, 2305 - 179], abs=60)
        again = TableBatches(table, config, context_length=512, horizon=96, seed=4)
        assert set(np.concatenate([again[step]["target"][:, 0, 0] for step in steps])) != set(cuts)
    else:
        begin = {"first": 0, "last": 2400 - 512 - int(share * 1888)}[where]
        expected = begin + np.arange(512, 512 + windows // 2)
        np.testing.assert_array_equal(seen, np.repeat(expected, 2))


def test_contexts_of_few_shots_do_not_reach_behind_them(folder):
    table, config = plain(folder, batch_size=9, min_past=5, few_shot=0.3)
    batches = TableBatches(table, config, context_length=20, horizon=4, seed=0)
    batch = {name: np.concatenate([batches[n][name] for n in range(20)]) for name in batches[0]}
    first = np.nanmin(batch["context"][:, 0], axis=1)
    kept = [20 + int(0.3 * (end - 20)) for end in (70, 28, 42)]
    begins = sorted(end - count for end, count in zip((70, 28, 42), kept, strict=True))
    assert set(first[np.isnan(batch["context"][:, 0]).any(axis=1)]) == set(begins)
    assert first.min() == min(begins)


def test_too_few_shots_are_refused(folder):
    for where, words in (("last", "data.few_shot = 0.05 of"), ("uniform", "less than one of")):
        table, config = plain(folder, few_shot=0.05, few_shot_from=where, split=(0.3, 0.1, 0.1))
        with pytest.raises(InputError, match=words):
            TableBatches(table, config, context_length=20, horizon=4, seed=0)


def people(folder, *lengths):
    """Items whose values are 1000 · their number + step, two of each person."""
    rows = [
        {"item_id": f"{n}", "subject": f"p{n // 2}", "target": 1000.0 * n + np.arange(length)}
        for n, length in enumerate(lengths)
    ]
    write_dataset(rows, folder)
    return str(folder)


def test_people_held_out_are_the_test_and_nothing_else_sees_them(tmp_path):
    folder = people(tmp_path / "t", 60, 50, 40, 55, 70, 45)
    config = DataConfig(path=folder, split=(0.8, 0.2, 0.0), held_out=("p0", "p2"), batch_size=8)
    table = Table(config)
    assert table.subjects() == ["p0", "p0", "p1", "p1", "p2", "p2"]
    trained = np.concatenate([2000.0 + np.arange(32), 3000.0 + np.arange(44)])
    assert table.mean == pytest.approx(trained.mean())
    assert table.deviation == pytest.approx(trained.std())
    find = lambda part: table.windows(part, 5, min_past=10, stride=1)  # noqa: E731
    assert set(find("train")[0]) == set(find("validation")[0]) == {2, 3}
    items, cuts = find("test")
    assert set(items) == {0, 1, 4, 5}
    assert cuts[items == 4].tolist() == [*range(10, 66)]  # from beginning to end
    batches = TableBatches(table, config, context_length=10, horizon=5, seed=0)
    drawn = [batches[step]["context"] for step in range(2 * int(batches.steps_per_epoch))]
    values = np.concatenate(drawn) * table.deviation[0] + table.mean[0]
    assert set(np.round(values / 1000).astype(int).ravel()) == {2, 3}


def test_items_without_a_person_are_held_out_by_their_id(folder):
    table, _ = plain(folder, held_out=("of 40",))
    assert table.ends.tolist() == [[70, 80, 80], [0, 0, 40], [42, 48, 48]]
    assert table.subjects() == ["of 100", "of 40", "of 60"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (
            ("p1", "p9"),
            r"'p9', but .* has no such subject \(did you mean 'p\d'\?\); it has p0, p1, p2",
        ),
        (("0",), "'0', but .* has no such subject"),  # an item_id, while there are subjects
        (("p0", "p1", "p2"), "every subject .* nothing is left to train on"),
    ],
)
def test_people_that_cannot_be_held_out_are_refused(tmp_path, names, words):
    folder = people(tmp_path / "t", 60, 50, 40, 55, 70, 45)
    with pytest.raises(InputError, match=words):
        Table(DataConfig(path=folder, held_out=names))


def test_channels_have_names(tmp_path):
    names = {"target": ["a", "b"], "feat_dynamic_real": ["price"]}
    write_dataset([item(40, past=0) | {"names": names}], tmp_path / "t")
    table = Table(DataConfig(path=str(tmp_path / "t")))
    assert table.names == ["a", "b", "price"] and "names" not in table.metadata(0)
    write_dataset([item(40)], tmp_path / "nameless")
    assert Table(DataConfig(path=str(tmp_path / "nameless"))).names == [
        *("target_0", "target_1", "past_feat_dynamic_real", "feat_dynamic_real")
    ]


def test_hosts_share_a_batch(folder):
    table, config = plain(folder, batch_size=6)
    extra = {"static": np.arange(3)[:, None]}
    make = lambda **hosts: TableBatches(  # noqa: E731
        table, config, context_length=9, horizon=4, seed=0, extra=extra, **hosts
    )
    whole = make()[5]
    parts = [make(host=host, hosts=3)[5] for host in range(3)]
    for name, expected in whole.items():
        np.testing.assert_array_equal(np.concatenate([p[name] for p in parts]), expected)
    lengths = np.array([100, 40, 60])[whole["static"][:, 0]]
    assert (whole["target"][:, 0, 0] < 0.7 * lengths).all()
    with pytest.raises(InputError, match="multiple of 4 hosts"):
        make(host=0, hosts=4)


def test_batches_pickle_for_worker_processes(folder):
    table, config = plain(folder)
    batches = TableBatches(table, config, context_length=9, horizon=4, seed=0)
    again = pickle.loads(pickle.dumps(batches))
    for name, expected in batches[2].items():
        np.testing.assert_array_equal(again[2][name], expected)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": (0.8, 0.2, 0.1)}, "sum to at most 1"),
        ({"split": (0.0, 0.5, 0.5)}, "something to train on"),
        ({"split": (10.5, 5.0, 5.0)}, "numbers of steps"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"min_past": 0}, "data.min_past is 0"),
        ({"path": ""}, "data.path is empty"),
        ({"few_shot": 0.0}, "data.few_shot is 0.0"),
        ({"few_shot": 5.0}, "data.few_shot is 5.0"),
    ],
)
def test_wrong_configs_are_refused(folder, changes, words):
    with pytest.raises(InputError, match=words):
        Table(DataConfig(**{"path": folder, **changes}))


def test_items_of_different_channels_are_refused(tmp_path):
    write_dataset([{"target": np.ones((2, 9))}, {"target": np.ones((3, 9))}], tmp_path / "t")
    with pytest.raises(InputError, match="different numbers of channels"):
        Table(DataConfig(path=str(tmp_path / "t")))


def test_parts_without_a_window_are_refused(folder):
    table, config = plain(folder, split=(0.9, 0.0, 0.1))
    with pytest.raises(InputError, match=r"validation part of .* has no window: it is 0 steps"):
        table.windows("validation", 3, min_past=20, stride=1)
    with pytest.raises(InputError, match="the training part of"):
        TableBatches(table, config, context_length=200, horizon=4, seed=0)
