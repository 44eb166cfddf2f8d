"""What was read, what was dropped and why: printed, and kept beside the data."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from tsmjax.data.cache import beside

_SHOWN = 10  # lines of a list that are printed; the JSON file has all


@dataclasses.dataclass
class Report:
    """Facts about one preparation.

    Attributes:
      source: what was read.
      layout: how the raw file was understood.
      items: a dict for each item kept: item_id, variates, length, missing (share of the values),
        start and freq where known.
      dropped: (what, why) of everything left out.
      notes: what was changed or guessed, one sentence each.
    """

    source: str
    layout: str
    items: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    dropped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        """Take down the facts of a row of the data set."""
        target = np.atleast_2d(row["target"])
        start = row["timestamp"][0] if "timestamp" in row else row.get("start")
        self.items.append(
            {
                "item_id": row["item_id"],
                "variates": len(target),
                "length": target.shape[1],
                "missing": round(float(np.isnan(target).mean()), 6),
                "start": None if start is None else str(start),
                "freq": row.get("freq"),
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return totals as JSON values."""
        lengths = np.asarray([item["length"] for item in self.items])
        sizes = lengths * [item["variates"] for item in self.items]
        missing = np.dot(sizes, [item["missing"] for item in self.items]) / sizes.sum()
        frequencies = Counter(str(item["freq"]) for item in self.items)
        return {
            "items": len(self.items),
            "variates": max(item["variates"] for item in self.items),
            "values": int(sizes.sum()),
            "length_min": int(lengths.min()),
            "length_median": float(np.median(lengths)),
            "length_max": int(lengths.max()),
            "missing": round(float(missing), 6),
            "freq": dict(frequencies.most_common()),
            "dropped": len(self.dropped),
        }

    def save(self, folder: Path) -> None:
        """Write ``report.json`` into the data set's folder."""
        content = dataclasses.asdict(self) | {"summary": self.summary()}
        with beside(folder / "report.json") as unfinished:
            unfinished.write_text(json.dumps(content, indent=1))

    def show(self, console: Console, folder: Path) -> None:
        """Print the report."""
        total = self.summary()
        table = Table(title=f"{self.source} → {folder}", show_header=False, title_justify="left")
        lengths = [total["length_min"], total["length_median"], total["length_max"]]
        table.add_row("layout", self.layout)
        table.add_row("items", f"{total['items']:,} of up to {total['variates']} variates")
        table.add_row("values", f"{total['values']:,}")
        table.add_row("length", "shortest {:,} · median {:,.0f} · longest {:,}".format(*lengths))
        table.add_row("missing", f"{total['missing']:.2%}")
        table.add_row("freq", ", ".join(f"{name} ({n:,})" for name, n in total["freq"].items()))
        table.add_row("dropped", f"{total['dropped']:,}")
        console.print(table)
        self.tell(console, folder)

    def tell(self, console: Console, folder: Path) -> None:
        """Print the first lines of what was dropped, changed or guessed."""
        lines = [*(f"Dropped {what}: {why}." for what, why in self.dropped), *self.notes]
        for line in lines[:_SHOWN]:
            console.print(f"• {line}", markup=False)
        if len(lines) > _SHOWN:
            console.print(f"… and {len(lines) - _SHOWN} more in {folder / 'report.json'}")
