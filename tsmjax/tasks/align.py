"""Stage 1 of SensorLLM: answer questions about a single channel.

Only the projection and the markers train; the loss is that of the answers' tokens. Questions are
short and of many lengths, so that a row packs several texts, which do not see each other. A batch
holds P packs of L tokens with up to S texts: ``tokens``, ``ts_index``, ``segments`` and
``positions`` (P, L); ``series`` and ``series_mask`` (P, S, W + 1); ``places`` and ``answers``
(P, A): where the logits of the answers' tokens are, and these tokens, −1 for none.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import config as config_lib
from tsmjax.data.prompts import (
    Prompt,
    Shuffled,
    channel_blocks,
    chat,
    check_vocabulary,
    followed_by,
    padded_length,
    places_of,
)
from tsmjax.data.sensor import SensorData
from tsmjax.data.text import text_tokenizer
from tsmjax.errors import InputError
from tsmjax.evals.evaluator import Batch as HostBatch
from tsmjax.evals.evaluator import Predict, Sums
from tsmjax.models import sensorllm
from tsmjax.models.chronos_t5 import tokenize
from tsmjax.nn.functional import Tree
from tsmjax.nn.losses import cross_entropy
from tsmjax.tasks import Batch, Modules
from tsmjax.tasks import Task as BaseTask
from tsmjax.tasks.classify import check_family, freeze_rules, markers_of, parts_of


@dataclasses.dataclass(frozen=True)
class Compat:
    """Behaviour of the reference that is off here.

    Attributes:
      double_bos: texts with a chat template begin twice, as the reference's do: its template writes
        the token that begins a text, and its tokenizer another.
    """

    double_bos: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
    """What to read, and what trains.

    Attributes:
      llm: checkpoint of the language model to start from; empty for fresh weights.
      encoder: checkpoint of the encoder to start from; empty for fresh weights.
      tokenizer: of texts: "bytes", a ``.bin`` file of llama2.c, or a Hugging Face folder or hub id.
      chat_template: what stands around questions and answers: "none", or "llama3" for Llama 3
        Instruct models, whose system then tells the data set and its rate.
      qa_types: kinds of questions to ask; () for all of the data set.
      fix_llm: keep the language model as it is.
      fix_ts_encoder: keep the encoder as it is.
      tune_mm_mlp_adapter: train the projection and the markers.
      compat: behaviour of the reference.
    """

    llm: str = ""
    encoder: str = ""
    tokenizer: str = "bytes"
    chat_template: Literal["none", "llama3"] = "none"
    qa_types: tuple[str, ...] = ()
    fix_llm: bool = True
    fix_ts_encoder: bool = True
    tune_mm_mlp_adapter: bool = True
    compat: Compat = Compat()


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where questions come from.

    Attributes:
      path: sensor data set of stage 1, as `python -m tsmjax.prepare capture24` or `har` writes it.
      batch_size: packs of one optimiser step, over all devices.
      pack_length: tokens of a pack; longer texts are left out.
      workers: processes that assemble batches; 0 for threads of the main process.
      prefetch: batches that are kept ready.
    """

    path: str = ""
    batch_size: int = 16
    pack_length: int = 2048
    workers: int = 0
    prefetch: int = 4


class Packs:
    """Questions of one split, packed once, first fit in order of falling length.

    Attributes:
      packs: row numbers of each pack.
      dropped: rows that are longer than a pack.
    """

    def __init__(
        self,
        data: SensorData,
        split: str,
        model: sensorllm.Config,
        config: Config,
        length: int,
    ):
        """Encode all texts and pack them.

        Raises:
          InputError: when data and model do not belong together, or nothing fits into a pack.
        """
        facts = data.facts
        if facts.stage != 1:
            raise InputError(
                f"{data.path} holds windows of all channels (stage {facts.stage}); stage 1 asks "
                "about single channels: prepare it with --stage 1."
            )
        self._tokenizer = text_tokenizer(config.tokenizer)
        check_vocabulary(self._tokenizer, model)
        places = places_of(facts.channels, model, data.path)
        if facts.window > model.window:
            raise InputError(
                f"{data.path} has pieces of up to {facts.window} readings, but model.window is "
                f"{model.window}: set model.window={facts.window}."
            )
        self._data, self._model, self._length = data, model, length
        rows = data.rows(split)
        if config.qa_types:
            kinds = np.asarray(data.texts("qa_type", rows))
            rows = rows[np.isin(kinds, config.qa_types)]
        self._channel = np.argsort(places)[data.column("channel_id")]
        system = f"You read data of {facts.dataset}, {facts.rate:g} readings a second."
        self._chat = chat(config.chat_template, self._tokenizer, system, config.compat.double_bos)
        self._texts: dict[int, tuple[list[int], list[int]]] = {}
        for row, question, answer in zip(
            rows.tolist(), data.texts("Q", rows), data.texts("A", rows), strict=True
        ):
            asked = [*self._tokenizer.encode(f"\n{question}"), *self._chat.turn]
            self._texts[row] = asked, [*self._tokenizer.encode(answer), *self._chat.end]
        sizes = {row: self._size(row) for row in self._texts}
        kept = sorted((row for row in sizes if sizes[row] <= length), key=lambda r: -sizes[r])
        self.dropped = len(sizes) - len(kept)
        if not kept:
            raise InputError(
                f"The {split} part of {data.path} has no question of at most {length} tokens: "
                "raise data.pack_length, or prepare shorter pieces."
            )
        self.packs: list[list[int]] = []
        room: list[int] = []
        for row in kept:
            at = next((i for i, free in enumerate(room) if free >= sizes[row]), len(room))
            if at == len(room):
                self.packs.append([])
                room.append(length)
            self.packs[at].append(row)
            room[at] -= sizes[row]
        self.slots = max(map(len, self.packs))
        self.answers = padded_length(
            max(sum(len(self._texts[row][1]) for row in pack) for pack in self.packs)
        )

    def read(self, numbers: np.ndarray) -> dict[str, np.ndarray]:
        """Return the batch of the packs `numbers`; see the module."""
        count, states = len(numbers), self._model.tokens_per_channel
        vectors = self._model.vectors(self._model.window)
        length, shape = self._length, (len(numbers), self.answers)
        batch = {
            "tokens": np.zeros((count, length), np.int32),
            "ts_index": np.full((count, length), -1, np.int32),
            "segments": np.full((count, length), -1, np.int32),
            "positions": np.zeros((count, length), np.int32),
            "places": np.zeros(shape, np.int32),
            "answers": np.full(shape, -1, np.int32),
            "series": np.zeros((count, self.slots, states), np.int32),
            "series_mask": np.zeros((count, self.slots, states), bool),
        }
        for pack, number in enumerate(np.asarray(numbers).tolist()):
            at = answered = 0
            for slot, row in enumerate(self.packs[number]):
                prompt, answer = self._prompt(row), self._texts[row][1]
                whole = followed_by(prompt, answer)
                size, asked = len(whole.tokens), len(prompt.tokens)
                here, there = slice(at, at + size), slice(answered, answered + len(answer))
                batch["tokens"][pack, here] = whole.tokens
                index = whole.ts_index
                batch["ts_index"][pack, here] = np.where(index >= 0, index + slot * vectors, -1)
                batch["segments"][pack, here] = slot
                batch["positions"][pack, here] = np.arange(size)
                batch["places"][pack, there] = at + asked - 1 + np.arange(len(answer))
                batch["answers"][pack, there] = answer
                found = tokenize(self._model.encoder.tokenizer, self._data.series(row)[0])
                batch["series"][pack, slot, : len(found.ids)] = found.ids
                batch["series_mask"][pack, slot, : len(found.ids)] = found.mask
                at, answered = at + size, answered + len(answer)
        return batch

    def _prompt(self, row: int) -> Prompt:
        """Block of the row's channel, then its question."""
        channel, readings = int(self._channel[row]), int(self._data.lengths[row])
        lead = self._chat.lead
        block = channel_blocks(self._model, self._tokenizer, [channel], readings, lead=lead)
        return followed_by(block, self._texts[row][0])

    def _size(self, row: int) -> int:
        question, answer = self._texts[row]
        vectors = self._model.vectors(int(self._data.lengths[row]))
        lead = (self._tokenizer.bos is not None) + len(self._chat.lead)
        return lead + vectors + 2 + len(question) + len(answer)


class Task(BaseTask):
    """Answers about single channels."""

    sharding, lora = sensorllm.SHARDING, sensorllm.LORA
    coefficients: dict[str, float] = {"cross_entropy": 1.0}  # noqa: RUF012 (read only)

    def __init__(self, config: config_lib.Config):
        check_family(config.family, "align")
        if config.model.model_type != "causal_lm":
            raise InputError(
                "The task 'align' trains answers, not a head: set model.model_type='causal_lm'; a "
                "classifier starts from the run with checkpoint.init_skip=('head/',)."
            )
        self.config = config
        self.freeze = freeze_rules(config.task)
        self.parts = parts_of(config.task)

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the model with fresh parameters."""
        return Modules(sensorllm.Model(self.config.model, rngs=rngs))

    def follow(self, part: str, params: Tree) -> Tree:
        """Return the markers that a loaded language model makes."""
        return markers_of(self.config.model, part, params)

    def batches(self, split: str, host: int, hosts: int) -> Shuffled:
        """Draw packs of the training part; `split` is "train", the only one that is sampled."""
        packs = self._packs("train")
        return Shuffled(
            packs.read,
            np.arange(len(packs.packs)),
            self.config.data.batch_size,
            seed=self.config.seed,
            host=host,
            hosts=hosts,
        )

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Count the answers' tokens."""
        return {"cross_entropy": (batch["answers"] >= 0).sum().astype(jnp.float32)}

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum the cross-entropy of the answers' tokens."""
        logits = self._logits(modules.model, batch)
        return {"cross_entropy": cross_entropy(logits, batch["answers"]).sum()}

    def predict(self, model: sensorllm.Model, batch: Batch) -> jax.Array:
        """Return (P, 2): summed cross-entropy of the answers' tokens, and how many were guessed."""
        logits = self._logits(model, batch)
        right = (logits.argmax(axis=-1) == batch["answers"]).sum(axis=1)
        losses = cross_entropy(logits, batch["answers"]).sum(axis=1)
        return jnp.stack([losses, right.astype(jnp.float32)], axis=1)

    def flops(self, batch: Batch) -> float:
        """Count the matmuls of one forward pass, without the logits."""
        packs, length = batch["tokens"].shape
        states = batch["places"].shape[1]
        return sensorllm.flops(self.config.model, packs, length, states, encode=True)

    def tokens(self, batch: Batch) -> float:
        """Count the language model's tokens, padding included."""
        return float(batch["tokens"].size)

    def evaluators(self, split: str) -> Sequence[Any]:
        """Answers of the validation or test part, named like the data set."""
        if split == "test" and not len(self.data.rows(split)):
            return ()
        size = self.config.evals.batch_size
        return [AnswerEvaluator(self.data.facts.dataset, self._packs(split), size)]

    def artefacts(self) -> dict[str, Any]:
        """Names of the channels that have markers."""
        return {"channels": list(self.config.model.channels)}

    @functools.cached_property
    def data(self) -> SensorData:
        """The data set, opened when it is first needed."""
        if not self.config.data.path:
            raise InputError(
                "The config field data.path is empty: name a sensor data set of stage 1, as "
                "python -m tsmjax.prepare capture24 or har --stage 1 writes it."
            )
        return SensorData(self.config.data.path)

    def _packs(self, split: str) -> Packs:
        config = self.config
        return Packs(self.data, split, config.model, config.task, config.data.pack_length)

    def _logits(self, model: sensorllm.Model, batch: Batch) -> jax.Array:
        """Logits (P, A, V) of the answers' tokens, and of nothing else."""
        features = model.encode(batch["series"], batch["series_mask"])
        # A patch may reach beyond the end of a series, where states mean nothing.
        features = jnp.where(batch["series_mask"][..., None], features, 0)
        x = model.embed(batch["tokens"], batch["ts_index"], features)
        before = model.llm.hidden(x, batch["positions"], batch["segments"], batch["places"])
        return model.llm.logits(before)


class AnswerEvaluator:
    """Scores ``NAME/loss`` and ``NAME/token_accuracy`` over the tokens of true answers."""

    def __init__(self, name: str, packs: Packs, batch_size: int):
        """Score all of `packs`, `batch_size` of them in one forward pass on each host."""
        self.name, self._packs, self._batch_size = name, packs, batch_size

    def batches(self, host: int, hosts: int) -> Sequence[HostBatch]:
        """Return this host's batches, with ``weight``, zero for padding."""
        count = len(self._packs.packs)
        size = min(self._batch_size, -(-count // hosts))
        found = []
        for start in range(host * size, count + host * size, size * hosts):
            wanted = start + np.arange(size)
            batch = self._packs.read(np.minimum(wanted, count - 1))
            found.append({**batch, "weight": np.float32(wanted < count)})
        return found

    def sums(self, predict: Predict, batch: HostBatch) -> Sums:
        """Sum losses, right guesses and tokens."""
        weight = batch["weight"].astype(np.float64)
        inputs = {name: x for name, x in batch.items() if name != "weight"}
        losses, right = np.asarray(predict(inputs), np.float64).T
        return {
            "losses": (losses * weight).sum(),
            "right": (right * weight).sum(),
            "tokens": ((batch["answers"] >= 0).sum(axis=1) * weight).sum(),
        }

    def scores(self, sums: Sums) -> dict[str, float]:
        """Turn total sums into means."""
        return {
            f"{self.name}/loss": float(sums["losses"] / sums["tokens"]),
            f"{self.name}/token_accuracy": float(sums["right"] / sums["tokens"]),
        }

    def plot(self, folder: str | Path) -> list[Path]:
        """Draw nothing."""
        return []
