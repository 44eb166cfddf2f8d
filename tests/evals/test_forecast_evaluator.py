import dataclasses

import numpy as np
import pytest

from tsmjax.data.arrow import Item
from tsmjax.errors import InputError
from tsmjax.evals import metrics
from tsmjax.evals.evaluator import evaluate
from tsmjax.evals.forecast import EvalDataset, ForecastEvaluator

QUANTILES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def evaluator(datasets, split="test", **changes):
    settings = {
        "quantiles": QUANTILES,
        "context_length": 256,
        "max_horizon": 32,
        "patch": 8,
        "batch_size": 4,
        **changes,
    }
    return ForecastEvaluator("suite", datasets, split, **settings)


def panel(rng, lengths, missing=0.1):
    series = [rng.normal(50, 10, n).astype(np.float32) for n in lengths]
    for one in series:
        one[rng.random(len(one)) < missing] = np.nan
    return series


@pytest.fixture
def datasets():
    rng = np.random.default_rng(0)
    return [
        EvalDataset("short", panel(rng, [14, 30, 31, 40, 25]), 6, 4),
        EvalDataset("long", panel(rng, [400, 90, 200, 70, 300, 65, 64]), 12, 7),
    ]


def forecast_of(batch):
    """A forecast that depends on the visible context alone, and on every observed value of it."""
    contexts = batch["context"].astype(np.float64)
    level = np.nansum(contexts, -1) / np.maximum((~np.isnan(contexts)).sum(-1), 1)
    spread = np.linspace(-20, 20, len(QUANTILES))
    steps = np.arange(batch["future"].shape[-1])
    return level[:, :, None, None] + spread[:, None] + steps


def by_hand(dataset, split):
    """(WQL, MASE) without batches."""
    pasts, labels, forecasts = [], [], []
    for values in dataset.series:
        end = len(values) - (dataset.horizon if split == "validation" else 0)
        pasts.append(values[: end - dataset.horizon])
        labels.append(values[end - dataset.horizon : end])
        batch = {
            "context": pasts[-1][None, None, -256:],
            "future": np.zeros((1, 1, dataset.horizon)),
        }
        forecasts.append(forecast_of(batch)[0, 0])
    labels = np.stack(labels)
    scored = metrics.interpolate(QUANTILES, np.stack(forecasts), metrics.LEVELS)
    loss = metrics.quantile_loss_sums(labels, scored, metrics.LEVELS)
    scales = [metrics.seasonal_error(past, dataset.season_length) for past in pasts]
    error, count = metrics.scaled_error_sum(labels, scored[:, 4], scales)
    return (
        metrics.weighted_quantile_loss(loss, metrics.absolute_label_sum(labels)),
        metrics.mean_absolute_scaled_error(error, count),
    )


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_scores_equal_those_without_batches(datasets, split, batch_size):
    scores = evaluate(evaluator(datasets, split, batch_size=batch_size), forecast_of)
    expected = [by_hand(dataset, split) for dataset in datasets]
    for dataset, (wql, mase) in zip(datasets, expected, strict=True):
        assert scores[f"suite/{dataset.name}/wql"] == pytest.approx(wql, rel=1e-5)
        assert scores[f"suite/{dataset.name}/mase"] == pytest.approx(mase, rel=1e-5)
    average = np.mean(expected, axis=0)
    assert scores["suite/avg_wql"] == pytest.approx(average[0], rel=1e-5)
    assert scores["suite/avg_mase"] == pytest.approx(average[1], rel=1e-5)


def test_aggregate_is_the_geometric_mean_relative_to_seasonal_naive(datasets):
    raw = evaluate(evaluator(datasets), forecast_of)
    naive = {
        dataset.name: evaluate(
            evaluator([dataset], context_length=10_000), naive_of(dataset.season_length)
        )
        for dataset in datasets
    }
    for metric in ("wql", "mase"):
        ratios = [
            raw[f"suite/{name}/{metric}"] / scores[f"suite/{name}/{metric}"]
            for name, scores in naive.items()
        ]
        assert raw[f"suite/{metric}"] == pytest.approx(np.sqrt(np.prod(ratios)), rel=1e-6)


def naive_of(season):
    def predict(batch):
        rows = []
        for (row,) in batch["context"]:
            past = row[np.argmax(~np.isnan(row)) :]
            values = metrics.seasonal_naive(past, season, batch["future"].shape[-1])
            rows.append(np.broadcast_to(values, (1, len(QUANTILES), len(values))))
        return np.stack(rows)

    return predict


@pytest.mark.parametrize("hosts", [2, 3, 5])
def test_hosts_share_the_work_and_agree_on_shapes(datasets, hosts):
    ours = evaluator(datasets)
    alone = evaluate(ours, forecast_of)
    parts = [ours.batches(host, hosts) for host in range(hosts)]
    assert len({len(part) for part in parts}) == 1
    seen = []
    total = {}
    for aligned in zip(*parts, strict=True):
        shapes = [{name: array.shape for name, array in batch.items()} for batch in aligned]
        assert all(shape == shapes[0] for shape in shapes)
        for batch in aligned:
            seen += batch["item"][batch["weight"] > 0].tolist()
            for name, value in ours.sums(forecast_of, batch).items():
                total[name] = total.get(name, 0) + value
    assert sorted(seen) == list(range(12))
    assert ours.scores(total) == pytest.approx(alone)


def test_reduce_adds_the_sums_of_other_hosts(datasets):
    ours = evaluator(datasets)
    others = {}
    evaluate(ours, forecast_of, 1, 2, lambda sums: others.update(sums) or sums)
    together = evaluate(
        ours, forecast_of, 0, 2, lambda sums: {name: sums[name] + others[name] for name in sums}
    )
    assert together == pytest.approx(evaluate(ours, forecast_of))


def test_batches_have_the_layout_of_the_task(datasets):
    ours = evaluator(datasets)
    lengths = set()
    for batch in ours.batches(0, 1):
        rows, _, length = batch["context"].shape
        lengths.add(length)
        assert batch["target"].shape == batch["future"].shape == (rows, 1, 16)
        assert {name: array.dtype.name for name, array in batch.items()} == {
            "context": "float32", "target": "float32", "future": "float32", "weight": "float32",
            "group": "int32", "patches": "int32", "item": "int32",
        }  # fmt: skip
        assert np.isnan(batch["future"]).all()
        for row in range(rows):
            if not batch["weight"][row]:
                assert batch["group"][row, 0] == -1 and np.isnan(batch["context"][row]).all()
                continue
            dataset = datasets[0 if batch["item"][row] < 5 else 1]
            values = dataset.series[batch["item"][row] - (0 if dataset.name == "short" else 5)]
            past, label = values[: -dataset.horizon], values[-dataset.horizon :]
            seen = past[-256:]
            np.testing.assert_array_equal(batch["context"][row, 0, length - len(seen) :], seen)
            assert np.isnan(batch["context"][row, 0, : length - len(seen)]).all()
            np.testing.assert_array_equal(batch["target"][row, 0, : dataset.horizon], label)
            assert np.isnan(batch["target"][row, 0, dataset.horizon :]).all()
            assert batch["patches"][row] == -(-dataset.horizon // 8)
            assert batch["group"][row, 0] == 0
    assert lengths == {256}  # a dozen windows are not worth a second shape


def test_validation_does_not_see_the_test_window(datasets):
    blinded = [
        EvalDataset(
            dataset.name,
            [np.r_[one[: -dataset.horizon], [1e6] * dataset.horizon] for one in dataset.series],
            dataset.horizon,
            dataset.season_length,
        )
        for dataset in datasets
    ]
    assert evaluate(evaluator(blinded, "validation"), forecast_of) == evaluate(
        evaluator(datasets, "validation"), forecast_of
    )


def test_an_offset_moves_both_windows():
    values = np.arange(100, dtype=np.float32)
    dataset = EvalDataset("x", [values], 4, 1, offset=-20)
    ((past, label),) = dataset.windows(values, "test")
    np.testing.assert_array_equal(label, [80, 81, 82, 83])
    assert past[-1] == 79
    ((past, label),) = dataset.windows(values, "validation")
    np.testing.assert_array_equal(label, [76, 77, 78, 79])
    assert past[-1] == 75
    with pytest.raises(InputError, match="offset -3"):
        EvalDataset("x", [values], 4, 1, offset=-3)


def test_infinite_values_count_as_missing(datasets):
    values = datasets[1].series[0].copy()
    values[[3, -2]] = np.nan
    clean = evaluator([EvalDataset("x", [values], 12, 7)])
    values = values.copy()
    values[[3, -2]] = np.inf, -np.inf
    dirty = evaluator([EvalDataset("x", [values], 12, 7)])
    assert evaluate(dirty, forecast_of) == evaluate(clean, forecast_of)


def test_many_short_series_get_a_shape_of_their_own():
    short = [np.arange(60.0, dtype=np.float32)] * 300
    long = [np.arange(300.0, dtype=np.float32)] * 5
    ours = evaluator([EvalDataset("short", short, 6, 1), EvalDataset("long", long, 6, 1)])
    rows = {}
    for batch in ours.batches(0, 1):
        length = batch["context"].shape[-1]
        rows[length] = rows.get(length, 0) + int(batch["weight"].sum())
    assert rows == {56: 300, 256: 5}


def test_the_last_batch_of_a_shape_is_as_full_as_the_first():
    series = [np.arange(60.0, dtype=np.float32)] * 25
    ours = evaluator([EvalDataset("short", series, 6, 1)], batch_size=8)
    assert [batch["weight"].sum() for batch in ours.batches(0, 1)] == [7, 7, 7, 4]


def test_a_nan_forecast_makes_the_aggregate_nan(datasets):
    def broken(batch):
        forecast = forecast_of(batch)
        return np.where(batch["item"][:, None, None, None] == 7, np.nan, forecast)

    ours = evaluator(datasets)
    total = {}
    for batch in ours.batches(0, 1):
        sums = ours.sums(
            lambda inputs, batch=batch: broken({**inputs, "item": batch["item"]}), batch
        )
        for name, value in sums.items():
            total[name] = total.get(name, 0) + value
    scores = ours.scores(total)
    assert np.isfinite(scores["suite/short/wql"])
    assert np.isnan(scores["suite/long/wql"])
    assert np.isnan(scores["suite/wql"]) and np.isnan(scores["suite/mase"])


def test_a_data_set_that_naive_solves_takes_no_part_in_the_means(datasets):
    constant = EvalDataset("constant", [np.full(50, 3.0, np.float32)], 6, 1)
    scores = evaluate(evaluator([*datasets, constant]), forecast_of)
    without = evaluate(evaluator(datasets), forecast_of)
    for name in ("wql", "avg_mase"):
        assert scores[f"suite/{name}"] == pytest.approx(without[f"suite/{name}"], rel=1e-12)
    assert scores["suite/constant/wql"] > 0 and np.isnan(scores["suite/constant/mase"])


def test_a_horizon_beyond_the_model_is_wrong_input(datasets):
    with pytest.raises(InputError, match=r"'long'.*horizon 12.*8 steps"):
        evaluator(datasets, max_horizon=8)


def test_series_too_short_for_the_window_are_left_out_and_all_of_them_is_wrong_input(caplog):
    tiny, usable = np.ones(12, np.float32), np.arange(13, dtype=np.float32)
    ours = evaluator([EvalDataset("x", [tiny, usable], 6, 1)], "validation")
    assert sum(batch["weight"].sum() for batch in ours.batches(0, 1)) == 1
    assert "1 of 2 series" in caplog.text
    with pytest.raises(InputError, match="No series of suite 'suite' is long enough"):
        evaluator([EvalDataset("x", [tiny], 6, 1)], "validation")


def test_plot_draws_the_last_forecasts(datasets, tmp_path):
    ours = evaluator(datasets)
    assert ours.plot(tmp_path) == []
    evaluate(ours, forecast_of)
    (path,) = ours.plot(tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG") and [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize(("rolls", "offset"), [(1, 0), (3, 0), (2, -30), (3, -24)])
def test_windows_are_those_of_gluonts(rolls, offset):
    import pandas as pd
    from gluonts.dataset.split import split

    values = np.arange(100, dtype=np.float32)
    dataset = EvalDataset("x", [values], 8, 1, offset, rolls)
    entry = {"item_id": "x", "start": pd.Period("2000-01-01", "D"), "target": values}
    _, template = split([entry], offset=offset or -8 * rolls)
    theirs = template.generate_instances(8, windows=rolls)
    ours = dataset.windows(values, "test")
    assert len(ours) == rolls
    for (past, label), (given, wanted) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(past, given["target"])
        np.testing.assert_array_equal(label, wanted["target"])


def test_rolls_are_scored_each_on_its_own_past(datasets):
    (long,) = datasets[1:]
    rolled = evaluate(evaluator([EvalDataset("x", long.series, 12, 7, 0, rolls=2)]), forecast_of)
    scores, labels, errors, cells = [], [], [], []
    for shift in (12, 0):
        series = [one[: len(one) - shift] for one in long.series]
        part = evaluator([EvalDataset("x", series, 12, 7)])
        sums = {}
        for batch in part.batches(0, 1):
            for name, value in part.sums(forecast_of, batch).items():
                sums[name] = sums.get(name, 0) + value
        scores.append(sums["loss"])
        labels.append(sums["label"])
        errors.append(sums["error"])
        cells.append(sums["cells"])
    assert rolled["suite/x/wql"] == pytest.approx(np.mean(sum(scores)) / sum(labels)[0])
    assert rolled["suite/x/mase"] == pytest.approx(sum(errors)[0] / sum(cells)[0])


def test_validation_windows_lie_before_all_test_windows():
    values = np.arange(100, dtype=np.float32)
    dataset = EvalDataset("x", [values], 5, 1, rolls=3)
    labels = [label.tolist() for _, label in dataset.windows(values, "validation")]
    assert labels == [[*range(first, first + 5)] for first in (70, 75, 80)]
    with pytest.raises(InputError, match=r"offset -12.*at most -15"):
        EvalDataset("x", [values], 5, 1, -12, rolls=3)
    with pytest.raises(InputError, match="rolls 0"):
        EvalDataset("x", [values], 5, 1, rolls=0)


def test_losses_and_panels_of_single_windows(datasets):
    ours = evaluator(datasets)
    assert np.isnan(ours.losses).all()
    evaluate(ours, forecast_of)
    window = ours.windows[7]
    (panel,) = ours.panels(forecast_of, [7])
    np.testing.assert_array_equal(panel.truth, window.label)
    scored = metrics.interpolate(QUANTILES, panel.quantiles, metrics.LEVELS)
    loss = metrics.quantile_loss_sums(window.label, scored, metrics.LEVELS)
    expected = np.mean(loss) / np.nansum(np.abs(window.label.astype(np.float64)))
    assert ours.losses[7] == pytest.approx(expected)


def items(rng, shapes):
    """`Item`s with the given numbers of (targets, past covariates, known covariates, steps)."""
    return [
        Item(*(rng.normal(50, 10, (rows, steps)).astype(np.float32) for rows in numbers))
        for *numbers, steps in shapes
    ]


def sum_of_rows(batch):
    """Forecast every row from all rows of its pack: their last values, and what is known ahead."""
    last = np.nansum(np.nan_to_num(batch["context"][..., -1]), axis=1)
    known = np.nansum(np.nan_to_num(batch["future"]), axis=1)
    own = np.nan_to_num(batch["context"][..., -2])
    steps = (last[:, None] + known)[:, None, None, :] + own[..., None, None]
    return steps + np.linspace(-20, 20, len(QUANTILES))[:, None]


@pytest.mark.parametrize("hosts", [1, 2])
def test_items_are_forecast_from_all_their_rows(hosts):
    rng = np.random.default_rng(0)
    groups = items(rng, [(2, 1, 1, 60), (1, 0, 2, 90), (3, 0, 0, 40), (1, 1, 0, 300), (2, 0, 1, 9)])
    dataset = EvalDataset("x", groups, 6, 1, rolls=2)
    ours = evaluator([dataset], batch_size=8)
    assert len(ours.tasks) == 8 and len(ours.windows) == 2 * (2 + 1 + 3 + 1)  # the last is short
    total = {}
    for host in range(hosts):
        for batch in ours.batches(host, hosts):
            assert batch["context"].shape[0] * batch["context"].shape[1] <= 8
            for name, value in ours.sums(sum_of_rows, batch).items():
                total[name] = total.get(name, 0) + value
    forecasts, labels = [], []
    for item in groups[:-1]:
        for back in (12, 6):
            values = np.concatenate(item)
            ahead = item.future[:, -back : -back + 6 or None].sum(axis=0)
            for target in item.target:
                centre = values[:, -back - 1].sum() + ahead + target[-back - 2]
                forecasts.append(centre + np.linspace(-20, 20, len(QUANTILES))[:, None])
                labels.append(target[-back : -back + 6 or None])
    scored = metrics.interpolate(QUANTILES, np.array(forecasts), metrics.LEVELS)
    loss = sum(
        metrics.quantile_loss_sums(label, one, metrics.LEVELS)
        for label, one in zip(labels, scored, strict=True)
    )
    expected = metrics.weighted_quantile_loss(loss, np.abs(labels).sum())
    assert ours.scores(total)["suite/x/wql"] == pytest.approx(expected, rel=1e-5)
    panels = ours.panels(sum_of_rows, [1, 5])
    np.testing.assert_allclose(panels[0].quantiles, forecasts[1], rtol=1e-5)
    assert [len(panel.covariates) for panel in panels] == [2, 2]
    shown = panels[0].covariates["covariate 1"]
    np.testing.assert_array_equal(shown, groups[0].future[0, :54])
    assert np.isnan(panels[0].covariates["covariate 0"][-6:]).all()


def test_a_group_of_one_scores_like_a_series(datasets):
    grouped = [
        dataclasses.replace(
            one, series=[Item(x[None], x[:0, None], x[:0, None]) for x in one.series]
        )
        for one in datasets
    ]
    assert evaluate(evaluator(grouped), forecast_of) == evaluate(evaluator(datasets), forecast_of)
