"""Optimisers, schedules and path-labelled groups.

Rules are ordered (path pattern, value) pairs matched with `re.search` against paths such as
``model/blocks/time_attention/q/kernel``; the first match wins. Frozen leaves leave the parameter
tree before differentiation, so they cost neither gradient nor moments; weight decay and learning
rate multipliers are numbers per leaf.

The transformation returned by `transformation` yields a descent *direction*; the train step
multiplies it by the scheduled learning rate at the state's step, so that a skipped step moves the
schedule like any other.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from tsmjax.config import Duration, steps_of
from tsmjax.errors import InputError
from tsmjax.nn import lora
from tsmjax.nn.functional import Tree, flatten, unflatten

Schedule = Literal["cosine", "linear", "constant", "exponential", "one_cycle"]
# Biases and norm scales are not decayed, as in the reference trainers.
DEFAULT_DECAY = ((r"(^|/)(bias|scale)$", 0.0),)
_ADAPTERS, _BESIDE_ADAPTERS = (lora.LEAF, False), (r"^model/", True)
Rules = Sequence[tuple[str, Any]]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of the learning rate; phases are joined end to end.

    Attributes:
      schedule: shape of the curve after warm-up.
      length: duration; the last phase may leave it out and takes what is left.
      lr: peak learning rate.
      warmup: linear rise from `start` to `lr`, inside `length`.
      final: last learning rate as a share of `lr` (cosine, linear, exponential, one_cycle).
      start: learning rate of the first step of a warm-up, as a share of `lr`.
    """

    schedule: Schedule = "cosine"
    length: Duration | None = None
    lr: float = 1e-4
    warmup: Duration = 0
    final: float = 0.0
    start: float = 0.0


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters beside a frozen model.

    Attributes:
      rank: rank of the updates; 0 adds no adapters and trains the model itself.
      alpha: an update is scaled by alpha / rank.
      targets: (pattern, adapted?) rules on paths of projections, such as
        ``model/blocks/time_attention/q``; empty for the family's own.
    """

    rank: int = 0
    alpha: float = 16.0
    targets: tuple[tuple[str, bool], ...] = ()

    def __post_init__(self):
        """Check the ranges that no type can."""
        if self.rank < 0:
            raise InputError(f"optim.lora.rank is {self.rank}, but must be at least 0.")


@dataclasses.dataclass(frozen=True)
class SwaConfig:
    """Stochastic weight averaging: the plain mean of the parameters at the end of some epochs.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima" (2018), algorithm 1.

    Attributes:
      start: when the first parameters enter the mean, as "75%"; "" for no averaging.
      every: distance between those that enter.
      lr: learning rate from `start` on; 0 keeps the schedule's, which may end so low that all
        parameters in the mean are alike.
    """

    start: Duration = ""
    every: Duration = "1 epochs"
    lr: float = 0.0


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """How to optimise, and for how long.

    Attributes:
      optimizer: "adamw" (decoupled decay) or "sgd" (Nesterov momentum, decay added to gradients).
      length: duration of the run.
      lr: peak learning rate.
      schedule: shape of the curve after warm-up.
      warmup: linear rise from `start` to `lr`, part of `length`.
      final: last learning rate as a share of `lr`.
      start: learning rate of the first step of the warm-up, as a share of `lr`.
      phases: replaces `lr`, `schedule`, `warmup`, `final` and `start` by several phases.
      stepping: the learning rate moves with every step, or once an "epoch" as in many PyTorch
        trainers: all of its steps have the rate of the first.
      b1: decay of the first moment (adamw).
      b2: decay of the second moment (adamw).
      eps: added to the root of the second moment (adamw).
      momentum: momentum (sgd).
      nesterov: look-ahead momentum (sgd).
      weight_decay: weight decay of leaves that no rule of `decay` matches.
      decay: (pattern, weight decay) rules, before the default that spares biases and norm scales.
      lr_scale: (pattern, multiplier of the learning rate) rules.
      freeze: (pattern, frozen?) rules; leaves without a match are trained, or, beside adapters,
        frozen when they are the model's.
      lora: train low-rank adapters instead of the model.
      int8: (pattern, small?) rules on paths of frozen projections, such as ``model/llm/``, whose
        kernels are kept in one byte a weight.
      clip: largest global gradient norm; 0 turns clipping off.
      accumulate: micro-batches per step; sums and weights are added, never means.
      average: decay of the exponential moving average of the parameters; 0 keeps none.
      swa: their plain average over the last part of the run, instead.
      precision: type of the forward and backward pass; masters and moments are float32 always.
        "float16", for GPUs without bfloat16, scales the loss so that gradients do not vanish.
      loss_scale: factor of the loss at the start, with "float16". A step that overflows changes
        nothing and halves it; 2,000 steps without one double it.
      max_bad_steps: consecutive non-finite steps after which training stops.
      nan_policy: what a non-finite step does: leave everything as it was ("keep_old"); or, beside
        that, set statistics of BatchNorm back to mean 0 and variance 1 ("reset_bn"), which a net
        that has trained for long does not survive; or stop training at once ("raise").
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    length: Duration = "1000 steps"
    lr: float = 1e-4
    schedule: Schedule = "cosine"
    warmup: Duration = 0
    final: float = 0.0
    start: float = 0.0
    phases: tuple[Phase, ...] = ()
    stepping: Literal["step", "epoch"] = "step"
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 0.0
    decay: tuple[tuple[str, float], ...] = ()
    lr_scale: tuple[tuple[str, float], ...] = ()
    freeze: tuple[tuple[str, bool], ...] = ()
    lora: LoraConfig = LoraConfig()
    int8: tuple[tuple[str, bool], ...] = ()
    clip: float = 1.0
    accumulate: int = 1
    average: float = 0.0
    swa: SwaConfig = SwaConfig()
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    loss_scale: float = 4096.0
    max_bad_steps: int = 20
    nan_policy: Literal["keep_old", "reset_bn", "raise"] = "keep_old"

    def __post_init__(self):
        """Check the ranges that no type can."""
        if self.precision == "float16" and self.nan_policy == "raise":
            raise InputError(
                "optim.nan_policy is 'raise', but with optim.precision 'float16' steps overflow "
                "now and then: use 'keep_old'."
            )
        if self.nan_policy == "raise":
            object.__setattr__(self, "max_bad_steps", 1)
        if self.accumulate < 1:
            raise InputError(f"optim.accumulate is {self.accumulate}, but must be at least 1.")
        if not 0 <= self.average < 1:
            raise InputError(f"optim.average is {self.average}, but must be in [0, 1).")
        if self.average and self.swa.start:
            raise InputError("optim.average and optim.swa.start are both set: choose one average.")
        if self.swa.lr and not self.swa.start:
            raise InputError("optim.swa.lr is set, but optim.swa.start is not: say when it begins.")
        for phase in self.phases[:-1]:
            if phase.length is None:
                raise InputError("Every entry of optim.phases but the last needs a length.")

    @property
    def averages(self) -> bool:
        """Whether an average of the parameters is kept."""
        return bool(self.average or self.swa.start)


def averaging(
    config: OptimConfig, total: int, steps_per_epoch: float | None = None
) -> optax.Schedule:
    """Build step → share of the old average in the new one; the step is that of the update, from 0.

    A plain mean forgets everything up to its start, then moves only when parameters enter it, the
    n-th of them with a share of 1 / n.

    Raises:
      InputError: when the mean starts behind the end, or epochs are asked of data without any.
    """
    if not config.swa.start:
        return lambda step: config.average
    start = steps_of(config.swa.start, "optim.swa.start", steps_per_epoch, total)
    every = max(steps_of(config.swa.every, "optim.swa.every", steps_per_epoch, total), 1)
    if start >= total:
        raise InputError(f"optim.swa.start is {start:,} steps, but the run has {total:,}.")

    def share(step: jax.Array) -> jax.Array:
        since = step + 1 - start
        entered = jnp.maximum(since, 0) // every
        moving = jnp.where(since % every == 0, entered / (entered + 1), 1.0)
        return jnp.where(since <= 0, 0.0, moving)

    return share


def learning_rate(
    config: OptimConfig, total: int, steps_per_epoch: float | None = None
) -> optax.Schedule:
    """Build step → learning rate for a run of `total` steps.

    Warm-up is linear and reaches the peak at its last step + 1, as in Hugging Face's schedules: the
    rate at step t of a warm-up of w steps from 0 is ``lr * t / w``.

    Raises:
      InputError: when phases do not fit, or epochs are asked of data without any.
    """
    phases = config.phases or (
        Phase(config.schedule, total, config.lr, config.warmup, config.final, config.start),
    )
    pieces, ends, start = [], [], 0
    for index, phase in enumerate(phases):
        where = f"optim.phases[{index}]" if config.phases else "optim"
        length = total - start
        if phase.length is not None:
            length = steps_of(phase.length, f"{where}.length", steps_per_epoch, total)
        warmup = steps_of(phase.warmup, f"{where}.warmup", steps_per_epoch, length)
        if length < 1 or warmup > length:
            raise InputError(
                f"{where} has a length of {length} steps and a warm-up of {warmup}: it needs at "
                "least one step, and a warm-up no longer than its length."
            )
        pieces.append(_phase(phase, length, warmup))
        start += length
        ends.append(start)
    curve = optax.join_schedules(pieces, ends[:-1])
    if config.swa.lr:
        from_here = steps_of(config.swa.start, "optim.swa.start", steps_per_epoch, total)
        curve = optax.join_schedules([curve, lambda step: config.swa.lr], [from_here])
    if config.stepping == "step":
        return curve
    if steps_per_epoch is None:
        raise InputError("optim.stepping is 'epoch', but these data have no epochs: use 'step'.")
    # The small constant: 3.0 epochs must not round to 2.999….
    return lambda step: curve(jnp.floor(step / steps_per_epoch + 1e-4) * steps_per_epoch)


def _phase(phase: Phase, length: int, warmup: int) -> optax.Schedule:
    """Step → learning rate inside one phase."""
    rest = max(length - warmup, 1)
    low = phase.final * phase.lr
    if phase.schedule == "one_cycle":
        # Smith & Topin 2019, as in PyTorch's default: cosine up from lr/25, cosine down.
        rise = warmup or max(round(0.3 * length), 1)
        up = optax.cosine_decay_schedule(1.0, rise)
        start = phase.lr / 25
        floor = low or start / 1e4
        fall = optax.cosine_decay_schedule(phase.lr, max(length - rise, 1), floor / phase.lr)
        return optax.join_schedules([lambda t: phase.lr + (start - phase.lr) * up(t), fall], [rise])
    if phase.schedule == "exponential" and not phase.final:
        raise InputError("optim.schedule 'exponential' needs optim.final above 0.")
    curve = {
        "cosine": lambda: optax.cosine_decay_schedule(phase.lr, rest, phase.final),
        "linear": lambda: optax.linear_schedule(phase.lr, low, rest),
        "constant": lambda: optax.constant_schedule(phase.lr),
        "exponential": lambda: optax.exponential_decay(phase.lr, rest, phase.final),
    }[phase.schedule]()
    if not warmup:
        return curve
    rise = optax.linear_schedule(phase.start * phase.lr, phase.lr, warmup)
    return optax.join_schedules([rise, curve], [warmup])


@dataclasses.dataclass(frozen=True)
class Groups:
    """What the rules decide, as one number per trainable leaf (nested like the parameters)."""

    decay: Tree
    lr_scale: Tree


def groups(config: OptimConfig, params: Tree) -> Groups:
    """Resolve decay and learning-rate rules on the (abstract) trainable parameters."""
    paths = list(flatten(params))
    decay = first_match(config.decay, paths, "optim.decay")
    default = first_match(DEFAULT_DECAY, paths, "")
    scale = first_match(config.lr_scale, paths, "optim.lr_scale")

    def decay_of(path: str) -> float:
        return decay.get(path, default.get(path, config.weight_decay))

    return Groups(
        decay=unflatten({path: decay_of(path) for path in paths}),
        lr_scale=unflatten({path: scale.get(path, 1.0) for path in paths}),
    )


def adapted(config: LoraConfig, defaults: Rules, paths: list[str]) -> list[str]:
    """Choose the projections that get an adapter.

    Args:
      config: how to adapt.
      defaults: the family's (pattern, adapted?) rules, for a config without targets.
      paths: paths of all projections.

    Raises:
      InputError: when there are no rules, one matches nothing, or none chooses a projection.
    """
    rules = first_match(config.targets or tuple(defaults), paths, "optim.lora.targets")
    chosen = [path for path in paths if rules.get(path, False)]
    if not chosen:
        raise InputError(
            "optim.lora.targets chooses no projection; the model has "
            f"{', '.join(paths[:4]) or 'none'}{', …' if len(paths) > 4 else ''}."
        )
    return chosen


def frozen(config: OptimConfig, paths: list[str], defaults: Rules = ()) -> set[str]:
    """Choose the parameters that are never trained.

    Args:
      config: how to optimise.
      paths: paths of all parameters.
      defaults: the task's (pattern, frozen?) rules, for leaves that no rule of ``optim.freeze``
        matches; adapters train whatever they say.

    Raises:
      InputError: when a rule of ``optim.freeze`` matches nothing.
    """
    rules = first_match(config.freeze, paths, "optim.freeze")
    own = (_ADAPTERS, *defaults, *((_BESIDE_ADAPTERS,) if config.lora.rank else ()))
    rules = first_match(own, paths, "") | rules
    return {path for path in paths if rules.get(path, False)}


def first_match(rules: Rules, paths: list[str], where: str) -> dict[str, Any]:
    """Map each path to the value of the first rule whose pattern it contains.

    Args:
      rules: ordered (pattern, value) pairs.
      paths: parameter paths.
      where: the config field the rules come from; "" for built-in rules, which may match nothing.

    Raises:
      InputError: for a pattern that is no regular expression, or that matches no path.
    """
    matched, used = {}, set()
    for position, (pattern, _) in enumerate(rules):
        try:
            expression = re.compile(pattern)
        except re.error as error:
            raise InputError(f"{where} has the pattern {pattern!r}: {error}.") from error
        hits = [path for path in paths if expression.search(path)]
        if hits:
            used.add(position)
        for path in hits:
            matched.setdefault(path, position)
    unused = [rules[i][0] for i in range(len(rules)) if i not in used]
    if unused and where:
        raise InputError(
            f"{where} has the pattern {unused[0]!r}, which matches no parameter; paths look like "
            f"{paths[0] if paths else '(there are none)'}."
        )
    return {path: rules[position][1] for path, position in matched.items()}


def transformation(config: OptimConfig, group: Groups) -> optax.GradientTransformation:
    """Build gradients → descent direction, before the learning rate is applied."""

    def add_decay(updates: Tree, params: Tree) -> Tree:
        return jax.tree.map(lambda u, p, d: u + d * p if d else u, updates, params, group.decay)

    decay = optax.stateless(add_decay)
    scale = optax.stateless(
        lambda updates, params: jax.tree.map(
            lambda u, s: u if s == 1.0 else s * u, updates, group.lr_scale
        )
    )
    if config.optimizer == "adamw":
        adam = optax.scale_by_adam(config.b1, config.b2, config.eps, mu_dtype=jnp.float32)
        return optax.chain(adam, decay, scale)
    return optax.chain(decay, optax.trace(config.momentum, config.nesterov), scale)
