"""Gaussian processes by random features have the covariance of their kernels.

For given frequencies a draw is exactly normal, and over the draws of frequencies its covariance is
exactly the kernel's: what is compared here has no bias. The approximation is elsewhere. One draw
sees one set of 256 frequencies, so what it is drawn from is a kernel that scatters about the true
one by up to 1/√256 of the variance (between points; stationary kernels have their exact variance
in every draw), and two draws share the kernel only on average. Harmonics of periodic kernels from
the eighth on (1e-7 of the variance) are left out.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tsmjax.data.synthetic import kernel_synth, kernels

LENGTH, DRAWS, CHUNK = 32, 3072, 512
BANK = kernel_synth.bank(LENGTH)


def sampler(entries):
    """Return a compiled function of (key, chosen, products): DRAWS series of `entries` kernels."""

    def draw(key, chosen, products):
        def some(key):
            arguments = chosen, products, jnp.int32(entries)
            return jax.vmap(lambda k: kernels.process(k, *arguments, LENGTH))(
                jax.random.split(key, CHUNK)
            )

        made = jax.lax.map(some, jax.random.split(key, DRAWS // CHUNK))
        return made.reshape(DRAWS, LENGTH)

    return jax.jit(draw)


@pytest.fixture(scope="module")
def draw():
    """Draw from composites of 1 or 3 kernels, without computing places that do not count."""
    patch = pytest.MonkeyPatch()
    compiled = {}
    for entries in (1, 3):
        patch.setattr(kernels, "MAX_KERNELS", entries)
        patch.setattr(kernels, "_POWERS", entries + 1)
        arguments = jnp.zeros(entries, int), jnp.zeros(entries, bool)
        compiled[entries] = sampler(entries).lower(jax.random.key(0), *arguments).compile()
    patch.undo()

    def run(seed, chosen, products=()):
        joined = jnp.asarray([False, *products])
        made = compiled[len(chosen)](jax.random.key(seed), jnp.asarray(chosen), joined)
        return np.asarray(made, np.float64)

    return run


def deviation(draws, wanted):
    """Return the largest deviation of the covariance, in standard errors of each entry.

    The mean of N products of two normal variables with variances a, b and covariance c has the
    variance (ab + c²) / N. Random frequencies add at most 1/256 of it.
    """
    size = np.diag(wanted)
    error = np.sqrt((np.outer(size, size) + wanted**2) / len(draws))
    found = draws.T @ draws / len(draws)
    where = error > 0
    assert np.abs(found[~where]).max(initial=0) < 1e-6
    return (np.abs(found - wanted)[where] / error[where]).max()


def roughness_deviation(draws, wanted):
    """Return the same of the mean squares of differences, which see the finest wiggles best."""
    worst = 0.0
    for lag in (1, 4, 16):
        found = ((draws[:, lag:] - draws[:, :-lag]) ** 2).mean(axis=1)
        size = np.diag(wanted)
        right = (size[lag:] + size[:-lag] - 2 * np.diag(wanted, lag)).mean()
        error = found.std() / np.sqrt(len(draws)) + 1e-6
        worst = max(worst, abs(found.mean() - right) / error)
    return worst


# Of 33 · 528 entries of independent normals the largest is above 5 once in a hundred seeds.
LIMIT = 5.0


@pytest.mark.parametrize("entry", range(33))
def test_every_kernel_of_the_bank_has_its_covariance(draw, entry):
    draws = draw(entry, [entry])
    wanted = kernel_synth.covariance([BANK[entry]], np.zeros(0, bool), LENGTH)
    assert deviation(draws, wanted) < LIMIT
    assert roughness_deviation(draws, wanted) < LIMIT
    assert np.abs(draws.mean(0) / np.sqrt(np.diag(wanted).max() / DRAWS)).max() < LIMIT


WHITE, DOT, RBF, RATIONAL, WEEK, DAY = 2, 4, 6, 9, 18, 12


@pytest.mark.parametrize(
    ("chosen", "products"),
    [
        ((RBF, WEEK, WHITE), (True, False)),  # a season that changes, and noise
        ((DOT, DOT, RATIONAL), (True, True)),  # a parabola that wanders
        ((DOT, WHITE, WEEK), (False, True)),  # white times anything is white
        ((DOT, DAY, WHITE), (True, True)),  # noise whose variance grows
        ((DAY, WEEK, RBF), (True, False)),
        ((RATIONAL, RBF, DOT), (False, False)),
    ],
)
def test_sums_and_products_have_theirs(draw, chosen, products):
    draws = draw(100, chosen, products)
    wanted = kernel_synth.covariance(
        [BANK[entry] for entry in chosen], np.asarray(products), LENGTH
    )
    assert deviation(draws, wanted) < LIMIT
    assert roughness_deviation(draws, wanted) < LIMIT


def test_draws_of_stationary_kernels_are_normal(draw):
    for entry in (RBF, RATIONAL, WEEK):
        values = draw(7, [entry])[:, LENGTH // 2]
        # Third and fourth moments of N normal draws scatter by √(6/N) and √(24/N).
        assert abs((values**3).mean()) < 5 * np.sqrt(15 / DRAWS)
        assert abs((values**4).mean() - 3) < 5 * np.sqrt(96 / DRAWS)


def test_one_draw_keeps_its_variance_and_scatters_between_points():
    # The kernel behind one draw, from its frequencies alone: mean of cos 2πω·d over the features.
    frequency, _, _ = jax.vmap(
        lambda k: kernels._features(k, jnp.int32(kernels._RBF), jnp.float32(0.1), LENGTH)
    )(jax.random.split(jax.random.key(0), 400))
    distance = 0.1
    found = np.cos(2 * np.pi * distance * np.asarray(frequency)).mean(axis=1)
    variance = (1 + np.exp(-2.0)) / 2 - np.exp(-1.0)  # of cos of a standard normal variable
    assert abs(found.mean() - np.exp(-0.5)) < 5 * np.sqrt(variance / 256 / 400)
    assert abs(found.std() / np.sqrt(variance / 256) - 1) < 5 / np.sqrt(2 * 400)


def test_the_bank_is_that_of_the_exact_generator():
    kinds = kernels.BANK[:, 0].astype(int)
    assert len(kernels.BANK) == len(BANK)
    assert [number for number, kernel in enumerate(BANK) if not callable(kernel)] == (
        np.flatnonzero(kinds == kernels._DOT).tolist()
    )
    assert kernels.BANK[kinds == kernels._PERIODIC, 1].tolist() == list(kernel_synth.PERIODS)
