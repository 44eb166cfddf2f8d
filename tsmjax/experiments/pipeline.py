"""Pipelines: stages that follow one another, each a command of tsmjax in a process of its own.

A pipeline is a YAML or JSON file:

    folder: runs/student                  # everything goes here, one folder a stage
    values: {clips: data/ucla}            # words for {clips} below; FIELD=VALUE on the command line wins
    stages:
      - name: teacher
        run: train                        # train, prepare, evaluate or export
        config: "configs/last_base.py:ucla,{clips}"
        set: {optim.length: 60 epochs}
      - name: student
        run: train
        config: "configs/last_distill.py:ucla,{clips},teacher={teacher}"
      - name: pretrained
        run: train
        when: [student.top1, "<", 0.88]
        config: "configs/last_pretrain.py:ucla,{clips}"
      - name: scores
        run: evaluate
        arguments: [--checkpoint, "{pretrained|student}", --output, "{scores}/scores.csv"]

``{NAME}`` is the folder of a stage, ``{A|B}`` that of the first of several that was not skipped. A
stage with ``when`` runs if the score compares so; a list of conditions must all hold. Scores are
those of `results.json`, of the test part where it has them, by full name or by what follows the last
slash. A condition on a stage that was skipped does not hold.

`pipeline.json` in the folder says which stages are over. The same command goes on after the last of
them, however it was stopped: training resumes from its checkpoint, other commands start again in an
empty folder.
"""  # noqa: E501

from __future__ import annotations

import dataclasses
import hashlib
import json
import operator
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tsmjax import config as config_lib
from tsmjax.checkpoint import write_json
from tsmjax.errors import InputError, closest
from tsmjax.experiments import processes
from tsmjax.monitor.logs import console

KINDS = ("train", "prepare", "evaluate", "export")
COMPARE: dict[str, Callable[[float, float], bool]] = {
    **{"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge},
    **{"==": operator.eq, "!=": operator.ne},
}
_POLL = 0.1  # seconds between looks at the process
_DONE, _SKIPPED = "done", "skipped"


@dataclasses.dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
      name: names its folder; letters, digits, ``_`` and ``-``.
      run: one of `KINDS`.
      config: config file of a training, with its argument.
      set: config fields of a training that differ, by dotted name.
      arguments: arguments of the other commands.
      when: conditions, each [STAGE.SCORE, operator, number]; all must hold.
    """

    name: str
    run: str
    config: str = ""
    set: dict[str, Any] = dataclasses.field(default_factory=dict)
    arguments: tuple[Any, ...] = ()
    when: tuple[Any, ...] = ()

    def __post_init__(self):
        if not re.fullmatch(r"[\w-]+", self.name):
            raise InputError(f"A stage is named {self.name!r}: use letters, digits, _ and -.")
        if self.run not in KINDS:
            raise InputError(
                f"The stage {self.name} runs {self.run!r}{closest(self.run, KINDS)}, but must run "
                f"one of {', '.join(KINDS)}."
            )
        if (self.run == "train") != bool(self.config) or (self.run == "train" and self.arguments):
            raise InputError(
                f"The stage {self.name} runs {self.run}: a training has config (and set), other "
                "commands have arguments."
            )
        when = self.when
        if when and isinstance(when[0], str):
            when = (when,)
        for one in when:
            right = isinstance(one, list | tuple) and len(one) == 3
            right = right and isinstance(one[0], str) and "." in one[0] and one[1] in COMPARE
            if not right or isinstance(one[2], bool) or not isinstance(one[2], int | float):
                raise InputError(
                    f"The stage {self.name} has the condition {one!r}, but one reads "
                    f"[STAGE.SCORE, operator, number] with one of {' '.join(COMPARE)}."
                )
        object.__setattr__(self, "when", tuple(tuple(one) for one in when))


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """What the file holds.

    Attributes:
      folder: where everything goes.
      stages: in the order in which they run.
      values: words that stages may use in braces.
    """

    folder: str
    stages: tuple[Stage, ...]
    values: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        names = [stage.name for stage in self.stages]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"Two stages are named {twice[0]!r}.")
        if both := set(names) & self.values.keys():
            raise InputError(f"{both.pop()!r} is a stage and a value: rename one.")
        for place, stage in enumerate(self.stages):
            before = [*names[:place], stage.name, *self.values, "folder"]
            for text in (stage.config, *stage.arguments, *stage.set.values()):
                for word in _words(str(text)):
                    _known(stage, word, before)
            for score, _, _ in stage.when:
                _known(stage, score.partition(".")[0], names[:place])


def load(path: Path, values: Sequence[str] = (), folder: Path | None = None) -> Pipeline:
    """Read a pipeline.

    Args:
      path: YAML or JSON file.
      values: words NAME=VALUE that replace those of the file.
      folder: where it goes instead.

    Raises:
      InputError: when the file or what it says is wrong.
    """
    try:
        found = config_lib.read(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    given = dict(found.get("values") or {})
    for word in values:
        name, equals, value = word.partition("=")
        if not equals or name not in given:
            raise InputError(
                f"{word!r} must read NAME=VALUE{closest(name, given)}, a name being one of "
                f"{', '.join(given) or '(the file has no values)'}."
            )
        given[name] = value
    found |= {"values": given} | ({"folder": str(folder)} if folder else {})
    return config_lib.build(Pipeline, found, "")


def run(pipeline: Pipeline) -> int:
    """Run what is left and return the exit code: 0, 1 (a stage failed), 2 or 75."""
    record = _Record(Path(pipeline.folder))
    with processes.Stop() as stop:
        for stage in pipeline.stages:
            command = _command(pipeline, stage, record)
            state = record.state(stage.name, command)
            if state is None and not _holds(pipeline, stage, record):
                record.close(stage.name, _SKIPPED, [])
                state = _SKIPPED
                _tell(f"{stage.name}: skipped, {_condition(stage)} does not hold")
            if state:
                continue
            code = _run_stage(pipeline, stage, command, stop)
            if code == processes.RESTART or stop.asked:
                _tell(f"{stage.name}: stopped; the same command goes on")
                return processes.RESTART
            if code:
                log = _log(pipeline, stage)
                _tell(f"{stage.name}: exit code {code}: {processes.last_line(log)} (see {log})")
                return 2 if code == 2 else 1
            record.close(stage.name, _DONE, command)
    _tell(f"All {len(pipeline.stages)} stages are over: {pipeline.folder}")
    return 0


def _run_stage(
    pipeline: Pipeline, stage: Stage, command: Sequence[str], stop: processes.Stop
) -> int:
    log = _log(pipeline, stage)
    _tell(f"{stage.name}: {stage.run} (output in {log})")
    own = Path(pipeline.folder) / stage.name
    if stage.run != "train" and log.exists():
        processes.wait(log)  # of an attempt that was stopped; then what it left can go
        shutil.rmtree(own, ignore_errors=True)
    if stage.run in ("evaluate", "export"):  # others make their folder themselves
        own.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    process = processes.start(command, log, dict(os.environ))
    asked = False
    while process.poll() is None:
        if stop.asked and not asked:
            process.terminate()
            asked = True
        time.sleep(_POLL)
    if process.returncode == 0:
        _tell(f"{stage.name}: done in {time.monotonic() - started:.1f} s")
    return process.returncode


class _Record:
    """`pipeline.json`: how the stages that are over ended, and the digest of their commands."""

    def __init__(self, folder: Path):
        self.folder, self._path = folder, folder / "pipeline.json"
        self._stages: dict[str, Any] = {}
        if self._path.exists():
            try:
                self._stages = json.loads(self._path.read_text())["stages"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{self._path} is broken ({error}): delete it.") from error

    def state(self, name: str, command: Sequence[str]) -> str | None:
        """Return "done" or "skipped", or None when the stage is to run.

        Raises:
          InputError: when it ran with another command.
        """
        found = self._stages.get(name)
        if found is None:
            return None
        if found["state"] == _DONE and found["digest"] != _digest(command):
            raise InputError(
                f"The stage {name} of {self.folder} is over, but its command has changed since: "
                "choose another folder, or delete the stage's folder and its entry in "
                "pipeline.json."
            )
        return found["state"]

    def skipped(self, name: str) -> bool:
        """Whether a stage was skipped."""
        return self._stages.get(name, {}).get("state") == _SKIPPED

    def close(self, name: str, state: str, command: Sequence[str]) -> None:
        """Write that a stage is over."""
        self._stages[name] = {"state": state, "digest": _digest(command)}
        write_json(self._path, {"stages": self._stages})


def _command(pipeline: Pipeline, stage: Stage, record: _Record) -> list[str]:
    """Return the command of a stage with all words filled in."""

    def fill(value: Any) -> str:
        return re.sub(r"\{([^{}]+)\}", lambda match: word(match[1]), str(value))

    def word(text: str) -> str:
        names = text.split("|")
        chosen = next((name for name in names if not record.skipped(name)), names[-1])
        if chosen == "folder":
            return pipeline.folder
        if chosen in pipeline.values:
            return str(pipeline.values[chosen])
        return str(Path(pipeline.folder) / chosen)

    if stage.run == "train":
        return [
            *(sys.executable, "-m", "tsmjax.main", f"--config={fill(stage.config)}"),
            *(f"--config.{field}={fill(value)}" for field, value in stage.set.items()),
            f"--workdir={Path(pipeline.folder) / stage.name}",
        ]
    return [sys.executable, "-m", f"tsmjax.{stage.run}", *map(fill, stage.arguments)]


def _holds(pipeline: Pipeline, stage: Stage, record: _Record) -> bool:
    for name, sign, number in stage.when:
        other, _, score = name.partition(".")
        if record.skipped(other):
            return False
        if not COMPARE[sign](_score(Path(pipeline.folder) / other, score), number):
            return False
    return True


def _score(folder: Path, name: str) -> float:
    """Look a score up in the results of a stage.

    Raises:
      InputError: when there is none, or several have that name.
    """
    path = folder / "results.json"
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"A condition needs {path}, which is not there or broken.") from error
    for part in ("test", "best"):
        scores = results.get(part) or {}
        hits = [key for key in scores if key == name or key.rpartition("/")[2] == name]
        if name in scores:
            hits = [name]
        if len(hits) > 1:
            raise InputError(f"{name!r} may be {' or '.join(hits)} in {path}: say which.")
        if hits and isinstance(scores[hits[0]], int | float):
            return float(scores[hits[0]])
    known = [key for part in ("test", "best") for key in results.get(part) or {}]
    raise InputError(f"{path} has no score {name!r}{closest(name, known)}.")


def _condition(stage: Stage) -> str:
    return " and ".join(" ".join(map(str, one)) for one in stage.when)


def _words(text: str) -> list[str]:
    return [name for word in re.findall(r"\{([^{}]+)\}", text) for name in word.split("|")]


def _known(stage: Stage, word: str, names: Sequence[str]) -> None:
    if word not in names:
        raise InputError(
            f"The stage {stage.name} names {word!r}{closest(word, names)}, which is no value and "
            "no stage before it."
        )


def _log(pipeline: Pipeline, stage: Stage) -> Path:
    return Path(pipeline.folder) / f"{stage.name}.log"


def _digest(command: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(command[1:]).encode()).hexdigest()


def _tell(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
