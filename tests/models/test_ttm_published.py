"""Which published checkpoint of TTM to take."""

import pytest

from tsmjax.data.frequency import at_least_daily
from tsmjax.errors import InputError
from tsmjax.models.ttm.published import PUBLISHED, select_ttm
from tsmjax.weights import hub


@pytest.mark.parametrize(
    ("context", "horizon", "freq", "revision"),
    [
        # What granite-tsfm 0.3.11 takes.
        (512, 96, "5min", "main"),
        (512, 12, "5min", "512-48-ft-r2.1"),
        (288, 12, "5min", "180-60-ft-l1-r2.1"),
        (144, 12, "5min", "90-30-ft-r2.1"),
        (1536, 96, "5min", "1536-96-r2"),
        # The rules that these leave open.
        (5000, 100, None, "1536-192-r2"),
        (1100, 720, "h", "1024-720-r2"),
        (5000, 30, "D", "512-48-ft-r2.1"),
        (5000, 30, "W-MON", "512-48-ft-r2.1"),
        (60, 16, "MS", "52-16-ft-r2.1"),
        (1023, 96, "60min", "main"),
    ],
)
def test_history_horizon_and_frequency_choose(context, horizon, freq, revision):
    found = select_ttm(context, horizon, freq)
    assert found.revision == revision
    assert found.path == f"ibm-granite/granite-timeseries-ttm-r2@{revision}"
    assert found.context_length <= context and found.prediction_length >= horizon


def test_preferences_decide_between_equals_only():
    assert select_ttm(512, 96, "h", frequency=True).revision == "512-96-ft-r2.1"
    assert select_ttm(512, 96, "h", absolute_error=True).revision == "512-96-ft-l1-r2.1"
    assert select_ttm(1024, 96, "h", absolute_error=True).revision == "1024-96-r2"
    assert len(PUBLISHED) == len(set(PUBLISHED)) == 22


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((48, 12, "5min"), "48 steps, but the published models need 52"),
        ((512, 721), "forecast 720 at most"),
        ((1536, 97, "D"), "of frequency 'D' forecast 96 at most"),
        ((400, 96), "forecast 60 at most"),
        ((512, 0), "horizon is 0"),
        ((512, 96, "fortnight"), "no frequency"),
    ],
)
def test_what_nobody_published(arguments, words):
    with pytest.raises(InputError, match=words):
        select_ttm(*arguments)


@pytest.mark.parametrize(
    ("freq", "long"),
    [("23h", False), ("24h", True), ("D", True), ("QS", True), ("bh", False), ("B", True)],
)
def test_days_and_longer(freq, long):
    assert at_least_daily(freq) is long


def test_a_revision_is_asked_of_the_hub(monkeypatch, tmp_path):
    asked = {}

    def download(name, **options):
        asked.update(options, name=name)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert hub.resolve(select_ttm(1536, 96).path) == tmp_path
    assert asked["name"] == "ibm-granite/granite-timeseries-ttm-r2"
    assert asked["revision"] == "1536-96-r2"
    hub.resolve("amazon/chronos-2")
    assert asked["revision"] is None
