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

from cosine.core.errors import BadRequest
from cosine.core.strategy import PRESETS
from cosine.sim.library import Library
from cosine.sim.load import USUAL_TOKENS, Load
from cosine.sim.notebook import Notebook, settings
from cosine.sim.peers import Shape
from cosine.sim.profile import Profile, profile_path, read_profile
from cosine.sim.report import as_sweep_table, as_table, leads, write_json
from cosine.sim.sweep import CONTROL, REQUEST_COUNTS, SWEEPS, Point, control_cost, measure
from cosine.sim.table import (
    ABLATIONS,
    LOAD_NAMES,
    SAMPLED_ABLATIONS,
    check_recorded,
    load_named,
    park_of,
    read_library,
    table,
)
from cosine.text.command_line import Parser, bordered, check_file, check_folder, whole

RECORDINGS = Path("testbed/recordings")
PROFILE = "paper-70b"
POINTS = Path("build/sweeps.json")
REQUESTS_MAX = 100_000
IDLE_IN_SWEEPS = frozenset({"presets", "loads", "tokens", "temperature", "as_is", "run_ahead", "ablations"})
ONLY_IN_SWEEPS = {"requests": "requests", "measure_control": "verifiers"}
WIDTH = 180  # of tables that go into a file
NOTHING_KEPT = "stopped; nothing was kept"
POINTS_KEPT = "stopped; the points that are done are kept, the same command goes on"


def main(words: Sequence[str] | None = None) -> int:
    """Prints the table (or a sweep's), and writes what was asked for; the exit status."""
    arguments = _arguments(words)
    return bordered("cosine.sim", partial(_run, arguments), POINTS_KEPT if arguments.sweep else NOTHING_KEPT)


def _run(arguments: argparse.Namespace) -> int:
    """Refuses first what cannot be read, played or written."""
    profile = read_profile(profile_path(arguments.profile))
    strategies = _strategies(arguments)
    for strategy in () if arguments.sweep else strategies:
        park_of(profile, strategy, not arguments.as_is)
    if arguments.json:
        check_file("--json", arguments.json)
    if arguments.plots:
        check_folder("--plots", arguments.plots)
    loads, library = _read(profile, arguments)
    check_recorded(profile, library)
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if arguments.sweep:
        _sweep(console, profile, library, arguments)
    else:
        _table(console, profile, library, strategies, loads, arguments)
    return 0


def _strategies(arguments: argparse.Namespace) -> Sequence[str]:
    """Those that were asked for; else the ablations, or the presets that the machines suffice for."""
    if arguments.ablations:
        return SAMPLED_ABLATIONS if arguments.temperature else ABLATIONS
    fitting = [name for name, row in PRESETS.items() if row.verifiers == 1 or not arguments.as_is]
    return arguments.presets or fitting


def _read(profile: Profile, arguments: argparse.Namespace) -> tuple[list[Load], Library]:
    """The loads and the recorded texts. Raises BadRequest where there are none of that name."""
    temperature = arguments.temperature or 0.0
    try:
        tokens = arguments.tokens or USUAL_TOKENS
        loads = [load_named(name, profile, tokens) for name in arguments.loads or LOAD_NAMES]
        loads = [replace(load, temperature=temperature, seed=arguments.seed) for load in loads]
        return loads, read_library(arguments.recordings, temperature)
    except ValueError as error:
        raise BadRequest("USAGE", str(error)) from error
    except OSError as error:
        raise BadRequest(
            "USAGE", f"cannot read {error.filename} ({error.strerror}); name a folder with --recordings"
        ) from error


def _table(
    console: Console,
    profile: Profile,
    library: Library,
    strategies: Sequence[str],
    loads: Sequence[Load],
    arguments: argparse.Namespace,
) -> None:
    """All strategies under all loads."""
    with _bar(console) as bar:
        task = bar.add_task("", total=len(strategies) * len(loads))
        rows = table(
            profile,
            library,
            strategies,
            loads,
            not arguments.as_is,
            lambda row: bar.update(task, advance=1, description=f"{row.load} {row.strategy}"),
            Shape(run_ahead=arguments.run_ahead),
        )
    money = "as it is" if arguments.as_is else "equal cost"
    console.print(as_table(f"{profile.name}, {money}, temperature {arguments.temperature or 0:g}", rows))
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
    decided = settings(profile_path(arguments.profile), arguments.recordings, arguments.seed) | asdict(cost)
    notebook = Notebook(arguments.json or POINTS, decided)
    if notebook.set_aside:
        console.print(
            f"other code or settings made the points in {notebook.path}; they are in {notebook.set_aside} now"
        )
    names = list(SWEEPS) if arguments.sweep == "all" else [arguments.sweep]
    most = arguments.requests or REQUESTS_MAX
    trials = [(name, trial) for name in names for trial in SWEEPS[name](profile, most, cost)]
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


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="cosine.sim", usage="python -m cosine.sim [OPTION ...]", description=__doc__)
    parser.add_argument("--profile", default=PROFILE, help=f"a profile of bench/profiles, or a file ({PROFILE})")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="folder of testbed recordings")
    parser.add_argument(
        "--presets", nargs="+", metavar="STRATEGY", help="PRESET or PRESET:KNOB=VALUE,... (all that the park can run)"
    )
    parser.add_argument("--loads", nargs="+", metavar="LOAD", help=f"{', '.join(LOAD_NAMES)}, or closed-N (all)")
    parser.add_argument("--tokens", type=whole(most=USUAL_TOKENS), help=f"new tokens per request ({USUAL_TOKENS})")
    parser.add_argument("--temperature", type=float, choices=(0.0, 1.0), help="0 or 1 (0)")
    parser.add_argument("--as-is", action="store_true", help="the profile's machines for all, not the same money")
    parser.add_argument("--run-ahead", action="store_true", help="drafters begin the next exchange in their idle time")
    parser.add_argument("--ablations", action="store_true", help="cosine with one idea left out at a time")
    parser.add_argument("--seed", type=int, default=0, help="another one: other texts first, other arrivals")
    parser.add_argument("--sweep", choices=(*SWEEPS, "all"), help="how it scales; goes on where it was interrupted")
    parser.add_argument("--requests", type=whole(min(REQUEST_COUNTS)), help=f"the most of a sweep ({REQUESTS_MAX})")
    parser.add_argument(
        "--measure-control",
        action="store_true",
        help="charge `one scheduler` with what this machine computes, not with the stated times",
    )
    parser.add_argument("--json", type=Path, help=f"write the figures here (of sweeps also without: {POINTS})")
    parser.add_argument("--plots", type=Path, help="write plots into this folder")
    arguments = parser.parse_args(words)
    if idle := idle_flag(arguments):
        parser.error(idle)
    return arguments


def idle_flag(arguments: argparse.Namespace) -> str:
    """The first flag that would do nothing beside the others, and why; empty where there is none."""
    given = {name for name, value in vars(arguments).items() if value is not None and value is not False}
    if arguments.ablations and "presets" in given:
        return "--ablations are strategies already; leave --presets out"
    if arguments.sweep and (strangers := given & IDLE_IN_SWEEPS):
        return f"a sweep takes no {_flag(min(strangers))}; leave it out"
    for name, sweep in ONLY_IN_SWEEPS.items():
        if name in given and arguments.sweep not in (sweep, "all"):
            return f"{_flag(name)} is for --sweep {sweep} or all; leave it out"
    return ""


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


if __name__ == "__main__":
    sys.exit(main())
