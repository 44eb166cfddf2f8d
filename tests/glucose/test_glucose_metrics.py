"""Glucose metrics against numbers worked out by hand, and error grids against methcomp 1.0.0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.errors import InputError
from tsmjax.glucose import metrics

A, B, C, D, E = range(5)


def test_units_are_not_rounded():
    assert metrics.to_mmol(180.18) == pytest.approx(10.0, abs=1e-12)
    values = np.linspace(39, 600, 50)
    np.testing.assert_allclose(metrics.to_mg(metrics.to_mmol(values)), values, rtol=1e-15)


def test_errors_by_horizon():
    truth = np.array([[100.0, 200.0, np.nan], [50.0, np.nan, np.nan]])
    forecast = np.array([[110.0, 180.0, 1.0], [45.0, np.nan, np.nan]])
    sums = metrics.error_sums(truth, forecast)
    first = metrics.error_scores(sums, [1, 2, 3])
    np.testing.assert_allclose(first["mse"], [62.5, 400.0, np.nan])
    np.testing.assert_allclose(first["rmse"], [62.5**0.5, 20.0, np.nan])
    np.testing.assert_allclose(first["mae"], [7.5, 20.0, np.nan])
    np.testing.assert_allclose(first["bias"], [2.5, -20.0, np.nan])
    np.testing.assert_allclose(first["mard"], [10.0, 10.0, np.nan])
    together = metrics.error_scores(sums)
    assert together["mae"] == pytest.approx(35 / 3)
    assert together["mape"] == pytest.approx(10.0)
    with pytest.raises(InputError, match="from 1 to 3"):
        metrics.error_scores(sums, [0])


def test_sums_of_batches_add_up_and_a_broken_forecast_shows():
    rng = np.random.default_rng(0)
    truth, forecast = rng.uniform(50, 300, (2, 8, 4))
    whole = metrics.error_sums(truth, forecast)
    parts = [metrics.error_sums(truth[s], forecast[s]) for s in (slice(0, 3), slice(3, 8))]
    added = jax.tree.map(lambda *values: sum(values), *parts)
    np.testing.assert_allclose(
        metrics.error_scores(whole)["rmse"], metrics.error_scores(added)["rmse"]
    )
    forecast[0, 2] = np.nan
    scores = metrics.error_scores(metrics.error_sums(truth, forecast), [1, 3])
    np.testing.assert_array_equal(np.isnan(scores["mae"]), [False, True])


@pytest.mark.parametrize(
    ("reference", "predicted", "zone"),
    [
        (100, 100, A),
        (100, 120, A),  # 20 percent
        (100, 121, B),
        (100, 79.9, B),
        (60, 65, A),  # both low, though 30 percent would not do
        (40, 69.9, A),
        (40, 70, D),  # the edge of both low
        (40, 180, E),
        (70, 180, E),  # edges of E
        (180, 70, E),
        (69, 179, D),
        (241, 179, D),
        (240, 179, B),
        (300, 70, D),  # D and E meet in D
        (300, 69.9, E),
        (130, 0, B),  # on the slanted line
        (150, 27.9, C),
        (150, 28, B),
        (180, 69.9, C),  # C and E overlap
        (75, 185, B),  # on the line
        (75, 185.1, C),
        (np.nan, 100, -1),
    ],
)
def test_clarke_zones_by_hand(reference, predicted, zone):
    assert metrics.clarke_zones(reference, predicted) == zone


@pytest.mark.parametrize(
    ("diabetes", "reference", "predicted", "zone"),
    [
        (1, 100, 100, A),
        (1, 30, 50, A),  # on a corner: the better zone
        (1, 30, 50.1, B),
        (1, 50, 10, A),  # on the vertical beginning
        (1, 50.1, 10, B),
        (1, 120, 10, B),
        (1, 120.1, 10, C),
        (1, 250.1, 39, D),
        (1, 550, 150, C),
        (1, 550, 149.9, D),
        (1, 0, 100.1, D),
        (1, 0, 150.1, E),
        (1, 35, 155.1, E),
        (1, 50, 125, C),
        (1, 85, 110, A),  # 85 on the line (30, 50)-(140, 170) is 110
        (1, 85, 110.1, B),
        (1, 600, 495.5, A),  # beyond the last corner: 450 + 50 * 150 / 165 = 495.45
        (1, 600, 495.4, B),
        (2, 130, 190, A),  # half way from (30, 50) to (230, 330)
        (2, 130, 190.1, B),
        (2, 90, 0, B),
        (2, 175, 64.9, C),  # half way from (90, 0) to (260, 130): 65
        (2, 330, 74.9, D),  # half way from (250, 40) to (410, 110): 75
        (2, 35, 200.1, E),
    ],
)
def test_parkes_zones_by_hand(diabetes, reference, predicted, zone):
    assert metrics.parkes_zones(reference, predicted, diabetes) == zone


def test_unknown_type_of_diabetes():
    with pytest.raises(InputError, match="type 1 or 2"):
        metrics.parkes_zones(100, 100, 3)


def points() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.uniform(20, 600, (2, 3000)).round(1)


def test_clarke_zones_are_those_of_methcomp():
    glucose = pytest.importorskip("methcomp.glucose")
    x, y = points()
    whole = np.arange(20.0, 420, 10)  # readings on every edge
    x = np.concatenate([x, np.repeat(whole, len(whole))])
    y = np.concatenate([y, np.tile(whole, len(whole))])
    expected = glucose.clarkezones(x, y, "mgdl", numeric=True)
    np.testing.assert_array_equal(metrics.clarke_zones(x, y), expected)


@pytest.mark.parametrize("diabetes", [1, 2])
def test_parkes_zones_are_those_of_methcomp(diabetes):
    glucose = pytest.importorskip("methcomp.glucose")
    x, y = points()
    expected = np.array(glucose.parkeszones(diabetes, x, y, "mgdl", numeric=True))
    found = metrics.parkes_zones(x, y, diabetes)
    if diabetes == 1:
        # methcomp begins the last piece of C/D at a corner of type 2, up to 11 mg/dL too high.
        line = 40 + (x - 250) * 110 / 300
        doubtful = (x > 250) & (y >= line) & (y <= line + 12)
        assert doubtful.mean() < 0.02
        found, expected = found[~doubtful], expected[~doubtful]
    assert set(expected) == {A, B, C, D, E}
    np.testing.assert_array_equal(found, expected)


def test_zones_of_jax_arrays_are_those_of_numpy():
    x, y = points()
    for zones in (metrics.clarke_zones, metrics.parkes_zones):
        found = jax.jit(zones)(jnp.asarray(x), jnp.asarray(y))
        assert np.mean(np.asarray(found) == zones(x, y)) > 0.999  # float32 on an edge
    shares = metrics.zone_shares(np.array([0, 0, 0, 1, 4, -1]))
    assert shares == {"A": 0.6, "B": 0.2, "C": 0.0, "D": 0.0, "E": 0.2}


def test_ranges_keep_their_edges():
    glucose = np.array([53.9, 54, 69.9, 70, 180, 180.1, 250, 250.1, np.nan, 100])
    shares = metrics.ranges(glucose)
    expected = {
        **{"below_54": 1, "54_to_70": 2, "below_70": 3, "in_range": 3},
        **{"above_180": 3, "180_to_250": 2, "above_250": 1},
    }
    assert shares == pytest.approx({name: count / 9 for name, count in expected.items()})


def test_control_by_hand():
    found = metrics.control(np.array([[100.0, 140.0, np.nan], [112.5, 112.5, 112.5]]))
    np.testing.assert_allclose(found["mean"], [120, 112.5])
    np.testing.assert_allclose(found["cv"], [100 * 800**0.5 / 120, 0.0])
    np.testing.assert_allclose(found["gmi"], [3.31 + 2.8704, 3.31 + 2.691])
    # There is no risk at 112.5 mg/dL.
    np.testing.assert_allclose([found["lbgi"][1], found["hbgi"][1]], 0.0, atol=1e-4)
    extremes = metrics.control(np.array([50.0, 400.0]))
    low, high = (10 * (1.509 * (np.log(g) ** 1.084 - 5.381)) ** 2 for g in (50, 400))
    assert extremes["lbgi"] == pytest.approx(low / 2)
    assert extremes["hbgi"] == pytest.approx(high / 2)
    under_jit = jax.jit(metrics.control)(jnp.array([50.0, 400.0]))
    assert float(under_jit["hbgi"]) == pytest.approx(high / 2, rel=1e-4)


def series(text: str) -> np.ndarray:
    """One reading a character: l low, . normal, ? missing."""
    return np.array([{"l": 60.0, ".": 100.0, "?": np.nan}[letter] for letter in text])


@pytest.mark.parametrize(
    ("glucose", "events"),
    [
        ("..ll....", "........"),  # ten minutes are no event
        ("..lll...", "..###..."),
        ("..lll..ll...", "..#######..."),  # ten minutes of recovery do not end it
        ("..lll...lll", "..###...###"),
        ("..ll?lll", ".....###"),
        (".lll??..", ".#######"),
        ("lllll...", "#####..."),
    ],
)
def test_events(glucose, events):
    found = metrics.low_events(series(glucose))
    assert "".join(".#"[int(on)] for on in found) == events


def test_alarms_are_events_in_the_forecast():
    forecasts = np.stack([series("..lll."), series("ll.lll"), series("ll.ll.")])
    np.testing.assert_array_equal(metrics.low_alarms(forecasts), [True, True, False])


def test_event_scores_by_hand():
    # Row 0: the event at 12 is foreseen at 8, 20 minutes ahead; the alarm at 1 is false; the alarm
    # at 13 is in the event. Row 1: the event at 9 comes 40 minutes after the alarm; window 30.
    glucose = np.stack([series("............lll....."), series(".........lll........")])
    alarms = np.zeros(glucose.shape, bool)
    alarms[0, [1, 8, 9, 13]] = True
    alarms[1, 1] = True
    found = metrics.event_scores(glucose, alarms, window=30)
    assert (found["events"], found["alarms"]) == (2, 3)
    assert found["recall"] == 0.5
    assert found["precision"] == pytest.approx(1 / 3)
    assert found["f1"] == pytest.approx(0.4)
    assert found["false_alarms_per_day"] == pytest.approx(2 / (40 * 5 / 1440))
    assert found["lead_minutes"] == 20.0


def test_an_event_that_is_under_way_at_the_first_reading_cannot_be_foreseen():
    found = metrics.event_scores(series("lll......lll"), np.zeros(12, bool), window=30)
    assert (found["events"], found["recall"]) == (1, 0.0)


def test_event_scores_of_nothing():
    found = metrics.event_scores(series("....."), np.zeros(5, bool), window=30)
    assert (found["events"], found["alarms"], found["false_alarms_per_day"]) == (0, 0, 0.0)
    assert all(np.isnan(found[name]) for name in ("recall", "precision", "f1", "lead_minutes"))
    with pytest.raises(InputError, match="not the same"):
        metrics.event_scores(series("..."), np.zeros(2, bool), window=30)
