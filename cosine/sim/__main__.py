"""`python -m cosine.sim`: all strategies under all loads in virtual time, sweeps and plots."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cosine.core.errors import BadRequest
from cosine.core.strategy import PRESETS, parse
from cosine.sim.profile import Profile, read_profile
from cosine.sim.report import as_sweep_table, as_table, write_json, write_sweep_json
from cosine.sim.sweep import SWEEPS
from cosine.sim.table import ABLATIONS, LOAD_NAMES, SAMPLED_ABLATIONS, load_named, read_library, table

RECORDINGS = Path("testbed/recordings")
PROFILE = Path("bench/profiles/paper-70b.yaml")
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
    except (BadRequest, ValueError) as error:
        sys.exit(f"cosine.sim: {error}")
    if arguments.sweep:
        _sweep(console, profile, arguments)
        return
    loads = [replace(load, temperature=arguments.temperature) for load in loads]
    library = read_library(arguments.recordings, arguments.temperature)
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
    if arguments.json:
        write_json(arguments.json, profile, not arguments.as_is, rows)
    if arguments.plots:
        from cosine.sim.plots import plot_rows

        for path in plot_rows(rows, arguments.plots):
            console.print(f"wrote {path}")


def _bar(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, transient=True)


def _sweep(console: Console, profile: Profile, arguments: argparse.Namespace) -> None:
    from cosine.sim.plots import plot_sweep

    library = read_library(arguments.recordings, 0.0)
    for name in SWEEPS if arguments.sweep == "all" else (arguments.sweep,):
        with _bar(console) as bar:
            task = bar.add_task(name, total=None)
            points = []
            for point in SWEEPS[name](profile, library, arguments.requests):
                points.append(point)
                bar.update(task, advance=1, description=f"{name} {point.label}")
        console.print(as_sweep_table(name, points))
        if arguments.json:
            write_sweep_json(arguments.json, name, points)
        if arguments.plots:
            console.print(f"wrote {plot_sweep(name, points, arguments.plots)}")


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
    parser.add_argument("--sweep", choices=(*SWEEPS, "all"))
    parser.add_argument("--requests", type=int, default=100_000, help="the most requests of a sweep")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plots", type=Path, help="write plots into this folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
