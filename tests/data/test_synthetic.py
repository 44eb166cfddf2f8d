"""Generators: the right distributions, no leakage, and the same bits for any number of workers."""

import sys
import threading

import numpy as np
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.data.packing import DataConfig, ForecastBatches, Source
from tsmjax.data.synthetic import corpus, embedded, kernel_synth, real, tsi, tsmixup, workers
from tsmjax.errors import InputError


def test_the_bank_has_the_33_kernels():
    bank = kernel_synth.bank(1024)
    assert len(bank) == 33
    assert [kernel for kernel in bank if not callable(kernel)] == [0.0, 1.0, 10.0]
    distance = np.linspace(0, 1, 1024)
    at_zero = [float(kernel(distance)[0]) for kernel in bank if callable(kernel)]
    assert at_zero == [1.0, 0.1, 1.0, *[1.0] * 27]


def test_periodic_kernels_repeat():
    bank, length = kernel_synth.bank(1024), 1024
    daily = bank[12](np.asarray([0.0, 12 / length, 24 / length, 48 / length]))
    np.testing.assert_allclose(daily, [1, np.exp(-2), 1, 1], atol=1e-12)


def test_covariance_matches_sklearn_formulas_point_by_point():
    bank, length = kernel_synth.bank(20), 20
    x = np.linspace(0, 1, length)
    distance = np.abs(x[:, None] - x)
    rbf, dot, rational = (
        np.exp(-0.5 * (distance / 0.1) ** 2),
        np.outer(x, x) + 1,
        (1 + 5 * distance**2) ** -0.1,
    )
    chosen = [bank[6], bank[4], bank[9]]
    got = kernel_synth.covariance(chosen, np.asarray([True, False]), length)
    np.testing.assert_allclose(got, rbf * dot + rational, atol=1e-12)
    got = kernel_synth.covariance(chosen, np.asarray([False, True]), length)
    np.testing.assert_allclose(got, (rbf + dot) * rational, atol=1e-12)


def test_samples_follow_the_covariance(monkeypatch):
    # One kernel, RBF with scale 0.1, many draws: their covariance is the kernel's.
    monkeypatch.setattr(kernel_synth, "MAX_KERNELS", 1)
    rbf = kernel_synth.bank(32)[6]
    monkeypatch.setattr(kernel_synth, "bank", lambda length: [rbf])
    draws = np.stack([kernel_synth.sample(0, index, 32) for index in range(4000)])
    wanted = kernel_synth.covariance([rbf], np.zeros(0, bool), 32)
    assert np.abs(np.cov(draws.T) - wanted).max() < 0.12  # five standard deviations
    assert np.abs(draws.mean(0)).max() < 0.1


def test_every_draw_is_finite_and_differs():
    draws = [kernel_synth.sample(3, index, 64) for index in range(200)]
    assert all(np.isfinite(draw).all() and draw.dtype == np.float32 for draw in draws)
    assert len({draw.tobytes() for draw in draws}) == 200
    assert not np.array_equal(draws[0], kernel_synth.sample(4, 0, 64))


def test_mixup_is_a_convex_sum_of_mean_scaled_stretches():
    # Constant series: scaled to one, so every mixture is one, whatever the weights are.
    series = [np.full(300, value, np.float32) for value in (2.0, 50.0, 1000.0)]
    random = np.random.default_rng(0)
    mixed = [tsmixup.mix(series, random, 16, 64) for _ in range(300)]
    assert all(np.allclose(values, 1) for values in mixed)
    lengths = np.asarray([len(values) for values in mixed])
    assert lengths.min() == 16 and lengths.max() == 64 and abs(lengths.mean() - 40) < 5


def test_mixup_follows_the_dirichlet_weights():
    # With a one-hot step in one of two series, the mixture shows its weight.
    series = [np.ones(10, np.float32), -np.ones(10, np.float32)]
    random = np.random.default_rng(1)
    sums = np.asarray([tsmixup.mix(series, random, 10, 10)[0] for _ in range(4000)])
    pure = np.isclose(np.abs(sums), 1)
    # One series in a third of the draws; else all of the same sign with 1/2 and 1/4.
    assert abs(pure.mean() - (1 / 3 + 1 / 6 + 1 / 12)) < 0.04
    # Two of opposite sign: 2w − 1 with w of Beta(1.5, 1.5), variance 4 · 1/16.
    # Three, two against one: w of Beta(3, 1.5), mean 2/3, variance 0.0404; 2w − 1 squared 0.2727.
    assert abs((sums[~pure] ** 2).mean() - (0.25 * 1 / 6 + 0.2727 * 1 / 4) / (5 / 12)) < 0.03


def test_mixup_keeps_what_is_missing():
    series = [np.asarray([1.0, np.nan, 3.0], np.float32)]
    mixed = tsmixup.mix(series, np.random.default_rng(0), 3, 3)
    assert np.isnan(mixed[1]) and np.isfinite(mixed[[0, 2]]).all()


def test_mixup_of_zeros_is_zero():
    mixed = tsmixup.mix([np.zeros(9, np.float32)], np.random.default_rng(0), 9, 9)
    assert (mixed == 0).all()


def test_tsi_is_a_function_of_seed_and_index():
    drawn = [tsi.sample(7, index) for index in range(60)]
    again = [tsi.sample(7, index) for index in reversed(range(60))][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(drawn, again, strict=True))
    assert len({values.tobytes() for values in drawn}) == 60
    assert not np.array_equal(drawn[0], tsi.sample(8, 0))
    rows = list(
        tsi.rows(40, 60, series=60, **dict(min_length=32, max_length=1024), missing=0, seed=7)
    )
    assert [row["item_id"] for row in rows] == [f"tsi/{index}" for index in range(40, 60)]
    assert all(np.array_equal(row["target"], drawn[40 + n]) for n, row in enumerate(rows))


def test_tsi_is_finite_and_varied():
    drawn = [tsi.sample(0, index) for index in range(1500)]
    assert all(np.isfinite(values).all() and values.dtype == np.float32 for values in drawn)
    lengths = np.asarray([len(values) for values in drawn])
    assert lengths.min() >= 32 and lengths.max() <= 1024 and 120 < np.median(lengths) < 350
    assert np.mean([values.std() == 0 for values in drawn]) < 0.01
    positive = np.mean([(values >= 0).all() for values in drawn])
    whole = np.mean([(values == np.round(values)).all() for values in drawn])
    assert 0.4 < positive < 0.9 and 0.05 < whole < 0.25  # counts are the whole ones


def test_tsi_keeps_to_the_lengths_asked_for():
    lengths = [len(tsi.sample(1, index, 100, 200)) for index in range(200)]
    assert min(lengths) == 100 and 190 < max(lengths) <= 200


def test_tsi_misses_values_where_asked_and_only_there():
    plain = [tsi.sample(2, index) for index in range(300)]
    holed = [tsi.sample(2, index, missing=50) for index in range(300)]
    share = np.mean([np.isnan(values).any() for values in holed])
    assert 0.4 < share < 0.6
    for values, other in zip(plain, holed, strict=True):
        known = np.isfinite(other)
        assert known.any() and np.array_equal(values[known], other[known])


@pytest.mark.parametrize("period", [4, 7, 12, 24, 52.18, 168])
def test_tsi_seasons_repeat_after_their_period(period):
    time = np.arange(1000)
    for seed in range(30):
        values = tsi.season(np.random.default_rng(seed), time, period)
        if isinstance(period, int):
            np.testing.assert_allclose(values[period:], values[:-period], atol=1e-9)
        whole = values[: round(period * (len(values) // period))]
        assert abs(whole.mean()) < 0.1 and abs(whole.std() - 1) < 0.1


def test_tsi_weeks_of_hours_change_by_the_day():
    # Days differ only by a level or a factor, so the shape of a day stays in the weekly season.
    weekly = 0
    for seed in range(100):
        values = tsi.seasons(np.random.default_rng(seed), 24 * 28, (24, 168))
        daily = np.abs(values[24:] - values[:-24]).mean()
        weekly += daily > 3 * np.abs(values[168:] - values[:-168]).mean()
    assert 35 < weekly < 80


def test_tsi_noise_has_unit_size_and_memory_where_asked():
    drawn = np.stack([tsi.noise(np.random.default_rng(seed), 512) for seed in range(600)])
    sizes = drawn.std(axis=1)
    assert 0.8 < np.median(sizes) < 1.2
    lagged = [np.corrcoef(values[1:], values[:-1])[0, 1] for values in drawn]
    assert 0.35 < np.mean(np.abs(lagged) < 0.15) < 0.75  # the white ones
    assert np.mean(np.asarray(lagged) > 0.5) > 0.1


def test_tsi_walks_wander_and_trends_do_not_jump():
    for seed in range(50):
        path = tsi.walk(np.random.default_rng(seed), 500)
        assert np.abs(np.diff(path)).mean() < 0.5 * path.std()
        curve = tsi.trend(np.random.default_rng(seed), 500)
        assert np.abs(np.diff(curve)).max() < 0.2 and np.abs(curve).max() < 30


def test_tsi_weeks_of_hours_have_little_trend_and_prices_walk():
    def drawn(frequency):
        kind = tsi.FREQUENCIES[frequency]
        return [tsi.compose(np.random.default_rng(seed), 300, kind) for seed in range(200)]

    def trend(frequency):
        """Variance that a straight line explains, in the median."""
        series = [values for values in drawn(frequency) if values.std() > 0]
        return np.median([np.corrcoef(np.arange(300), values)[0, 1] ** 2 for values in series])

    assert 3 * trend("hour") < trend("month") < trend("year")
    walks = [np.corrcoef(values[1:], values[:-1])[0, 1] > 0.95 for values in drawn("business_day")]
    assert 0.4 < np.mean(walks) < 0.7


def test_tsi_counts_follow_their_rate():
    rate = np.where(np.arange(4000) < 2000, 1.0, 3.0)
    ratios = []
    for seed in range(60):
        values = tsi.counts(np.random.default_rng(seed), rate)
        assert (values == np.round(values)).all() and (values >= 0).all()
        ratios.append(values[2000:].mean() / values[:2000].mean())
    assert abs(np.median(ratios) - 3) < 0.1


def test_tsi_outliers_and_shifts():
    flat = np.sin(np.arange(2000))
    for seed in range(20):
        changed = tsi.outliers(np.random.default_rng(seed), flat) != flat
        assert 0 < changed.mean() < 0.05
        shifted = tsi.level_shifts(np.random.default_rng(seed), 2000)
        assert 1 <= (np.diff(shifted) != 0).sum() + (shifted[0] != 0) <= 3


def test_real_series_are_what_they_are():
    series = {found.item_id: found for found in real.series()}
    assert len(series) == len(real.series()) == 48
    assert series["sunspots/activity"].values[:3].tolist() == [5.0, 11.0, 16.0]
    assert series["elnino/temperature"].values[12] == np.float32(24.19)  # January 1951
    assert np.isnan(series["co2/co2"].values).sum() == 59
    for found in series.values():
        assert found.values.ndim == 1 and found.values.dtype == np.float32
        assert np.isfinite(found.values[-2 * found.horizon :]).any()
        assert len(found.training_values) >= 2 * found.horizon
        with pytest.raises(ValueError, match="read-only"):
            found.values[0] = 0


@pytest.mark.parametrize("index", [0, 10, 47])
def test_training_never_sees_the_evaluation_windows(index):
    source = ArrowSource(embedded.resolve("embedded:real"))
    found = real.series()[index]
    kept = source[index].target[0]
    np.testing.assert_array_equal(kept, found.values[: -2 * found.horizon])
    assert source.metadata(index)["item_id"] == found.item_id


def test_real_without_statsmodels(monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.datasets.co2", None)
    real.series.cache_clear()
    with pytest.raises(InputError, match=r'pip install "tsmjax\[demo\]"'):
        embedded.resolve("embedded:tsmixup")


@pytest.mark.parametrize(
    "name", ["kernel_synth?length=256", "tsi?max_length=256", "tcm?max_length=128"]
)
def test_the_number_of_processes_changes_no_bit(name, monkeypatch, tmp_path):
    for generator in (kernel_synth, tsi, corpus):
        monkeypatch.setattr(generator, "BLOCK", 40)
    found = []
    for processes in (1, 2):
        monkeypatch.setenv("TSMJAX_CACHE", str(tmp_path / str(processes)))
        folder = embedded.resolve(f"embedded:{name}&series=70&seed=5", processes)
        source = ArrowSource(folder)
        found.append([item.target.tobytes() for item in source.read(np.arange(70))])
    assert found[0] == found[1] and len(set(found[0])) == 70
    assert source.metadata(69)["item_id"].endswith("/69")


def test_generated_once_even_by_two_at_a_time(cache, monkeypatch):
    calls = []
    make = workers.make

    def counted(*arguments):
        calls.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(workers, "make", counted)
    found = []
    path = "embedded:tsmixup?series=5&seed=1"
    threads = [
        threading.Thread(target=lambda: found.append(embedded.resolve(path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1 and len(set(found)) == 1
    assert len(ArrowSource(found[0])) == 5
    assert embedded.resolve(path) == found[0] and len(calls) == 1
    assert embedded.resolve("embedded:tsmixup?series=5&seed=2") != found[0]


def test_a_failed_process_leaves_nothing(cache, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="made kernel_synth failed"):
        embedded.resolve("embedded:kernel_synth?series=2&length=16")
    assert [path.suffix for path in (cache / "embedded").iterdir()] == [".lock"]


def test_batches_from_embedded_sources():
    config = DataConfig(
        sources=(
            Source("embedded:kernel_synth?series=8&length=128", 1.0),
            Source("embedded:tsmixup?series=40&min_length=64", 3.0),
        ),
        batch_size=8,
        context_length=64,
    )
    batch = ForecastBatches(config, prediction_length=16, patch=16, seed=0)[0]
    assert np.isfinite(batch["target"]).any((1, 2)).all()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("embedded:kernelsynth", ["'kernelsynth'", "did you mean 'kernel_synth'", "tsmixup"]),
        ("embedded:real?series=3", ["no parameter 'series'", "it has none"]),
        ("embedded:kernel_synth?lenght=3", ["did you mean 'length'"]),
        ("embedded:kernel_synth?length=long", ["length is 'long'", "whole number"]),
        ("embedded:kernel_synth?series=0", ["series is '0'"]),
        ("embedded:tsi?missing=some", ["missing is 'some'"]),
        ("embedded:tsmixup?min_length=9&max_length=5", ["min_length is greater"]),
    ],
)
def test_bad_paths(path, words):
    with pytest.raises(InputError) as caught:
        embedded.resolve(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)
