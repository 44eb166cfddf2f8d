"""Schedules, rules and update formulas, against PyTorch and Hugging Face."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsmjax import optim
from tsmjax.config import build, steps_of
from tsmjax.errors import InputError

PARAMS = {
    "model": {
        "hidden": {"kernel": jnp.ones((3, 2)), "bias": jnp.ones(2)},
        "norm": {"scale": jnp.ones(2)},
    }
}


def rates(config: optim.OptimConfig, total: int, epoch: float | None = None) -> np.ndarray:
    schedule = optim.learning_rate(config, total, epoch)
    return np.array([schedule(t) for t in range(total)])


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_schedule_equals_hugging_face(name):
    from transformers import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1e-3)
    hf_name = "constant_with_warmup" if name == "constant" else name
    reference = get_scheduler(hf_name, optimizer, num_warmup_steps=5, num_training_steps=40)
    expected = []
    for _ in range(40):
        expected.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    found = rates(optim.OptimConfig(lr=1e-3, schedule=name, warmup=5), 40)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-10)


def test_one_cycle_equals_pytorch():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    # PyTorch reaches the end points at steps 0.3·total − 1 and total − 1; ours at 0.3·n and n of
    # an n = total − 1 step run, so the reference is asked for one step more.
    reference = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1e-2, total_steps=101, pct_start=31 / 101
    )
    expected = []
    for _ in range(100):
        expected.append(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    found = rates(optim.OptimConfig(lr=1e-2, schedule="one_cycle", warmup=30), 100)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_exponential_ends_at_its_final_share():
    found = rates(optim.OptimConfig(lr=1.0, schedule="exponential", final=0.01), 101)
    np.testing.assert_allclose(found[50], 0.01**0.495, rtol=0.02)
    assert found[0] == 1.0
    assert np.all(np.diff(np.log(found)) < 0)


@settings(deadline=None, max_examples=25)
@given(
    first=st.integers(5, 40),
    warmup=st.integers(0, 5),
    rest=st.integers(5, 40),
    final=st.floats(0.01, 1.0),
)
def test_phases_join_end_to_end(first, warmup, rest, final):
    phases = (
        optim.Phase("cosine", first, lr=1.0, warmup=warmup, final=final),
        optim.Phase("linear", None, lr=final),
    )
    total = first + rest
    found = rates(optim.OptimConfig(phases=phases), total)
    # No jump where the phases meet: the second starts where the first ends.
    assert abs(found[first] - final) < 1e-5
    largest = max(1.0 / max(warmup, 1), 2.0 / (first - warmup + 1e-9), final / rest) + 1e-5
    assert np.abs(np.diff(found)).max() <= largest


def test_warmup_in_epochs_and_shares():
    config = optim.OptimConfig(lr=1.0, schedule="constant", warmup="0.5 epochs")
    np.testing.assert_allclose(rates(config, 40, 20.0)[[0, 5, 10, 11]], [0, 0.5, 1, 1])
    config = optim.OptimConfig(lr=1.0, schedule="constant", warmup="25%")
    np.testing.assert_allclose(rates(config, 40)[[5, 10]], [0.5, 1])


@pytest.mark.parametrize(
    ("text", "steps"), [(7, 7), ("1_000", 1000), ("2 epochs", 50), ("10 %", 20), ("3 steps", 3)]
)
def test_durations(text, steps):
    assert steps_of(text, "optim.length", steps_per_epoch=25, total=200) == steps


@pytest.mark.parametrize("text", ["soon", "1.5 steps", "-3", "2 epochs", "1%"])
def test_wrong_durations_name_the_field(text):
    with pytest.raises(InputError, match=r"optim\.length"):
        steps_of(text, "optim.length")


def test_first_rule_wins_and_the_rest_follow_the_default():
    config = optim.OptimConfig(
        weight_decay=0.1, decay=(("norm", 0.5),), lr_scale=(("hidden/kernel", 2.0), ("hidden", 3.0))
    )
    group = optim.groups(config, PARAMS)
    assert group.decay["model"] == {"hidden": {"kernel": 0.1, "bias": 0.0}, "norm": {"scale": 0.5}}
    assert group.lr_scale["model"]["hidden"] == {"kernel": 2.0, "bias": 3.0}
    assert group.lr_scale["model"]["norm"] == {"scale": 1.0}


@pytest.mark.parametrize("field", ["decay", "lr_scale"])
def test_a_rule_that_matches_nothing_is_an_error(field):
    config = optim.OptimConfig(**{field: (("encoder", 0.0),)})
    with pytest.raises(InputError, match=f"optim.{field} has the pattern 'encoder'"):
        optim.groups(config, PARAMS)


def test_a_broken_pattern_is_named():
    with pytest.raises(InputError, match=r"optim\.decay has the pattern '\('"):
        optim.groups(optim.OptimConfig(decay=(("(", 0.0),)), PARAMS)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_updates_equal_pytorch(name):
    """Twenty steps on a quadratic: the same path as torch's AdamW and SGD with Nesterov."""
    rng = np.random.default_rng(0)
    start, curvature = rng.normal(size=(4, 3)), rng.uniform(0.5, 2.0, (4, 3))
    weight = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    if name == "adamw":
        reference = torch.optim.AdamW([weight], lr=0.05, weight_decay=0.1)
    else:
        reference = torch.optim.SGD(
            [weight], lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1
        )
    config = optim.OptimConfig(optimizer=name, weight_decay=0.1)
    params = {"kernel": jnp.asarray(start, jnp.float32)}
    tx = optim.transformation(config, optim.groups(config, params))
    opt = tx.init(params)
    for _ in range(20):
        reference.zero_grad()
        (torch.tensor(curvature, dtype=torch.float32) * weight**2).sum().backward()
        reference.step()
        grads = {"kernel": 2 * jnp.asarray(curvature, jnp.float32) * params["kernel"]}
        direction, opt = tx.update(grads, opt, params)
        params = jax.tree.map(lambda p, d: p - 0.05 * d, params, direction)
    # Adam divides by 1 - 0.999^t, which has five digits in float32; PyTorch takes float64 there.
    np.testing.assert_allclose(params["kernel"], weight.detach().numpy(), atol=1e-5)


def test_config_values_are_checked():
    with pytest.raises(InputError, match=r"optim\.learning_rate does not exist.*"):
        build(optim.OptimConfig, {"learning_rate": 1e-3}, "optim")
    with pytest.raises(InputError, match=r"optim\.schedule is 'cosin'.*did you mean 'cosine'"):
        build(optim.OptimConfig, {"schedule": "cosin"}, "optim")
    with pytest.raises(InputError, match=r"optim\.lr is 'fast'"):
        build(optim.OptimConfig, {"lr": "fast"}, "optim")
    phases = build(optim.OptimConfig, {"phases": [{"length": 5}, {}]}, "optim").phases
    assert phases == (optim.Phase(length=5), optim.Phase())


def test_the_plain_mean_takes_in_the_parameters_at_the_ends_of_epochs():
    config = optim.OptimConfig(swa=optim.SwaConfig(start="40%", every="1 epochs"))
    share = optim.averaging(config, total=10, steps_per_epoch=2.0)
    average, kept = 0.0, []
    for step in range(10):
        parameter = float((step + 1) ** 2)
        average = float(share(step)) * average + (1 - float(share(step))) * parameter
        if step + 1 in (4, 6, 8, 10):
            kept.append(parameter)
        assert average == pytest.approx(np.mean(kept) if kept else parameter)
    assert optim.averaging(optim.OptimConfig(average=0.9), 10)(3) == 0.9
    constant = optim.OptimConfig(lr=1.0, swa=optim.SwaConfig(start="40%", lr=0.05))
    curve = optim.learning_rate(constant, 10)
    assert float(curve(3)) > 0.5 and float(curve(4)) == pytest.approx(0.05)
    for values, message in (
        ({"average": 0.9, "swa": optim.SwaConfig(start=1)}, "both set"),
        ({"swa": optim.SwaConfig(lr=0.1)}, "say when it begins"),
    ):
        with pytest.raises(InputError, match=message):
            optim.OptimConfig(**values)
    late = optim.OptimConfig(swa=optim.SwaConfig(start=10, every=1))
    with pytest.raises(InputError, match="is 10 steps, but the run has 10"):
        optim.averaging(late, 10)
