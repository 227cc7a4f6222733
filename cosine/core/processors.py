"""What models compute on, and whether those that share it are in one another's way.

Only what peers say of themselves; that drafters slow one another down in ways that they do not know of is for
`timing.DraftModel` to learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Processor:
    """What one peer computes on: `cores` for models, under a name that only those share who share them ("": not
    known); the peer keeps `threads` of them busy. A GPU has one core."""

    name: str = ""
    cores: int = 1
    threads: int = 1


UNKNOWN = Processor()


def crowded(peers: Iterable[Processor]) -> bool | None:
    """True where some of these peers want more cores than they have between them; None where one does not say."""
    wanted: Counter[str] = Counter()
    cores: dict[str, int] = {}
    for peer in peers:
        if not peer.name:
            return None
        wanted[peer.name] += peer.threads
        cores[peer.name] = min(peer.cores, cores.get(peer.name, peer.cores))
    return any(count > cores[name] for name, count in wanted.items())
