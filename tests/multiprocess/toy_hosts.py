"""The toy task, slowed down, stuck, or wrong at one place, so that a test can act there.

Reaching the place leaves a file in the folder of the data, which the test waits for.
"""

import dataclasses
import json
import time
from pathlib import Path

import toy_task

from tsmjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config(toy_task.Config):
    """Seconds that things take, and where they go wrong.

    Attributes:
      step: seconds to read a batch.
      compile: seconds to trace the step.
      score: seconds to score a batch.
      stuck: step whose batch never comes; 0 for none.
      wrong: step at which process 1 finds its data wrong; 0 for none.
      record: whether to write down which rows are read.
    """

    step: float = 0.0
    compile: float = 0.0
    score: float = 0.0
    stuck: int = 0
    wrong: int = 0
    record: bool = False


DataConfig = toy_task.DataConfig


class Batches(toy_task.RowsOnDisk):
    def __init__(self, config: Config, data, *arguments):
        super().__init__(data, *arguments)
        self.config, self.folder = config, data.path

    def __getitem__(self, step):
        time.sleep(self.config.step)
        if self.config.stuck == step + 1:
            time.sleep(600)
        if self.config.wrong == step + 1 and self.host == 1:
            raise InputError("row 7 is not a number.")
        batch = super().__getitem__(step)
        if self.config.record:
            with open(f"{self.folder}/rows_{self.host}.jsonl", "a") as file:
                file.write(json.dumps([step, batch["x"][:, 0].tolist()]) + "\n")
        return batch


class Accuracy(toy_task.Accuracy):
    def __init__(self, seconds, data):
        super().__init__(data)
        self.seconds = seconds

    def sums(self, predict, batch):
        sums = super().sums(predict, batch)
        Path(self.data.path, "scoring").touch()
        time.sleep(self.seconds)
        return sums


class Task(toy_task.Task):
    def batches(self, split, host, hosts):
        super().batches(split, host, hosts)
        return Batches(self.config.task, self.config.data, self.config.seed, host, hosts)

    def terms(self, modules, batch, key, train):
        Path(self.config.data.path, "compiling").touch()
        time.sleep(self.config.task.compile)
        return super().terms(modules, batch, key, train)

    def evaluators(self, split):
        return [Accuracy(self.config.task.score, self.config.data)]
