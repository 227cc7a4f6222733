"""What the gateway knows of the mesh: the peers as the registry last told, and what follows from them for requests."""

from __future__ import annotations

from collections.abc import AsyncIterator

from cosine.core.errors import Mismatch, Unavailable
from cosine.core.intake import ModelFacts
from cosine.store.registry import SERVING, PeerRecord, Registry

TOKENS_MAX_UNKNOWN = 2048  # before a first verifier has said what it takes


class Catalog:
    """The served model and the peers. `tokens_max` 0 leaves the length to the verifiers."""

    def __init__(self, registry: Registry, fingerprint: str, facts: ModelFacts) -> None:
        self.fingerprint = fingerprint
        self._registry = registry
        self._facts = facts
        self._peers: tuple[PeerRecord, ...] = ()

    async def views(self) -> AsyncIterator[tuple[PeerRecord, ...]]:
        """The registry's watch, remembered on its way."""
        async for peers in self._registry.watch():
            self._peers = peers
            yield peers

    async def peers(self) -> tuple[PeerRecord, ...]:
        """All peers now; as they were last seen while Redis is away."""
        try:
            return await self._registry.peers()
        except Unavailable:
            return self._peers

    def facts(self) -> ModelFacts:
        """The target. Raises Mismatch where a verifier's tokenizer is not ours: its tokens would be other texts."""
        verifiers = [peer for peer in self._peers if peer.role == "verifier" and peer.state == SERVING]
        for verifier in verifiers:
            if verifier.tokenizer_fingerprint != self.fingerprint:
                raise Mismatch(
                    "TOKENIZER_MISMATCH",
                    f"verifier {verifier.peer_id!r} serves {verifier.model_id!r} with tokenizer "
                    f"{verifier.tokenizer_fingerprint[:16]}, this gateway speaks {self.fingerprint[:16]}; "
                    "start both with the same model",
                    {"verifier": verifier.tokenizer_fingerprint, "gateway": self.fingerprint},
                )
        told = [verifier.tokens_max for verifier in verifiers if verifier.tokens_max]
        tokens_max = self._facts.tokens_max or min(told, default=TOKENS_MAX_UNKNOWN)
        return ModelFacts(self._facts.vocab_size, tokens_max, self._facts.eos_token_ids)
