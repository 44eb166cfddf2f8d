"""Where training begins: at its own checkpoint, at another run's, from weights, or afresh."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from tsmjax import checkpoint, pretrained
from tsmjax import state as state_lib
from tsmjax.checkpoint import Checkpointer
from tsmjax.config import Config
from tsmjax.nn.functional import Tree
from tsmjax.tasks import Task

log = logging.getLogger(__name__)


@dataclasses.dataclass
class Start:
    """Where training begins: state, frozen leaves, step, and facts kept on the host."""

    state: Tree
    frozen: Tree
    step: int
    facts: dict[str, Any]


def begin(
    config: Config,
    run: Path,
    plan: state_lib.Blueprint,
    init: Callable[[jax.Array], tuple[Tree, Tree]],
    abstract: Tree,
    abstract_frozen: Tree,
    checkpointer: Checkpointer,
    task: Task,
) -> Start:
    """Own run folder, else `resume_from`, else `init_from`, else fresh parameters."""
    settings = config.checkpoint
    if checkpointer.latest is not None:
        state, meta = checkpointer.restore_latest(abstract)
        frozen = checkpoint.load_frozen(run, abstract_frozen) or abstract_frozen
        log.info("Resuming %s after step %s.", run, f"{meta['step']:,}")
        return Start(state, frozen, meta["step"], meta["facts"])
    if settings.resume_from:
        other, at = checkpoint.find(settings.resume_from, default="latest")
        source = Checkpointer(other, settings, config.evals.mode)
        state, meta = source.restore(abstract, at)
        source.close()
        frozen = checkpoint.load_frozen(other, abstract_frozen) or abstract_frozen
        log.info("Continuing %s after step %s in a new run.", other, f"{at:,}")
        facts = {"monitor": meta["facts"]["monitor"]}
        found = Start(state, frozen, at, facts)
    else:
        state, frozen = fresh_state(config, plan, init, task)
        found = Start(state, frozen, 0, {})
    if jax.tree.leaves(found.frozen):
        teachers = ", ".join(task.teachers.values())
        source = settings.init_from or settings.resume_from or f"seed {config.seed}"
        source = f"{source}; teachers {teachers}" if teachers else source
        checkpoint.save_frozen(run, found.frozen, source)
    return found


def fresh_state(
    config: Config,
    plan: state_lib.Blueprint,
    init: Callable[[jax.Array], tuple[Tree, Tree]],
    task: Task,
) -> tuple[Tree, Tree]:
    """Make state and frozen leaves of step 0: fresh, or with the weights that the config names.

    Args:
      config: the config; ``checkpoint.init_from`` comes before the task's `parts`.
      plan: the task's modules.
      init: makes fresh leaves.
      task: names checkpoints of parts of the model, which count when there is no `init_from`, and
        of teachers.
    """
    state, frozen = init(jax.random.key(config.seed))
    settings = config.checkpoint
    for path, source in task.teachers.items():
        loaded = pretrained.load(source)
        chosen, note = pretrained.fit(
            loaded.params, plan.frozen_params(path), (), f"{loaded.source} for the teacher {path}"
        )
        frozen = state_lib.replace_frozen(frozen, path, chosen, loaded.stats)
        log.info("Teacher: %s.", note)
    for name, source in task.parts.items() if not settings.init_from else ():
        loaded = pretrained.load(source, default="final")
        chosen, note = pretrained.fit(
            loaded.params, plan.model_params()[name], (), f"{loaded.source} for model.{name}"
        )
        chosen = {name: chosen, **task.follow(name, chosen)}
        state, frozen = state_lib.replace_model(state, frozen, chosen, {})
        log.info("%s.", note)
    if settings.init_from:
        loaded = pretrained.load(settings.init_from, default="final")
        chosen, note = pretrained.fit(
            loaded.params, plan.model_params(), settings.init_skip, loaded.source
        )
        state, frozen = state_lib.replace_model(state, frozen, chosen, loaded.stats)
        log.info("%s.", note)
    return state, frozen
