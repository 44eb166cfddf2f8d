"""Which series can be trained on, and the arithmetic from a draw to (series, cut)."""

from __future__ import annotations

from typing import Literal

import numpy as np

from tsmjax.data.counter import below, permute
from tsmjax.errors import InputError

Sampling = Literal["series", "windows"]
_CUT, _SHARE = 1, 2**40  # keep hashes apart from other uses of the same seed


class Windows:
    """Draws of one source, by ordinal; nothing is random but through the seed.

    A window is a series and a cut: the context ends, and the target starts, at the cut. An epoch
    is a permutation of the source, drawn anew for every epoch, in constant memory.

    * ``"series"``: every series once an epoch, with a cut uniform in ``[min_past, L − h]``, where
      ``h = min(horizon, L − min_past)`` and L is the length. This is how chronos-forecasting
      samples: a long series is drawn as often as a short one.
    * ``"windows"``: every cut once an epoch, every `stride` steps back from the last one that has
      the whole of the longest horizon. A long series is drawn more often.

    Attributes:
      size: draws of one epoch.
      skipped: series that are too short to be drawn.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        *,
        name: str,
        sampling: Sampling,
        seed: int,
        horizon: int,
        min_past: int,
        min_future: int,
        stride: int = 1,
        holdout: int = 0,
        min_length: int | None = None,
        share: float = 1.0,
    ):
        """Index the windows of series with the given lengths.

        Args:
          lengths: length of each series, holdout included.
          name: the source, for messages.
          sampling: "series" or "windows".
          seed: chooses the permutations and the cuts.
          horizon: longest horizon, in steps.
          min_past: least number of steps before a cut.
          min_future: least number of steps after a cut.
          stride: steps between two cuts of a series ("windows" only).
          holdout: steps at the end of each series that are never used.
          min_length: a known lower bound of `lengths`; when it suffices, no length is looked at.
          share: of the windows, or series, that are drawn at all, chosen by the seed.

        Raises:
          InputError: when all series are too short, or the share is less than one of them.
        """
        self._lengths, self._holdout = lengths, holdout
        self._sampling, self._seed, self._stride = sampling, seed, stride
        self._horizon, self._min_past = horizon, min_past
        needed = min_past + min_future + holdout
        self._valid: np.ndarray | None = None
        if min_length is None or min_length < needed:
            self._valid = np.flatnonzero(lengths >= needed)
            if not self._valid.size:
                raise InputError(
                    f"All {len(lengths)} series of {name} are too short: the longest has "
                    f"{int(np.max(lengths))} steps and {needed} are needed (min_past={min_past} + "
                    f"min_future={min_future} + holdout={holdout}); lower one of these or use "
                    "longer series."
                )
            if len(self._valid) == len(lengths):
                self._valid = None
        series = len(lengths) if self._valid is None else len(self._valid)
        self.skipped = len(lengths) - series
        if sampling == "windows":
            usable = (lengths if self._valid is None else lengths[self._valid]).astype(np.int64)
            usable = usable - holdout
            # The last cut leaves the whole horizon, or what the least past leaves of it.
            last = usable - np.minimum(horizon, usable - min_past)
            self._ends = np.cumsum((last - min_past) // stride + 1)
            self.size = int(self._ends[-1])
        else:
            self.size = series
        self._all, self.size = self.size, int(share * self.size)
        if not self.size:
            raise InputError(
                f"{name} is less than one of its {self._all} {sampling}: take a larger share."
            )

    def locate(self, draw: np.ndarray, horizon: int | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (series, cut) of each draw.

        Args:
          draw: int64 ordinals in this source, from 0 without end.
          horizon: steps to forecast, one number or one a draw, at most the longest horizon.
        """
        epoch, ordinal = np.divmod(draw, self.size)
        chosen = permute(ordinal, self.size, self._seed, epoch)
        if self.size < self._all:
            chosen = permute(chosen, self._all, self._seed, _SHARE)
        if self._sampling == "windows":
            position = np.searchsorted(self._ends, chosen, side="right")
            series = position if self._valid is None else self._valid[position]
            usable = self._usable(series)
            last = usable - np.minimum(self._horizon, usable - self._min_past)
            return series, last - (self._ends[position] - 1 - chosen) * self._stride
        series = chosen if self._valid is None else self._valid[chosen]
        usable = self._usable(series)
        last = usable - np.minimum(horizon, usable - self._min_past)
        cuts = below(last - self._min_past + 1, self._seed, _CUT, draw)
        return series, self._min_past + cuts

    def share_of_long(self, steps: int) -> float:
        """Return the share of draws that come from series of at least `steps` steps."""
        lengths = self._lengths if self._valid is None else self._lengths[self._valid]
        long = lengths >= steps + self._holdout
        if self._sampling == "windows":
            return float(np.diff(self._ends, prepend=0)[long].sum() / self.size)
        return float(long.mean())

    def _usable(self, series: np.ndarray) -> np.ndarray:
        return self._lengths[series].astype(np.int64) - self._holdout
