r"""Forecast the series of a file, or name the activities in a stream of sensor readings.

    python -m tsmjax.predict --checkpoint PATH --input FILE --output FILE [options]

Examples:
    python -m tsmjax.predict --checkpoint experiments/chronos2/test/best_run --input sales.csv \
        --output forecast.csv --horizon 28
    python -m tsmjax.predict --checkpoint amazon/chronos-2 --input load.parquet \
        --output out.parquet --id-column zone --timestamp-column hour --target load \
        --future weather.csv --horizon 24 --quantiles 0.05,0.5,0.95 --plot forecast.png
    python -m tsmjax.predict --checkpoint experiments/sensorllm/test/best_run --input sensor.csv \
        --output activities.csv --plot timeline.png

To forecast, the input is a table with a row for each series and time. Columns that no option names
are covariates; those that are also in the future file are known ahead. Without an id column the
table is one series. Missing values are empty cells.

To recognise activities, it has a row for each reading: the time (seconds, or dates), the channels
that the model was trained with, and perhaps who wore the sensor (--id-column) and what is known of
the activity (--label-column). The output has a row for each window.

Compiled programs are kept in the cache folder ($TSMJAX_CACHE, ~/.cache/tsmjax), so that the next
forecast of the same size starts sooner.

Exit codes: 0 done, 2 wrong input, anything else a fault.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from tsmjax import quick_start
from tsmjax.data.cache import beside
from tsmjax.errors import InputError, closest, exit_code

if TYPE_CHECKING:
    from tsmjax.classifier import Classifier

_SUFFIXES = (".csv", ".parquet")
_PANELS = 9  # series in a plot


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    return exit_code(run, _parser().parse_args(arguments))


def run(options: argparse.Namespace) -> None:
    """Forecast, or name activities, as `options` say.

    Raises:
      InputError: when a file, a column or a value is wrong.
    """
    from tsmjax import pretrained

    for path in (options.output, options.input, options.future):
        if path is not None and path.suffix not in _SUFFIXES:
            raise InputError(f"{path} must end in .csv or .parquet.")
    if options.plot is not None and options.plot.suffix != ".png":
        raise InputError(f"--plot {options.plot} must end in .png.")
    levels = _levels(options.quantiles)
    table = _read(options.input)
    if pretrained.task_values(options.checkpoint)["kind"] == "classify":
        _recognise(table, options)
    else:
        _forecast(table, options, levels)


def _recognise(table: pd.DataFrame, options: argparse.Namespace) -> None:
    """Name the activity in each window of a stream of sensor readings."""
    from tsmjax.classifier import Classifier

    if options.future is not None or options.horizon is not None or options.target is not None:
        raise InputError(
            f"{options.checkpoint} names activities and forecasts nothing: leave --future, "
            "--horizon and --target out."
        )
    classifier = Classifier.from_pretrained(options.checkpoint)
    person, time = options.id_column, options.timestamp_column or "time"
    person = person if options.id_column_given else "subject"
    if options.id_column_given and person not in table.columns:
        raise InputError(
            f"{options.input} has no column {person!r}{closest(person, map(str, table.columns))}."
        )
    found = classifier.predict_df(
        table,
        timestamp_column=time,
        id_column=person,
        label_column=options.label_column,
        overlap=options.overlap,
        batch_size=min(options.batch_size, 16),
        where=str(options.input),
    )
    if options.plot is not None:
        _draw_timeline(table, found, classifier, person, time, options)
    _write(found, options.output)
    shares = found["activity"].value_counts(normalize=True).iloc[:3]
    most = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
    print(f"{len(found):,} windows → {options.output} ({most})")
    if options.label_column in found.columns:
        known = found[found[options.label_column] != ""]
        right = (known["activity"] == known[options.label_column]).mean()
        print(f"{100 * right:.1f} % of {len(known):,} labelled windows are recognised.")


def _draw_timeline(
    table: pd.DataFrame,
    found: pd.DataFrame,
    classifier: Classifier,
    person: str,
    time: str,
    options: argparse.Namespace,
) -> None:
    from tsmjax.wearables.streams import marker
    from tsmjax.wearables.timeline import Signal, Span, timeline

    columns = {marker(str(name)): name for name in table.columns}
    channels = [columns[name] for name in classifier.channels]
    numeric = pd.api.types.is_numeric_dtype(table[time])
    seen = table.assign(
        **{
            time: table[time]
            if numeric
            else pd.to_datetime(table[time], utc=True, format="ISO8601")
        }
    ).sort_values(time, kind="stable")
    if not numeric:
        seen[time] = seen[time].dt.tz_localize(None)
    spans = []
    groups = found.groupby(person, sort=False) if person in found.columns else [("", found)]
    for name, rows in groups:
        own = seen[seen[person].astype(str) == name] if person in found.columns else seen
        known = options.label_column in rows.columns
        spans.append(
            Span(
                str(name),
                rows["start"].to_numpy(),
                rows["end"].to_numpy(),
                np.array([classifier.labels.index(one) for one in rows["activity"]]),
                rows["chance"].to_numpy(),
                rows[options.label_column].tolist() if known else [""] * len(rows),
                Signal(own[time].to_numpy(), own[channels].to_numpy(np.float64)),
            )
        )
    timeline(spans, classifier.labels, classifier.channels, options.plot)


def _forecast(table: pd.DataFrame, options: argparse.Namespace, levels: list[float]) -> None:
    """Forecast the series of a table."""
    from tsmjax.forecaster import Forecaster

    item, time = options.id_column, options.timestamp_column or "timestamp"
    options.timestamp_column = time
    future = None if options.future is None else _read(options.future)
    single = item not in table.columns
    if single:
        if options.id_column_given:
            raise InputError(
                f"{options.input} has no column {item!r}{closest(item, map(str, table.columns))}."
            )
        name = options.input.stem
        table = table.assign(**{item: name})
        future = future if future is None else future.assign(**{item: name})
    forecaster = Forecaster.from_pretrained(options.checkpoint)
    horizon = options.horizon
    if horizon is None and future is not None and item in future.columns:
        horizon = int(future[item].value_counts().max())
    found = forecaster.predict_df(
        table,
        future,
        id_column=item,
        timestamp_column=time,
        target=options.target,
        prediction_length=horizon,
        quantile_levels=levels,
        batch_size=options.batch_size,
        context_length=options.context_length,
        cross_learning=options.cross_learning,
        freq=options.freq,
    )
    if options.plot is not None:
        _plot(table, future, found, options, levels)
    if single:
        found = found.drop(columns=item)
    _write(found, options.output)
    count = 1 if single else table[item].nunique()
    steps = len(found) // (count * found["target_name"].nunique())
    print(f"{count:,} series × {steps:,} steps → {options.output}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tsmjax.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--checkpoint", required=True, help="run folder, Hugging Face folder or hub id")
    add("--input", type=Path, required=True, help=".csv or .parquet: the past")
    add("--output", type=Path, required=True, help=".csv or .parquet to write")
    add("--horizon", type=int, help="steps to forecast (default: of --future, else the model's)")
    add("--future", type=Path, help=".csv or .parquet: covariates of the steps ahead")
    add(
        "--id-column",
        dest="id_column",
        action=_Given,
        default="item_id",
        help="which series (default: item_id), or who wore the sensor (default: subject)",
    )
    add("--timestamp-column", help="when (default: timestamp; of sensors: time)")
    add(
        "--target",
        nargs="+",
        help="column or columns to forecast (default: target, or what the "
        "model was trained to forecast by name)",
    )
    add("--quantiles", default="0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9", help="levels, by commas")
    add("--batch-size", type=int, default=256, help="series in one pass (default: 256)")
    add("--context-length", type=int, help="steps of the past to look at (default: the model's)")
    add("--cross-learning", action="store_true", help="let the series of a batch see each other")
    add("--freq", help="frequency of the steps, such as h, D, MS (default: inferred)")
    add("--label-column", default="label", help="known activities, where there are (label)")
    add("--overlap", type=float, default=0.5, help="share of a window that the next repeats (0.5)")
    add(
        "--plot",
        type=Path,
        help=f".png: fan charts of the first {_PANELS} forecasts, or a timeline of activities",
    )
    parser.set_defaults(id_column_given=False)
    return parser


class _Given(argparse.Action):
    """Stores a value, and that it was given: a default column may be absent, a named one not."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, values)
        setattr(namespace, f"{self.dest}_given", True)


def _levels(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(
            f"--quantiles is {text!r}, but must be numbers between 0 and 1 with commas between "
            "them, such as 0.1,0.5,0.9."
        ) from error


def _read(path: Path) -> pd.DataFrame:
    if not path.is_file():
        near = [other.name for other in path.parent.glob("*")] if path.parent.is_dir() else []
        raise InputError(f"There is no file {path}{closest(path.name, near)}.")
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (ValueError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be read as {path.suffix[1:]}: {reason}.") from error


def _write(frame: pd.DataFrame, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as unfinished:
            if path.suffix == ".csv":
                frame.to_csv(unfinished, index=False)
            else:
                frame.to_parquet(unfinished, index=False)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from error


def _plot(
    table: pd.DataFrame,
    future: pd.DataFrame | None,
    found: pd.DataFrame,
    options: argparse.Namespace,
    levels: Sequence[float],
) -> None:
    """Draw the forecasts of the first series, with the end of their past and their covariates."""
    from tsmjax.monitor import plots

    def rows_of(frame: pd.DataFrame, item: object) -> pd.DataFrame:
        rows = frame[frame[options.id_column] == item].copy()
        rows[options.timestamp_column] = pd.to_datetime(rows[options.timestamp_column])
        return rows.sort_values(options.timestamp_column)

    order = np.argsort(levels)
    targets = found["target_name"].unique()
    columns = {options.id_column, options.timestamp_column, *targets}
    covariates = [name for name in table.columns if name not in columns]
    panels = []
    for (item, target), forecast in found.groupby([options.id_column, "target_name"], sort=False):
        past = rows_of(table, item)
        ahead = pd.DataFrame(index=range(len(forecast)))
        if future is not None:
            ahead = rows_of(future, item).reset_index(drop=True).reindex(ahead.index)
        span = pd.concat([past[covariates], ahead.reindex(columns=covariates)])
        title = str(item) if len(targets) == 1 else f"{item}, {target}"
        panels.append(
            plots.Panel(
                title,
                past[target].to_numpy(np.float64),
                None,
                [levels[i] for i in order],
                forecast[[str(levels[i]) for i in order]].to_numpy().T,
                {str(name): _numbers(span[name]) for name in covariates},
            )
        )
        if len(panels) == _PANELS:
            break
    plots.fan_chart(panels, options.plot)


def _numbers(column: pd.Series) -> np.ndarray:
    """Values of a covariate to draw; categories become their codes."""
    if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        return column.to_numpy(np.float64)
    codes, _ = pd.factorize(column, sort=True)
    return np.where(codes < 0, np.nan, codes)


if __name__ == "__main__":
    quick_start.prepare()
    sys.exit(main(sys.argv[1:]))
