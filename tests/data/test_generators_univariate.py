"""What tells the generators apart: memory, unit roots, trends, seasons, counts, causes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.data.synthetic import arma, draws, ets, seasons, structural, tcm
from tsmjax.data.synthetic.calendar import FREQUENCIES, NAMES, Calendar
from tsmjax.data.synthetic.draws import Draws

LENGTH, ROWS = 512, 300


def keys(seed, rows=ROWS):
    return jax.random.split(jax.random.key(seed), rows)


def calendar_of(name, length=LENGTH):
    """A calendar of series that fill the whole array."""
    frequency = FREQUENCIES[name]
    time = jnp.arange(length, dtype=jnp.float32)
    return Calendar(
        jnp.int32(NAMES.index(name)),
        jnp.int32(length),
        jnp.float32(frequency.day),
        jnp.asarray(frequency.periods, jnp.float32),
        time,
        time / (length - 1),
    )


def autocorrelation(values, lag):
    centred = values - values.mean(axis=-1, keepdims=True)
    products = (centred[..., lag:] * centred[..., : values.shape[-1] - lag]).sum(axis=-1)
    return products / (centred**2).sum(axis=-1)


def growth_exponent(values, short=16, long=64):
    """How the variance of x(t + k) − x(t) grows with k: k⁰ stationary, k¹ a walk, k² a slope."""
    spread = [((values[..., k:] - values[..., :-k]) ** 2).mean(axis=-1) for k in (short, long)]
    return np.log(spread[1] / spread[0]) / np.log(long / short)


def spectrum(values):
    """Mean periodogram of standardised series, with a mean of one."""
    values = (values - values.mean(-1, keepdims=True)) / values.std(-1, keepdims=True)
    power = (np.abs(np.fft.rfft(values * np.hanning(values.shape[-1]))) ** 2).mean(axis=0)
    return power / power[1:].mean()


def peak(values, period):
    """Power at the period over the median power of the frequencies around it."""
    power, at = spectrum(values), round(values.shape[-1] / period)
    around = np.r_[power[at - 12 : at - 3], power[at + 4 : at + 13]]
    return power[at - 1 : at + 2].max() / np.median(around)


# Random numbers


def test_noise_has_unit_variance_and_heavy_tails_where_asked():
    # Student's t(4) has P(|t| > 5) = 0.0075, and 0.0021 at unit variance; the normal 6e-7.
    light, heavy = (
        np.asarray(draws.noise(jax.random.key(0), 200_000, jnp.bool_(flag))) for flag in (0, 1)
    )
    assert light.var() == pytest.approx(1, abs=0.02) and heavy.var() == pytest.approx(1, abs=0.08)
    assert (np.abs(light) > 5).mean() < 5e-5
    assert (np.abs(heavy) > 5 / np.sqrt(2)).mean() == pytest.approx(0.0075, abs=0.001)


@pytest.mark.parametrize("rate", [0.1, 3.0, 15.9, 16.1, 300.0])
def test_counts_have_the_mean_and_variance_of_their_rate(rate):
    values = np.asarray(draws.poisson(jax.random.key(1), jnp.full(40_000, rate)))
    assert (values >= 0).all() and (values == np.round(values)).all()
    error = np.sqrt(rate / len(values))
    assert abs(values.mean() - rate) < 5 * error
    assert values.var() == pytest.approx(rate, rel=0.05)
    assert abs((values == 0).mean() - np.exp(-rate)) < 0.01


def test_cosines_are_cosines():
    turns = np.linspace(-40, 40, 20_001).astype(np.float32)
    np.testing.assert_allclose(
        draws.cosine(turns), np.cos(2 * np.pi * np.float64(turns)), atol=3e-5
    )


# ARIMA


def test_filters_are_what_the_recursions_say():
    random = np.random.default_rng(0)
    values, response = random.normal(size=(2, 90))
    np.testing.assert_allclose(
        arma.filtered(values, response), np.convolve(values, response)[:90], atol=1e-4
    )
    for keep in (0.0, 0.6, 1.0):
        wanted = values.copy()
        for t in range(12, 90):
            wanted[t] += keep * wanted[t - 12]
        found = arma.seasonal_sum(jnp.asarray(values, jnp.float32), jnp.float32(12), keep)
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_arma_responses_die_out():
    found = jax.jit(jax.vmap(lambda k: arma.arma_response(Draws(k, 16), 4096)))(keys(2))
    found = np.asarray(found)
    assert np.isfinite(found).all() and np.allclose(found[:, 0], 1)
    assert (np.abs(found[:, 3000:]).max(axis=1) < 1e-2 * np.abs(found).max(axis=1)).all()
    assert (np.abs(found[:, 1:]).max(axis=1) > 0.1).mean() > 0.6  # most remember


def test_autoregressive_noise_forgets_at_a_constant_rate():
    found = jax.jit(jax.vmap(lambda k: arma.autoregressive(k, Draws(k, 8), 4096)))(keys(3))
    found = np.asarray(found)
    assert np.median(found.std(axis=1)) == pytest.approx(1, abs=0.05)
    one, two, four = (autocorrelation(found, lag) for lag in (1, 2, 4))
    # ρ(k) = φᵏ for an AR(1); half of the series are white.
    assert np.abs(two - one**2).mean() < 0.03 and np.abs(four - two**2).mean() < 0.03
    assert 0.3 < (np.abs(one) < 0.08).mean() < 0.7 and (one > 0.5).mean() > 0.15
    assert np.median(growth_exponent(found)) < 0.15


def test_integration_makes_unit_roots():
    def one(key, order):
        white = draws.noise(key, LENGTH, jnp.bool_(False))
        return arma.integrated(Draws(key, 8), white, order)

    run = jax.jit(jax.vmap(one, in_axes=(0, None)))
    exponent = [np.median(growth_exponent(np.asarray(run(keys(4), order)))) for order in range(3)]
    assert abs(exponent[0]) < 0.1 and 0.8 < exponent[1] < 1.4 and 1.6 < exponent[2] < 2.05


def test_arima_series_wander_in_about_six_of_ten():
    calendar = calendar_of("none")
    run = jax.jit(jax.vmap(arma.sample, in_axes=(0, None, None)))
    found = np.asarray(run(keys(5), calendar, jnp.zeros(LENGTH)))
    exponent = growth_exponent(np.log(found) if (found > 0).all() else found)
    assert np.isfinite(found).all()
    assert 0.45 < (exponent > 0.6).mean() < 0.75 and (exponent < 0.3).mean() > 0.2


def test_volatility_changes_in_a_fifth():
    run = jax.jit(jax.vmap(lambda k: arma.volatility(k, Draws(k, 4), LENGTH)))
    found = np.asarray(run(keys(6)))
    changing = found.max(axis=1) > found.min(axis=1)
    assert 0.12 < changing.mean() < 0.28 and (found > 0).all()
    assert np.median((found.max(axis=1) / found.min(axis=1))[changing]) > 1.5


# ETS


@functools.cache
def ets_paths():
    """Return a function of the form's letters: ROWS monthly series of it, (ROWS, LENGTH)."""
    calendar = calendar_of("MS")
    run = jax.jit(
        jax.vmap(lambda key, form: ets.path(key, Draws(key, 80), form, calendar), in_axes=(0, None))
    )

    @functools.cache
    def of(error, trend, season):
        form = ets.Form(
            jnp.int32(ets.ERRORS.index(error)),
            jnp.int32(ets.TRENDS.index(trend)),
            jnp.int32(ets.SEASONS.index(season)),
        )
        return np.asarray(run(keys(7), form))

    return of


@pytest.mark.parametrize("error", ets.ERRORS)
@pytest.mark.parametrize("trend", ets.TRENDS)
@pytest.mark.parametrize("season", ets.SEASONS)
def test_ets_forms_are_finite_and_have_their_season(error, trend, season):
    found = ets_paths()(error, trend, season)
    assert np.isfinite(found).all() and (found.std(axis=1) > 0).all()
    if error == "M" or trend in ("M", "Md") or season == "M":
        assert (found > 0).all()
    # Where there is a season, and only there, the year is a peak of the spectrum.
    height = peak(np.diff(found), 12)
    assert height > 100 if season != "N" else height < 1.5


def drift_of(values):
    """Mean change over each half, in units of the deviation about a line in that half."""
    halves = values.reshape(len(values), 2, -1)
    time = np.arange(halves.shape[-1]) - (halves.shape[-1] - 1) / 2
    slope = (halves * time).sum(-1) / (time**2).sum()
    residual = halves - halves.mean(-1, keepdims=True) - slope[..., None] * time
    return np.abs(slope) * halves.shape[-1] / residual.std(-1)


def test_ets_trends_last_and_damped_ones_end():
    none, lasting, damped = (drift_of(ets_paths()("A", t, "N")) for t in ("N", "A", "Ad"))
    # Slopes of the second half, where a damped trend has come to rest.
    assert np.median(lasting[:, 1]) > 1.5 * np.median(none[:, 1])
    assert np.median(damped[:, 1]) < 0.8 * np.median(lasting[:, 1])


def test_ets_multiplicative_seasons_grow_with_the_level():
    def growth(season):
        years = ets_paths()("M", "A", season)[:, : LENGTH // 12 * 12].reshape(ROWS, -1, 12)
        level, swing = years.mean(axis=2), years.std(axis=2)
        both = [np.log(x[:, -10:].mean(axis=1) / x[:, :10].mean(axis=1)) for x in (level, swing)]
        moved = np.abs(both[0]) > 0.3
        return np.median((both[1] / both[0])[moved])

    assert growth("M") > 0.8 and growth("M") > growth("A") + 0.1


# TSI


@pytest.mark.parametrize(("name", "period"), [("h", 24), ("D", 7), ("MS", 12), ("QS", 4)])
def test_tsi_has_the_peak_of_its_calendar(name, period):
    calendar = calendar_of(name, 504)  # a multiple of the four periods
    patterns, found = _composed()(calendar)
    assert peak(np.asarray(patterns), period) > 30
    assert peak(np.diff(np.asarray(found)), period) > 5
    other = 9.5  # no calendar has it
    assert peak(np.diff(np.asarray(found)), other) < 3
    assert np.isfinite(found).all()


@functools.cache
def _composed():
    def one(key, calendar):
        season_key, key = jax.random.split(key)
        pattern = seasons.seasonal(season_key, calendar)
        return pattern, structural.sample(key, calendar, pattern)

    run = jax.jit(jax.vmap(one, in_axes=(0, None)))

    def of(calendar):
        patterns, found = run(keys(8), calendar)
        alive = np.asarray(patterns).std(axis=1) > 0
        assert 0.75 < alive.mean() < 0.97  # some series of every calendar have no season
        return np.asarray(patterns)[alive], np.asarray(found)

    return of


def test_tsi_trends_are_smooth_and_a_fifth_of_them_flat():
    share = jnp.linspace(0, 1, LENGTH)
    run = jax.jit(jax.vmap(lambda k: structural.trend(Draws(k, 24), share)))
    found = np.asarray(run(keys(9)))
    flat = np.ptp(found, axis=1) == 0
    assert 0.13 < flat.mean() < 0.27
    assert np.abs(np.diff(found[~flat])).max() < 0.2
    # Slopes that change at once, in a quarter of all.
    bend = np.abs(np.diff(found[~flat], 2)) / np.ptp(found[~flat], axis=1, keepdims=True)
    kinked = (bend.max(axis=1) > 3e-4) & (bend.max(axis=1) > 30 * np.median(bend, axis=1))
    assert 0.2 < kinked.mean() < 0.45


def test_demand_is_intermittent_in_some():
    rate = jnp.where(jnp.arange(2000) < 1000, 1.0, 3.0)
    run = jax.jit(jax.vmap(lambda k: structural.counts(jax.random.split(k, 3), Draws(k, 8), rate)))
    found = np.asarray(run(keys(10)))
    assert (found >= 0).all() and (found == np.round(found)).all()
    zeros, mean = (found == 0).mean(axis=1), found.mean(axis=1)
    # More zeros than the Poisson distribution has at that mean: idle steps.
    excess = zeros - (np.exp(-mean / 2) + np.exp(-1.5 * mean)) / 2
    assert 0.1 < (excess > 0.15).mean() < 0.4
    busy = mean > 5
    ratio = found[busy, 1000:].mean(axis=1) / found[busy, :1000].mean(axis=1)
    assert np.median(ratio) == pytest.approx(3, abs=0.1)
    # Scatter beyond the Poisson distribution's in about four of ten.
    dispersion = found[busy, :1000].var(axis=1) / found[busy, :1000].mean(axis=1)
    assert 0.3 < (dispersion > 1.3).mean() < 0.75 and (np.abs(dispersion - 1) < 0.3).mean() > 0.2


def test_running_totals_never_fall():
    calendar = calendar_of("D")
    run = jax.jit(jax.vmap(structural.growth_curve, in_axes=(0, None, None)))
    found = np.asarray(run(keys(11), calendar, jnp.zeros(LENGTH)))
    assert (found >= 0).all() and np.isfinite(found).all()
    totals = (np.diff(found) >= 0).all(axis=1)
    assert 0.6 < totals.mean() < 0.8


# TCM


def graphs(rows, variables, seed=0):
    """Random models of the shapes that `tcm` makes, as NumPy arrays."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(rows, variables, variables))
    weights *= random.random(weights.shape) < 0.4
    weights /= np.maximum(np.abs(weights).sum(-1, keepdims=True), 1) / 0.95
    lags = random.integers(1, tcm.LAGS + 1, weights.shape)
    functions = random.integers(0, len(tcm.FUNCTIONS), weights.shape)
    return tcm.Graph(np.float32(weights), np.int32(lags), np.int32(functions))


drive = jax.jit(tcm.drive)


def test_models_do_what_their_equations_say():
    model, inputs = graphs(3, 4), np.random.default_rng(1).normal(size=(3, 4, 60))
    found = np.asarray(drive(model, jnp.asarray(inputs, jnp.float32)))
    wanted = np.zeros((3, 4, 60))
    for row, t in np.ndindex(3, 60):
        for to in range(4):
            wanted[row, to, t] = inputs[row, to, t]
            for cause in range(4):
                lag = model.lags[row, to, cause]
                past = wanted[row, cause, t - lag] if t >= lag else 0.0
                image = float(tcm.FUNCTIONS[model.functions[row, to, cause]](past))
                wanted[row, to, t] += model.weights[row, to, cause] * image
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_only_ancestors_move_a_variable_and_not_before_their_lags():
    variables, at, length = 5, 20, 120
    model = graphs(40, variables, seed=2)
    inputs = np.random.default_rng(3).normal(size=(40, variables, length)).astype(np.float32)
    before = np.asarray(drive(model, inputs))
    linked = model.weights != 0
    moved_far = 0
    for cause in range(variables):
        touched = inputs.copy()
        touched[:, cause, at] += 2.0
        moved = np.abs(np.asarray(drive(model, touched)) - before) > 1e-7
        for row in range(40):
            # Shortest way from the cause, in steps of time: Bellman and Ford.
            delay = np.full(variables, np.inf)
            delay[cause] = 0
            for _ in range(variables):
                ways = np.where(linked[row], delay + model.lags[row], np.inf)
                delay = np.minimum(delay, ways.min(axis=1))
            for variable in range(variables):
                first = np.flatnonzero(moved[row, variable])
                assert len(first) == 0 or first[0] >= at + delay[variable]
                if variable != cause and np.isinf(delay[variable]):
                    assert len(first) == 0
                moved_far += variable != cause and len(first) > 0
    assert moved_far > 200  # and ancestors do move them


def test_causes_help_to_predict_and_effects_do_not():
    # x → y at lag 3: Granger's test, as the share of variance that the other's past explains.
    weights = np.zeros((60, 2, 2), np.float32)
    weights[:, 0, 0] = weights[:, 1, 1] = 0.5
    weights[:, 1, 0] = 0.4
    lags = np.where(np.eye(2), 1, 3).astype(np.int32)[None].repeat(60, 0)
    model = tcm.Graph(weights, lags, np.zeros((60, 2, 2), np.int32))
    inputs = np.random.default_rng(4).normal(size=(60, 2, 400)).astype(np.float32)
    found = np.float64(drive(model, inputs))

    def gain(effect, cause):
        def residual(columns):
            past = np.stack([c[4 - k : -k] for c in columns for k in range(1, 5)], axis=1)
            return effect[4:] - past @ np.linalg.lstsq(past, effect[4:], rcond=None)[0]

        return 1 - residual([effect, cause]).var() / residual([effect]).var()

    forward = np.asarray([gain(y, x) for x, y in found])
    backward = np.asarray([gain(x, y) for x, y in found])
    assert np.median(forward) > 0.1 and np.median(backward) < 0.02
    assert (forward > backward).all()


def test_models_forget_where_they_began():
    linear = jnp.arange(ROWS) % 2 == 0
    model, inputs = jax.jit(jax.vmap(lambda k, f: tcm._model(k, jnp.zeros(500), f, 4)))(
        keys(12), linear
    )
    assert (np.abs(model.weights).sum(axis=2) < 0.971).all()
    assert (np.asarray(model.functions)[linear] == 0).all()
    assert len(np.unique(np.asarray(model.functions)[~linear])) == len(tcm.FUNCTIONS)
    assert np.asarray(model.lags).min() == 1 and np.asarray(model.lags).max() == tcm.LAGS
    other = inputs.at[:, :, 0].add(5.0)
    first, second = np.asarray(drive(model, inputs)), np.asarray(drive(model, other))
    apart = np.abs(first - second).max(axis=1)
    assert (apart[:, -1] < 1e-2 * apart.max(axis=1)).mean() > 0.97
    assert np.isfinite(first).all()
