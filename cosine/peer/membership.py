"""A peer's place in the registry, from its settings and identity."""

from __future__ import annotations

from collections.abc import Callable

from cosine.core.errors import BadRequest
from cosine.rpc.hello import Identity
from cosine.rpc.settings import ServiceSettings
from cosine.store.connection import Store
from cosine.store.registry import LearnedTime, PeerRecord, Registrar, Registry


def check_redis_url(settings: ServiceSettings) -> None:
    """Raises BadRequest where no Redis is named: without one, peers cannot find one another."""
    if not settings.redis_url:
        raise BadRequest("NO_REDIS_URL", "set --redis-url (COSINE_REDIS_URL), or start all services with `cosine up`")


def open_store(settings: ServiceSettings, identity: Identity) -> Store:
    """The mesh's Redis. Raises BadRequest where none is named or the URL makes no sense."""
    check_redis_url(settings)
    return Store(settings.redis_url, settings.mesh, client_name=identity.peer_id)


def membership(
    settings: ServiceSettings, identity: Identity, learned: Callable[[], tuple[LearnedTime, ...]] = lambda: ()
) -> Registrar:
    """What keeps the peer registered; `learned` is asked at every heartbeat. Raises BadRequest as `open_store` does."""
    record = PeerRecord(
        identity.role,
        identity.peer_id,
        address="",
        incarnation=identity.incarnation,
        model_id=identity.model_id,
        tokenizer_fingerprint=identity.tokenizer_fingerprint,
        vocab_size=identity.vocab_size,
        tokens_max=identity.bounds.tokens_max,
        base_ms=identity.base_ms,
        row_ms=identity.row_ms,
    )
    return Registrar(Registry(open_store(settings, identity)), record, learned)
