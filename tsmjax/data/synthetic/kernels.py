"""KernelSynth on the device: Gaussian processes by random features, in float32.

The kernel bank is that of `kernel_synth`, which draws exactly, in float64 and 10 times slower or
more. Here a stationary kernel is the expectation of cos 2πω(x − x′) over its spectral measure
(Rahimi and Recht, "Random Features for Large-Scale Kernel Machines", 2007), and a composite has
features of its own: those of a sum come from either term in proportion to the variances, and the
frequencies of a product are sums of frequencies. The dot product x·x′ + c² is a feature x or c; the
white kernel is kept apart and exact, as a variance that is a polynomial in x².
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tsmjax.data.synthetic.calendar import Calendar
from tsmjax.data.synthetic.draws import Draws, choose, cosine, normal_of, uniforms
from tsmjax.data.synthetic.kernel_synth import MAX_KERNELS, PERIODS

FEATURES = 256
_POWERS = MAX_KERNELS + 1
_ATTEMPTS = 4  # of the gamma sampler; all fail in one of a million draws
# Harmonics of exp(−2 sin²(πd/p)) = exp(−1) · exp(cos(2πd/p)): modified Bessel functions of 1.
_BESSEL = np.asarray(
    [
        math.exp(-1)
        * sum(0.5 ** (2 * m + n) / (math.factorial(m) * math.factorial(m + n)) for m in range(12))
        for n in range(8)
    ]
)
_HARMONICS = np.cumsum(_BESSEL * np.r_[1.0, np.full(7, 2.0)])

# The bank of `kernel_synth.bank`, as (kind, parameter): what to draw and with which parameter.
_CONSTANT, _WHITE, _DOT, _RBF, _RATIONAL, _PERIODIC = range(6)
BANK = np.asarray(
    [
        (_CONSTANT, 1.0),
        *((_WHITE, level) for level in (0.1, 1.0)),
        *((_DOT, offset) for offset in (0.0, 1.0, 10.0)),
        *((_RBF, scale) for scale in (0.1, 1.0, 10.0)),
        *((_RATIONAL, alpha) for alpha in (0.1, 1.0, 10.0)),
        *((_PERIODIC, period) for period in PERIODS),
    ],
    np.float32,
)


def sample(key: jax.Array, calendar: Calendar, season: jax.Array) -> jax.Array:
    """Return one draw of a Gaussian process with a random kernel, (length,)."""
    keys = jax.random.split(key, 2)
    draws = Draws(keys[0], 2 * MAX_KERNELS + 1)
    number = draws.integer(1, MAX_KERNELS + 1)
    chosen = draws.integer(0, len(BANK), shape=(MAX_KERNELS,))
    products = draws.uniform(shape=(MAX_KERNELS,)) < 0.5
    return process(keys[1], chosen, products, number, calendar.time.shape[0])


def process(
    key: jax.Array, chosen: jax.Array, products: jax.Array, number: jax.Array, length: int
) -> jax.Array:
    """Return one draw of the Gaussian process of a composite kernel on `length` points of [0, 1].

    Args:
      key: of this draw.
      chosen: (MAX_KERNELS,) int32, entries of the bank, joined from left to right.
      products: (MAX_KERNELS,) bool, whether entry i is multiplied to what is before it, not added.
      number: how many entries count.
      length: number of points.
    """
    keys = jax.random.split(key, MAX_KERNELS + 2)
    points = jnp.linspace(0.0, 1.0, length)
    joined = (keys[2:], chosen, products, jnp.arange(MAX_KERNELS) < number)
    nothing = _Composite(*jnp.zeros((2, FEATURES)), jnp.float32(0), *jnp.zeros((2, _POWERS)))
    (frequency, power, mass, white, _), _ = jax.lax.scan(
        lambda before, entry: (_joined(before, length, *entry), None), nothing, joined
    )
    # a·cos + b·sin with normal a and b is one wave of random height and phase.
    a, b = jax.random.normal(keys[0], (2, FEATURES)) * jnp.sqrt(mass / FEATURES)
    waves = jnp.sqrt(a**2 + b**2), frequency, jnp.arctan2(b, a) / (2 * jnp.pi), power

    def add(total: jax.Array, wave: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        height, frequency, phase, power = wave
        value = height * cosine(points * frequency - phase)
        for degree in range(MAX_KERNELS):
            value *= jnp.where(power > degree, points, 1.0)
        return total + value, None

    total, _ = jax.lax.scan(add, jnp.zeros(length), waves)
    variance = (points[:, None] ** (2 * jnp.arange(_POWERS))) @ white
    return total + jnp.sqrt(variance) * jax.random.normal(keys[1], (length,))


class _Composite(NamedTuple):
    """The kernel of the entries joined so far.

    Attributes:
      frequency: (FEATURES,) of each feature, in cycles per unit.
      power: (FEATURES,) power of x that each feature has as a factor.
      mass: scalar, mean square of a feature's amplitude.
      white: (_POWERS,) coefficients of x⁰, x², x⁴ … of the white variance.
      whole: (_POWERS,) the same of the whole variance.
    """

    frequency: jax.Array
    power: jax.Array
    mass: jax.Array
    white: jax.Array
    whole: jax.Array


def _joined(
    old: _Composite,
    length: int,
    key: jax.Array,
    entry: jax.Array,
    multiplied: jax.Array,
    counts: jax.Array,
) -> _Composite:
    """Return `old` with one more entry of the bank; unchanged when that does not count."""
    kind = jnp.asarray(BANK[:, 0])[entry].astype(jnp.int32)
    parameter = jnp.asarray(BANK[:, 1])[entry]
    frequency, power, side = _features(key, kind, parameter, length)
    is_white, is_dot = kind == _WHITE, kind == _DOT
    mass = choose((is_white + 2 * is_dot).astype(jnp.int32), 1.0, 0.0, 1.0 + parameter**2)
    unit = (jnp.arange(_POWERS) == 0).astype(jnp.float32)
    white = jnp.where(is_white, parameter, 0.0) * unit
    dot = jnp.roll(unit, 1) + parameter**2 * unit
    whole = white + jnp.where(is_dot, dot, mass * unit)

    take = side * (old.mass + mass) < mass
    added = _Composite(
        jnp.where(take, frequency, old.frequency),
        jnp.where(take, power, old.power),
        old.mass + mass,
        old.white + white,
        old.whole + whole,
    )
    product = _product(old.whole, whole)
    times = _Composite(
        old.frequency + frequency,
        old.power + power,
        old.mass * mass,
        # White times anything is white.
        jnp.where(is_white, product, _product(old.white, whole)),
        product,
    )
    # The first entry has nothing before it to be multiplied to.
    multiplied = multiplied & (old.whole.sum() > 0)
    joined = jax.tree.map(functools.partial(jnp.where, multiplied), times, added)
    return jax.tree.map(functools.partial(jnp.where, counts), joined, old)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Return the product of two polynomials of degree `_POWERS` − 1, cut to that degree."""
    return sum(a[k] * jnp.pad(b, (k, 0))[:_POWERS] for k in range(_POWERS))


def _features(
    key: jax.Array, kind: jax.Array, parameter: jax.Array, length: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return frequencies and powers of one kernel's features, and a uniform draw for each."""
    uniform, side, *rest = uniforms(key, (4 + 2 * _ATTEMPTS, FEATURES))
    normal, rest = normal_of(rest[0]), jnp.stack(rest[1:])
    harmonic = (uniform[:, None] > _HARMONICS[:-1].astype(np.float32)).sum(axis=1)
    # Periods are steps, the points of [0, 1] are length − 1 steps apart.
    turn = harmonic * length / parameter
    zero = jnp.zeros(FEATURES)
    frequency = choose(
        kind,
        zero,
        zero,
        zero,
        normal / (2 * jnp.pi * parameter),
        normal * jnp.sqrt(_gamma(rest, parameter)) / (2 * jnp.pi),
        jnp.sign(normal) * turn,
    )
    offset_share = parameter**2 / (1 + parameter**2)
    power = jnp.where((kind == _DOT) & (uniform > offset_share), 1.0, 0.0)
    return frequency, power, side


def _gamma(uniform: jax.Array, shape: jax.Array) -> jax.Array:
    """Return draws of the gamma distribution with mean 1, (FEATURES,).

    A rational quadratic kernel is a mixture of RBF kernels whose precision has this distribution.
    Marsaglia and Tsang, "A simple method for generating gamma variables" (2000), with a fixed
    number of attempts.

    Args:
      uniform: (1 + 2 · _ATTEMPTS, FEATURES).
      shape: scalar.
    """
    d = jnp.where(shape < 1, shape + 1, shape) - 1 / 3
    normal = normal_of(uniform[1 : _ATTEMPTS + 1])
    cube = jnp.maximum(1 + normal * jax.lax.rsqrt(9 * d), 1e-4) ** 3
    limit = 0.5 * normal**2 + d - d * cube + d * jnp.log(cube)
    accepted = jnp.log(uniform[_ATTEMPTS + 1 :]) < limit
    drawn = d * cube[-1]
    for attempt in reversed(range(_ATTEMPTS - 1)):
        drawn = jnp.where(accepted[attempt], d * cube[attempt], drawn)
    boost = jnp.where(shape < 1, uniform[0] ** (1 / jnp.minimum(shape, 1.0)), 1.0)
    return drawn * boost / shape
