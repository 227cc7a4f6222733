"""`python -m services.drafter`: one small model behind DrafterService."""

from __future__ import annotations

from cosine.peer.model_service import serve_model
from cosine.peer.model_settings import ModelSettings
from cosine.rpc.server import run
from cosine.rpc.settings import read
from cosine.v1.drafter_pb2_grpc import add_DrafterServiceServicer_to_server
from services.drafter.service import DrafterServicer


class DrafterSettings(ModelSettings):
    """A drafter: guesses ahead with a small model."""


async def main() -> None:
    settings = read(DrafterSettings)
    add = add_DrafterServiceServicer_to_server
    await serve_model(settings, "drafter", DrafterServicer, add, "cosine.v1.DrafterService")


if __name__ == "__main__":
    run(main)
