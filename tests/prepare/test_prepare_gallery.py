"""`prepare gallery`: pictures with something in them, the same for a seed."""

import jax
import numpy as np
import pytest
from matplotlib.image import imread

from tsmjax.prepare import gallery
from tsmjax.prepare.__main__ import main


def test_pictures_and_their_page(tmp_path, monkeypatch):
    seen = {}
    counts = gallery.PICTURES["counts"]

    def kept(key):
        seen.setdefault("panels", []).append(counts.panels(key))
        return seen["panels"][-1]

    monkeypatch.setitem(gallery.PICTURES, "counts", counts._replace(panels=kept))
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        options = ["--dst", str(tmp_path / name), "--only", "counts", "--seed", str(seed)]
        assert main(["gallery", *options]) == 0
    one, same, other = ((tmp_path / name / "counts.png") for name in ("one", "same", "other"))
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()
    picture = imread(one)
    assert picture.shape[1] == 720 and 0.01 < (picture[..., :3] < 0.7).any(axis=2).mean() < 0.5
    assert all(np.ptp(panel.values) > 0 for panel in seen["panels"][0])
    page = (tmp_path / "one" / "index.md").read_text()
    assert "![Counts](counts.png)" in page and "--seed 1" in page and "structural.png" not in page


def test_realism_changes_what_it_draws():
    panels = gallery.PICTURES["realism"].panels(jax.random.key(0))
    assert len(panels) == 12
    for strong, median in zip(panels[::2], panels[1::2], strict=True):
        assert strong.title == median.title
        if strong.title == "missing":
            assert np.isnan(strong.values).sum() > np.isnan(median.values).sum() > 0
        else:
            change = [np.abs(panel.values - panel.before).sum() for panel in (strong, median)]
            assert change[0] > change[1] > 0 and np.isfinite(strong.values).all()


@pytest.mark.parametrize("options", [["--seed", "-1"], []])
def test_bad_options(tmp_path, capsys, options):
    (tmp_path / "file").write_text("mine")
    dst = tmp_path / ("new" if options else "file")
    assert main(["gallery", "--dst", str(dst), *options]) == 2
    assert ("--seed is -1" if options else "is a file") in capsys.readouterr().err
