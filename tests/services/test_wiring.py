"""What the processes between clients and models are put together from: who drains, and who hears that others drain."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from pydantic_settings import CliApp

from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.peer.links import Links
from cosine.rpc.server import Service
from cosine.rpc.settings import ServiceSettings
from cosine.store.connection import Store
from services.fusion import __main__ as fusion
from services.scheduler import __main__ as scheduler


class Parts:
    """The service that a process would serve, and the links it would follow."""

    def __init__(
        self, module: ModuleType, settings: type[ServiceSettings], patch: pytest.MonkeyPatch, *flags: str
    ) -> None:
        self.services: list[Service] = []
        self.links: dict[str, Links] = {}
        told = CliApp.run(settings, ["--redis-url=redis://127.0.0.1:1", *flags])
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

    parts.links["verifier"].on_draining(Link())  # type: ignore[arg-type]  # stands in for it
    assert heard == ["v"]


async def test_bounds_of_a_batch_reach_the_scheduler_from_its_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[SchedulerConfig] = []

    def make(config: SchedulerConfig) -> Scheduler:
        made.append(config)
        return Scheduler(config)

    monkeypatch.setattr(scheduler, "Scheduler", make)
    bounds = ("--batch-rows-max=11", "--batch-tokens-max=12", "--batch-ms-max=13")
    Parts(scheduler, scheduler.SchedulerSettings, monkeypatch, *bounds)
    await scheduler.main()
    (config,) = made
    assert (config.batch_rows_max, config.batch_tokens_max, config.batch_ms_max) == (11, 12, 13)
