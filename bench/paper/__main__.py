"""`python -m bench.paper`: all strategies on the real mesh, at the speed of the paper's hardware, for the same money.

Real processes, gRPC and Redis; the test bed's small models decide what is accepted; every forward pass and message
takes the profile's time, in slow motion. Cells are kept as they are measured; a second call goes on where the first
was stopped. A strategy is a preset, or a preset with knobs: cosine:lookahead=0,calibrated=no
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.paper.ablations import ABLATIONS, WHOLE, legend, loads_of
from bench.paper.cells import Cell, CellFile, CellKey
from bench.paper.loads import DEFAULT_LOADS, FIRST_LOADS, parse_load
from bench.paper.plots import draw
from bench.paper.report import Report
from bench.paper.runner import Entrant, Extent, Runner, sources_digest
from cosine.cli.meshfile import PROJECT_ROOT
from cosine.cli.supervisor import interrupt_main_task
from cosine.core.strategy import PRESETS, parse
from cosine.sim.profile import Profile, profile_path, read_profile
from cosine.sim.table import park_of
from cosine.text.command_line import Parser, bordered, check_folder, positive, whole

RESULTS = PROJECT_ROOT / "build" / "paper"
CELLS = "cells.jsonl"
TABLE_WIDTH = 140  # where output goes to a file there is no terminal to ask
ABLATION_LOADS = ("closed-1", "closed-8")
WHOLE_RUN = {"tokens": 64, "open_s": 5.0, "loads": DEFAULT_LOADS}
FIRST_LOOK = {"tokens": 12, "open_s": 0.25, "loads": FIRST_LOADS}
STOPPED = "stopped; what has been measured is kept, the same command goes on"
LEFT_OUT = {"loads": ABLATION_LOADS}  # what ablations have instead


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the comparison."""
    parser = Parser(prog="bench.paper", usage="python -m bench.paper [OPTION ...]", description=__doc__)
    parser.add_argument("--profile", default="paper-70b", help="a profile of bench/profiles, or a file (paper-70b)")
    parser.add_argument("--presets", nargs="+", metavar="STRATEGY", help="strategies (all presets)")
    parser.add_argument("--loads", nargs="+", metavar="LOAD", help=f"loads ({' '.join(DEFAULT_LOADS)})")
    parser.add_argument("--ablations", action="store_true", help="cosine without one part after the other, instead")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"a first look: 12 tokens, 0.25 s of arrivals; loads {' '.join(FIRST_LOADS)}",
    )
    parser.add_argument("--tokens", type=whole(), help="new tokens per request (64)")
    parser.add_argument("--prompts", type=whole(), default=1, help="held-out prompts per domain in closed loops (1)")
    parser.add_argument("--open-s", type=positive, help="seconds of arrivals, in the profile's time (5)")
    parser.add_argument("--runs", type=whole(), default=1, help="runs over which medians are taken (1)")
    parser.add_argument(
        "--time-scale", type=positive, help="how slow the motion is (the profile's, less for few requests at a time)"
    )
    parser.add_argument("--run-ahead", action="store_true", help="drafters begin the next exchange in their idle time")
    parser.add_argument("--cell-timeout-s", type=positive, default=600.0, help="a cell is given up after so long (600)")
    parser.add_argument("--out", type=Path, help="folder of cells, report and plots (build/paper/PROFILE)")
    parser.add_argument("--again", action="store_true", help="measure also what has been measured")
    options = parser.parse_args(arguments)
    usual = (FIRST_LOOK if options.quick else WHOLE_RUN) | (LEFT_OUT if options.ablations else {})
    for name, value in usual.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def entrants(options: argparse.Namespace) -> list[Entrant]:
    """Who is measured under which loads. Raises BadRequest where a load or a strategy is unknown."""
    if options.ablations:
        names = tuple(options.loads)
        return [Entrant(part.strategy, tuple(map(parse_load, loads_of(part, names))), park=WHOLE) for part in ABLATIONS]
    loads = tuple(map(parse_load, options.loads))
    strategies = dict.fromkeys(parse(strategy).name for strategy in options.presets or PRESETS)
    return [Entrant(strategy, loads) for strategy in strategies]


async def measure(
    options: argparse.Namespace, profile: Profile, work: list[Entrant], out: Path, console: Console
) -> list[Cell]:
    """All cells that were asked for, in that order; measures those that are missing."""
    interrupt_main_task()
    extent = Extent(
        options.tokens, options.prompts, options.open_s, options.time_scale, options.cell_timeout_s, options.run_ahead
    )
    cells: dict[CellKey, Cell] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("starting", total=options.runs * sum(len(entrant.loads) for entrant in work))

        def note(cell: Cell) -> None:
            cells[cell.key] = cell
            progress.update(bar, advance=1, description=f"{cell.key.strategy}, {cell.key.load}")

        runner = Runner(profile, extent, CellFile(out / CELLS), note)
        await runner.run(work, options.runs, options.again)
        keys = [
            runner.key(entrant, load, run) for entrant in work for load in entrant.loads for run in range(options.runs)
        ]
    return [cells[key] for key in keys]


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes, draws. Exit status 1 where nothing could be measured, 130 where it was stopped."""
    options = parse_arguments(arguments)
    return bordered("bench.paper", lambda: compare(options), STOPPED)


def compare(options: argparse.Namespace) -> int:
    """Refuses first what can never be measured or written."""
    profile = read_profile(profile_path(options.profile))
    work = entrants(options)
    for entrant in work:
        park_of(profile, entrant.park or entrant.strategy, same_cost=True)
    if options.out is not None:
        check_folder("--out", options.out)
    out = options.out or RESULTS / profile.name
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    report = Report(asyncio.run(measure(options, profile, work, out, console)))
    for table in report.tables():
        console.print(table)
    for line in [*report.notes(sources_digest()), *(legend() if options.ablations else ())]:
        console.print(line, highlight=False, markup=False)
    name = report_name(options)
    (out / f"{name}.json").write_text(json.dumps(report.as_json(), indent=1) + "\n")
    drawn = draw(report, f"{profile.name}, {options.tokens} tokens per request", out / name)
    console.print(f"written: {out / name}.json, {len(drawn)} pictures in {out / name}", highlight=False)
    return 0 if any(cell.figures for cell in report.cells) else 1


def report_name(options: argparse.Namespace) -> str:
    """What the report is called: a first look takes no whole run's place."""
    kind = "ablations" if options.ablations else "report"
    return kind if not options.quick else f"quick-{kind}" if options.ablations else "quick"


if __name__ == "__main__":
    sys.exit(main())
