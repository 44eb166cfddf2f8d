"""From a path or a Hugging Face hub id to a local folder."""

from __future__ import annotations

import re
from pathlib import Path

from tsmjax.errors import InputError


def is_id(name: str) -> bool:
    """Whether `name` has the form OWNER/NAME or OWNER/NAME@REVISION."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w.-]+)?", name) is not None


def resolve(path: str | Path) -> Path:
    """Return the local folder of `path`; a hub id such as ``amazon/chronos-2`` is downloaded.

    A branch, tag or commit may follow, as in ``OWNER/NAME@REVISION``. Only JSON and safetensors
    files are fetched, into the cache of huggingface_hub, which also decides about tokens, mirrors
    and offline mode (``HF_HUB_OFFLINE=1``).

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
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        repository, _, revision = name.partition("@")
        patterns = ["*.json", "*.safetensors"]
        return Path(
            snapshot_download(repository, revision=revision or None, allow_patterns=patterns)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise InputError(
            f"{name} is not a local folder, and the hub did not deliver it ({reason}); check the "
            "name, the network, or give a folder."
        ) from error
