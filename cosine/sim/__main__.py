"""`python -m cosine.sim`: all strategies under all loads in virtual time, sweeps and plots."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cosine.core.errors import MeshError
from cosine.core.strategy import PRESETS, parse
from cosine.sim.library import Library
from cosine.sim.notebook import Notebook, settings
from cosine.sim.profile import Profile, read_profile
from cosine.sim.report import as_sweep_table, as_table, leads, write_json
from cosine.sim.sweep import CONTROL, SWEEPS, Point, control_cost, measure
from cosine.sim.table import ABLATIONS, LOAD_NAMES, SAMPLED_ABLATIONS, load_named, read_library, table

RECORDINGS = Path("testbed/recordings")
PROFILE = Path("bench/profiles/paper-70b.yaml")
POINTS = Path("build/sweeps.json")
WIDTH = 180  # of tables that go into a file


def main() -> None:
    """Prints the table (or a sweep's), and writes what was asked for."""
    arguments = _arguments()
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    try:
        profile = read_profile(arguments.profile)
        for strategy in arguments.presets:
            parse(strategy)
        loads = [load_named(name, profile) for name in arguments.loads]
        library = read_library(arguments.recordings, 0.0 if arguments.sweep else arguments.temperature)
    except (MeshError, ValueError) as error:
        sys.exit(f"cosine.sim: {error}")
    except OSError as error:
        sys.exit(f"cosine.sim: cannot read {error.filename} ({error.strerror}); name a folder with --recordings")
    if arguments.sweep:
        _sweep(console, profile, library, arguments)
        return
    loads = [replace(load, temperature=arguments.temperature, seed=arguments.seed) for load in loads]
    ablations = SAMPLED_ABLATIONS if arguments.temperature else ABLATIONS
    strategies = ablations if arguments.ablations else arguments.presets
    with _bar(console) as bar:
        task = bar.add_task("", total=len(strategies) * len(loads))
        rows = table(
            profile,
            library,
            strategies,
            loads,
            not arguments.as_is,
            lambda row: bar.update(task, advance=1, description=f"{row.load} {row.strategy}"),
        )
    money = "as it is" if arguments.as_is else "equal cost"
    console.print(as_table(f"{profile.name}, {money}, temperature {arguments.temperature:g}", rows))
    for line in leads(rows):
        console.print(line, highlight=False)
    if arguments.json:
        write_json(arguments.json, profile, not arguments.as_is, rows)
    if arguments.plots:
        from cosine.sim.plots import plot_rows

        for path in plot_rows(rows, arguments.plots, profile.name + ("-t1" if arguments.temperature else "")):
            console.print(f"wrote {path}")


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, transient=True)


def _sweep(console: Console, profile: Profile, library: Library, arguments: argparse.Namespace) -> None:
    """Makes the trials that the file of points lacks, each with a line when it is done, and shows all."""
    cost = control_cost(profile, library) if arguments.measure_control else CONTROL
    decided = settings(arguments.profile, arguments.recordings, arguments.seed) | asdict(cost)
    notebook = Notebook(arguments.json or POINTS, decided)
    if notebook.set_aside:
        console.print(
            f"other code or settings made the points in {notebook.path}; they are in {notebook.set_aside} now"
        )
    names = list(SWEEPS) if arguments.sweep == "all" else [arguments.sweep]
    trials = [(name, trial) for name in names for trial in SWEEPS[name](profile, arguments.requests, cost)]
    open_trials = [(name, trial) for name, trial in trials if not notebook.holds(name, trial)]
    with _time_left(console) as bar:
        task = bar.add_task("", total=sum(trial.token_count for _, trial in open_trials))
        for name, trial in open_trials:
            bar.update(task, description=f"{name}, {trial.series}: {trial.count}")
            seeded = replace(trial, load=replace(trial.load, seed=arguments.seed))
            point = measure(seeded, library, partial(bar.update, task, advance=trial.load.new_count))
            notebook.note(name, point)
            bar.console.print(f"{name}, {point.series}: {point.count}: {point.tokens_per_s:.0f} tokens/s")
    for name in names:
        _show_sweep(console, name, notebook.points(name), arguments.plots)


def _show_sweep(console: Console, name: str, points: Sequence[Point], plots: Path | None) -> None:
    console.print(as_sweep_table(name, points))
    if plots:
        from cosine.sim.plots import plot_sweep

        console.print(f"wrote {plot_sweep(name, points, plots)}")


def _time_left(console: Console) -> Progress:
    """A bar in tokens, with the time that is left at the pace of the last minutes."""
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    description = TextColumn("{task.description}")
    return Progress(*columns, description, console=console, transient=True, speed_estimate_period=300)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m cosine.sim", description=__doc__)
    parser.add_argument("--profile", type=Path, default=PROFILE, help="machines, their times and prices (YAML)")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="folder of testbed recordings")
    parser.add_argument(
        "--presets", nargs="+", default=list(PRESETS), metavar="STRATEGY", help="PRESET or PRESET:KNOB=VALUE,..."
    )
    parser.add_argument("--loads", nargs="+", default=list(LOAD_NAMES), metavar="LOAD", help=", ".join(LOAD_NAMES))
    parser.add_argument("--temperature", type=float, choices=(0.0, 1.0), default=0.0)
    parser.add_argument("--as-is", action="store_true", help="the profile's machines for all, not the same money")
    parser.add_argument("--ablations", action="store_true", help="cosine with one idea left out at a time")
    parser.add_argument("--seed", type=int, default=0, help="another one: other texts first, other arrivals")
    parser.add_argument("--sweep", choices=(*SWEEPS, "all"), help="how it scales; goes on where it was interrupted")
    parser.add_argument("--requests", type=int, default=100_000, help="the most requests of a sweep")
    parser.add_argument(
        "--measure-control",
        action="store_true",
        help="charge `one scheduler` with what this machine computes, not with the stated times",
    )
    parser.add_argument("--json", type=Path, help=f"write the figures here (of sweeps also without: {POINTS})")
    parser.add_argument("--plots", type=Path, help="write plots into this folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
