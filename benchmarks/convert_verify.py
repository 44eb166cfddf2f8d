"""Our models beside their reference implementations: block by block, with all gradients.

    python -m benchmarks.convert_verify --json convert_verify.json

Runs `python -m convert verify` on random weights of the reference classes, and on published weights
below ``$TSMJAX_TEST_DATA`` where that is set (docs/test_data.md); fp32 on the CPU. Every case takes
the weights in, writes them out, loads what was written in the reference, and compares hidden states
of all blocks, outputs, loss and the gradient of every tensor. Names after the options select cases.
The last line printed is JSON; ``--json FILE`` writes it too, after each case.

Needs transformers, chronos-forecasting and granite-tsfm, see docs/ttm.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from convert import __main__ as convert
from convert import llama2c, verify
from tsmjax import checkpoint, weights
from tsmjax.config import build
from tsmjax.errors import InputError
from tsmjax.models import llama
from tsmjax.nn.functional import abstract, merge

_LLAMA = {"vocab_size": 300, "d_model": 96, "d_ff": 160, "num_layers": 3, "num_heads": 6}
_STRETCHED = {
    **{"kind": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "original_max_positions": 64,
}
_MIXED = {"decoder_mode": "mix_channel"}
_STORIES = "weights/stories260K"
# Name → family and path below the data folder, or family, preset and changes of its values.
CASES: dict[str, tuple[str, str] | tuple[str, str, dict[str, Any]]] = {
    "Chronos-2 dummy": ("chronos2", "weights/dummy-chronos2-model"),
    "Chronos-2 base": ("chronos2", "base", {}),
    "Chronos-T5 dummy": ("chronos_t5", "weights/dummy-chronos-model"),
    "Chronos-T5 small, with its decoder": ("chronos_t5", "small", {"decoder": True}),
    "Chronos-T5 large encoder": ("chronos_t5", "large", {}),
    "Llama tied, shared key heads, llama3": (
        *("llama", "tiny"),
        {**_LLAMA, "num_kv_heads": 2, "d_kv": 16, "rope_scaling": _STRETCHED},
    ),
    "Llama untied, a key head each": (
        *("llama", "tiny"),
        {**_LLAMA, "num_kv_heads": 6, "d_kv": 16, "tie_embeddings": False},
    ),
    "Llama untied, shared key heads, linear": (
        *("llama", "tiny"),
        {
            **{**_LLAMA, "num_kv_heads": 3, "d_kv": 16, "tie_embeddings": False},
            "rope_scaling": {"kind": "linear", "factor": 4.0},
        },
    ),
    "Llama stories260K": ("llama", f"{_STORIES}/stories260K.bin"),
    "TTM r1 1024-96": ("ttm", "weights/ttm-r1-1024-96-finetuned"),
    "TTM r2 512-96 mixed channels": ("ttm", "weights/ttm-r2-512-96-mixchannel-finetuned"),
    "TTM adaptive levels": ("ttm", "r2_512", {"num_input_channels": 2}),
    "TTM prefix token": ("ttm", "r2_1_512", {}),
    "TTM mix_channel": (
        *("ttm", "r2_512"),
        {
            **{"num_input_channels": 3, "mode": "mix_channel", **_MIXED},
            "decoder_adaptive_patching_levels": 2,
        },
    ),
    "TTM exogenous mixer": (
        *("ttm", "r2_512"),
        {
            **{"num_input_channels": 6, **_MIXED, "prediction_filter_length": 60},
            **{"prediction_channels": (0, 3), "known_channels": (1, 4, 5)},
            "forecast_mixing": {"enabled": True, "layers": 3, "context_length": 2},
        },
    ),
    "TTM static categoricals": (
        *("ttm", "r2_512"),
        {"num_input_channels": 3, **_MIXED, "categories": (3, 5), "decoder_raw_residual": True},
    ),
}


def main() -> int:
    """Run the cases that the command line asks for; returns 0 when all agree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="beginnings of names; all cases by default")
    parser.add_argument("--json", type=Path, help="also write the line to this file")
    options = parser.parse_args()
    chosen = [name for name in CASES if name.startswith(tuple(options.names or [""]))]

    result: dict[str, Any] = {
        "benchmark": "convert_verify",
        "git_commit": checkpoint.versions()["git_commit"],
        "cases": {},
        "skipped": [],
    }
    for name in chosen:
        found = load(name)
        if found is None:
            result["skipped"].append(name)
            continue
        result["cases"][name] = measure(lambda found=found: verify.rows(found))
        if name == "Llama stories260K":
            result["story"] = tell(found)
        print(name, json.dumps(result["cases"][name]), file=sys.stderr, flush=True)
        if options.json:
            checkpoint.write_json(options.json, result)
    show(result)
    print(json.dumps(result))
    return 0 if all(case["agrees"] for case in result["cases"].values()) else 1


def load(name: str) -> weights.Imported | None:
    """Return the weights of a case; None when its files are not there."""
    family, source, *changes = CASES[name]
    if changes:
        return verify.random(family, source, changes[0])
    folder = Path(os.environ.get("TSMJAX_TEST_DATA") or "nowhere") / source
    return convert.load(str(folder), family) if folder.exists() else None


def measure(compare: Callable[[], list[verify.Row]]) -> dict[str, Any]:
    """Summarise a comparison.

    Returns:
      ``forward`` and ``gradient``: the largest difference relative to the size of what differs (its
      largest value, or its norm); ``share``: the largest difference relative to its tolerance;
      ``gradients``: how many tensors; ``strict``: how many of them are within 1e-4 of their norm.
    """
    start = time.perf_counter()
    rows = compare()
    gradients = [row for row in rows if row.detail]
    sized = [
        row for row in rows if not (row.detail or row.name.startswith("tokens")) and row.tolerance
    ]
    worst = max(gradients, key=lambda row: row.error / row.tolerance)
    return {
        "agrees": all(row.ok for row in rows),
        "first_difference": next((row.name for row in rows if not row.ok), None),
        "forward": max(row.error / row.size for row in sized),
        "gradient": max(row.error / row.size for row in gradients if row.size),
        "share": max(row.error / row.tolerance for row in [*sized, *gradients]),
        "gradients": len(gradients),
        "strict": sum(row.error <= 1e-4 * row.size for row in gradients),
        "hardest_gradient": worst.name.removeprefix("gradient "),
        "seconds": round(time.perf_counter() - start, 1),
    }


def tell(found: weights.Imported, count: int = 60) -> str:
    """Let a model of llama2c continue the empty text, always with the likeliest token."""
    config = build(llama.Config, found.config_values, "model")
    graph, _, _ = abstract(lambda rngs: llama.Model(config, rngs=rngs))

    @jax.jit
    def generate(params):
        model = merge(graph, params, {})
        start = model.embed(jnp.array([[config.bos_token]]))
        return llama.generate(model, start, jnp.array([1]), count=count)

    texts = llama2c.vocabulary(Path(os.environ["TSMJAX_TEST_DATA"]) / _STORIES / "tok512.bin")
    return "".join(texts[token] for token in generate(found.params)[0]).strip()


def show(result: dict[str, Any]) -> None:
    """Print the cases as a table."""
    table = Table(title="Differences from the reference implementations, fp32")
    for heading in ("case", "forward", "gradients", "worst gradient", "of tolerance", ""):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for name, case in result["cases"].items():
        table.add_row(
            *(name, f"{case['forward']:.1e}", str(case["gradients"]), f"{case['gradient']:.1e}"),
            *(f"{case['share']:.2f}", "agrees" if case["agrees"] else case["first_difference"]),
        )
    console = Console(file=sys.stderr)
    console.print(table)
    if result["skipped"]:
        console.print(f"Skipped, for want of files: {', '.join(result['skipped'])}.")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        sys.exit(f"error: {error}")
