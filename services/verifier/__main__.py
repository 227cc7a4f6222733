"""`python -m services.verifier`: the target model behind VerifierService."""

from __future__ import annotations

from cosine.engine.processors import cpu_dtype
from cosine.peer.model_service import serve_model
from cosine.peer.model_settings import ModelSettings
from cosine.rpc.server import run
from cosine.rpc.settings import read
from cosine.v1.verifier_pb2_grpc import add_VerifierServiceServicer_to_server
from services.verifier.service import VerifierServicer


class VerifierSettings(ModelSettings):
    """A verifier: checks token trees with the target model."""

    def cpu_dtype(self) -> str:
        """A large model is bound by reading its weights: half of the bytes are read in half of the time."""
        return cpu_dtype()


async def main() -> None:
    settings = read(VerifierSettings)
    add = add_VerifierServiceServicer_to_server
    await serve_model(settings, "verifier", VerifierServicer, add, "cosine.v1.VerifierService")


if __name__ == "__main__":
    run(main)
