"""Prompts: what the language model of SensorLLM reads, text and places of sensor states.

A channel enters as ``[text] <start> state … state <end>``; blocks of channels, the texts about the
window and the question follow each other on lines of their own, as in Li et al. (2024), section
3.3. Markers are matched to channels by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tsmjax.data.counter import permute
from tsmjax.data.features import Features
from tsmjax.data.sensor import SensorData
from tsmjax.data.text import TextTokenizer
from tsmjax.errors import InputError, closest
from tsmjax.models.chronos_t5 import tokenize
from tsmjax.models.sensorllm import Config
from tsmjax.wearables.augment import Augment, augment, triads
from tsmjax.wearables.summaries import told

# Part of preprocess_type → column of the data set, in the order of a prompt.
TEXTS = {
    "smry": "smry",
    "meta": "info_text",
    "trend": "trend_text",
    "corr": "corr_text",
    "Q": "Q",
}
_MULTIPLE = 64  # prompts are padded to a multiple of it
_POOL = 16  # batches whose rows are sorted together


class Prompt(NamedTuple):
    """The beginning of a row of tokens.

    Attributes:
      tokens: (n,) int32, those from the language model's vocabulary size on are markers.
      ts_index: (n,) int32, number of a vector made of states, −1 for text.
    """

    tokens: np.ndarray
    ts_index: np.ndarray


def text_columns(preprocess_type: str) -> list[str]:
    """Return the columns of texts of a ``preprocess_type`` such as ``smry+trend+corr+Q``.

    Raises:
      InputError: for an unknown part, or one that is given twice.
    """
    parts = preprocess_type.split("+") if preprocess_type != "none" else []
    for part in parts:
        if part not in TEXTS or parts.count(part) > 1:
            raise InputError(
                f"task.preprocess_type is {preprocess_type!r}, but must be 'none' or different "
                f"parts of {', '.join(TEXTS)} joined by '+'{closest(part, TEXTS)}."
            )
    return [column for part, column in TEXTS.items() if part in parts]


class Chat(NamedTuple):
    """What stands around a question and its answer.

    Attributes:
      lead: tokens between the one that begins a text and the channels.
      turn: tokens between the question and the answer.
      end: tokens behind the answer.
    """

    lead: list[int]
    turn: list[int]
    end: list[int]


def chat(template: str, tokenizer: TextTokenizer, system: str, double_bos: bool = False) -> Chat:
    """Return what a template puts around questions.

    "none" puts a line's end before the answer and the end of a text behind it; "llama3" makes
    system, user and assistant take turns, as the Llama 3 Instruct models were trained.

    Args:
      template: "none" or "llama3".
      tokenizer: encodes it.
      system: what the system says; nothing without a template.
      double_bos: begin texts of "llama3" twice: the template writes the token, and so does the
        tokenizer.

    Raises:
      InputError: when the tokenizer does not know the template's special tokens.
    """
    if template == "none":
        return Chat([], tokenizer.encode("\n"), [tokenizer.eos])
    end = tokenizer.encode("<|eot_id|>")
    if len(end) != 1:
        raise InputError(
            "task.chat_template is 'llama3', but task.tokenizer does not know <|eot_id|>: take the "
            "tokenizer of a Llama 3 Instruct model, or 'none'."
        )

    def header(who: str) -> str:
        return f"<|start_header_id|>{who}<|end_header_id|>\n\n"

    lead = tokenizer.encode(f"{header('system')}{system}<|eot_id|>{header('user')}")
    if double_bos and tokenizer.bos is not None:
        lead = [tokenizer.bos, *lead]
    return Chat(lead, tokenizer.encode(f"<|eot_id|>{header('assistant')}"), end)


def channel_blocks(
    model: Config,
    tokenizer: TextTokenizer,
    channels: Sequence[int],
    readings: int,
    texts: Sequence[str] | None = None,
    lead: Sequence[int] = (),
) -> Prompt:
    """Build the blocks of some channels, after the token that begins a text.

    Args:
      model: the model.
      tokenizer: encodes what stands between the blocks.
      channels: places of the channels among the model's, one block each.
      readings: readings of each channel.
      texts: what each block begins with; None for nothing.
      lead: tokens before the first block.
    """
    vectors = model.vectors(readings)
    tokens = [*([] if tokenizer.bos is None else [tokenizer.bos]), *lead]
    index = [-1] * len(tokens)
    for number, channel in enumerate(channels):
        lead = ("\n" if number else "") + (f"{texts[number]}: " if texts else "")
        text = tokenizer.encode(lead)
        start = number * model.vectors(model.window)
        tokens += [*text, model.marker(channel, False), *[0] * vectors, model.marker(channel, True)]
        index += [*[-1] * (len(text) + 1), *range(start, start + vectors), -1]
    return Prompt(np.asarray(tokens, np.int32), np.asarray(index, np.int32))


def check_vocabulary(tokenizer: TextTokenizer, model: Config) -> None:
    """Raise InputError when a tokenizer has tokens that the language model lacks."""
    if tokenizer.size > model.llm.vocab_size:
        raise InputError(
            f"task.tokenizer has {tokenizer.size} tokens, but model.llm.vocab_size is only "
            f"{model.llm.vocab_size}: they do not belong together."
        )


def places_of(channels: Sequence[str], model: Config, where: str) -> list[int]:
    """Return the place of each channel of a data set among those of the model, by name.

    Raises:
      InputError: when they are not the same channels.
    """
    if sorted(channels) != sorted(model.channels):
        raise InputError(
            f"{where} has the channels {', '.join(channels)}, but model.channels is "
            f"{', '.join(model.channels)}: a marker belongs to a channel by name."
        )
    return [list(channels).index(name) for name in model.channels]


def check_labels(labels: Sequence[str], model: Config, where: str) -> None:
    """Raise InputError when a data set numbers its activities in another way than the model."""
    if tuple(labels) != tuple(model.labels):
        raise InputError(
            f"{where} has the labels {', '.join(labels)}, but model.labels is "
            f"{', '.join(model.labels)}: ids would mean other activities. Set model.labels, or "
            "prepare the data with the labels of the checkpoint."
        )


def padded_length(longest: int, multiple: int = _MULTIPLE) -> int:
    """Round a number of tokens up, so that few shapes are compiled."""
    return -(-longest // multiple) * multiple


def lay_out(rows: Sequence[Prompt], length: int) -> dict[str, np.ndarray]:
    """Pad prompts on the right: ``tokens`` and ``ts_index`` (B, length), ``lengths`` (B,)."""
    tokens = np.zeros((len(rows), length), np.int32)
    index = np.full((len(rows), length), -1, np.int32)
    for row, prompt in enumerate(rows):
        tokens[row, : len(prompt.tokens)] = prompt.tokens
        index[row, : len(prompt.tokens)] = prompt.ts_index
    lengths = np.asarray([len(prompt.tokens) for prompt in rows], np.int32)
    return {"tokens": tokens, "ts_index": index, "lengths": lengths}


def followed_by(prompt: Prompt, tokens: Sequence[int]) -> Prompt:
    """Append tokens of text to a prompt."""
    return Prompt(
        np.concatenate([prompt.tokens, np.asarray(tokens, np.int32)]),
        np.concatenate([prompt.ts_index, np.full(len(tokens), -1, np.int32)]),
    )


class Windows:
    """Windows of a sensor data set as rows of a batch.

    A row is ``tokens``, ``ts_index`` (L,), ``lengths``, ``label``, and ``series`` and
    ``series_mask`` (C, W + 1) or, once they are known, the encoder's ``features`` (C, W + 1, E). A
    model that reads them also gets ``statistics`` (C, S): what is `told` of standardised channels.

    Attributes:
      length: L, tokens of the longest prompt, rounded up.
      features: states of the encoder for all rows of the data set, or None.
      data: the data set.
    """

    def __init__(
        self,
        data: SensorData,
        model: Config,
        tokenizer: TextTokenizer,
        *,
        columns: Sequence[str],
        label_texts: bool,
        max_length: int,
        by_place: bool = False,
        answers: Sequence[Sequence[int]] = (),
        lead: Sequence[int] = (),
        turn: Sequence[int] = (),
        changes: Augment | None = None,
        seed: int = 0,
    ):
        """Encode all texts.

        Args:
          data: the data set, of stage 2.
          model: the model.
          tokenizer: encodes the texts.
          columns: which texts follow the channels.
          label_texts: begin each block with the name of its channel.
          max_length: longest prompt in tokens; longer ones lose their end.
          by_place: match channels to markers by place instead of by name.
          answers: tokens of the answer of each label, appended to the prompts; () for none.
          lead: tokens before the channels.
          turn: tokens between the texts and the answer.
          changes: how far windows that are read with `draws` are changed.
          seed: of these changes.

        Raises:
          InputError: when data and model do not belong together, or a prompt without its texts is
            too long already.
        """
        facts = data.facts
        if facts.stage != 2:
            raise InputError(
                f"{data.path} holds questions about single channels (stage {facts.stage}); "
                "activities are recognised in windows: prepare it with --stage 2."
            )
        check_vocabulary(tokenizer, model)
        check_labels(facts.labels, model, data.path)
        self._places = places_of(facts.channels, model, data.path)
        if by_place:
            self._places = list(range(len(self._places)))
        if facts.window != model.window:
            raise InputError(
                f"{data.path} has windows of {facts.window} readings, but model.window is "
                f"{model.window}: set model.window={facts.window}."
            )
        if len(wrong := np.flatnonzero(data.lengths != model.window)):
            raise InputError(
                f"Row {wrong[0]} of {data.path} has {data.lengths[wrong[0]]} readings, but a "
                f"window has {model.window}: prepare the data again."
            )
        known = (data.label_ids >= 0) & (data.label_ids < len(model.labels))
        if len(wrong := np.flatnonzero(~known)):
            raise InputError(
                f"Row {wrong[0]} of {data.path} has the label {data.label_ids[wrong[0]]}, but the "
                f"labels are numbered 0 to {len(model.labels) - 1}: prepare the data again."
            )
        self.data, self._model, self._answers = data, model, answers
        self._changes, self._seed = changes or Augment(), seed
        channels = [facts.channels[place] for place in self._places]
        self._sensors = triads(channels) if self._changes.rotation else None
        texts = [facts.channel_texts[place] for place in self._places] if label_texts else None
        count = len(model.channels)
        self._head = channel_blocks(model, tokenizer, range(count), model.window, texts, lead)
        behind = len(turn) + max(map(len, answers), default=0)
        room = max_length - len(self._head.tokens) - behind
        if room < 0:
            raise InputError(
                f"The channels alone make a prompt of {len(self._head.tokens)} tokens, but "
                f"task.model_max_length is {max_length}, which would cut a channel in two: raise "
                "it, or use shorter windows."
            )
        everything = np.arange(len(data))
        parts = [data.texts(column, everything) for column in columns]
        self._texts = [
            np.asarray(
                [*tokenizer.encode("\n\n" + "\n".join(filter(None, row)))[:room], *turn], np.int32
            )
            for row in zip(*parts, strict=True)
        ] or [np.asarray(turn, np.int32)] * len(data)
        longest = max(map(len, self._texts), default=0) + max(map(len, answers), default=0)
        self.length = padded_length(len(self._head.tokens) + longest)
        self.features: Features | None = None

    def sizes(self, multiple: int) -> np.ndarray:
        """Tokens of each row's prompt and longest answer, rounded up to a multiple: (rows,)."""
        longest = len(self._head.tokens) + max(map(len, self._answers), default=0)
        each = [min(padded_length(longest + len(t), multiple), self.length) for t in self._texts]
        return np.asarray(each)

    def read(
        self, rows: np.ndarray, length: int | None = None, draws: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """Return a batch of `rows`; `asked` is the length of a prompt without its answer.

        Args:
          rows: row numbers.
          length: tokens that prompts are padded to; None for `self.length`.
          draws: (rows,) ordinals that random changes of the readings depend on; None for none.
        """
        labels = self.data.label_ids[rows]
        prompts = [followed_by(self._head, self._texts[row]) for row in rows.tolist()]
        asked = np.asarray([len(prompt.tokens) for prompt in prompts], np.int32)
        if self._answers:
            prompts = [
                followed_by(prompt, self._answers[label])
                for prompt, label in zip(prompts, labels.tolist(), strict=True)
            ]
        batch = {**lay_out(prompts, length or self.length), "label": labels}
        if self._answers:
            batch["asked"] = asked
        if draws is not None:
            windows = augment(self._windows(rows), self._changes, self._sensors, self._seed, draws)
            numbers = {"statistics": self._told(windows)} if self._model.statistics else {}
            return {**batch, **numbers, **self._series(windows)}
        if self._model.statistics:
            batch["statistics"] = self._statistics[rows]
        if self.features is not None:
            return {**batch, "features": self.features[rows]}
        return {**batch, **self.series(rows)}

    def series(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Return the encoder's tokens of `rows`: ``series`` and ``series_mask``."""
        return self._series(self._windows(rows))

    def _series(self, windows: np.ndarray) -> dict[str, np.ndarray]:
        found = tokenize(self._model.encoder.tokenizer, windows)
        return {"series": found.ids, "series_mask": found.mask}

    def _windows(self, rows: np.ndarray) -> np.ndarray:
        """Readings (rows, C, W), with the channels in the model's order."""
        return self.data.windows(rows)[:, self._places]

    def _told(self, windows: np.ndarray) -> np.ndarray:
        """What is told of channels (rows, C, S), in units of the training windows."""
        facts = self.data.facts
        mean, std = (np.asarray(x, np.float32)[self._places, None] for x in (facts.mean, facts.std))
        return told((windows - mean) / np.where(std > 0, std, 1))

    @functools.cached_property
    def _statistics(self) -> np.ndarray:
        """What is told of all channels of all rows (rows, C, S)."""
        chunks = np.array_split(np.arange(len(self.data)), -(-len(self.data) // 256))
        return np.concatenate([self._told(self._windows(one)) for one in chunks])

    def prompt(self, row: int) -> Prompt:
        """Return the prompt of one row, without padding and answer."""
        return followed_by(self._head, self._texts[row])


class Shuffled:
    """Training batches by step: every row once an epoch, in an order of (seed, epoch).

    With `sizes`, batches hold rows of like size: the rows of `_POOL` batches are sorted, cut into
    batches, and these are shuffled.

    Attributes:
      rows: rows of a global batch.
      steps_per_epoch: steps in which as many rows are drawn as there are.
    """

    def __init__(
        self,
        read: Callable[..., dict[str, np.ndarray]],
        numbers: np.ndarray,
        batch_size: int,
        *,
        seed: int,
        host: int = 0,
        hosts: int = 1,
        sizes: np.ndarray | None = None,
        draws: bool = False,
    ):
        """Remember what to draw from.

        Args:
          read: row numbers, with `sizes` the largest size of the global batch as `length`, and
            with `draws` the places of the rows → batch.
          numbers: the row numbers of the training part.
          batch_size: rows of a global batch.
          seed: chooses the order.
          host: number of this host.
          hosts: number of hosts; host i reads the i-th part of every global batch.
          sizes: (rows of the data set,) size of each row, of a few different ones; None mixes all.
          draws: whether `read` is told the place of each row in the endless sequence.

        Raises:
          InputError: when there are no rows, or hosts do not divide the batch.
        """
        if not len(numbers):
            raise InputError("The training part has no rows; change the split of the data set.")
        if batch_size % hosts:
            raise InputError(
                f"The config field data.batch_size is {batch_size}, but must be a multiple of "
                f"{hosts} hosts."
            )
        self.rows, self.steps_per_epoch = batch_size, len(numbers) / batch_size
        self._read, self._numbers, self._seed, self._sizes = read, numbers, seed, sizes
        self._draws = draws
        share = batch_size // hosts
        self._mine = np.arange(host * share, (host + 1) * share)

    def __getitem__(self, step: int) -> dict[str, np.ndarray]:
        """Return this host's slice of the batch of `step`."""
        if self._sizes is None:
            places, size = step * self.rows + self._mine, {}
        else:
            pool, place = divmod(step, _POOL)
            places = pool * _POOL * self.rows + np.arange(_POOL * self.rows)
            sizes = self._sizes[self._drawn(places)]
            order = np.argsort(sizes, kind="stable").reshape(_POOL, self.rows)
            order = order[permute(np.array([place]), _POOL, self._seed, pool)[0]]
            places, size = places[order[self._mine]], {"length": int(sizes[order].max())}
        draws = {"draws": places} if self._draws else {}
        return self._read(self._drawn(places), **size, **draws)

    def _drawn(self, places: np.ndarray) -> np.ndarray:
        """Row numbers at places of the endless sequence of shuffled epochs."""
        epoch, place = np.divmod(places, len(self._numbers))
        return self._numbers[permute(place, len(self._numbers), self._seed, epoch)]
