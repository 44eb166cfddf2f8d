"""`Classifier`: activities of windows from Python."""

from __future__ import annotations

import functools
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tsmjax import compiler, pretrained
from tsmjax.errors import InputError
from tsmjax.nn import functional
from tsmjax.wearables import streams, texts


class Classifier:
    """A trained model that names the activity in windows of sensor channels.

    Attributes:
      labels: names of the activities by id.
      channels: names of the channels, in the order in which windows have them.
      window: readings of a window.
      rate: readings a second that the model was trained with (Hz).
      config: resolved config values that the model was trained with.
    """

    def __init__(self, loaded: pretrained.Pretrained):
        """Wrap a loaded model; `from_pretrained` is the usual way in.

        Raises:
          InputError: when the model classifies no windows.
        """
        if (kind := loaded.config["task"]["kind"]) != "classify":
            raise InputError(
                f"A Classifier needs a model of task 'classify', but this is {kind!r}."
            )
        model, facts = loaded.task.config.model, loaded.artefacts
        self.labels, self.channels, self.window = model.labels, model.channels, model.window
        self.config, self.rate = loaded.config, facts["rate"]
        self._task, self._facts = loaded.task, facts
        graph, self._params, _ = functional.split(loaded.model)
        self._predict = compiler.jit(
            lambda params, batch: loaded.task.predict(functional.merge(graph, params, {}), batch)
        )

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Classifier:
        """Load a run folder; ``@best``, ``@final``, ``@latest`` or ``@STEP`` may follow its name.

        Raises:
          InputError: when there is no checkpoint, or one of another task.
        """
        return cls(pretrained.from_pretrained(str(path)))

    def predict_proba(self, windows: np.ndarray, batch_size: int = 16) -> np.ndarray:
        """Return the chance of each activity.

        Args:
          windows: (windows, channels, readings) in the units and at the rate of the training data.
          batch_size: windows of one forward pass; a prompt's padding depends on it a little, a
            prediction does not.

        Returns:
          (windows, activities) float32.

        Raises:
          InputError: when the windows have another shape, or a reading is not finite.
        """
        windows = np.asarray(windows, np.float32)
        shape = (len(self.channels), self.window)
        if windows.ndim != 3 or windows.shape[1:] != shape:
            raise InputError(
                f"The windows have the shape {windows.shape}, but must be (windows, {shape[0]} "
                f"channels {', '.join(self.channels)}, {shape[1]} readings)."
            )
        if bad := int((~np.isfinite(windows).all(axis=(1, 2))).sum()):
            raise InputError(f"{bad} of {len(windows)} windows have readings that are not finite.")
        chances = [np.zeros((0, len(self.labels)), np.float32)]
        for start in range(0, len(windows), batch_size):
            part = windows[start : start + batch_size]
            full = np.concatenate([part, np.repeat(part[-1:], batch_size - len(part), axis=0)])
            rows = self._task.windows_of(_Given(full, self))
            batch = rows.read(np.arange(batch_size))
            chances.append(np.asarray(self._predict(self._params, batch))[: len(part)])
        return np.concatenate(chances)

    def predict_df(
        self,
        df: pd.DataFrame,
        *,
        timestamp_column: str = "time",
        id_column: str = "subject",
        label_column: str = "label",
        overlap: float = 0.5,
        batch_size: int = 16,
        where: str = "The table",
    ) -> pd.DataFrame:
        """Name the activities of a stream of readings, window by window.

        Args:
          df: a row for each reading: its time (seconds, or dates), all `channels`, and perhaps who
            wore the sensor and what is known of the activity. The rate may be a multiple of `rate`.
          timestamp_column: name of the time.
          id_column: name of the wearer; may be absent.
          label_column: name of what is known; may be absent, or empty in places.
          overlap: share of a window that the next one repeats.
          batch_size: windows of one forward pass.
          where: readable origin of the table, for messages.

        Returns:
          A row for each window: the wearer and the known label if the table has them, ``start`` and
          ``end`` like the times, ``activity``, ``chance``, and the chance of each activity under
          its name. No window spans a gap in time.

        Raises:
          InputError: when a column is missing, the rate does not fit, or no window is left.
        """
        found = streams.windows_of(
            *(df, self.channels, self.window, self.rate),
            time_column=timestamp_column,
            subject_column=id_column,
            label_column=label_column,
            overlap=overlap,
            antialias=self._facts["antialias"],
            where=where,
        )
        chances = self.predict_proba(found.windows, batch_size)
        seconds = pd.api.types.is_numeric_dtype(df[timestamp_column])
        ends = found.starts + round(self.window / self.rate * 1e9)
        columns: dict[str, Any] = {}
        if id_column in df.columns:
            columns[id_column] = found.subjects
        for name, times in (("start", found.starts), ("end", ends)):
            columns[name] = times / 1e9 if seconds else times.astype("datetime64[ns]")
        if found.names:
            columns[label_column] = [found.names[i] if i >= 0 else "" for i in found.labels]
        columns["activity"] = [self.labels[index] for index in chances.argmax(axis=1).tolist()]
        columns["chance"] = chances.max(axis=1)
        return pd.DataFrame({**columns, **dict(zip(self.labels, chances.T, strict=True))})

    def predict(self, windows: np.ndarray, batch_size: int = 16) -> list[str]:
        """Return the name of the most likely activity of each window; see `predict_proba`."""
        chances = self.predict_proba(windows, batch_size)
        return [self.labels[index] for index in chances.argmax(axis=1).tolist()]


class _Given:
    """Windows in memory, with texts made like those of the training data."""

    path = "The given windows"

    def __init__(self, windows: np.ndarray, owner: Classifier):
        self._windows, self._owner = windows, owner
        self.label_ids = np.zeros(len(windows), np.int32)
        self.lengths = np.full(len(windows), owner.window)
        self.facts: Any = types.SimpleNamespace(
            **{"stage": 2, "labels": owner.labels, "window": owner.window},
            channels=owner.channels,
            **{name: owner._facts[name] for name in ("channel_texts", "mean", "std")},
        )

    def __len__(self) -> int:
        return len(self._windows)

    def windows(self, rows: np.ndarray) -> np.ndarray:
        """Return windows (rows, channels, readings)."""
        return self._windows[rows]

    def texts(self, name: str, rows: np.ndarray) -> list[str]:
        """Return one text about each window; empty where nothing is known."""
        return [self._columns[row].get(name, "") for row in np.asarray(rows).tolist()]

    @functools.cached_property
    def _columns(self) -> list[dict[str, str]]:
        owner = self._owner
        return [
            texts.stage2(window, owner._facts["channel_texts"], owner.rate, 0, str(number))
            for number, window in enumerate(self._windows)
        ]
