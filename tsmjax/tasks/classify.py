"""Stage 2 of SensorLLM: name the activity in a window of sensor channels.

A batch holds B windows of C channels: ``tokens`` and ``ts_index`` (B, L), ``lengths`` (B,), and
``series`` with ``series_mask`` (B, C, W + 1), or ``features`` (B, C, W + 1, E) when the states of a
frozen encoder are known already (see `tsmjax.data.prompts.Windows`); for the loss, ``label`` (B,).
Predictions are chances (B, K) of the activities.

A model of type "causal_lm" writes the name of the activity behind the prompt. Its loss is that of
the answer's tokens, and it predicts by comparing how likely the name of each activity is.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import checkpoint, pretrained
from tsmjax import config as config_lib
from tsmjax.data.features import make_features
from tsmjax.data.prompts import Chat, Shuffled, Windows, chat, text_columns
from tsmjax.data.sensor import SensorData
from tsmjax.data.text import text_tokenizer
from tsmjax.errors import InputError
from tsmjax.evals.classification import ClassificationEvaluator
from tsmjax.models import llama, sensorllm
from tsmjax.nn import functional, int8
from tsmjax.nn.functional import Tree
from tsmjax.nn.losses import cross_entropy
from tsmjax.tasks import Batch, Modules
from tsmjax.tasks import Task as BaseTask
from tsmjax.wearables.augment import Augment

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Compat:
    """Behaviour of the reference that is off here.

    Attributes:
      rows_per_mean: take the weighted mean of the loss over so many windows each, and then the mean
        of these, as the reference does over the windows that a device sees at once (4): of windows
        of one activity the weights then cancel. 0 takes one weighted mean over the whole batch.
      smoothed_weights: weight each activity by 1 / (its share of the training windows + 1e-6),
        which gives an activity that never occurs nearly all of the weight.
      markers_by_place: give the channels of the data the markers in the model's order, whatever
        they are called.
      select_on_test: choose the best checkpoint by the test part, whose score is then too good.
    """

    rows_per_mean: int = 0
    smoothed_weights: bool = False
    markers_by_place: bool = False
    select_on_test: bool = False

    def __post_init__(self):
        if self.rows_per_mean < 0:
            raise InputError(
                f"task.compat.rows_per_mean is {self.rows_per_mean}, but must be at least 0."
            )


@dataclasses.dataclass(frozen=True)
class Config:
    """What to read, what trains, and what to minimise.

    Attributes:
      llm: checkpoint of the language model to start from; empty for fresh weights.
      encoder: checkpoint of the encoder to start from; empty for fresh weights.
      tokenizer: of texts: "bytes", a ``.bin`` file of llama2.c, or a Hugging Face folder or hub id.
      chat_template: for a model that writes the activity's name: "none", or "llama3" for Llama 3
        Instruct models, whose system then lists the activities by number; the answer is number and
        name.
      preprocess_type: texts that follow the channels: "none", or parts of smry (mean and
        deviation), meta (facts about the wearer), trend, corr (correlations) and Q (the question),
        joined by "+".
      add_ts_special_token_text: begin the block of each channel with its name in words.
      model_max_length: longest prompt in tokens; texts are cut at the end.
      use_weighted_loss: weight each activity by its inverse share of the training windows.
      fix_llm: keep the language model as it is.
      fix_ts_encoder: keep the encoder as it is, and its states on disk (see `cache_features`).
      fix_cls_head: keep the head as it is.
      tune_mm_mlp_adapter: train the projection and the markers.
      cache_features: compute the states of a frozen encoder once, in bfloat16.
      channel_dropout: share of the channels of which a window keeps markers and `statistics` only,
        in training.
      compat: behaviour of the reference.
    """

    llm: str = ""
    encoder: str = ""
    tokenizer: str = "bytes"
    chat_template: Literal["none", "llama3"] = "none"
    preprocess_type: str = "smry+trend+corr+Q"
    add_ts_special_token_text: bool = False
    model_max_length: int = 4096
    use_weighted_loss: bool = True
    fix_llm: bool = True
    fix_ts_encoder: bool = True
    fix_cls_head: bool = False
    tune_mm_mlp_adapter: bool = True
    cache_features: bool = True
    channel_dropout: float = 0.0
    compat: Compat = Compat()

    def __post_init__(self):
        text_columns(self.preprocess_type)
        if not 0 <= self.channel_dropout < 1:
            raise InputError(
                f"task.channel_dropout is {self.channel_dropout}, but must be in [0, 1)."
            )


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where windows come from.

    Attributes:
      path: sensor data set of stage 2, as `python -m tsmjax.prepare capture24` or `har` writes it.
      batch_size: windows of one optimiser step, over all devices.
      bucket: pad prompts to multiples of so many tokens, and make batches of windows of like
        length, which compiles the step once for each; 0 pads all to the longest. It pays where
        lengths differ much.
      workers: processes that assemble batches; 0 for threads of the main process.
      prefetch: batches that are kept ready.
      augment: random changes of the readings in training.
    """

    path: str = ""
    batch_size: int = 64
    bucket: int = 0
    workers: int = 0
    prefetch: int = 4
    augment: Augment = dataclasses.field(default_factory=Augment)


def freeze_rules(config: Any) -> tuple[tuple[str, bool], ...]:
    """Turn the switches of a task's config into (path pattern, frozen?) rules."""
    return (
        (r"^model/llm/", config.fix_llm),
        (r"^model/encoder/", config.fix_ts_encoder),
        (r"^model/head/", getattr(config, "fix_cls_head", False)),
        (r"^model/(projection|new_tokens|statistics)/", not config.tune_mm_mlp_adapter),
    )


def parts_of(config: Any) -> dict[str, str]:
    """Return the checkpoints that the parts of the model start from."""
    return {name: path for name in ("llm", "encoder") if (path := getattr(config, name))}


def markers_of(model: sensorllm.Config, part: str, params: Tree) -> Tree:
    """Start all markers at the mean of a loaded embedding table, as new tokens usually do."""
    if part != "llm":
        return {}
    mean = np.asarray(params["embed"]["embedding"], np.float32).mean(axis=0)
    return {"new_tokens": {"embedding": np.tile(mean, (model.new_tokens, 1))}}


def check_family(family: str, kind: str) -> None:
    """Raise InputError unless the model is a SensorLLM."""
    if family != "sensorllm":
        raise InputError(
            f"model.family is {family!r}, but the task {kind!r} trains 'sensorllm', of which "
            "llama and chronos_t5 are parts: name their checkpoints in task.llm and task.encoder."
        )


class Task(BaseTask):
    """Classification of windows."""

    sharding, lora = sensorllm.SHARDING, sensorllm.LORA
    coefficients: dict[str, float] = {"cross_entropy": 1.0}  # noqa: RUF012 (read only)

    def __init__(self, config: config_lib.Config):
        check_family(config.family, "classify")
        self.config = config
        self.freeze = freeze_rules(config.task)
        self.parts = parts_of(config.task)
        self._check_labels_of_start()
        self._check_rows_per_mean()
        cached = config.task.fix_ts_encoder and config.task.cache_features
        if config.data.augment.enabled and cached:
            raise InputError(
                "data.augment changes the readings in every epoch, so that states of the encoder "
                "cannot be kept: set task.cache_features=False."
            )
        self._answers = self._encode_answers()

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the model with fresh parameters."""
        return Modules(sensorllm.Model(self.config.model, rngs=rngs))

    def follow(self, part: str, params: Tree) -> Tree:
        """Return the markers that a loaded language model makes."""
        return markers_of(self.config.model, part, params)

    def batches(self, split: str, host: int, hosts: int) -> Shuffled:
        """Draw windows of the training part; `split` is "train", the only one that is sampled."""
        config = self.config.data
        return Shuffled(
            self.windows.read,
            self.windows.data.rows("train"),
            config.batch_size,
            seed=self.config.seed,
            host=host,
            hosts=hosts,
            sizes=self.windows.sizes(config.bucket) if config.bucket else None,
            draws=config.augment.enabled,
        )

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Sum the weights of the windows' activities, once for each token of an answer."""
        weight = jnp.asarray(self.class_weights)[batch["label"]]
        if "asked" in batch:
            weight = weight * (batch["lengths"] - batch["asked"])
        if each := self.config.task.compat.rows_per_mean:
            return {"cross_entropy": jnp.float32(len(weight) // each)}
        return {"cross_entropy": weight.sum()}

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum the weighted cross-entropy of activities, or of the tokens of their names."""
        model: sensorllm.Model = modules.model
        weight = jnp.asarray(self.class_weights)[batch["label"]]
        x = self._embed(model, batch, key if train else None)
        if model.config.model_type == "classification":
            losses = cross_entropy(model.classify(x, batch["lengths"]), batch["label"])
            return {"cross_entropy": self._total(weight, losses)}
        offsets = jnp.arange(max(map(len, self._answers)))
        places = jnp.minimum(batch["asked"][:, None] + offsets, x.shape[1] - 1)
        answered = places < batch["lengths"][:, None]
        tokens = jnp.take_along_axis(batch["tokens"], places, axis=1)
        before = model.llm.hidden(x, places=places - 1)
        losses = cross_entropy(model.llm.logits(before), jnp.where(answered, tokens, -1))
        return {"cross_entropy": self._total(weight[:, None] * answered, losses)}

    def predict(self, model: sensorllm.Model, batch: Batch) -> jax.Array:
        """Return the chance (B, K) of each activity, fp32."""
        x = self._embed(model, batch)
        if model.config.model_type == "classification":
            return jax.nn.softmax(model.classify(x, batch["lengths"]))
        longest = max(map(len, self._answers))
        answers = np.asarray([[*a, *[0] * (longest - len(a))] for a in self._answers], np.int32)
        scores = llama.score(
            *(model.llm, x, batch["asked"], answers, np.asarray(list(map(len, self._answers)))),
            embed=model.embed_text,
        )
        return jax.nn.softmax(scores)

    def flops(self, batch: Batch) -> float:
        """Count the matmuls of one forward pass."""
        rows, length = batch["tokens"].shape
        model = self.config.model
        states = 1 if model.model_type == "classification" else max(map(len, self._answers))
        return sensorllm.flops(model, rows, length, states, encode="features" not in batch)

    def tokens(self, batch: Batch) -> float:
        """Count the language model's tokens, padding included."""
        return float(batch["tokens"].size)

    def evaluators(self, split: str) -> Sequence[Any]:
        """All windows of the validation or test part, named like the data set."""
        if self.config.evals.suites:
            raise InputError(
                f"The config field evals.suites is {list(self.config.evals.suites)}, but this task "
                "evaluates the other parts of data.path: set it to ()."
            )
        data = self.windows.data
        part = "test" if self.config.task.compat.select_on_test else split
        rows = data.rows(part)
        if part == "test" and not len(rows):
            return ()
        return [
            ClassificationEvaluator(
                data.facts.dataset,
                self.windows.read,
                rows,
                data.label_ids[rows],
                self.config.model.labels,
                batch_size=self.config.evals.batch_size,
                split=split,
            )
        ]

    def before(self, frozen: Tree) -> None:
        """Compute the states of a frozen encoder once, or find those of an earlier run."""
        weights = int8.dequantised(frozen["params"].get("model", {}).get("encoder", {}))
        graph, expected, _ = functional.abstract(
            lambda rngs: sensorllm.Model(self.config.model, rngs=rngs).encoder
        )
        whole = functional.flatten(weights).keys() == functional.flatten(expected).keys()
        if not (self.config.task.cache_features and whole):
            return
        local = jax.tree.map(checkpoint.whole, weights)

        @jax.jit
        def encode(params: Tree, batch: Batch) -> jax.Array:
            encoder = functional.merge(graph, params, {})
            flat = {name: x.reshape(-1, x.shape[-1]) for name, x in batch.items()}
            states = encoder(flat["series"], flat["series_mask"])
            return states.reshape(*batch["series"].shape, -1)

        self.windows.features = make_features(
            functools.partial(encode, jax.device_put(local)),
            self.windows.series,
            len(self.windows.data),
            checkpoint.digest(local) + self.config.optim.precision,
        )

    def artefacts(self) -> dict[str, Any]:
        """Names of activities by id, and what texts about other windows are made of."""
        facts, model = self.windows.data.facts, self.config.model
        places = [facts.channels.index(name) for name in model.channels]
        return {
            "id2label": {str(i): label for i, label in enumerate(model.labels)},
            "dataset": facts.dataset,
            "rate": facts.rate,
            "antialias": facts.settings.get("antialias", "none"),
            **{
                name: [getattr(facts, name)[place] for place in places]
                for name in ("channel_texts", "mean", "std")
            },
        }

    @functools.cached_property
    def windows(self) -> Windows:
        """The data set, opened when it is first needed."""
        if not self.config.data.path:
            raise InputError(
                "The config field data.path is empty: name a sensor data set of stage 2, as "
                "python -m tsmjax.prepare capture24 or har writes it."
            )
        return self.windows_of(SensorData(self.config.data.path))

    def windows_of(self, data: SensorData) -> Windows:
        """Prepare the windows of any data set for this model."""
        config = self.config.task
        return Windows(
            data,
            self.config.model,
            text_tokenizer(config.tokenizer),
            columns=text_columns(config.preprocess_type),
            label_texts=config.add_ts_special_token_text,
            max_length=config.model_max_length,
            by_place=config.compat.markers_by_place,
            answers=self._answers,
            lead=self._chat.lead if self._answers else (),
            turn=self._chat.turn if self._answers else (),
            changes=self.config.data.augment,
            seed=self.config.seed,
        )

    @functools.cached_property
    def class_weights(self) -> np.ndarray:
        """Weight of each activity (K,): its inverse share of the training windows; 0 if absent."""
        rows = self.windows.data.rows("train")
        counts = np.bincount(
            self.windows.data.label_ids[rows], minlength=len(self.config.model.labels)
        )
        if not self.config.task.use_weighted_loss:
            return np.ones(len(counts), np.float32)
        if self.config.task.compat.smoothed_weights:
            inverse = 1 / (counts / len(rows) + 1e-6)
            return (inverse / inverse.sum()).astype(np.float32)
        present = counts > 0
        if not present.all():
            absent = [
                name for name, n in zip(self.config.model.labels, counts, strict=True) if not n
            ]
            log.warning("No window to train on shows: %s.", ", ".join(absent))
        shares = len(rows) / (present.sum() * np.maximum(counts, 1))
        return np.where(present, shares, 0.0).astype(np.float32)

    def _embed(
        self, model: sensorllm.Model, batch: Batch, key: jax.Array | None = None
    ) -> jax.Array:
        """Embed prompts with the states of their channels, which may be known already.

        With a key channels are lost, as `channel_dropout` says.
        """
        features = batch.get("features")
        if features is None:
            features = model.encode(batch["series"], batch["series_mask"])
        if key is not None and self.config.task.channel_dropout:
            kept = 1 - self.config.task.channel_dropout
            kept = jax.random.bernoulli(key, kept, (*features.shape[:2], 1, 1))
            features = jnp.where(kept, features, 0)
        statistics = batch.get("statistics")
        return model.embed(batch["tokens"], batch["ts_index"], features, statistics)

    def _total(self, weight: jax.Array, losses: jax.Array) -> jax.Array:
        """Sum weighted losses (B, …), or the weighted means of `Compat.rows_per_mean` rows each."""
        if not (each := self.config.task.compat.rows_per_mean):
            return (weight * losses).sum()
        weight, losses = (x.reshape(len(x) // each, -1) for x in (weight, losses))
        means = (weight * losses).sum(axis=1) / jnp.maximum(weight.sum(axis=1), 1e-12)
        return means.sum()

    def _encode_answers(self) -> list[list[int]]:
        """Tokens of the name of each activity, with the end token; none for a classifier."""
        if self.config.model.model_type == "classification":
            return []
        tokenizer = text_tokenizer(self.config.task.tokenizer)
        names = self.config.model.labels
        if self.config.task.chat_template != "none":
            names = [f"{number}. {name}" for number, name in enumerate(names, 1)]
        return [[*tokenizer.encode(name), *self._chat.end] for name in names]

    @functools.cached_property
    def _chat(self) -> Chat:
        """What stands around the prompts of a model that writes."""
        listed = ", ".join(f"{n}. {name}" for n, name in enumerate(self.config.model.labels, 1))
        tokenizer = text_tokenizer(self.config.task.tokenizer)
        system = f"You recognise activities from sensor data. Answer with one of: {listed}."
        return chat(self.config.task.chat_template, tokenizer, system)

    def _check_rows_per_mean(self) -> None:
        """Refuse means over so many rows that a micro-batch does not hold a multiple of them."""
        each = self.config.task.compat.rows_per_mean
        micro = self.config.data.batch_size // max(self.config.optim.accumulate, 1)
        if each and micro % each:
            raise InputError(
                f"task.compat.rows_per_mean is {each}, which does not divide the {micro} windows "
                "of a micro-batch (data.batch_size / optim.accumulate)."
            )

    def _check_labels_of_start(self) -> None:
        """Refuse a checkpoint whose head numbers the activities in another way."""
        source = self.config.checkpoint.init_from
        if not source or any("head" in pattern for pattern in self.config.checkpoint.init_skip):
            return
        found = tuple(pretrained.model_values(source).get("labels", ()))
        if found and found != self.config.model.labels:
            raise InputError(
                f"{Path(source).name} numbers the activities {', '.join(found)}, but model.labels "
                f"is {', '.join(self.config.model.labels)}: its head would name others. Set "
                "model.labels, or keep a fresh head with checkpoint.init_skip=('head/',)."
            )
