"""`python -m services.fusion`: FusionService in front of all drafters that the registry names."""

from __future__ import annotations

from pydantic import Field

from cosine.peer.links import Links
from cosine.peer.membership import membership, open_store
from cosine.rpc.hello import Bounds, Identity
from cosine.rpc.server import Service, run, serve
from cosine.rpc.settings import ServiceSettings, read
from cosine.rpc.telemetry import setup_logging
from cosine.store.registry import Registry
from cosine.v1.drafter_pb2 import DraftRequest
from cosine.v1.drafter_pb2_grpc import DrafterServiceStub
from cosine.v1.fusion_pb2_grpc import add_FusionServiceServicer_to_server
from services.fusion.service import FusionServicer


class FusionSettings(ServiceSettings):
    """Fusion: steps the drafters and merges what they guess."""

    sessions_max: int = Field(1024, ge=1, description="sessions remembered; the least recently used one makes room")


async def main() -> None:
    settings = read(FusionSettings)
    peer_id = settings.named("fusion")
    setup_logging(settings.log_level, service="fusion", peer=peer_id)
    identity = Identity(role="fusion", peer_id=peer_id, bounds=Bounds(sessions_max=settings.sessions_max))
    servicer = FusionServicer(identity, settings.sessions_max)
    store = open_store(settings, identity)
    await store.ping()
    links = Links(
        "drafter",
        identity,
        lambda channel: DrafterServiceStub(channel).Draft,
        DraftRequest,
        servicer,
        on_draining=servicer.on_draining,
        message_bytes_max=settings.message_bytes_max,
    )
    registry = Registry(store)
    service = Service(
        identity,
        [(add_FusionServiceServicer_to_server, servicer, "cosine.v1.FusionService")],
        load=lambda: servicer.load,
        background=[lambda: links.follow(registry.watch("drafter"))],
        drain=servicer.drain,
        registrar=membership(settings, identity),
    )
    await serve(settings, service)


if __name__ == "__main__":
    run(main)
