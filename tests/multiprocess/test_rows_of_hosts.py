"""Hosts read disjoint rows, and together exactly the batch of a single host."""

import numpy as np
import pytest

from tsmjax.data.arrow_writer import write_dataset
from tsmjax.data.packing import DataConfig, ForecastBatches, Source
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator
from tsmjax.evals.loss import LossEvaluator


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Series of which every value is unique, so that a row tells where it comes from."""
    folder = tmp_path_factory.mktemp("corpus") / "numbered"
    rows = [
        {"item_id": str(number), "target": np.arange(100, dtype=np.float32) + 1000 * number}
        for number in range(64)
    ]
    write_dataset(rows, folder)
    return folder


def batches(corpus, host, hosts, **options):
    config = DataConfig(sources=(Source(str(corpus)),), batch_size=16, **options)
    return ForecastBatches(
        config, prediction_length=16, patch=16, seed=0, context_length=32, host=host, hosts=hosts
    )


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("options", [{}, {"sampling": "windows"}, {"random_horizon": True}])
def test_hosts_share_the_batch_of_one(corpus, hosts, options):
    whole = batches(corpus, 0, 1, **options)
    parts = [batches(corpus, host, hosts, **options) for host in range(hosts)]
    for step in (0, 1, 7, 1000):
        together = [part[step] for part in parts]
        for name, expected in whole[step].items():
            found = np.concatenate([batch[name] for batch in together])
            np.testing.assert_array_equal(found, expected, err_msg=name)


def test_hosts_never_read_the_same_row(corpus):
    parts = [batches(corpus, host, 2) for host in range(2)]
    for step in range(4):  # an epoch: each series once
        rows = [set(np.nanmax(part[step]["context"], axis=(1, 2)).tolist()) for part in parts]
        assert len(rows[0]) == len(rows[1]) == 8
        assert not rows[0] & rows[1]


@pytest.mark.parametrize("hosts", [2, 3, 5])
def test_hosts_score_every_window_once(corpus, hosts):
    series = [np.arange(20 + 9 * number, dtype=np.float32) for number in range(23)]
    suite = ForecastEvaluator(
        "suite",
        [EvalDataset("numbers", series, horizon=4, season_length=1)],
        "test",
        quantiles=(0.1, 0.5, 0.9),
        context_length=128,
        max_horizon=16,
        patch=16,
        batch_size=4,
    )
    parts = [suite.batches(host, hosts) for host in range(hosts)]
    assert len({len(part) for part in parts}) == 1
    for batch in zip(*parts, strict=True):  # the n-th of every host: one shape, or they would hang
        assert len({tuple(one["context"].shape) for one in batch}) == 1
    items = [item for part in parts for batch in part for item in batch["item"] if item >= 0]
    assert sorted(items) == list(range(23))


@pytest.mark.parametrize("hosts", [2, 3, 5])
def test_hosts_share_the_validation_loss(corpus, hosts):
    suite = LossEvaluator(
        "validation",
        corpus,
        quantiles=(0.5,),
        context_length=32,
        horizon=16,
        patch=16,
        batch_size=4,
        arcsinh=False,
    )
    parts = [suite.batches(host, hosts) for host in range(hosts)]
    assert len({len(part) for part in parts}) == 1
    seen = [
        row[0]
        for part in parts
        for batch in part
        for row, group in zip(batch["target"][:, 0], batch["group"][:, 0], strict=True)
        if group >= 0
    ]
    assert sorted(seen) == [1000 * number + 84 for number in range(64)]
