"""Run folders as training leaves them, without training."""

import json


def write(folder, score=None, *, mode="min", rows=(), test=None, seconds=60.0, **fields):
    """A run with `score` as m/wql (None: it has not ended); fields are ``optim__lr=1e-3``."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"name": "toy", "evals": {"metric": "m/wql", "mode": mode}}
    for name, value in fields.items():
        section, field = name.split("__")
        config.setdefault(section, {})[field] = value
    (folder / "config.json").write_text(json.dumps(config))
    if rows:
        lines = [json.dumps({"step": step, **row}) for step, row in rows]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if score is not None:
        outcome = {
            "run": str(folder),
            "step": 100,
            "best_step": 50,
            "metric": "m/wql",
            "best": {"m/wql": score, "m/nile/wql": 0.2, "m/mase": 1.0},
            "test": test or {},
            "parameters": 1234,
            "trained_parameters": 1234,
            "seconds": seconds,
        }
        (folder / "results.json").write_text(json.dumps(outcome))
    return folder
