"""Error grids are drawn, and say what the metric says."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from tsmjax.errors import InputError
from tsmjax.glucose import metrics, plots


def readings() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = np.clip(rng.lognormal(4.95, 0.4, 600), 40, 500)
    predicted = np.clip(reference * rng.lognormal(0, 0.25, 600), 30, 540)
    predicted[:5] = np.nan
    return reference, predicted


@pytest.mark.parametrize("draw", [plots.clarke_grid, plots.parkes_grid])
def test_grid_is_a_picture_with_the_shares(draw, tmp_path, monkeypatch):
    figures = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda s, *a, **k: (figures.append(s), save(s, *a, **k)))
    path = draw(*readings(), tmp_path / "grid.png")
    assert path.read_bytes()[:4] == b"\x89PNG"
    zones = (metrics.clarke_zones if draw is plots.clarke_grid else metrics.parkes_zones)(
        *readings()
    )
    labels = [text.get_text() for text in figures[0].legends[0].get_texts()]
    shares = metrics.zone_shares(zones)
    assert labels == [f"{letter}  {share * 100:.1f} %" for letter, share in shares.items()]
    assert "595 points" in figures[0].get_suptitle()
    letters = [text.get_text() for text in figures[0].axes[0].texts]
    assert sorted(set(letters)) == list("ABCDE")


def test_values_beyond_the_grid_widen_it(tmp_path):
    plots.parkes_grid([100, 590], [110, 600], tmp_path / "wide.png", diabetes=2)
    assert (tmp_path / "wide.png").exists()


@pytest.mark.parametrize(
    ("reference", "predicted", "match"),
    [([100.0], [np.nan], "nothing to draw"), ([100.0], [100.0, 110.0], "pair them")],
)
def test_bad_readings_are_named(reference, predicted, match, tmp_path):
    with pytest.raises(InputError, match=match):
        plots.clarke_grid(reference, predicted, tmp_path / "grid.png")
