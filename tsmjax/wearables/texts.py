"""Sentences about a window: statistics, trends, correlations and the question for the activity.

What each sentence tells is a function of the numbers; how it says it is drawn, from the seed and
the name of the window alone, so that it is the same in every process. The fields follow SensorLLM
(Li et al., "SensorLLM: Aligning Large Language Models with Motion Sensors", 2024, section 3.3); the
wording is our own.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

RISE, FALL, STEADY = "rise", "fall", "steady"
KINDS = {1: RISE, -1: FALL, 0: STEADY}
_DIGIT_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = (*("", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),)

# Words for each kind of trend; those in one place belong together.
WORDS = {
    RISE: ("rising", "increasing", "growing", "upward", "climbing"),
    FALL: ("falling", "decreasing", "shrinking", "downward", "declining"),
    STEADY: ("steady", "constant", "flat"),
}
_HEADERS = (
    "Statistics of each channel:",
    "Summary statistics, channel by channel:",
    "Mean and spread of the readings:",
    "The readings of each channel have these statistics:",
)
_TRENDS = (
    "{kinds} kinds of trend take turns over {segments} segments.",
    "There are {segments} segments with {kinds} kinds of trend.",
    "The readings change direction to form {segments} segments of {kinds} kinds.",
    "We see {kinds} kinds of trend in {segments} segments.",
    "Split by trend, the channel has {segments} segments of {kinds} kinds.",
    "It runs through {segments} segments, which show {kinds} kinds of trend.",
)
_TRENDS_OF_ONE = (
    "A single trend holds all the time.",
    "One trend lasts from beginning to end.",
    "The trend never changes.",
    "There is a single segment with a single trend.",
)
_DURATIONS = (
    "In total it is {parts}.",
    "Added up, the channel is {parts}.",
    "Its time is shared like this: {parts}.",
    "Over the window it is {parts}.",
    "Durations: {parts}.",
)
_OVERALL = (
    "From the first reading to the last it goes {direction}.",
    "Taken as a whole the direction is {direction}.",
    "Overall it moves {direction}.",
    "Its net course is {direction}.",
    "On balance the channel moves {direction}.",
)
_DIRECTIONS = {RISE: "upward", FALL: "downward", STEADY: "sideways"}
_CORRELATIONS = (
    "Correlations between channels:",
    "How the channels move together:",
    "Relations between pairs of channels:",
)
_PAIRS = (
    "{one} and {other} are {phrase} correlated.",
    "{one} is {phrase} correlated with {other}.",
    "Between {one} and {other}: {phrase} correlated.",
)
_QUESTIONS = (
    "Which activity do these {channels} channels of {data} show?",
    "What is the person doing, judging by {channels} channels of {data}?",
    "Name the activity that {data} from {channels} channels were recorded in.",
    "{channels} channels of {data} are given: which activity is it?",
    "Given {data} of {channels} channels, what activity is going on?",
    "Which of the known activities fits these {channels} channels of {data} best?",
    "Look at {data} in {channels} channels and tell the activity.",
    "From {channels} channels of {data}, infer what the wearer was doing.",
    "What was the wearer of the sensor doing while {channels} channels of {data} were taken?",
    "Classify the activity in this window: {channels} channels of {data}.",
)
_DATA = ("sensor data", "motion readings", "readings of wearable sensors", "time-series data")


class Segments(NamedTuple):
    """Maximal stretches of one trend: strictly rising, strictly falling, or all equal.

    Attributes:
      kinds: (n,) int8: 1 rising, −1 falling, 0 steady.
      first: (n,) first step of each; a step that ends one segment begins the next.
      last: (n,) last step of each.
    """

    kinds: np.ndarray
    first: np.ndarray
    last: np.ndarray


def segments(values: np.ndarray) -> Segments:
    """Cut one channel, (steps,) with two steps at least, into its trends."""
    signs = np.sign(np.diff(values)).astype(np.int8)
    changes = np.flatnonzero(signs[1:] != signs[:-1]) + 1
    first = np.concatenate([[0], changes])
    return Segments(signs[first], first, np.append(changes, len(signs)))


def chooser(seed: int, name: str) -> np.random.Generator:
    """Return the random generator of a window: the same in every process and on every machine."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def pick(rng: np.random.Generator, choices: Sequence[str]) -> str:
    """Draw one of several texts."""
    return choices[int(rng.integers(len(choices)))]


def in_words(number: int) -> str:
    """Return a number below 1000 in English words; greater ones in digits."""
    if number < 20:
        return _DIGIT_WORDS[number]
    if number < 100:
        rest = number % 10
        return _TENS[number // 10] + (f"-{_DIGIT_WORDS[rest]}" if rest else "")
    if number < 1000:
        rest = number % 100
        return f"{_DIGIT_WORDS[number // 100]} hundred" + (f" {in_words(rest)}" if rest else "")
    return str(number)


def decimal(value: float, digits: int = 8) -> str:
    """Return a number with at most so many decimals, without zeros at the end, never ``-0``."""
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def listed(parts: Sequence[str]) -> str:
    """Join texts with commas and a final ``and``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def statistics_text(values: np.ndarray, channels: Sequence[str], rng: np.random.Generator) -> str:
    """Mean and population deviation of each channel, a line a channel (``smry``).

    Args:
      values: (channels, steps).
      channels: what the channels are called.
      rng: draws the wording.
    """
    values = values.astype(np.float64)
    lines = [
        f"{name}: Mean={decimal(mean)}, StdDev={decimal(std)}"
        for name, mean, std in zip(channels, values.mean(1), values.std(1), strict=True)
    ]
    return "\n".join([pick(rng, _HEADERS), *lines]) + "\n"


def trend_text(
    values: np.ndarray, channels: Sequence[str], rate: float, rng: np.random.Generator
) -> str:
    """Number of trends and segments, seconds of each trend, direction: a line a channel.

    Args:
      values: (channels, steps).
      channels: what the channels are called.
      rate: steps a second.
      rng: draws the wording.
    """
    words = synonyms(rng)
    lines = []
    for name, series in zip(channels, values, strict=True):
        found = segments(series)
        seconds = durations(found, rate)
        several = len(found.kinds) > 1
        say = in_words if rng.random() < 0.5 else str
        sentence = pick(rng, _TRENDS if several else _TRENDS_OF_ONE)
        sentence = sentence.format(kinds=say(len(seconds)), segments=say(len(found.kinds)))
        parts = [f"{words[kind]} for {decimal(spent, 2)} s" for kind, spent in seconds.items()]
        sentences = [
            sentence[0].upper() + sentence[1:],
            pick(rng, _DURATIONS).format(parts=listed(parts)),
        ]
        if several:
            direction = _DIRECTIONS[KINDS[int(np.sign(series[-1] - series[0]))]]
            sentences.append(pick(rng, _OVERALL).format(direction=direction))
        lines.append(f"{name}: {' '.join(sentences)}")
    return "\n".join(lines) + "\n"


def correlation_text(values: np.ndarray, channels: Sequence[str], rng: np.random.Generator) -> str:
    """Seven grades of Pearson's correlation, a line a pair of channels.

    A channel that is constant is correlated with nothing.

    Args:
      values: (channels, steps).
      channels: what the channels are called.
      rng: draws the wording.
    """
    lines = [pick(rng, _CORRELATIONS)]
    centred = values.astype(np.float64)
    centred -= centred.mean(axis=1, keepdims=True)
    norms = np.sqrt((centred**2).sum(axis=1))
    for one, other in itertools.combinations(range(len(channels)), 2):
        scale = norms[one] * norms[other]
        r = float(centred[one] @ centred[other] / scale) if scale > 0 else 0.0
        sentence = pick(rng, _PAIRS).format(
            one=channels[one], other=channels[other], phrase=correlation_phrase(r)
        )
        lines.append(sentence)
    return "\n".join(lines) + "\n"


def correlation_phrase(r: float) -> str:
    """Return one of seven grades: strong from 0.7 on, moderate from 0.3, weak from 0.1."""
    for least, grade in ((0.7, "strongly"), (0.3, "moderately"), (0.1, "weakly")):
        if abs(r) >= least:
            return f"{grade} {'positively' if r > 0 else 'negatively'}"
    return "not significantly"


def question(channels: int, rng: np.random.Generator) -> str:
    """Ask for the activity of a window of so many channels."""
    say = in_words if rng.random() < 0.5 else str
    text = pick(rng, _QUESTIONS).format(channels=say(channels), data=pick(rng, _DATA))
    return text[0].upper() + text[1:]


def stage2(
    values: np.ndarray, channels: Sequence[str], rate: float, seed: int, name: str
) -> dict[str, str]:
    """Return the columns ``smry``, ``trend_text``, ``corr_text`` and ``Q`` of a window.

    Args:
      values: (channels, steps) float32.
      channels: what texts call the channels.
      rate: steps a second.
      seed: of the wording.
      name: of the window: other windows get another wording.
    """
    rng = chooser(seed, name)
    return {
        "smry": statistics_text(values, channels, rng),
        "trend_text": trend_text(values, channels, rate, rng),
        "corr_text": correlation_text(values, channels, rng) if len(channels) > 1 else "",
        "Q": question(len(channels), rng),
    }


def synonyms(rng: np.random.Generator) -> dict[str, str]:
    """Draw words for the three kinds of trend; those for up and down belong together."""
    pair, steady = int(rng.integers(len(WORDS[RISE]))), pick(rng, WORDS[STEADY])
    return {RISE: WORDS[RISE][pair], FALL: WORDS[FALL][pair], STEADY: steady}


def durations(found: Segments, rate: float) -> dict[str, float]:
    """Return the seconds of each kind of trend that occurs: fall, rise, steady."""
    steps = found.last - found.first
    return {
        kind: float(steps[found.kinds == sign].sum()) / rate
        for sign, kind in sorted(KINDS.items(), key=lambda entry: entry[1])
        if (found.kinds == sign).any()
    }
