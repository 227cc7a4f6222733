"""`python -m cosine.cli.demo`: boots a whole mesh as separate processes, streams held-out prompts of every domain
through it, alone and eight at once, speculating and with plain decoding, and compares speed and text.

Exit status 0 only where every text is plain decoding's. Leaves no process behind, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from cosine.cli.checks import check
from cosine.cli.demo import models
from cosine.cli.demo.measuring import BF16_MARGIN, Run, generate, generate_at_once, likeness, warm_up
from cosine.cli.demo.models import Prompt
from cosine.cli.demo.report import Pair, Report, Row
from cosine.cli.keeper import Peer
from cosine.cli.meshfile import MeshSpec
from cosine.cli.roster import cpu_count, target_dtype, verifier_threads
from cosine.cli.supervisor import Mesh, interrupt_main_task
from cosine.cli.up import write_atomically
from cosine.client.async_client import AsyncClient
from cosine.core.errors import MeshError
from cosine.text.command_line import check_file

SHOWN_PROMPT_CHARS = 160
AT_ONCE = 8
WIDTH = 132
STRATEGY = "cosine"


async def run(arguments: argparse.Namespace, console: Console) -> int:
    """The whole demo; returns its exit status."""
    if arguments.json is not None:
        check_file("--json", arguments.json)
    interrupt_main_task()
    start = time.perf_counter()
    with console.status("preparing the models; the first time, the target is inflated"):
        spec = models.toy_spec() if arguments.toy else await models.testbed_spec()
        read_prompts = models.toy_prompts if arguments.toy else models.testbed_prompts
        prompts = read_prompts(spec.target, arguments.prompts)
        await check(spec)
    async with AsyncExitStack() as stack:
        with console.status("starting the mesh: one process per peer"):
            mesh = await stack.enter_async_context(Mesh(spec, on_change=lambda peer: _show_peer(console, peer)))
        client = await stack.enter_async_context(AsyncClient(mesh.gateway_address))
        facts = _facts(spec, arguments.tokens) | {"boot_s": time.perf_counter() - start}
        report = await _measure(client, prompts, facts, console)
    report.facts["total_s"] = time.perf_counter() - start
    _conclude(report, arguments.json, console)
    return 0 if report.is_fine else 1


def _show_peer(console: Console, peer: Peer) -> None:
    if peer.is_serving:
        console.print(f"  {peer.role:<10} {peer.peer_id:<10} {peer.address:<16} pid {peer.pid}", highlight=False)


def _facts(spec: MeshSpec, token_count: int) -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "target": spec.target,
        "drafters": spec.drafters,
        "dtype": target_dtype(spec),
        "threads": verifier_threads(spec),
        "cpu_count": cpu_count(),
        "tokens_per_prompt": token_count,
    }


async def _measure(client: AsyncClient, prompts: Sequence[Prompt], facts: dict[str, Any], console: Console) -> Report:
    token_count = facts["tokens_per_prompt"]
    margin = 0.0 if facts["dtype"] == "float32" else BF16_MARGIN
    with console.status("warming up"):
        await warm_up(client, prompts, len(facts["drafters"]))
    pairs: list[Pair] = []
    for index, prompt in enumerate(prompts):
        pair = await _alone(client, prompt, token_count, margin, console, plain_first=bool(index % 2))
        pairs.append(pair)
    with console.status(f"{AT_ONCE} at once"):
        at_once = await _at_once(client, pairs, token_count, margin)
    return Report(pairs, at_once, margin, facts)


async def _alone(
    client: AsyncClient, prompt: Prompt, token_count: int, margin: float, console: Console, plain_first: bool
) -> Pair:
    """One prompt both ways, one way after the other; the mesh's text is shown as it comes."""
    console.print(
        f"\n[bold]{prompt.domain}[/] [dim]…{escape(prompt.text[-SHOWN_PROMPT_CHARS:])}[/]",
        highlight=False,
        soft_wrap=True,
    )

    async def plainly() -> Run:
        return await generate(client, prompt, "plain", token_count)

    plain = await plainly() if plain_first else None
    mesh = await generate(client, prompt, STRATEGY, token_count, lambda text: _show_text(console, text))
    plain = plain or await plainly()
    pair = Pair(mesh, plain, await likeness(client, mesh, plain, margin))
    console.print(
        f"\n[dim]{len(mesh.token_ids)} tokens, {mesh.tokens_per_s:.1f} tokens/s, "
        f"{mesh.speculation.acceptance_length:.2f} per verdict; plain {plain.tokens_per_s:.1f} tokens/s; "
        f"text {pair.likeness.kind}[/]",
        highlight=False,
        soft_wrap=True,
    )
    return pair


async def _at_once(client: AsyncClient, alone: Sequence[Pair], token_count: int, margin: float) -> Row:
    """Eight prompts at the same time, both ways; each text is compared with that of plain decoding on its own."""
    chosen = list(islice(cycle(alone), AT_ONCE))
    prompts = [pair.mesh.prompt for pair in chosen]
    mesh, seconds = await generate_at_once(client, prompts, STRATEGY, token_count)
    plain, plain_seconds = await generate_at_once(client, prompts, "plain", token_count)
    likenesses = [await likeness(client, run, pair.plain, margin) for run, pair in zip(mesh, chosen, strict=True)]
    pairs = [Pair(*each) for each in zip(mesh, plain, likenesses, strict=True)]
    return Row(f"{AT_ONCE} at once", pairs, seconds, plain_seconds)


def _show_text(console: Console, text: str) -> None:
    """Text as it comes; what a terminal might obey instead of show becomes a dot."""
    console.out(
        "".join(sign if sign.isprintable() or sign in "\n\t" else "·" for sign in text), end="", highlight=False
    )


def _conclude(report: Report, json_path: Path | None, console: Console) -> None:
    console.print()
    console.print(report.table())
    console.print(report.caption(), highlight=False)
    verdict = "every text is plain decoding's" if report.is_fine else "[red]a text is not plain decoding's[/]"
    console.print(
        f"{verdict}; started in {report.facts['boot_s']:.0f} s, done in {report.facts['total_s']:.0f} s",
        highlight=False,
    )
    if json_path is not None:
        write_atomically(json_path, json.dumps(report.as_json(), indent=1) + "\n")


def _console() -> Console:
    """A terminal as wide as it is; a file or pipe as wide as the table."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def main() -> int:
    """The border: errors become one line."""
    parser = argparse.ArgumentParser(prog="python -m cosine.cli.demo", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="toy models: no torch, no test bed")
    parser.add_argument("--prompts", type=int, default=2, choices=range(1, 9), help="per domain (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="per prompt (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    try:
        return asyncio.run(run(arguments, _console()))
    except MeshError as error:
        print(f"{error.reason}: {error.message}", file=sys.stderr)
        return 1
    except (asyncio.CancelledError, KeyboardInterrupt):
        return 130


if __name__ == "__main__":
    sys.exit(main())
