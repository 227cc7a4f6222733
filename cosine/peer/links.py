"""Links to all peers of a role, as the registry names them; kept as they are while the registry is away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from cosine.rpc.hello import Identity
from cosine.rpc.streams import LinkOwner, PeerLink
from cosine.store.registry import LOST, PeerRecord, Registry


class Links:
    """One PeerLink per peer of `role`; `method` names the stream on a channel, `request` its message type."""

    def __init__(
        self,
        registry: Registry,
        role: str,
        identity: Identity,
        method: Callable[[grpc.aio.Channel], Any],
        request: Callable[..., Any],
        owner: LinkOwner,
    ) -> None:
        self._registry = registry
        self._role = role
        self._dialling = (method, request, identity, role, owner)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Follows the registry for ever: dials who came, lets go who left or was lost."""
        try:
            async for peers in self._registry.watch(self._role):
                self._follow(peers)
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _follow(self, peers: tuple[PeerRecord, ...]) -> None:
        wanted = {(peer.peer_id, peer.address) for peer in peers if peer.state != LOST}
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
        for key in wanted - self._tasks.keys():
            self._tasks[key] = asyncio.create_task(PeerLink(key[1], *self._dialling).run())
