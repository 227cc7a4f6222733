"""Lists the peers of a running mesh, as its registry knows them.

The last two columns are times of a forward pass in milliseconds, a base and so much per row: as the peer measured them
when it started, and as its schedulers, or a drafter itself, have learned them since.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from cosine.cli.address import ASK_ONCE, add_address, reaching
from cosine.client.async_client import AsyncClient
from cosine.client.results import LearnedTime, Peer

HEADINGS = ("role", "peer", "model", "address", "state", "load", "pass_ms", "learned_ms")
MODEL_CHARS_MAX = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to ask, and how to show it."""
    add_address(parser)
    parser.add_argument("--json", action="store_true", help="a JSON list instead of a table")


async def run(arguments: argparse.Namespace) -> int:
    """Prints the peers."""
    with reaching(arguments.address):
        async with AsyncClient(arguments.address, retry=ASK_ONCE) as client:
            peers = await client.peers()
    print(json.dumps([asdict(peer) for peer in peers]) if arguments.json else table(peers))
    return 0


def table(peers: Sequence[Peer]) -> str:
    """One line per peer under aligned headings. What several schedulers have learned of a peer stands side by side."""
    learned: dict[str, list[LearnedTime]] = {}
    for peer in peers:
        for entry in peer.learned if peer.state != "lost" else ():
            learned.setdefault(entry.peer_id, []).append(entry)
    rows = [HEADINGS, *(_row(peer, learned.get(peer.peer_id, [])) for peer in peers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(peer: Peer, learned: Sequence[LearnedTime]) -> tuple[str, ...]:
    model = peer.model_id if len(peer.model_id) <= MODEL_CHARS_MAX else "…" + peer.model_id[1 - MODEL_CHARS_MAX :]
    measured = "-" if peer.base_ms is None or peer.row_ms is None else _line(peer.base_ms, peer.row_ms)
    since = ",".join(_line(entry.base_ms, entry.row_ms) for entry in learned) or "-"
    return (peer.role, peer.peer_id, model or "-", peer.address, peer.state, str(peer.load), measured, since)


def _line(base_ms: float, row_ms: float) -> str:
    """For example "15.4+0.62/row"; no spaces, so that a table splits into its columns."""
    return f"{base_ms:.3g}+{row_ms:.2g}/row"
