"""`python -m services.drafter`: one small model behind DrafterService."""

from __future__ import annotations

from pydantic_settings import CliApp

from cosine.engine.loading import open_engine
from cosine.peer.membership import membership
from cosine.peer.model_settings import ModelSettings
from cosine.rpc.hello import Identity
from cosine.rpc.server import Service, run, serve
from cosine.rpc.telemetry import setup_logging
from cosine.v1.drafter_pb2_grpc import add_DrafterServiceServicer_to_server
from services.drafter.service import DrafterServicer


class DrafterSettings(ModelSettings):
    """A drafter: guesses ahead with a small model."""


async def main() -> None:
    settings = CliApp.run(DrafterSettings)
    peer_id = settings.named("drafter")
    setup_logging(settings.log_level, service="drafter", peer=peer_id)
    engine = open_engine(settings.model, settings.engine_options(), settings.engine_limits())
    engine.warm_up()
    card = engine.card
    identity = Identity(
        role="drafter",
        peer_id=peer_id,
        model_id=card.model_id,
        tokenizer_fingerprint=card.tokenizer_fingerprint,
        vocab_size=card.vocab_size,
        bounds=settings.bounds(card.tokens_max),
    )
    servicer = DrafterServicer(engine, identity)
    service = Service(
        identity,
        [(add_DrafterServiceServicer_to_server, servicer, "cosine.v1.DrafterService")],
        load=lambda: servicer.load,
        background=[servicer.work],
        registrar=membership(settings, identity),
    )
    await serve(settings, service)


if __name__ == "__main__":
    run(main)
