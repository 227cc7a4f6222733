"""Which replica of a drafter model works for a request: the one that did, else the one with the fewest requests.

Several peers may serve one model (an autoscaled deployment). What is learned of drafting belongs to models; caches
belong to peers, so a request stays with its replica while that is up. One `Placement` per set of drafters that can be
planned together, that is per fusion. It knows requests and peers by name only; what they do is not its business.

Schedulers that share drafters do not see one another's requests. Each has an order of its own among equals, so that
they do not all begin with the same replicas.

A choice costs O(log replicas): per model a heap of (requests, rank, peer) whose outdated entries are dropped as they
surface, and which is rebuilt once they outnumber the replicas by far.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from cosine.core.events import DrafterFacts

OUTDATED_FACTOR = 4


@dataclass(slots=True)
class Replica:
    """A peer that is up, and the requests placed on it; of equals the one of least `rank` is taken."""

    peer_id: str
    requests: set[str] = field(default_factory=set)
    rank: int = 0

    @property
    def entry(self) -> tuple[int, int, str]:
        """Its place in the order of choice."""
        return len(self.requests), self.rank, self.peer_id


@dataclass(slots=True)
class Pool:
    """All replicas of one model; `heap` holds at least each one's present entry."""

    replicas: dict[str, Replica] = field(default_factory=dict)
    heap: list[tuple[int, int, str]] = field(default_factory=list)

    def push(self, replica: Replica) -> None:
        """To be called whenever a replica came or its number of requests changed."""
        heapq.heappush(self.heap, replica.entry)
        if len(self.heap) > OUTDATED_FACTOR * len(self.replicas):
            self.heap = sorted(replica.entry for replica in self.replicas.values())

    def least(self) -> Replica:
        """The replica with the fewest requests, least rank first. The pool must not be empty."""
        while True:
            replica = self.replicas.get(self.heap[0][2])
            if replica is not None and replica.entry == self.heap[0]:
                return replica
            heapq.heappop(self.heap)


class Placement:
    """Replicas that are up, and which of them each request has. Bounded by drafters and live requests.

    `salt` is a scheduler's own and makes its order among equals; without one they go by name.
    """

    def __init__(self, salt: str = "") -> None:
        self._salt = salt
        self._pools: dict[str, Pool] = {}
        self._models: dict[str, str] = {}
        self._placed: dict[str, dict[str, Replica]] = {}
        self.models: tuple[str, ...] = ()

    def drafters_changed(self, drafters: Iterable[DrafterFacts]) -> None:
        """These are up and no others. Requests keep their replicas that still serve the same model; `models` are then
        the models that can be had, by name. A peer that names no model is one of its own kind."""
        now = {drafter.peer_id: drafter.model_id or drafter.peer_id for drafter in drafters}
        for peer_id in [peer for peer, model in self._models.items() if now.get(peer) != model]:
            self._remove(peer_id)
        for peer_id in sorted(now.keys() - self._models.keys()):
            self._models[peer_id] = now[peer_id]
            pool = self._pools.setdefault(now[peer_id], Pool())
            pool.replicas[peer_id] = Replica(peer_id, rank=_rank(self._salt, peer_id))
            pool.push(pool.replicas[peer_id])
        self.models = tuple(sorted(self._pools))

    def model_named(self, name: str) -> str:
        """The model that a name, its own or that of a peer that serves it, stands for; "" where none does."""
        return name if name in self._pools else self._models.get(name, "")

    @property
    def request_count(self) -> int:
        """Requests that draft here."""
        return len(self._placed)

    def join(self, request: str) -> None:
        """A request will draft here."""
        self._placed.setdefault(request, {})

    def assign(self, request: str, model: str) -> str:
        """The peer that serves `model` for a request. Raises KeyError where the model is not among `models`."""
        pool = self._pools[model]
        placed = self._placed.setdefault(request, {})
        replica = placed.get(model)
        if replica is None:
            replica = placed[model] = pool.least()
            replica.requests.add(request)
            pool.push(replica)
        return replica.peer_id

    def release(self, request: str) -> None:
        """The request is over, or drafts elsewhere; unknown ones are ignored."""
        for model, replica in self._placed.pop(request, {}).items():
            replica.requests.discard(request)
            self._pools[model].push(replica)

    def count(self, peer_id: str) -> int:
        """Requests placed on a peer; 0 for one that is not up."""
        model = self._models.get(peer_id)
        return 0 if model is None else len(self._pools[model].replicas[peer_id].requests)

    def _remove(self, peer_id: str) -> None:
        model = self._models.pop(peer_id)
        pool = self._pools[model]
        for request in pool.replicas.pop(peer_id).requests:
            del self._placed[request][model]
        if not pool.replicas:
            del self._pools[model]


def _rank(salt: str, peer_id: str) -> int:
    digest = hashlib.blake2b(f"{salt} {peer_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) if salt else 0
