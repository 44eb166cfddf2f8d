"""Stage 1: questions and answers about one channel, and exact scores of answers.

A channel is cut into its trends, maximal runs of rising, falling or equal readings. The answer of
type ``trend`` lists them, counts them and sums them up (SensorLLM, Li et al. 2024, section 3.2); a
``summary`` sums up only; a ``question`` has one short exact answer. Unlike the overlap of words
with a reference text, the listing of an answer can be checked against the readings themselves:
`listing_sums` and `listing_scores`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tsmjax.wearables.recordings import UNLABELLED
from tsmjax.wearables.texts import (
    FALL,
    KINDS,
    RISE,
    STEADY,
    WORDS,
    Segments,
    chooser,
    decimal,
    durations,
    in_words,
    listed,
    pick,
    segments,
    synonyms,
)

QA_TYPES = ("trend", "summary", "question")
_SIGNS = {kind: sign for sign, kind in KINDS.items()}
_KIND_OF_WORD = {word: kind for kind, words in WORDS.items() for word in words}

_LINES = (
    "{start}s to {end}s: {word}",
    "{start} s - {end} s: {word}",
    "from {start} to {end} seconds: {word}",
    "between {start} s and {end} s: {word}",
    "[{start}, {end}] s: {word}",
    "{word} from {start} s until {end} s",
)
_COUNTS = (
    "Segments that are {word}: {count}",
    "Number of {word} segments: {count}",
    "Count of {word} segments: {count}",
    "{count} segments are {word}",
)
_ASK_TREND = (
    "List the trends of these readings of the {channel} step by step.",
    "How does the {channel} change over time? Answer segment by segment.",
    "Describe each rise and each fall of the {channel}, one after the other.",
    "Split these {channel} readings into trends and name each.",
    "Which trends does the {channel} run through, and when?",
    "Go through the readings of the {channel} and tell where they rise, fall or stay.",
    "Give every segment of the {channel} with its trend.",
    "Write down, in order of time, how the {channel} moves.",
)
_ASK_SUMMARY = (
    "Sum up how the {channel} behaves.",
    "Give a short summary of the trends of the {channel}.",
    "What is the general course of the {channel}?",
    "In a few sentences, describe the {channel}.",
    "Summarise these readings of the {channel}.",
    "How would you characterise the {channel} over this time?",
)
_SPANS = (
    "The {channel} was read for {seconds} seconds.",
    "These are {seconds} seconds of the {channel}.",
    "The readings of the {channel} cover {seconds} seconds.",
    "Over {seconds} seconds the {channel} was observed.",
)
_SEGMENTS = (
    "They split into {segments} segments with {kinds} kinds of trend.",
    "There are {kinds} kinds of trend in {segments} segments.",
    "The course has {segments} segments of {kinds} kinds.",
)
_SEGMENT_OF_ONE = (
    "One trend holds throughout.",
    "The trend is the same from beginning to end.",
    "It is a single segment.",
)
_TOTALS = (
    "In total the channel is {parts}.",
    "Added up, it is {parts}.",
    "The time divides into {parts}.",
)
_ENDS = {
    RISE: ("Overall it goes upward.", "It ends above where it began.", "The net move is upward."),
    FALL: (
        "Overall it goes downward.",
        "It ends below where it began.",
        "The net move is downward.",
    ),
    STEADY: (
        "Overall it stays level.",
        "It ends where it began.",
        "There is no net move.",
    ),
}
_NUMBER = r"-?\d+(?:\.\d+)?"


class Listing(NamedTuple):
    """Segments as an answer lists them.

    Attributes:
      kinds: (n,) int8: 1 rising, −1 falling, 0 steady.
      start: (n,) seconds.
      end: (n,) seconds.
    """

    kinds: np.ndarray
    start: np.ndarray
    end: np.ndarray


def _pattern(template: str) -> re.Pattern[str]:
    words = "|".join(sorted(_KIND_OF_WORD, key=len, reverse=True))
    pattern = re.escape(template)
    for name, part in (("start", _NUMBER), ("end", _NUMBER), ("word", words)):
        pattern = pattern.replace(re.escape(f"{{{name}}}"), f"(?P<{name}>{part})")
    return re.compile(pattern.replace(r"\ ", r"\s*"), re.I)


_PATTERNS = tuple(_pattern(template) for template in _LINES)


def random_pieces(
    labels: np.ndarray, shortest: int, longest: int, rng: np.random.Generator
) -> np.ndarray:
    """Cut unbroken steps of each activity into pieces of random length: (n, 2) first, end.

    Lengths are uniform; of what remains and is too short, the piece before takes what fits.

    Args:
      labels: (steps,) of an unbroken stretch; steps without a label are left out.
      shortest: steps of a piece.
      longest: steps of a piece.
      rng: draws the lengths.
    """
    edges = np.concatenate([[0], np.flatnonzero(labels[1:] != labels[:-1]) + 1, [len(labels)]])
    found = []
    for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if labels[first] == UNLABELLED:
            continue
        while end - first >= shortest:
            length = int(rng.integers(shortest, longest + 1))
            rest = end - first - length
            if rest < shortest:
                length = min(end - first, longest)
            found.append((first, first + length))
            first += length
    return np.asarray(found, np.int64).reshape(-1, 2)


def ask(
    values: np.ndarray, channel: str, rate: float, qa_type: str, seed: int, name: str
) -> dict[str, str]:
    """Return the columns ``Q`` and ``A`` of a piece.

    Args:
      values: (steps,) of one channel.
      channel: what the channel is called.
      rate: steps a second.
      qa_type: one of `QA_TYPES`.
      seed: of the wording.
      name: of the piece: other pieces get another wording.
    """
    rng = chooser(seed, f"{name} {channel} {qa_type}")
    found = segments(values)
    if qa_type == "question":
        return _exact(values, found, channel, rate, rng)
    words = synonyms(rng)
    summary = summary_text(values, found, channel, rate, words, rng)
    if qa_type == "summary":
        return {"Q": pick(rng, _ASK_SUMMARY).format(channel=channel), "A": summary}
    text = f"{listing_text(found, rate, words, rng)}\n\n{summary}"
    return {"Q": pick(rng, _ASK_TREND).format(channel=channel), "A": text}


def listing_text(
    found: Segments, rate: float, words: Mapping[str, str], rng: np.random.Generator
) -> str:
    """List segments, a line each, and count those of each kind when there are several kinds."""
    digits = max(2, int(np.ceil(np.log10(rate))))
    line = pick(rng, _LINES)
    lines = [
        line.format(
            start=decimal(first / rate, digits),
            end=decimal(last / rate, digits),
            word=words[KINDS[int(sign)]],
        )
        for sign, first, last in zip(*found, strict=True)
    ]
    count = pick(rng, _COUNTS)
    kinds = durations(found, rate)
    if len(kinds) > 1:
        lines += [
            count.format(word=words[kind], count=int((found.kinds == _SIGNS[kind]).sum()))
            for kind in kinds
        ]
    return "\n".join(lines)


def summary_text(
    values: np.ndarray,
    found: Segments,
    channel: str,
    rate: float,
    words: Mapping[str, str],
    rng: np.random.Generator,
) -> str:
    """Sum up: time span, trends and segments, seconds of each trend, direction."""
    seconds = durations(found, rate)
    say = in_words if rng.random() < 0.5 else str
    several = len(found.kinds) > 1
    parts = [f"{words[kind]} for {decimal(spent, 2)} s" for kind, spent in seconds.items()]
    sentences = [
        pick(rng, _SPANS).format(channel=channel, seconds=decimal((len(values) - 1) / rate, 2)),
        pick(rng, _SEGMENTS if several else _SEGMENT_OF_ONE).format(
            segments=say(len(found.kinds)), kinds=say(len(seconds))
        ),
        pick(rng, _TOTALS).format(parts=listed(parts)),
        pick(rng, _ENDS[KINDS[int(np.sign(values[-1] - values[0]))]]),
    ]
    return " ".join(sentences)


def _exact(
    values: np.ndarray, found: Segments, channel: str, rate: float, rng: np.random.Generator
) -> dict[str, str]:
    """Return one of five questions that have one right answer, whatever the units."""
    seconds = durations(found, rate)
    names = {RISE: "rising", FALL: "falling", STEADY: "steady"}
    direction = {1: "upward", -1: "downward", 0: "level"}[int(np.sign(values[-1] - values[0]))]
    longest = max(seconds, key=seconds.get)
    choices = (
        (f"How many segments of one trend does the {channel} have?", str(len(found.kinds))),
        (f"Does the {channel} end above or below where it began, or level?", direction),
        (f"Which trend of the {channel} lasts longest in total?", names[longest]),
        (
            f"When does the {channel} first reach its highest reading, in seconds?",
            decimal(int(values.argmax()) / rate, 2),
        ),
        (
            f"When does the {channel} first reach its lowest reading, in seconds?",
            decimal(int(values.argmin()) / rate, 2),
        ),
    )
    text, answer = choices[int(rng.integers(len(choices)))]
    return {"Q": text, "A": answer}


# ------------------------------------------------------------------------------------ exact scores


def parse_listing(answer: str) -> Listing:
    """Read the lines of an answer that name a segment, in any of the forms they are written in.

    Other lines are passed over, and so are segments that end before they begin.
    """
    kinds, start, end = [], [], []
    for line in answer.splitlines():
        match = next(
            (found for pattern in _PATTERNS if (found := pattern.fullmatch(line.strip(" .-•*")))),
            None,
        )
        if match and float(match["end"]) > float(match["start"]) >= 0:
            kinds.append(_SIGNS[_KIND_OF_WORD[match["word"].lower()]])
            start.append(float(match["start"]))
            end.append(float(match["end"]))
    return Listing(np.asarray(kinds, np.int8), np.asarray(start), np.asarray(end))


def listing_sums(answer: str, values: np.ndarray, rate: float) -> dict[str, float]:
    """Compare the listing of an answer with the readings; sums add over answers.

    Args:
      answer: text with a listing.
      values: (steps,) the readings it is about.
      rate: steps a second.

    Returns:
      ``answers`` and ``parsed`` (with a listing), ``found``, ``listed`` and ``true`` boundaries
      between segments, ``right`` and ``steps``, ``wrong_seconds`` and ``seconds``.
    """
    truth, claimed = segments(values), parse_listing(answer)
    steps = len(values) - 1
    first = np.clip(np.round(claimed.start * rate), 0, steps).astype(int)
    end = np.clip(np.round(claimed.end * rate), 0, steps).astype(int)
    # A boundary is the step after which the trend is another one.
    believed = np.full(steps, 2, np.int8)
    for kind, begin, stop in zip(claimed.kinds, first, end, strict=True):
        believed[begin:stop] = kind
    actual = np.repeat(truth.kinds, truth.last - truth.first)
    borders = set(np.flatnonzero(actual[1:] != actual[:-1]).tolist())
    guessed = set(first[(first > 0) & (first < steps)] - 1)
    difference = [abs((believed == sign).sum() - (actual == sign).sum()) for sign in KINDS]
    return {
        "answers": 1.0,
        "parsed": float(len(claimed.kinds) > 0),
        "found": float(len(borders & guessed)),
        "listed": float(len(guessed)),
        "true": float(len(borders)),
        "right": float((believed == actual).sum()),
        "steps": float(steps),
        "wrong_seconds": float(sum(difference)) / rate,
        "seconds": steps / rate,
    }


def listing_scores(sums: Mapping[str, float]) -> dict[str, float]:
    """Return scores of sums of `listing_sums`.

    ``parsed``: share of answers with a listing. ``boundary_f1``: of the steps where one segment
    ends and the next begins, exact to the step. ``trend_accuracy``: share of steps with the right
    trend. ``duration_error``: difference in seconds of each trend, summed over trends, by the time
    that there is; 0 is right, 1 is what an empty answer gets, 2 the worst.
    """
    borders = sums["listed"] + sums["true"]
    return {
        "parsed": sums["parsed"] / sums["answers"],
        "boundary_f1": 2 * sums["found"] / borders if borders else 1.0,
        "trend_accuracy": sums["right"] / sums["steps"],
        "duration_error": sums["wrong_seconds"] / sums["seconds"],
    }


def total(parts: list[Mapping[str, float]]) -> dict[str, float]:
    """Add sums of several answers."""
    added: Counter[str] = Counter()
    for part in parts:
        added.update(part)
    return dict(added)
