"""Generators: the right distributions, no leakage, and the same bits for any number of workers."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.data.packing import DataConfig, ForecastBatches, Source
from tsmjax.data.synthetic import embedded, kernel_synth, real, tsmixup
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


def test_the_number_of_processes_changes_no_bit(monkeypatch, tmp_path):
    path = "embedded:kernel_synth?series=70&length=256&seed=5"
    found = []
    for processes in (1, 2):
        monkeypatch.setenv("TSMJAX_CACHE", str(tmp_path / str(processes)))
        source = ArrowSource(embedded.resolve(path, processes))
        found.append([item.target.tobytes() for item in source.read(np.arange(70))])
    assert found[0] == found[1] and len(set(found[0])) == 70
    assert source.metadata(69)["item_id"] == "kernel_synth/69"


def test_generated_once_even_by_two_at_a_time(cache, monkeypatch):
    calls = []
    run = subprocess.run

    def counted(*arguments, **options):
        calls.append(arguments)
        return run(*arguments, **options)

    monkeypatch.setattr(subprocess, "run", counted)
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
    with pytest.raises(RuntimeError, match="embedded:kernel_synth failed"):
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
        ("embedded:tsmixup?min_length=9&max_length=5", ["min_length is greater"]),
    ],
)
def test_bad_paths(path, words):
    with pytest.raises(InputError) as caught:
        embedded.resolve(path)
    assert all(word in str(caught.value) for word in words), str(caught.value)
