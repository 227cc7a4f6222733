"""`python -m services.verifier`: the target model behind VerifierService."""

from __future__ import annotations

from pydantic_settings import CliApp

from cosine.engine.loading import open_engine
from cosine.peer.membership import membership
from cosine.peer.model_settings import ModelSettings
from cosine.rpc.hello import Identity
from cosine.rpc.server import Service, run, serve
from cosine.rpc.telemetry import setup_logging
from cosine.v1.verifier_pb2_grpc import add_VerifierServiceServicer_to_server
from services.verifier.service import VerifierServicer


class VerifierSettings(ModelSettings):
    """A verifier: checks token trees with the target model."""


async def main() -> None:
    settings = CliApp.run(VerifierSettings)
    peer_id = settings.named("verifier")
    setup_logging(settings.log_level, service="verifier", peer=peer_id)
    engine = open_engine(settings.model, settings.engine_options(), settings.engine_limits())
    engine.warm_up()
    card = engine.card
    identity = Identity(
        role="verifier",
        peer_id=peer_id,
        model_id=card.model_id,
        tokenizer_fingerprint=card.tokenizer_fingerprint,
        vocab_size=card.vocab_size,
        bounds=settings.bounds(card.tokens_max),
    )
    servicer = VerifierServicer(engine, identity)
    service = Service(
        identity,
        [(add_VerifierServiceServicer_to_server, servicer, "cosine.v1.VerifierService")],
        load=lambda: servicer.load,
        background=[servicer.work],
        registrar=membership(settings, identity),
    )
    await serve(settings, service)


if __name__ == "__main__":
    run(main)
