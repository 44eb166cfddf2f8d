"""What tests of raw formats share."""

import json

import numpy as np
import pytest

from tsmjax.data.arrow import ArrowSource
from tsmjax.prepare.__main__ import main


@pytest.fixture
def prepare_glucose(tmp_path, capsys):
    """Prepare a file or folder; return (exit code, items by name, report, output)."""

    def run(source, *options):
        folder = tmp_path / "out"
        code = main(["glucose", "--src", str(source), "--dst", str(folder), *options])
        output = "".join(capsys.readouterr())
        if code:
            return code, {}, None, output
        opened = ArrowSource(folder)
        report = json.loads((folder / "report.json").read_text())
        items = opened.read(np.arange(len(opened)))
        names = [item["item_id"] for item in report["items"]]
        return code, dict(zip(names, items, strict=True)), report, output

    return run
