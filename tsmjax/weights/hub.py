"""From a path or a Hugging Face hub id to a local folder."""

from __future__ import annotations

import re
from pathlib import Path

from tsmjax.errors import InputError

_FILES = ("*.json", "*.safetensors")


def is_id(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME or OWNER/NAME@REVISION."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", name) is not None


def resolve(path: str | Path, pickles: bool = False) -> Path:
    """Return the local folder of `path`; a hub id such as ``amazon/chronos-2`` is downloaded.

    A branch, tag or commit may follow, as in ``OWNER/NAME@REVISION``. Only JSON and safetensors
    files are fetched, into the cache of huggingface_hub, which goes on where a download stopped and
    follows HF_HOME, HF_ENDPOINT, HF_TOKEN, HTTPS_PROXY and HF_HUB_OFFLINE.

    Args:
      path: folder or hub id.
      pickles: fetch PyTorch's ``.bin`` files too.

    Raises:
      InputError: when there is neither such a folder nor such a repository.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    name = str(path)
    if not is_id(name):
        raise InputError(f"{name} is neither a folder nor a hub id of the form OWNER/NAME.")
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    patterns = [*_FILES, *(["*.bin"] if pickles else [])]
    try:
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=patterns)
        )
    except Exception as error:  # which ones depends on its version's HTTP library
        raise InputError(
            f"{name} is not a local folder, and the hub did not deliver it: "
            f"{_reason(error, repository, revision)}."
        ) from error


def _reason(error: Exception, repository: str, revision: str) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"its licence has to be accepted at {constants.ENDPOINT}/{repository}, and HF_TOKEN "
            "has to hold a token of who accepted it"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no branch, tag or commit {revision}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such model, or it is private: check the name, or set HF_TOKEN"
    if constants.HF_HUB_OFFLINE:
        return (
            "HF_HUB_OFFLINE is set, and the cache does not have it: download it once without, or "
            "give a folder"
        )
    told = " ".join(str(error).split()).rstrip(".")[:300]
    return f"check network, proxy (HTTPS_PROXY) and HF_ENDPOINT, or give a folder ({told})"
