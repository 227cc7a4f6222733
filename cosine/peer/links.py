"""Links to all peers of a role, as the registry names them.

A peer that leaves the registry keeps its link for as long as that stands: Redis may know less than we do. So does one
that is draining, which is not dialled any more and of which the owner is told. While the registry is away, what it said
last holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any

import grpc

from cosine.rpc.channel import MESSAGE_BYTES_MAX
from cosine.rpc.hello import Identity
from cosine.rpc.streams import LinkOwner, PeerLink
from cosine.store.registry import DRAINING, LOST, PeerRecord

Place = tuple[str, str]  # peer id and address


class Links:
    """One PeerLink per peer of `role`; `method` names the stream on a channel, `request` its message type.

    `on_draining` hears once of each link that is up and whose peer finishes what it has and wants nothing new.
    """

    def __init__(
        self,
        role: str,
        identity: Identity,
        method: Callable[[grpc.aio.Channel], Any],
        request: Callable[..., Any],
        owner: LinkOwner,
        on_draining: Callable[[PeerLink], None] = lambda _: None,
        message_bytes_max: int = MESSAGE_BYTES_MAX,
    ) -> None:
        self._role = role
        self._identity = identity
        self._method = method
        self._request = request
        self._owner = owner
        self.on_draining = on_draining
        self._message_bytes_max = message_bytes_max
        self._links: dict[Place, PeerLink] = {}
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._wanted: set[Place] = set()
        self._draining: set[Place] = set()

    def __iter__(self) -> Iterator[PeerLink]:
        return iter(list(self._links.values()))

    @property
    def any_up(self) -> bool:
        return any(link.is_up for link in self._links.values())

    async def follow(self, views: AsyncIterable[tuple[PeerRecord, ...]]) -> None:
        """Dials who comes and lets go who leaves, for ever. `views` yields the peers at every change."""
        async with asyncio.TaskGroup() as tasks:
            async for peers in views:
                places = {(peer.peer_id, peer.address): peer.state for peer in peers if peer.role == self._role}
                self._wanted = {place for place, state in places.items() if state not in (LOST, DRAINING)}
                self._note_draining({place for place, state in places.items() if state == DRAINING})
                for place in self._wanted - self._links.keys():
                    self._links[place] = link = self._link(place)
                    self._tasks[place] = tasks.create_task(link.run())
                for place in list(self._links):
                    self._drop_unwanted(place)

    # -- LinkOwner, in front of the real one

    def on_up(self, link: PeerLink, peer: Identity) -> None:
        self._owner.on_up(link, peer)

    def on_message(self, link: PeerLink, message: Any) -> None:
        self._owner.on_message(link, message)

    def on_down(self, link: PeerLink, reason: str) -> None:
        self._owner.on_down(link, reason)
        for place in [place for place, other in self._links.items() if other is link]:
            self._drop_unwanted(place)

    def _link(self, place: Place) -> PeerLink:
        size = self._message_bytes_max
        return PeerLink(*place, self._method, self._request, self._identity, self._role, self, size)

    def _note_draining(self, places: set[Place]) -> None:
        fresh = places - self._draining
        self._draining = places
        for place in fresh:
            link = self._links.get(place)
            if link is not None and link.is_up:
                self.on_draining(link)

    def _drop_unwanted(self, place: Place) -> None:
        if place not in self._wanted and not self._links[place].is_up:
            del self._links[place]
            self._tasks.pop(place).cancel()
