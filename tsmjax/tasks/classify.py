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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from tsmjax import checkpoint, pretrained
from tsmjax import config as config_lib
from tsmjax.data.features import make_features
from tsmjax.data.prompts import Shuffled, Windows, text_columns
from tsmjax.data.sensor import SensorData
from tsmjax.data.text import text_tokenizer
from tsmjax.errors import InputError
from tsmjax.evals.classification import ClassificationEvaluator
from tsmjax.models import llama, sensorllm
from tsmjax.nn import functional
from tsmjax.nn.functional import Tree
from tsmjax.nn.losses import cross_entropy
from tsmjax.tasks import Batch, Modules
from tsmjax.tasks import Task as BaseTask


@dataclasses.dataclass(frozen=True)
class Config:
    """What to read, what trains, and what to minimise.

    Attributes:
      llm: checkpoint of the language model to start from; empty for fresh weights.
      encoder: checkpoint of the encoder to start from; empty for fresh weights.
      tokenizer: of texts: "bytes", a ``.bin`` file of llama2.c, or a Hugging Face folder or hub id.
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
    """

    llm: str = ""
    encoder: str = ""
    tokenizer: str = "bytes"
    preprocess_type: str = "smry+trend+corr+Q"
    add_ts_special_token_text: bool = False
    model_max_length: int = 4096
    use_weighted_loss: bool = True
    fix_llm: bool = True
    fix_ts_encoder: bool = True
    fix_cls_head: bool = False
    tune_mm_mlp_adapter: bool = True
    cache_features: bool = True

    def __post_init__(self):
        text_columns(self.preprocess_type)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where windows come from.

    Attributes:
      path: sensor data set of stage 2, as `python -m tsmjax.prepare capture24` or `har` writes it.
      batch_size: windows of one optimiser step, over all devices.
      workers: processes that assemble batches; 0 for threads of the main process.
      prefetch: batches that are kept ready.
    """

    path: str = ""
    batch_size: int = 64
    workers: int = 0
    prefetch: int = 4


def freeze_rules(config: Any) -> tuple[tuple[str, bool], ...]:
    """Turn the switches of a task's config into (path pattern, frozen?) rules."""
    return (
        (r"^model/llm/", config.fix_llm),
        (r"^model/encoder/", config.fix_ts_encoder),
        (r"^model/head/", getattr(config, "fix_cls_head", False)),
        (r"^model/(projection|new_tokens)/", not config.tune_mm_mlp_adapter),
    )


def parts_of(config: Any) -> dict[str, str]:
    """Return the checkpoints that the parts of the model start from."""
    return {name: path for name in ("llm", "encoder") if (path := getattr(config, name))}


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
        self._answers = self._encode_answers()

    def build(self, rngs: nnx.Rngs) -> Modules:
        """Construct the model with fresh parameters."""
        return Modules(sensorllm.Model(self.config.model, rngs=rngs))

    def batches(self, split: str, host: int, hosts: int) -> Shuffled:
        """Draw windows of the training part; `split` is "train", the only one that is sampled."""
        return Shuffled(
            self.windows.read,
            self.windows.data.rows("train"),
            self.config.data.batch_size,
            seed=self.config.seed,
            host=host,
            hosts=hosts,
        )

    def weights(self, batch: Batch) -> dict[str, jax.Array]:
        """Sum the weights of the windows' activities, once for each token of an answer."""
        weight = jnp.asarray(self.class_weights)[batch["label"]]
        if "asked" in batch:
            weight = weight * (batch["lengths"] - batch["asked"])
        return {"cross_entropy": weight.sum()}

    def terms(
        self, modules: Modules, batch: Batch, key: jax.Array | None, train: bool
    ) -> dict[str, jax.Array]:
        """Sum the weighted cross-entropy of activities, or of the tokens of their names."""
        model: sensorllm.Model = modules.model
        weight = jnp.asarray(self.class_weights)[batch["label"]]
        x = self._embed(model, batch)
        if model.config.model_type == "classification":
            losses = cross_entropy(model.classify(x, batch["lengths"]), batch["label"])
            return {"cross_entropy": (weight * losses).sum()}
        h = model.llm.hidden(x)
        offsets = jnp.arange(max(map(len, self._answers)))
        places = jnp.minimum(batch["asked"][:, None] + offsets, x.shape[1] - 1)
        answered = places < batch["lengths"][:, None]
        tokens = jnp.take_along_axis(batch["tokens"], places, axis=1)
        before = jnp.take_along_axis(h, (places - 1)[..., None], axis=1)
        losses = cross_entropy(model.llm.logits(before), jnp.where(answered, tokens, -1))
        return {"cross_entropy": (weight[:, None] * losses).sum()}

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
        return sensorllm.flops(self.config.model, rows, length, encode="features" not in batch)

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
        rows = data.rows(split)
        if split == "test" and not len(rows):
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
        weights = frozen["params"].get("model", {}).get("encoder", {})
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
        texts = dict(zip(facts.channels, facts.channel_texts, strict=True))
        return {
            "id2label": {str(i): label for i, label in enumerate(model.labels)},
            "dataset": facts.dataset,
            "rate": facts.rate,
            "channel_texts": [texts[name] for name in model.channels],
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
            answers=self._answers,
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
        present = counts > 0
        shares = len(rows) / (present.sum() * np.maximum(counts, 1))
        return np.where(present, shares, 0.0).astype(np.float32)

    def _embed(self, model: sensorllm.Model, batch: Batch) -> jax.Array:
        """Embed prompts with the states of their channels, which may be known already."""
        features = batch.get("features")
        if features is None:
            features = model.encode(batch["series"], batch["series_mask"])
        return model.embed(batch["tokens"], batch["ts_index"], features)

    def _encode_answers(self) -> list[list[int]]:
        """Tokens of the name of each activity, with the end token; none for a classifier."""
        if self.config.model.model_type == "classification":
            return []
        tokenizer = text_tokenizer(self.config.task.tokenizer)
        names = [f"\n{label}" for label in self.config.model.labels]
        return [[*tokenizer.encode(name), tokenizer.eos] for name in names]

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
