"""Print the Kubernetes manifest of a run, for `kubectl apply -f -`.

    python -m launch.kubernetes --name base --image REGISTRY/tsmjax --hosts 4 --gpus 8 --claim data \
        -- --config=configs/chronos2_base.py:/shared/corpus --workdir=/shared/runs/base | kubectl apply -f -

What follows the two dashes goes to `python -m tsmjax.main`; paths are those inside the container, where
the volume claim is mounted. --plain prints an indexed Job with a headless service instead of a JobSet.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import re
import string
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

_HERE = Path(__file__).parent
_NAME = r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?"  # short enough for what controllers append


def render(options: argparse.Namespace) -> str:
    """Return the manifest as YAML."""
    values = {
        "name": options.name,
        "image": json.dumps(options.image),
        "hosts": options.hosts,
        "gpus": options.gpus,
        "claim": json.dumps(options.claim),
        "mount": json.dumps(options.mount),
        # JSON is YAML: quotes and spaces survive.
        "command": json.dumps(["python", "-m", "tsmjax.main", *options.arguments]),
        # One pod of a run cannot start again alone: the JobSet restarts all of them together. In a
        # plain Job, a fault in one pod ends the others too, and each counts.
        "faults": 10 * options.hosts if options.plain else 0,
    }
    pods = yaml.safe_load(_template("pods.yaml").substitute(values))
    outer = _template("job.yaml" if options.plain else "jobset.yaml")
    documents = yaml.safe_load_all(outer.substitute(values, job=json.dumps(pods)))
    return yaml.safe_dump_all(documents, sort_keys=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="launch.kubernetes", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--name", type=_name, required=True, help="name of the run")
    parser.add_argument("--image", required=True, help="container image with tsmjax")
    parser.add_argument("--hosts", type=int, default=1, help="nodes, one pod each")
    parser.add_argument("--gpus", type=int, default=8, help="GPUs of each node")
    parser.add_argument("--claim", required=True, help="volume claim that all nodes can write to")
    parser.add_argument("--mount", default="/shared", help="where the claim is mounted")
    parser.add_argument("--plain", action="store_true", help="indexed Job instead of a JobSet")
    parser.add_argument("arguments", nargs="*", help="arguments of tsmjax.main, behind --")
    print(render(parser.parse_args(argv)), end="")
    return 0


def _template(file: str) -> string.Template:
    return string.Template((_HERE / file).read_text(encoding="utf-8"))


def _name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise argparse.ArgumentTypeError(f"{text!r} is no DNS label: a-z, 0-9 and - (at most 40)")
    return text


if __name__ == "__main__":
    sys.exit(main())
