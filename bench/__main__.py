"""`python -m bench`: the mesh's strategies, and transformers beside them, on the inflated test bed, side by side.

In every run each system serves each load once, in turn; a table gives medians over runs, and ratios to the mesh's own
plain decoding in the same run. Also: overhead per round (ms), time of the scheduler's decisions, memory of the services
without torch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from bench.measuring import Baseline, Load, Measured, measure_mesh
from bench.report import PLAIN, Report
from bench.scheduler import measure as measure_scheduler
from cosine.cli.demo import models
from cosine.cli.demo.measuring import BF16_MARGIN, Run, likeness
from cosine.cli.demo.models import Prompt
from cosine.cli.meshfile import read_testbed
from cosine.cli.supervisor import Mesh, interrupt_main_task
from cosine.client.async_client import AsyncClient
from cosine.client.results import Speculation
from cosine.core.strategy import PRESETS, Choice, check_demands
from cosine.core.strategy import parse as parse_strategy
from cosine.text.command_line import Parser, bordered, check_file, whole

LOADS = ((1, 0.0), (8, 0.0), (1, 1.0))
DOMAINS = 4
PER_DOMAIN_AT_ONCE = 8  # with many clients: four requests each, so that in most rounds all of them have one
ASSISTANT = "general"
VERIFIERS_USUAL = 2
TOKENS_MAX = 1024  # of one generation, as the gateway bounds it
THREADS_MAX = 256
DEVICE = re.compile(r"cpu|cuda(:\d{1,3})?")
TABLE_WIDTH = 110  # where output goes to a file there is no terminal to ask


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Options of the benchmark."""
    parser = Parser(prog="bench", usage="python -m bench [OPTION ...]", description=__doc__)
    parser.add_argument(
        "--strategies", default="plain cosine", help="strategies as requests name them, separated by spaces; or all"
    )
    parser.add_argument("--runs", type=whole(), default=5, help="runs over which medians are taken")
    parser.add_argument("--prompts", type=whole(), default=1, help="held-out prompts per domain")
    parser.add_argument("--tokens", type=whole(most=TOKENS_MAX), default=96, help="new tokens per prompt")
    parser.add_argument(
        "--threads", type=whole(most=THREADS_MAX), default=1, help="of the verifier, and of transformers"
    )
    parser.add_argument(
        "--device", type=device, default="cpu", help="of target and transformers: cpu or cuda[:N] (cpu)"
    )
    parser.add_argument("--hidden", type=whole(), default=models.HIDDEN, help="width that the target is inflated to")
    parser.add_argument("--layers", type=whole(), default=models.LAYERS, help="layers that the target is inflated to")
    parser.add_argument("--no-baselines", action="store_true", help="leave transformers out")
    parser.add_argument("--json", type=Path, help="also write all figures here")
    options = parser.parse_args(arguments)
    names = list(PRESETS) if options.strategies == "all" else options.strategies.split()
    if not names:
        parser.error("--strategies names none; give one, for example plain, or all")
    options.names = list(dict.fromkeys(["plain", *names]))
    return options


def device(text: str) -> str:
    """A type for argparse: what both a verifier and transformers can compute on."""
    if DEVICE.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no device; take cpu or cuda[:N]")
    return text


def verifier_count(name: str) -> int:
    """As many as a strategy asks for by number; where it leaves that open two, since more would share this machine."""
    row = parse_strategy(name)
    return row.verifiers if "verifiers" in row.demanded else min(VERIFIERS_USUAL, row.verifiers)


def check(options: argparse.Namespace) -> None:
    """Raises the MeshError of what cannot work, before models are inflated and processes started; `options` learn how
    many verifiers are needed."""
    if options.json is not None:
        check_file("--json", options.json)
    options.verifiers = max(map(verifier_count, options.names))
    drafters = read_testbed()["drafters"]
    for name in options.names:
        check_demands(parse_strategy(asked(name)), options.verifiers, len(drafters), drafters)


async def run(options: argparse.Namespace, console: Console) -> Report:
    """Boots mesh and baseline, lets them take turns, returns all figures."""
    interrupt_main_task()
    with console.status("preparing the models"):
        spec = (await models.testbed_spec(options.hidden, options.layers)).model_copy(
            update={
                "threads": options.threads,
                "verifiers": options.verifiers,
                "device": options.device,
                "drafter_device": "cpu",
            }
        )
        prompts = models.testbed_prompts(spec.target, options.prompts * PER_DOMAIN_AT_ONCE)
        assistant = spec.drafters[ASSISTANT]
    report = Report(options.threads, options.tokens)
    with console.status("starting the mesh"):
        mesh = Mesh(spec)
        await mesh.__aenter__()
    baseline = None
    try:
        if not options.no_baselines:
            baseline = await Baseline.start(spec.target, assistant, options.threads, options.device)
        async with AsyncClient(mesh.gateway_address) as client:
            await _warm_up(client, prompts, options.names)
            await _all_runs(options, console, client, prompts, baseline, report)
            await _compare_texts(client, prompts, report)
        report.memory_mb = {peer.role: _resident_mb(peer.pid) for peer in mesh.peers if peer.role in report.LEAN}
    finally:
        if baseline is not None:
            await baseline.stop()
        await mesh.__aexit__(None, None, None)
    report.handle_times = measure_scheduler(64)
    return report


def asked(name: str) -> str:
    """A strategy as requests ask for it: one that keeps to a single drafter gets the one that knows all domains, like
    the assisted transformers, not the first by name."""
    row = parse_strategy(name)
    if row.choice is not Choice.FIRST or row.drafter:
        return name
    return f"{name}{',' if ':' in name else ':'}drafter={ASSISTANT}"


async def _warm_up(client: AsyncClient, prompts: list[Prompt], names: list[str]) -> None:
    for name in names:
        await measure_mesh(client, prompts, Load(1, 0.0, 24, DOMAINS), asked(name))


async def _all_runs(
    options: argparse.Namespace,
    console: Console,
    client: AsyncClient,
    prompts: list[Prompt],
    baseline: Baseline | None,
    report: Report,
) -> None:
    alone = DOMAINS * options.prompts
    loads = [
        Load(clients, temperature, options.tokens, alone if clients == 1 else alone * PER_DOMAIN_AT_ONCE)
        for clients, temperature in LOADS
    ]
    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("measuring", total=options.runs * len(loads) * (len(options.names) + 2))

        def note(load: Load, system: str, measured: Measured) -> None:
            report.add(load, system, measured)
            progress.advance(task)

        for _ in range(options.runs):
            for load in loads:
                for name in options.names:
                    note(load, name, await measure_mesh(client, prompts, load, asked(name)))
                for assisted in (False, True):
                    if baseline is not None and load.clients == 1:
                        system = "transformers, assisted" if assisted else "transformers"
                        note(load, system, await baseline.measure(prompts, load, assisted))


async def _compare_texts(client: AsyncClient, prompts: list[Prompt], report: Report) -> None:
    """Every greedy text beside plain decoding's of the same run; where they part, the target is asked once more."""
    for load, systems in report.runs.items():
        for system, runs in systems.items():
            if load.temperature or system == PLAIN or system.startswith("transformers"):
                continue
            likenesses = report.likenesses.setdefault(load, {}).setdefault(system, [])
            for run, plain in zip(runs, systems[PLAIN], strict=True):
                for prompt, text, other in zip(prompts, run.texts, plain.texts, strict=False):
                    likenesses.append(
                        await likeness(client, _as_run(prompt, text), _as_run(prompt, other), BF16_MARGIN)
                    )


def _as_run(prompt: Prompt, token_ids: tuple[int, ...]) -> Run:
    return Run(prompt, token_ids, 0.0, Speculation())


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints, writes; the exit status."""
    options = parse(arguments)
    return bordered("bench", lambda: compare(options), "stopped; nothing was kept")


def compare(options: argparse.Namespace) -> int:
    """The whole benchmark."""
    check(options)
    console = Console()
    console.width = max(console.width, TABLE_WIDTH)
    report = asyncio.run(run(options, console))
    for table in report.tables():
        console.print(table)
    for line in report.notes():
        console.print(line, highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps(report.as_json(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
