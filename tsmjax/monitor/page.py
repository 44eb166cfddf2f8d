"""A web page in one file: text, tables, inlined plots; light and dark, wide and narrow.

Everything is in the file itself: it works from a disk, without a network and without scripts.
"""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tsmjax.monitor import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_THEME = {plots.INK: "var(--ink)", plots.MUTED: "var(--muted)", plots.GRID: "var(--grid)"}

_STYLE = Path(__file__).with_name("page.css")


class Page:
    """A page that is put together from top to bottom; all text is escaped."""

    def __init__(self, title: str, subtitle: str = ""):
        self._title = title
        self._parts = [f"<h1>{text(title)}</h1>", f'<p class="sub">{text(subtitle)}</p>']

    def heading(self, name: str) -> None:
        """Begin a section."""
        self.add(f"<h2>{text(name)}</h2>")

    def add(self, markup: str) -> None:
        """Append markup as it is."""
        self._parts.append(markup)

    def tiles(self, facts: Sequence[tuple[str, str, str]]) -> None:
        """Append facts as (label, value, class), the value large."""
        made = (
            f'<div class="tile {kind}" data-fact="{text(label)}"><b>{text(value)}</b>'
            f"<span>{text(label)}</span></div>"
            for label, value, kind in facts
        )
        self.add(f'<div class="tiles">{"".join(made)}</div>')

    def cards(self, contents: Sequence[str]) -> None:
        """Append markup in boxes, as many abreast as fit."""
        boxes = "".join(f'<div class="card">{content}</div>' for content in contents)
        self.add(f'<div class="grid">{boxes}</div>')

    def write(self, path: str | Path) -> Path:
        """Write the page beside `path` and rename it."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.partial")
        style = _STYLE.read_text(encoding="utf-8")
        beside.write_text(
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{text(self._title)}</title><style>{style}</style></head>\n<body>\n"
            + "\n".join(self._parts)
            + "\n</body></html>\n",
            encoding="utf-8",
        )
        os.replace(beside, path)
        return path


def text(value: object) -> str:
    """Escape a value for use in text and attributes."""
    return html.escape(str(value))


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    name: str = "",
    best: int | None = None,
    long: bool = False,
) -> str:
    """Return a table that scrolls sideways when it is too wide.

    Args:
      head: the headings.
      rows: markup of each cell; escape what is no markup.
      name: identifies the table in the page.
      best: the row that stands out.
      long: whether the cells behind the first hold running text.
    """
    heads = "".join(f"<th>{text(cell)}</th>" for cell in head)
    kind = ' class="long"' if long else ""
    body = ""
    for number, row in enumerate(rows):
        cells = "".join(f"<td{kind if at else ''}>{cell}</td>" for at, cell in enumerate(row))
        mark = ' class="best"' if number == best else ""
        body += f"<tr{mark}>{cells}</tr>"
    head_row = f"<thead><tr>{heads}</tr></thead>" if any(head) else ""
    return (
        f'<div class="card scroll"><table data-table="{text(name)}">{head_row}'
        f"<tbody>{body}</tbody></table></div>"
    )


def folded(summary: str, content: str) -> str:
    """Return content that opens on demand."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>"


def shares(parts: Sequence[tuple[str, float]]) -> str:
    """Return a bar of parts of a whole with its key; (name, share) each."""
    pieces, keys = [], []
    for number, (name, share) in enumerate(parts):
        colour = plots.PALETTE[number % len(plots.PALETTE)]
        width = f"flex:{max(share, 0):.4f};background:{colour}"
        pieces.append(f'<div style="{width}" title="{text(name)}"></div>')
        keys.append(
            f'<span data-share="{text(name)}"><span class="key" style="background:{colour}">'
            f"</span>{text(name)} {100 * share:.1f} %</span>"
        )
    return f'<div class="share">{"".join(pieces)}</div>{"&ensp; ".join(keys)}'


def svg(figure: Figure) -> str:
    """Inline a figure as SVG whose lines and text follow the page's colours."""
    import matplotlib

    buffer = io.StringIO()
    # Text stays text: it can be searched, and takes the page's colour.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "tsmjax"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    drawn = buffer.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", drawn, count=1)
    drawn = re.sub(r'(<svg[^>]*?) (?:width|height)="[\d.]+pt"', r"\1", drawn, count=1)
    for colour, variable in _THEME.items():
        drawn = drawn.replace(colour, variable)
    return drawn


def image(path: str | Path) -> str:
    """Inline a PNG file."""
    data = base64.b64encode(Path(path).read_bytes()).decode()
    name = Path(path).stem.replace("_", " ")
    return f'<img alt="{text(name)}" src="data:image/png;base64,{data}">'
