"""Ablations of the skeleton models: parameters of each, what differs, and sweeps over them."""

import jax
import jax.numpy as jnp
import pytest

from configs import last_ablations
from tsmjax.config import resolve
from tsmjax.errors import InputError
from tsmjax.experiments import ablations, records, sweep
from tsmjax.models import last
from tsmjax.nn.functional import abstract

LITE = {
    "L0": (54_902, 192_718),
    "L1": (58_502, 202_318),
    **dict.fromkeys(("L2", "L3", "L6"), (63_110, 213_070)),
    **dict.fromkeys(("L4", "L5", "L8", "L9", "L10", "L11", "L12"), (70_278, 227_662)),
    "L7": (66_678, 218_062),
}
BASE = {
    **{"B0": 2_224_512, "B1": 1_914_100, "B2": 1_958_035, "B3": 2_166_403, "B4": 3_635_331},
    **{"B5": 4_065_917, "B6": 4_164_477, "B7": 4_164_477, "B8": 3_956_109, "B9": 4_120_542},
    **{"B10": 3_733_891, "B11": 3_454_333, "B12": 4_164_477, "B13": 4_164_477},
    "B14_bone": 4_164_477,
}


def parameters(variant):
    model = resolve(last_ablations.get_config(variant)).model
    _, params, _ = abstract(lambda rngs: last.Model(model, rngs=rngs))
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.fixture(autouse=True)
def no_draws(monkeypatch):
    """Shapes need no random numbers, whose tracing takes most of the time."""
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: jnp.zeros(shape))


@pytest.mark.parametrize("variant", ["L0", "L7"])
def test_parameters_of_the_small_nets(variant):
    assert (parameters(f"{variant},nano"), parameters(variant)) == LITE[variant]


@pytest.mark.slow
@pytest.mark.parametrize("variant", LITE)
def test_parameters_of_all_small_nets(variant):
    assert (parameters(f"{variant},nano"), parameters(variant)) == LITE[variant]


@pytest.mark.slow
@pytest.mark.parametrize("variant", BASE)
def test_parameters_of_the_teachers(variant):
    assert parameters(variant) == BASE[variant]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["P0", "P1", "P2", "P3"])
def test_parameters_do_not_depend_on_the_clips(variant):
    assert parameters(variant) == 720_028


def test_every_ablation_resolves_and_says_what_it_is():
    names = {}
    for variant in last_ablations.VARIANTS:
        config = resolve(last_ablations.get_config(variant))
        names[variant] = config.name
        assert resolve(config.to_dict()) == config
    assert len(set(names.values())) == len(names)
    assert len([name for name in names if not name.startswith("B14")]) == 14 + 13 + 4
    crop = resolve(last_ablations.get_config("P1"))
    assert (crop.data.frames, round(300 * crop.task.augment.crop[0])) == (300, 64)
    assert resolve(last_ablations.get_config("B13")).optim.swa.start == "75%"
    assert resolve(last_ablations.get_config("L9")).task.causal == 0.5
    assert resolve(last_ablations.get_config("L10")).task.teachers[0].model.net == "last_e_v3"
    assert resolve(last_ablations.get_config("B5")).task.bottleneck == "none"
    with pytest.raises(InputError, match="no ablation 'B15'"):
        last_ablations.get_config("B15")


def test_a_sweep_runs_variants_and_lays_them_out(tmp_path):
    planned, _ = sweep.plan(
        "configs/last_ablations.py:nano,ucla,/data/ucla",
        ["--config.seed=1"],
        ["variant=L0,L5"],
        *("grid", None, 0),
    )
    first = planned.listed()[0]
    command = planned.command(tmp_path / "run", first)
    assert "--config=configs/last_ablations.py:L0,nano,ucla,/data/ucla" in command
    assert not any(word.startswith("--config.variant") for word in command)
    assert planned.metric == "nw_ucla/top1"
    runs = {}
    for variant, score in (("L0", 0.8), ("L5", None)):
        folder = tmp_path / variant
        config = resolve(last_ablations.get_config(f"{variant},nano,ucla"))
        folder.mkdir()
        from tsmjax.checkpoint import write_json

        write_json(folder / "config.json", config.to_dict())
        if score:
            results = {"best": {"nw_ucla/top1": score}, "test": {}, "parameters": 54_102}
            write_json(folder / "results.json", results)
        runs[variant] = records.Run(folder)
    table = ablations.table(runs, "nw_ucla/top1", "title")
    cells = [list(column.cells) for column in table.columns]
    assert cells[0] == ["L0", "L5"] and cells[1] == ["L0_baseline", "L5_full"]
    assert cells[2] == ["0.80000", "–"] and cells[4] == ["54,102", "–"]
    assert 0.01 < float(cells[5][0]) < 0.05
    assert ablations.plot(runs, "nw_ucla/top1", tmp_path / "bars.png").stat().st_size > 1000
