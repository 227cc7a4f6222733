"""Lists the peers of a running mesh, as its registry knows them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict

from cosine.cli.address import ASK_ONCE, add_address, reaching
from cosine.client.async_client import AsyncClient
from cosine.client.results import Peer

HEADINGS = ("role", "peer", "model", "address", "state", "load")
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
    """One line per peer under aligned headings."""
    rows = [HEADINGS, *(_row(peer) for peer in peers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(peer: Peer) -> tuple[str, ...]:
    model = peer.model_id if len(peer.model_id) <= MODEL_CHARS_MAX else "…" + peer.model_id[1 - MODEL_CHARS_MAX :]
    return (peer.role, peer.peer_id, model or "-", peer.address, peer.state, str(peer.load))
