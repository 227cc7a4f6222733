"""CoSine mesh: many small drafters guess ahead together, one large target decides, the text is the target's own.

    import cosine

    with cosine.Client("127.0.0.1:50051") as client:
        for chunk in client.generate("Once upon a time", max_new_tokens=64):
            print(chunk.text, end="", flush=True)

Importing this package loads nothing; the client needs grpcio, grpcio-status, protobuf and numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosine.client import AsyncClient, Chunk, Client, Completion
    from cosine.core.errors import MeshError

_HOMES = {
    "AsyncClient": "cosine.client",
    "Chunk": "cosine.client",
    "Client": "cosine.client",
    "Completion": "cosine.client",
    "MeshError": "cosine.core.errors",
}

__all__ = ["AsyncClient", "Chunk", "Client", "Completion", "MeshError"]


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
