"""`python -m services.scheduler`: the loop between Redis, fusion, verifiers and gateways."""

from __future__ import annotations

from pydantic import Field

from cosine.core.config import SchedulerConfig
from cosine.core.scheduler import Scheduler
from cosine.core.strategy import parse
from cosine.peer.links import Links
from cosine.peer.membership import membership, open_store
from cosine.rpc.hello import STEP_SESSIONS_MAX, Identity
from cosine.rpc.server import Service, run, serve
from cosine.rpc.settings import ServiceSettings, read
from cosine.rpc.telemetry import setup_logging
from cosine.store.admission import AdmissionReader
from cosine.store.knowledge import KnowledgeExchange, SharedKnowledge
from cosine.store.registry import Registry
from cosine.v1.fusion_pb2 import FuseRequest
from cosine.v1.fusion_pb2_grpc import FusionServiceStub
from cosine.v1.scheduler_pb2_grpc import add_SchedulerServiceServicer_to_server
from cosine.v1.verifier_pb2 import VerifyRequest
from cosine.v1.verifier_pb2_grpc import VerifierServiceStub
from services.scheduler.service import FusionLinks, SchedulerServicer, VerifierLinks


class SchedulerSettings(ServiceSettings):
    """A scheduler: drafts, verifies and commits, for every request it takes."""

    strategy: str = Field("cosine", description="strategy of requests that name none")
    live_max: int = Field(64, ge=1, le=STEP_SESSIONS_MAX, description="requests held at once; the others wait in Redis")
    prefill_chunk: int = Field(256, ge=1, description="context tokens of one request in one batch at most")
    batch_rows_max: int = Field(256, ge=1, description="tokens of one batch at most")
    batch_tokens_max: int = Field(1 << 20, ge=1, description="tokens of context of one batch's requests at most")
    batch_ms_max: float = Field(1000.0, gt=0, description="milliseconds that a batch may be predicted to take")
    draft_deadline_ms_min: float = Field(150.0, gt=0, description="milliseconds that drafting is always given")
    draft_deadline_ms_max: float = Field(2000.0, gt=0, description="milliseconds after which drafts are not waited for")
    verifier_wait_s: float = Field(60.0, gt=0, description="seconds a request waits for a verifier before it fails")
    batch_deadline_s: float = Field(60.0, gt=0, description="seconds until a verifier that says nothing is given up")

    def config(self, session_prefix: str) -> SchedulerConfig:
        return SchedulerConfig(
            session_prefix=session_prefix,
            default_strategy=parse(self.strategy).name,
            live_max=self.live_max,
            prefill_chunk=self.prefill_chunk,
            batch_rows_max=self.batch_rows_max,
            batch_tokens_max=self.batch_tokens_max,
            batch_ms_max=self.batch_ms_max,
            draft_deadline_min=self.draft_deadline_ms_min,
            draft_deadline_max=self.draft_deadline_ms_max,
            verifier_wait_s=self.verifier_wait_s,
            batch_deadline_s=self.batch_deadline_s,
        )


async def main() -> None:
    settings = read(SchedulerSettings)
    peer_id = settings.named("scheduler")
    setup_logging(settings.log_level, service="scheduler", peer=peer_id)
    identity = Identity(role="scheduler", peer_id=peer_id)
    core = Scheduler(settings.config(f"{identity.incarnation:x}"))
    store = open_store(settings, identity)
    await store.ping()
    servicer = SchedulerServicer(identity, core, AdmissionReader(store, f"{peer_id}-{identity.incarnation:x}"))
    exchange = KnowledgeExchange(SharedKnowledge(store), core.knowledge)
    registry = Registry(store)
    to_verifiers, to_fusions = VerifierLinks(servicer), FusionLinks(servicer)
    verifiers = Links(
        "verifier",
        identity,
        lambda link: VerifierServiceStub(link).Verify,
        VerifyRequest,
        to_verifiers,
        on_draining=to_verifiers.on_draining,
        message_bytes_max=settings.message_bytes_max,
    )
    fusions = Links(
        "fusion",
        identity,
        lambda link: FusionServiceStub(link).Fuse,
        FuseRequest,
        to_fusions,
        message_bytes_max=settings.message_bytes_max,
    )

    async def drain() -> None:
        await servicer.drain()
        await exchange.finish()

    service = Service(
        identity,
        [(add_SchedulerServiceServicer_to_server, servicer, "cosine.v1.SchedulerService")],
        load=lambda: servicer.load,
        background=[
            servicer.admit,
            lambda: verifiers.follow(registry.watch("verifier")),
            lambda: fusions.follow(registry.watch("fusion")),
            lambda: servicer.share(registry.watch("scheduler")),
            exchange.run,
        ],
        drain=drain,
        registrar=membership(settings, identity, servicer.learned),
    )
    await serve(settings, service)


if __name__ == "__main__":
    run(main)
