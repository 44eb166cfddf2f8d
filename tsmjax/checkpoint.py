"""Checkpoints: the only file that imports Orbax.

A run folder holds `config.json` and `checkpoints/STEP/{weights,training,meta}`. `weights` is what
others read (parameters, statistics, their running average), `training` what only a resumed run
needs (optimiser state, guard, step), `meta` the config, versions, artefacts and host-side facts.
Leaves that are never trained live once per run in `frozen/`.

The latest N and the best K checkpoints are kept side by side. Orbax's own `max_to_keep` with a
metric would delete the newest checkpoint as soon as the metric worsens, so retention is a policy
of two parts, and a metric that is not finite counts as the worst.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import math
import re
import subprocess
from pathlib import Path as LocalPath
from typing import Any

import jax
import numpy as np
from etils import epath, epy
from jax.experimental import multihost_utils

from tsmjax import distributed
from tsmjax.config import Duration
from tsmjax.errors import InputError
from tsmjax.nn import int8, lora
from tsmjax.nn.functional import Tree, flatten

with epy.lazy_imports():  # not for those who only read the weights of a Hugging Face folder
    import orbax.checkpoint as ocp
    from orbax.checkpoint import checkpoint_managers

log = logging.getLogger(__name__)
# A save between evaluations has no score, which is how it should be.
logging.getLogger("absl").addFilter(
    lambda record: "did not provide metrics" not in record.getMessage()
)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """What to save, and where to start from.

    Attributes:
      every: distance between saves; each evaluation saves as well, so that it can be kept.
      keep_latest: number of newest checkpoints kept.
      keep_best: number of best checkpoints kept, by the metric that `evals.metric` declares.
      resume_from: another run's checkpoint to continue with its full state.
      init_from: run folder, Hugging Face folder or hub id whose weights to start from.
      init_skip: path patterns of parameters that keep their fresh values under `init_from`.
    """

    every: Duration = "1000 steps"
    keep_latest: int = 2
    keep_best: int = 3
    resume_from: str = ""
    init_from: str = ""
    init_skip: tuple[str, ...] = ()

    def __post_init__(self):
        """Check what the final evaluation relies on: the best checkpoint still exists."""
        if self.keep_latest < 1 or self.keep_best < 1:
            raise InputError("checkpoint.keep_latest and checkpoint.keep_best must be at least 1.")


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of a trained or imported model, on the host.

    Attributes:
      params: nested dict of the model's NumPy parameters.
      stats: nested dict of the model's statistics (BatchNorm); empty for most families.
      config: the resolved config they were trained with.
      artefacts: label maps, quantile levels, scalers: what the task stored beside them.
      source: readable origin, such as ``run_20260101T000000@1200``.
    """

    params: Tree
    stats: Tree
    config: dict[str, Any]
    artefacts: dict[str, Any]
    source: str


class Checkpointer:
    """Saves and restores the training state of one run folder."""

    def __init__(self, run: str | epath.Path, config: CheckpointConfig, mode: str = "min"):
        """Open `run`/checkpoints.

        Args:
          run: the run folder.
          config: how many checkpoints to keep.
          mode: "min" when a smaller score is better, "max" otherwise.
        """
        self._run = epath.Path(run)
        self._sign = 1.0 if mode == "min" else -1.0
        self._manager = _manager(self._run, config.keep_latest, config.keep_best)

    @property
    def latest(self) -> int | None:
        """Newest saved step as process 0 sees it, or None."""
        return distributed.broadcast(self._manager.latest_step(), "latest step")

    @property
    def best(self) -> int | None:
        """Step with the best finite score as process 0 sees it, or None if nothing was scored."""
        return distributed.broadcast(_best(self._manager), "best step")

    def save(self, step: int, state: Tree, meta: dict[str, Any], score: float | None) -> None:
        """Save `state` as `step`, in place of an earlier one; returns once the arrays are copied.

        All hosts take part, each writes the shards it holds.

        Args:
          step: number of optimiser steps taken.
          state: the state dict of `tsmjax.state`.
          meta: JSON values stored beside the arrays.
          score: value of the declared metric at this step, or None when it was not measured.
        """
        weights = {name: state[name] for name in ("params", "stats", "average")}
        training = {name: state[name] for name in ("opt", "guard", "step")}
        metrics = None
        if score is not None:
            metrics = {"score": self._sign * score if math.isfinite(score) else math.inf}
        if step in self._manager.all_steps():  # it was saved before it was scored
            self._manager.delete(step)
        self._manager.save(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(weights),
                training=ocp.args.StandardSave(training),
                meta=ocp.args.JsonSave(meta),
            ),
            metrics=metrics,
        )

    def restore(self, abstract: Tree, step: int) -> tuple[Tree, dict[str, Any]]:
        """Restore (state, meta) of `step` into the shapes and shardings of `abstract`.

        Each host reads the shards it holds, whatever the mesh and the number of hosts that saved.

        Raises:
          InputError: when the checkpoint's shapes are not the config's.
        """
        with _manager(self._run, None, None, alone=True) as manager:
            return self._restore(manager, abstract, step)

    def _restore(
        self, manager: ocp.CheckpointManager, abstract: Tree, step: int
    ) -> tuple[Tree, dict[str, Any]]:
        weights = {name: abstract[name] for name in ("params", "stats", "average")}
        training = {name: abstract[name] for name in ("opt", "guard", "step")}
        found = manager.item_metadata(step)
        difference = compare(
            flatten({"params": weights["params"]}), flatten({"params": found.weights["params"]})
        )
        if difference:
            raise InputError(
                f"The checkpoint {manager.directory / str(step)} does not fit this config: "
                f"{difference}; use the config it was trained with, or another --workdir."
            )
        restored = manager.restore(
            step,
            args=ocp.args.Composite(
                weights=ocp.args.StandardRestore(weights),
                training=ocp.args.StandardRestore(training),
                meta=ocp.args.JsonRestore(),
            ),
        )
        return {**restored.weights, **restored.training}, restored.meta

    def restore_latest(self, abstract: Tree) -> tuple[Tree, dict[str, Any]]:
        """Restore the newest checkpoint that every host can read.

        A damaged one is skipped with a warning and moved to `RUN/damaged`: as the newest it would
        be kept, and would hold up the saves of earlier steps.

        Raises:
          InputError: when there is none.
        """
        steps = distributed.broadcast(sorted(self._manager.all_steps(), reverse=True), "steps")
        damage = "there is none"
        for position, step in enumerate(steps):
            restored, damage = None, ""
            try:
                restored = self.restore(abstract, step)
            except InputError:
                raise
            except Exception as error:  # Orbax reports damage with a dozen different types
                damage = _first_line(error)
            # One host alone may have met the damage, but all must go back to one step.
            damage = next(filter(None, distributed.gather(damage, f"restoring {step}")), "")
            if restored and not damage:
                self._set_aside(steps[:position])
                return restored
            log.warning(
                "Checkpoint %s cannot be read (%s); falling back to the one before.",
                self._manager.directory / str(step),
                damage,
            )
        raise InputError(
            f"No checkpoint under {self._manager.directory} can be read; the last word was: "
            f"{damage}."
        )

    def _set_aside(self, steps: list[int]) -> None:
        """Move checkpoints to the folder `damaged` of the run."""
        if not steps:
            return
        if jax.process_index() == 0:
            folder = self._run / "damaged"
            folder.mkdir(exist_ok=True)
            for step in steps:
                target = folder / str(step)
                target.rmtree(missing_ok=True)
                (self._manager.directory / str(step)).rename(target)
        distributed.barrier("damaged checkpoints moved")
        self._manager.reload()

    def wait(self) -> None:
        """Wait until every save has reached the disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for pending saves and release the folder."""
        self._manager.close()


def compare(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """Describe how two flat trees of shaped leaves differ; empty when they do not.

    Args:
      expected: path → leaf the config asks for.
      found: path → leaf a file has.
    """
    parts = []
    if missing := sorted(expected.keys() - found.keys()):
        parts.append(f"missing {_some(missing)}")
    if extra := sorted(found.keys() - expected.keys()):
        parts.append(f"unexpected {_some(extra)}")
    shapes = [
        f"{path} {tuple(found[path].shape)} (the config asks for {tuple(leaf.shape)})"
        for path, leaf in expected.items()
        if path in found and tuple(found[path].shape) != tuple(leaf.shape)
    ]
    if shapes:
        parts.append(f"shape of {_some(shapes)}")
    return "; ".join(parts)


def find(path: str, default: str = "best") -> tuple[epath.Path, int]:
    """Resolve ``FOLDER[@best|@final|@latest|@STEP]`` to (run folder, step).

    Args:
      path: a run folder with an optional selector behind ``@``.
      default: selector when `path` has none; "best" falls back to the latest checkpoint of a run
        that was never scored.

    Raises:
      InputError: when the folder or the checkpoint does not exist.
    """
    folder, _, selector = path.partition("@") if "@" in path.rsplit("/", 1)[-1] else (path, "", "")
    run = epath.Path(folder)
    if not (run / "checkpoints").exists():
        raise InputError(f"{folder} is not a run folder: it has no folder 'checkpoints'.")
    with _manager(run, None, None) as manager:
        steps = sorted(manager.all_steps())
        if not steps:
            raise InputError(f"The run {folder} holds no finished checkpoint yet.")
        best = _best(manager)
        if not selector:
            selector = "latest" if default == "best" and best is None else default
        if selector.isdigit():
            if int(selector) in steps:
                return run, int(selector)
            raise InputError(
                f"The run {folder} has no checkpoint of step {selector}; it has "
                f"{', '.join(map(str, steps))}."
            )
        if selector == "latest":
            return run, steps[-1]
        if selector == "best":
            if best is None:
                raise InputError(f"No checkpoint of {folder} was scored; use {folder}@latest.")
            return run, best
        if selector == "final":
            if not _read_meta(run, steps[-1]).get("final"):
                raise InputError(
                    f"The run {folder} has not finished; use {folder}@latest or {folder}@best."
                )
            return run, steps[-1]
    raise InputError(
        f"{path} ends in @{selector}, but a checkpoint is @best, @final, @latest or @STEP."
    )


def load_weights(path: str, default: str = "best", merge: bool = True) -> Weights:
    """Load the model of a run folder to the host.

    A run that keeps a running average of its parameters is represented by that average.

    Args:
      path: run folder and checkpoint; see `find`.
      default: checkpoint when `path` names none.
      merge: add low-rank adapters to their kernels; False leaves them in the tree.
    """
    run, step = find(path, default)
    with _manager(run, None, None) as manager:
        found = manager.item_metadata(step).weights.tree
        target = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)
        weights = manager.restore(
            step, args=ocp.args.Composite(weights=ocp.args.StandardRestore(target))
        ).weights
    meta = _read_meta(run, step)
    params = (weights["average"] or weights["params"])["model"]
    frozen = load_frozen(run)
    if frozen is not None:
        params = int8.dequantised(overlay(params, frozen["params"].get("model", {})))
    if merge and (adapters := meta["config"].get("optim", {}).get("lora")):
        params = lora.merge(params, adapters["alpha"])
    return Weights(
        params=params,
        stats=weights["stats"].get("model", {}),
        config=meta["config"],
        artefacts=meta.get("artefacts", {}),
        source=f"{run.name}@{step}",
    )


def save_weights(
    folder: str | epath.Path,
    params: Tree,
    stats: Tree,
    config: dict[str, Any],
    artefacts: dict[str, Any],
) -> None:
    """Write model weights as a run folder with one finished checkpoint, number 0.

    Args:
      folder: a folder that does not exist yet; it appears only when it is complete.
      params: the model's parameters.
      stats: the model's statistics.
      config: config dict with at least the sections ``model`` and ``task``.
      artefacts: what the task would store beside them.

    Raises:
      InputError: when `folder` exists and is not empty.
    """
    folder = epath.Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} exists and is not empty; choose another target folder.")
    beside = folder.parent / f".{folder.name}.partial"
    beside.rmtree(missing_ok=True)
    weights = {
        **{"params": {"model": jax.tree.map(_shared, params)}},
        **{"stats": {"model": stats}, "average": {}},
    }
    with _manager(beside, None, None) as manager:
        manager.save(
            0,
            args=ocp.args.Composite(
                weights=ocp.args.StandardSave(weights),
                meta=ocp.args.JsonSave(
                    {"config": config, "artefacts": artefacts, "final": True, **versions()}
                ),
            ),
        )
        manager.wait_until_finished()
    write_json(beside / "config.json", config)
    if folder.exists():
        folder.rmdir()
    beside.rename(folder)


def _shared(leaf: Any) -> Any:
    """Return a JAX array on the memory of a NumPy array, which Orbax would copy before it writes.

    Types that JAX would narrow, such as float64, stay what they are.
    """
    if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        return leaf
    return jax.device_put(leaf, jax.local_devices(backend="cpu")[0], may_alias=True)


def save_frozen(run: str | epath.Path, frozen: Tree, source: str) -> None:
    """Write the leaves that are never trained, once per run, with their digest and source."""
    folder = epath.Path(run) / "frozen"
    if folder.exists():
        return
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.resolve(), frozen)
    facts = {"digest": digest(frozen), "source": source}
    if jax.process_index() == 0:
        write_json(epath.Path(run) / "frozen.json", facts)


def load_frozen(run: str | epath.Path, abstract: Tree | None = None) -> Tree | None:
    """Load what `save_frozen` wrote, as `abstract` or as NumPy arrays; None if there is none."""
    folder = epath.Path(run) / "frozen"
    if not folder.exists():
        return None
    with ocp.StandardCheckpointer() as checkpointer:
        if abstract is None:
            found = checkpointer.metadata(folder.resolve()).item_metadata.tree
            abstract = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), found)
        return checkpointer.restore(folder.resolve(), abstract)


def overlay(base: Tree, extra: Tree) -> Tree:
    """Union of two nested dicts; a leaf of `extra` wins."""
    merged = dict(base)
    for name, value in extra.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = overlay(merged[name], value) if both else value
    return merged


def digest(tree: Tree) -> str:
    """SHA-256 over paths, shapes, types and bytes of a nested dict of arrays."""
    sha = hashlib.sha256()
    for path, leaf in sorted(flatten(tree).items()):
        array = whole(leaf)
        sha.update(f"{path} {array.shape} {array.dtype}".encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8).data)
    return sha.hexdigest()


def whole(leaf: Any) -> np.ndarray:
    """Return all of an array, whose parts may lie on several hosts."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)


def versions() -> dict[str, Any]:
    """Package versions and the git commit, for provenance."""
    names = ("tsmjax", "jax", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    command = ["git", "-C", str(LocalPath(__file__).parent), "rev-parse", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        commit = ""
    return {"versions": found, "git_commit": commit or None}


def write_json(path: str | epath.Path, value: Any) -> None:
    """Write JSON beside the target and rename it into place."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.partial"
    beside.write_text(json.dumps(value, indent=2) + "\n")
    beside.replace(path)


def _manager(
    run: epath.Path, keep_latest: int | None, keep_best: int | None, alone: bool = False
) -> ocp.CheckpointManager:
    """Open a manager; with None for both numbers it deletes nothing.

    Alone, it restores without waiting for the other hosts, whose reading may fail.
    """
    retention = checkpoint_managers.preservation_policy
    policy = retention.PreserveAll()
    if keep_latest is not None and keep_best is not None:
        best = retention.BestN(
            get_metric_fn=_score,
            reverse=True,  # BestN sorts ascending and keeps the end of the list
            n=keep_best,
            keep_checkpoints_without_metrics=False,
        )
        policy = retention.AnyPreservationPolicy([retention.LatestN(keep_latest), best])
    hosts = ocp.options.MultiprocessingOptions()
    if alone:
        me = jax.process_index()
        hosts = ocp.options.MultiprocessingOptions(
            primary_host=me, active_processes={me}, barrier_sync_key_prefix=str(me)
        )
    return ocp.CheckpointManager(
        (run / "checkpoints").resolve(),
        item_handlers={
            "weights": ocp.StandardCheckpointHandler(),
            "training": ocp.StandardCheckpointHandler(),
            "meta": ocp.JsonCheckpointHandler(),
        },
        options=ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            best_fn=_score,
            best_mode="min",
            create=not alone,
            multiprocessing_options=hosts,
        ),
    )


def _score(metrics: dict[str, float]) -> float:
    return metrics["score"] if math.isfinite(metrics["score"]) else math.inf


def _best(manager: ocp.CheckpointManager) -> int | None:
    scores = {step: manager.metrics(step) for step in manager.all_steps()}
    finite = {
        step: metrics["score"]
        for step, metrics in scores.items()
        if metrics and math.isfinite(metrics["score"])
    }
    return min(finite, key=lambda step: (finite[step], step)) if finite else None


def _read_meta(run: epath.Path, step: int) -> dict[str, Any]:
    with _manager(run, None, None) as manager:
        return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())).meta


def _some(names: list[str], limit: int = 4) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _first_line(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error)).strip()
    return f"{type(error).__name__}: {text[:200]}"
