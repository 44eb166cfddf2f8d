"""A profile of a few steps, for TensorBoard's profiler or Perfetto."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import jax

from tsmjax.errors import InputError

log = logging.getLogger(__name__)


class Profiler:
    """Traces the steps of a window, the device's work included.

    A profiler that fails warns and is left out; it does not end a run.
    """

    def __init__(self, folder: str | Path, window: str):
        """Configure it.

        Args:
          folder: where the trace goes, in ``plugins/profile/``.
          window: "100:105" for the steps 100 to 105, both included; "" for none.

        Raises:
          InputError: when the window has another form.
        """
        self._folder = Path(folder)
        self._first, self._last = _parse(window)
        self._tracing = False

    def before(self, step: int) -> None:
        """Start before the window's first step; a resumed run may start within the window."""
        if self._first <= step <= self._last and not self._tracing:
            self._try(lambda: jax.profiler.start_trace(str(self._folder)))
            self._tracing = self._first <= self._last

    def ends(self, step: int) -> bool:
        """Whether the window ends with this step, so that it must be waited for."""
        return self._tracing and step >= self._last

    def stop(self) -> None:
        """Write the trace, if one is being taken; the traced steps must have finished."""
        if not self._tracing:
            return
        self._tracing = False
        self._try(jax.profiler.stop_trace)
        if self._first <= self._last:
            log.info(
                "The profile of steps %d to %d is in %s.", self._first, self._last, self._folder
            )
        self._last = self._first - 1  # once a run

    def _try(self, action) -> None:
        try:
            action()
        except Exception as error:
            self._last = self._first - 1
            log.warning("There will be no profile: %s: %s", type(error).__name__, error)


def _parse(window: str) -> tuple[int, int]:
    """Return the first and the last step; no window ends before it begins."""
    if not window:
        return 0, -1
    match = re.fullmatch(r"(\d+)(?::(\d+))?", window.strip())
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 1 <= first <= last:
        raise InputError(
            f"The config field log.profile_steps is {window!r}, but must read like '100:105': "
            "first and last step, counted from 1."
        )
    return first, last
