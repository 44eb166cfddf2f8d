"""TTM as the YAML file of a Hugging Face fine-tuning script says; its keys are in docs/ttm.md.

    python -m tsmjax.main --config=configs/ttm_yaml.py:FILE.yaml --config.data.batch_size=256

The data of `data.source_name` are looked for as that path and in cache/data, the folder that
`data=DIR` replaces: NAME/processed (a CSV a patient) with `loader_type: cache`, NAME/raw with
`legacy`. They are converted once. Covariates are known in the past only; `announced` tells the
model their future too:

    --config=configs/ttm_yaml.py:FILE.yaml,data=/data/cgm,announced

Without a file, configs/ttm_example.yaml is trained, in a minute and with no download.
"""

from pathlib import Path

from ml_collections import ConfigDict

from tsmjax.errors import InputError, closest
from tsmjax.ttm_compat import TTMConfig, translate

_EXAMPLE = Path(__file__).with_name("ttm_example.yaml")
_OPTIONS = ("data", "announced")


def get_config(argument: str = "") -> ConfigDict:
    """Return the config; `argument` is ``FILE.yaml[,data=DIR][,announced]``."""
    file, *rest = argument.split(",")
    options = dict(part.partition("=")[::2] for part in rest)
    for name in options:
        if name not in _OPTIONS:
            raise InputError(
                f"ttm_yaml has no option {name!r}{closest(name, _OPTIONS)}; there are data=DIR and "
                "announced."
            )
    settings = TTMConfig.from_yaml(file or _EXAMPLE)
    root = {"data_root": options["data"]} if "data" in options else {}
    return ConfigDict(translate.to_config(settings, announced="announced" in options, **root))
