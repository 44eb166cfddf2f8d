"""Sizes of the skeleton models: parameters of every net, of each stage, and of ablations."""

import functools

import jax
import jax.numpy as jnp
import pytest

from tsmjax.models import last
from tsmjax.models.last import BaseParts, ShiftFuseParts
from tsmjax.nn.functional import abstract, flatten


@pytest.fixture(autouse=True)
def no_draws(monkeypatch):
    """Shapes need no random numbers, whose tracing takes most of the time."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.zeros(shape))


@functools.cache
def sizes_of(**values):
    config = last.Config(**values)
    _, params, _ = abstract(lambda rngs: last.Model(config, rngs=rngs))
    return {path: leaf.size for path, leaf in flatten(params).items()}


def under(sizes, *prefixes):
    return sum(size for path, size in sizes.items() if path.startswith(prefixes))


@pytest.mark.parametrize(
    ("net", "size", "ntu60", "ntu120"),
    [
        ("last_e", "nano", 92_358, 98_178),
        ("last_e", "small", 177_646, 185_386),
        ("last_e", "base", 363_958, 373_618),
        ("last_e", "large", 644_094, 655_674),
        ("last_v2", "small", 4_802_340, None),
        ("last_v2", "base", 9_217_256, None),
        ("last_v2", "large", 14_007_585, None),
        ("last_v2", "small_ref", 2_938_564, None),
        ("last_v2", "large_ref", 19_920_076, None),
        ("last_e_v3", "nano", 82_847, None),
        ("last_e_v3", "small", 344_727, None),
        ("last_e_v3", "base", 720_028, None),
        ("last_e_v3", "large", 1_080_668, None),
        ("last_base", "base", 4_164_477, 4_187_577),
        ("shiftfuse", "nano", 59_302, None),
        ("shiftfuse", "small", 175_894, None),
        ("shiftfuse", "nano_ref", 70_278, 74_178),
        ("shiftfuse", "small_ref", 227_662, 233_482),
    ],
)
def test_number_of_parameters(net, size, ntu60, ntu120):
    sizes = sizes_of(net=net, size=size)
    assert sum(sizes.values()) == ntu60
    assert sizes["classifier/linear/bias"] == 60
    width = sizes["classifier/linear/kernel"] // 60
    if ntu120:
        assert ntu60 + 60 * (width + 1) == ntu120


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ("nano", (210, 2_592, 8_712, 75_024, 5_820)),
        ("small", (274, 4_224, 34_656, 130_752, 7_740)),
        ("base", (338, 14_400, 70_520, 269_040, 9_660)),
        ("large", (402, 26_880, 124_944, 480_288, 11_580)),
    ],
)
def test_parameters_of_the_parts_of_last_e(size, expected):
    sizes = sizes_of(net="last_e", size=size)
    parts = ("stem/", "stages/0/", "stages/1/", "stages/2/", "classifier/")
    assert tuple(under(sizes, part) for part in parts) == expected


def test_parameters_of_the_parts_of_last_base():
    sizes = sizes_of(net="last_base")
    bank = "stages/0/0/gcn/bank/"
    found = (
        under(sizes, "stem/"),
        under(sizes, "stages/0/") - under(sizes, bank),
        under(sizes, "stages/1/"),
        under(sizes, "stages/2/"),
        under(sizes, bank),
        under(sizes, "pool/", "classifier/"),
        under(sizes, "bottleneck/"),
    )
    assert found == (646, 454_458, 1_432_744, 2_144_442, 9_375, 24_252, 98_560)


_BARE = {
    **{"prototypes": False, "frequency_gate": False, "attention": "none"},
    **{"regions": False, "bottleneck": False},
}


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (BaseParts(**{**_BARE, "spatial": "gcn"}), 2_224_512),
        (BaseParts(**_BARE), 1_914_100),
        (BaseParts(**{**_BARE, "prototypes": True}), 1_958_035),
        (BaseParts(**{**_BARE, "prototypes": True, "frequency_gate": True}), 2_166_403),
        (BaseParts(regions=False, bottleneck=False), 3_635_331),
        (BaseParts(bottleneck=False), 4_065_917),
        (BaseParts(frequency_gate=False), 3_956_109),
        (BaseParts(prototypes=False), 4_120_542),
        (BaseParts(regions=False), 3_733_891),
        (BaseParts(attention="joint"), 3_454_333),
        (BaseParts(hidden=100), 4_190_669),
        (BaseParts(hidden=104), 4_216_861),
    ],
)
@pytest.mark.slow
def test_parameters_of_the_ablations_of_last_base(parts, expected):
    assert sum(sizes_of(net="last_base", base=parts).values()) == expected


@pytest.mark.parametrize(
    ("parts", "nano", "small"),
    [
        ({"joint_embedding": "none", "dct_gate": "none", "frame_gate": "none"}, 54_902, 192_718),
        ({"dct_gate": "none", "frame_gate": "none"}, 58_502, 202_318),
        ({"dct_gate": "none"}, 63_110, 213_070),
        ({"joint_embedding": "none"}, 66_678, 218_062),
        ({"shift": "random"}, 70_278, 227_662),
        ({"inner_residual": "subsample"}, 63_654, 212_926),
        ({"inner_residual": "subsample", "joint_embedding": "stage"}, 63_654, 208_726),
        ({"expansion": 1.5}, 62_206, 194_830),
        ({"expansion": 1.0}, 54_134, 161_998),
    ],
)
def test_parameters_of_the_ablations_of_shiftfuse(parts, nano, small):
    for size, expected in (("nano_ref", nano), ("small_ref", small)):
        found = sizes_of(net="shiftfuse", size=size, shiftfuse=ShiftFuseParts(**parts))
        assert sum(found.values()) == expected, size
