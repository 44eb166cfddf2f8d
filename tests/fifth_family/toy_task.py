"""Its task: two terms with different denominators, a frozen teacher, rows from disk, noise."""

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from toy_family import Config as FamilyConfig
from toy_family import Model

from tsmjax import tasks
from tsmjax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Config:
    mimicry: float = 0.5
    noise: float = 0.1


@dataclasses.dataclass(frozen=True)
class DataConfig:
    path: str
    batch_size: int = 8
    workers: int = 0
    prefetch: int = 2


class RowsOnDisk:
    """Step-addressed batches of a folder with rows.npy, labels.npy (-1 = unlabelled)."""

    def __init__(self, data: DataConfig, seed: int, host: int, hosts: int):
        self.x = np.load(Path(data.path) / "rows.npy", mmap_mode="r")
        self.y = np.load(Path(data.path) / "labels.npy", mmap_mode="r")
        self.rows, self.seed = data.batch_size, seed
        self.host, self.hosts = host, hosts
        self.steps_per_epoch = len(self.x) / self.rows

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        rows = rng.integers(0, len(self.x), self.rows)
        share = self.rows // self.hosts
        mine = rows[self.host * share : (self.host + 1) * share]
        return {"x": self.x[mine], "y": self.y[mine]}


class Task(tasks.Task):
    sharding = (
        *((r"^(model|aux)/.*kernel$", ("fsdp", "tensor")),),
        (r".*", (None,)),
    )

    def __init__(self, config):
        self.config = config
        self.coefficients = {"cross_entropy": 1.0, "mimicry": config.task.mimicry}
        labels = Path(config.data.path) / "labels.json"
        self.labels = json.loads(labels.read_text()) if labels.exists() else None

    def build(self, rngs):
        model = self.config.model
        teacher = FamilyConfig(model.features, 2 * model.width, model.classes)
        return tasks.Modules(
            model=Model(model, rngs=rngs),
            aux=nnx.Linear(model.width, teacher.width, rngs=rngs),
            frozen=Model(teacher, rngs=rngs),
        )

    def batches(self, split, host, hosts):
        if not Path(self.config.data.path).exists():
            raise InputError(f"{self.config.data.path} does not exist.")
        return RowsOnDisk(self.config.data, self.config.seed, host, hosts)

    def device(self, batch, key, train):
        noise = self.config.task.noise * jax.random.normal(key, batch["x"].shape)
        return {**batch, "x": batch["x"] + noise}

    def weights(self, batch):
        width = 2 * self.config.model.width
        return {
            "cross_entropy": (batch["y"] >= 0).sum().astype(jnp.float32),
            "mimicry": jnp.float32(batch["x"].shape[0] * width),
        }

    def terms(self, modules, batch, key, train):
        features = modules.model.features(batch["x"], train)
        logits = modules.model.head(features)
        picked = jnp.take_along_axis(
            jax.nn.log_softmax(logits), jnp.maximum(batch["y"], 0)[:, None], axis=1
        )[:, 0]
        teacher = modules.frozen.features(batch["x"], train=False)
        return {
            "cross_entropy": -jnp.where(batch["y"] >= 0, picked, 0.0).sum(),
            "mimicry": jnp.square(modules.aux(features) - teacher).sum(),
        }

    def predict(self, model, batch):
        return jax.nn.softmax(model(batch["x"]))

    def evaluators(self, split):
        return [Accuracy(self.config.data)]

    def artefacts(self):
        return {"labels": self.labels}


class Accuracy:
    name = "toy"

    def __init__(self, data):
        self.data = data

    def batches(self, host, hosts):
        x = np.load(Path(self.data.path) / "rows.npy")
        y = np.load(Path(self.data.path) / "labels.npy")
        rows = 32 // hosts
        return [
            {"x": x[start : start + rows], "y": y[start : start + rows]}
            for start in range(host * rows, len(x), 32)
        ]

    def sums(self, predict, batch):
        known = batch["y"] >= 0
        chances, labels = predict(batch)[known].astype(np.float64), batch["y"][known]
        return {
            "right": (chances.argmax(-1) == labels).sum(dtype=np.float64),
            "log_loss": -np.log(chances[np.arange(len(labels)), labels]).sum(),
            "rows": known.sum(dtype=np.float64),
        }

    def scores(self, sums):
        return {
            "toy/accuracy": float(sums["right"] / sums["rows"]),
            "toy/log_loss": float(sums["log_loss"] / sums["rows"]),
        }

    def plot(self, folder):
        pass
