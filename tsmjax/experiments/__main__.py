"""Many runs at once.

    python -m tsmjax.experiments list    [DIR …]
    python -m tsmjax.experiments compare DIR|RUN … [--metric NAME --mode min|max] [--csv FILE] [--plot FILE.png]
    python -m tsmjax.experiments sweep   --config=configs/NAME.py FIELD=a,b,c … [--method grid|random|optuna] [--trials N]
                                         [--processes N] [--slurm FILE] [--dir DIR] [--config.SECTION.FIELD=VALUE …]
    python -m tsmjax.experiments sweep   --dir DIR
    python -m tsmjax.experiments report  DIR|RUN … [--output FILE.html]
    python -m tsmjax.experiments run     FILE.yaml [NAME=VALUE …] [--dir DIR]

list     one row an experiment under experiments/ or the folders named: runs, how they ended, the best.
compare  one row a run, best first: where the configs differ, then the scores. --csv has every score.
sweep    trains once for each combination of values (grid), or --trials times with drawn values: FIELD=low..high
         is a range, FIELD=log:low..high one that is even in its logarithm. The last form takes a sweep up again
         that was stopped. The field "variant" stands for the argument of the config file. --slurm writes a script for a job array instead of training here.
report   report.html of a run, or of several side by side: one file without anything to load from elsewhere.
run      the stages of a pipeline, each when its conditions hold; the same command goes on where it was stopped.

Exit codes: 0 done, 1 a trial or a stage failed, 2 wrong input, 75 stopped (start it again).
"""  # noqa: E501

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tsmjax.errors import InputError, closest
from tsmjax.experiments import compare, records
from tsmjax.monitor.logs import console

_HOME = Path("experiments")


def main(arguments: list[str]) -> int:
    """Run the command and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    command, rest = arguments[0], arguments[1:]
    try:
        if command not in _COMMANDS:
            raise InputError(
                f"There is no command {command!r}{closest(command, _COMMANDS)}; "
                f"there are {', '.join(_COMMANDS)}."
            )
        return _COMMANDS[command](rest)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _list(arguments: list[str]) -> int:
    parser = _parser("list")
    parser.add_argument("paths", nargs="*", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    console.print(compare.overview(records.find(options.paths or [_HOME])))
    return 0


def _compare(arguments: list[str]) -> int:
    parser = _parser("compare")
    _add_choice(parser)
    parser.add_argument("--csv", type=Path, help="file for the table with every score")
    parser.add_argument("--plot", type=Path, help=".png for the curves")
    options = parser.parse_args(arguments)
    runs = records.find(options.paths)
    metric, mode = records.deciding(runs, options.metric, options.mode)
    console.print(compare.table(runs, metric, mode))
    for folder in records.experiments(runs):
        compare.write_history(folder)
    if options.csv:
        ordered = records.ranked(runs, metric, mode)
        compare.write_csv(compare.rows(ordered, metric), options.csv)
    if options.plot:
        from tsmjax.monitor import plots

        if options.plot.suffix != ".png":
            raise InputError(f"--plot {options.plot} must end in .png.")
        panels = compare.curves(runs, metric, compare.labels(runs))
        if not panels:
            raise InputError("None of these runs has logged a loss: there is nothing to draw.")
        plots.save(compare.draw(panels), options.plot)
    return 0


def _sweep(arguments: list[str]) -> int:
    from tsmjax.experiments import sweep

    parser = _parser("sweep")
    add = parser.add_argument
    add("space", nargs="*", metavar="FIELD=VALUES")
    add("--config", help="config file, as for tsmjax.main")
    add("--method", choices=sweep.METHODS, default="grid")
    add("--trials", type=int, help="number of trials of random and optuna")
    add("--seed", type=int, default=0, help="seed of the draws (default: 0)")
    add("--processes", type=int, default=1, help="trials at the same time (default: 1)")
    add("--devices", default="", help="GPUs that the trials share out, one each: 0,1,2,3")
    add("--dir", type=Path, help="folder of the sweep; alone, it takes that sweep up again")
    add("--slurm", type=Path, help="script to write, instead of training here")
    add("--trial", type=int, help="run this trial of --dir alone")
    # Set aside first: argparse takes "--config.optim.length=20 steps" for a positional argument.
    overrides = [word for word in arguments if word.startswith("--config.")]
    options, rest = parser.parse_known_args([word for word in arguments if word not in overrides])
    for word in rest:
        if word.startswith("-"):
            raise InputError(f"{word!r} is no flag of sweep; see --help.")
    words = [*options.space, *rest]
    if options.processes < 1:
        raise InputError(f"--processes={options.processes}, but must be at least 1.")
    if options.config:
        planned, home = sweep.plan(
            options.config, overrides, words, options.method, options.trials, options.seed
        )
        folder = options.dir or home
        sweep.save(planned, folder)
    elif options.dir and not words and not overrides:
        folder, planned = options.dir, sweep.load(options.dir)
    else:
        raise InputError("Say what to train: --config=configs/NAME.py, or --dir=DIR to go on.")
    if options.slurm:
        options.slurm.write_text(sweep.slurm_script(planned, folder, options.processes))
        console.print(f"sbatch {options.slurm} runs {planned.trials} trials into {folder}")
        return 0
    if options.trial is not None:
        return sweep.run_one(planned, folder, options.trial)
    devices = [name for name in options.devices.split(",") if name]
    return sweep.run(planned, folder, options.processes, devices)


def _report(arguments: list[str]) -> int:
    from tsmjax.experiments import report

    parser = _parser("report")
    _add_choice(parser)
    parser.add_argument("--output", type=Path, help=".html; default: report.html in the folder")
    options = parser.parse_args(arguments)
    runs = records.find(options.paths)
    metric, mode = records.deciding(runs, options.metric, options.mode)
    if len(runs) == 1:
        path = report.write_run(runs[0].path, options.output)
    else:
        output = options.output
        if output is None and len(options.paths) > 1:
            raise InputError("Say where the page of several folders goes: --output=FILE.html.")
        path = report.write_comparison(
            runs, metric, mode, output or options.paths[0] / "report.html"
        )
    console.print(f"{path}", soft_wrap=True)
    return 0


def _run(arguments: list[str]) -> int:
    from tsmjax.experiments import pipeline

    parser = _parser("run")
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("values", nargs="*", metavar="NAME=VALUE")
    parser.add_argument("--dir", type=Path, help="folder of the stages, instead of the file's")
    options = parser.parse_intermixed_args(arguments)
    return pipeline.run(pipeline.load(options.file, options.values, options.dir))


_COMMANDS = {
    "list": _list,
    "compare": _compare,
    "sweep": _sweep,
    "report": _report,
    "run": _run,
}


def _parser(command: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"python -m tsmjax.experiments {command}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="DIR|RUN")
    parser.add_argument("--metric", help="score to rank by; default: the one the runs declare")
    parser.add_argument("--mode", choices=("min", "max"), help="whether less or more is better")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
