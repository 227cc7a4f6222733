"""What the processes between clients and models are put together from: who drains, and who hears that others drain."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from cosine.peer.links import Links
from cosine.rpc.server import Service
from cosine.rpc.settings import ServiceSettings
from cosine.store.connection import Store
from services.fusion import __main__ as fusion
from services.scheduler import __main__ as scheduler


class Parts:
    """The service that a process would serve, and the links it would follow."""

    def __init__(self, module: ModuleType, settings: type[ServiceSettings], patch: pytest.MonkeyPatch) -> None:
        self.services: list[Service] = []
        self.links: dict[str, Links] = {}
        told = settings(redis_url="redis://127.0.0.1:1", _cli_parse_args=False)  # type: ignore[call-arg]
        patch.setattr(module, "read", lambda _: told)
        patch.setattr(module, "setup_logging", lambda *_, **__: None)
        patch.setattr(module, "serve", self._serve)
        patch.setattr(module, "Links", self._link)
        patch.setattr(Store, "ping", _answered)

    async def _serve(self, _settings: ServiceSettings, service: Service) -> None:
        self.services.append(service)

    def _link(self, role: str, *parts: Any, **more: Any) -> Links:
        self.links[role] = Links(role, *parts, **more)
        return self.links[role]


async def _answered(_store: Store) -> None:
    return None


async def test_fusion_drains_and_hears_of_drafters_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(fusion, fusion.FusionSettings, monkeypatch)
    await fusion.main()
    (service,) = parts.services
    ((_, servicer, _),) = service.servicers
    assert service.drain == servicer.drain
    assert parts.links["drafter"].on_draining == servicer.on_draining


async def test_the_scheduler_hears_of_verifiers_that_drain(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts(scheduler, scheduler.SchedulerSettings, monkeypatch)
    await scheduler.main()
    heard: list[str] = []
    ((_, servicer, _),) = parts.services[0].servicers
    monkeypatch.setattr(servicer, "verifier_draining", lambda peer_id, _: heard.append(peer_id))

    class Link:
        peer = type("Peer", (), {"peer_id": "v"})

    parts.links["verifier"].on_draining(Link())  # type: ignore[arg-type]
    assert heard == ["v"]
