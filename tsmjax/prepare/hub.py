"""Data sets of the Hugging Face hub as local files."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from tsmjax.errors import InputError


def fetch(repo: str, folder: str = "", revision: str | None = None) -> tuple[list[Path], str]:
    """Download the Parquet and Arrow files of a data set and return them with their commit.

    huggingface_hub does the work: it goes on where a download stopped, keeps files in its cache,
    and follows HF_ENDPOINT, HTTPS_PROXY, HF_TOKEN and HF_HUB_OFFLINE. Repositories whose files are
    made by a script are looked up on the branch to which the hub converts them.

    Args:
      repo: OWNER/NAME.
      folder: part of the repository; all of it by default.
      revision: branch, tag or commit.

    Raises:
      InputError: when the hub does not deliver, or there are no such files.
    """
    from huggingface_hub import snapshot_download

    inside = f"{folder}/" if folder else ""
    patterns = [f"{inside}*{suffix}" for suffix in (".parquet", ".arrow")]
    for branch in (revision,) if revision else (None, "refs/convert/parquet"):
        try:
            snapshot = Path(
                snapshot_download(
                    repo, repo_type="dataset", revision=branch, allow_patterns=patterns
                )
            )
        except Exception as error:  # which ones depends on its version's HTTP library
            if branch == "refs/convert/parquet":
                break  # no such branch: say what is missing, not where we looked last
            reason = " ".join(str(error).split()).rstrip(".")[:300]
            raise InputError(
                f"The hub did not deliver the data set {repo} ({reason}); check the name, the "
                "network or proxy, or HF_HUB_OFFLINE."
            ) from error
        found = (snapshot / folder).rglob("*")
        if files := sorted(path for path in found if path.suffix in (".parquet", ".arrow")):
            _check(files)
            return files, snapshot.name
    place = f"the folder {folder!r} of the data set {repo}" if folder else f"the data set {repo}"
    raise InputError(f"There are no .parquet and no .arrow files in {place} on the hub.")


def digest(file: Path) -> str:
    """Return the SHA-256 of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _check(files: list[Path]) -> None:
    """Compare files with what the hub told about them; a snapshot may be partial when offline."""
    for file in files:
        # The cache names large files by their SHA-256.
        expected = file.resolve().name
        if re.fullmatch("[0-9a-f]{64}", expected) and digest(file) != expected:
            raise InputError(f"{file.resolve()} was damaged: delete it and run again.")
    counted = [re.search(r"(.*)-\d{5}-of-(\d{5})", file.name) for file in files]
    for start, total in {(match[1], match[2]) for match in counted if match}:
        have = sum(match is not None and match[1] == start for match in counted)
        if have != int(total):
            raise InputError(
                f"Only {have} of {int(total)} files of {files[0].parent} are in the cache of "
                "huggingface_hub: run again with a connection."
            )
