"""The table of parameters that is printed when training starts."""

from __future__ import annotations

from rich import box
from rich.filesize import decimal
from rich.table import Table

from tsmjax.state import Row


def table(rows: list[Row], parameters: int, trained: int) -> Table:
    """Lay out the resolved rules, one row for all layers that agree.

    Args:
      rows: what `tsmjax.state.table` returns.
      parameters: number of the model's parameters.
      trained: number of trained parameters.
    """
    title = f"{parameters:,} parameters of the model, {trained:,} trained"
    # Nothing between the columns, so that long paths fit into 120 characters.
    found = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    headings = ("parameter", "tensors", "shape", "sharding", "a device", "trained", "decay", "lr ×")
    for heading in headings:
        found.add_column(heading, overflow="fold")
    for row in rows:
        found.add_row(*(decimal(cell) if isinstance(cell, int) else cell for cell in row))
    return found
