"""Series to tokens: scale, then look up the bin of each value.

Source: Ansari et al., "Chronos: Learning the Language of Time Series" (2024), section 3.1; Li et
al., "SensorLLM" (2024), section 3.2 (standardisation instead of mean scaling).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, NamedTuple

import numpy as np

from tsmjax.errors import InputError

_EDGE = 1e20  # beyond it a value has no bin
_SMALL = 1e-8  # added to the variance


@dataclasses.dataclass(frozen=True)
class Tokenizer:
    """How series become tokens; the defaults are those of the published models.

    Attributes:
      kind: "MeanScaleUniformBins" divides by the mean absolute value; "StanNormalizeUniformBins"
        standardises.
      low_limit: centre of the first bin.
      high_limit: centre of the last bin.
      n_tokens: size of the vocabulary.
      n_special_tokens: tokens before the first bin.
      pad_token: token of a missing value.
      eos_token: token behind the last value.
      use_eos_token: whether there is one.
      context_length: longest series; older values are dropped.
    """

    kind: Literal["MeanScaleUniformBins", "StanNormalizeUniformBins"] = "MeanScaleUniformBins"
    low_limit: float = -15.0
    high_limit: float = 15.0
    n_tokens: int = 4096
    n_special_tokens: int = 2
    pad_token: int = 0
    eos_token: int = 1
    use_eos_token: bool = True
    context_length: int = 512

    def __post_init__(self):
        if self.high_limit <= self.low_limit:
            raise InputError(
                f"model.tokenizer.high_limit is {self.high_limit}, but must be above "
                f"model.tokenizer.low_limit, which is {self.low_limit}."
            )
        if self.n_tokens < self.n_special_tokens + 3 or self.n_special_tokens < 1:
            raise InputError(
                f"model.tokenizer.n_tokens is {self.n_tokens}, but must be at least "
                f"{self.n_special_tokens + 3}: special tokens and two bins."
            )
        if self.context_length < 1:
            raise InputError(
                f"model.tokenizer.context_length is {self.context_length}, but must be positive."
            )


class Tokens(NamedTuple):
    """Tokens of series, and how to come back.

    Attributes:
      ids: (…, L) int32, with the end token last when the tokenizer has one.
      mask: (…, L) bool, False where a value is missing.
      loc: (…,) float64, what was subtracted.
      scale: (…,) float64, what was divided by then.
    """

    ids: np.ndarray
    mask: np.ndarray
    loc: np.ndarray
    scale: np.ndarray


def tokenize(tokenizer: Tokenizer, series: np.ndarray) -> Tokens:
    """Turn series (…, T) into tokens; NaN and ±inf are missing.

    A series without any value is all padding, with loc 0 and scale 1. Everything is float64.
    """
    x = np.asarray(series, np.float64)[..., -tokenizer.context_length :]
    seen = np.isfinite(x)
    x = np.where(seen, x, 0.0)
    count = np.maximum(seen.sum(axis=-1), 1)
    if tokenizer.kind == "MeanScaleUniformBins":
        loc = np.zeros(x.shape[:-1])
        scale = np.abs(x).sum(axis=-1) / count
    else:
        loc = x.sum(axis=-1) / count
        deviation = np.where(seen, x - loc[..., None], 0.0)
        scale = np.sqrt(np.square(deviation).sum(axis=-1) / count + _SMALL)
        scale = np.where(seen.any(axis=-1), scale, 1.0)
    scale = np.where(scale > 0, scale, 1.0)
    z = (x - loc[..., None]) / scale[..., None]
    _, boundaries = _bins(tokenizer)
    ids = np.searchsorted(boundaries, z, side="right") + tokenizer.n_special_tokens
    ids = np.where(seen, np.minimum(ids, tokenizer.n_tokens - 1), tokenizer.pad_token)
    if tokenizer.use_eos_token:
        end = np.ones((*ids.shape[:-1], 1), bool)
        ids = np.concatenate([ids, end * tokenizer.eos_token], axis=-1)
        seen = np.concatenate([seen, end], axis=-1)
    return Tokens(ids.astype(np.int32), seen, loc, scale)


def decode(tokenizer: Tokenizer, ids: np.ndarray, loc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Turn tokens of values (…, L) back into the centres of their bins, float64."""
    centres, _ = _bins(tokenizer)
    index = np.clip(np.asarray(ids) - tokenizer.n_special_tokens - 1, 0, len(centres) - 1)
    return centres[index] * np.asarray(scale)[..., None] + np.asarray(loc)[..., None]


@functools.cache
def _bins(tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Return centres, and boundaries with the two outermost; float32 values in float64."""
    count = tokenizer.n_tokens - tokenizer.n_special_tokens - 1
    # PyTorch counts steps of float32 from both ends, and rounds each product and sum once.
    low, high = np.float32(tokenizer.low_limit), np.float32(tokenizer.high_limit)
    step = np.float64((high - low) / np.float32(count - 1))
    index = np.arange(count)
    centres = np.where(
        index < count // 2, low + step * index, high - step * (count - 1 - index)
    ).astype(np.float32)
    middle = (centres[1:] + centres[:-1]) / np.float32(2)
    boundaries = np.concatenate([[-_EDGE], middle.astype(np.float64), [_EDGE]])
    return centres.astype(np.float64), boundaries
