"""Pickles of arrays, lists and dicts, read without running what they say."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from tsmjax.errors import InputError

# What NumPy arrays and numbers are rebuilt with, in its versions 1 and 2 and all protocols.
_ALLOWED = {
    *(
        (f"numpy.{core}.multiarray", name)
        for core in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _Refused(Exception):  # noqa: N818 (tells what is refused)
    pass


class _Unpickler(pickle.Unpickler):
    """Finds nothing but what arrays are rebuilt with."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _Refused(f"{module}.{name}")
        return super().find_class(module, name)


def load(path: Path) -> Any:
    """Return what a pickle holds: arrays, numbers, strings, and lists and dicts of them.

    Raises:
      InputError: when it asks for anything else, which could run any program, or is damaged.
    """
    try:
        with open(path, "rb") as file:
            return _Unpickler(file).load()
    except _Refused as refused:
        raise InputError(
            f"{path} asks to call {refused} when it is read; a pickle of windows holds arrays, "
            "lists, dicts, texts and numbers only. It was not read on: a pickle can run any "
            "program, so get the file from somebody you trust, as arrays."
        ) from refused
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    except Exception as error:  # whatever damaged bytes lead to
        raise InputError(f"{path} is damaged or no pickle ({error}): copy it again.") from error
