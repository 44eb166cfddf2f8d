"""The training loop. It only sequences; read it from top to bottom.

After each step: log, evaluate, save, in this order, so that a checkpoint carries the scores of its
own parameters and a resumed run continues with the next batch. Everything random is a function of
(seed, step), so a resumed run repeats the losses of an uninterrupted one bit for bit.

On several hosts every process runs this same loop: each reads its part of every batch and scores
its part of every suite; process 0 alone writes what is written once.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tsmjax import (
    checkpoint,
    compiler,
    debug,
    distributed,
    environment,
    optim,
    runs,
    sharding,
    step,
    watch,
)
from tsmjax import state as state_lib
from tsmjax.checkpoint import Checkpointer
from tsmjax.config import Config, resolve, steps_of
from tsmjax.data.pipeline import Pipeline
from tsmjax.errors import InputError
from tsmjax.evals.custom import extended
from tsmjax.evals.evaluator import evaluate
from tsmjax.experiments import compare, report
from tsmjax.in_flight import InFlight
from tsmjax.monitor import Facts, Monitor, parameters, provenance, results
from tsmjax.monitor.logs import run_logs, show
from tsmjax.monitor.profiler import Profiler
from tsmjax.nn.functional import Tree
from tsmjax.start import begin

log = logging.getLogger(__name__)


def train(config: Config | Mapping[str, Any], workdir: str | None = None) -> dict[str, Any]:
    """Train as `config` says and return what `results.json` holds.

    Args:
      config: a resolved `Config`, or nested values as a config file gives them.
      workdir: run folder; it is resumed when it holds a checkpoint. None creates a new one under
        ``experiments/``.

    Returns:
      ``{"run", "step", "best_step", "best": {metric: value}, "test": {metric: value}, ...}``.

    Raises:
      InputError: when the config or the data are wrong; one sentence says what to do.
      Preempted: after SIGTERM, once the state is saved; the same call then continues. A program
        that handles SIGTERM itself, or trains off its main thread, is left alone.
    """
    with watch.watching():
        watch.follow(distributed.channel())
        config = config if isinstance(config, Config) else resolve(config)
        config = debug.small(config) if config.debug else config
        run = runs.open_run(config, workdir)
        with run_logs(run):
            return _train(config, run)


def _train(config: Config, run: Path) -> dict[str, Any]:
    started = time.time()
    main = jax.process_index() == 0
    show(distributed.table(), run)
    profiler = Profiler(run / "tensorboard", config.log.profile_steps if main else "")

    # ------------------------------------------------------------------ what to train, how long
    config = dataclasses.replace(config, optim=environment.supported(config.optim))
    mesh = sharding.make_mesh(config.mesh)
    if main:
        provenance.write(run, config.to_dict(), mesh.shape)
    parts = sharding.batch_parts(mesh)
    host, hosts = parts[jax.process_index()], len(set(parts))
    task = config.build_task()
    batches = task.batches("train", host, hosts)
    epoch = batches.steps_per_epoch
    total = steps_of(config.optim.length, "optim.length", epoch)
    log_every = max(steps_of(config.log.every, "log.every", epoch, total), 1)
    health_every = steps_of(config.log.health, "log.health", epoch, total)
    eval_every = steps_of(config.evals.every, "evals.every", epoch, total)
    save_every = steps_of(config.checkpoint.every, "checkpoint.every", epoch, total)
    patience = steps_of(config.evals.patience, "evals.patience", epoch, total)
    schedule = optim.learning_rate(config.optim, total, epoch)
    evaluators = task.evaluators("validation") if eval_every else ()
    evaluators = extended(evaluators, config.evals.custom)
    suites = [evaluator.name for evaluator in evaluators]
    if suites and config.evals.metric.partition("/")[0] not in suites:
        raise InputError(
            f"evals.metric is {config.evals.metric!r}, but the evaluators are "
            f"{', '.join(suites)}; name one of their scores, such as {suites[0]}/METRIC."
        )

    # ------------------------------------------------------------------ state
    plan = state_lib.blueprint(task, config.optim)
    init, abstract, abstract_frozen = state_lib.create(
        task, plan, config.optim, mesh, config.mesh.replicate_below
    )
    rows = state_lib.table(plan, config.optim, abstract, abstract_frozen)
    sizes = state_lib.count(plan.model_params()), state_lib.count(plan.params)
    show(parameters.table(rows, *sizes), run)
    checkpointer = Checkpointer(run, config.checkpoint, config.evals.mode)
    start = begin(config, run, plan, init, abstract, abstract_frozen, checkpointer, task)
    state, frozen, facts = start.state, start.frozen, start.facts
    task.before(frozen)
    monitor = Monitor(
        run,
        config.log,
        total,
        batches.rows,
        start_step=start.step,
        state=facts.get("monitor"),
        facts=Facts(
            every=health_every,
            clip=config.optim.clip,
            metric=config.evals.metric,
            mode=config.evals.mode,
            drawn=getattr(batches, "drawn", None),
            skipped=getattr(batches, "skipped", {}),
        ),
        run_config=config.to_dict(),
    )
    spend = monitor.ledger.spend

    # ------------------------------------------------------------------ compiled functions
    predict = step.make_predict(task, plan, mesh)
    averaging = optim.averaging(config.optim, total, epoch)
    if config.debug:
        places = jax.tree.map(lambda leaf: leaf.sharding, abstract["params"])
        train_step = step.make_train_step(
            task, plan, config.optim, schedule, mesh, places, averaging
        )
        train_step, predict = debug.checked(train_step, task, plan), debug.eager(predict)
    else:
        train_step = step.jit_train_step(
            task, plan, config.optim, schedule, mesh, abstract, averaging=averaging
        )
        predict = compiler.jit(predict, out_shardings=sharding.batch_sharding(mesh))
    key = jax.random.key(config.seed)

    def scores_of(split_evaluators: Any, state: Tree) -> dict[str, float]:
        averaged = config.evals.use_average and state["average"]
        params = state["average"] if averaged else state["params"]

        def forward(batch: dict[str, np.ndarray]) -> np.ndarray:
            watch.poll()
            return _predict_padded(
                lambda placed: predict(params, state["stats"], frozen, placed), batch, mesh
            )

        scores: dict[str, float] = {}
        for evaluator in split_evaluators:
            scores |= evaluate(
                evaluator, forward, host, hosts, lambda sums: distributed.add(sums, parts)
            )
        return scores

    def save(at: int, scores: dict[str, float], final: bool) -> None:
        meta = {
            "config": config.to_dict(),
            "step": at,
            "final": final,
            "artefacts": task.artefacts(),
            "facts": {**facts, "monitor": monitor.state()},
            "mesh": dict(mesh.shape),
            **checkpoint.versions(),
        }
        checkpointer.save(at, state, meta, scores.get(config.evals.metric))

    # ------------------------------------------------------------------ the loop
    flight = InFlight(
        limit=1 if jax.default_backend() == "cpu" else 2,
        max_bad_steps=config.optim.max_bad_steps,
        logged=lambda at: at % log_every == 0 or at == total,
        report=monitor.step,
        watch=monitor.watch,
    )
    now, saved, stopped = start.step, start.step, facts.get("stopped", "")
    pending = facts.pop("pending", False)  # SIGTERM came before this step's scores
    feed = Pipeline(
        batches,
        put=lambda batch: sharding.put_batch(batch, mesh),
        step=start.step,
        workers=config.data.workers,
        prefetch=config.data.prefetch,
    )
    try:
        for now in range(start.step + 1 - pending, (start.step if stopped else total) + 1):
            last = now == total
            scoring = bool(evaluators) and (now % eval_every == 0 or last)
            if now > start.step:
                profiler.before(now)
                with spend("input"):
                    batch = next(feed)
                with spend("step"):
                    state, metrics = train_step(state, frozen, batch, key)
                    monitor.work(task.flops(batch), task.tokens(batch))
                    flight.add(now, metrics, feed.wait_ms)
                if profiler.ends(now):
                    flight.drain()
                    profiler.stop()
                if last:
                    state = task.after(state)
                watch.poll()
            scores: dict[str, float] = {}
            if scoring:
                with spend("step"):
                    flight.drain()
                with spend("evaluation"):
                    scores = scores_of(evaluators, state)
                if config.evals.metric not in scores:
                    raise InputError(
                        f"evals.metric is {config.evals.metric!r}, but the evaluators score "
                        f"{', '.join(sorted(scores)[:8])}."
                    )
                stopped = monitor.scores(now, scores)
                facts = _update_best(facts, now, scores, config)
                if patience and now - facts["best"]["step"] >= patience:
                    stopped = (
                        f"{config.evals.metric} has not improved for {patience:,} steps "
                        f"(best at step {facts['best']['step']:,})"
                    )
                if stopped:
                    facts = {**facts, "stopped": stopped}
                    state = state if last else task.after(state)
            if last or stopped or scores or (save_every and now % save_every == 0):
                with spend("step"):
                    flight.drain()
                with spend("checkpoint"):
                    save(now, scores, final=bool(last or stopped))
                saved = now
            if stopped:
                log.info("Stopping early: %s.", stopped)
                break
    except watch.Preempted:
        if saved < now:
            flight.drain()
            facts = {**facts, "pending": scoring or last}
            save(now, {}, final=False)
        checkpointer.wait()
        log.info("Stopped by SIGTERM after step %s; the same command continues.", f"{now:,}")
        raise
    finally:
        profiler.stop()
        feed.close()
    with spend("checkpoint"):
        checkpointer.wait()

    # ------------------------------------------------------------------ the best, scored once
    best_step = checkpointer.best or now
    if best_step != now:
        state, _ = checkpointer.restore(abstract, best_step)
    test_evaluators = extended(task.evaluators("test"), config.evals.custom)
    with spend("evaluation"):
        test = scores_of(test_evaluators, state) if test_evaluators else {}
    outcome = {
        "run": str(run),
        "step": now,
        "best_step": best_step,
        "metric": config.evals.metric,
        "best": facts.get("best", {}).get("scores", {}),
        "test": test,
        "parameters": state_lib.count(plan.model_params()),
        "trained_parameters": state_lib.count(plan.params),
        "seconds": round(time.time() - started, 1),
        "stopped_early": stopped or None,
        **monitor.outcome(),
    }
    checkpointer.close()
    if main:
        results.write(run, outcome)
        show(results.table(outcome), run)
        if config.log.plots:
            for evaluator in test_evaluators or evaluators:
                evaluator.plot(run / "plots")
            monitor.plot(run / "plots")
            report.write_run(run)
        runs.link_best(run, config.evals.metric, config.evals.mode)
        if run.name.startswith("run_"):
            compare.write_history(run.parent)
    monitor.end(outcome)
    monitor.close()
    distributed.barrier("end")
    return outcome


def _update_best(
    facts: dict[str, Any], at: int, scores: dict[str, float], config: Config
) -> dict[str, Any]:
    """Remember the best finite score seen so far."""
    score = scores[config.evals.metric]
    best = facts.get("best")
    sign = 1.0 if config.evals.mode == "min" else -1.0
    better = best is None or sign * score < sign * best["scores"][config.evals.metric]
    if better and math.isfinite(score):
        return {**facts, "best": {"step": at, "scores": scores}}
    return facts if best else {**facts, "best": {"step": at, "scores": scores}}


def _predict_padded(
    forward: Callable[[Any], jax.Array], batch: dict[str, np.ndarray], mesh: jax.sharding.Mesh
) -> np.ndarray:
    """Run `forward` on this host's batch of any size: pad to its devices, place, cut back."""
    size = next(iter(batch.values())).shape[0]
    hosts = len(set(sharding.batch_parts(mesh)))
    unit = mesh.shape["replica"] * mesh.shape["fsdp"] // hosts
    padded = {
        name: np.concatenate([array, np.repeat(array[-1:], -size % unit, axis=0)])
        for name, array in batch.items()
    }
    return sharding.local_rows(forward(sharding.put_batch(padded, mesh)))[:size]
