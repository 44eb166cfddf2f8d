"""The published checkpoints of TTM under a free licence, and which of them to take.

All are under Apache-2.0. Those for research only (research-r2, r3) are left out.
"""

from __future__ import annotations

from typing import NamedTuple

from tsmjax.data.frequency import at_least_daily
from tsmjax.errors import InputError

_HUB = "ibm-granite/granite-timeseries-ttm-r2"


class Published(NamedTuple):
    """A published checkpoint.

    Attributes:
      hub_id: repository on the Hugging Face hub.
      revision: branch of the repository.
      context_length: steps that the model sees.
      prediction_length: steps that it forecasts.
      release: "r2" or "r2.1".
      frequency: whether it is told the step length by a token.
      absolute_error: whether it was trained for the absolute error instead of the squared one.
    """

    hub_id: str
    revision: str
    context_length: int
    prediction_length: int
    release: str
    frequency: bool
    absolute_error: bool

    @property
    def path(self) -> str:
        """What `Forecaster.from_pretrained`, ``convert`` and ``init_from`` take."""
        return f"{self.hub_id}@{self.revision}"


def _published(name: str) -> Published:
    """Read CONTEXT-HORIZON[-ft][-l1]-RELEASE, which is also the branch of all but one."""
    context, horizon, *kinds, release = name.split("-")
    branch = "main" if name == "512-96-r2" else name
    sizes = int(context), int(horizon)
    return Published(_HUB, branch, *sizes, release, "ft" in kinds, "l1" in kinds)


PUBLISHED = tuple(
    map(
        _published,
        (
            *(f"{c}-{h}-r2" for c in (512, 1024, 1536) for h in (96, 192, 336, 720)),
            *("52-16-ft-r2.1", "52-16-ft-l1-r2.1", "90-30-ft-r2.1", "90-30-ft-l1-r2.1"),
            *("180-60-ft-l1-r2.1", "360-60-ft-l1-r2.1", "512-48-ft-r2.1", "512-48-ft-l1-r2.1"),
            *("512-96-ft-r2.1", "512-96-ft-l1-r2.1"),
        ),
    )
)


def select_ttm(
    context_length: int,
    horizon: int,
    freq: str | None = None,
    *,
    absolute_error: bool = False,
    frequency: bool = False,
) -> Published:
    """Choose a published checkpoint for a history and a horizon, by the rules of granite-tsfm.

    The longest context that the history fills, then the shortest horizon that reaches far enough.
    Daily and slower data have only r2.1, whose pretraining held such data.

    Args:
      context_length: steps of history that there are.
      horizon: steps to forecast; a longer forecast of the model is cut
        (``model.prediction_filter_length``, or the `Forecaster` does it).
      freq: pandas frequency of the steps; None is any below a day.
      absolute_error: where there is a choice, take the one trained for the absolute error.
      frequency: where there is a choice, take the one that is told the step length.

    Raises:
      InputError: when the history is too short or the horizon too long for all of them.
    """
    if horizon < 1:
        raise InputError(f"The horizon is {horizon}, but must be at least 1.")
    daily = freq is not None and at_least_daily(freq)
    usable = [one for one in PUBLISHED if one.release == "r2.1" or not daily]
    fitting = [one for one in usable if one.context_length <= context_length]
    if not fitting:
        shortest = min(one.context_length for one in usable)
        raise InputError(
            f"The history has {context_length} steps, but the published models need {shortest} at "
            "least: give a longer history, or train a model for it."
        )
    reaching = [one for one in fitting if one.prediction_length >= horizon]
    if not reaching:
        longest = max(one.prediction_length for one in fitting)
        raise InputError(
            f"The horizon is {horizon}, but the published models for {context_length} steps "
            f"{f'of frequency {freq!r} ' if daily else ''}forecast {longest} at most: ask for "
            "fewer, and let the Forecaster go on from there."
        )
    return min(
        reaching,
        key=lambda one: (
            -one.context_length,
            one.prediction_length,
            one.absolute_error != absolute_error,
            one.frequency != frequency,
        ),
    )
