"""Files of a folder or of a tar archive, one after the other."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from tsmjax.errors import InputError


def members(source: Path, suffix: str) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files with a suffix, in the order of their names.

    Args:
      source: a folder, searched with its folders inside, or a .tar of any compression.
      suffix: as ``.json``.

    Raises:
      InputError: when there are none, or the archive is damaged.
    """
    if source.is_dir():
        found = sorted(source.rglob(f"*{suffix}"), key=lambda path: path.name)
        for path in found:
            yield path.name, path.read_bytes()
    else:
        try:
            with tarfile.open(source) as archive:  # a compressed one is read once, in its order
                found = [
                    (Path(entry.name).name, archive.extractfile(entry).read())
                    for entry in archive
                    if entry.isfile() and entry.name.endswith(suffix)
                ]
        except (tarfile.TarError, EOFError, OSError) as error:
            raise InputError(f"{source} is damaged or no tar archive ({error}).") from error
        yield from sorted(found)
    if not found:
        raise InputError(f"{source} holds no {suffix} files.")
