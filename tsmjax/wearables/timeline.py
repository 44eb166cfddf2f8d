"""A picture of activities over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

_SUBJECTS = 4  # panels
_POINTS = 2000  # of a channel


class Signal(NamedTuple):
    """Readings of one subject.

    Attributes:
      times: (steps,) of the kind that `timeline` draws along.
      values: (steps, channels).
    """

    times: np.ndarray
    values: np.ndarray


class Span(NamedTuple):
    """Windows of one subject.

    Attributes:
      subject: heading.
      starts: (n,) numbers or datetime64.
      ends: (n,) of the same kind.
      activities: (n,) place of the predicted activity among the labels.
      chances: (n,) how sure the prediction is.
      truth: n names of what was going on; empty where unknown.
      signal: the readings, or None.
    """

    subject: str
    starts: np.ndarray
    ends: np.ndarray
    activities: np.ndarray
    chances: np.ndarray
    truth: Sequence[str]
    signal: Signal | None


def timeline(
    spans: Sequence[Span], labels: Sequence[str], channels: Sequence[str], path: str | Path
) -> Path:
    """Draw the readings of the first subjects and a bar for each window, at its activity.

    A pale bar is an unsure prediction; where the truth is known, an outline stands at it. Of
    overlapping windows the later is drawn over the earlier.

    Args:
      spans: the windows of each subject.
      labels: names of the activities; only those that occur get a row.
      channels: names of the channels.
      path: PNG to write.
    """
    from tsmjax.monitor.plots import INK, MUTED, PALETTE, new_figure, save, style

    spans = spans[:_SUBJECTS]
    used = sorted({int(a) for span in spans for a in span.activities})
    names = [labels[place] for place in used]
    names += sorted({name for span in spans for name in span.truth if name} - set(names))
    rows = {name: len(names) - 1 - number for number, name in enumerate(names)}
    height = 1.3 + 0.24 * len(names)
    figure = new_figure(11.0, (height + 1.5) * len(spans) + 0.4)
    grid = figure.subplots(
        *(2 * len(spans), 1), squeeze=False, height_ratios=[1.3, height] * len(spans)
    )
    for number, span in enumerate(spans):
        above, below = grid[2 * number, 0], grid[2 * number + 1, 0]
        style(above)
        style(below)
        if span.signal is not None:
            step = max(len(span.signal.times) // _POINTS, 1)
            for channel, name in enumerate(channels):
                above.plot(
                    span.signal.times[::step],
                    span.signal.values[::step, channel],
                    *("-",),
                    color=PALETTE[channel % len(PALETTE)],
                    linewidth=0.7,
                    label=name,
                )
            above.legend(fontsize=7, ncols=min(len(channels), 6), loc="upper right", frameon=False)
        above.set_title(span.subject, fontsize=10, color=INK, loc="left")
        above.tick_params(labelbottom=False)
        above.sharex(below)
        widths = span.ends - span.starts
        for start, width, activity, chance in zip(
            span.starts, widths, span.activities, span.chances, strict=True
        ):
            place = rows[labels[int(activity)]]
            below.barh(
                *(place, width),
                left=start,
                height=0.62,
                color=PALETTE[int(activity) % len(PALETTE)],
                alpha=0.25 + 0.75 * float(chance),
                linewidth=0,
            )
        for start, end, name in _stretches(span):
            if name:
                below.barh(
                    *(rows[name], end - start),
                    left=start,
                    height=0.86,
                    facecolor="none",
                    edgecolor=MUTED,
                    linewidth=0.8,
                )
        below.set_yticks(list(rows.values()), list(rows), fontsize=8)
        below.set_ylim(-0.6, len(names) - 0.4)
        below.set_xlim(span.starts.min(), span.ends.max())
    if not np.issubdtype(spans[0].starts.dtype, np.datetime64):
        grid[-1, 0].set_xlabel("seconds", fontsize=9, color=INK)
    return save(figure, path)


def _stretches(span: Span) -> Iterator[tuple[Any, Any, str]]:
    """Yield start, end and name of windows of one truth that follow each other without a gap."""
    first = 0
    for at in range(1, len(span.truth) + 1):
        over = at == len(span.truth) or span.truth[at] != span.truth[first]
        if over or span.starts[at] > span.ends[at - 1]:
            yield span.starts[first], span.ends[at - 1], span.truth[first]
            first = at
