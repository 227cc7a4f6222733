"""CoSine mesh: many small drafters guess ahead together, one large target decides, the text is the target's own.

    import cosine

    with cosine.Client("127.0.0.1:50050") as client:
        for chunk in client.generate("Once upon a time", max_new_tokens=64):
            print(chunk.text, end="", flush=True)

All errors are MeshErrors with a `reason` for programs, save for the TypeError of an option that does not exist; the
branches are BadRequest, NotFound, Mismatch, Full, Unavailable, Expired and Cancelled (see `cosine.core.errors`). What
may succeed at the next try is tried again before it is raised (see `cosine.RetryPolicy`).

Importing this package loads nothing; the client needs grpcio, grpcio-status, protobuf and numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosine.client import AsyncClient, Chunk, Client, Completion, RetryPolicy
    from cosine.core.errors import BadRequest, Cancelled, Expired, Full, MeshError, Mismatch, NotFound, Unavailable

_CLIENT = ("AsyncClient", "Chunk", "Client", "Completion", "RetryPolicy")
_HOMES = dict.fromkeys(_CLIENT, "cosine.client")

__all__ = [
    "AsyncClient",
    "BadRequest",
    "Cancelled",
    "Chunk",
    "Client",
    "Completion",
    "Expired",
    "Full",
    "MeshError",
    "Mismatch",
    "NotFound",
    "RetryPolicy",
    "Unavailable",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "cosine.core.errors")), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
