"""`python -m services.drafter`: one small model behind DrafterService."""

from __future__ import annotations

from pydantic import Field

from cosine.engine.base import Engine
from cosine.peer.model_service import serve_model
from cosine.peer.model_settings import ModelSettings
from cosine.rpc.hello import Identity
from cosine.rpc.server import run
from cosine.rpc.settings import read
from cosine.v1.drafter_pb2_grpc import add_DrafterServiceServicer_to_server
from services.drafter.service import DrafterServicer


class DrafterSettings(ModelSettings):
    """A drafter: guesses ahead with a small model."""

    run_ahead: bool = Field(False, description="begin the next step of token fusion while idle, at its own best guess")


async def main() -> None:
    settings = read(DrafterSettings)
    add = add_DrafterServiceServicer_to_server

    def make(engine: Engine, identity: Identity) -> DrafterServicer:
        return DrafterServicer(engine, identity, settings.run_ahead)

    await serve_model(settings, "drafter", make, add, "cosine.v1.DrafterService")


if __name__ == "__main__":
    run(main)
