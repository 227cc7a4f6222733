"""`python -m services.gateway`: the public API."""

from __future__ import annotations

import asyncio
import math

from cosine.core.errors import Unavailable
from cosine.core.intake import ModelFacts
from cosine.peer.membership import check_redis_url, membership
from cosine.rpc.hello import Identity
from cosine.rpc.server import Service, run, serve
from cosine.rpc.settings import read
from cosine.rpc.telemetry import setup_logging
from cosine.store.admission import AdmissionQueue
from cosine.store.connection import Store
from cosine.store.records import RequestRecords
from cosine.store.registry import Registry
from cosine.text.detokenizer import token_kinds
from cosine.text.tokenizer import eos_token_ids, fingerprint, load_tokenizer, vocab_size
from cosine.v1.gateway_pb2_grpc import add_GatewayServiceServicer_to_server
from services.gateway import metrics
from services.gateway.catalog import Catalog
from services.gateway.generation import Door
from services.gateway.relay import Relay
from services.gateway.service import GatewayServicer, check_default_strategy
from services.gateway.settings import GatewaySettings

FIGURES_EVERY_S = 2.0


async def main() -> None:
    settings = read(GatewaySettings)
    peer_id = settings.named("gateway")
    setup_logging(settings.log_level, service="gateway", peer=peer_id)
    check_default_strategy(settings.default_strategy)
    check_redis_url(settings)
    store = Store(settings.redis_url, settings.mesh, peer_id)
    try:
        await serve(settings, assemble(settings, peer_id, store))
    finally:
        await store.close()


def assemble(settings: GatewaySettings, peer_id: str, store: Store) -> Service:
    """The gateway's parts, put together."""
    tokenizer = load_tokenizer(settings.model)
    facts = ModelFacts(vocab_size(tokenizer), settings.tokens_max, eos_token_ids(settings.model))
    identity = Identity(
        role="gateway",
        peer_id=peer_id,
        model_id=settings.model,
        tokenizer_fingerprint=fingerprint(tokenizer),
        vocab_size=facts.vocab_size,
    )
    registry, queue = Registry(store), AdmissionQueue(store, settings.admission_bounds())
    catalog = Catalog(registry, identity.tokenizer_fingerprint, identity.model_id, facts)
    relay = Relay(identity, settings.requests_max, settings.retry_delay_ms, settings.message_bytes_max)
    records = RequestRecords(store)
    door = Door(settings, peer_id, relay, queue, records, tokenizer, token_kinds(tokenizer))
    servicer = GatewayServicer(door, catalog, settings.intake_limits())
    return Service(
        identity,
        [(add_GatewayServiceServicer_to_server, servicer, "cosine.v1.GatewayService")],
        load=lambda: relay.load,
        background=[lambda: relay.run(catalog.views()), lambda: watch_figures(queue, relay), records.run],
        drain=servicer.drain,
        registrar=membership(settings, identity),
    )


async def watch_figures(queue: AdmissionQueue, relay: Relay) -> None:
    """Keeps the gauges of the admission queue fresh, for whoever scales the mesh; NaN while Redis is away."""
    metrics.RUNNING.set_function(lambda: relay.load)
    while True:
        try:
            figures = await queue.figures()
            metrics.WAITING.set(figures.waiting_count)
            metrics.OLDEST_WAIT_SECONDS.set(figures.oldest_wait_ms / 1000)
        except Unavailable:
            metrics.WAITING.set(math.nan)
            metrics.OLDEST_WAIT_SECONDS.set(math.nan)
        await asyncio.sleep(FIGURES_EVERY_S)


if __name__ == "__main__":
    run(main)
